"""What a log believes is looked at again: a standby that is gone, and a second history where nothing runs any more."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.cli._acceptance import LOOK_AGAIN_SECONDS
from orchestrator.lab import adoption, faults, postgres, sites
from orchestrator.lab.layout import SERVICE_HOSTS, SERVICE_PORTS, Lab
from tests import labs
from tests.terminal import Terminal
from tests.waiting import until

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

ROOT = Path(__file__).resolve().parents[2]
DONE, REFUSED = 0, 3
ASKED_SECONDS = 40.0


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with labs.own_home():
        yield sites.up(sites.Wanted(owned=True), adopt=adoption.adopt)


def say(lab: Lab, *words: str) -> tuple[int, str]:
    """A command as people give it: its exit code and all that it said."""
    done = labs.command(lab, *words)
    return done.returncode, f"{done.stdout}\n{done.stderr}"


def has_standby(lab: Lab) -> bool:
    with postgres.connect(lab, "home", "postgres") as session:
        row = session.execute("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'").fetchone()
        return bool(row and row[0])


ALONE = ("--service", "name-service", "--service", "state-gazette")
LEFT = ("--leave", "population-register=x", "--leave", "land-register=x")
STOPPED = "registers (land-register, population-register), which stays"


def gazette(lab: Lab, method: str = "GET", path: str = "/readyz") -> int:
    """What home's gazette answers, past every front door; 0: nothing."""
    at = (lab.address("home"), SERVICE_PORTS["state-gazette"])
    with contextlib.closing(http.client.HTTPConnection(*at, timeout=ASKED_SECONDS)) as connection:
        try:
            host = {"Host": SERVICE_HOSTS["state-gazette"]}
            connection.request(method, path, b"x" if method == "PUT" else None, host)
            return connection.getresponse().status
        except OSError:
            return 0


def test_a_healthy_home_that_serves_documents_alone_is_not_given_up(lab: Lab) -> None:
    """Its power would go, and with it all that stays there."""
    code, said = say(lab, "failover", *ALONE, *LEFT[:2], "--yes", "--by", "r")
    assert (code, f"power-off of h1 would also stop {STOPPED} at home" in said) == (REFUSED, True), said
    assert "--service land-register" in said
    assert "--leave land-register=REASON" in said
    code, said = say(lab, "plan", "failover", *ALONE, *LEFT)
    assert (code, f"note: power-off of h1 also stops {STOPPED}: x" in said) == (DONE, True), said
    code, said = say(lab, "failover", *ALONE, *LEFT, "--yes", "--by", "r")
    assert (code, "home answers and serves" in said) == (REFUSED, True), said
    assert f"power-off of h1 also stops {STOPPED}: x" in said
    assert serves(lab, registers="home")


def serves(lab: Lab, registers: str) -> bool:
    """Home has its power and takes documents, and every group stands where it stood, claimed by nobody."""
    status = labs.answer(lab, "status")[1]
    stand = {group["name"]: (group["active_site"], group["claim"]) for group in status["groups"]}
    with postgres.connect(lab, registers, "postgres") as session:
        row = session.execute("SELECT pg_is_in_recovery()").fetchone()
    assert stand == {
        "registers": (registers, None), "state-gazette": ("home", None), "name-service": ("home", None),
    }  # fmt: skip
    return (row, gazette(lab, "PUT", "/documents/2026/still.txt")) == ((False,), 200)


def test_a_healthy_home_from_which_the_registers_went_already_is_not_given_up(lab: Lab) -> None:
    away = ("--service", "population-register", "--leave", "name-service=it answers at both sites")
    code, said = say(lab, "switchover", *away, "--yes")
    assert code == DONE, said
    code, said = say(lab, "failover", "--yes", "--by", "r")
    assert (code, "home answers and serves" in said) == (REFUSED, True), said
    assert serves(lab, registers="embassy")
    faults.break_it(lab, "home-crash")
    with labs.terminal(lab, "failover") as terminal:
        assert terminal.wait_until_asked(ASKED_SECONDS) == "failover embassy"
        begun = time.monotonic()
        faults.heal(lab)
        until(lambda: gazette(lab) == 200, "home's gazette answers again")
        until(lambda: hesitated(begun), "people take their time")
        code, said = terminal.finish(ASKED_SECONDS), terminal.said
    assert (code, "home answers and serves" in said) == (REFUSED, True), said
    assert serves(lab, registers="embassy")
    code, said = say(lab, "failback", "--service", "population-register", "--yes")
    assert code == DONE, said
    assert serves(lab, registers="home")


def test_a_warm_program_that_is_down_is_named_before_the_order_and_stops_nobody(lab: Lab) -> None:
    faults._unit(lab, "embassy", "population-register", start=False)
    code, said = say(lab, "preflight", "failover")
    assert (
        "population-register on embassy-services is stopped" in said or "is stopped: it should wait" in said
    )
    assert "supervisorctl -s http://" in said
    assert "start population-register" in said
    assert code == DONE, said
    code, said = say(lab, "plan", "failover", "--live", "--output", "json")
    (step,) = [
        s for s in json.loads(said)["observed"]["steps"].items() if "population" in s[0] and "inspect" in s[0]
    ]
    assert (code, step[1]["result"], len(step[1]["evidence"]["findings"])) == (DONE, "ok", 1)
    faults._unit(lab, "embassy", "population-register", start=True)
    code, said = say(lab, "preflight", "failover")
    assert (code, "supervisorctl" in said) == (DONE, False), said


def test_a_terminal_without_our_signs_is_no_bug(lab: Lab) -> None:
    command = [sys.executable, "-m", "orchestrator", "plan", "failover", "--estate", str(lab.estate)]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, "home ? embassy" in done.stdout) == (DONE, True), done.stderr


def test_a_standby_that_is_gone_is_noticed_and_brought_back(lab: Lab) -> None:
    code, said = say(lab, "reprotect", "--yes")
    assert (code, "protected already" in said) == (REFUSED, True), said
    faults.break_it(lab, "home-crash", "embassy")
    until(lambda: not has_standby(lab), "home sees that its standby is gone")
    code, said = say(lab, "status", "--live")
    assert code == DONE
    assert "registers: UNPROTECTED: no standby streams" in said
    assert "home_active_unprotected" in said
    code, said = say(lab, "switchover", "--yes")
    assert code == REFUSED, said
    assert "continuity reprotect" in said
    (healed,) = faults.heal(lab)
    assert healed["done"]["held"] == []  # a standby can do no harm
    until(lambda: has_standby(lab), "the standby of a site that has power again streams")
    faults._unit(lab, "embassy", "postgresql", start=False)
    assert not has_standby(lab)
    code, said = say(lab, "reprotect", "--yes")
    assert code == DONE, said
    assert has_standby(lab)
    assert "home_active_protected" in say(lab, "status")[1]


def hesitated(begun: float) -> bool:
    return time.monotonic() - begun > LOOK_AGAIN_SECONDS + 0.5


def test_a_home_that_came_back_while_people_hesitated_is_not_given_up(lab: Lab) -> None:
    """What was seen before the question is old when it is answered, or when another driver takes the run up."""
    argv = [sys.executable, "-m", "orchestrator", "failover", "--estate", str(lab.estate)]
    kept = {name: value for name, value in os.environ.items() if name != "CONTINUITY_ESTATE"}
    environment = {**kept, "PYTHONPATH": str(ROOT), "TERM": "dumb"}
    for is_killed in (False, True):
        faults.break_it(lab, "home-crash")
        with Terminal(argv, environment=environment, folder=lab.path) as terminal:
            assert terminal.wait_until_asked(ASKED_SECONDS) == "failover embassy"
            begun = time.monotonic()
            if is_killed:
                terminal.process.kill()
            faults.heal(lab)
            until(lambda: has_standby(lab), "home is whole again")
            until(lambda begun=begun: hesitated(begun), "people take their time")
            if is_killed:
                code, said = say(lab, "resume", "--yes")
            else:
                code, said = terminal.finish(ASKED_SECONDS), terminal.said
        assert (code, "home answers and serves" in said) == (REFUSED, True), said
        assert "continuity switchover" in said
        code, said = say(lab, "status")
        assert "home_active_protected" in said
        assert "claimed by" not in said


def copied(source: Path, target: Path) -> None:
    with (
        contextlib.closing(sqlite3.connect(source)) as log,
        contextlib.closing(sqlite3.connect(target)) as to,
    ):
        log.backup(to)


def test_a_log_that_is_behind_is_told_by_the_sites(lab: Lab, tmp_path: Path) -> None:
    """An old copy is whole in itself: only the rows at the sites know more than it does."""
    log = lab.estate.parent / ".continuity" / "journal.db"
    assert "BEHIND" not in say(lab, "status", "--live")[1]
    copied(log, tmp_path / "old.db")
    code, said = say(lab, "switchover", "--yes")
    assert code == DONE, said
    copied(log, tmp_path / "new.db")
    copied(tmp_path / "old.db", log)
    code, found = labs.answer(lab, "status", "--live")
    assert code == DONE
    assert found["live"]["behind"].keys() == {"registers"}
    said = say(lab, "status", "--live")[1]
    assert re.search(r"registers: THE LOG IS BEHIND: epoch \d of embassy", said), said
    assert "continuity adopt registers --by NAME" in said
    copied(tmp_path / "new.db", log)
    assert "BEHIND" not in say(lab, "status", "--live")[1]
    code, said = say(lab, "switchover", "--yes")
    assert code == DONE, said
    copied(log, tmp_path / "last.db")
    copied(tmp_path / "new.db", log)  # by it there is nothing to fail over: all stands at the embassy already
    code, said = say(lab, "preflight", "failover")
    assert code == REFUSED, said
    for group in ("registers", "state-gazette"):
        assert re.search(rf"{group}: THE LOG IS BEHIND: epoch \d of home", said), said
        assert f"continuity adopt {group} --by NAME" in said
    copied(tmp_path / "last.db", log)
    assert say(lab, "preflight", "failover")[0] == DONE


def test_a_home_that_wrote_and_died_again_is_a_split_brain(lab: Lab) -> None:
    faults.break_it(lab, "home-crash")
    code, said = say(lab, "switchover", "--yes")
    assert (code, "home does not answer (h1: " in said) == (REFUSED, True), said
    assert f"    continuity failover --to embassy --estate {lab.estate}\n" in said, "to the side that lives"
    assert "claimed by" not in say(lab, "status")[1]
    faults._unit(lab, "embassy", "population-register", start=False)  # it should wait there, and does not
    code, said = say(lab, "failover", "--yes")
    assert code == DONE, said
    assert "start population-register" in said, "it was named before the order, and started after it"
    order = [
        said.index(text)
        for text in ("-db: expected loss now: ", "By confirming you accept data loss up to the RPO: at most ")
    ]
    assert order == sorted(order), said
    for verb in ("failback", "reprotect"):
        code, said = say(lab, verb, "--yes")
        assert (code, "home does not answer (h1: " in said) == (REFUSED, True), said
        assert "no group is claimed" in said
    assert "claimed by" not in say(lab, "status")[1]
    faults.break_it(lab, "home-returns")
    with postgres.connect(lab, "home", "population") as session:
        session.execute("SET synchronous_commit = local")
        session.execute(
            "INSERT INTO public.persons (id, value, site, epoch) VALUES ('ghost', 'x', 'home', 1)"
        )
    faults.break_it(lab, "home-crash")
    faults.heal(lab)  # its power is back, and the old primary is held
    for words in (("preflight", "failback"), ("failback", "--yes"), ("reprotect", "--yes")):
        code, said = say(lab, *words)
        assert (code, "split_brain" in said) == (REFUSED, True), said
        assert "continuity resolve" in said
    code, said = say(lab, "status", "--live")
    assert "at home: SPLIT BRAIN: it committed" in said
    assert re.search(r"on timeline \d, which was left at", said), said
    code, said = say(lab, "adopt", "registers", "--active", "embassy", "--yes")
    assert (code, "continuity resolve registers" in said) == (REFUSED, True), said
    code, said = say(lab, "resolve", "registers", "--keep", "embassy", "--reason", "it was lost", "--yes")
    assert code == DONE, said
    code, said = say(lab, "reprotect", "--yes")
    assert code == DONE, said
