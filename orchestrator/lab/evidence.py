"""Decides what of a lab outlives it: the records of its runs, in ``CONTINUITY_HOME/reports``."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import shutil
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.lab import layout
from orchestrator.lab.layout import SITES, Lab, write_file

if TYPE_CHECKING:
    from orchestrator.core.run import Run


@dataclass(frozen=True, slots=True)
class Recorded:
    """A run as the log tells it, and its record as ``continuity report`` prints it."""

    run: Run
    document: dict[str, Any]


def folder_for(lab: Lab) -> Path:
    """A new folder for what one demo leaves behind."""
    now = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ")
    folder = layout.continuity_home() / "reports" / f"{now}-lab{lab.number}-{os.getpid()}"
    folder.mkdir(mode=0o700, parents=True)
    return folder


def write(path: Path, document: Mapping[str, Any]) -> Path:
    write_file(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    return path


def read_run(lab: Lab, name: str) -> Recorded:
    """Read a run from the lab's log. RefusedError when the log does not hold it."""
    from orchestrator.bootstrap.app import open_app
    from orchestrator.reports.record import record

    app = open_app(str(lab.estate))
    try:
        return Recorded(app.journal.load(name).run, record(app.journal, name))
    finally:
        app.close()


def keep_log(lab: Lab, folder: Path) -> None:
    """Copy the estate's log, whole, as of now."""
    source = lab.estate.parent / ".continuity" / "journal.db"
    if not source.exists():
        return
    with (
        contextlib.closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as log,
        contextlib.closing(sqlite3.connect(folder / "journal.db")) as copy,
    ):
        log.backup(copy)
    os.chmod(folder / "journal.db", 0o600)


def keep_all(lab: Lab, folder: Path) -> None:
    """Keep what tells why a demo failed: the log, the ledgers, and what every program said."""
    with contextlib.suppress(OSError, sqlite3.Error):
        keep_log(lab, folder)
    for name, source in (
        ("outside", lab.path / "outside"),
        ("load", lab.load_folder),
        *((site, lab.site(site).logs) for site in SITES),
    ):
        for path in (*source.glob("*.log"), *source.glob("*.out"), *source.glob("*.jsonl")):
            with contextlib.suppress(OSError):
                (folder / name).mkdir(mode=0o700, exist_ok=True)
                shutil.copyfile(path, folder / name / path.name)
