"""Applies a unified diff to a copy of the package, exactly: a hunk whose old lines do not stand there once,
and only once, is an error. No fuzz, so that a patch which no longer means what it meant is noticed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HUNK = re.compile(r"@@ .*@@")


class PatchError(Exception):
    """A patch cannot be read, or does not apply."""


@dataclass(frozen=True, slots=True)
class Hunk:
    """Lines of one file that give way to others."""

    file: str
    old: tuple[str, ...]
    new: tuple[str, ...]


def hunks(text: str) -> Iterator[Hunk]:
    """The hunks of a unified diff; line numbers are left aside, the lines themselves say where."""
    file, old, new = "", [], []
    for line in [*text.splitlines(), "@@ @@"]:
        if line.startswith("--- ") or HUNK.match(line):
            if old or new:
                yield Hunk(file, tuple(old), tuple(new))
            old, new = [], []
        elif line.startswith("+++ "):
            file = line[4:].split("\t")[0].removeprefix("b/")
        elif file and line[:1] in (" ", "-", "+", ""):
            if line[:1] != "+":
                old.append(line[1:])
            if line[:1] != "-":
                new.append(line[1:])


def apply(text: str, root: Path) -> list[str]:
    """Apply every hunk below ``root``; the files that were changed."""
    changed = []
    for hunk in hunks(text):
        path = root / hunk.file
        if not path.is_file():
            raise PatchError(f"{hunk.file}: there is no such file")
        lines = path.read_text(encoding="utf-8").splitlines()
        size = len(hunk.old)
        places = [at for at in range(len(lines) - size + 1) if tuple(lines[at : at + size]) == hunk.old]
        if len(places) != 1:
            raise PatchError(f"{hunk.file}: {len(places)} places hold these lines:\n" + "\n".join(hunk.old))
        lines[places[0] : places[0] + size] = hunk.new
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        changed.append(hunk.file)
    if not changed:
        raise PatchError("the patch holds no hunk")
    return changed
