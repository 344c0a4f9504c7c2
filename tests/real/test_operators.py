"""Several people at several terminals: one drives, the others are told who, and a killed driver is replaced."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli._prompt import TRIES_MAX
from orchestrator.lab import adoption, faults, sites, traffic
from orchestrator.lab.layout import Lab
from tests import labs
from tests.terminal import Terminal
from tests.waiting import until

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "orchestrator"]
ASKED_SECONDS = 40.0
END_SECONDS = 60.0
HELD_SECONDS = 20.0
ANNA, BERT = "Anna Tamm", "Bert Kask"
GO_HOME = re.compile(r"^(\S+/go-home): ", re.MULTILINE)
INPUT, REFUSED, HELD = 2, 3, 4
SHARED_MEMORY_BYTES = 32_768
"""The index of the log's write-ahead file: a driver that could not even make that would never begin."""
ROOM_BYTES = 16_384
BY_ANNA = "kind = 'run.authorised' AND body ->> 'by' = 'Anna Tamm'"
"""Enough for the order, not for what follows from it."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with labs.own_home():
        yield sites.up(sites.Wanted(owned=True), adopt=adoption.adopt)


def say(lab: Lab, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words, "--estate", str(lab.estate)],
        cwd=lab.path,
        env=labs.environment(),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=END_SECONDS,
    )


def status(lab: Lab) -> dict[str, Any]:
    done = say(lab, "status", "--output", "json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def events(lab: Lab, run: str) -> list[dict[str, Any]]:
    done = say(lab, "history", run, "--output", "json")
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["events"]
    return found


def in_log(lab: Lab, where: str) -> list[str]:
    """Streams of the events that are so; read from the file, because commands take longer to start."""
    log = lab.estate.parent / ".continuity" / "journal.db"
    with contextlib.closing(sqlite3.connect(f"file:{log}?mode=ro", uri=True)) as journal:
        return [row[0] for row in journal.execute(f"SELECT stream FROM events WHERE {where}")]


def is_met(lab: Lab, step: str) -> bool:
    return bool(in_log(lab, f"kind = 'step.succeeded' AND body ->> 'step' = '{step}'"))


def until_asked_or_over(at: Terminal) -> str:
    """What the command asks, or "" when it has ended."""
    while at.read():
        if at.asked():
            return at.asked()
    at.process.wait(END_SECONDS)
    return ""


def test_two_operators_at_once_one_wins_and_the_other_is_told_who(lab: Lab) -> None:
    with (
        labs.terminal(lab, "failover", "--even-if-healthy", "--by", ANNA) as one,
        labs.terminal(lab, "failover", "--even-if-healthy", "--by", BERT) as two,
        ThreadPoolExecutor(2) as both,
    ):
        asked = list(both.map(until_asked_or_over, (one, two)))
        assert sorted(asked) == ["", "failover embassy"], one.said + two.said
        winner, loser = (one, two) if asked[0] else (two, one)
        name = ANNA if winner is one else BERT
        run = status(lab)["run"]["run"]
        assert loser.process.returncode == REFUSED
        assert f"claimed by run {run}, started by {name} on {os.uname().nodename} at " in loser.said
        assert f"continuity status {run}" in loser.said
        assert {group["claim"] for group in status(lab)["groups"]} == {run}

        second = say(lab, "resume", run, "--by", "Carl Mets", "--yes")
        assert second.returncode == 0, second.stderr
        assert f"{run} is driven by process {winner.process.pid}" in second.stderr

        for _ in range(TRIES_MAX):
            assert winner.wait_until_asked(ASKED_SECONDS) == "failover embassy"
            winner.type("no")
        assert winner.finish(END_SECONDS) == REFUSED
        assert "not confirmed: nothing was changed" in winner.said
    groups = status(lab)["groups"]
    assert {group["active_site"] for group in groups} == {"home"}
    assert {group["claim"] for group in groups} == {None}
    assert sites.active_site(lab) == "home"


def full_disk_of(lab: Lab, driver: Terminal) -> None:
    """From now on no file of this driver grows beyond what the log's write-ahead file has now."""
    log = lab.estate.parent / ".continuity" / "journal.db-wal"
    room = log.stat().st_size + ROOM_BYTES
    assert room > SHARED_MEMORY_BYTES
    resource.prlimit(driver.process.pid, resource.RLIMIT_FSIZE, (room, room))


def test_a_disk_that_is_full_in_mid_run_ends_the_driver_with_what_stands_and_the_next_goes_on(
    lab: Lab,
) -> None:
    with labs.terminal(lab, "switchover", "--by", ANNA) as driver:
        assert driver.wait_until_asked(ASKED_SECONDS) == "switchover embassy"
        run = status(lab)["run"]["run"]
        driver.answer()
        until(lambda: in_log(lab, BY_ANNA), "the order is in the log")
        full_disk_of(lab, driver)
        assert driver.finish(END_SECONDS) == HELD
    assert "nothing was changed" not in driver.said
    assert (
        f"{run} exists: its state is as the log has it, and what was begun may still take effect"
        in driver.said
    )
    ways = labs.offered(lab, f"continuity status {run}", f"continuity resume {run}")
    assert driver.said.endswith("".join(f"    {way}\n" for way in ways))
    now = status(lab)["run"]
    assert (now["run"], now["state"], now["driver_pid"]) == (run, "running", None)

    resumed = say(lab, "resume", run, "--yes", "--by", BERT)
    assert resumed.returncode == 0, resumed.stderr
    accepted = [e["body"]["limit_ms"] for e in events(lab, run) if e["kind"] == "gate.accepted"]
    assert set(accepted) <= {0}, "a planned move accepts nothing, whoever takes it up"
    assert sites.active_site(lab) == "embassy"
    home = say(lab, "switchover", "--yes", "--by", BERT)
    assert home.returncode == 0, home.stderr


def wait_until_held(lab: Lab, driver: Terminal) -> str:
    """The driver stays while its run is held, and shows at its terminal what may be done. The run."""
    deadline = time.monotonic() + HELD_SECONDS
    while "continuity declare site-lost" not in driver.said:
        assert driver.read(), driver.said
        assert time.monotonic() < deadline, driver.said
    assert "no proof that h1 cannot write" in driver.said
    now = status(lab)["run"]
    assert (now["state"], now["driver_pid"]) == ("held", driver.process.pid)
    return str(now["run"])


def pause_and_declare_and_go_on(lab: Lab, run: str, driver_pid: int) -> None:
    """Another terminal gives all the orders; the driver carries them out at its own."""
    lost = ("declare", "site-lost", run, "--reason", "gone", "--by", BERT)
    assert say(lab, *lost, "--site", "mars").returncode in (INPUT, REFUSED)
    paused = say(lab, "pause", run, "--by", BERT)
    assert paused.returncode == 0, paused.stderr
    now = status(lab)["run"]
    assert (now["state"], now["driver_pid"]) == ("paused", driver_pid)
    twice = say(lab, "pause", run, "--by", BERT)
    assert twice.returncode == REFUSED
    assert f"the run is paused already; to go on: continuity resume {run}" in twice.stderr
    declared = say(lab, *lost, "--site", "home")
    assert declared.returncode == 0, declared.stderr
    goes_on = say(lab, "resume", run, "--by", BERT, "--accept-loss", "30s")
    assert goes_on.returncode == 0, goes_on.stderr
    assert f"{run} is driven by process {driver_pid}" in goes_on.stderr


def test_a_driver_is_held_ordered_about_and_killed_while_another_terminal_gives_orders(lab: Lab) -> None:
    load = traffic.start(lab, traffic.Load(writers=2, pause_ms=20))
    faults.break_it(lab, "home-crash")
    with labs.terminal(lab, "failover", "--by", ANNA) as driver, labs.power_controller_silent(lab):
        assert driver.wait_until_asked(ASKED_SECONDS) == "failover embassy"
        driver.answer()
        run = wait_until_held(lab, driver)
        pause_and_declare_and_go_on(lab, run, driver.process.pid)
        until(lambda: is_met(lab, "registers-db/promote"), "the promotion is in the log")
        driver.process.send_signal(signal.SIGKILL)
        assert driver.process.wait(END_SECONDS) == -signal.SIGKILL

    alone = say(lab, "pause", run, "--by", BERT)
    assert alone.returncode == 0, alone.stderr
    assert f"no process drives this run; to go on:\n    continuity resume {run}" in alone.stderr
    now = status(lab)["run"]
    assert (now["state"], now["driver_pid"]) == ("paused", None)
    resumed = say(lab, "resume", run, "--yes", "--by", BERT)
    assert resumed.returncode == 0, resumed.stderr
    told = events(lab, run)
    assert [event["body"]["by"] for event in told if event["kind"] == "run.paused"] == [BERT, BERT]
    assert sum(event["kind"] == "driver.started" for event in told) == 2
    traffic.stop(lab)
    assert traffic.check(lab, "embassy", [load.ledger])["verified"]


def asked_about(driver: Terminal) -> str:
    """The step whose question stands open at this terminal."""
    return GO_HOME.findall(driver.said)[-1]


def test_of_the_questions_before_going_home_some_are_answered_at_another_terminal(lab: Lab) -> None:
    faults.heal(lab, "home-crash")
    with labs.terminal(lab, "failback", "--by", ANNA) as driver:
        assert driver.wait_until_asked(ASKED_SECONDS) == "failback home"
        driver.answer()
        assert driver.wait_until_asked(ASKED_SECONDS) == "confirmed"
        by_bert = asked_about(driver)
        run = status(lab)["run"]["run"]
        for _ in range(2):  # the second is refused: it is answered, whoever says it again
            confirmed = say(lab, "confirm", run, by_bert, "--by", BERT)
        assert confirmed.returncode == REFUSED, confirmed.stdout
        deadline = time.monotonic() + END_SECONDS
        while f"answered from another terminal by {BERT}" not in driver.said:
            assert driver.read(), driver.said
            assert time.monotonic() < deadline, driver.said
        assert driver.finish(END_SECONDS) == 0, driver.said
    said_by = {e["body"]["step"]: e["body"]["by"] for e in events(lab, run) if e["kind"] == "step.confirmed"}
    assert said_by.pop(by_bert) == BERT
    assert said_by
    assert set(said_by.values()) == {ANNA}
    assert sites.active_site(lab) == "home"
