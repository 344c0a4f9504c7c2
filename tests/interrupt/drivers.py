"""Drivers for tests: separate processes, forked by a parent that has imported everything already."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.bootstrap.app import App
from orchestrator.lab.layout import Lab
from orchestrator.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a chain of drivers ended: the last one's exit code, the run, drivers and kills, the time it took."""

    code: int
    run: str
    drivers: int
    kills: int
    seconds: float


class Drivers:
    """Orders drivers for one lab. ``log`` holds all that they printed."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.log = folder / "drivers.log"
        self._parent = subprocess.Popen(
            [sys.executable, "-m", "tests.interrupt.nursery", str(folder)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._read()

    def close(self) -> None:
        assert self._parent.stdin
        assert self._parent.stdout
        self._parent.stdin.close()
        self._parent.stdout.close()
        self._parent.wait(10)

    def order(self, do: str, **more: Any) -> dict[str, Any]:
        assert self._parent.stdin
        self._parent.stdin.write(json.dumps({"do": do, **more}) + "\n")
        self._parent.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._parent.stdout
        line = self._parent.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "the parent of the drivers is gone"}
        assert "error" not in answer, f"{answer['error']}\n{self.said()}"
        return answer

    def said(self) -> str:
        """The end of what the drivers printed."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-6000:] if self.log.exists() else ""

    def journal(self) -> App:
        """A reader's view of the lab's log; close it after use."""
        return App(Settings(self.lab.estate))

    def runs(self) -> list[str]:
        app = self.journal()
        try:
            return app.journal.runs()
        finally:
            app.close()

    def _ordered(self, operation: str, more: dict[str, Any]) -> dict[str, Any]:
        known = {"estate": str(self.lab.estate), "operation": operation, "by": "a test"}
        return {**known, "runs_before": len(self.runs()), **more}

    def drive(self, operation: str, **more: Any) -> Ended:
        """Drive an operation to its end; with ``memory`` drivers die at each point not killed before."""
        order = self._ordered(operation, more)
        answer = self.order("chain", **order)
        run = self.runs()[order["runs_before"] :]
        return Ended(
            answer["code"], run[0] if run else "", answer["drivers"], answer["kills"], answer["seconds"]
        )

    def start(self, operation: str, **more: Any) -> int:
        """Start a driver and return its pid at once; ``runs_before`` as given takes up a run."""
        return int(self.order("start", **self._ordered(operation, more))["pid"])

    def end(self, pid: int) -> int:
        """Wait for a started driver; its exit code."""
        return int(self.order("end", pid=pid)["code"])

    def orphans(self) -> dict[str, str]:
        found: dict[str, str] = self.order("orphans")["orphans"]
        return found


@contextlib.contextmanager
def drivers_for(lab: Lab, folder: Path) -> Iterator[Drivers]:
    found = Drivers(lab, folder)
    try:
        yield found
    finally:
        found.close()
