"""Decides how the production loop meets the log in a simulated night: every commit is judged as it is
made, and a driver can be killed right before or after one. Must never change what is appended.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from orchestrator.core import events
from orchestrator.core.log import Append, Recorded
from orchestrator.core.plan import Plan, Role
from orchestrator.ports import Store
from orchestrator.sim.faults import Book, StepFault
from orchestrator.sim.world import World

RUN = "run:"
SHOWN = "step attempt finding message retry_in_ms causes choices by outcome milliseconds".split()
ENDS = (events.StepSucceeded, events.StepFailed, events.StepUnknown, events.StepResolved)
CLOSES = (events.StepSucceeded, events.StepFailed, events.StepMarked, events.StepUndoStarted)


class DriverKilled(BaseException):
    """The driver's process ends here, as by SIGKILL."""


@dataclass(slots=True)
class JudgingStore:
    """One log as everybody sees it. Judges each transaction by a book of its own."""

    inner: Store
    world: World
    plans: dict[str, Plan] = field(default_factory=dict)  # stream → the plan of its run
    started: set[tuple[str, str, int]] = field(default_factory=set)
    is_paused: bool = False
    _last: dict[tuple[str, str], int] = field(default_factory=dict)  # attempt that the log knows
    _open: set[tuple[str, str]] = field(default_factory=set)  # last attempt nobody has looked at
    _met: set[tuple[str, str]] = field(default_factory=set)  # EPOCH steps whose effect the log knows
    _version: int = 0

    def append(self, appends: Sequence[Append]) -> int:
        seq = self.inner.append(appends)
        self._version += 1
        for append in appends:
            for event in append.events:
                if self.world.trace is not None:
                    self.world.say(f"log {append.stream} {event.KIND} {_gist(event)}")
                self._judge(append.stream, event)
        self._judge_whole(appends)
        return seq

    def _judge(self, stream: str, event: events.Event) -> None:
        world = self.world
        match event:
            case events.StepStarted():
                self.started.add((stream, event.step, event.attempt))
                if self.is_paused:
                    world.blame("paused-starts-nothing", f"{event.step} started in a paused run")
                if (stream, event.step) in self._open:
                    world.blame(
                        "unknown-is-looked-at-first",
                        f"{event.step} #{event.attempt} started, nobody knows what became of the one before",
                    )
                self._last[stream, event.step] = event.attempt
                self._open.add((stream, event.step))
            case events.RunPaused():
                self.is_paused = True
            case events.RunResumed() | events.AbortAsked():
                self.is_paused = False
            case events.SiteDeclaredLost():
                world.declared.add(event.site)
            case _:
                pass
        if isinstance(event, ENDS) and event.attempt != self._last.get((stream, event.step)):
            last = self._last.get((stream, event.step))
            world.blame(
                "results-belong-to-their-attempt",
                f"{event.KIND} of {event.step} #{event.attempt}; the last is #{last}",
            )
        looked = isinstance(event, events.StepResolved) and event.finding != "running"
        if looked or isinstance(event, CLOSES):
            self._open.discard((stream, event.step))  # type: ignore[union-attr]

    def _judge_whole(self, appends: Sequence[Append]) -> None:
        """One input is one transaction: a fact stands there with all that it implies."""
        told = [(append.stream, event) for append in appends for event in append.events]
        for stream, event in told:
            for kind, of in self._implied(stream, event):
                names = [getattr(e, "group", getattr(e, "unit", "")) for _, e in told if kind == e.KIND]
                if of not in names:
                    self.world.blame("one-input-one-append", f"{event.KIND} without {kind} of {of}")

    def _implied(self, stream: str, event: events.Event) -> Iterable[tuple[str, str]]:
        plan = self.plans.get(stream)
        if plan is None:
            return
        if isinstance(event, events.RunFinished):
            for group in plan.groups:
                yield events.GroupReleased.KIND, group
        if isinstance(event, events.StepStarted) and event.attempt == 1:
            step = plan.steps[event.step]
            if step.role is Role.PROMOTE:
                yield events.GroupWithdrawn.KIND, step.group
        is_done = isinstance(event, events.StepResolved) and event.finding == "done"
        if is_done or isinstance(event, events.StepSucceeded):
            step = plan.steps[event.step]  # type: ignore[union-attr]
            if step.role is Role.LOSS:
                yield events.LossStated.KIND, step.unit
            if step.role is Role.EPOCH:
                self._met.add((stream, step.id))
                wanted = [s.id for s in plan.steps.values() if (s.role, s.group) == (Role.EPOCH, step.group)]
                if all((stream, other) in self._met for other in wanted):
                    yield events.GroupGranted.KIND, step.group

    # --- the rest of the port -----------------------------------------------------------------

    def version(self) -> int:
        """Counts every append: whoever made one, everybody else reads anew."""
        return self._version

    def read(self, stream: str, after: int = 0) -> list[Recorded]:
        return self.inner.read(stream, after)

    def read_all(self, after_seq: int = 0) -> list[Recorded]:
        return self.inner.read_all(after_seq)

    def streams(self, prefix: str) -> list[str]:
        return self.inner.streams(prefix)

    def put_plan(self, name: str, body: str) -> None:
        self.inner.put_plan(name, body)

    def get_plan(self, name: str) -> str:
        return self.inner.get_plan(name)

    def last_seq(self) -> int:
        return self.inner.last_seq()

    def verify(self, newest: int = 0) -> list[str]:
        return self.inner.verify(newest)

    def close(self) -> None:
        """The log outlives whoever drives."""


def _gist(event: events.Event) -> str:
    return " ".join(f"{name}={getattr(event, name)}" for name in SHOWN if hasattr(event, name))


class DriversStore:
    """The log as one driver's process has it: it can be killed right before or after a commit."""

    def __init__(self, inner: JudgingStore, book: Book, plan: Plan) -> None:
        self.inner, self._book, self._plan = inner, book, plan

    def append(self, appends: Sequence[Append]) -> int:
        steps = [str(step) for a in appends for e in a.events if (step := getattr(e, "step", ""))]
        self._maybe_die(steps, StepFault.KILLED_BEFORE_COMMIT)
        seq = self.inner.append(appends)
        self._maybe_die(steps, StepFault.KILLED_AFTER_COMMIT)
        return seq

    def _maybe_die(self, steps: Iterable[str], fault: StepFault) -> None:
        for step in steps:
            if self._book.take_kill(step, self._plan.steps[step].action.kind, fault):
                self.inner.world.say(f"driver {fault} of {step}")
                raise DriverKilled(f"{fault} {step}")

    def version(self) -> int:
        return self.inner.version()

    def read(self, stream: str, after: int = 0) -> list[Recorded]:
        return self.inner.read(stream, after)

    def read_all(self, after_seq: int = 0) -> list[Recorded]:
        return self.inner.read_all(after_seq)

    def streams(self, prefix: str) -> list[str]:
        return self.inner.streams(prefix)

    def put_plan(self, name: str, body: str) -> None:
        self.inner.put_plan(name, body)

    def get_plan(self, name: str) -> str:
        return self.inner.get_plan(name)

    def last_seq(self) -> int:
        return self.inner.last_seq()

    def verify(self, newest: int = 0) -> list[str]:
        return self.inner.verify(newest)

    def close(self) -> None:
        """The log outlives this driver."""
