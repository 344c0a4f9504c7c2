"""Seen from a session: the active side takes writes and the old side refuses them, on real PostgreSQL."""

from __future__ import annotations

import threading
import time

import pytest

from orchestrator.actions.postgresql_canary import Canary, CanaryParams, Refuses, RefusesParams
from orchestrator.actions.postgresql_close import Close, CloseParams, Open, OpenParams
from orchestrator.actions.postgresql_freeze import Freeze, FreezeParams
from orchestrator.actions.postgresql_promote import Epoch, EpochParams, Promote, PromoteParams
from orchestrator.core.outcomes import Failed, FindingKind, Succeeded, Unknown
from tests.real.pgharness import CLUSTER, DATABASES, Pair, until

pytestmark = pytest.mark.real

CANARY = CanaryParams(CLUSTER, "e1", "population", within_ms=300)
REFUSES = RefusesParams(CLUSTER, "h1", "population")
EPOCH = EpochParams(CLUSTER, "e1", DATABASES, 2, "embassy", "home", 1, "local")


@pytest.fixture
def promoted(pair: Pair) -> Pair:
    """Promoted and still closed, before its epoch."""
    pair.perform(Close(), CloseParams(CLUSTER, "e1"))
    pair.kill_site("home")
    promote = PromoteParams(CLUSTER, "e1", DATABASES, "home", 1)
    assert isinstance(pair.perform(Promote(), promote), Succeeded)
    return pair


def canary_rows(pair: Pair, site: str = "embassy") -> int:
    return int(pair.ask(site, "SELECT count(*) FROM continuity.canary"))


def test_the_canary_is_written_only_where_the_epoch_is_ours_and_the_side_open(promoted: Pair) -> None:
    closed = promoted.perform(Canary(), CANARY)
    assert isinstance(closed, Failed)
    assert "refuses writes" in closed.message
    promoted.perform(Open(), OpenParams(CLUSTER, "e1"))  # open, and the row still names home
    early = promoted.perform(Canary(), CANARY)
    assert isinstance(early, Failed)
    assert "does not name embassy" in early.message
    assert canary_rows(promoted) == 0
    assert Canary().check(promoted.context(CANARY)).kind is FindingKind.NOT_DONE
    assert isinstance(promoted.perform(Epoch(), EPOCH), Succeeded)
    promoted.recorded.clear()
    written = promoted.perform(Canary(), CANARY)
    assert isinstance(written, Succeeded), written
    assert (written.evidence["epoch"], written.evidence["site"]) == (2, "embassy")
    assert tuple(promoted.recorded) == Canary().describe(CANARY, promoted.parts).commands
    assert Canary().check(promoted.context(CANARY)).kind is FindingKind.DONE
    assert Canary().check(promoted.context(CANARY, run="run-2")).kind is FindingKind.NOT_DONE


def test_the_canary_waits_until_the_side_is_open(promoted: Pair) -> None:
    promoted.perform(Epoch(), EPOCH)
    outcomes: list[object] = []
    params = CanaryParams(CLUSTER, "e1", "population", within_ms=10_000)
    thread = threading.Thread(target=lambda: outcomes.append(promoted.perform(Canary(), params)))
    thread.start()
    until(lambda: any("continuity.canary" in text for text in promoted.recorded), "it was not tried")
    promoted.perform(Open(), OpenParams(CLUSTER, "e1"))
    thread.join(10)
    assert isinstance(outcomes[0], Succeeded), outcomes


def test_a_canary_whose_commit_waits_for_ever_is_unknown(pair: Pair) -> None:
    """It waits for a synchronous standby that is gone: bounded here, and never called failed."""
    pair.kill_site("embassy")
    began = time.monotonic()
    outcome = pair.perform(Canary(), CanaryParams(CLUSTER, "h1", "population", within_ms=60_000), seconds=1.5)
    assert isinstance(outcome, Unknown), outcome
    assert time.monotonic() - began < 4


# --- refuses ------------------------------------------------------------------------------------


def test_a_side_that_takes_writes_is_found_and_no_row_is_left(pair: Pair) -> None:
    outcome = pair.perform(Refuses(), REFUSES)
    assert isinstance(outcome, Failed)
    assert "h1 takes writes" in outcome.message
    assert canary_rows(pair, "home") == 0
    assert Refuses().check(pair.context(REFUSES)).kind is FindingKind.NOT_DONE


def test_a_frozen_primary_is_no_side_that_refuses(pair: Pair) -> None:
    """Any session can override the read-only default: a freeze is no fence."""
    assert isinstance(pair.perform(Freeze(), FreezeParams(CLUSTER, "h1")), Succeeded)
    assert isinstance(pair.perform(Refuses(), REFUSES), Failed)


def test_a_standby_refuses(pair: Pair) -> None:
    params = RefusesParams(CLUSTER, "e1", "population")
    pair.recorded.clear()
    outcome = pair.perform(Refuses(), params)
    assert isinstance(outcome, Succeeded), outcome
    assert outcome.evidence["observed"] is True
    assert "during recovery" in str(outcome.evidence["detail"])
    assert tuple(pair.recorded) == Refuses().describe(params, pair.parts).commands
    assert isinstance(pair.perform(Refuses(), params), Succeeded)  # the session is fit for the next one


def test_a_side_out_of_reach_is_not_called_observed(pair: Pair) -> None:
    pair.kill_site("home")
    outcome = pair.perform(Refuses(), REFUSES)
    assert isinstance(outcome, Succeeded), outcome
    assert outcome.evidence["observed"] is False
