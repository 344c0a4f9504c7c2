"""A demo that is interrupted leaves nothing: no process, no lab; and one row that is not as it was told fails it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from orchestrator.lab import claims, postgres, processes
from orchestrator.lab.layout import Lab
from tests import labs
from tests.waiting import until

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

SIGNALLED = 128
NOT_VERIFIED = 6
GONE_SECONDS_MAX = 20.0


class Demo:
    """``continuity lab demo`` as a process; ``said`` grows while it speaks."""

    def __init__(self, home: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator", "lab", "demo", "--output", "json"],
            cwd=labs.ROOT,
            env={**os.environ, "CONTINUITY_HOME": str(home)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said: list[str] = []
        self._listening = threading.Thread(target=self._listen, daemon=True)
        self._listening.start()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        self.said.extend(iter(self.process.stderr.readline, ""))

    def wait_for(self, words: str) -> None:
        def is_said() -> bool:
            assert self.process.poll() is None, "".join(self.said)
            return any(words in line for line in self.said)

        until(is_said, f"the demo says {words!r}", 60)

    def end(self, number: signal.Signals) -> tuple[int, str]:
        """Signal the demo alone, and wait for its end: (exit code, stdout)."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> tuple[int, str]:
        assert self.process.stdout is not None
        out = self.process.stdout.read()
        code = self.process.wait(GONE_SECONDS_MAX)
        self._listening.join(GONE_SECONDS_MAX)
        self.process.stdout.close()
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code, out


def nothing_is_left(lab: Lab) -> bool:
    return not lab.path.exists() and not processes.of_part(lab.mark(""), lab.path) and not claims.labs()


MOMENTS = ("a new database", "every process at home is killed", "ordered by the demo")


@pytest.mark.parametrize("words", MOMENTS)
def test_a_demo_that_is_killed_takes_its_lab_with_it(words: str) -> None:
    with labs.own_home() as home:
        demo = Demo(home)
        demo.wait_for(words)
        (lab,) = claims.labs()
        before = labs.listening(lab)
        assert before, "nobody holds the lab's number"
        code, out = demo.end(signal.SIGKILL)
        assert (code, out) == (-signal.SIGKILL, "")
        until(lambda: nothing_is_left(lab), "nothing of the lab is left", GONE_SECONDS_MAX)
        assert labs.left_of(before, lab) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_stopped_cleans_up_before_it_ends(number: signal.Signals) -> None:
    with labs.own_home() as home:
        demo = Demo(home)
        demo.wait_for("ordered by the demo")
        (lab,) = claims.labs()
        code, _ = demo.end(number)
        assert code == SIGNALLED + number, "".join(demo.said)
        assert nothing_is_left(lab)
        assert any("stopped: the lab is gone" in line for line in demo.said)
        kept = list((home / "reports").glob("*/journal.db"))
        assert len(kept) == 1, "what was seen until then is kept"


def test_a_demo_whose_data_was_touched_is_not_verified_and_says_so() -> None:
    with labs.own_home() as home:
        demo = Demo(home)
        demo.wait_for("home gets its power back")
        (lab,) = claims.labs()
        ledger = (lab.load_folder / "001-persons.jsonl").read_text(encoding="utf-8").splitlines()
        acked = next(entry for entry in map(json.loads, ledger) if entry["t"] == "acked")
        with postgres.connect(lab, "embassy", "population") as session:
            done = session.execute("UPDATE persons SET value = 'forged' WHERE id = %s", (acked["id"],))
            assert done.rowcount == 1
        code, out = demo.wait()
        assert code == NOT_VERIFIED, "".join(demo.said)
        document = json.loads(out)
        assert document["verified"] is False
        assert document["failover"]["verified"] is True, "that one was judged before"
        assert (document["final_check"]["verified"], document["final_check"]["changed"]) == (False, 1)
        assert nothing_is_left(lab)
