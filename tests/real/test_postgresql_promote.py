"""The path of a failover on real PostgreSQL: close, verify, measure, promote, epoch, open, canary."""

from __future__ import annotations

import contextlib
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
from orchestrator.actions.postgresql_promote import Epoch, EpochParams, Promote, PromoteParams
from orchestrator.actions.postgresql_verify import Measure, MeasureParams, Verify, VerifyParams
from orchestrator.core.outcomes import Failed, FindingKind, Succeeded, Unknown
from tests.real import pgharness
from tests.real.pgharness import CLUSTER, DATABASES, Load, Pair, until

pytestmark = pytest.mark.real

CLOSE = CloseParams(CLUSTER, "e1")
OPEN = OpenParams(CLUSTER, "e1")
VERIFY = VerifyParams(CLUSTER, "e1", DATABASES, "home", 1)
MEASURE = MeasureParams(CLUSTER, "e1", DATABASES)
PROMOTE = PromoteParams(CLUSTER, "e1", DATABASES, "home", 1)
EPOCH = EpochParams(CLUSTER, "e1", DATABASES, 2, "embassy", "home", 1, "local")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return pgharness.make_template(tmp_path_factory.mktemp("pg"), pgharness.installations()["17"])


@pytest.fixture
def pair(template: Pair, tmp_path: Path) -> Iterator[Pair]:
    with pgharness.running(template, tmp_path / "p") as made:
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


def timed(pair: Pair, figures: dict[str, float], name: str, action: Any, params: Any) -> Any:
    began = time.perf_counter()
    outcome = pair.perform(action, params, step=f"{CLUSTER}/{name}")
    figures[name] = (time.perf_counter() - began) * 1000
    assert isinstance(outcome, Succeeded), outcome
    return outcome


def test_failover_path_and_its_cost(pair: Pair) -> None:
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


# --- close and open -----------------------------------------------------------------------------


def new_session_setting(pair: Pair, site: str, name: str) -> str:
    return str(pair.ask(site, f"SELECT current_setting('{name}')"))


def test_close_ends_when_new_sessions_are_closed(pair: Pair) -> None:
    action = Close()
    assert action.check(pair.context(CLOSE)).kind is FindingKind.NOT_DONE
    assert isinstance(pair.perform(action, CLOSE), Succeeded)
    for name, wanted in (("default_transaction_read_only", "on"), ("wal_retrieve_retry_interval", "1ms")):
        assert new_session_setting(pair, "embassy", name) == wanted
    assert action.check(pair.context(CLOSE)).kind is FindingKind.DONE
    assert isinstance(pair.perform(action, CLOSE), Succeeded)  # idempotent
    assert isinstance(action.undo(pair.context(CLOSE)), Succeeded)
    assert new_session_setting(pair, "embassy", "wal_retrieve_retry_interval") == "5s"
    assert action.check(pair.context(CLOSE)).kind is FindingKind.NOT_DONE


def test_close_names_a_role_that_would_not_be_closed(pair: Pair) -> None:
    pair.ask("home", "CREATE ROLE app LOGIN PASSWORD 'x'")
    pair.ask("home", "ALTER ROLE app SET default_transaction_read_only = off")
    pair.wait_caught_up()
    outcome = pair.perform(Close(), CLOSE)
    assert isinstance(outcome, Failed)
    assert "app in every database" in outcome.message


def test_closing_says_what_is_wrong_with_the_files(pair: Pair) -> None:
    with (pair.config("embassy") / "continuity.conf").open("a") as handle:
        handle.write("no_such_setting = 1\n")
    outcome = pair.perform(Close(), CLOSE)
    assert isinstance(outcome, Failed)
    assert "no_such_setting" in outcome.message


def test_open_refuses_a_standby(pair: Pair) -> None:
    outcome = pair.perform(Open(), OPEN)
    assert isinstance(outcome, Failed)
    assert "standby" in outcome.message
    assert Open().check(pair.context(OPEN)).kind is FindingKind.NOT_DONE


def test_open_lets_new_sessions_write(pair: Pair) -> None:
    pair.perform(Close(), CLOSE)
    pair.kill_site("home")
    assert isinstance(pair.perform(Promote(), PROMOTE), Succeeded)
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        pair.ask("embassy", "INSERT INTO rows VALUES ('closed', '')")
    assert Open().check(pair.context(OPEN)).kind is FindingKind.NOT_DONE
    assert isinstance(pair.perform(Open(), OPEN), Succeeded)
    pair.ask("embassy", "INSERT INTO rows VALUES ('opened', '')")
    assert Open().check(pair.context(OPEN)).kind is FindingKind.DONE
    assert new_session_setting(pair, "embassy", "wal_retrieve_retry_interval") == "5s"


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
    import os
    import signal

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
    assert isinstance(pair.perform(Promote(), PROMOTE, run="run-2"), Succeeded)
    # it was promoted already, and says so to run-2 only, which claimed it
    assert Promote().check(pair.context(PROMOTE)).kind is FindingKind.CANNOT_TELL


# --- epoch --------------------------------------------------------------------------------------


@pytest.fixture
def promoted(pair: Pair) -> Pair:
    pair.perform(Close(), CLOSE)
    pair.kill_site("home")
    assert isinstance(pair.perform(Promote(), PROMOTE), Succeeded)
    return pair


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


# --- verify and measure -------------------------------------------------------------------------


def test_verify_finds_what_is_wrong_with_a_standby(pair: Pair) -> None:
    assert isinstance(pair.perform(Verify(), VERIFY), Succeeded)
    wrong = {"x/inspect": {"sites": {"home": {"reachable": True, "system_id": "42"}}}}
    assert "not that of home" in pair.perform(Verify(), VERIFY, evidence=wrong).message
    assert "not epoch 2" in pair.perform(Verify(), replace(VERIFY, expect_epoch=2)).message
    pair.ask("embassy", "SELECT pg_wal_replay_pause()")
    pair.ask(
        "home",
        "SET synchronous_commit = local; INSERT INTO rows SELECT g::text, 'v' FROM generate_series(1, 3000) g",
    )
    lsn = pair.ask("home", "SELECT pg_current_wal_flush_lsn()::text")
    until(lambda: pair.ask("embassy", f"SELECT pg_last_wal_receive_lsn() >= '{lsn}'"), "not received")
    outcome = pair.perform(Verify(), replace(VERIFY, backlog_bytes_limit=1000))
    assert "replay is paused" in outcome.message
    assert "received and not replayed" in outcome.message
    assert outcome.evidence["backlog_bytes"] > 1000
    pair.ask("embassy", "SELECT pg_wal_replay_resume()")
    pair.ask("embassy", "ALTER SYSTEM SET recovery_min_apply_delay = '5s'")
    pair.ask("embassy", "SELECT pg_reload_conf()")
    until(
        lambda: "delayed on purpose" in getattr(pair.perform(Verify(), VERIFY), "message", ""),
        "no delay seen",
    )


def test_verify_refuses_a_primary(promoted: Pair) -> None:
    assert "not a standby" in promoted.perform(Verify(), VERIFY).message


def measured(pair: Pair, evidence: Any = None) -> Any:
    outcome = pair.perform(Measure(), MEASURE, evidence=evidence)
    assert isinstance(outcome, Succeeded), outcome
    return outcome.evidence


def test_measure_says_remote_only_when_every_row_does(pair: Pair) -> None:
    assert measured(pair)["durability"] == "remote"
    pair.ask("home", "UPDATE continuity.writer SET durability = 'local'", database="land")
    pair.wait_caught_up()
    assert measured(pair)["durability"] == "local"


def test_measure_of_an_asynchronous_standby(template: Pair, tmp_path: Path) -> None:
    with pgharness.running(template, tmp_path / "p", synchronous=False) as pair:
        with Load(pair, "home") as load:
            load.wait(200)
            pair.ask("home", "UPDATE continuity.heartbeat SET at = clock_timestamp()")
            home_lsn = pair.ask("home", "SELECT pg_current_wal_flush_lsn()::text")
            pair.wait_caught_up()
            last = time.time_ns()
            pair.kill_site("home")
        inspected = {"x/inspect": {"sites": {"home": {"reachable": True, "lsn": home_lsn}}}}
        found = measured(pair, inspected)
        assert found["durability"] == "local"
        assert abs(found["last_commit_ns"] - last) < 2_000_000_000
        assert found["heartbeat_ns"] <= found["last_commit_ns"]
        assert isinstance(found["write_rate_rows_per_s"], int)
        assert found["predicted_promote_ms"] >= 40
        with contextlib.suppress(psycopg.Error):
            pair.ask("embassy", "SELECT 1")
