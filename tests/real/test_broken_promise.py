"""Somebody at home lets commits not wait any more, behind everybody's back: the rows still promise it, and no loss of 0 is stated."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.lab import adoption, faults, postgres, sites, traffic
from orchestrator.lab.layout import Lab
from tests import labs
from tests.waiting import until

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

ROOT = Path(__file__).resolve().parents[2]
DONE = 0
LOST_ROWS_MIN = 100


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with labs.own_home():
        yield sites.up(sites.Wanted(owned=True), adopt=adoption.adopt)


def say(lab: Lab, code: int, *words: str) -> str:
    """A command as people give it; it must end so. What it said."""
    done = labs.command(lab, *words)
    assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def ask(lab: Lab, site: str, database: str, question: str) -> Any:
    with postgres.connect(lab, site, database) as session:
        (value,) = session.execute(question).fetchone() or (None,)  # type: ignore[arg-type]
        return value


def beats(lab: Lab, site: str) -> set[bool | None]:
    return {ask(lab, site, database, "SELECT waits FROM continuity.heartbeat") for database in DATABASES}


DATABASES = tuple(postgres.APPLICATION_ROLES)
PROMISE = "SELECT durability FROM continuity.writer"
PERSONS = "SELECT count(*) FROM public.persons"


def test_a_promise_broken_at_home_is_never_stated_as_no_loss(lab: Lab) -> None:
    until(lambda: beats(lab, "embassy") == {True}, "beats say that commits wait")
    assert "expected loss now: 0 (every" in say(lab, DONE, "plan", "failover", "--live")
    assert "finding" not in say(lab, DONE, "status", "--live")
    with postgres.connect(lab, "home", "postgres") as session:
        session.execute("ALTER SYSTEM SET synchronous_standby_names = ''")
        session.execute("SELECT pg_reload_conf()")
    traffic.start(lab, traffic.Load(writers=4, pause_ms=20))
    until(lambda: beats(lab, "embassy") == {False}, "beats say that commits do not wait")
    assert ask(lab, "embassy", "population", PROMISE) == "remote"
    assert "and they do not" in say(lab, DONE, "status", "--live")
    seen = say(lab, DONE, "plan", "failover", "--live")
    assert "and they do not" in seen
    assert "expected loss now: up to" in seen

    faults.break_it(lab, "link-cut")
    before = ask(lab, "home", "population", PERSONS)
    until(lambda: ask(lab, "home", "population", PERSONS) - before > LOST_ROWS_MIN, "home goes on alone")
    assert "expected loss now: up to" in say(lab, DONE, "plan", "failover", "--live")
    say(lab, DONE, "failover", "--yes", "--even-if-healthy", "--accept-loss", "30s")
    traffic.stop(lab)
    checked = traffic.check(lab, "embassy")
    stated = json.loads(say(lab, DONE, "report", "-o", "json"))["stated_loss"]["registers-db"]
    assert checked["lost"] > LOST_ROWS_MIN
    assert stated["seconds"] > 0
    assert stated["rows_bound"] >= checked["lost"]
