"""What an abort gives back on both sides: all that the run had changed, and nothing that it had not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from orchestrator.core.model import Manager
from orchestrator.drivers import supervisor
from orchestrator.lab import adoption, faults, layout, sites, supervise
from orchestrator.lab.layout import Lab, SiteName
from tests import labs
from tests.labs import answer, document
from tests.waiting import until

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

UNIT_SECONDS_MAX = 5.0
DONE, HELD, ABORTED, PARTIAL = 0, 4, 5, 6
ENDS = ("aborted", "partial")
GAZETTE, LAND, REPLICATOR = "state-gazette", "land-register", "gazette-replicator"
PEOPLE = ("--yes", "--by", "Tester")
LEAVE = "name-service=its servers answer at both sites"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with labs.own_home():
        yield sites.up(sites.Wanted(owned=True), adopt=adoption.adopt)


@dataclass
class Secrets:
    lab: Lab

    def value(self, reference: str) -> str:
        return self.lab.secret(reference.rsplit("/", 1)[1])


def manager(lab: Lab, site: SiteName) -> Manager:
    url = f"http://{lab.address(site)}:{layout.SUPERVISOR_PORT}/"
    return Manager(url=url, user=supervise.USER, password="secret://file/supervisor")


def where_it_runs(lab: Lab, unit: str) -> dict[str, bool]:
    return {
        site: supervisor.state(manager(lab, site), unit, Secrets(lab)).name == "running"
        for site in layout.SITES
    }


def as_of(lab: Lab) -> str:
    return (lab.site("embassy").gazette / "as-of").read_text()


def abort(lab: Lab) -> None:
    """Order the abort of the run that is held, and drive it to its end; what has no way back stays, and is named."""
    code, said = answer(lab, "abort", "--reason", "not today", "--by", "Tester")
    if said.get("state") in ENDS:
        return
    code, said = answer(lab, "resume", *PEOPLE)
    assert code in (ABORTED, PARTIAL), said


def test_a_planned_move_does_not_begin_where_nobody_brings_the_documents(lab: Lab) -> None:
    """Publication would be closed until somebody starts what brings them; whoever did not run is not started."""
    at = (manager(lab, "embassy"), REPLICATOR, Secrets(lab), UNIT_SECONDS_MAX)
    supervisor.stop(*at)
    try:
        held = document(lab, HELD, "switchover", "--service", GAZETTE, "--leave", LEAVE, *PEOPLE)
        assert "new documents do not come" in " ".join(held["held"]["causes"])
        assert {s["state"] for s in held["steps"] if s["role"] in ("freeze", "drain")} == {"pending"}
        assert (lab.site("home").gazette / "published.mode").read_text().strip() == "full"
        abort(lab)
        assert where_it_runs(lab, REPLICATOR) == {"home": False, "embassy": False}
    finally:
        supervisor.start(*at)


def test_after_an_aborted_move_the_documents_follow_as_they_did_before(lab: Lab) -> None:
    """The document is spoilt after it came: names and manifests are as they must be, and the move drains."""
    folder = lab.site("embassy").gazette / "current" / "documents"
    spoilt = next(path for path in sorted(folder.rglob("*")) if path.is_file())
    text = spoilt.read_bytes()
    spoilt.write_bytes(b"not what was signed\n")
    try:
        held = document(lab, HELD, "switchover", "--service", GAZETTE, "--leave", LEAVE, *PEOPLE)
        assert "is not what the manifest says" in " ".join(held["held"]["causes"])
        states = {step["id"]: step["state"] for step in held["steps"]}
        assert states[f"{GAZETTE}/documents/drain"] == "succeeded"
        assert where_it_runs(lab, REPLICATOR) == {"home": False, "embassy": False}
        abort(lab)
    finally:
        spoilt.write_bytes(text)
    assert where_it_runs(lab, REPLICATOR) == {"home": False, "embassy": True}
    seen = as_of(lab)
    until(lambda: as_of(lab) != seen, "documents are looked for again")


def test_an_aborted_reprotect_starts_nothing_cold_at_the_side_that_does_not_serve(lab: Lab) -> None:
    faults.break_it(lab, "home-crash")
    document(lab, DONE, "failover", "--accept-loss", "5m", *PEOPLE)
    faults.heal(lab)
    supervisor.stop(manager(lab, "home"), LAND, Secrets(lab), UNIT_SECONDS_MAX)
    evidence = lab.site("home").data.parent / "evidence"
    if evidence.exists():
        evidence.rename(evidence.with_name("aside"))
    evidence.write_text("in the way of the old history: home's database cannot be brought back\n")
    held = document(lab, HELD, "reprotect", *PEOPLE)
    states = {step["id"]: step["state"] for step in held["steps"]}
    assert states["registers-db/rejoin-h1"] == "failed"
    assert states[f"{LAND}/application/stop-h1"] == "succeeded"
    abort(lab)
    assert where_it_runs(lab, LAND) == {"home": False, "embassy": True}
