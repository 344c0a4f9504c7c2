"""A host remembers what ran before a run changed it."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from orchestrator.drivers import ran_before_host


def test_the_first_that_a_run_notes_of_a_step_stands(tmp_path: Path) -> None:
    def note(run: str, step: str, ran: bool | None) -> Any:
        arguments = {"path": str(tmp_path / "x" / "unit.before"), "run": run, "step": step, "ran": ran}
        return ran_before_host.remember(arguments)["ran"]

    assert note("r1", "s1", None) is None
    assert note("r1", "s1", True) is True
    assert note("r1", "s1", False) is True, "an attempt before this one has stopped it"
    assert note("r1", "s2", False) is False
    assert note("r2", "s1", None) is None


def test_without_a_folder_of_its_own_it_is_kept_among_what_is_temporary(tmp_path: Path) -> None:
    host = f"test-{os.getpid()}-{tmp_path.name}"
    folder = Path(tempfile.gettempdir()) / f"continuity-{os.getuid()}" / host
    arguments = {"path": "s%2Fstep.before", "host": host, "run": "r1", "step": "s/step"}
    try:
        assert ran_before_host.remember({**arguments, "ran": True}) == {"ran": True}
        assert [path.name for path in folder.iterdir()] == ["s%2Fstep.before"]
        assert ran_before_host.remember({**arguments, "ran": None}) == {"ran": True}
    finally:
        shutil.rmtree(folder)
