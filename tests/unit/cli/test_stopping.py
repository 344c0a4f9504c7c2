"""Ctrl-C, SIGTERM, SIGHUP: one document or plain words, what is safe now, every way to go on; and no terminal is said first."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.cli._stopping import stopped
from orchestrator.engine import lock
from orchestrator.settings import Settings
from tests.unit.cli.logs import HELD_FOR_LOSS, PROMOTED, RUN, continuity, environment, told
from tests.unit.cli.people import ONE, a_planned_move, asked, begun

REFUSED, SIGNALLED = 3, 128
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SECONDS_MAX = 30.0
NOT_ORDERED = """
plan failover
driver i1
proceed
ok db/inspect
"""


def interrupted(folder: Path, number: signal.Signals, *words: str) -> tuple[int, str, str]:
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
            process.send_signal(number)
            out, err = process.communicate(timeout=SECONDS_MAX)
            return process.returncode, first + out, err
    finally:
        lock.release(folder_of_log, RUN)


@pytest.mark.parametrize("number", ENDING)
@pytest.mark.parametrize("words", [("--output", "json"), ()])
def test_what_stops_a_command_is_said_with_its_code_whatever_was_asked_for(
    tmp_path: Path, words: tuple[str, ...], number: signal.Signals
) -> None:
    told(tmp_path, PROMOTED)
    code, out, err = interrupted(tmp_path, number, *words)
    assert code == SIGNALLED + number, err
    assert "Traceback" not in err
    assert "continuity: stopped: " in err
    assert "continuity status" in err
    if words:
        document = json.loads(out.splitlines()[-1])
        assert (document["error"], document["exit_code"]) == ("stopped", SIGNALLED + number)


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


@contextlib.contextmanager
def a_driver_that_asks(folder: Path, before: str = "") -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """It has a terminal of its own, which hangs up when the other end is closed; its document goes to a file."""
    story = begun(folder, a_planned_move(asked(ONE)), ordered=True)
    ours, theirs = pty.openpty()
    script = (
        f"{before}\nimport os\nos.open(os.ttyname(0), os.O_RDWR)\nfrom orchestrator.cli import main\nmain()"
    )
    with (
        (folder / "out").open("wb") as out,
        subprocess.Popen(
            [sys.executable, "-c", script, "resume", RUN, "--output", "json"],
            cwd=folder, env=environment("Anna"), stdin=theirs, stdout=out, stderr=theirs, start_new_session=True,
        ) as process,
    ):  # fmt: skip
        os.close(theirs)
        try:
            said = b""
            while b"to go on: " not in said:
                said += os.read(ours, 4096)
            yield process, ours
        finally:
            process.kill()
    story.store.close()


def ended_in_order(folder: Path, process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    assert process.wait(SECONDS_MAX) == SIGNALLED + number
    document = json.loads((folder / "out").read_text())
    assert (document["error"], document["exit_code"]) == ("stopped", SIGNALLED + number)
    assert (document["run"], document["state"], document["is_ordered"]) == (RUN, "held", True)
    assert document["instead"][:2] == [f"continuity status {RUN}", f"continuity resume {RUN}"]
    assert lock.driver_pid(Settings(folder / "estate.yaml").log_folder, RUN) == 0


@pytest.mark.parametrize("number", ENDING)
def test_a_driver_that_is_stopped_at_its_prompt_says_how_to_go_on(
    tmp_path: Path, number: signal.Signals
) -> None:
    with a_driver_that_asks(tmp_path) as (process, ours):
        process.send_signal(number)
        ended_in_order(tmp_path, process, number)
        assert b"nobody drives it now" in os.read(ours, 4096)
        os.close(ours)


def test_a_driver_whose_terminal_is_gone_ends_in_order_though_nobody_sees_it(tmp_path: Path) -> None:
    with a_driver_that_asks(tmp_path) as (process, ours):
        os.close(ours)
        ended_in_order(tmp_path, process, signal.SIGHUP)


def test_a_second_signal_does_not_cut_off_what_is_said(tmp_path: Path) -> None:
    """The end of a session sends both; here the second comes while the first is being told."""
    before = (
        "import os, signal\nfrom orchestrator.cli import _stopping\nsaid = _stopping.stopped\n"
        "def stopped(*of):\n    os.kill(os.getpid(), signal.SIGHUP)\n    return said(*of)\n"
        "_stopping.stopped = stopped"
    )
    with a_driver_that_asks(tmp_path, before) as (process, ours):
        process.send_signal(signal.SIGTERM)
        ended_in_order(tmp_path, process, signal.SIGTERM)
        os.close(ours)


def test_who_was_started_to_outlive_its_terminal_does(tmp_path: Path) -> None:
    """``nohup``: a SIGHUP that is ignored stays ignored."""
    before = "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)"
    with a_driver_that_asks(tmp_path, before) as (process, ours):
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        ended_in_order(tmp_path, process, signal.SIGTERM)
        os.close(ours)


@pytest.mark.parametrize("verb", ["switchover", "failback", "reprotect", "failover"])
def test_no_terminal_is_said_before_anything_is_read(tmp_path: Path, verb: str) -> None:
    done = continuity(tmp_path, verb)
    assert done.returncode == REFUSED, done.stderr
    assert "no terminal to ask on" in done.stderr
    assert f"continuity {verb} --yes" in done.stderr
