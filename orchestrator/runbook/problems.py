"""Decides how problems are collected, ordered, worded and printed; must never look for any itself.

A YAML path is a tuple of keys and list indexes; people read it as ``components.database.needs[0]``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from orchestrator.errors import Problem

YamlPath: TypeAlias = tuple[str | int, ...]

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+\Z")
SUGGESTIONS_MAX = 3
LISTED_MAX = 12


def path_text(path: Sequence[str | int]) -> str:
    """``("steps", 0, "with")`` as ``steps[0].with``; keys that are no plain word are quoted."""
    text = ""
    for item in path:
        if isinstance(item, int):
            text += f"[{item}]"
        elif _PLAIN_KEY.match(item):
            text += f".{item}" if text else item
        else:
            text += f'["{item}"]'
    return text


def suggest(word: str, known: Iterable[str], *, none: str = "") -> str:
    """A hint: the nearest known words, else all of them, else ``none``."""
    names = sorted(set(known))
    near = difflib.get_close_matches(word, names, n=SUGGESTIONS_MAX, cutoff=0.6)
    if near:
        return "did you mean " + " or ".join(f"`{name}`" for name in near) + "?"
    if not names:
        return none or "none is declared"
    shown = ", ".join(f"`{name}`" for name in names[:LISTED_MAX])
    more = f" and {len(names) - LISTED_MAX} more" if len(names) > LISTED_MAX else ""
    return f"known: {shown}{more}"


class Problems:
    """All problems found so far. A place that already has a problem takes no second one of the
    shape (``unless_known``), since the second is mostly a consequence of the first."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, int, str, str], Problem] = {}
        self._places: set[tuple[str, str]] = set()

    def __len__(self) -> int:
        return len(self._found)

    def add(
        self, file: str, line: int, path: str, message: str, hint: str, *, unless_known: bool = False
    ) -> None:
        """Note one problem; the same one twice is kept once."""
        if unless_known and (file, path) in self._places:
            return
        self._places.add((file, path))
        self._found.setdefault((file, line, path, message), Problem(file, line, path, message, hint))

    def ordered(self) -> tuple[Problem, ...]:
        """By file, line, path and message."""
        return tuple(self._found[key] for key in sorted(self._found))
