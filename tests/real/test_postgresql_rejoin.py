"""An old side whose history left the primary's comes back, its old history kept, on real PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Iterator
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


@pytest.fixture(scope="module", params=pgharness.installations())
def template(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    label = str(request.param)
    return pgharness.make_template(tmp_path_factory.mktemp(f"pg{label}"), pgharness.installations()[label])


@pytest.fixture
def pair(template: Pair, tmp_path: Path) -> Iterator[Pair]:
    with pgharness.running(template, tmp_path / "p", synchronous=False) as made:
        yield made


def follows(pair: Pair, primary: str = "embassy", standby: str = "home") -> None:
    """What only home had is gone from it, and what is written at the embassy arrives."""
    pair.ask(primary, "INSERT INTO rows VALUES ('after', '') ON CONFLICT DO NOTHING")
    pair.wait_caught_up(primary, standby)
    assert pgmoves.rows(pair, standby) == pgmoves.rows(pair, primary)
    assert not pgmoves.rows(pair, standby, "home-only-%")


def test_a_crashed_primary_is_rewound_and_its_old_history_kept(pair: Pair) -> None:
    pgmoves.diverge(pair)
    action = Rejoin()
    assert action.check(pair.context(REWIND)).kind is FindingKind.NOT_DONE
    outcome = pair.perform(action, REWIND, seconds=60)
    assert isinstance(outcome, Succeeded), outcome
    print(json.dumps(outcome.evidence, indent=1))
    assert outcome.evidence["how"] == "rewind"
    described = [text.replace(RUN, "run-1") for text in action.describe(REWIND, pair.parts).commands]
    assert pair.recorded == described
    follows(pair)
    found = action.check(pair.context(REWIND))
    assert found.kind is FindingKind.DONE
    assert set(found.evidence) == set(outcome.evidence)
