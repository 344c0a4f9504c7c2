"""Random nights: what a driver, the world and people may do to a run in any order; and then a good end.

Every choice comes from a stream of numbers, so a night is what its numbers are: hypothesis shrinks them, and a
seed makes them again.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from orchestrator.core.effects import Check, Execute, UndoStep, WakeAt
from orchestrator.core.inputs import (
    LOSS_UNKNOWN,
    Abort,
    Accept,
    Authorise,
    Checked,
    Confirm,
    DeclareLost,
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
from orchestrator.core.orders import orders
from orchestrator.core.outcomes import Failed, Finding, FindingKind, Outcome, Succeeded, Unknown
from orchestrator.core.plan import Plan, Role
from orchestrator.core.states import RunState, StepState
from orchestrator.core.values import Json
from orchestrator.errors import RefusedError
from tests.builders import START_NS, a_failback, a_failover, a_wide_failover, driver
from tests.story import LOCAL, REMOTE, Story

PLANS: tuple[Plan, ...] = (a_failover(), a_wide_failover(), a_failback())
GOOD_END_MAX = 400

T = TypeVar("T")


@dataclass(slots=True)
class Chance:
    """A stream of numbers; 0 for ever once it is over."""

    numbers: Iterable[int]

    def __post_init__(self) -> None:
        self.numbers = iter(self.numbers)

    def below(self, limit: int) -> int:
        return next(self.numbers, 0) % limit  # type: ignore[call-overload, no-any-return]

    def pick(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def weighted(self, options: Sequence[tuple[int, T]]) -> T:
        number = self.below(sum(weight for weight, _ in options))
        for weight, option in options:
            number -= weight
            if number < 0:
                return option
        raise AssertionError("weights do not add up")


def of_seed(seed: int, length: int = 10_000) -> Chance:
    rng = random.Random(seed)
    return Chance(rng.randrange(1 << 16) for _ in range(length))


@dataclass(slots=True)
class Night:
    """One run and all that happens to it."""

    story: Story
    chance: Chance
    refusals: set[str] = field(default_factory=set)
    boots: int = 1
    aborts: bool = False

    def go(self, moves: int) -> None:
        """Random moves, then a good end: whatever happened, the run can be brought to one."""
        self.aborts = self.chance.below(4) == 0
        self.story.tell(driver(0))
        for _ in range(moves):
            self.move()
            if self.story.run.is_final:
                return
        self.end_well()

    # --- random moves -------------------------------------------------------------------------

    def move(self) -> None:
        self.story.tick(self.chance.weighted([(8, 0.003), (4, 0.2), (2, 1.1), (1, 5.2)]))
        kind = self.chance.weighted(
            [(60, self._answer), (8, self._wake), (5, self._crash), (8, self._proceed), (19, self._order)]
        )
        self.try_to(kind())

    def try_to(self, given: Input) -> None:
        before = self.story.run
        try:
            self.story.tell(given)
        except RefusedError as error:
            refused = error
        else:
            return
        assert refused.message.strip()
        assert self.story.run is before, "a refusal changes nothing"
        self.refusals.add(refused.message.split(":")[0])

    def _proceed(self) -> Input:
        return Proceed(self.story.at())

    def _crash(self) -> Input:
        """A new driver, now and then after a reboot: the monotonic clock begins anew."""
        if self.chance.below(4) == 0:
            self.boots += 1
            self.story.boot_ns = (self.boots * 7919 % 13) * 1_000_000_000 - int(self.story.now * 1e9)
            self.story.boot_ns = max(self.story.boot_ns, -int(self.story.now * 1e9))
        return driver(self.story.now, f"i{self.boots}", self.story.boot_ns)

    def _wake(self) -> Input:
        wakes = [order for order in orders(self.story.run) if isinstance(order, WakeAt)]
        if not wakes:
            return Woke(self.story.at(), "nothing")
        timer = self.chance.pick(wakes)
        self.story.now = max(self.story.now, (timer.mono_ns - self.story.boot_ns) / 1e9) + 0.001
        return Woke(self.story.at(), timer.name)

    def _answer(self) -> Input:
        """Something that was ordered comes back, mostly well; now and then what nobody asked for."""
        wanted = [o for o in orders(self.story.run) if isinstance(o, Execute | Check | UndoStep)]
        moment = self.story.at()
        if not wanted or self.chance.below(20) == 0:
            return self._stale()
        order = self.chance.pick(wanted)
        match order:
            case Execute():
                return Ended(moment, order.step, order.attempt, self._outcome(order.step))
            case Check():
                kind = self.chance.weighted(
                    [
                        (9, FindingKind.DONE),
                        (5, FindingKind.NOT_DONE),
                        (3, FindingKind.RUNNING),
                        (3, FindingKind.CANNOT_TELL),
                    ]
                )
                finding = Finding(kind, "looked", self._evidence(order.step))
                return Checked(moment, order.step, order.attempt, order.number, finding)
            case UndoStep():
                outcome = self.chance.weighted(
                    [(7, Succeeded({"writes": True})), (1, Succeeded({"writes": False})), (2, Failed("no")),
                     (1, Unknown("lost"))]
                )  # fmt: skip
                return UndoEnded(moment, order.step, order.number, outcome)

    def _outcome(self, step: str) -> Outcome:
        return self.chance.weighted(
            [
                (14, Succeeded(self._evidence(step))),
                (2, Failed("not now", retryable=True)),
                (2, Failed("no")),
                (3, Unknown("connection lost")),
            ]
        )

    def _evidence(self, step: str) -> dict[str, Json]:
        if self.story.plan.steps[step].role is not Role.LOSS:
            return {}
        last = START_NS + int(self.story.now * 1e9) - self.chance.pick((0, 500, 4_000, -3_000)) * 1_000_000
        evidence = {**self.chance.pick((LOCAL, LOCAL, REMOTE)), "last_commit_ns": last}
        return evidence if self.chance.below(6) else {**evidence, "heartbeat_ns": None}

    def _stale(self) -> Input:
        steps = list(self.story.plan.steps)
        late = [s for s in steps if self.story.state(s) in (StepState.UNKNOWN, StepState.UNDECIDED)]
        step = self.chance.pick(late if late and self.chance.below(3) else steps)
        state, moment = self.story.run.step(step), self.story.at()
        attempt = max(0, state.attempt - self.chance.below(2))
        return self.chance.pick(
            (
                Ended(moment, step, attempt, self._outcome(step)),
                Ended(moment, step, attempt, Unknown("late")),
                Checked(moment, step, attempt, state.number, Finding(FindingKind.NOT_DONE)),
                UndoEnded(moment, step, state.number, Succeeded()),
            )
        )

    def _order(self) -> Input:
        """People: mostly what the run names, else anything."""
        story, chance, run, moment = self.story, self.chance, self.story.run, self.story.at()
        if run.state is RunState.READY and chance.below(4):
            return self._confirmation()
        if run.state is RunState.PAUSED and chance.below(3):
            return Resume(moment, "ann", chance.pick((None, 1_000, LOSS_UNKNOWN)))
        if run.held_choices and chance.below(4):
            useful = [c for c in run.held_choices if " abort " not in c or self.aborts] or run.held_choices
            return read(chance.pick(useful), story)
        states = (StepState.UNDECIDED, StepState.FAILED, StepState.WAITING, StepState.BACKOFF)
        open_steps = [s for s in run.plan.steps if run.step(s).state in states]
        ready = [s for name in sorted(run.active) for s in run.units[name].ready]
        step = chance.pick(chance.pick((list(run.plan.steps), open_steps, ready)) or list(run.plan.steps))
        return chance.pick(
            (
                Pause(moment, "ann"),
                Resume(moment, "ann", chance.pick((None, 60_000))),
                Retry(moment, "ann", chance.pick(("", step))),
                Skip(moment, "ann", step, chance.pick(("because", ""))),
                MarkDone(moment, "ann", step, "because"),
                Confirm(moment, "ann", step, "seen"),
                Accept(
                    moment, "ann", chance.pick(("loss", step)), "so be it", chance.pick((None, 5_000, -1))
                ),
                DeclareLost(moment, "ann", chance.pick((run.plan.source, "nowhere")), "war"),
                self._confirmation(),
                Abort(moment, "ann", "false alarm", leave_closed=chance.below(3) == 0)
                if self.aborts
                else Pause(moment, "ann"),
            )
        )

    def _confirmation(self) -> Input:
        limit = self.chance.pick((0, 1_000, 60_000, LOSS_UNKNOWN))
        return Authorise(self.story.at(), "ann", self.story.plan.digest, limit)

    # --- a good end ---------------------------------------------------------------------------

    def end_well(self) -> None:
        """Everything that is ordered succeeds, people follow the choices that they are shown. It must end."""
        story = self.story
        self.try_to(self._proceed())
        for turn in range(GOOD_END_MAX):
            run = story.run
            if run.is_final:
                return
            story.tick()
            if run.state is RunState.READY:
                story.tell(Authorise(story.at(), "ann", story.plan.digest, LOSS_UNKNOWN))
            elif run.state is RunState.PAUSED:
                story.tell(Resume(story.at(), "ann", LOSS_UNKNOWN))
            elif run.state is RunState.HELD:
                useful = [c for c in run.held_choices if " abort " not in c] or run.held_choices
                story.tell(read(useful[turn % len(useful)], story))
            else:
                self._all_is_well()
            if not story.run.is_final:
                story.proceed()
        states = {s: str(story.state(s)) for s in story.plan.steps}
        raise AssertionError(f"the run is {story.run.state} and does not end: {states}")

    def _all_is_well(self) -> None:
        story = self.story
        wanted = orders(story.run)
        if not wanted:
            decision = story.tell(Proceed(story.at()))
            assert decision.events, f"nothing goes on in a run that is {story.run.state}"
        for order in wanted:
            if isinstance(order, Execute) and story.run.step(order.step).attempt == order.attempt:
                story.tell(Ended(story.next(), order.step, order.attempt, Succeeded(self._good(order.step))))
            elif isinstance(order, Check):
                finding = Finding(FindingKind.DONE, "", self._good(order.step))
                story.tell(Checked(story.next(), order.step, order.attempt, order.number, finding))
            elif isinstance(order, UndoStep):
                story.tell(UndoEnded(story.next(), order.step, order.number, Succeeded({"writes": True})))
            elif isinstance(order, WakeAt) and not any(isinstance(o, Execute | Check) for o in wanted):
                story.wake()

    def _good(self, step: str) -> dict[str, Json]:
        return dict(REMOTE) if self.story.plan.steps[step].role is Role.LOSS else {}


def read(choice: str, story: Story) -> Input:
    from tests.story import read_choice

    return read_choice(choice, story.at())


def night(plan: Plan, numbers: Chance, moves: int = 80) -> Night:
    made = Night(Story(plan, folds_whole=False), numbers)
    made.go(moves)
    return made
