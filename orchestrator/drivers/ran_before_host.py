"""Decides how a host remembers what ran there before a run changed it; must never forget what a run noted first.

HostScript: standard library only, nothing of orchestrator, JSON in and out.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def remember(arguments: Mapping[str, Any], /) -> Mapping[str, Any]:
    """What ran before a run's step first changed it: {ran}, null where that was never noted.

    Arguments: path (a relative one: below a folder of ``host`` among the system's temporary ones), run, step, ran
    (null: only ask). The first that a run notes of a step stands.
    """
    path, run, step = _place(arguments), str(arguments["run"]), str(arguments["step"])
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    noted = known.get("steps", {}) if known.get("run") == run else {}
    if arguments["ran"] is not None and step not in noted:
        noted = {**noted, step: bool(arguments["ran"])}
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        coming = path.with_name(path.name + ".new")
        with coming.open("w", encoding="utf-8") as file:
            file.write(json.dumps({"run": run, "steps": noted}, sort_keys=True) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(coming, path)
        _sync(path.parent)
    return {"ran": noted.get(step)}


def _place(arguments: Mapping[str, Any]) -> Path:
    path = Path(arguments["path"])
    if path.is_absolute():
        return path
    return Path(tempfile.gettempdir()) / f"continuity-{os.getuid()}" / str(arguments["host"]) / path


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
