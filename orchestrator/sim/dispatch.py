"""Decides how orders are carried out in a simulated night: over virtual time, with the faults that the
seed has planned. Must never soften an order: what the engine asks for is done.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from orchestrator.core.effects import Cancel, Check, Effect, Execute, UndoStep, WakeAt
from orchestrator.core.inputs import At, Checked, DriverInput, Ended, UndoEnded, Woke
from orchestrator.core.outcomes import Failed, Finding, FindingKind, Outcome, Succeeded, Unknown
from orchestrator.core.run import Run
from orchestrator.engine.clock import now
from orchestrator.sim.calls import Answer, Call, Kind, Later
from orchestrator.sim.faults import Book, StepFault
from orchestrator.sim.kinds import KINDS
from orchestrator.sim.store import RUN, DriverKilled, JudgingStore
from orchestrator.sim.world import MILLISECOND_NS, SECOND_NS, World

NO_ANSWER_MS = 1_000
SILENT_MS_MAX = 30_000  # by then TCP itself has given the connection up
LOOKS_MAX = 400
LATE_MS = (1, 300, 3_000)
AGAIN_MS = (1, 22, 42, 105, 205, 900, 3_000)  # also while the next attempt runs
HORIZON_NS = 3_600 * SECOND_NS


class NothingGoesOn(BaseException):
    """The loop waits and nothing in the world will ever come back."""


@dataclass(slots=True)
class Attempt:
    """One attempt on its way. ``is_sent``: its effect (or refusal) has happened."""

    order: Execute
    call: Call
    kind: Kind
    fault: StepFault | None
    is_alive: bool = True
    is_sent: bool = False
    is_dropped: bool = False
    answer: Answer | None = None
    looks: int = 0


@dataclass(slots=True)
class SimulatedDispatcher:
    """``engine.loop.Dispatcher`` over virtual time, for one driver's process."""

    world: World
    store: JudgingStore
    book: Book
    rng: random.Random
    at_point: Callable[[str], None] = lambda name: None  # told after an effect, before its result
    is_dead: bool = False
    inbox: deque[DriverInput] = field(default_factory=deque)
    attempts: list[Attempt] = field(default_factory=list)
    _wanted: set[Effect] = field(default_factory=set)
    _asked: set[Effect] = field(default_factory=set)
    _version: int = 0

    def ensure(self, effects: Iterable[Effect], run: Run) -> None:
        wanted = list(effects)
        self._wanted = set(wanted)
        self._asked &= self._wanted
        self._version = self.store.version()
        for effect in wanted:
            if effect in self._asked:
                continue
            self._asked.add(effect)
            match effect:
                case Execute():
                    self._execute(run, effect)
                case Check():
                    due = max(effect.due_mono_ns - self.world.monotonic_ns(), 0) + MILLISECOND_NS
                    self.world.after(due, "", partial(self._check, run, effect))
                case UndoStep():
                    self._undo(run, effect)
                case Cancel():
                    self._cancel(effect)
                case WakeAt():
                    due = effect.mono_ns - self.world.monotonic_ns()
                    self.world.after(due, f"timer {effect.name}", partial(self._wake, effect))

    def wait(self, seconds_max: float) -> DriverInput | None:
        """The next result; None when somebody else appended. Empty polls are leapt over."""
        while True:
            if self.inbox:
                return self.inbox.popleft()
            if self.store.version() != self._version:
                return None
            if self.world.now_ns > HORIZON_NS or not self.world.step():
                raise NothingGoesOn

    def die(self) -> None:
        """The process ends. What it has sent lives on at the target; what it has not sent may not."""
        self.is_dead = True
        for attempt in self.attempts:
            is_blocked = attempt.fault is StepFault.COMMITS_LATE  # at the target, whoever has sent it
            if attempt.is_alive and (attempt.is_sent or (not is_blocked and self.rng.random() < 0.5)):
                self._bury(attempt)

    # --- executing ----------------------------------------------------------------------------

    def _execute(self, run: Run, order: Execute) -> None:
        world, step = self.world, run.plan.steps[order.step]
        name = f"{order.step} #{order.attempt}"
        if (RUN + run.id, order.step, order.attempt) not in self.store.started:
            world.blame("intent-before-effect", f"{name} is not in the log")
        if (run.id, name) in world.executed:
            world.blame("one-execution-per-attempt", f"{name} was executed again")
        world.executed.add((run.id, name))
        if world.alive.get(order.step, 0) and step.action.mutates:
            world.blame("one-live-attempt", f"{name} while an earlier one lives")
        kind = KINDS[step.action.kind]
        fault = self.book.take(order.step, step.action.kind)
        call = Call(world, run.plan, run.id, step, order.attempt, fault is StepFault.TORN)
        attempt = Attempt(order, call, kind, fault)
        self.attempts.append(attempt)
        world.alive[order.step] = world.alive.get(order.step, 0) + 1
        if world.trace is not None:
            world.say(f"execute {name} {fault or ''}")
        self._plan_attempt(attempt, step.timeout_ms)

    def _plan_attempt(self, attempt: Attempt, timeout_ms: int) -> None:
        """When the target does it, and when (and what) this driver hears of it."""
        world, fault = self.world, attempt.fault
        takes_ns = self._duration_ns(attempt.kind)
        if fault is StepFault.TOLD_TWICE and self.rng.random() < 0.5:
            fault = StepFault.REFUSED  # and that is told twice, perhaps when the next attempt runs
        match fault:
            case StepFault.REFUSED | StepFault.FAILS:
                attempt.answer = Failed(f"made to fail: {fault}", retryable=fault is StepFault.REFUSED)
                attempt.is_sent = True
                world.after(takes_ns, "", partial(self._end, attempt))
            case StepFault.TIMES_OUT:
                attempt.is_dropped = attempt.is_sent = True
                silent_ms = min(timeout_ms, SILENT_MS_MAX)
                world.after(silent_ms * MILLISECOND_NS, "", partial(self._lose, attempt))
            case StepFault.COMMITS_LATE:
                late_ms = self.book.late_ms or self.rng.choice(LATE_MS)
                late_ns = takes_ns + late_ms * MILLISECOND_NS
                world.after(takes_ns, "", partial(self._report, attempt, Unknown("connection lost")))
                world.after(late_ns, "", partial(self._act_late, attempt))
            case StepFault.RESULT_LATE:
                late_ns = takes_ns + self.rng.choice(LATE_MS) * MILLISECOND_NS
                world.after(takes_ns // 2, "", partial(self._act, attempt))
                world.after(takes_ns, "", partial(self._report, attempt, Unknown("no answer in time")))
                world.after(late_ns, "", partial(self._end, attempt))
            case StepFault.RESULT_LOST | StepFault.TORN | StepFault.BLIND | StepFault.LOST_THEN_FAILS:
                if fault is not StepFault.BLIND or self.rng.random() < 0.5:
                    world.after(takes_ns // 2, "", partial(self._act, attempt))
                world.after(takes_ns, "", partial(self._lose, attempt))
            case _:
                world.after(takes_ns // 2, "", partial(self._act, attempt))
                world.after(takes_ns, "", partial(self._end, attempt))

    def _duration_ns(self, kind: Kind) -> int:
        jitter = self.rng.choice((1, 1, 2, 3))
        return max(1, kind.milliseconds * jitter * self.world.slow) * MILLISECOND_NS

    def _act(self, attempt: Attempt) -> None:
        """The moment at which the target does it, or cannot be asked to."""
        if attempt.is_dropped:
            return
        attempt.is_sent = True
        call, world = attempt.call, self.world
        silent = call.silent()
        if silent and attempt.kind.asks_hosts:
            attempt.answer = Failed(f"{silent} does not answer", retryable=True)
            return
        step, key = call.step, (call.run, call.step.id)
        repeats = key in world.effects and not attempt.kind.idempotent
        if repeats and attempt.kind.check(call).kind is not FindingKind.NOT_DONE:
            world.blame("effect-once", f"{step.id} was done again although it had taken effect")
        attempt.answer = attempt.kind.act(call)
        if isinstance(attempt.answer, Succeeded | Later):
            world.say(f"effect of {step.id} #{attempt.order.attempt}")
            world.effects.add(key)
            if not self.is_dead:
                self.at_point(f"effect {step.id}")
        if attempt.fault is StepFault.DIES_AFTER_EFFECT and not self.is_dead:
            raise DriverKilled(f"after the effect of {step.id}")

    def _act_late(self, attempt: Attempt) -> None:
        self._act(attempt)
        self._bury(attempt)
        if self.rng.random() < 0.5 and isinstance(attempt.answer, Succeeded | Failed):
            self._report(attempt, attempt.answer)

    def _end(self, attempt: Attempt) -> None:
        if attempt.is_dropped:
            return
        answer, call, world = attempt.answer, attempt.call, self.world
        if isinstance(answer, Later):
            world.after(answer.ns, "", partial(self._look, attempt))
            return
        self._bury(attempt)
        silent = call.silent() if attempt.kind.asks_hosts else ""
        if silent and not isinstance(answer, Failed):
            self._report(attempt, Unknown("connection lost"))
        elif answer is not None:
            waited = bool(silent) and not world.is_refused(silent)
            wait_ns = NO_ANSWER_MS * MILLISECOND_NS if waited else 0
            world.after(wait_ns, "", partial(self._report, attempt, answer))

    def _look(self, attempt: Attempt) -> None:
        """An execute that waits for what it has sent."""
        attempt.looks += 1
        found = attempt.kind.check(attempt.call)
        if found.kind is FindingKind.DONE:
            self._bury(attempt)
            self._report(attempt, Succeeded(found.evidence))
        elif attempt.looks < LOOKS_MAX and found.kind is FindingKind.RUNNING and not self.is_dead:
            self.world.after(20 * MILLISECOND_NS, "", partial(self._look, attempt))
        else:
            self._bury(attempt)
            self._report(attempt, Unknown("not seen in time"))

    def _lose(self, attempt: Attempt) -> None:
        self._bury(attempt)
        self._report(attempt, Unknown("no answer in time"))

    def _bury(self, attempt: Attempt) -> None:
        """The attempt no longer lives at the target."""
        if not attempt.is_sent:
            attempt.is_dropped = True
        if attempt.is_alive:
            attempt.is_alive = False
            self.world.alive[attempt.order.step] -= 1

    def _report(self, attempt: Attempt, outcome: Outcome) -> None:
        order = attempt.order
        self._tell(Ended(self._now(), order.step, order.attempt, outcome))
        if attempt.fault is StepFault.TOLD_TWICE and not self.is_dead:
            again_ns = self.rng.choice(AGAIN_MS) * MILLISECOND_NS
            self.world.after(again_ns, f"{order.step} is told twice", partial(self._again, order, outcome))

    def _again(self, order: Execute, outcome: Outcome) -> None:
        self._tell(Ended(self._now(), order.step, order.attempt, outcome))

    def _cancel(self, order: Cancel) -> None:
        for attempt in self.attempts:
            is_it = (attempt.order.step, attempt.order.attempt) == (order.step, order.attempt)
            if is_it and attempt.is_alive and not attempt.is_sent:
                attempt.is_dropped = True
                self._lose(attempt)

    # --- checking, undoing, waking ------------------------------------------------------------

    def _check(self, run: Run, order: Check) -> None:
        if self.is_dead or order not in self._wanted:
            return
        found = self._finding(run, order)
        if self.world.trace is not None:
            self.world.say(f"check {order.step} #{order.attempt}/{order.number}: {found.kind} {found.reason}")
        self.world.after(MILLISECOND_NS, "", partial(self._checked, order, found))

    def _checked(self, order: Check, found: Finding) -> None:
        self._tell(Checked(self._now(), order.step, order.attempt, order.number, found))

    def _finding(self, run: Run, order: Check) -> Finding:
        if self.world.alive.get(order.step, 0):
            return Finding(FindingKind.RUNNING, "an attempt is alive")
        call = Call(self.world, run.plan, run.id, run.plan.steps[order.step], order.attempt)
        last = next((a for a in reversed(self.attempts) if a.order.step == order.step), None)
        is_blind = last is not None and last.fault in (StepFault.BLIND, StepFault.LOST_THEN_FAILS)
        if last is not None and is_blind and last.looks < 2 and not self.book.is_quiet:
            last.looks += 1
            return Finding(FindingKind.CANNOT_TELL, "made blind")
        kind = KINDS[call.step.action.kind]
        silent = call.silent()
        if silent and kind.asks_hosts:
            return Finding(FindingKind.CANNOT_TELL, f"{silent} does not answer")
        return kind.check(call)

    def _undo(self, run: Run, order: UndoStep) -> None:
        kind = KINDS[run.plan.steps[order.step].action.kind]
        self.world.say(f"undo {order.step} /{order.number}")
        self.world.after(self._duration_ns(kind), "", partial(self._undone, run, order, kind))

    def _undone(self, run: Run, order: UndoStep, kind: Kind) -> None:
        if self.is_dead and self.rng.random() < 0.5:
            return
        step = run.plan.steps[order.step]
        call = Call(self.world, run.plan, run.id, step, run.step(order.step).attempt)
        silent = call.silent() if kind.asks_hosts else ""
        fault = None if self.is_dead else self.book.take_undo(order.step, step.action.kind)
        outcome: Outcome
        if kind.take_back is None:
            outcome = Failed("has no undo")
            self.world.blame("undo-where-promised", f"{order.step} was told to undo and has none")
        elif silent:
            outcome = Failed(f"{silent} does not answer")
        elif fault is StepFault.UNDO_FAILS and self.rng.random() < 0.5:
            outcome = Failed("made to fail: undo")
        else:
            outcome = kind.take_back(call)
            if fault is StepFault.UNDO_FAILS:
                outcome = Unknown("no answer in time")
            if not self.is_dead:
                self.at_point(f"undone {order.step}")
            if fault is StepFault.DIES_AFTER_UNDO:
                raise DriverKilled(f"after the undo of {order.step}")
        self._tell(UndoEnded(self._now(), order.step, order.number, outcome))

    def _wake(self, order: WakeAt) -> None:
        if order in self._wanted:
            self._tell(Woke(self._now(), order.name))

    def _now(self) -> At:
        return now(self.world)

    def _tell(self, given: DriverInput) -> None:
        if not self.is_dead:
            self.inbox.append(given)
