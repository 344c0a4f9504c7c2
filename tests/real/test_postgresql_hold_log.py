"""A side that comes back after much log was written is still rewound: the slot that was made for it before
the promotion kept what it needs, within a bound. On real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator.actions.postgresql_aftercare import Aftercare, AftercareParams
from orchestrator.actions.postgresql_hold_log import HoldLog, HoldLogParams
from orchestrator.actions.postgresql_inspect import Inspect, InspectParams
from orchestrator.actions.postgresql_rejoin import Rejoin, RejoinParams
from orchestrator.core.model import Operation
from orchestrator.core.outcomes import Failed, FindingKind, Succeeded
from tests.real import pgharness, pgmoves
from tests.real.pgharness import CLUSTER, DATABASES, Pair, until

pytestmark = pytest.mark.real

HOLD = HoldLogParams(CLUSTER, "e1")
CARE = AftercareParams(CLUSTER, "e1", archiver_absent=True)
REWIND = RejoinParams(CLUSTER, "h1", "e1", DATABASES, "rewind")
INSPECT = InspectParams(CLUSTER, "e1", DATABASES, "home", "embassy")
RACES = 80
SEGMENTS = 12  # of 1 MB; none of them is kept without a slot
SLOTS = "SELECT array_agg(slot_name::text || ' ' || (restart_lsn IS NOT NULL)) FROM pg_replication_slots"


@pytest.fixture
def pair(pg_template: Pair, fast_path: Path) -> Iterator[Pair]:
    """The embassy keeps no log beyond what it needs itself."""
    with pgharness.running(pg_template, fast_path / "p", synchronous=False) as made:
        setting(made, "wal_keep_size", "0")
        yield made


def setting(pair: Pair, name: str, value: str) -> None:
    pair.ask("embassy", f"ALTER SYSTEM SET {name} = '{value}'")
    pair.ask("embassy", "SELECT pg_reload_conf()")
    until(lambda: pair.ask("embassy", f"SHOW {name}") == value, f"{name} was not reloaded")


def much_log(pair: Pair) -> None:
    """More than is kept, and checkpoints that remove what nobody needs."""
    for _ in range(SEGMENTS):
        pair.ask("embassy", "SELECT pg_logical_emit_message(true, 'log', repeat('x', 900000))")
        pair.ask("embassy", "SELECT pg_switch_wal()")
    pair.ask("embassy", "CHECKPOINT")
    pair.ask("embassy", "CHECKPOINT")


def findings(outcome: object) -> list[str]:
    assert isinstance(outcome, Succeeded | Failed), outcome
    return [f"{finding['text']} | {finding['mend']}" for finding in outcome.evidence["findings"]]


def test_with_the_slot_a_late_comer_is_rewound_and_streams(pair: Pair) -> None:
    action = HoldLog()
    assert action.check(pair.context(HOLD)).kind is FindingKind.NOT_DONE
    outcome = pair.perform(action, HOLD)
    assert isinstance(outcome, Succeeded), outcome
    assert [(slot["name"], slot["active"]) for slot in outcome.evidence["slots"]] == [("h1", False)]
    assert action.check(pair.context(HOLD)).kind is FindingKind.DONE
    pgmoves.diverge(pair)
    much_log(pair)
    care = pair.perform(Aftercare(), CARE)
    assert isinstance(care, Succeeded), care
    (slot,) = care.evidence["slots"]
    assert slot["holds_bytes"] > SEGMENTS * 800_000
    assert care.evidence["slots_hold_bytes_max"] == 1 << 30
    assert isinstance(care.evidence["hours_until_a_slot_is_lost"], int)
    rejoined = pair.perform(Rejoin(), REWIND, seconds=60)
    assert isinstance(rejoined, Succeeded), rejoined
    assert rejoined.evidence["how"] == "rewind", rejoined.evidence
    pgmoves.follows(pair)
    assert pair.ask("embassy", "SELECT active FROM pg_replication_slots WHERE slot_name = 'h1'") is True
    assert isinstance(pair.perform(action, HOLD), Succeeded)  # again: one in use stays as it is


def test_without_it_a_late_comer_must_be_cloned(pair: Pair) -> None:
    """What the step is for; its absence is named before and after."""
    pgmoves.diverge(pair)
    much_log(pair)
    care = pair.perform(Aftercare(), CARE)
    assert isinstance(care, Failed)
    assert "no slot keeps the log for h1" in care.message
    rejoined = pair.perform(Rejoin(), REWIND, seconds=60)
    assert isinstance(rejoined, Succeeded), rejoined
    assert rejoined.evidence["how"] == "reclone"
    assert "the primary's log begins at" in str(rejoined.evidence["because"])


def test_undo_lets_the_log_go_and_what_is_left_over_is_named(pair: Pair) -> None:
    action, described = HoldLog(), HoldLog().describe(HOLD, pair.parts)
    pair.ask("embassy", "SELECT pg_create_physical_replication_slot('old_name', true)")
    pair.recorded.clear()
    assert isinstance(pair.perform(action, HOLD), Succeeded)
    assert pair.recorded == list(described.commands)
    seen = findings(pair.perform(Inspect(), INSPECT, operation=Operation.FAILOVER))
    for name in ("old_name", "h1"):
        drop = f"SELECT pg_drop_replication_slot('{name}')"
        assert any(f"slot {name} keeps" in text and drop in text for text in seen), seen
    pair.recorded.clear()
    assert isinstance(action.undo(pair.context(HOLD)), Succeeded)
    assert pair.recorded == list(described.undo_commands)
    assert sorted(pair.ask("embassy", SLOTS)) == ["h1 false", "old_name true"]
    pgmoves.diverge(pair)
    assert any("old_name keeps" in text for text in findings(pair.perform(Aftercare(), CARE)))


def test_no_slot_is_made_that_could_fill_the_disk(pair: Pair) -> None:
    setting(pair, "max_slot_wal_keep_size", "-1")
    outcome = pair.perform(HoldLog(), HOLD)
    assert isinstance(outcome, Failed)
    assert "max_slot_wal_keep_size = -1" in outcome.message
    assert pair.ask("embassy", "SELECT count(*) FROM pg_replication_slots") == 0
    seen = findings(pair.perform(Inspect(), INSPECT, operation=Operation.FAILOVER))
    assert any("max_slot_wal_keep_size = -1" in text for text in seen), seen


def test_a_bound_beyond_the_room_on_the_disk_is_said(pair: Pair) -> None:
    setting(pair, "max_slot_wal_keep_size", "2000GB")
    assert isinstance(pair.perform(HoldLog(), HOLD), Succeeded)
    pgmoves.diverge(pair)
    care = pair.perform(Aftercare(), CARE)
    assert isinstance(care, Failed)
    assert "followers that stay away (h1) may keep" in care.message
    assert "full in" in care.message


def test_a_slot_that_is_there_already_stays_and_is_named_while_nobody_streams_through_it(pair: Pair) -> None:
    pgmoves.diverge(pair)
    pair.ask("embassy", "SELECT pg_create_physical_replication_slot('h1', true)")
    assert isinstance(pair.perform(HoldLog(), HOLD), Succeeded)  # its own name: kept, and what it holds
    seen = findings(pair.perform(Inspect(), INSPECT, operation=Operation.FAILOVER))
    assert any("for h1, which does not stream" in text and "continuity reprotect" in text for text in seen), (
        seen
    )


def test_two_steps_that_are_about_the_same_slot_at_once_both_have_it(pair: Pair) -> None:
    """The step that keeps the log and the one that follows may overlap; neither fails because of the other."""
    unreserved = (
        "SELECT pg_create_physical_replication_slot('h1', false)"  # what is left from a time as primary
    )
    with ThreadPoolExecutor(2) as both:
        for race in range(RACES):
            if race % 2:
                pair.ask("embassy", unreserved)
            begun = [both.submit(pair.perform, HoldLog(), HOLD) for _ in range(2)]
            assert all(isinstance(each.result(), Succeeded) for each in begun), [
                each.result() for each in begun
            ]
            pair.ask("embassy", "SELECT pg_drop_replication_slot('h1')")
