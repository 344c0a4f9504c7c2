"""Decides how an order becomes a call of an action, and how what comes back becomes an input.

One thread per attempt, none for a step while an older one of it lives (a fixed pool starved
a ready fence). A deadline ends nothing by force: it sets ``cancelled``, the outcome is unknown, and
a check says "running" until its work has ended. The only place that catches every exception.
"""

from __future__ import annotations

import heapq
import itertools
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from orchestrator.core.effects import Cancel, Check, Effect, Execute, UndoStep, WakeAt
from orchestrator.core.inputs import Checked, DriverInput, Ended, UndoEnded, Woke
from orchestrator.core.outcomes import Failed, Finding, FindingKind, Outcome, Unknown
from orchestrator.core.plan import URGENCY_LAST, Step
from orchestrator.core.run import Run, StepRun
from orchestrator.core.states import SATISFIED, StepState
from orchestrator.core.values import Json
from orchestrator.engine.clock import now
from orchestrator.engine.workers import Workers
from orchestrator.errors import InputError
from orchestrator.ports import Action, Clock, Context, Hosts, Resources, Secrets

POLL_SECONDS = 0.020
CHECK_SECONDS = 5.0
GRACE_SECONDS = 0.5
LATE = "did not end within its time-out; it was told to stop"
WARM_SECONDS = 3.0
WARM_THREADS_MAX = 32


class Actions(Protocol):
    """What the dispatcher needs of the catalog."""

    def action(self, kind: str) -> Action[Any]: ...
    def parse(self, kind: str, arguments: Mapping[str, Json]) -> Any: ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every attempt may use; see ``ports.Context``."""

    resources: Resources
    secrets: Secrets
    hosts: Hosts
    clock: Clock
    record: Callable[[str, str], None] = lambda step, command: None
    at_point: Callable[[str], None] = lambda name: None  # told after an effect, before its result


@dataclass(slots=True)
class _Attempt:
    """Work on one order. ``late``: what is reported when it has not ended within its time."""

    ended: threading.Event
    cancelled: threading.Event
    deadline: float
    late: Callable[[], DriverInput]
    reported: bool = False


@dataclass(slots=True)
class ThreadDispatcher:
    """Carries out orders in threads of this process. Not for use by several drivers."""

    actions: Actions
    around: Surroundings
    _results: queue.SimpleQueue[DriverInput] = field(default_factory=queue.SimpleQueue)
    _waiting: list[tuple[int, int, DriverInput]] = field(default_factory=list)  # a heap: the urgent first
    _count: Iterator[int] = field(default_factory=itertools.count)
    _workers: Workers = field(default_factory=Workers)
    _attempts: dict[Effect, _Attempt] = field(default_factory=dict)
    _asked: set[Effect] = field(default_factory=set)
    _timers: dict[str, int] = field(default_factory=dict)
    _delayed: dict[Check, int] = field(default_factory=dict)
    _run: Run | None = None

    # --- orders -------------------------------------------------------------------------------

    def ensure(self, effects: Iterable[Effect], run: Run) -> None:
        """Make sure that every order is being worked on; orders that are no longer given lapse."""
        self._run = run
        wanted = sorted(effects, key=self._urgency)
        self._timers = {e.name: e.mono_ns for e in wanted if isinstance(e, WakeAt)}
        self._asked &= set(wanted)
        self._delayed = {c: due for c, due in self._delayed.items() if c in self._asked}
        for effect in wanted:
            if isinstance(effect, WakeAt) or effect in self._asked:
                continue
            self._asked.add(effect)
            match effect:
                case Execute():
                    self._execute(run, effect)
                case Check() if effect.due_mono_ns > self.around.clock.monotonic_ns():
                    self._delayed[effect] = effect.due_mono_ns
                case Check():
                    self._check(run, effect)
                case UndoStep():
                    self._undo(run, effect)
                case Cancel():
                    self._cancel(effect)

    def _urgency(self, about: Effect | DriverInput) -> int:
        """Of what is there at the same moment, what the first write waits for comes first."""
        urgency = self._run.index.urgency if self._run else {}
        return urgency.get(getattr(about, "step", ""), URGENCY_LAST)

    def _execute(self, run: Run, order: Execute) -> None:
        step, action = self._step(run, order.step)
        cancelled, sent = threading.Event(), threading.Event()
        deadline = self.around.clock.monotonic() + step.timeout_ms / 1000
        context = self._context(run, step, order.attempt, deadline, cancelled, sent)

        def said(outcome: Outcome) -> DriverInput:
            return Ended(now(self.around.clock), order.step, order.attempt, outcome)

        def work() -> DriverInput:
            outcome = guarded(lambda: action.execute(context), step.action.mutates, sent.is_set)
            self.around.at_point(f"effect {step.id}")
            return said(outcome)

        name = f"{order.step}#{order.attempt}"
        self._start(order, name, work, cancelled, deadline, lambda: said(Unknown(LATE)))

    def _check(self, run: Run, order: Check) -> None:
        step, action = self._step(run, order.step)

        def said(found: Finding) -> DriverInput:
            return Checked(now(self.around.clock), order.step, order.attempt, order.number, found)

        if self._is_at_work(order.step):
            self._results.put(said(Finding(FindingKind.RUNNING, "its own attempt has not ended yet")))
            return
        cancelled = threading.Event()
        deadline = self.around.clock.monotonic() + CHECK_SECONDS
        context = self._context(run, step, order.attempt, deadline, cancelled)

        def work() -> DriverInput:
            try:
                return said(action.check(context))
            except Exception as error:  # noqa: BLE001 - a check that breaks says nothing about the effect
                return said(Finding(FindingKind.CANNOT_TELL, _error_text(error)))

        late = Finding(FindingKind.CANNOT_TELL, f"the check {LATE}")
        self._start(order, f"check {order.step}", work, cancelled, deadline, lambda: said(late))

    def _undo(self, run: Run, order: UndoStep) -> None:
        step, action = self._step(run, order.step)

        def said(outcome: Outcome) -> DriverInput:
            return UndoEnded(now(self.around.clock), order.step, order.number, outcome)

        if self._is_at_work(order.step):
            self._results.put(said(Unknown("what was begun for this step before has not ended yet")))
            return
        cancelled, sent = threading.Event(), threading.Event()
        deadline = self.around.clock.monotonic() + step.timeout_ms / 1000
        context = self._context(run, step, run.step(order.step).attempt, deadline, cancelled, sent)

        def work() -> DriverInput:
            outcome = guarded(lambda: action.undo(context), mutates=True, has_sent=sent.is_set)
            self.around.at_point(f"undone {step.id}")
            return said(outcome)

        late = Unknown(f"the undo {LATE}")
        self._start(order, f"undo {order.step}", work, cancelled, deadline, lambda: said(late))

    def _step(self, run: Run, name: str) -> tuple[Step, Action[Any]]:
        step = run.plan.steps[name]
        return step, self.actions.action(step.action.kind)

    def _is_at_work(self, step: str) -> bool:
        """Does something that was begun for a step, and may change things, still go on?"""
        return any(
            not attempt.ended.is_set()
            for order, attempt in self._attempts.items()
            if isinstance(order, Execute | UndoStep) and order.step == step
        )

    def _cancel(self, order: Cancel) -> None:
        attempt = self._attempts.get(Execute(order.step, order.attempt))
        if attempt is not None:
            attempt.cancelled.set()
            attempt.deadline = min(attempt.deadline, self.around.clock.monotonic() + GRACE_SECONDS)

    def _start(
        self,
        order: Effect,
        name: str,
        work: Callable[[], DriverInput],
        cancelled: threading.Event,
        deadline: float,
        late: Callable[[], DriverInput],
    ) -> None:
        ended = threading.Event()

        def report() -> None:
            try:
                result = work()
            finally:
                ended.set()  # before anybody hears of the result: what follows from it may begin at once
            self._results.put(result)

        self._attempts[order] = _Attempt(ended, cancelled, deadline, late)
        self._workers.begin(report, name)

    def _context(
        self,
        run: Run,
        step: Step,
        attempt: int,
        deadline: float,
        cancelled: threading.Event,
        sent: threading.Event | None = None,
    ) -> Context[Any]:
        """``sent`` is set by the first command that the action tells of."""
        around = self.around

        def record(command: str) -> None:
            if sent is not None:
                sent.set()
            around.record(step.id, command)

        return Context(
            params=self.actions.parse(step.action.kind, step.action.arguments),
            parts=run.plan.parts,
            operation=run.plan.operation,
            run=run.id,
            step=step.id,
            attempt=f"{run.id}/{step.id}/{attempt}",
            deadline=deadline,
            evidence=evidence_for(run, step),
            resources=around.resources,
            secrets=around.secrets,
            hosts=around.hosts,
            clock=around.clock,
            cancelled=cancelled,
            record=record,
        )

    # --- waiting ------------------------------------------------------------------------------

    def wait(self, seconds_max: float) -> DriverInput | None:
        """The next result or due timer, or None after at most ``seconds_max``."""
        timeout = 0.0 if self._waiting else min(seconds_max, self._seconds_to_next())
        try:
            self._keep(self._results.get(timeout=timeout) if timeout > 0 else self._results.get_nowait())
            while True:
                self._keep(self._results.get_nowait())
        except queue.Empty:
            return heapq.heappop(self._waiting)[-1] if self._waiting else self._due()

    def _keep(self, result: DriverInput) -> None:
        heapq.heappush(self._waiting, (self._urgency(result), next(self._count), result))

    def _seconds_to_next(self) -> float:
        moment = self.around.clock.monotonic_ns()
        due = [*self._timers.values(), *self._delayed.values()]
        nearest = min((d - moment for d in due), default=10**12) / 1e9
        clock = self.around.clock.monotonic()
        for key, attempt in list(self._attempts.items()):
            if attempt.ended.is_set():
                del self._attempts[key]  # here too: a busy run never comes to look for overdue ones
            elif not attempt.reported:
                nearest = min(nearest, attempt.deadline + GRACE_SECONDS - clock)
        return max(0.0, nearest)

    def _due(self) -> DriverInput | None:
        moment = self.around.clock.monotonic_ns()
        for check, due in list(self._delayed.items()):
            if due <= moment and self._run is not None:
                del self._delayed[check]
                self._check(self._run, check)
        for name, due in list(self._timers.items()):
            if due <= moment:
                del self._timers[name]
                return Woke(now(self.around.clock), name)
        return self._overdue()

    def _overdue(self) -> DriverInput | None:
        clock = self.around.clock.monotonic()
        for key, attempt in list(self._attempts.items()):
            if attempt.ended.is_set():
                del self._attempts[key]
            elif clock >= attempt.deadline + GRACE_SECONDS and not attempt.reported:
                attempt.reported = True
                attempt.cancelled.set()
                return attempt.late()
        return None

    # --- before the order ---------------------------------------------------------------------

    def warm(self, run: Run) -> Callable[[], None]:
        """Begin to import and open all that the plan's steps need, so that nothing is imported after the
        order; the call that is returned waits for it. The preflight goes on beside it: a site that hangs
        costs one bound, not one for each. Bounded in time and threads; what cannot be opened is found by
        the steps themselves."""
        left = queue.SimpleQueue[Step]()
        for step in _one_per_arguments(run.plan.steps.values()):
            left.put(step)
        count = min(WARM_THREADS_MAX, left.qsize())
        deadline = self.around.clock.monotonic() + WARM_SECONDS

        def load(step: Step) -> None:
            context = self._context(run, step, 0, deadline, threading.Event())
            try:
                self.actions.action(step.action.kind).load(context)
            except Exception as error:  # noqa: BLE001 - the step itself will say it with its own evidence
                self.around.record(step.id, f"-- not warmed: {_error_text(error)}")

        def work() -> None:
            while self.around.clock.monotonic() < deadline:
                try:
                    load(left.get_nowait())
                except queue.Empty:
                    return

        begun = [self._workers.begin(work, "warm") for _ in range(count)]

        def wait() -> None:
            for ended in begun:
                ended.wait(max(0.0, deadline - self.around.clock.monotonic()))

        return wait


def _one_per_arguments(steps: Iterable[Step]) -> list[Step]:
    """One step of each (kind, cluster or host, …): warming twice gains nothing."""
    seen: dict[tuple[str, str, str], Step] = {}
    for step in steps:
        arguments = step.action.arguments
        seen.setdefault((step.action.kind, str(arguments.get("host", "")), step.unit), step)
    return list(seen.values())


def evidence_for(run: Run, step: Step) -> dict[str, Mapping[str, Json]]:
    """Evidence of the met steps of the same unit and of this step's needs, by step id.

    A proof that is only being looked at again still says what was seen: a stop whose proof has aged does
    not make its site run. Whether it is young enough is for the guards to ask, not for those who read it.
    """
    unit = run.units[step.unit].steps
    found = {
        name: state.evidence
        for name, state in unit.items()
        if state.evidence and (state.state in SATISFIED or _is_looked_at_again(state))
    }
    for need in step.needs:
        found[need] = run.step(need).evidence
    return found


def _is_looked_at_again(state: StepRun) -> bool:
    return state.state is StepState.UNKNOWN and state.proof_since is not None


def guarded(
    call: Callable[[], Outcome], mutates: bool, has_sent: Callable[[], bool] = lambda: True
) -> Outcome:
    """What a call of an action comes back with, whatever it raises.

    Every command is told of before it is sent (``Context.record``): bad input, such as a secret that is
    not there, is a plain failure as long as none was. After one it is as unknown as anything else.
    """
    try:
        return call()
    except InputError as error:
        if mutates and has_sent():
            return Unknown(str(error))
        return Failed(str(error))
    except Exception as error:  # noqa: BLE001 - becomes the outcome
        text = _error_text(error)
        return Unknown(text) if mutates else Failed(text, retryable=True)


def _error_text(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return f"{type(error).__name__}: {text}"[:500]
