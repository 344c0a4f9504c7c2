"""Where nothing can be rewound an old side is cloned anew; and rejoining survives its driver, anywhere."""

from __future__ import annotations

import dataclasses
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.actions.postgresql_rejoin import RUN, Rejoin, RejoinParams
from orchestrator.core.outcomes import Failed, FindingKind, Succeeded
from tests.real import pgharness, pgmoves
from tests.real.pgharness import CLUSTER, DATABASES, Pair, until

pytestmark = pytest.mark.real

REWIND = RejoinParams(CLUSTER, "h1", "e1", DATABASES, "rewind")
RECLONE = RejoinParams(CLUSTER, "h1", "e1", DATABASES, "reclone")


@pytest.fixture
def pair(pg_lost: Pair, fast_path: Path) -> Iterator[Pair]:
    """Home crashed with rows that the embassy never got; the embassy is the primary."""
    with pgmoves.diverged(pg_lost, fast_path / "p") as made:
        yield made


def rejoin(pair: Pair, params: RejoinParams = REWIND, **more: Any) -> Any:
    return pair.perform(Rejoin(), params, **{"seconds": 60, **more})


def cloned(outcome: Any, because: str) -> None:
    assert isinstance(outcome, Succeeded), outcome
    assert outcome.evidence["how"] == "reclone"
    assert because in outcome.evidence["because"]


def kept(pair: Pair) -> Path:
    return pair.folder / "home" / "evidence" / f"{CLUSTER}-h1-run-1"


def test_people_choose_a_clone_and_the_old_directory_is_moved_aside(pair: Pair) -> None:
    old = pgmoves.contents(pair.data("home"))
    outcome = rejoin(pair, RECLONE)
    cloned(outcome, "as people wanted")
    described = Rejoin().describe(RECLONE, pair.parts).commands
    assert pair.recorded == [text.replace(RUN, "run-1") for text in described]
    assert outcome.evidence["kept"] == str(kept(pair) / "data")
    assert {**pgmoves.contents(kept(pair) / "data"), "standby.signal": ""} == {**old, "standby.signal": ""}
    assert (kept(pair) / "note.json").exists()
    pgmoves.follows(pair)
    assert set(Rejoin().check(pair.context(RECLONE)).evidence) == set(outcome.evidence)


@pytest.mark.parametrize("before", ["nothing", "an empty folder", "another cluster"])
def test_new_hardware_is_cloned(pair: Pair, before: str) -> None:
    data = pair.data("home")
    shutil.rmtree(data)
    if before == "an empty folder":
        data.mkdir(mode=0o700)
    if before == "another cluster":
        argv = [f"{pair.folder}/bin/initdb", "-D", str(data), "-U", "postgres", "-A", "trust", "--no-sync"]
        assert subprocess.run(argv, capture_output=True, cwd="/").returncode == 0
    outcome = rejoin(pair)
    cloned(outcome, "system identifier" if before == "another cluster" else "there is no database")
    assert (kept(pair) / "data").exists() == (before != "nothing")
    pgmoves.follows(pair)


def test_pitfall_7_without_checksums_and_hints_nothing_can_be_rewound(pair: Pair) -> None:
    with (pair.config("home") / "postgresql.conf").open("a") as handle:
        handle.write("wal_log_hints = off\n")
    pgmoves.start(pair, "home")
    pgmoves.stop(pair, "home")
    tool = pair.folder / "bin" / "pg_checksums"
    tool.write_text((pair.folder / "bin" / "pg_ctl").read_text().replace("pg_ctl", "pg_checksums"))
    tool.chmod(0o755)
    argv = [str(tool), "--disable", "--no-sync", "-D", str(pair.data("home"))]
    assert subprocess.run(argv, capture_output=True, cwd="/").returncode == 0
    cloned(rejoin(pair), "neither data checksums nor wal_log_hints")
    assert not any("pg_rewind" in command for command in pair.recorded)
    pgmoves.follows(pair)


def test_pitfall_7_a_role_that_may_not_read_files_cannot_rewind(pair: Pair) -> None:
    for function in pgharness.REWIND_FUNCTIONS:
        pair.ask(
            "embassy", f"REVOKE EXECUTE ON FUNCTION pg_catalog.{function} FROM rewind", database="postgres"
        )
    outcome = rejoin(pair)
    cloned(outcome, "permission denied")
    assert outcome.evidence["kept"] == str(kept(pair) / "data")
    pgmoves.follows(pair)


def test_pitfall_7_the_log_since_the_fork_is_gone(pair: Pair) -> None:
    """Rewound all the same, home would wait for ever for a log that nobody has."""
    pair.ask("embassy", "ALTER SYSTEM SET wal_keep_size = 0")
    pair.ask("embassy", "SELECT pg_reload_conf()")
    oldest = "SELECT min(substr(name, 9)) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'"
    fork = pair.ask("embassy", oldest)

    def is_gone() -> bool:
        pair.ask("embassy", "INSERT INTO rows VALUES (clock_timestamp()::text, '')")
        pair.ask("embassy", "SELECT pg_switch_wal()")
        pair.ask("embassy", "CHECKPOINT")
        return str(pair.ask("embassy", oldest)) > str(fork)

    until(is_gone, "the log stays")
    cloned(rejoin(pair), "the primary's log begins at")
    assert not any("pg_rewind" in command for command in pair.recorded)
    pgmoves.follows(pair)


def test_pitfall_9_a_clone_does_not_wait_for_a_spread_checkpoint(pair: Pair) -> None:
    for setting in (
        "checkpoint_timeout = '1h'",
        "checkpoint_completion_target = 0.99",
        "bgwriter_delay = '10s'",
    ):
        pair.ask("embassy", f"ALTER SYSTEM SET {setting}")
    pair.ask("embassy", "SELECT pg_reload_conf()")
    load = "INSERT INTO rows SELECT 'much-' || n, repeat('x', 500) FROM generate_series(1, 20000) AS n"

    def record(command: str) -> None:
        if "pg_basebackup" in command:
            pair.ask("embassy", load)  # dirty pages again, after our own checkpoint

    context = dataclasses.replace(pair.context(RECLONE, seconds=45), record=record)
    cloned(Rejoin().execute(context), "as people wanted")
    pgmoves.follows(pair)


@pytest.mark.parametrize("params", [REWIND, RECLONE], ids=["rewind", "reclone"])
def test_evidence_on_another_file_system(
    pair: Pair, params: RejoinParams, fast_path: Path, tmp_path: Path
) -> None:
    """Rewound, the old history is copied there; cloned, it is only moved aside."""
    if fast_path.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system")
    cluster = dataclasses.replace(pair.parts.clusters[CLUSTER], evidence_directory=str(tmp_path))
    parts = dataclasses.replace(pair.parts, clusters={CLUSTER: cluster})
    old = pgmoves.contents(pair.data("home"))
    outcome = rejoin(pair, params, parts=parts)
    assert isinstance(outcome, Succeeded), outcome
    assert outcome.evidence["how"] == params.how
    where = Path(outcome.evidence["kept"])
    assert where.is_relative_to(tmp_path) == (params.how == "rewind")
    assert {**pgmoves.contents(where), "standby.signal": ""} == {**old, "standby.signal": ""}
    pgmoves.follows(pair)


# --- the driver dies ----------------------------------------------------------------------------


class Killed(BaseException):
    """The driver dies between two commands."""


def die_at(number: int, sent: list[str]) -> Callable[[str], None]:
    """Die before the command of that number; what was sent until then goes into ``sent``."""

    def record(command: str) -> None:
        if len(sent) + 1 == number:
            raise Killed
        sent.append(command)

    return record


def attempt(pair: Pair, params: RejoinParams, record: Callable[[str], None]) -> Any:
    """One driver's attempt: its outcome, None if it died. What it left behind can be told."""
    context = dataclasses.replace(pair.context(params, seconds=60), record=record)
    assert Rejoin().check(context).kind in (FindingKind.NOT_DONE, FindingKind.DONE)
    try:
        return Rejoin().execute(context)
    except Killed:
        return None


def ended_well(pair: Pair, outcome: Any, old: dict[str, str]) -> None:
    assert isinstance(outcome, Succeeded), outcome
    assert Rejoin().check(pair.context(REWIND)).kind is FindingKind.DONE
    pgmoves.follows(pair)
    assert {**pgmoves.contents(kept(pair) / "data"), "standby.signal": ""} == {**old, "standby.signal": ""}
    assert sorted(path.name for path in pair.data("home").parent.iterdir()) == ["config", "data"]


@pytest.mark.slow
def test_a_rewind_killed_before_its_nth_command_ends_well_for_every_n(pair: Pair, pg_lost: Pair) -> None:
    old = pgmoves.contents(pair.data("home"))
    number = 0
    while True:
        number += 1
        before: list[str] = []
        after: list[str] = []
        if attempt(pair, REWIND, die_at(number, before)) is not None:
            break
        ended_well(pair, attempt(pair, REWIND, die_at(0, after)), old)
        if any("rejoin.new/continuity.rejoin" in command for command in before):
            assert not any("pg_rewind" in command for command in after), before[-1]  # it was done already
        pgmoves.restore_home(pair, pg_lost)
    print(f"killed before each of {number - 1} commands")
    assert number - 1 == len(Rejoin().describe(REWIND, pair.parts).commands)


def test_every_driver_of_a_clone_dies_at_its_next_command(pair: Pair) -> None:
    """Each command is died before once, from what the drivers before left behind."""
    old = pgmoves.contents(pair.data("home"))
    died: list[str] = []

    def record(command: str) -> None:
        if command not in died:
            died.append(command)
            raise Killed

    outcome: Any = None
    while outcome is None:
        assert len(died) < 60, died
        outcome = attempt(pair, RECLONE, record)
    ended_well(pair, outcome, old)
    described = {text.replace(RUN, "run-1") for text in Rejoin().describe(RECLONE, pair.parts).commands}
    assert described <= set(died)
    print(f"{len(died)} drivers died")


DRIVER = """
import sys
from pathlib import Path
from orchestrator.actions.postgresql_rejoin import Rejoin, RejoinParams
from tests.real.pgharness import CLUSTER, DATABASES, Pair
folder, home, embassy = sys.argv[1:]
pair = Pair(Path(folder), {"home": home, "embassy": embassy}, synchronous=False)
print(pair.perform(Rejoin(), RejoinParams(CLUSTER, "h1", "e1", DATABASES, "reclone"), seconds=60))
"""


def test_a_clone_outlives_its_killed_driver_and_is_not_made_twice(pair: Pair) -> None:
    tool = pair.folder / "bin" / "pg_basebackup"
    tool.rename(tool.with_name("real"))
    began, go = pair.folder / "began", pair.folder / "go"
    tool.write_text(
        f'#!/bin/sh\necho x >> "{began}"\nwhile [ ! -e "{go}" ]; do sleep 0.02; done\n'
        f'exec "{tool.with_name("real")}" "$@"\n'
    )
    tool.chmod(0o755)
    root = Path(__file__).resolve().parents[2]
    argv = [sys.executable, "-c", DRIVER, str(pair.folder), pair.addresses["home"], pair.addresses["embassy"]]
    driver = subprocess.Popen(argv, cwd=root, stdout=subprocess.DEVNULL)
    try:
        until(began.exists, "the clone was not begun")
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    assert Rejoin().check(pair.context(RECLONE)).kind is FindingKind.RUNNING
    outcome = rejoin(pair, RECLONE)
    assert isinstance(outcome, Failed)
    assert outcome.retryable
    assert "still at work" in outcome.message
    go.touch()
    until(
        lambda: Rejoin().check(pair.context(RECLONE)).kind is FindingKind.NOT_DONE, "the clone does not end"
    )
    cloned(rejoin(pair, RECLONE), "an earlier attempt has cloned it")
    assert began.read_text() == "x\n"
    pgmoves.follows(pair)
