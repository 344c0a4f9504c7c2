"""The path of a failover on real PostgreSQL: close, verify, measure, promote, epoch, open, canary."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from orchestrator.actions.postgresql_canary import Canary, CanaryParams
from orchestrator.actions.postgresql_close import Close, CloseParams, Open, OpenParams
from orchestrator.actions.postgresql_freeze import Checkpoint, CheckpointParams
from orchestrator.actions.postgresql_inspect import Inspect, InspectParams
from orchestrator.actions.postgresql_promote import Epoch, EpochParams, Promote, PromoteParams
from orchestrator.actions.postgresql_verify import Measure, MeasureParams, Verify, VerifyParams
from orchestrator.core.outcomes import Failed, FindingKind, Succeeded, Unknown
from tests.real import pgharness
from tests.real.pgharness import CLUSTER, DATABASES, Load, Pair, standing_still, until

pytestmark = pytest.mark.real

INSPECT = InspectParams(CLUSTER, "e1", DATABASES, "home", "embassy")
CLOSE = CloseParams(CLUSTER, "e1")
OPEN = OpenParams(CLUSTER, "e1")
VERIFY = VerifyParams(CLUSTER, "e1", DATABASES, "home", 1)
MEASURE = MeasureParams(CLUSTER, "e1", DATABASES)
PROMOTE = PromoteParams(CLUSTER, "e1", DATABASES, "home", 1)
EPOCH = EpochParams(CLUSTER, "e1", DATABASES, 2, "embassy", "home", 1, "local")


@pytest.fixture
def any_version(pg_any: Pair, tmp_path: Path) -> Iterator[Pair]:
    """With each PostgreSQL that is here."""
    with pgharness.running(pg_any, tmp_path / "p") as made:
        yield made


def warm(pair: Pair) -> None:
    for action, params in (
        (Close(), CLOSE),
        (Verify(), VERIFY),
        (Promote(), PROMOTE),
        (Epoch(), EPOCH),
        (Open(), OPEN),
    ):
        action.load(pair.context(params))


def test_steps_that_warm_at_once_open_one_session_a_database(pair: Pair) -> None:
    """Each session of a server reads its configuration again at every reload: on the way to the first write."""
    together = [threading.Thread(target=warm, args=(pair,)) for _ in range(4)]
    for each in together:
        each.start()
    for each in together:
        each.join()
    ours = "SELECT count(*) FROM pg_stat_activity WHERE starts_with(application_name, 'cty:')"
    assert pair.ask("embassy", ours) == len(DATABASES) + 1  # and the one for the whole server


def timed(pair: Pair, figures: dict[str, float], name: str, action: Any, params: Any) -> Any:
    began = time.perf_counter()
    outcome = pair.perform(action, params, step=f"{CLUSTER}/{name}")
    figures[name] = (time.perf_counter() - began) * 1000
    assert isinstance(outcome, Succeeded), outcome
    return outcome


def test_failover_path_and_its_cost(any_version: Pair) -> None:
    pair = any_version
    assert isinstance(pair.perform(Inspect(), INSPECT), Succeeded)
    with Load(pair, "home") as load:
        load.wait(100)
        warm(pair)
        pair.kill_site("home")
    figures: dict[str, float] = {}
    timed(pair, figures, "close", Close(), CLOSE)
    timed(pair, figures, "verify", Verify(), VERIFY)
    measured = timed(pair, figures, "measure", Measure(), MEASURE).evidence
    assert measured["durability"] == "remote"
    assert measured["heartbeat_ns"]
    timed(pair, figures, "promote", Promote(), PROMOTE)
    timed(pair, figures, "epoch", Epoch(), EPOCH)
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):  # committed, and still closed
        pair.ask("embassy", "INSERT INTO rows VALUES ('early', '')")
    timed(pair, figures, "open", Open(), OPEN)
    timed(pair, figures, "canary", Canary(), CanaryParams(CLUSTER, "e1", "population"))
    print({name: round(figure, 1) for name, figure in figures.items()})
    with pair.connect("embassy") as session:
        have = {row[0] for row in session.execute("SELECT id FROM rows")}
        row = session.execute("SELECT epoch, site, run, durability FROM continuity.writer").fetchone()
    assert set(load.acknowledged) <= have
    assert row == (2, "embassy", "run-1", "local")


@pytest.fixture
def promoted(pair: Pair) -> Pair:
    pair.perform(Close(), CLOSE)
    pair.kill_site("home")
    assert isinstance(pair.perform(Promote(), PROMOTE), Succeeded)
    return pair


# --- promote ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "params",
    [
        pytest.param(replace(PROMOTE, expect_epoch=2), id="another-epoch"),
        pytest.param(replace(PROMOTE, expect_site="embassy"), id="another-site"),
    ],
)
def test_no_row_no_promotion(pair: Pair, params: PromoteParams) -> None:
    for one in (params, replace(params, databases=("population",))):
        outcome = pair.perform(Promote(), one)
        assert isinstance(outcome, Failed), outcome
    assert pair.ask("embassy", "SELECT pg_is_in_recovery()") is True
    assert Promote().check(pair.context(PROMOTE)).kind is FindingKind.NOT_DONE


def test_one_database_with_another_row_is_enough_to_refuse(pair: Pair) -> None:
    pair.ask("home", "UPDATE continuity.writer SET epoch = 7", database="land")
    pair.wait_caught_up()
    outcome = pair.perform(Promote(), PROMOTE)
    assert isinstance(outcome, Failed)
    assert "land" in outcome.message
    assert pair.ask("embassy", "SELECT pg_is_in_recovery()") is True


def freeze_process(pair: Pair, backend_type: str, site: str = "embassy") -> int:
    return int(pair.ask(site, f"SELECT pid FROM pg_stat_activity WHERE backend_type = '{backend_type}'"))


def test_promote_check_before_sent_running_and_done(pair: Pair) -> None:
    action = Promote()
    pair.perform(Close(), CLOSE)
    assert action.check(pair.context(PROMOTE)).kind is FindingKind.NOT_DONE
    # The startup process stands still: the order lies there, and nobody acts on it.
    startup = freeze_process(pair, "startup")
    cancelled = threading.Event()
    context = pair.context(PROMOTE, cancelled=cancelled)
    outcomes: list[Any] = []
    os.kill(startup, signal.SIGSTOP)
    try:
        thread = threading.Thread(target=lambda: outcomes.append(action.execute(context)))
        thread.start()
        until((pair.data("embassy") / "promote").exists, "the order was not sent")
        running = action.check(pair.context(PROMOTE))
        cancelled.set()
        thread.join(5)
        assert isinstance(outcomes[0], Unknown), outcomes  # cancelled after it was sent: nobody knows
        sent = action.check(pair.context(PROMOTE))
    finally:
        os.kill(startup, signal.SIGCONT)
    assert running.kind is FindingKind.RUNNING
    assert sent.kind is FindingKind.RUNNING, sent
    until(lambda: not pair.ask("embassy", "SELECT pg_is_in_recovery()"), "not promoted")
    done = action.check(pair.context(PROMOTE))
    assert done.kind is FindingKind.DONE
    assert done.evidence["timeline"] == 2


def test_promote_check_does_not_take_another_runs_promotion_for_its_own(pair: Pair) -> None:
    pair.ask("embassy", "SELECT pg_promote()")
    assert Promote().check(pair.context(PROMOTE)).kind is FindingKind.CANNOT_TELL
    pair.recorded.clear()
    assert isinstance(pair.perform(Promote(), PROMOTE, run="run-2"), Failed)
    assert not any("pg_promote" in text or "claim" in text for text in pair.recorded)
    for run in ("run-1", "run-2"):  # nor did run-2 make it its own by trying
        assert Promote().check(pair.context(PROMOTE, run=run)).kind is FindingKind.CANNOT_TELL


def test_a_crash_after_the_promotion_goes_on_at_the_epoch(promoted: Pair) -> None:
    """Never at promote: it is seen to be done, and is not sent again."""
    assert Promote().check(promoted.context(PROMOTE, number=2)).kind is FindingKind.DONE
    promoted.recorded.clear()
    assert isinstance(promoted.perform(Promote(), PROMOTE, number=2), Succeeded)
    assert not any("pg_promote" in text for text in promoted.recorded)
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        promoted.ask("embassy", "INSERT INTO rows VALUES ('before', 'the epoch')")
    assert isinstance(promoted.perform(Epoch(), EPOCH), Succeeded)


def test_pitfall_1_a_promotion_right_after_the_primary_died_does_not_stall(pair: Pair) -> None:
    """Ordered in the moment in which the standby's next try to stream begins, a promotion waits for the
    rest of wal_retrieve_retry_interval: 5 s by default, which closing sets to 1 ms.

    The embassy's postmaster stands still so that the moment lasts: the try was asked for, not begun.
    """
    assert pair.ask("embassy", "SELECT current_setting('wal_retrieve_retry_interval')") == "5s"
    warm(pair)
    assert isinstance(pair.perform(Close(), CLOSE), Succeeded)
    asks = (
        "SELECT (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walreceiver'),"
        " (SELECT wait_event FROM pg_stat_activity WHERE backend_type = 'startup')"
    )
    outcomes: list[Any] = []
    thread = threading.Thread(target=lambda: outcomes.append(pair.perform(Promote(), PROMOTE)))
    with pair.connect("embassy") as session:
        with standing_still(pair.postmaster("embassy")):
            pair.kill_site("home")
            wanted = (0, "RecoveryWalStream")
            until(lambda: session.execute(asks).fetchone() == wanted, "the receiver lives on")
            thread.start()
            until((pair.data("embassy") / "promote").exists, "the order was not sent")
        began = time.perf_counter()
        thread.join(15)
        took = time.perf_counter() - began
    assert isinstance(outcomes[0], Succeeded), outcomes
    print(f"promoted in {took * 1000:.0f} ms")
    assert took < 2


def test_pitfall_5_the_new_timeline_is_not_read_from_the_control_file(pair: Pair) -> None:
    """It says the old one until the checkpoint after the promotion has ended."""
    pair.ask("home", "INSERT INTO rows SELECT g::text, 'dirty pages' FROM generate_series(1, 20000) g")
    pair.perform(Close(), CLOSE)
    pair.kill_site("home")
    outcome = pair.perform(Promote(), PROMOTE)
    on_disk = pair.ask("embassy", "SELECT timeline_id FROM pg_control_checkpoint()")
    assert isinstance(outcome, Succeeded)
    assert (on_disk, outcome.evidence["timeline"]) == (1, 2)
    checkpoint = pair.perform(Checkpoint(), CheckpointParams(CLUSTER, "e1"))
    assert checkpoint.evidence["timeline"] == 2
    assert pair.ask("embassy", "SELECT timeline_id FROM pg_control_checkpoint()") == 2


def test_what_is_described_is_what_is_sent(pair: Pair) -> None:
    pair.perform(Close(), CLOSE)
    pair.kill_site("home")
    for action, params in ((Promote(), PROMOTE), (Epoch(), EPOCH)):
        pair.recorded.clear()
        pair.perform(action, params)
        described = action.describe(params, pair.parts).commands
        # the databases' rows are set at the same time, in no order
        assert sorted(pair.recorded) == sorted(described)


# --- epoch --------------------------------------------------------------------------------------


def rows_of(pair: Pair) -> set[tuple[Any, ...]]:
    found = set()
    for database in DATABASES:
        with pair.connect("embassy", database) as session:
            found.add(session.execute("SELECT epoch, site, run FROM continuity.writer").fetchone())
    return found  # type: ignore[return-value]


def test_epoch_is_compared_and_set_in_every_database(promoted: Pair) -> None:
    action = Epoch()
    assert action.check(promoted.context(EPOCH)).kind is FindingKind.NOT_DONE
    assert isinstance(promoted.perform(action, EPOCH), Succeeded)
    assert rows_of(promoted) == {(2, "embassy", "run-1")}
    assert action.check(promoted.context(EPOCH)).kind is FindingKind.DONE
    assert isinstance(promoted.perform(action, EPOCH, number=2), Succeeded)  # equal, same run
    other = promoted.perform(action, EPOCH, run="run-2")  # equal, another run
    assert isinstance(other, Failed)
    assert "run-1" in other.message
    assert action.check(promoted.context(EPOCH, run="run-2")).kind is FindingKind.NOT_DONE
    late = replace(EPOCH, epoch=3, expect_epoch=1)  # the row has moved on
    assert isinstance(promoted.perform(action, late, run="run-2"), Failed)
    assert rows_of(promoted) == {(2, "embassy", "run-1")}


def test_a_site_that_stands_is_given_the_next_epoch_over_what_a_run_left_half_done(promoted: Pair) -> None:
    action = Epoch()
    assert isinstance(promoted.perform(action, EPOCH), Succeeded)
    held = replace(EPOCH, expect_site="embassy", expect_epoch=2)
    half = replace(held, databases=DATABASES[:1], epoch=3)
    assert isinstance(promoted.perform(action, half, run="run-2"), Succeeded)
    wanted = replace(held, epoch=4)
    assert isinstance(promoted.perform(action, wanted, run="run-3"), Failed)
    assert isinstance(promoted.perform(action, replace(wanted, stands=True), run="run-4"), Failed), (
        "another run has got its epoch meanwhile"
    )
    wanted = replace(held, epoch=5, stands=True)
    assert isinstance(promoted.perform(action, wanted, run="run-5"), Succeeded)
    assert rows_of(promoted) == {(5, "embassy", "run-5")}


def test_an_epoch_that_is_not_above_the_expected_one_is_no_step(promoted: Pair) -> None:
    from orchestrator.errors import RefusedError

    with pytest.raises(RefusedError):
        Epoch().describe(replace(EPOCH, epoch=1), promoted.parts)
    outcome = promoted.perform(Epoch(), replace(EPOCH, epoch=1))
    assert isinstance(outcome, Failed)
    assert rows_of(promoted) == {(1, "home", "install")}


def test_a_killed_drivers_statement_lives_on_and_is_seen(promoted: Pair) -> None:
    """An UPDATE that waits for a lock looks not done, and commits later (core contract 3.2)."""
    action = Epoch()
    with promoted.connect("embassy") as blocker:
        blocker.execute("BEGIN; SET TRANSACTION READ WRITE; LOCK TABLE continuity.writer IN SHARE MODE")
        cancelled = threading.Event()
        one = replace(EPOCH, databases=("population",))
        outcomes: list[Any] = []
        context = promoted.context(one, cancelled=cancelled)
        thread = threading.Thread(target=lambda: outcomes.append(action.execute(context)))
        thread.start()
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name LIKE 'cty:%'"
        until(lambda: promoted.ask("embassy", waiting), "the statement does not wait")
        assert action.check(promoted.context(one)).kind is FindingKind.RUNNING
        # The driver is gone: the server notices within 100 ms and ends the statement.
        cancelled.set()
        thread.join(5)
        assert isinstance(outcomes[0], Unknown)
        until(lambda: not promoted.ask("embassy", waiting), "the statement outlives its driver for ever", 3)
        assert action.check(promoted.context(one)).kind is FindingKind.NOT_DONE
        blocker.execute("ROLLBACK")
    assert rows_of(promoted) == {(1, "home", "install")}


def test_pitfall_13_an_unknown_commit_is_looked_up_by_run(promoted: Pair) -> None:
    """The commit happened and its answer was lost: the row, by run id, tells."""
    from orchestrator.drivers import postgresql_epoch

    action = Epoch()
    statement = postgresql_epoch.swap_statement(
        epoch=2, site="embassy", durability="local", expect_epoch=1, expect_site="home"
    )
    for database in DATABASES:
        with promoted.connect("embassy", database) as session:
            session.execute(postgresql_epoch.with_run(statement, "run-1"))  # type: ignore[arg-type]
            session.pgconn.finish()  # nobody reads the answer
    finding = action.check(promoted.context(EPOCH))
    assert finding.kind is FindingKind.DONE
    assert finding.evidence["epoch"] == 2
    assert action.check(promoted.context(EPOCH, run="run-9")).kind is FindingKind.NOT_DONE
