"""A home that comes back by itself and takes documents: found, named, listed as its clients' ledger has it, and kept."""

from __future__ import annotations

import hashlib
import http.client
import json
import math
import re
import shlex
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from orchestrator.actions import files_measure
from orchestrator.cli._prompt import TRIES_MAX
from orchestrator.core.model import Manager
from orchestrator.drivers import supervisor
from orchestrator.lab import adoption, editions, faults, layout, sites, supervise
from orchestrator.lab.layout import SERVICE_HOSTS, SERVICE_PORTS, Lab, SiteName
from orchestrator.runbook.units import parse_duration
from tests import labs
from tests.waiting import until

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

ROOT = Path(__file__).resolve().parents[2]
END_SECONDS = 60.0
FENCE_SECONDS_MAX = 20
ANSWER_SECONDS_MAX = 8.0
UNIT_SECONDS_MAX = 5.0
DONE, REFUSED, HELD = 0, 3, 4
SERVICE, REPLICATOR = "state-gazette", "gazette-replicator"
PEOPLE = ("--by", "Tester", "--yes")


@dataclass
class Secrets:
    lab: Lab

    def value(self, reference: str) -> str:
        return self.lab.secret(reference.rsplit("/", 1)[1])


@dataclass
class Ledger:
    """What clients of each site's gazette were told: site → name → SHA-256 of what was last acknowledged."""

    lab: Lab
    acked: dict[str, dict[str, str]] = field(default_factory=lambda: {"home": {}, "embassy": {}})

    def put(self, site: SiteName, name: str, text: str) -> int:
        """Give the gazette of one site a document, past every front door."""
        where = self.lab.address(site)
        connection = http.client.HTTPConnection(where, SERVICE_PORTS[SERVICE], timeout=ANSWER_SECONDS_MAX)
        try:
            headers = {"Host": SERVICE_HOSTS[SERVICE]}
            connection.request("PUT", f"/documents/{name}", body=text.encode(), headers=headers)
            status = connection.getresponse().status
        finally:
            connection.close()
        if status == 200:
            self.acked[site][name] = hashlib.sha256(text.encode()).hexdigest()
        return status

    def taken_by_both(self) -> None:
        """What home acknowledged so far has arrived abroad."""
        self.acked["embassy"] = dict(self.acked["home"])

    def apart(self) -> dict[str, tuple[str, str]]:
        """Name → (what home acknowledged, what stands at the embassy or ""), where these are not equal."""
        abroad = self.acked["embassy"]
        return {
            name: (digest, abroad.get(name, ""))
            for name, digest in self.acked["home"].items()
            if abroad.get(name) != digest
        }


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with labs.own_home():
        yield sites.up(sites.Wanted(owned=True), adopt=adoption.adopt)


def say(lab: Lab, code: int, *words: str) -> dict[str, Any]:
    return answered(lab, code, *words)[0]


def answered(lab: Lab, code: int, *words: str) -> tuple[dict[str, Any], str]:
    """A command's document, and what it said to people meanwhile."""
    done = labs.command(lab, *words, "--output", "json")
    assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
    found: dict[str, Any] = json.loads(done.stdout)
    return found, done.stderr


def manager(lab: Lab, site: SiteName) -> Manager:
    url = f"http://{lab.address(site)}:{layout.SUPERVISOR_PORT}/"
    return Manager(url=url, user=supervise.USER, password="secret://file/supervisor")


def is_running(lab: Lab, site: SiteName) -> bool:
    return supervisor.state(manager(lab, site), REPLICATOR, Secrets(lab)).name == "running"


def labels(document: dict[str, Any]) -> dict[str, str]:
    return {group["name"]: group["label"] for group in document["groups"]}


def rows(path: Path) -> dict[str, tuple[str, str]]:
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {row["document"]: (row["lost"], row["kept"] or "") for row in found if "document" in row}


def what_grows_while_people_think_is_asked_again(lab: Lab, expected: str) -> None:
    """What they confirm is what would be lost when they confirm it: the phrase then names the limit that covers it."""
    known = time.monotonic()
    age_seconds = parse_duration(expected.split()[2]) / 1_000
    limit_seconds = math.ceil(age_seconds) + labs.ORDER_SECONDS_MAX
    words = ("failover", *PEOPLE[:2], "--accept-loss", f"{limit_seconds}s")
    with labs.terminal(lab, *words) as person:
        assert person.wait_until_asked(END_SECONDS) == "failover embassy"
        until(lambda: time.monotonic() - known > limit_seconds - age_seconds, "more is lost than that")
        person.answer()
        asked = person.wait_until_asked(END_SECONDS)
        assert re.fullmatch(r"failover embassy --accept-loss (\d+m)?(\d+s)?", asked)
        assert "more would be lost than is accepted" in person.said
        assert "Without those: continuity failover" in " ".join(person.said.split())
        assert f"By confirming you accept at most {asked.split()[-1]} of data loss" in person.said
        for _ in range(TRIES_MAX):
            person.wait_until_asked(END_SECONDS)
            person.type("failover embassy")
        assert person.finish(END_SECONDS) == REFUSED
        assert "not confirmed: nothing was changed" in person.said


def lose_home(lab: Lab, ledger: Ledger) -> None:
    """Home is lost with a document that had not arrived abroad; there other people go on."""
    assert ledger.put("home", "2026/a.txt", "first") == 200
    folder = lab.site("embassy").gazette
    wanted = editions.current_number(lab.site("home").gazette)
    until(lambda: editions.current_number(folder) == wanted, "the embassy has the edition")
    ledger.taken_by_both()
    supervisor.stop(manager(lab, "embassy"), REPLICATOR, Secrets(lab), UNIT_SECONDS_MAX)
    taken_ns = time.time_ns()
    assert ledger.put("home", "2026/not-arrived.txt", "lost") == 200
    lost_ns = time.time_ns()
    labs.set_fence_budget(lab, FENCE_SECONDS_MAX)
    faults.break_it(lab, "home-crash")
    unit = f"{SERVICE}/documents"
    live = say(lab, DONE, "plan", "failover", "--live")
    assert re.fullmatch(r"up to \S+ \(all documents were here at 20\S+\)", live["observed"]["loss"][unit])
    refused = say(lab, REFUSED, "failover", *PEOPLE, "--accept-loss", "0")
    assert refused["message"].startswith(f"more would be lost than is accepted ({unit}: ")
    assert refused["message"].endswith(": nothing was changed")
    assert refused["instead"][0].count("--accept-loss") == 1
    alone = [name for option, name in pairwise(shlex.split(refused["instead"][1])) if option == "--service"]
    assert sorted(alone) == ["land-register", "name-service", "population-register"], refused["instead"]
    assert f"--leave {SERVICE}=more would be lost than is accepted" in " ".join(
        shlex.split(refused["instead"][1])
    )
    what_grows_while_people_think_is_asked_again(lab, live["observed"]["loss"][unit])
    live = say(lab, DONE, "plan", "failover", "--live")
    with labs.proof_slower_than_expected(lab, [live["observed"]["loss"][unit]]) as limit:
        held = say(lab, HELD, "failover", *PEOPLE, "--accept-loss", limit)
    assert [cause.partition(":")[0] for cause in held["held"]["causes"]] == [unit]
    stated = held["loss"][unit]["seconds"]
    assert stated * 1e9 >= lost_ns - taken_ns, "what home took and never arrived lies within it"
    say(lab, DONE, "resume", held["run"], "--yes", "--accept-loss", "5m")
    recorded = say(lab, DONE, "report")
    assert recorded["services"][SERVICE]["rpo_basis"] == f"{unit}: {files_measure.BASIS}"
    assert recorded["services"][SERVICE]["rpo_met"] is True
    assert ledger.put("embassy", "2026/a.txt", "second") == 200
    assert ledger.put("embassy", "2026/abroad.txt", "abroad") == 200


def test_what_home_takes_after_it_came_back_is_listed_as_the_ledger_has_it_and_kept(lab: Lab) -> None:
    ledger = Ledger(lab)
    lose_home(lab, ledger)
    faults.break_it(lab, "home-returns")
    looked = say(lab, DONE, "status", "--live")
    (apart,) = looked["live"]["apart"]
    assert (apart["only"], apart["differ"], apart["is_second"]) == (1, 1, False)
    assert labels(looked)[SERVICE] == "embassy_active_unprotected", "not arrived is a loss, not a split brain"

    for number in range(3):
        assert ledger.put("home", f"2026/ghost-{number}.txt", "g") == 200
    assert ledger.put("home", "2026/ghost-1.txt", "again") == 200
    refused = say(lab, REFUSED, "failback", *PEOPLE)
    assert f"{SERVICE} is split_brain" in refused["message"]
    assert labels(say(lab, DONE, "status"))[SERVICE] == "split_brain"

    words = ("--keep", "embassy", "--reason", "home was declared lost", *PEOPLE)
    resolved = say(lab, DONE, "resolve", SERVICE, *words)
    assert rows(Path(resolved["list"])) == ledger.apart()
    assert resolved["diverged"]["documents"] == {f"{SERVICE}/documents@home": {"only": 4, "differ": 1}}
    say(lab, DONE, "resolve", "registers", *words)

    report = reprotect_under_load(lab, ledger)
    (back,) = (found for found in report["came_back"] if found["step"] == f"{SERVICE}/documents/keep")
    assert back["how"] == "kept aside"
    kept = Path(back["kept"])
    assert rows(kept / "list.jsonl") == ledger.apart(), "also what was taken after people had resolved it"
    listed = {row["document"]: (row["lost"], row["kept"]) for row in back["diverged"]}
    assert listed == ledger.apart()
    for name, (digest, _) in ledger.apart().items():
        assert hashlib.sha256((kept / "documents" / name).read_bytes()).hexdigest() == digest
    homes, abroad = (editions.manifest_of_current(lab.site(site).gazette) for site in layout.SITES)
    assert homes == abroad
    assert editions.parse_manifest(abroad).items() >= ledger.acked["embassy"].items()

    say(lab, DONE, "failback", *PEOPLE)
    assert (is_running(lab, "home"), is_running(lab, "embassy")) == (False, True)
    assert ledger.put("home", "2026/ghost-0.txt", "now for good") == 200
    shown = lab.site("home").gazette / "published" / "2026"
    assert {path.name for path in shown.iterdir()} >= {"a.txt", "abroad.txt", "ghost-0.txt"}
    assert not (shown / "ghost-1.txt").exists()
    assert (shown / "ghost-0.txt").read_text() == "now for good", "an old edition of that number was shown"


def reprotect_under_load(lab: Lab, ledger: Ledger) -> dict[str, Any]:
    """The way back begins while home still takes documents; the record of that run."""
    refused = threading.Event()

    def write() -> None:
        number = 0
        while ledger.put("home", f"2026/late-{number}.txt", "late") == 200:
            number += 1
        refused.set()

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    record = say(lab, DONE, "reprotect", *PEOPLE)
    writer.join(END_SECONDS)
    assert refused.is_set(), "home still takes documents"
    assert any(name.startswith("2026/late-") for name in ledger.acked["home"])
    return record
