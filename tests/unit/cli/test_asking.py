"""People are asked on a quiet screen, and a slip of the finger ends nothing."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.bootstrap.expected import Expected
from orchestrator.bootstrap.observe import confirmation
from orchestrator.cli._prompt import TRIES_MAX
from orchestrator.core.plan import ServiceFacts
from orchestrator.core.run import start
from orchestrator.engine.observe import Aside
from tests.builders import a_failover, created
from tests.terminal import Terminal
from tests.unit.cli.logs import ROOT, environment

ASK_SECONDS_MAX = 30.0
SLOW_SECONDS_MAX = 5.0
QUEUED = 50
ASK = """
import sys
from orchestrator.cli._prompt import Keyboard, Prompt, Screen

prompt = Prompt(Screen(), Keyboard())
prompt.open("order", "failover embassy")
while (answer := prompt.answer(seconds_max=30)) is None:
    pass
sys.exit(answer)
"""


AGREE = """
import select, sys
from orchestrator.cli.adopt import _agreed

print("what is to be adopted is shown", flush=True)
select.select([0], [], [])
sys.exit(_agreed("adopt"))
"""


def answered(folder: Path, answers: Sequence[str]) -> Terminal:
    """A person who gives these answers, one a question; 1 = what was asked for was typed."""
    argv = [sys.executable, "-c", ASK]
    with Terminal(argv, environment={**environment(None), "PYTHONPATH": str(ROOT)}, folder=folder) as person:
        for answer in answers:
            assert person.wait_until_asked(ASK_SECONDS_MAX) == "failover embassy"
            person.type(answer)
        while person.read():
            assert not person.asked(), person.said
        person.process.wait(ASK_SECONDS_MAX)
        return person


@pytest.mark.parametrize(
    ("answers", "is_typed"),
    [
        (["failover embasy", "failover embassy"], 1),
        (["no", "y", "failover embassy"], 1),
        (["no", "no", "no"], 0),
        (["\x04"], 0),
    ],
)
def test_a_phrase_is_asked_for_three_times(tmp_path: Path, answers: list[str], is_typed: int) -> None:
    person = answered(tmp_path, answers)
    assert person.process.returncode == is_typed, person.said
    if len(answers) == TRIES_MAX:
        assert "asked 2 more times" in person.said
        assert "asked 1 more time," in person.said


def test_all_that_happened_is_on_the_screen_before_people_are_asked() -> None:
    may_print, printed = threading.Event(), []

    def slowly(run: object, events: object) -> None:
        assert may_print.wait(SLOW_SECONDS_MAX)
        printed.append(events)

    aside = Aside(slowly)
    run = start(a_failover(), created())
    for _ in range(QUEUED):
        aside(run, (created(),))
    assert not aside.drain(0.01), "a stuck screen holds nobody up"
    may_print.set()
    assert aside.drain()
    assert len(printed) == QUEUED
    aside.close()


def test_a_service_that_may_lose_nothing_is_shown_as_in_the_plan() -> None:
    facts = ServiceFacts("register", "g", 1, "ministry", "", 60_000, 0, 0)
    run = start(replace(a_failover(), services={"register": facts}), created())
    text = confirmation(run, {"gazette/documents": Expected("not measured", is_measured=False)}).text + "\n"
    assert "register (tier 1, ministry): RTO 1m, RPO 0\n" in text
    assert "gazette/documents: expected loss now: not measured\n" in text


def test_what_is_adopted_is_agreed_to_after_the_question_only(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", AGREE]
    surroundings = {**environment(None), "PYTHONPATH": str(ROOT)}
    with Terminal(argv, environment=surroundings, folder=tmp_path) as person:
        while "is shown" not in person.said:
            assert person.read()
        person.type("adopt")
        assert person.wait_until_asked(ASK_SECONDS_MAX) == "adopt"
        person.type("no")
        while person.read():
            pass
        assert person.process.wait(ASK_SECONDS_MAX) == 0
