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

from orchestrator.actions.postgresql_canary import Canary, CanaryParams, Refuses, RefusesParams
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
    for action, params in ((Close(), CLOSE), (Verify(), VERIFY), (Promote(), PROMOTE), (Epoch(), EPOCH), (Open(), OPEN)):
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
