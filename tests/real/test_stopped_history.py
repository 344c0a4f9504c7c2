"""A home that came back, took writes and died again: what it alone holds is listed as its clients' ledger has it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.lab import adoption, faults, sites, traffic
from orchestrator.lab.layout import Lab
from tests import labs
from tests.faults import ledgers, rounds
from tests.faults.ledgers import Reader
from tests.labs import document as say
from tests.waiting import until

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

ROOT = Path(__file__).resolve().parents[2]
END_SECONDS = 60.0
ACKS_MIN = 20
DONE, REFUSED = 0, 3
PEOPLE = ("--by", "Tester", "--yes")
KEEP = ("--keep", "embassy", "--reason", "home was lost", *PEOPLE)


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Commits at home wait for nobody: what is lost with it was acknowledged."""
    with labs.own_home():
        yield sites.up(sites.Wanted(durability="local", owned=True), adopt=adoption.adopt)


def acked_at_home(ledger: Reader) -> set[str]:
    return {told.key for told in ledgers.acked_at(ledger.read(), "home")}


def wait_for_acks(ledger: Reader, before: set[str], what: str) -> None:
    until(lambda: len(acked_at_home(ledger) - before) >= ACKS_MIN, what)


def keys(path: Path) -> set[str]:
    """Keys of persons in a list of diverged rows."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {row["key"]["id"] for row in rows if row.get("table") == "public.persons"}


def test_what_a_stopped_home_alone_holds_is_listed_as_the_ledger_has_it(lab: Lab) -> None:
    ledger = Reader([ledgers.start_probes(lab)])
    wait_for_acks(ledger, set(), "home serves")
    rounds.stop_streaming(lab)
    wait_for_acks(ledger, acked_at_home(ledger), "home acknowledges what does not arrive abroad")
    faults.break_it(lab, "home-crash")
    say(lab, DONE, "failover", "--accept-loss", "unknown", *PEOPLE)
    first_life = acked_at_home(ledger)
    faults.break_it(lab, "home-returns")
    wait_for_acks(ledger, first_life, "home acknowledges again")
    faults.break_it(lab, "home-crash")
    faults.heal(lab)
    traffic.stop(lab)

    told = ledger.read()
    survives = {key for _, key in rounds.rows_at(lab, "embassy", told)}
    lost = acked_at_home(ledger) - survives
    assert lost & first_life, "asynchronous: rows were lost before it"
    assert lost - first_life, "and taken after it"
    unknown = {each.key for each in told if each.outcome in ("unknown", "open")}

    assert "split_brain" in say(lab, REFUSED, "reprotect", *PEOPLE)["message"]
    resolved = say(lab, DONE, "resolve", "registers", *KEEP)
    assert resolved["diverged"]["unseen"] == []
    listed = keys(Path(resolved["list"]))
    assert listed - unknown == lost - unknown == lost

    record = say(lab, DONE, "reprotect", *PEOPLE)
    (back,) = (each for each in record["came_back"] if each["step"] == "registers-db/list-h1")
    named = {json.loads(row["key"])["id"] for row in back["diverged"] if "persons" in row["table"]}
    assert named == listed == keys(Path(back["kept"]).parent / "diverged.jsonl")
    assert record["debts"] == []
    text = subprocess.run(
        [sys.executable, "-m", "orchestrator", "report", record["run"], "--estate", str(lab.estate)],
        cwd=ROOT, capture_output=True, text=True, timeout=END_SECONDS,
    ).stdout  # fmt: skip
    assert f"rows by table and key in {Path(back['kept']).parent}/diverged.jsonl" in text
    assert "table population/public.persons" in text
