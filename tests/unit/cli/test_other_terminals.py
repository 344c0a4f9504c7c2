"""A driver that asks at its terminal hears every other one: what is answered, stopped or taken back there is said,
and the question goes away."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from orchestrator.core.events import StepConfirmed
from orchestrator.engine.journal import RUN as RUN_STREAM
from tests.golden import Logged
from tests.terminal import Terminal
from tests.unit.cli.logs import ROOT, RUN, continuity, environment
from tests.unit.cli.people import ONE, PROMPT, TWO, a_planned_move, asked, begun, with_a_promotion

DONE, HELD, ABORTED = 0, 4, 5
SECONDS_MAX = 30.0
BERT = ("--by", "Bert Kask")


def at_terminal(folder: Path, *words: str) -> Terminal:
    argv = [sys.executable, "-m", "orchestrator", *words]
    return Terminal(argv, environment={**environment("Anna Tamm"), "PYTHONPATH": str(ROOT)}, folder=folder)


def elsewhere(folder: Path, *words: str) -> None:
    done = continuity(folder, *words)
    assert done.returncode == DONE, done.stderr


def until_said(person: Terminal, text: str) -> None:
    deadline = time.monotonic() + SECONDS_MAX
    while text not in person.said:
        assert person.read(), f"ended without {text!r}:\n{person.said}"
        assert time.monotonic() < deadline, f"{text!r} was not said:\n{person.said}"


def over(person: Terminal) -> int:
    """The command ends and nobody types anything more."""
    deadline = time.monotonic() + SECONDS_MAX
    while person.read():
        assert time.monotonic() < deadline, f"not over:\n{person.said}"
    return person.process.wait(SECONDS_MAX)


def driving(folder: Path) -> Terminal:
    """Anna has taken the run up."""
    person = at_terminal(folder, "resume", RUN)
    assert person.wait_until_asked(SECONDS_MAX) == "confirmed"
    return person


def confirmed_by(story: Logged) -> dict[str, str]:
    found = [entry.event for entry in story.store.read(RUN_STREAM + RUN)]
    return {event.step: event.by for event in found if isinstance(event, StepConfirmed)}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("confirm", RUN, ONE, "--text", "it is open"), "answered from another terminal by Bert Kask: it is open"),
        (("skip", RUN, ONE, "--reason", "not needed"), "skipped from another terminal by Bert Kask: not needed"),
        (("mark-done", RUN, ONE, "--reason", "by hand"), "marked as done from another terminal by Bert Kask: by hand"),
    ],
)  # fmt: skip
def test_a_step_that_is_answered_elsewhere_is_no_longer_asked_for(
    tmp_path: Path, words: tuple[str, ...], says: str
) -> None:
    story = begun(tmp_path, a_planned_move(asked(ONE)), ordered=True)
    with driving(tmp_path) as person:
        elsewhere(tmp_path, *words, *BERT)
        assert over(person) == DONE, person.said
        assert f"{ONE}: {says}" in person.said
        assert person.said.index(says) < person.said.index("DONE")
    assert confirmed_by(story) == ({ONE: "Bert Kask"} if words[0] == "confirm" else {})


def test_who_must_answer_is_shown_what_is_asked_and_not_only_its_title(tmp_path: Path) -> None:
    """At the question, and wherever somebody else looks at the run."""
    begun(tmp_path, a_planned_move(asked(ONE)), ordered=True)
    with driving(tmp_path) as person:
        assert f"\n{ONE}: {ONE}: {PROMPT}\nType 'confirmed'" in person.said.replace("\r", "")
        assert f"    {ONE} waits for people: {ONE}: {PROMPT}" in person.said
        shown = continuity(tmp_path, "status").stdout
        assert f"  cause: {ONE} waits for people: {ONE}: {PROMPT}\n" in shown
        assert f"  ✋ {ONE} waiting: {ONE}: {PROMPT}\n" in shown
        (step,) = json.loads(continuity(tmp_path, "status", "--output", "json").stdout)["run"]["steps"]
        assert step["asks"] == f"{ONE}: {PROMPT}"
        assert f"step.waiting {ONE} attempt=1 asks: {ONE}: {PROMPT}\n" in continuity(tmp_path, "watch").stdout
        events = map(json.loads, continuity(tmp_path, "watch", "--output", "json").stdout.splitlines())
        assert [each["asks"] for each in events if "asks" in each] == [f"{ONE}: {PROMPT}"]
        elsewhere(tmp_path, "confirm", RUN, ONE, *BERT)
        assert over(person) == DONE, person.said
    (step,) = json.loads(continuity(tmp_path, "status", "--output", "json").stdout)["run"]["steps"]
    assert step["asks"] is None


@pytest.mark.parametrize("first", [ONE, TWO])
def test_of_two_steps_that_wait_each_may_be_answered_anywhere(tmp_path: Path, first: str) -> None:
    """Bert answers one, asked for just now or not yet; Anna is asked for the other, by name."""
    other = TWO if first == ONE else ONE
    story = begun(tmp_path, a_planned_move(asked(ONE), asked(TWO)), ordered=True)
    with driving(tmp_path) as person:
        assert f"{ONE}: " in person.said
        assert f"{TWO}: two/ask" not in person.said
        elsewhere(tmp_path, "confirm", RUN, first, *BERT)
        until_said(person, f"{first}: answered from another terminal by Bert Kask")
        until_said(person, f"{other}: {other}: {PROMPT}\nType 'confirmed' to go on: ")
        person.type("confirmed")
        assert over(person) == DONE, person.said
    assert confirmed_by(story) == {first: "Bert Kask", other: "Anna Tamm"}


def test_a_run_that_is_taken_back_elsewhere_ends_the_question_of_a_step(tmp_path: Path) -> None:
    begun(tmp_path, a_planned_move(asked(ONE)), ordered=True)
    with driving(tmp_path) as person:
        elsewhere(tmp_path, "abort", RUN, "--reason", "false alarm", *BERT)
        assert over(person) == ABORTED, person.said
    assert "abort ordered from another terminal by Bert Kask: false alarm" in person.said


def test_a_run_that_is_taken_back_elsewhere_ends_the_question_for_the_order(tmp_path: Path) -> None:
    begun(tmp_path, a_planned_move(asked(ONE)), ordered=False)
    with at_terminal(tmp_path, "resume", RUN) as person:
        assert person.wait_until_asked(SECONDS_MAX) == "switchover embassy"
        elsewhere(tmp_path, "abort", RUN, "--reason", "false alarm", *BERT)
        assert over(person) == ABORTED, person.said
    assert "abort ordered from another terminal by Bert Kask: false alarm" in person.said
    assert "not confirmed" not in person.said


def test_a_run_that_is_taken_back_elsewhere_ends_the_question_of_who_takes_it_up(tmp_path: Path) -> None:
    begun(tmp_path, with_a_promotion(), ordered=True)
    with at_terminal(tmp_path, "resume", RUN) as person:
        assert person.wait_until_asked(SECONDS_MAX) == f"resume {RUN}"
        elsewhere(tmp_path, "abort", RUN, "--reason", "false alarm", *BERT)
        assert over(person) == ABORTED, person.said
    assert "abort ordered from another terminal by Bert Kask: false alarm" in person.said


def test_who_accepts_elsewhere_lets_a_run_that_was_taken_up_go_on(tmp_path: Path) -> None:
    begun(tmp_path, with_a_promotion(), ordered=True)
    with at_terminal(tmp_path, "resume", RUN) as person:
        assert person.wait_until_asked(SECONDS_MAX) == f"resume {RUN}"
        elsewhere(tmp_path, "accept", RUN, "loss", "--limit", "0", "--reason", "seen", *BERT)
        until_said(person, f"{ONE}: one/ask: {PROMPT}\nType 'confirmed' to go on: ")
    assert "loss accepted from another terminal by Bert Kask: seen" in person.said


def test_a_pause_elsewhere_is_said_below_the_question_which_stays(tmp_path: Path) -> None:
    begun(tmp_path, a_planned_move(asked(ONE), asked(TWO, (ONE,))), ordered=True)
    with driving(tmp_path) as person:
        elsewhere(tmp_path, "pause", RUN, *BERT)
        until_said(person, "paused from another terminal by Bert Kask\nType 'confirmed' to go on: ")
        person.type("confirmed")
        elsewhere(tmp_path, "resume", RUN, *BERT)
        until_said(person, "resumed from another terminal by Bert Kask")
        until_said(person, f"{TWO}: two/ask: {PROMPT}\nType 'confirmed' to go on: ")
        person.type("confirmed")
        assert over(person) == DONE, person.said


def test_a_driver_with_nothing_to_ask_stays_for_what_others_order(tmp_path: Path) -> None:
    begun(tmp_path, a_planned_move(asked(ONE)), ordered=True)
    with driving(tmp_path) as person:
        elsewhere(tmp_path, "pause", RUN, *BERT)
        elsewhere(tmp_path, "confirm", RUN, ONE, *BERT)
        until_said(person, f"{ONE}: answered from another terminal by Bert Kask")
        elsewhere(tmp_path, "resume", RUN, *BERT)
        assert over(person) == DONE, person.said


def test_what_was_typed_before_a_question_does_not_answer_it(tmp_path: Path) -> None:
    """Two people answer the same question at once: the slower answer is not taken for the next question's."""
    story = begun(tmp_path, with_a_promotion(), ordered=True)
    with at_terminal(tmp_path, "resume", RUN) as person:
        person.type("confirmed")
        assert person.wait_until_asked(SECONDS_MAX) == f"resume {RUN}"
        person.type(f"resume {RUN}")
        assert person.wait_until_asked(SECONDS_MAX) == "confirmed"
        assert f"that is not 'resume {RUN}'" not in person.said
        assert confirmed_by(story) == {}


def test_who_declines_is_asked_again_only_when_something_went_on(tmp_path: Path) -> None:
    story = begun(tmp_path, a_planned_move(asked(ONE), asked(TWO)), ordered=True)
    with driving(tmp_path) as person:
        person.type("\x04")
        until_said(person, f"{TWO}: two/ask: {PROMPT}\nType 'confirmed' to go on: ")
        person.type("confirmed")
        until_said(person, f"{ONE}: one/ask: {PROMPT}\nType 'confirmed' to go on: ")
        person.wait_until_asked(SECONDS_MAX)
        for _ in range(3):
            assert person.wait_until_asked(SECONDS_MAX) == "confirmed"
            person.type("no")
        assert over(person) == HELD, person.said
    assert confirmed_by(story) == {TWO: "Anna Tamm"}


@pytest.mark.parametrize(
    ("ordered", "asked_for", "says"),
    [
        (False, "switchover embassy", "it waits for the confirmation at its own terminal"),
        (True, "confirmed", f"it is held, and this alone changes nothing; what it waits for: continuity status {RUN}"),
    ],
)  # fmt: skip
def test_a_resume_of_a_run_that_is_driven_is_an_order_and_promises_no_more(
    tmp_path: Path, ordered: bool, asked_for: str, says: str
) -> None:
    begun(tmp_path, a_planned_move(asked(ONE)), ordered=ordered)
    with at_terminal(tmp_path, "resume", RUN) as person:
        assert person.wait_until_asked(SECONDS_MAX) == asked_for
        done = continuity(tmp_path, "resume", RUN, "--yes", *BERT)
        assert done.returncode == DONE, done.stderr
        assert f"{RUN} is driven by process {person.process.pid}, which has the order; {says}" in done.stderr
    told_of = " ".join(continuity(tmp_path, "resume", "--help").stdout.split())
    assert "the exit code 0 says that the order was taken, not how the run ends" in told_of
