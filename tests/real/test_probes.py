"""Every kind of probe on the real parts of one lab: up, degraded, down, and unknown where nobody answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.bootstrap import probing
from orchestrator.bootstrap.app import App
from orchestrator.bootstrap.secrets import FolderSecrets
from orchestrator.drivers.hosts import LocalHosts
from orchestrator.lab import adoption, faults, layout, postgres, sites
from orchestrator.lab.layout import Lab
from orchestrator.settings import Settings
from tests import labs
from tests.waiting import until

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

ROOT = Path(__file__).resolve().parents[2]
ANSWER_SECONDS = 2.0
HUNG_SECONDS_MAX = 10.0
END_SECONDS = 60.0
REFUSED = 3


@pytest.fixture(scope="module")
def shared() -> Iterator[Lab]:
    with labs.own_home():
        yield sites.up(sites.Wanted(owned=True), adopt=adoption.adopt)


@pytest.fixture
def lab(shared: Lab) -> Iterator[Lab]:
    yield shared
    if faults.broken(shared):
        faults.heal(shared)


def command(lab: Lab, *words: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", "probe", *words, "--estate", str(lab.estate), "-o", "json"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=END_SECONDS,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, found


def asked(lab: Lab, *kinds: str) -> dict[str, tuple[str, str]]:
    """``kind about`` → (verdict, detail) of the estate's own parts."""
    app = App(Settings(lab.estate))
    try:
        asks, _ = probing.asks_of(app, kinds)
        answers = probing.look(app, asks, ANSWER_SECONDS)
    finally:
        app.close()
    return {f"{a.ask.kind} {a.ask.about}": (a.report.verdict, a.report.detail) for a in answers}


def verdict(lab: Lab, kind: str, **said: object) -> str:
    """The verdict on one question of our own; why stands in the output of a failed test."""
    app = App(Settings(lab.estate))
    ask = probing.ask_with(app, kind, [json.dumps(said)])
    (answer,) = probing.look(app, [ask], ANSWER_SECONDS)
    print(kind, answer.report)
    return answer.report.verdict


def test_a_whole_lab_is_up_by_every_kind_that_an_estate_has(lab: Lab) -> None:
    postgres.wait_streaming(lab, "home")
    code, found = command(lab)
    assert (code, found["schema"], found["is_up"]) == (0, "continuity/probe/v1", True), found
    assert {probe["kind"] for probe in found["probes"]} == {"http", "tcp", "postgresql", "dns", "files"}
    facts = {probe["about"]: probe["facts"] for probe in found["probes"] if probe["kind"] == "postgresql"}
    home, embassy = facts["registers-db on h1 at home"], facts["registers-db on e1 at embassy"]
    assert (home["role"], home["writable"]) == ("primary", True)
    assert (embassy["role"], embassy["writable"]) == ("standby", False)
    for figure in ("lag_bytes", "lag_ms", "backlog_bytes", "predicted_promote_ms"):
        assert isinstance(embassy[figure], int), figure


def test_a_paused_replay_is_degraded_and_named(lab: Lab) -> None:
    with postgres.connect(lab, "embassy", "population") as session:
        session.execute("SELECT pg_wal_replay_pause()")
        try:
            until(
                lambda: "paused" in asked(lab, "postgresql")["postgresql registers-db on e1 at embassy"][1],
                "the probe says that replay is paused",
            )
            code, found = command(lab, "postgresql")
        finally:
            session.execute("SELECT pg_wal_replay_resume()")
    said = {probe["about"]: probe["verdict"] for probe in found["probes"]}
    assert said == {"registers-db on h1 at home": "up", "registers-db on e1 at embassy": "degraded"}
    assert (code, found["verdicts"]["degraded"]) == (REFUSED, 1)


def test_a_hung_home_is_unknown_never_down_and_nobody_waits_for_ever(lab: Lab) -> None:
    faults.break_it(lab, "home-hang")
    begun = time.monotonic()
    said = asked(lab)
    took = time.monotonic() - begun
    at_home = {about: report for about, report in said.items() if about.endswith(" home")}
    assert took < HUNG_SECONDS_MAX
    assert [report for report in at_home.values() if report[0] == "down"] == []
    assert {about.split()[0] for about, report in at_home.items() if report[0] == "unknown"} == {
        "http",
        "postgresql",
        "dns",
        "files",
    }
    assert at_home["tcp registers-db on h1 at home"][0] == "up"  # the kernel accepts, and says no more
    embassy = {about: report[0] for about, report in said.items() if about.endswith(" embassy")}
    assert embassy.pop("files state-gazette/documents on e1 at embassy") == "up"
    assert set(embassy.values()) <= {"up", "degraded"}, embassy
    assert command(lab, "--seconds", "1")[0] == REFUSED


def beyond_the_way(lab: Lab) -> str:
    """What is said of home's database at its own address, without what carries sessions to it."""
    app = App(Settings(lab.estate))
    ask = probing.ask_with(app, "postgresql", ["cluster=registers-db", "host=h1"])
    member = replace(ask.params, host=replace(ask.params.host, address=lab.address("home")))
    (answer,) = probing.look(app, [replace(ask, params=member)], ANSWER_SECONDS)
    return answer.report.verdict


def test_a_proxy_that_is_down_and_a_crashed_home_are_down(lab: Lab) -> None:
    door = f"http://{lab.address('home')}:{layout.FRONT_PORT}/"
    host = {"host": "h1", "cluster": "registers-db"}
    assert verdict(lab, "http", url=door, status=0) == "up"
    faults.break_it(lab, "proxy-down")
    assert verdict(lab, "http", url=door, status=0) == "down"
    faults.heal(lab, "proxy-down")
    faults.break_it(lab, "home-crash")
    assert verdict(lab, "postgresql", **host) == "unknown"  # the way there accepts, and then says nothing
    assert beyond_the_way(lab) == "down"
    assert verdict(lab, "tcp", address=lab.address("home"), port=layout.FRONT_PORT) == "down"
    assert verdict(lab, "files", **documents(lab)) == "unknown"
    faults.heal(lab, "home-crash")
    until(lambda: verdict(lab, "postgresql", **host) == "up", "home's database is back")


def test_names_are_up_other_than_expected_without_a_value_or_not_answered(lab: Lab) -> None:
    name = {"server": "nh", "name": "gazette.example."}
    assert verdict(lab, "dns", **name, expect=lab.address("home")) == "up"
    assert verdict(lab, "dns", **name, expect="192.0.2.1") == "degraded"
    assert verdict(lab, "dns", server="nh", name="nobody.example.") == "down"


def test_pages_are_degraded_when_they_answer_otherwise(lab: Lab) -> None:
    page = {"url": f"http://gazette.example:{layout.FRONT_PORT}/editions/latest", "resolve_at": ["nh"]}
    until(lambda: verdict(lab, "http", **page) == "up", "the gazette's front door answers")
    assert verdict(lab, "http", **page, json={"site": "moon"}) == "degraded"
    assert verdict(lab, "http", **page, status=404) == "degraded"


def documents(lab: Lab) -> dict[str, object]:
    folder = lab.path / "home" / "gazette" / "current" / "documents"
    key = (lab.estate.parent / "gazette-key.pub").read_text(encoding="utf-8")
    return {"host": "h1", "directory": str(folder), "manifest": "../MANIFEST", "public_key": key}


def test_documents_are_whole_behind_or_not_what_was_signed(lab: Lab) -> None:
    said = documents(lab)
    assert verdict(lab, "files", **said) == "up"
    elsewhere = {"source": "e1", "source_manifest": str(lab.estate)}  # something else than the manifest
    assert verdict(lab, "files", **said, **elsewhere) == "degraded"
    extra = Path(str(said["directory"])) / "unsigned.txt"
    extra.write_text("nobody signed this\n", encoding="utf-8")
    try:
        assert verdict(lab, "files", **said) == "down"
    finally:
        extra.unlink()
    assert verdict(lab, "files", **{**said, "directory": "/nowhere/at/all"}) != "up"


def test_commands_are_judged_by_exit_and_output(lab: Lab) -> None:
    def said(*argv: str, **more: object) -> str:
        return verdict(lab, "command", host="e1", argv=list(argv), **more)

    assert said("echo", "well", expect="well") == "up"
    assert said("echo", "ill", expect="well") == "down"
    assert said("false") == "down"
    assert said("false", degraded_exit=1) == "degraded"
    assert said("/no/such/program") == "unknown"
    assert said("sleep", str(ANSWER_SECONDS * 20)) == "unknown"


def test_a_secret_that_is_not_there_is_unknown_not_down(lab: Lab, tmp_path: Path) -> None:
    app = App(Settings(lab.estate))
    ask = probing.ask_with(app, "postgresql", ["cluster=registers-db", "host=h1"])
    (answer,) = probing.put(
        [ask], ANSWER_SECONDS, LocalHosts(), FolderSecrets(tmp_path / "none"), time.monotonic
    )
    assert answer.report.verdict == "unknown"
    assert "secret://file/pg-control" in answer.report.detail
