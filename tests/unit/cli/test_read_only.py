"""Whoever only looks needs no right to write: a log on read-only media, or another user's, is read as it is."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.settings import Settings
from tests import labs
from tests.unit.cli.logs import HELD_FOR_LOSS, continuity, told

LOOKS = [("status",), ("status", "r1"), ("history",), ("history", "--verify"), ("report", "r1")]
READABLE, READABLE_FOLDER = 0o444, 0o555
DONE, HELD = 0, 4

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where a user of another uid can come to as well."""
    with tempfile.TemporaryDirectory(prefix="cty", dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def as_reader(folder: Path) -> Command:
    """Runs a command as somebody who can read the estate and write nothing there."""
    home = folder / "home"
    home.mkdir()
    prefix, python = labs.normal_user(home)

    def run(estate: Path, *words: str) -> subprocess.CompletedProcess[str]:
        for root, _, files in os.walk(estate):
            for name in files:
                Path(root, name).chmod(READABLE)
            Path(root).chmod(READABLE_FOLDER)
        argv = [*prefix, python, "-m", "orchestrator", *words, "--estate", str(estate / "estate.yaml")]
        return subprocess.run(
            argv, cwd=labs.ROOT, capture_output=True, text=True, timeout=labs.COMMAND_SECONDS_MAX, check=False
        )

    return run


@pytest.mark.parametrize("is_open", [False, True], ids=["at rest", "open elsewhere"])
def test_a_log_that_cannot_be_written_to_is_read(folder: Path, as_reader: Command, is_open: bool) -> None:
    estate = folder / "estate"
    estate.mkdir()
    store = told(estate, HELD_FOR_LOSS).store
    if not is_open:
        store.close()
    for words in LOOKS:
        done = as_reader(estate, *words)
        assert (done.returncode, done.stderr) == (DONE, ""), words
        assert "r1" in done.stdout or "whole" in done.stdout
    ordered = as_reader(estate, "abort", "r1", "--reason", "no", "--by", "ann")
    assert ordered.returncode == HELD
    assert "the log cannot be written" in ordered.stderr
    store.close()


READER = """
import sys
from pathlib import Path
from orchestrator.stores.sqlite import SqliteStore
store = SqliteStore(Path(sys.argv[1]))
while True:
    print(store.last_seq(), len(store.read_all()), flush=True)
    if not sys.stdin.readline():
        break
"""


def test_who_only_reads_sees_what_others_begin_to_append_later(folder: Path) -> None:
    estate, home = folder / "estate", folder / "home"
    estate.mkdir()
    home.mkdir()
    story = told(estate, HELD_FOR_LOSS)
    log, written = Settings(estate / "estate.yaml").log, story.store.last_seq()
    story.store.close()
    for path, mode in ((log, READABLE), (log.parent, READABLE_FOLDER), (estate, READABLE_FOLDER)):
        path.chmod(mode)
    prefix, python = labs.normal_user(home)
    argv = [*prefix, python, "-c", READER, str(log)]
    piped = subprocess.PIPE
    with subprocess.Popen(argv, cwd=labs.ROOT, stdin=piped, stdout=piped, text=True) as reader:
        assert reader.stdin
        assert reader.stdout
        at_rest = reader.stdout.readline()
        assert at_rest == f"{written} {written}\n"
        done = continuity(estate, "pause", "r1", "--by", "ann")  # by somebody who may write
        assert done.returncode == DONE, done.stderr
        reader.stdin.write("\n")
        reader.stdin.flush()
        assert reader.stdout.readline() == f"{written + 1} {written + 1}\n"
        reader.stdin.close()
    assert reader.returncode == 0


def test_entries_that_can_only_be_brought_in_by_writing_are_said(folder: Path, as_reader: Command) -> None:
    estate, copy = folder / "estate", folder / "copy"
    estate.mkdir()
    story = told(estate, HELD_FOR_LOSS)
    log = Settings(copy / "estate.yaml").log
    log.parent.mkdir(parents=True)
    (copy / "estate.yaml").write_text("# a copy\n", encoding="utf-8")
    for name in ("journal.db", "journal.db-wal"):
        log.with_name(name).write_bytes((estate / log.parent.name / name).read_bytes())
    story.store.close()
    done = as_reader(copy, "status")
    assert done.returncode != DONE
    assert "copy both files to a folder of your own" in done.stderr
    assert done.stdout == ""
