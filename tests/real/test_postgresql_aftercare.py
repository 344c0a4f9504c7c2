"""What a promoted server needs to go on alone, on a real one: archiver, slots, room for the log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.actions.postgresql_aftercare import Aftercare, AftercareParams
from orchestrator.core.outcomes import Failed, FindingKind, Succeeded
from tests.real.pgharness import CLUSTER, Pair, running, until

pytestmark = pytest.mark.real

AT_HOME = AftercareParams(CLUSTER, "h1", archiver_absent=True)


@pytest.fixture
def pair(pg_template: Pair, tmp_path: Path) -> Iterator[Pair]:
    with running(pg_template, tmp_path / "p") as made:
        yield made


def test_a_server_with_bounds_passes_and_says_how_long_its_disk_lasts(pair: Pair) -> None:
    outcome = pair.perform(Aftercare(), AT_HOME)
    assert isinstance(outcome, Succeeded), outcome
    assert outcome.evidence["archiver"] == "declared absent"
    told = f"no backup at home: the archiver of {CLUSTER} is declared absent"
    assert outcome.evidence["unprotected"] == told, "declared is not unsaid"
    assert outcome.evidence["log_free_bytes"] > 0
    assert outcome.evidence["log_bytes_per_hour"] > 0
    assert isinstance(outcome.evidence["hours_until_log_is_full"], int)
    assert [slot["name"] for slot in outcome.evidence["slots"]] == ["e1"]
    assert Aftercare().check(pair.context(AT_HOME)).kind is FindingKind.DONE


def test_an_absent_archiver_that_nobody_declared_is_no_backup(pair: Pair) -> None:
    outcome = pair.perform(Aftercare(), replace(AT_HOME, archiver_absent=False))
    assert isinstance(outcome, Failed)
    assert "no backup" in outcome.message
    assert outcome.evidence["findings"][0]["mend"]


def test_slots_without_a_bound_are_named(pair: Pair) -> None:
    pair.ask("home", "ALTER SYSTEM SET max_slot_wal_keep_size = -1")
    pair.ask("home", "SELECT pg_reload_conf()")
    until(lambda: pair.ask("home", "SHOW max_slot_wal_keep_size") == "-1", "not reloaded")
    outcome = pair.perform(Aftercare(), AT_HOME)
    assert isinstance(outcome, Failed)
    assert "slots without a bound (e1)" in outcome.message
