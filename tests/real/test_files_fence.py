"""The old side of documents is closed by its fence: what it would still take would be lost and never listed."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from orchestrator.core.model import Manager
from orchestrator.drivers import supervisor
from orchestrator.lab import adoption, layout, sites, supervise
from orchestrator.lab.layout import SERVICE_HOSTS, SERVICE_PORTS, Lab, SiteName
from tests import labs
from tests.labs import answer as say

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

ROOT = Path(__file__).resolve().parents[2]
ANSWER_SECONDS_MAX = 8.0
DONE, HELD, ABORTED = 0, 4, 5
SERVICE = "state-gazette"
FENCE = "state-gazette/documents/stop-home"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A lab whose estate knows no power controller: the fences of its components, or people's word."""
    with labs.own_home():
        made = sites.up(sites.Wanted(owned=True), adopt=adoption.adopt)
        estate = yaml.safe_load(made.estate.read_text())
        for fences in estate["fences"].values():
            fences[:] = [fence for fence in fences if fence["proves"] in ("demoted", "site-lost")]
        layout.write_file(made.estate, yaml.safe_dump(estate, sort_keys=False))
        yield made


def put(lab: Lab, site: SiteName, name: str) -> int:
    """Give the gazette of one site a new document, past every front door."""
    connection = http.client.HTTPConnection(
        lab.address(site), SERVICE_PORTS[SERVICE], timeout=ANSWER_SECONDS_MAX
    )
    try:
        connection.request("PUT", f"/documents/{name}", body=b"x", headers={"Host": SERVICE_HOSTS[SERVICE]})
        return connection.getresponse().status
    finally:
        connection.close()


def mode_at_home(lab: Lab) -> str:
    return (lab.site("home").gazette / "published.mode").read_text().strip()


@dataclass
class Secrets:
    lab: Lab

    def value(self, reference: str) -> str:
        return self.lab.secret(reference.rsplit("/", 1)[1])


def replicators(lab: Lab) -> dict[str, bool]:
    """Where a replicator runs, as each site's own process manager says."""
    found = {}
    for site in layout.SITES:
        url = f"http://{lab.address(site)}:{layout.SUPERVISOR_PORT}/"
        manager = Manager(url=url, user=supervise.USER, password="secret://file/supervisor")
        found[site] = supervisor.state(manager, "gazette-replicator", Secrets(lab)).name == "running"
    return found


def test_an_aborted_move_lets_the_old_side_take_documents_again(lab: Lab) -> None:
    stray = lab.site("embassy").gazette / "current" / "documents" / "stray.txt"
    stray.write_text("nobody signed this\n")
    assert replicators(lab) == {"home": False, "embassy": True}
    try:
        order = ("failover", "--service", SERVICE, "--leave", "name-service=its servers answer at both sites")
        code, document = say(lab, *order, "--yes", "--even-if-healthy", "--by", "Tester")
        assert code == HELD, document
        assert "stray.txt: is not in the manifest" in " ".join(document["held"]["causes"])
        assert (mode_at_home(lab), put(lab, "home", "2026/closed.txt")) == ("read-only", 503)
        assert replicators(lab) == {"home": False, "embassy": False}
        code, document = say(lab, "abort", "--reason", "what is there was not signed", "--by", "Tester")
        if code in (DONE, HELD) and document.get("state") != "aborted":
            code, document = say(lab, "resume", "--yes", "--by", "Tester")
        assert code == ABORTED, document
    finally:
        stray.unlink()
    assert (mode_at_home(lab), put(lab, "home", "2026/open.txt")) == ("full", 200)
    assert replicators(lab) == {"home": False, "embassy": True}, "one was started that had not run before"


def test_after_the_proof_the_old_side_takes_no_document_and_after_the_way_home_it_does(lab: Lab) -> None:
    assert put(lab, "home", "2026/before.txt") == 200
    code, document = say(lab, "failover", "--yes", "--even-if-healthy", "--by", "Tester")
    assert code == DONE, document
    states = {step["id"]: step["state"] for step in document["steps"]}
    assert states[FENCE] == "succeeded", states
    assert put(lab, "home", "2026/ghost.txt") == 503
    assert put(lab, "embassy", "2026/abroad.txt") == 200
    folder = lab.site("home").gazette
    abroad = lab.site("embassy").gazette
    epochs = [json.loads((at / "published.epoch").read_text())["epoch"] for at in (folder, abroad)]
    assert (mode_at_home(lab), epochs[0]) == ("read-only", epochs[1]), "closed under the epoch of this move"

    code, document = say(lab, "failback", "--yes", "--by", "Tester")
    assert code == DONE, document
    assert put(lab, "embassy", "2026/ghost.txt") == 503
    assert put(lab, "home", "2026/after.txt") == 200
    shown = {path.name for path in (folder / "published" / "2026").iterdir()}
    assert {"abroad.txt", "after.txt"} <= shown
    assert "ghost.txt" not in shown
