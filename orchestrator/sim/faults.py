"""Decides what goes wrong in a simulated night, all of it from the seed; must never make it happen:
``adapters`` and ``harness`` ask here and say what they did, and that is counted.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from orchestrator.core.inputs import LOSS_UNKNOWN
from orchestrator.core.plan import Gate, Plan, Role, Step, Undo

MANUAL = "manual.confirm"


class StepFault(StrEnum):
    """What may befall one attempt of one step."""

    REFUSED = "refused"  # surely not done, may be tried again
    FAILS = "fails"  # surely not done, no further try
    TIMES_OUT = "times-out"  # nothing happened and nobody knows
    RESULT_LOST = "result-lost"  # it happened and nobody knows
    COMMITS_LATE = "commits-late"  # blocked at the target; happens later
    RESULT_LATE = "result-late"  # unknown first, the true result afterwards
    TOLD_TWICE = "told-twice"  # the result comes a second time, much later
    BLIND = "blind"  # and the checks cannot tell
    LOST_THEN_FAILS = "lost-then-fails"  # done, nobody can tell; the next attempt surely does nothing
    TORN = "torn"  # only a part of the effect happened
    UNDO_FAILS = "undo-fails"
    DIES_AFTER_UNDO = "dies-after-undo"  # driver killed: taken back, and nobody was told
    DIES_AFTER_EFFECT = "dies-after-effect"  # driver killed: effect there, result not
    KILLED_BEFORE_COMMIT = "killed-before-commit"  # of an append that speaks of this step
    KILLED_AFTER_COMMIT = "killed-after-commit"


KILLS_AT_APPEND = (StepFault.KILLED_BEFORE_COMMIT, StepFault.KILLED_AFTER_COMMIT)
OF_UNDO = (StepFault.UNDO_FAILS, StepFault.DIES_AFTER_UNDO)
TAKEN_BACK = (*OF_UNDO, StepFault.LOST_THEN_FAILS)  # they show when the run is taken back


class WorldFault(StrEnum):
    """What may befall the estate."""

    HOME_CRASHES = "home-crashes"
    HOME_HANGS = "home-hangs"
    HOME_RETURNS = "home-returns"
    LINK_CUT = "link-cut"
    TARGET_SLOW = "target-slow"
    CONTROLLER_DOWN = "controller-down"
    REPLAY_PAUSED = "replay-paused"
    SECOND_DRIVER = "second-driver"
    FALSE_ALARM = "false-alarm"  # home cannot be asked, is declared lost, answers again: people abort
    PLAN_GROWS_OLD = "plan-grows-old"  # the groups move on before the run begins
    NOISE = "noise"  # people order at random


AGAIN_AND_AGAIN = 12
TORN_KINDS = frozenset({"postgresql.epoch", "postgresql.stop"})


def faults_of(step: Step) -> tuple[StepFault, ...]:
    """The faults that make sense for a step. What waits for the group's epoch is never undone by an
    abort: from there on going back is a plan of its own."""
    if step.action.kind == MANUAL:
        return KILLS_AT_APPEND
    is_undone = step.action.undo is Undo.UNDO and Gate.GRANTED not in step.gates
    is_torn = step.action.kind in TORN_KINDS
    left_out = {*(() if is_torn else (StepFault.TORN,))}
    if not is_undone:
        left_out |= {*OF_UNDO, StepFault.LOST_THEN_FAILS}
    return tuple(fault for fault in StepFault if fault not in left_out)


@dataclass(slots=True)
class Planned:
    """One fault of one step, on its n-th occasion. ``count``: how often it comes in a row."""

    fault: StepFault
    occasion: int
    count: int = 1


@dataclass(slots=True)
class Book:
    """What is planned for a seed, and what has been done of it."""

    steps: dict[str, list[Planned]] = field(default_factory=dict)
    world: list[tuple[WorldFault, int]] = field(default_factory=list)  # milliseconds
    seen: Counter[tuple[str, str]] = field(default_factory=Counter)
    worlds: Counter[str] = field(default_factory=Counter)
    accepted_loss_ms: int = 0
    abort_after: str = ""  # people abort once this step is done: its undo is what is tried
    late_ms: int = 0  # how long what is blocked at the target stays so; 0: by the seed
    is_false_alarm: bool = False
    prefers: tuple[str, ...] = ()  # the verbs that people choose first, where a run offers them
    is_quiet: bool = False

    def note_world(self, fault: WorldFault) -> None:
        self.worlds[fault] += 1

    def take(self, step: str, step_kind: str) -> StepFault | None:
        """The fault of this attempt, if one is planned."""
        return self._take(step, step_kind, frozenset(StepFault) - {*KILLS_AT_APPEND, *OF_UNDO})

    def take_undo(self, step: str, step_kind: str) -> StepFault | None:
        """The fault of this attempt to undo it, if one is planned."""
        return self._take(step, step_kind, frozenset(OF_UNDO))

    def take_kill(self, step: str, step_kind: str, fault: StepFault) -> bool:
        return self._take(step, step_kind, frozenset({fault})) is not None

    def _take(self, step: str, step_kind: str, wanted: frozenset[StepFault]) -> StepFault | None:
        if self.is_quiet:
            return None
        for planned in self.steps.get(step, ()):
            if planned.fault not in wanted or planned.count == 0:
                continue
            if planned.occasion > 0:
                planned.occasion -= 1
                continue
            planned.count -= 1
            self.seen[planned.fault, step_kind] += 1
            return planned.fault
        return None


def pairs_of(plan: Plan) -> list[tuple[StepFault, str]]:
    """Every (fault, step kind) that a plan allows, in a fixed order."""
    return sorted({(fault, step.action.kind) for step in plan.steps.values() for fault in faults_of(step)})


def plan_faults(rng: random.Random, plan: Plan, turn: int) -> Book:
    """What goes wrong under this seed. ``turn`` takes the pairs one after the other, so that a long
    enough range of seeds tries each; now and then nothing goes wrong but people and time."""
    book = Book(accepted_loss_ms=rng.choice((0, 1_000, 600_000, LOSS_UNKNOWN)))
    if turn % 20 == 19:
        return book
    if turn % 25 == 7:
        book.world.append((WorldFault.FALSE_ALARM, 0))
        book.is_false_alarm = True
        _fail_the_checks(book, plan)
        return book
    pairs = pairs_of(plan)
    first, second = pairs[turn % len(pairs)], pairs[(turn + len(pairs) // 2) % len(pairs)]
    _add(book, rng, plan, *first, is_sure=True)
    if first[0] in TAKEN_BACK and turn % 2:
        return book  # nothing else stands between this step and its undo
    if second[0] not in TAKEN_BACK:
        _add(book, rng, plan, *second, is_sure=True)
    for _ in range(rng.choice((0, 0, 1, 2, 4))):
        _add(book, rng, plan, *rng.choice(pairs))
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        book.world.append((rng.choice(list(WorldFault)), rng.choice((0, 1, 20, 60, 200, 1_000, 6_000))))
    return book


def _add(
    book: Book, rng: random.Random, plan: Plan, fault: StepFault, step_kind: str, *, is_sure: bool = False
) -> None:
    """``is_sure``: on the first occasion, and not again."""
    steps = [step for step in plan.steps.values() if step.action.kind == step_kind]
    step = rng.choice([step for step in steps if fault in faults_of(step)])
    occasion = rng.randrange(4) if fault in KILLS_AT_APPEND else rng.choice((0, 0, 0, 0, 1))
    occasion = 0 if is_sure else occasion
    count = rng.choice((1, 1, 1, 2, AGAIN_AND_AGAIN if fault is StepFault.TIMES_OUT else 1))
    book.steps.setdefault(step.id, []).append(Planned(fault, occasion, count))
    if fault is StepFault.LOST_THEN_FAILS:
        book.steps[step.id].append(Planned(StepFault.FAILS, 0))
    if fault in TAKEN_BACK:
        book.abort_after = step.id
        _fail_the_checks(book, plan)


def _fail_the_checks(book: Book, plan: Plan) -> None:
    """So that the night does not come to a promotion."""
    for check in plan.steps.values():
        if check.role is Role.VERIFY:
            book.steps.setdefault(check.id, []).append(Planned(StepFault.FAILS, 0, AGAIN_AND_AGAIN))
