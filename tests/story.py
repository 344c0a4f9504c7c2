"""A run told as a story: inputs go in, and after each one the machine is held to its promises."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from orchestrator.core import events
from orchestrator.core.decision import Decision, claims
from orchestrator.core.effects import Check, Effect, Execute, UndoStep, WakeAt
from orchestrator.core.fold import evolve, fold
from orchestrator.core.fold_steps import trigger_of
from orchestrator.core.groups import GroupState, check_group, evolve_group
from orchestrator.core.inputs import (
    LOSS_UNKNOWN,
    Abort,
    Accept,
    At,
    Checked,
    Confirm,
    DeclareLost,
    Ended,
    Input,
    MarkDone,
    Proceed,
    Resume,
    Retry,
    Skip,
    UndoEnded,
    Verb,
    Woke,
)
from orchestrator.core.invariants import check
from orchestrator.core.machine import advance
from orchestrator.core.orders import orders
from orchestrator.core.outcomes import Failed, Finding, FindingKind, Outcome, Succeeded, Unknown
from orchestrator.core.plan import Plan
from orchestrator.core.run import Run, start
from orchestrator.core.states import RunState, StepState
from orchestrator.core.transitions import STEP_TABLE
from orchestrator.core.values import Json
from orchestrator.runbook.units import parse_duration
from tests.builders import BOOT_NS, START_NS, a_failover, at, authorise, created, driver

LOCAL: Mapping[str, Json] = {
    "durability": "local", "last_commit_ns": START_NS, "heartbeat_ns": START_NS,
    "received_lsn": "0/10", "home_lsn": "0/30", "write_rate_rows_per_s": 10,
}  # fmt: skip
REMOTE: Mapping[str, Json] = {**LOCAL, "durability": "remote"}


@dataclass
class Story:
    """Tells inputs to the machine and holds it to its promises after each."""

    plan: Plan
    now: float = 0.0
    boot_ns: int = BOOT_NS
    run: Run = field(init=False)
    history: list[events.RunEvent] = field(default_factory=list)
    groups: list[events.GroupEvent] = field(default_factory=list)
    states: dict[str, GroupState] = field(default_factory=dict)
    folds_whole: bool = True
    rows: set[tuple[str, str, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        first = created()
        self.run = start(self.plan, first)
        self.history.append(first)
        claimed = {claim.group: claim for claim in claims(self.run)}
        for name, move in self.plan.groups.items():
            adopted = GroupState(name, move.active, move.epoch_seen, "protected", adopted=True)
            self.states[name] = evolve_group(adopted, claimed[name])

    def tell(self, given: Input) -> Decision:
        before = self.run
        decision = advance(before, given)
        refolded = before
        for event in decision.events:
            self.rows.update(rows_taken(refolded, event))
            refolded = evolve(refolded, event)
        assert refolded == decision.run
        assert check(before, decision.run, decision.events, is_deep=True) == []
        self.run = decision.run
        self.history.extend(decision.events)
        self.groups.extend(decision.groups)
        for event in decision.groups:
            was = self.states[event.group]
            self.states[event.group] = evolve_group(was, event)
            assert check_group(was, self.states[event.group], self.run.id) == []
        if self.folds_whole:
            assert fold(self.plan, self.history, self.run.index) == self.run
        return decision

    # --- time ---------------------------------------------------------------------------------

    def at(self) -> At:
        return at(self.now, self.boot_ns)

    def tick(self, seconds: float = 0.01) -> float:
        self.now += seconds
        return self.now

    def next(self) -> At:
        self.tick()
        return self.at()

    # --- inputs -------------------------------------------------------------------------------

    def proceed(self) -> None:
        self.tell(Proceed(self.next()))

    def drive(self, incarnation: str = "i2") -> None:
        """A new driver comes up and proceeds."""
        self.tick()
        self.tell(driver(self.now, incarnation, self.boot_ns))
        self.proceed()

    def ended(self, step: str, outcome: Outcome) -> Decision:
        return self.tell(Ended(self.next(), step, self.run.step(step).attempt, outcome))

    def ok(self, step: str, **evidence: Json) -> None:
        self.ended(step, Succeeded(evidence))

    def failed(self, step: str, retryable: bool = False, message: str = "no") -> None:
        self.ended(step, Failed(message, retryable))

    def lost(self, step: str) -> None:
        self.ended(step, Unknown("connection lost"))

    def found(self, step: str, kind: FindingKind, **evidence: Json) -> Decision:
        state = self.run.step(step)
        finding = Finding(kind, "looked", evidence)
        return self.tell(Checked(self.next(), step, state.attempt, state.number, finding))

    def undone(self, step: str, outcome: Outcome | None = None) -> None:
        outcome = outcome or Succeeded({"writes": True})
        self.tell(UndoEnded(self.next(), step, self.run.step(step).number, outcome))

    def abort(self, reason: str = "false alarm", leave_closed: bool = False) -> None:
        self.tell(Abort(self.next(), "ann", reason, leave_closed))

    def wake(self) -> None:
        """The next timer that the run has ordered goes off."""
        timer = min((o for o in orders(self.run) if isinstance(o, WakeAt)), key=lambda o: o.mono_ns)
        self.now = max(self.now, (timer.mono_ns - self.boot_ns) / 1e9) + 0.001
        self.tell(Woke(self.at(), timer.name))

    def follow(self, choice: str) -> None:
        """Do what a held run or a refusal names, word for word."""
        self.tell(read_choice(choice, self.next()))

    # --- looking ------------------------------------------------------------------------------

    def _ordered(self, kind: type[Effect]) -> set[str]:
        return {order.step for order in orders(self.run) if isinstance(order, kind)}  # type: ignore[union-attr]

    def executing(self) -> set[str]:
        return self._ordered(Execute)

    def checking(self) -> set[str]:
        return self._ordered(Check)

    def undoing(self) -> set[str]:
        return self._ordered(UndoStep)

    def timers(self) -> dict[str, float]:
        wakes = [order for order in orders(self.run) if isinstance(order, WakeAt)]
        return {order.name: (order.mono_ns - self.boot_ns) / 1e9 for order in wakes}

    def state(self, step: str) -> StepState:
        return self.run.step(step).state


def ordered(accepted_ms: int = 1_000, plan: Plan | None = None) -> Story:
    """A run whose preflight is through and which people have just confirmed."""
    story = Story(plan or a_failover())
    story.tell(driver(story.tick()))
    story.proceed()
    for step in story.run.index.preflight:
        story.ok(step)
    assert story.run.state is RunState.READY
    story.tell(authorise(story.tick(), accepted_ms))
    story.proceed()
    return story


def promoting(plan: Plan | None = None) -> Story:
    """A failover without loss, whose promotion was just sent."""
    story = ordered(plan=plan)
    for step in ("db/stop", "db/close", "db/verify"):
        story.ok(step)
    story.ok("db/measure", **REMOTE)
    assert story.state("db/promote") is StepState.RUNNING
    return story


def read_choice(command: str, moment: At) -> Verb:
    """The verb behind a command line that a run names. ValueError for one that is none."""
    words = shlex.split(command.replace("NAME", "ann").replace("TEXT", "because"))
    assert words[0] == "continuity"
    verb, plain, options = words[1], [], {}
    rest = iter(words[2:])
    for word in rest:
        if word == "--leave-closed":
            options[word] = "yes"
        elif word.startswith("--"):
            options[word] = next(rest)
        else:
            plain.append(word)
    by, reason = "ann", options.get("--reason", "")
    step = plain[1] if len(plain) > 1 else ""
    match verb:
        case "retry":
            return Retry(moment, by, step)
        case "skip":
            return Skip(moment, by, step, reason)
        case "mark-done":
            return MarkDone(moment, by, step, reason)
        case "confirm":
            return Confirm(moment, by, step, options.get("--text", "confirmed"))
        case "accept":
            limit = options.get("--limit")
            limit_ms = (
                None if limit is None else LOSS_UNKNOWN if limit == "unknown" else parse_duration(limit)
            )
            return Accept(moment, by, step, reason, limit_ms)
        case "declare":
            return DeclareLost(moment, by, options["--site"], reason)
        case "abort":
            return Abort(moment, by, reason, "--leave-closed" in options)
        case "resume":
            return Resume(moment, by)
        case _:
            raise ValueError(f"a run names a command that is no verb: {command}")


def rows_taken(run: Run, event: events.RunEvent) -> Iterator[tuple[str, str, str]]:
    """The rows of the tables that an event takes, as (table, from, trigger)."""
    match event:
        case events.DriverCameUp():
            for unit in run.units.values():
                for state in unit.steps.values():
                    if (state.state, event.KIND) in STEP_TABLE:
                        yield "step", state.state, event.KIND
        case events.GateAccepted():
            if event.gate != "loss":
                yield "step", run.step(event.gate).state, event.KIND
        case events.RunGoesOn() | events.RunResumed():
            yield "run", run.state, f"{event.KIND}/{run.before_hold}"
        case events.RunFinished():
            yield "run", run.state, f"{event.KIND}/{event.outcome}"
        case (
            events.RunReady()
            | events.RunAuthorised()
            | events.RunHeld()
            | events.RunPaused()
            | events.AbortAsked()
        ):
            yield "run", run.state, event.KIND
        case events.StaleResult():
            return
        case _ if hasattr(event, "step"):
            yield "step", run.step(event.step).state, trigger_of(run.plan.steps[event.step], event)
        case _:
            return
