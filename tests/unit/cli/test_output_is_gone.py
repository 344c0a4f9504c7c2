"""Output that nobody takes: every command says it in one line and by its exit code, and a run is driven to its end."""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import subprocess
import sys
import termios
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import _streams
from orchestrator.core.states import RunState
from orchestrator.engine import lock
from orchestrator.engine.journal import Journal
from orchestrator.settings import Settings
from tests.golden import Logged
from tests.unit.cli.logs import PROMOTED, RUN, environment, told
from tests.unit.cli.people import GO_HOME, a_planned_move, asked, begun

DONE, HELD, UNSAID, STOPPED_READING = 0, 4, 8, 141
SECONDS_MAX = 30.0
READING = [
    ("status",),
    ("status", RUN),
    ("status", "--output", "json"),
    ("watch", "--output", "json"),
    ("history",),
    ("report",),
    ("--help",),
]


def ended(
    folder: Path, words: tuple[str, ...], redirection: str, **streams: Any
) -> subprocess.CompletedProcess[str]:
    """A command as a shell starts it, with a redirection such as ``>&-``."""
    line = f'exec "$@" {redirection}'
    return subprocess.run(
        ["sh", "-c", line, "sh", sys.executable, "-m", "orchestrator", *words],
        cwd=folder, env=environment("Anna Tamm"), text=True, timeout=SECONDS_MAX,
        **{"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE, **streams},
    )  # fmt: skip


def a_pipe_without_reader() -> int:
    reads, writes = os.pipe()
    os.close(reads)
    return writes


def state(story: Logged) -> RunState:
    def plan(text: str) -> Any:
        return story.plan

    return Journal(story.store, plan).load(RUN).run.state


@pytest.mark.parametrize("words", READING)
@pytest.mark.parametrize(
    ("redirection", "why"), [(">&-", "Bad file descriptor"), (">/dev/full", "No space left on device")]
)
def test_an_answer_that_cannot_be_written_is_said_in_one_line(
    tmp_path: Path, words: tuple[str, ...], redirection: str, why: str
) -> None:
    told(tmp_path, f"{PROMOTED}pause\n")
    done = ended(tmp_path, words, redirection)
    assert done.returncode == UNSAID, done.stderr
    assert f"continuity: the answer could not be written to stdout ({why});" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", READING)
def test_a_reader_that_went_away_is_told_nothing(tmp_path: Path, words: tuple[str, ...]) -> None:
    told(tmp_path, f"{PROMOTED}pause\n")
    writes = a_pipe_without_reader()
    done = ended(tmp_path, words, "", stdout=writes)
    os.close(writes)
    assert done.returncode == STOPPED_READING
    assert done.stderr == ""


def test_who_watches_for_nobody_ends_though_nothing_happens(tmp_path: Path) -> None:
    """``watch | head -1``: the run is under way and driven, and says nothing for long."""
    told(tmp_path, PROMOTED)
    folder = Settings(tmp_path / "estate.yaml").log_folder
    lock.acquire(folder, RUN)
    try:
        with subprocess.Popen(
            [sys.executable, "-m", "orchestrator", "watch"],
            cwd=tmp_path, env=environment(None), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as watch:  # fmt: skip
            assert watch.stdout is not None
            assert watch.stderr is not None
            assert watch.stdout.readline()
            watch.stdout.close()
            assert watch.wait(SECONDS_MAX) == STOPPED_READING
            assert watch.stderr.read() == ""
    finally:
        lock.release(folder, RUN)


@pytest.mark.parametrize(
    ("redirection", "code", "says"),
    [
        (">&-", UNSAID, "could not be written to stdout (Bad file descriptor)"),
        (">/dev/full", UNSAID, "could not be written to stdout (No space left on device)"),
        ("2>&-", DONE, ""),
        ("2>/dev/full", DONE, ""),
        (">/dev/full 2>&1", UNSAID, ""),
        (">&- 2>&- <&-", UNSAID, ""),
    ],
)
@pytest.mark.parametrize("more", [(), ("--output", "json")])
def test_a_run_whose_output_is_gone_is_driven_to_its_end(
    tmp_path: Path, redirection: str, code: int, says: str, more: tuple[str, ...]
) -> None:
    story = begun(tmp_path, a_planned_move(asked(GO_HOME)), ordered=False)
    done = ended(tmp_path, ("resume", RUN, "--yes", *more), redirection, stdout=subprocess.PIPE)
    assert done.returncode == code, done.stderr
    assert state(story) is RunState.DONE
    assert says in done.stderr
    if says:
        assert "DONE" in done.stderr, "what goes on is still said"
    elif code == DONE and more:
        assert json.loads(done.stdout)["outcome"] == "done"


@pytest.mark.parametrize("gone", ["stdout", "stderr", "both"])
def test_a_run_whose_reader_went_away_is_driven_to_its_end(tmp_path: Path, gone: str) -> None:
    story = begun(tmp_path, a_planned_move(asked(GO_HOME)), ordered=False)
    writes = a_pipe_without_reader()
    streams: Mapping[str, Any] = {
        "stdout": writes if gone != "stderr" else subprocess.PIPE,
        "stderr": writes if gone != "stdout" else subprocess.PIPE,
    }
    done = ended(tmp_path, ("resume", RUN, "--yes"), "", **streams)
    os.close(writes)
    assert done.returncode == (DONE if gone == "stderr" else STOPPED_READING)
    assert state(story) is RunState.DONE
    if gone == "stdout":
        assert "DONE" in done.stderr
        assert "Traceback" not in done.stderr


def a_full_pipe() -> tuple[int, int]:
    """Nobody reads it, and nobody has gone away: a stopped pager. (where to read, where to write)"""
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writes, b"x" * select.PIPE_BUF)
    os.set_blocking(writes, True)
    return reads, writes


def test_a_run_whose_words_nobody_takes_is_driven_to_its_end(tmp_path: Path) -> None:
    story = begun(tmp_path, a_planned_move(asked(GO_HOME)), ordered=False)
    reads, writes = a_full_pipe()
    done = ended(tmp_path, ("resume", RUN, "--yes"), "", stdout=subprocess.PIPE, stderr=writes)
    assert done.returncode == DONE
    assert state(story) is RunState.DONE
    assert os.get_blocking(writes), "the pipe is others' too"
    os.close(writes)
    os.close(reads)


def test_what_was_left_out_is_counted_once_somebody_reads_again() -> None:
    reads, writes = a_full_pipe()
    said = io.TextIOWrapper(io.BufferedWriter(_streams._Patient(writes)), line_buffering=True)
    for _ in range(3):
        print("lost", file=said)
    with open(reads, "rb", buffering=0) as reader:
        os.set_blocking(reads, False)
        while reader.read(1 << 20):
            pass
        print("taken", file=said)
        assert reader.read() == b"\n(3 pieces of output were not taken, and are left out)\ntaken\n"
    os.close(writes)


def test_a_terminal_that_was_stopped_holds_no_driver_up(tmp_path: Path) -> None:
    """Ctrl-S at a terminal."""
    story = begun(tmp_path, a_planned_move(asked(GO_HOME)), ordered=False)
    ours, theirs = os.openpty()
    termios.tcflow(theirs, termios.TCOOFF)
    done = ended(tmp_path, ("resume", RUN, "--yes"), "", stdout=subprocess.PIPE, stderr=theirs)
    assert done.returncode == DONE
    assert state(story) is RunState.DONE
    os.close(theirs)
    os.close(ours)


def test_how_a_command_ended_counts_for_more_than_its_answer(tmp_path: Path) -> None:
    """A run that is held is told by its code, also where the answer is lost."""
    begun(tmp_path, a_planned_move(asked("one/ask")), ordered=False)
    done = ended(tmp_path, ("resume", RUN, "--yes"), ">/dev/full")
    assert done.returncode == HELD
    assert "could not be written to stdout" in done.stderr


def test_an_order_whose_answer_is_lost_was_taken_and_says_how_it_goes_on(tmp_path: Path) -> None:
    story = begun(tmp_path, a_planned_move(asked("one/ask")), ordered=True)
    done = ended(tmp_path, ("pause", RUN), ">/dev/full")
    assert done.returncode == UNSAID
    assert state(story) is RunState.PAUSED
    assert f"continuity resume {RUN}" in done.stderr
