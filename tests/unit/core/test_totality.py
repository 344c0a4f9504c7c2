"""Whatever is told to a run in whatever state: an event, nothing, or a refusal that names what is allowed.

Every state of a run × every state of a step × every kind of input (results with each outcome and finding,
of the current attempt and of a stale one, and every verb on that very step), also for pairs that no history
reaches: a newer program, or a mended log, may show them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import get_args

import pytest

from orchestrator.core import inputs, verb_table
from orchestrator.core.fold_steps import set_step
from orchestrator.core.inputs import (
    Abort,
    Accept,
    Authorise,
    Checked,
    Confirm,
    DeclareLost,
    DriverStarted,
    Ended,
    Input,
    MarkDone,
    Pause,
    Proceed,
    Resume,
    Retry,
    Skip,
    UndoEnded,
    Woke,
)
from orchestrator.core.machine import advance
from orchestrator.core.orders import orders
from orchestrator.core.outcomes import Failed, Finding, FindingKind, Succeeded, Unknown
from orchestrator.core.plan import Role
from orchestrator.core.run import Run, start, with_run, with_step
from orchestrator.core.states import RunState, StepState
from orchestrator.core.verbs import verb_name
from orchestrator.errors import RefusedError
from tests.builders import a_failover, at, created
from tests.story import read_choice

PLAN = a_failover()
STEPS = ("db/inspect", "db/stop", "db/verify", "db/promote", "svc/front/route")
NOW = at(3)
ALLOWED = re.compile(r"continuity [a-z-]+ r1|--[a-z-]+|wait", re.ASCII)
CASES = [(state, phase) for state, phases in verb_table.PHASES.items() for phase in phases]


def a_run(state: RunState, phase: RunState, step_id: str, step_state: StepState) -> Run:
    run = start(PLAN, created())
    authorised = None if RunState.PREFLIGHT in (state, phase) or state is RunState.READY else at(1)
    causes = ("it stands still",) if state is RunState.HELD else ()
    run = with_run(
        run, state=state, before_hold=phase, authorised=authorised, held_causes=causes, held_choices=causes
    )
    step = PLAN.steps[step_id]
    new = with_step(run.step(step_id), state=step_state, attempt=2, tries=1, number=1, proof_at=at(2))
    return set_step(run, step, new, at(2))


def results(step: str) -> Iterator[Input]:
    """Every outcome and finding, of the current attempt and of another."""
    for attempt in (2, 1):
        for outcome in (Succeeded(), Failed("no"), Failed("not now", retryable=True), Unknown("lost")):
            yield Ended(NOW, step, attempt, outcome)
        for kind in FindingKind:
            for number in (1, 7):
                yield Checked(NOW, step, attempt, number, Finding(kind))
    for number in (1, 7):
        for outcome in (Succeeded(), Failed("no"), Unknown("lost")):
            yield UndoEnded(NOW, step, number, outcome)


def verbs(step: str) -> Iterator[Input]:
    by, why = "ann", "because"
    yield from (Authorise(NOW, by, PLAN.digest, 0), Authorise(NOW, by, "e" * 64, 0))
    yield from (Pause(NOW, by), Resume(NOW, by), Resume(NOW, by, 1_000))
    for named in (step, "no/such-step"):
        yield from (Retry(NOW, by, named), Skip(NOW, by, named, why), MarkDone(NOW, by, named, why))
        yield from (Confirm(NOW, by, named, "seen"), Accept(NOW, by, named, why))
    yield from (Retry(NOW, by), Skip(NOW, by, step, " "), MarkDone(NOW, by, step, " "))
    yield from (Confirm(NOW, " ", step, "seen"), Accept(NOW, " ", step, why), Accept(NOW, by, step, " "))
    yield from (Accept(NOW, by, "loss", why), Accept(NOW, by, "loss", why, 1_000))
    for site in ("home", "embassy"):
        yield from (DeclareLost(NOW, by, site, why), DeclareLost(NOW, by, site, why, NOW.utc_ns + 1))
    yield from (DeclareLost(NOW, by, "home", " "), DeclareLost(NOW, " ", "home", why))
    yield from (Abort(NOW, by, why), Abort(NOW, by, why, leave_closed=True), Abort(NOW, by, " "))


def everything(step: str) -> list[Input]:
    driver = DriverStarted(NOW, "i2", 1, "boot", "laptop", "0")
    timers = [Woke(NOW, name) for name in ("fence-budget", f"retry {step}", "nothing")]
    return [driver, Proceed(NOW), *timers, *results(step), *verbs(step)]


def test_every_kind_of_input_is_told() -> None:
    assert {type(given) for given in everything("db/stop")} == set(get_args(inputs.Input))


@pytest.mark.parametrize(("state", "phase"), CASES, ids=str)
def test_every_input_has_an_answer(state: RunState, phase: RunState) -> None:
    answers = {"events": 0, "nothing": 0, "refused": 0}
    for step_id in STEPS:
        for step_state in StepState:
            run = a_run(state, phase, step_id, step_state)
            assert orders(run) == orders(run), "orders follow from the state alone"
            for given in everything(step_id):
                try:
                    decision = advance(run, given)
                except RefusedError as error:
                    answers["refused"] += 1
                    judge_refusal(error, given)
                else:
                    answers["events" if decision.events else "nothing"] += 1
    print(f"{state} ({phase}): {answers}")
    assert answers["events"] > 100
    assert answers["refused"] > 100


def judge_refusal(refused: RefusedError, given: Input) -> None:
    """It names the verb, says why in words of its own, and what is allowed."""
    assert isinstance(given, get_args(inputs.Verb)), "only people are refused"
    verb, _, why = refused.message.partition(": ")
    assert verb == verb_name(given)  # type: ignore[arg-type]
    assert len(why) > 10
    assert "RUN" not in refused.message
    assert "STEP" not in refused.message
    allowed = " ".join((why, *refused.instead))
    assert ALLOWED.search(allowed) or refused.instead, f"{refused.message}: nothing is named that is allowed"


OFFER = re.compile(r"continuity (?:resume|retry|skip|mark-done|confirm|accept|declare|abort) [^;,]+")
DECISIVE = "db/promote"
IN_FLIGHT = frozenset({StepState.RUNNING, StepState.UNKNOWN})


def is_reached(phase: RunState, step: str, state: StepState) -> bool:
    """Pairs that no history reaches are answered, but nothing that is offered there can be right: a promotion
    without an order, and one in flight in an abort (which is refused while one is)."""
    if step != DECISIVE:
        return True
    return not (phase is RunState.READY and state is not StepState.PENDING) and not (
        phase is RunState.ABORTING and state in IN_FLIGHT
    )


@pytest.mark.parametrize(("state", "phase"), CASES, ids=str)
def test_what_a_refusal_offers_would_be_taken_as_the_run_is_now(state: RunState, phase: RunState) -> None:
    offered = 0
    for step_id in STEPS:
        for step_state in StepState:
            if not is_reached(phase, step_id, step_state):
                continue
            run = a_run(state, phase, step_id, step_state)
            for given in verbs(step_id):
                for offer in offers_of(run, given):
                    offered += 1
                    must_be_taken(run, offer, given)
    print(f"{state} ({phase}): {offered} offers")


@pytest.mark.parametrize(
    ("step", "state", "offered"),
    [
        ("db/stop", StepState.FAILED, ["declare site-lost r1 --site home --by NAME --reason TEXT", "retry r1 db/stop"]),
        ("db/verify", StepState.FAILED, ["accept r1 db/verify --by NAME --reason TEXT", "retry r1 db/verify"]),
        ("db/promote", StepState.UNDECIDED, ["retry r1 db/promote"]),
        ("db/promote", StepState.SUCCEEDED, []),
    ],
)  # fmt: skip
def test_what_cannot_be_skipped_offers_what_can_be_done_instead(
    step: str, state: StepState, offered: list[str]
) -> None:
    run = a_run(RunState.HELD, RunState.RUNNING, step, state)
    for verb in (Skip(NOW, "ann", step, "because"), MarkDone(NOW, "ann", step, "because")):
        assert offers_of(run, verb) == [f"continuity {command}" for command in offered]


def offers_of(run: Run, given: Input) -> list[str]:
    """Verbs among the commands of a refusal, in its text and below it."""
    try:
        advance(run, given)
    except RefusedError as refused:
        return [found for text in (refused.message, *refused.instead) for found in OFFER.findall(text)]
    return []


def must_be_taken(run: Run, offer: str, given: Input) -> None:
    verb = read_choice(offer.replace(", or:", "").replace("DURATION", "10m"), NOW)
    try:
        advance(run, verb)
    except RefusedError as again:
        raise AssertionError(f"{given} offers {offer!r}, refused in the same state: {again}") from again


def test_what_the_tables_allow_is_done_and_what_they_refuse_is_refused() -> None:
    """The printed table is what the machine does: a step without rules of its own, in every pair."""
    step_id, role = "svc/front/route", PLAN.steps["svc/front/route"].role
    assert role is Role.ROUTE
    for state, phase in CASES:
        for step_state in StepState:
            run = with_run(a_run(state, phase, step_id, step_state), units=_reached(state, phase, step_state))
            for name, verb in {
                "retry": Retry(NOW, "ann", step_id),
                "skip": Skip(NOW, "ann", step_id, "because"),
                "mark-done": MarkDone(NOW, "ann", step_id, "because"),
                "confirm": Confirm(NOW, "ann", step_id, "seen"),
            }.items():
                answer = verb_table.of_run(name, state, phase)
                if isinstance(answer, verb_table.Does):
                    answer = verb_table.of_step(name, phase, step_state)
                in_preflight = phase is RunState.PREFLIGHT and name == "skip"
                if isinstance(answer, verb_table.Refuses) or in_preflight:
                    with pytest.raises(RefusedError):
                        advance(run, verb)
                else:
                    assert str(advance(run, verb).run.step(step_id).state) == answer.what


def _reached(state: RunState, phase: RunState, step_state: StepState) -> object:
    """The units of a run in which everything before the route has succeeded."""
    run = a_run(state, phase, "svc/front/route", step_state)
    for name, step in PLAN.steps.items():
        if name != "svc/front/route":
            run = set_step(run, step, with_step(run.step(name), state=StepState.SUCCEEDED), at(2))
    return run.units
