"""Ctrl-C: one document or plain words, what is safe now, every way to go on; and no terminal is said first."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.cli._stopping import stopped
from orchestrator.engine import lock
from orchestrator.settings import Settings
from tests.unit.cli.logs import HELD_FOR_LOSS, PROMOTED, RUN, continuity, environment, told

REFUSED, STOPPED = 3, 130
SECONDS_MAX = 30.0
NOT_ORDERED = """
plan failover
driver i1
proceed
ok db/inspect
"""


def interrupted(folder: Path, *words: str) -> tuple[int, str, str]:
    """A watcher of a run that this process drives is stopped once it has said something."""
    folder_of_log = Settings(folder / "estate.yaml").log_folder
    lock.acquire(folder_of_log, RUN)
    script = "from orchestrator.cli import main\nmain()"
    try:
        with subprocess.Popen(
            [sys.executable, "-c", script, "watch", *words],
            cwd=folder, env=environment(None), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            first = process.stdout.readline()
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=SECONDS_MAX)
            return process.returncode, first + out, err
    finally:
        lock.release(folder_of_log, RUN)


@pytest.mark.parametrize("words", [("--output", "json"), ()])
def test_ctrl_c_is_said_with_its_code_whatever_was_asked_for(tmp_path: Path, words: tuple[str, ...]) -> None:
    told(tmp_path, PROMOTED)
    code, out, err = interrupted(tmp_path, *words)
    assert code == STOPPED, err
    assert "continuity: stopped: " in err
    assert "continuity status" in err
    if words:
        document = json.loads(out.splitlines()[-1])
        assert (document["error"], document["exit_code"]) == ("stopped", STOPPED)


@pytest.mark.parametrize(
    ("transcript", "is_ordered", "says", "ways"),
    [
        (NOT_ORDERED, False, "nothing was changed", ("abort",)),
        (PROMOTED, True, "in flight: ", ()),
        (HELD_FOR_LOSS, True, "nothing was in flight", ("abort",)),
    ],
)
def test_who_stops_a_driver_is_told_what_is_safe_and_every_way_on(
    tmp_path: Path, transcript: str, is_ordered: bool, says: str, ways: tuple[str, ...]
) -> None:
    run = told(tmp_path, transcript).run
    error = stopped(run)
    assert (error.more["run"], error.more["is_ordered"]) == (RUN, is_ordered)
    assert error.more["state"] == run.state.value
    assert bool(error.more["in_flight"]) == ("in flight: " in says)
    assert says in str(error)
    assert error.instead[:2] == (f"continuity status {RUN}", f"continuity resume {RUN}")
    assert tuple(way.split()[1] for way in error.instead[2:]) == ways


@pytest.mark.parametrize("verb", ["switchover", "failback", "reprotect", "failover"])
def test_no_terminal_is_said_before_anything_is_read(tmp_path: Path, verb: str) -> None:
    done = continuity(tmp_path, verb)
    assert done.returncode == REFUSED, done.stderr
    assert "no terminal to ask on" in done.stderr
    assert f"continuity {verb} --yes" in done.stderr
