"""README's path by hand, as it is written there: separate processes, typed confirmations, a kill."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.terminal import Terminal
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]
SECTION = re.compile(r"^## By hand\n(.*?)^## ", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
ASKING = {"failover", "failback", "switchover", "reprotect", "resume"}

COMMAND_SECONDS = 60.0
OPERATION_SECONDS = 90.0
ORDER_SECONDS = 10.0
GONE_SECONDS = 20.0

pytestmark = pytest.mark.real


def shown_lines() -> list[str]:
    section = SECTION.search((ROOT / "README.md").read_text(encoding="utf-8"))
    assert section
    return [
        line[2:]
        for block in BLOCK.findall(section.group(1))
        for line in block.splitlines()
        if line[:2] == "$ "
    ]


def command() -> list[str]:
    beside = Path(sys.executable).with_name("continuity")
    return [str(beside)] if beside.exists() else [sys.executable, "-m", "orchestrator"]


class Hands:
    """Does what a reader of the README does, one line after the other."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("CONTINUITY_")},
            "CONTINUITY_HOME": str(home),
            "PYTHONPATH": str(ROOT),
            "TERM": "dumb",
        }
        self.run_name = ""
        self.driver: Terminal | None = None
        self.done: list[str] = []

    def say(self, *words: str) -> str:
        """A command that asks nothing; its stdout."""
        done = subprocess.run(
            [*command(), *words],
            cwd=self.home,
            env=self.environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=COMMAND_SECONDS,
        )
        assert done.returncode == 0, (
            f"continuity {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done.stdout

    def ask(self, *words: str) -> Terminal:
        """A command at a terminal, until it asks to be confirmed."""
        terminal = Terminal([*command(), *words], environment=self.environment, folder=self.home)
        terminal.wait_until_asked(OPERATION_SECONDS)
        return terminal

    def finish(self, *words: str) -> None:
        with Terminal([*command(), *words], environment=self.environment, folder=self.home) as terminal:
            code = terminal.finish(OPERATION_SECONDS)
            assert code == 0, f"continuity {' '.join(words)}: {code}\n{terminal.said}"
            assert terminal.answers, (
                f"continuity {' '.join(words)} asked for no confirmation:\n{terminal.said}"
            )

    def take(self, line: str, following: str) -> None:
        words = shlex.split(line.replace("RUN", self.run_name or "RUN"))
        if words[0] == "kill":
            self.kill_at_work()
        elif words[1] in ASKING and following.startswith("kill"):
            self.driver = self.ask(*words[1:])
            status = json.loads(self.say("status", "--output", "json"))["run"]
            self.run_name = status["run"]
            assert status["driver_pid"] == self.driver.process.pid
        elif words[1] in ASKING:
            self.finish(*words[1:])
        else:
            self.say(*words[1:])
        self.done.append(line)

    def kill_at_work(self) -> None:
        """Confirm, wait for the order to be in the log, and kill the driver there and then."""
        assert self.driver
        with self.driver as driver:
            driver.answer()
            self.wait_for_the_order()
            driver.process.send_signal(signal.SIGKILL)
            assert driver.process.wait() == -signal.SIGKILL

    def wait_for_the_order(self) -> None:
        (log,) = self.home.rglob("journal.db")
        order = "select 1 from events where kind = 'run.authorised'"
        with sqlite3.connect(f"file:{log}?mode=ro", uri=True) as journal:
            until(lambda: journal.execute(order).fetchall(), "the order did not reach the log", ORDER_SECONDS)


def left_over(home: Path) -> list[str]:
    """Processes whose environment or command line names the folder."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                text = (folder / "cmdline").read_bytes() + b" " + (folder / "environ").read_bytes()
            except OSError:
                continue
            if str(home).encode() in text:
                found.append(f"{folder.name}: {text.split(b'CONTINUITY')[0][:200]!r}")
    return found


@pytest.fixture
def hands() -> Iterator[Hands]:
    home = Path(tempfile.mkdtemp(prefix="cty-"))  # short: sockets have a limit of 107 bytes
    person = Hands(home)
    try:
        yield person
    finally:
        if person.driver and person.driver.process.poll() is None:
            person.driver.process.kill()
        if person.done and person.done[-1] != "continuity lab down":
            subprocess.run([*command(), "lab", "down"], cwd=home, env=person.environment, capture_output=True)
        shutil.rmtree(home, ignore_errors=True)


@pytest.mark.timeout(400)
def test_the_path_by_hand(hands: Hands) -> None:
    lines = shown_lines()
    assert lines[0] == "continuity lab up"
    assert lines[-1] == "continuity lab down"
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("continuity lab check"):
            report = json.loads(hands.say("lab", "check", "--output", "json"))
            assert report["verified"] is True, report
        hands.take(line, following)
    until(lambda: not left_over(hands.home), "processes of the lab are left", GONE_SECONDS)
    assert not list((hands.home / "lab").iterdir())
    assert not list((hands.home / "labs").glob("*.json"))
