"""Decides how the production loop meets the simulated world: a store that judges what is appended and
can kill the driver at it, and a dispatcher over virtual time.

It must never soften an order: what the engine would carry out is carried out.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from orchestrator.core import events
from orchestrator.core.effects import Cancel, Check, Effect, Execute, UndoStep, WakeAt
from orchestrator.core.inputs import At, Checked, DriverInput, Ended, UndoEnded, Woke
from orchestrator.core.log import Append, Recorded
from orchestrator.core.outcomes import Failed, Finding, FindingKind, Outcome, Succeeded, Unknown
from orchestrator.core.plan import Plan
from orchestrator.core.run import Run
from orchestrator.engine.clock import now
from orchestrator.sim import postgresql, surroundings
from orchestrator.sim.calls import Answer, Call, Kind, Later
from orchestrator.sim.faults import Book, StepFault
from orchestrator.sim.world import MILLISECOND_NS, SECOND_NS, World
from orchestrator.stores.memory import MemoryStore

KINDS: Mapping[str, Kind] = {**postgresql.KINDS, **surroundings.KINDS}
NO_ANSWER_MS = 1_000
LOOKS_MAX = 400


class DriverKilled(BaseException):
    """The driver's process ends here, as by SIGKILL."""


class NothingGoesOn(BaseException):
    """The loop waits and nothing in the world will ever come back."""


# --- the log ----------------------------------------------------------------------------------


class JudgingStore(MemoryStore):
    """The log in memory. Sees every commit, whoever made it, and tells the world what it says."""

    def __init__(self, world: World, plan: Plan) -> None:
        super().__init__()
        self.world, self.plan = world, plan
        self.started: set[tuple[str, str, int]] = set()
        self.is_paused = False
        self.listeners: list[Callable[[Sequence[Append]], None]] = []

    def append(self, appends: Sequence[Append]) -> int:
        seq = super().append(appends)
        for append in appends:
            for event in append.events:
                self._committed(append.stream, event)
        for listener in self.listeners:
            listener(appends)
        return seq

    def _committed(self, stream: str, event: events.Event) -> None:
        if self.world.trace is not None:
            self.world.say(f"log {stream} {event.KIND} {_gist(event)}")
        match event:
            case events.StepStarted():
                self.started.add((stream, event.step, event.attempt))
                if self.is_paused:
                    self.world.blame("paused-starts-nothing", f"{event.step} started in a paused run")
            case events.RunPaused():
                self.is_paused = True
            case events.RunResumed() | events.AbortAsked():
                self.is_paused = False
            case events.SiteDeclaredLost():
                self.world.declared.add(event.site)
            case _:
                return


def _gist(event: events.Event) -> str:
    names = (
        "step",
        "attempt",
        "finding",
        "message",
        "retry_in_ms",
        "causes",
        "choices",
        "by",
        "outcome",
        "milliseconds",
    )
    return " ".join(f"{n}={getattr(event, n)}" for n in names if hasattr(event, n))


class DriversStore:
    """The log as one driver's process has it: it can be killed right before or after a commit."""

    def __init__(self, inner: JudgingStore, book: Book, plan: Plan) -> None:
        self.inner, self._book, self._plan = inner, book, plan

    def append(self, appends: Sequence[Append]) -> int:
        steps = [e.step for a in appends for e in a.events if isinstance(getattr(e, "step", None), str)]
        self._maybe_die(steps, StepFault.KILLED_BEFORE_COMMIT)
        seq = self.inner.append(appends)
        self._maybe_die(steps, StepFault.KILLED_AFTER_COMMIT)
        return seq

    def _maybe_die(self, steps: Iterable[str], fault: StepFault) -> None:
        for step in steps:
            if self._book.take_kill(step, self._plan.steps[step].action.kind, fault):
                self.inner.world.say(f"driver {fault} of {step}")
                raise DriverKilled(f"{fault} {step}")

    def read(self, stream: str, after: int = 0) -> list[Recorded]:
        return self.inner.read(stream, after)

    def read_all(self, after_seq: int = 0) -> list[Recorded]:
        return self.inner.read_all(after_seq)

    def streams(self, prefix: str) -> list[str]:
        return self.inner.streams(prefix)

    def version(self) -> int:
        return self.inner.version()

    def put_plan(self, digest: str, body: str) -> None:
        self.inner.put_plan(digest, body)

    def get_plan(self, digest: str) -> str:
        return self.inner.get_plan(digest)

    def verify(self) -> list[str]:
        return self.inner.verify()

    def close(self) -> None:
        """The log outlives this driver."""


# --- the dispatcher ---------------------------------------------------------------------------


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
    is_dead: bool = False
    inbox: deque[DriverInput] = field(default_factory=deque)
    attempts: list[Attempt] = field(default_factory=list)
    horizon_ns: int = 3_600 * SECOND_NS
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
            if self.world.now_ns > self.horizon_ns or not self.world.step():
                raise NothingGoesOn

    def die(self) -> None:
        """The process ends. What it has sent lives on at the target; what it has not sent may not."""
        self.is_dead = True
        for attempt in self.attempts:
            if attempt.is_alive and not attempt.is_sent and self.rng.random() < 0.5:
                self._bury(attempt)
            elif attempt.is_alive and attempt.is_sent:
                self._bury(attempt)

    # --- executing ----------------------------------------------------------------------------

    def _execute(self, run: Run, order: Execute) -> None:
        world, step = self.world, run.plan.steps[order.step]
        if ("run:" + run.id, order.step, order.attempt) not in self.store.started:
            world.blame("intent-before-effect", f"{order.step} #{order.attempt} is not in the log")
        if (run.id, f"{order.step}#{order.attempt}") in world.applied:
            world.blame("one-execution-per-attempt", f"{order.step} #{order.attempt} was executed again")
        world.applied[run.id, f"{order.step}#{order.attempt}"] = []
        if world.alive.get(order.step, 0) and step.action.mutates:
            world.blame("one-live-attempt", f"{order.step} #{order.attempt} while an earlier one lives")
        kind = KINDS[step.action.kind]
        fault = self.book.take(order.step, step.action.kind)
        call = self._call(run, order.step, order.attempt, torn=fault is StepFault.TORN)
        attempt = Attempt(order, call, kind, fault)
        self.attempts.append(attempt)
        world.alive[order.step] = world.alive.get(order.step, 0) + 1
        world.say(f"execute {order.step} #{order.attempt} {fault or ''}")
        takes_ns = self._duration_ns(kind)
        late_ns = takes_ns + self.rng.choice((1, 300, 3_000)) * MILLISECOND_NS
        match fault:
            case StepFault.REFUSED | StepFault.FAILS:
                attempt.answer = Failed(f"made to fail: {fault}", retryable=fault is StepFault.REFUSED)
                attempt.is_sent = True
                world.after(takes_ns, "", partial(self._end, attempt))
            case StepFault.TIMES_OUT:
                attempt.is_dropped = attempt.is_sent = True
                world.after(step.timeout_ms * MILLISECOND_NS, "", partial(self._lose, attempt))
            case StepFault.COMMITS_LATE:
                world.after(takes_ns, "", partial(self._report, attempt, Unknown("connection lost")))
                world.after(late_ns, "", partial(self._act_late, attempt))
            case StepFault.RESULT_LATE:
                world.after(takes_ns // 2, "", partial(self._act, attempt))
                world.after(takes_ns, "", partial(self._report, attempt, Unknown("no answer in time")))
                world.after(late_ns, "", partial(self._end, attempt))
            case StepFault.RESULT_LOST | StepFault.TORN | StepFault.BLIND:
                if fault is not StepFault.BLIND or self.rng.random() < 0.5:
                    world.after(takes_ns // 2, "", partial(self._act, attempt))
                world.after(takes_ns, "", partial(self._lose, attempt))
            case _:
                world.after(takes_ns // 2, "", partial(self._act, attempt))
                world.after(takes_ns, "", partial(self._end, attempt))

    def _duration_ns(self, kind: Kind) -> int:
        jitter = self.rng.choice((1, 1, 2, 3))
        return max(1, kind.milliseconds * jitter * self.world.slow) * MILLISECOND_NS

    def _call(self, run: Run, step: str, attempt: int, *, torn: bool = False) -> Call:
        record = run.plan.steps[step]
        return Call(self.world, run.plan, run.id, record, attempt, torn)

    def _act(self, attempt: Attempt) -> None:
        """The moment at which the target does it, or cannot be asked to."""
        if attempt.is_dropped:
            return
        attempt.is_sent = True
        call, world = attempt.call, self.world
        silent = [host for host in call.hosts() if not world.answers(host)]
        if silent and attempt.kind.asks_hosts:
            attempt.answer = Failed(f"{silent[0]} does not answer", retryable=True)
            return
        attempt.answer = attempt.kind.act(call)
        step = call.step
        if isinstance(attempt.answer, Succeeded | Later):
            world.say(f"effect of {step.id} #{attempt.order.attempt}")
            deeds = world.applied.setdefault((call.run, step.id), [])
            deeds.append(attempt.order.step)
            if len(deeds) > 1 and not attempt.kind.idempotent:
                world.blame("effect-once", f"{step.id} took effect {len(deeds)} times")
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
        hosts = call.hosts() if attempt.kind.asks_hosts else ()
        is_cut_off = any(not world.answers(h) for h in hosts) and not isinstance(answer, Failed)
        if is_cut_off:
            self._report(attempt, Unknown("connection lost"))
        elif answer is not None:
            waited = isinstance(answer, Failed) and any(not world.is_refused(h) for h in hosts)
            silent = waited and any(not world.answers(h) for h in hosts)
            world.after(
                NO_ANSWER_MS * MILLISECOND_NS if silent else 0, "", partial(self._report, attempt, answer)
            )

    def _look(self, attempt: Attempt) -> None:
        """An execute that waits for what it has sent."""
        attempt.looks += 1
        found = attempt.kind.check(attempt.call)
        if found.kind is FindingKind.DONE:
            self._bury(attempt)
            self._report(attempt, Succeeded(found.evidence))
        elif attempt.looks < LOOKS_MAX and found.kind is FindingKind.RUNNING:
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
            again_ns = self.rng.choice((1, 200, 900, 3_000)) * MILLISECOND_NS
            self.world.after(
                again_ns, f"{order.step} is told twice", partial(self._tell_again, order, outcome)
            )

    def _tell_again(self, order: Execute, outcome: Outcome) -> None:
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
        self.world.say(f"check {order.step} #{order.attempt}/{order.number}: {found.kind} {found.reason}")
        self.world.after(
            MILLISECOND_NS,
            "",
            lambda: self._tell(Checked(self._now(), order.step, order.attempt, order.number, found)),
        )

    def _finding(self, run: Run, order: Check) -> Finding:
        if self.world.alive.get(order.step, 0):
            return Finding(FindingKind.RUNNING, "an attempt is alive")
        call = self._call(run, order.step, order.attempt)
        last = next((a for a in reversed(self.attempts) if a.order.step == order.step), None)
        is_blind = last is not None and last.fault is StepFault.BLIND and not self.book.is_quiet
        if is_blind and last is not None and last.looks < 2:
            last.looks += 1
            return Finding(FindingKind.CANNOT_TELL, "made blind")
        kind = KINDS[call.step.action.kind]
        silent = [host for host in call.hosts() if not self.world.answers(host)]
        if silent and kind.asks_hosts:
            return Finding(FindingKind.CANNOT_TELL, f"{silent[0]} does not answer")
        return kind.check(call)

    def _undo(self, run: Run, order: UndoStep) -> None:
        step = run.plan.steps[order.step]
        kind = KINDS[step.action.kind]
        self.world.say(f"undo {order.step} /{order.number}")
        self.world.after(self._duration_ns(kind), "", partial(self._undone, run, order, kind))

    def _undone(self, run: Run, order: UndoStep, kind: Kind) -> None:
        call = self._call(run, order.step, run.step(order.step).attempt)
        outcome: Outcome
        if self.is_dead and self.rng.random() < 0.5:
            return
        silent = [host for host in call.hosts() if not self.world.answers(host)]
        if self.book.take_undo(order.step, call.step.action.kind):
            outcome = Failed("made to fail: undo")
        elif silent and kind.asks_hosts:
            outcome = Failed(f"{silent[0]} does not answer")
        elif kind.take_back is None:
            outcome = Failed("has no undo")
            self.world.blame("undo-where-promised", f"{order.step} was told to undo and has none")
        else:
            outcome = kind.take_back(call)
        self._tell(UndoEnded(self._now(), order.step, order.number, outcome))

    def _wake(self, order: WakeAt) -> None:
        if order in self._wanted:
            self._tell(Woke(self._now(), order.name))

    def _now(self) -> At:
        return now(self.world)

    def _tell(self, given: DriverInput) -> None:
        if not self.is_dead:
            self.inbox.append(given)
