"""Decides what the checks of meaning are given: every file that was read, and where to note what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.core.model import Estate
from orchestrator.ports import Catalog
from orchestrator.runbook.loader import Document
from orchestrator.runbook.problems import Problems, YamlPath
from orchestrator.runbook.references import Text


@dataclass(frozen=True, slots=True)
class Parsed:
    """One file after its shape was checked. ``value`` is None when nothing of it can be used.

    ``names``: what each section declares (``hosts``, ``components``, …) before anything was cut out,
    so that a reference to a faulty part is not called unknown. ``texts``: every text of ``value``.
    """

    document: Document
    value: Any
    names: Mapping[str, frozenset[str]]
    texts: tuple[Text, ...]


@dataclass(frozen=True, slots=True)
class Sources:
    """Everything read, for the checks of meaning."""

    estate: Parsed | None
    runbooks: tuple[Parsed, ...]
    unread: tuple[str, ...]  # stems of runbook files that could not be read at all
    problems: Problems
    warnings: list[str]
    catalog: Catalog | None

    @property
    def known_estate(self) -> Estate | None:
        """The estate as far as it could be read."""
        found = self.estate.value if self.estate is not None else None
        return found if isinstance(found, Estate) else None

    def note(self, parsed: Parsed, path: YamlPath, message: str, hint: str) -> None:
        line, printed = parsed.document.place(path)
        self.problems.add(parsed.document.file, line, printed, message, hint)
