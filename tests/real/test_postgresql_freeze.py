"""The old primary quietened before it is stopped, on real PostgreSQL: freeze and checkpoint."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
import pytest

from orchestrator.actions.postgresql_freeze import (
    BEGUN_SECONDS_MAX,
    Checkpoint,
    CheckpointParams,
    Freeze,
    FreezeParams,
)
from orchestrator.actions.postgresql_stop import Stop, StopParams
from orchestrator.core.outcomes import Failed, FindingKind, Succeeded
from tests.real.pgharness import CLUSTER, Load, Pair, until

pytestmark = pytest.mark.real

FREEZE = FreezeParams(CLUSTER, "h1")


def freeze(pair: Pair, **more: Any) -> Any:
    return pair.perform(Freeze(), FREEZE, **more)


def freezing(pair: Pair) -> tuple[threading.Thread, list[Any]]:
    """A freeze that has closed home to new transactions, and what it ends with: nothing while it waits."""
    outcomes: list[Any] = []
    thread = threading.Thread(target=lambda: outcomes.append(freeze(pair)))
    thread.start()
    read_only = "SELECT current_setting('default_transaction_read_only') = 'on'"
    until(lambda: pair.ask("home", read_only), "not frozen")
    return thread, outcomes


def test_new_transactions_are_refused_and_those_in_flight_end_first(pair: Pair) -> None:
    assert Freeze().check(pair.context(FREEZE)).kind is FindingKind.NOT_DONE
    with pair.connect("home") as session:
        session.execute("BEGIN")
        session.execute("INSERT INTO rows VALUES ('in', 'flight')")
        thread, outcomes = freezing(pair)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            pair.ask("home", "INSERT INTO rows VALUES ('late', '')")
        assert not outcomes
        session.execute("COMMIT")
    thread.join(10)
    assert isinstance(outcomes[0], Succeeded), outcomes
    assert outcomes[0].evidence["writers_left"] == 0
    assert pair.ask("home", "SELECT value FROM rows WHERE id = 'in'") == "flight"
    assert Freeze().check(pair.context(FREEZE)).kind is FindingKind.DONE
    assert isinstance(freeze(pair), Succeeded)  # again


def test_what_began_before_and_has_written_nothing_yet_may_still_write(pair: Pair) -> None:
    """Such a transaction is no writer yet, and the setting does not stop it: its rows must not come after the end."""
    with pair.connect("home") as session:
        session.execute("BEGIN")
        session.execute("SELECT count(*) FROM rows")
        thread, outcomes = freezing(pair)
        thread.join(BEGUN_SECONDS_MAX / 5)
        assert not outcomes, "it is told that nothing writes any more, while this one still may"
        session.execute("INSERT INTO rows VALUES ('begun', 'before')")
        session.execute("COMMIT")
    written = pair.ask("home", "SELECT pg_current_wal_insert_lsn()::text")
    thread.join(10)
    assert isinstance(outcomes[0], Succeeded), outcomes
    later = pair.ask("home", "SELECT %s::pg_lsn >= %s::pg_lsn", outcomes[0].evidence["lsn"], written)
    assert later, "what was drained up to is behind a row that was acknowledged"


def test_one_that_only_reads_is_not_waited_for_longer_than_a_moment(pair: Pair) -> None:
    with pair.connect("home") as session:
        session.execute("BEGIN")
        session.execute("SELECT count(*) FROM rows")
        assert isinstance(freeze(pair), Succeeded)
        session.execute("ROLLBACK")


def test_what_does_not_end_is_counted(pair: Pair) -> None:
    with pair.connect("home") as session:
        session.execute("BEGIN")
        session.execute("INSERT INTO rows VALUES ('for', 'ever')")
        outcome = freeze(pair, seconds=1)
        assert isinstance(outcome, Failed)
        assert "1 transactions still write" in outcome.message
        session.execute("PREPARE TRANSACTION 'left over'")
    outcome = freeze(pair)
    assert isinstance(outcome, Failed)
    assert "1 are prepared" in outcome.message
    assert Freeze().check(pair.context(FREEZE)).kind is FindingKind.NOT_DONE


def test_a_role_that_writes_all_the_same_is_named(pair: Pair) -> None:
    pair.ask("home", "CREATE ROLE app LOGIN; ALTER ROLE app SET default_transaction_read_only = off")
    outcome = freeze(pair)
    assert isinstance(outcome, Failed)
    assert "app in every database" in outcome.message
    assert Freeze().check(pair.context(FREEZE)).kind is FindingKind.NOT_DONE


def test_undo_lets_the_same_clients_write_again(pair: Pair) -> None:
    with Load(pair, "home") as load:
        load.wait(20)
        assert isinstance(freeze(pair), Succeeded)
        count = len(load.acknowledged)
        undone = Freeze().undo(pair.context(FREEZE))
        assert isinstance(undone, Succeeded), undone
        load.wait(count + 20)
    assert not load.unknown


def test_what_is_described_is_what_is_sent(pair: Pair) -> None:
    pair.recorded.clear()
    freeze(pair)
    described = Freeze().describe(FREEZE, pair.parts)
    assert tuple(pair.recorded) == described.commands
    pair.recorded.clear()
    Freeze().undo(pair.context(FREEZE))
    assert tuple(pair.recorded) == described.undo_commands


def test_a_checkpoint_is_written(pair: Pair) -> None:
    params = CheckpointParams(CLUSTER, "h1")
    assert Checkpoint().check(pair.context(params)).kind is FindingKind.NOT_DONE
    before = pair.ask("home", "SELECT checkpoint_lsn FROM pg_control_checkpoint()")
    pair.recorded.clear()
    assert isinstance(pair.perform(Checkpoint(), params), Succeeded)
    assert tuple(pair.recorded) == Checkpoint().describe(params, pair.parts).commands
    assert pair.ask("home", "SELECT checkpoint_lsn FROM pg_control_checkpoint()") != before


def test_pitfall_12_a_commit_that_waits_for_a_lost_embassy_is_freed_by_people_only(pair: Pair) -> None:
    """Home's writes stop when the embassy dies (policy: hold). Neither freezing nor stopping home may turn
    such a wait into a success; people who relax the setting do."""
    pair.kill_site("embassy")
    heard: dict[str, str] = {}

    def write(name: str) -> None:
        try:
            pair.ask("home", "INSERT INTO rows VALUES (%s, '')", name)
            heard[name] = "acknowledged"
        except psycopg.Error as error:
            heard[name] = str(error)

    def waiting(count: int) -> None:
        asks = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        until(lambda: pair.ask("home", asks) == count, "the commit does not wait")

    first = threading.Thread(target=write, args=("held",), daemon=True)
    first.start()
    waiting(1)
    outcome = freeze(pair, seconds=1)
    assert isinstance(outcome, Failed)
    assert "1 transactions still write" in outcome.message
    assert isinstance(Freeze().undo(pair.context(FREEZE)), Succeeded)
    assert not heard
    pair.ask("home", "ALTER SYSTEM SET synchronous_standby_names = ''")
    pair.ask("home", "SELECT pg_reload_conf()")
    first.join(5)
    assert heard == {"held": "acknowledged"}
    pair.ask("home", "ALTER SYSTEM RESET synchronous_standby_names")
    pair.ask("home", "SELECT pg_reload_conf()")
    names = "SELECT current_setting('synchronous_standby_names') <> ''"
    until(lambda: pair.ask("home", names), "the setting is not back")
    second = threading.Thread(target=write, args=("stopped",), daemon=True)
    second.start()
    waiting(1)
    assert isinstance(pair.perform(Stop(), StopParams(CLUSTER, "h1")), Succeeded)
    second.join(5)
    assert heard["stopped"] != "acknowledged"
