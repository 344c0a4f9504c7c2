"""A log that is lost or old must not decide who may write: evidence of the sites does, and people.

Each claim stands where the thing is switched: epoch rows, names, routes, documents.
"""

from __future__ import annotations

import json
import re
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


def adopted_from_all_that_answers(lab: Lab) -> None:
    """People see the evidence before what follows from it, the proxy of home being silent; and so does JSON."""
    faults.break_it(lab, "proxy-down", "home")
    try:
        words = ("adopt", "registers", "state-gazette", "--by", "Tester")
        refused = labs.command(lab, *words)
        assert (refused.returncode, "typed confirmation" in refused.stderr) == (REFUSED, True)
        done = labs.command(lab, *words, "--yes", "--output", "json")
        assert done.returncode == DONE, done.stderr
    finally:
        faults.heal(lab)
    for said in (refused.stderr, done.stderr):
        of_registers = said[said.index("registers:\n") : said.index("state-gazette:\n")]
        for seen in (
            r"  the log: has never seen this group",
            r"  registers-db at home: standby, takes no writes; LSN [0-9A-F]+/[0-9A-F]+, timeline \d+, last commit 2\S+Z; land: epoch 2 of embassy",
            r"  registers-db at embassy: primary, takes writes; LSN .*population: epoch 2 of embassy",
            r"  claims at embassy: epoch 2 of embassy \(run switchover-\w+\): .*population-register at pe",
            r"  no answer: \S+ at \S+: .*",
            r"  to be adopted: active embassy, epoch 2, protected",
        ):
            assert re.search(f"^{seen}", of_registers, re.MULTILINE), (seen, of_registers)
    found = json.loads(done.stdout)["evidence"]["registers"]
    assert (found["log"]["label"], found["not_seen"]) == ("not-adopted", {})
    seen = found["seen"]["registers-db"]["sites"]
    assert (seen["embassy"]["serves_writes"], seen["home"]["serves_writes"]) == (True, False)
    assert {claim["epoch"] for claim in found["seen"]["registers"]["claims"]} == {2}
    assert found["seen"]["registers"]["silent"]


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
    unprotected = "no backup at embassy: the archiver of registers-db is declared absent"
    assert f"  unprotected: {unprotected}\n" in labs.command(lab, "report").stdout
    assert (
        say(lab, "report")[1]["unprotected"] == say(lab, "status")[1]["run"]["unprotected"] == [unprotected]
    )
    before = groups(say(lab, "status")[1])
    assert before["registers"] == before["state-gazette"] == ("embassy", 2)

    # the laptop with the log is gone
    shutil.rmtree(log_folder(lab))
    code, document = say(lab, "failback", "--yes", "--by", "Tester")
    assert code == REFUSED
    assert "never seen" in document["message"]
    adopted_from_all_that_answers(lab)
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
