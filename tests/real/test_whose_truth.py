"""A log that is lost or old must not decide who may write: evidence of the sites does, and people.

Each claim stands where the thing is switched: epoch rows, names, routes, documents.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.lab import adoption, faults, sites
from orchestrator.lab.layout import Lab
from tests import labs
from tests.labs import answer as say

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

ROOT = Path(__file__).resolve().parents[2]
DONE, REFUSED, HELD, ABORTED = 0, 3, 4, 5


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with labs.own_home():
        yield sites.up(sites.Wanted(owned=True), adopt=adoption.adopt)


def groups(document: dict[str, Any]) -> dict[str, tuple[str, int]]:
    return {group["name"]: (group["active_site"], group["epoch"]) for group in document["groups"]}


def log_folder(lab: Lab) -> Path:
    return lab.estate.parent / ".continuity"


def test_preflight_asks_the_gates_and_names_what_is_missing(lab: Lab) -> None:
    code, document = say(lab, "preflight", "failover")
    assert (code, document["is_met"]) == (DONE, True), document
    assert {gate["result"] for gate in document["gates"]} == {"ok"}
    assert {"registers-db/inspect", "registers-db/verify", "registers/claims"} <= {
        gate["step"] for gate in document["gates"]
    }
    faults.break_it(lab, "proxy-down", "embassy")
    try:
        code, document = say(lab, "preflight", "failover")
    finally:
        faults.heal(lab)
    assert (code, document["is_met"]) == (REFUSED, False)
    failed = {gate["step"]: gate["message"] for gate in document["gates"] if gate["result"] != "ok"}
    assert set(failed) == {"registers/claims", "state-gazette/claims"}, failed
    assert "population-register at pe" in failed["registers/claims"]
    assert say(lab, "status")[1]["run"] is None  # nothing was begun


def test_a_log_that_never_saw_a_group_is_refused_and_evidence_tells(lab: Lab) -> None:
    old = lab.path / "old-log"
    shutil.copytree(log_folder(lab), old)
    assert say(lab, "switchover", "--yes", "--by", "Tester")[0] == DONE
    before = groups(say(lab, "status")[1])
    assert before["registers"] == before["state-gazette"] == ("embassy", 2)

    # the laptop with the log is gone
    shutil.rmtree(log_folder(lab))
    code, document = say(lab, "failback", "--yes", "--by", "Tester")
    assert code == REFUSED
    assert "never seen" in document["message"]
    assert say(lab, "adopt", "registers", "state-gazette", "--yes", "--by", "Tester")[0] == DONE
    after = groups(say(lab, "status")[1])
    assert after == {name: before[name] for name in ("registers", "state-gazette")}

    # somebody finds an old log of when home was active, and believes it
    shutil.rmtree(log_folder(lab))
    shutil.copytree(old, log_folder(lab))
    code, document = say(lab, "switchover", "--yes", "--by", "Tester")
    assert code == HELD, document
    causes = " ".join(document["held"]["causes"])
    assert "epoch 2 of embassy" in causes
    choices = document["held"]["choices"]
    for group in ("registers", "state-gazette"):
        assert f"once this run has ended: continuity adopt {group} --by NAME" in causes
        code, refused = say(lab, "adopt", group, "--yes", "--by", "Tester")
        assert (code, "that run ends first" in refused["message"]) == (REFUSED, True), (
            "so it is no choice yet"
        )
    assert not any(" adopt " in choice for choice in choices)
    assert not any(" skip " in choice for choice in choices), "no word makes an old log new"
    assert not any(step["state"] == "succeeded" for step in document["steps"] if step["stage"] != "preflight")
    assert say(lab, "abort", "--reason", "the log is old")[0] in (DONE, ABORTED)
    status = say(lab, "status")[1]
    if status["run"]["state"] != "aborted":
        assert say(lab, "resume", "--yes")[0] == ABORTED
    assert say(lab, "adopt", "registers", "state-gazette", "--yes", "--by", "Tester")[0] == DONE
    adopted = groups(say(lab, "status")[1])
    assert adopted["registers"] == adopted["state-gazette"] == ("embassy", 2)
