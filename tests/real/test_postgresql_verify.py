"""What is known of a standby's data before it is promoted, on real PostgreSQL: verified, drained, measured."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.actions.postgresql_close import Close, CloseParams
from orchestrator.actions.postgresql_promote import Promote, PromoteParams
from orchestrator.actions.postgresql_stop import Stop, StopParams
from orchestrator.actions.postgresql_verify import (
    Measure,
    MeasureParams,
    Verify,
    VerifyDrained,
    VerifyDrainedParams,
    VerifyParams,
)
from orchestrator.core.model import Operation
from orchestrator.core.outcomes import Failed, Succeeded
from orchestrator.drivers.postgresql_epoch import BEAT, install_tables
from tests.real.pgharness import CLUSTER, DATABASES, Load, Pair, running, until

pytestmark = pytest.mark.real

CLOSE = CloseParams(CLUSTER, "e1")
PROMOTE = PromoteParams(CLUSTER, "e1", DATABASES, "home", 1)
VERIFY = VerifyParams(CLUSTER, "e1", DATABASES, "home", 1)
MEASURE = MeasureParams(CLUSTER, "e1", DATABASES)
DRAINED = VerifyDrainedParams(CLUSTER, "e1", "h1")
STOP = StopParams(CLUSTER, "h1")


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


def test_verify_refuses_a_primary(pair: Pair) -> None:
    pair.perform(Close(), CLOSE)
    pair.kill_site("home")
    assert isinstance(pair.perform(Promote(), PROMOTE), Succeeded)
    assert "not a standby" in pair.perform(Verify(), VERIFY).message


def test_a_row_that_a_replica_carries_is_its_primarys(pair: Pair) -> None:
    """The number alone proves nothing: the same number is at both sites, the site in the row decides."""
    for site in ("home", "embassy"):
        assert pair.ask(site, "SELECT epoch FROM continuity.writer") == 1
    assert "not epoch 1 at embassy" in pair.perform(Verify(), replace(VERIFY, expect_site="embassy")).message


def test_a_planned_move_is_verified_to_stream_until_the_old_side_has_stopped(pair: Pair) -> None:
    pair.kill_site("home")
    until(lambda: pair.ask("embassy", "SELECT count(*) FROM pg_stat_wal_receiver") == 0, "still streams")
    assert isinstance(pair.perform(Verify(), VERIFY), Succeeded)
    planned = pair.perform(Verify(), VERIFY, operation=Operation.SWITCHOVER)
    assert isinstance(planned, Failed)
    assert "does not stream" in planned.message
    stopped = {f"{CLUSTER}/stop-h1": {"proof": "demoted", "host": "h1"}}
    assert isinstance(
        pair.perform(Verify(), VERIFY, operation=Operation.SWITCHOVER, evidence=stopped), Succeeded
    )


def test_drained_is_said_only_when_the_last_record_was_replayed(pair: Pair) -> None:
    pair.ask("embassy", "SELECT pg_wal_replay_pause()")
    pair.ask("home", "INSERT INTO rows SELECT g::text, 'v' FROM generate_series(1, 1000) g")
    stopped = pair.perform(Stop(), STOP, operation=Operation.SWITCHOVER)
    evidence = {f"{CLUSTER}/stop-h1": stopped.evidence}
    early = pair.perform(VerifyDrained(), DRAINED, evidence=evidence, seconds=1)
    assert isinstance(early, Failed)
    assert early.retryable
    assert "not past" in early.message
    pair.ask("embassy", "SELECT pg_wal_replay_resume()")
    drained = pair.perform(VerifyDrained(), DRAINED, evidence=evidence)
    assert isinstance(drained, Succeeded), drained
    assert pair.ask("embassy", "SELECT count(*) FROM rows") == 1000
    assert isinstance(pair.perform(VerifyDrained(), DRAINED), Failed)  # nobody has proven a stop


def measured(pair: Pair, evidence: Any = None) -> Any:
    outcome = pair.perform(Measure(), MEASURE, evidence=evidence)
    assert isinstance(outcome, Succeeded), outcome
    return outcome.evidence


def test_measure_says_remote_only_when_every_row_does(pair: Pair) -> None:
    assert measured(pair)["durability"] == "remote"
    pair.ask("home", "UPDATE continuity.writer SET durability = 'local'", database="land")
    pair.wait_caught_up()
    assert measured(pair)["durability"] == "local"


def beat(pair: Pair) -> None:
    for database in DATABASES:
        pair.ask("home", BEAT, database=database)
    pair.wait_caught_up()


def test_a_promise_that_people_broke_is_not_believed(pair: Pair) -> None:
    """The rows go on saying that commits wait; home is not asked: the last beats tell."""
    assert measured(pair)["durability"] == "remote"
    pair.ask("home", "ALTER SYSTEM SET synchronous_standby_names = ''")
    pair.ask("home", "SELECT pg_reload_conf()")
    until(lambda: not pair.ask("home", "SELECT current_setting('synchronous_standby_names')"), "not reloaded")
    seen = {"x/inspect": {"sites": {"home": {"reachable": True, "role": "primary", "waits": False}}}}
    assert measured(pair, seen)["durability"] == "local", "home said so itself, before any beat"
    beat(pair)
    assert pair.ask("embassy", "SELECT durability FROM continuity.writer") == "remote"
    assert measured(pair)["durability"] == "local"


def test_without_a_fresh_beat_of_each_database_nothing_is_promised(pair: Pair) -> None:
    old = "UPDATE continuity.heartbeat SET at = at - interval '1 minute'"
    for broken in ("UPDATE continuity.heartbeat SET waits = NULL", old, "DELETE FROM continuity.heartbeat"):
        beat(pair)
        assert measured(pair)["durability"] == "remote"
        pair.ask("home", broken, database="land")
        pair.wait_caught_up()
        assert measured(pair)["durability"] == "local", broken


def test_a_table_that_was_made_before_beats_told_gets_its_column(pair: Pair) -> None:
    pair.ask("home", "ALTER TABLE continuity.heartbeat DROP COLUMN waits", database="land")
    pair.wait_caught_up()
    found = measured(pair)
    assert (found["durability"], isinstance(found["heartbeat_ns"], int)) == ("local", True)
    with pair.connect("home", "land") as session:
        install_tables(session, epoch=1, site="home", run="again", durability="remote")
    beat(pair)
    assert measured(pair)["durability"] == "remote"


def test_measure_of_an_asynchronous_standby(pg_template: Pair, tmp_path: Path) -> None:
    with running(pg_template, tmp_path / "p", synchronous=False) as pair:
        with Load(pair, "home") as load:
            load.wait(200)
            pair.ask("home", "UPDATE continuity.heartbeat SET at = clock_timestamp()")
            home_lsn = pair.ask("home", "SELECT pg_current_wal_flush_lsn()::text")
            pair.wait_caught_up()
            last = time.time_ns()
            pair.kill_site("home")
        inspected = {"x/inspect": {"sites": {"home": {"reachable": True, "lsn": home_lsn}}}}
        assert (
            measured(pair)["home_lsn"] is None
        )  # its standby's view ends with the link: that is not home's word
        stopped = {"x/stop-h1": {"host": "h1", "shutdown_checkpoint": "7F/0"}}
        assert measured(pair, {**inspected, **stopped})["home_lsn"] == "7F/0"
        found = measured(pair, inspected)
        assert found["home_lsn"] == home_lsn
        assert found["durability"] == "local"
        assert abs(found["last_commit_ns"] - last) < 2_000_000_000
        assert found["heartbeat_ns"] <= found["last_commit_ns"]
        assert isinstance(found["write_rate_rows_per_s"], int)
        assert found["predicted_promote_ms"] >= 40
