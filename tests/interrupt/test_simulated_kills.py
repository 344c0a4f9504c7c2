"""The driver of every operation is killed at every point that its runs come to, and its successor once more
while it recovers; simulated parts, a real log in one SQLite file, SIGKILL (tests/simulation/chain.py).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
OPERATIONS = ("failback", "failover", "switchover", "reprotect")  # the longest first
SECONDS_MAX = 540  # far more than they need on a machine that does nothing else


def chain(operation: str, folder: Path) -> dict[str, Any]:
    folder.mkdir()
    ended = subprocess.run(
        [sys.executable, "-m", "tests.simulation.chain", operation, str(folder)],
        cwd=ROOT, capture_output=True, text=True, timeout=SECONDS_MAX,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert ended.stderr == "", ended.stderr[-3000:]
    told: dict[str, Any] = json.loads(ended.stdout)
    return told


@pytest.mark.slow
def test_every_point_is_killed_and_every_recovery_too(tmp_path: Path) -> None:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        told = list(pool.map(lambda name: chain(name, tmp_path / name), OPERATIONS))
    for name, found in zip(OPERATIONS, told, strict=True):
        existing, killed, second = set(found["announced"]), set(found["killed"]), found["second"]
        print(
            f"{name}: points killed {len(killed)} of {len(existing)} that exist; killed again while "
            f"recovering {len(second)}; drivers {found['drivers']} in {found['laps']} runs, "
            f"{found['cpu_seconds']} s of processor time"
        )
        assert found["problems"] == [], name
        assert existing == killed, f"{name}: not killed: {sorted(existing - killed)}"
        assert killed == set(second), f"{name}: recovered undisturbed: {sorted(killed - set(second))}"
        missing = sorted(set(found["expected"]) - existing)
        assert not missing, f"{name}: a plan of this kind must come to {missing}"
