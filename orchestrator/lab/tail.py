"""Decides how much of a ledger that is still being written can be counted; must never judge it (``check.py`` does)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path


class Tail:
    """Counts acknowledgements by (table, site) as they come. A line that is not whole yet waits for its end."""

    def __init__(self, ledgers: Iterable[Path]) -> None:
        self._read = dict.fromkeys(ledgers, 0)
        self._tables: dict[Path, str] = {}
        self._acked: Counter[tuple[str, str]] = Counter()

    def look(self) -> None:
        """Read what has been added since the last time."""
        for path, offset in self._read.items():
            try:
                with open(path, "rb") as handle:
                    handle.seek(offset)
                    added = handle.read()
            except FileNotFoundError:
                continue  # its load has only just been started
            whole = added[: added.rfind(b"\n") + 1]
            self._read[path] = offset + len(whole)
            for line in whole.splitlines():
                self._count(path, line)

    def _count(self, path: Path, line: bytes) -> None:
        if line.startswith(b'{"t":"begin"'):
            self._tables[path] = json.loads(line)["table"]
        elif line.startswith(b'{"t":"acked"'):
            self._acked[self._tables[path], json.loads(line)["site"]] += 1

    def acked(self, table: str | None = None, site: str | None = None) -> int:
        """Acknowledgements so far, of all tables and sites unless named."""
        return sum(
            count
            for (of, at), count in self._acked.items()
            if (table is None or of == table) and (site is None or at == site)
        )
