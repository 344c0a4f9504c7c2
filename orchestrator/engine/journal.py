"""Decides how runs and groups are read from the log and how inputs are appended to it.

``submit`` is the only way in: decide, append by compare-and-swap, and on a conflict read, fold and
decide the same input again. It never carries anything out. What only deciding needs is loaded when
something is decided: most processes look and append nothing.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

from orchestrator.core import groups as group_states
from orchestrator.core.events import DriverCameUp, GroupEvent, RunCreated, RunEvent
from orchestrator.core.fold import evolve
from orchestrator.core.fold import fold as fold_run
from orchestrator.core.groups import GroupState, label
from orchestrator.core.log import Append, broken_text, sha256_of
from orchestrator.core.moment import At
from orchestrator.core.plan import Plan
from orchestrator.core.run import Run, start
from orchestrator.errors import (
    ChangedLogError,
    ConflictError,
    InvariantBroken,
    NewerPlanError,
    RefusedError,
    WrongWordsError,
)

if TYPE_CHECKING:
    from orchestrator.core.decision import Decision
    from orchestrator.core.inputs import Input
    from orchestrator.ports import Store

CONFLICTS_MAX = 100
WHAT_IS_SAFE = (
    "nothing is begun on it. To see all of it: continuity history --verify; keep this log, put its last good "
    "copy back, or move it away and let the evidence speak: continuity adopt --all --by NAME"
)
RUN = "run:"
GROUP = "group:"
LOOKED_AT_MAX = 20_000
"""Whoever only looks has the chain of so many last events checked: 40 ms at most, and all of most logs."""


@dataclass(slots=True)
class Tracked:
    """A run as this process last saw it, and how far it has read each of its streams."""

    run: Run
    stream_seq: int
    group_seqs: dict[str, int] = field(default_factory=dict)


class Journal:
    """Runs and groups over one store. ``on_events`` is told of every append of this process, ``on_others`` of
    what other processes appended, when it is read."""

    def __init__(
        self,
        store: Store,
        plan_from_text: Callable[[str], Plan],
        on_events: Callable[[Run, tuple[RunEvent, ...]], None] = lambda run, events: None,
        is_deep: bool = False,
        at_point: Callable[[str], None] = lambda name: None,
        on_others: Callable[[Run, tuple[RunEvent, ...]], None] = lambda run, events: None,
    ) -> None:
        self.store = store
        self._plan_from_text = plan_from_text
        self._on_events = on_events
        self._on_others = on_others
        self._is_deep = is_deep  # every invariant after every append (tests, simulator)
        self._at_point = at_point  # told before and after each append, by what it appends (kill tests)
        self._plans: dict[str, Plan] = {}

    def must_be_whole(self) -> None:
        """Raises ChangedLogError where an entry was changed, taken out or put in after it was written."""
        breaks = self.store.verify()
        if breaks:
            raise ChangedLogError(f"the log is not what was written: {broken_text(breaks)}; {WHAT_IS_SAFE}")

    def breaks_in_sight(self) -> list[str]:
        """Where the newest events are not what was written: for who reads and begins nothing."""
        return self.store.verify(LOOKED_AT_MAX)

    @contextmanager
    def _understood(self) -> Iterator[None]:
        """What was changed by hand often makes no sense any more: then that is said, and not what it broke."""
        try:
            yield
        except Exception:
            self.must_be_whole()
            raise

    # --- groups -------------------------------------------------------------------------------

    def group(self, name: str) -> GroupState:
        return self._group(name)[0]

    def _group(self, name: str) -> tuple[GroupState, int]:
        records = self.store.read(GROUP + name)
        history = [cast("GroupEvent", record.event) for record in records]
        with self._understood():
            return group_states.fold_group(name, history), len(records)

    def groups(self) -> dict[str, GroupState]:
        return {name[len(GROUP) :]: self.group(name[len(GROUP) :]) for name in self.store.streams(GROUP)}

    def append_group(self, name: str, decide: Callable[[GroupState], GroupEvent | None]) -> GroupState:
        """Append what ``decide`` makes of the group's present state; None appends nothing."""
        for _ in range(CONFLICTS_MAX):
            state, seq = self._group(name)
            event = decide(state)
            if event is None:
                return state
            after = group_states.evolve_group(state, event)
            broken = group_states.breaks(state, after)
            if broken:
                raise InvariantBroken(f"{broken[0]} (nothing was appended; the log is as it was)")
            try:
                self.store.append([Append(GROUP + name, seq, (event,))])
            except ConflictError:
                continue
            return after
        raise InvariantBroken(f"group {name}: {CONFLICTS_MAX} conflicts in a row")

    # --- runs ---------------------------------------------------------------------------------

    def create(self, plan: Plan, plan_text: str, created: RunCreated) -> Tracked:
        """Begin a run and claim its groups, in one transaction.

        Raises RefusedError where a group is not adopted, in conflict, or claimed by another run: two
        people starting at once cannot both win, and the loser is told who did. JournalError where the log
        is not what was written: nothing is begun on it.
        """
        from orchestrator.core.decision import claims

        self.must_be_whole()
        created = replace(created, plan_sha256=sha256_of(plan_text))  # so the hash chain covers the plan too
        run = start(plan, created)
        for _ in range(CONFLICTS_MAX):
            appends = [Append(RUN + created.run, 0, (created,))]
            seqs: dict[str, int] = {}
            for claim in claims(run):
                state, seq = self._group(claim.group)
                _must_be_free(state, plan)
                appends.append(Append(GROUP + claim.group, seq, (claim,)))
                seqs[claim.group] = seq + 1
            self.store.put_plan(created.plan_sha256, plan_text)
            if self.store.get_plan(created.plan_sha256) != plan_text:
                raise ChangedLogError(
                    f"another text lies beside the log under the hash of this plan ({created.plan_sha256[:12]}); "
                    f"{WHAT_IS_SAFE}"
                )
            self._at_point("before RunCreated")
            try:
                self.store.append(appends)
            except ConflictError as conflict:
                if conflict.stream == RUN + created.run:
                    raise RefusedError(f"a run named {created.run} exists already") from conflict
                continue
            self._at_point("after RunCreated")
            self._plans[created.plan_sha256] = plan
            self._on_events(run, (created,))
            return Tracked(run, 1, seqs)
        raise InvariantBroken(f"run {created.run}: {CONFLICTS_MAX} conflicts in a row")

    def load(self, run_id: str) -> Tracked:
        """Fold a run from its stream. RefusedError if there is none of that name."""
        with without_collector():
            return self._load(run_id)

    def _load(self, run_id: str) -> Tracked:
        records = self.store.read(RUN + run_id)
        if not records:
            near = [name[len(RUN) :] for name in self.store.streams(RUN)][-5:]
            raise WrongWordsError(f"no run named {run_id!r} in this log", tuple(reversed(near)))
        history = [cast("RunEvent", record.event) for record in records]
        with self._understood():
            try:
                plan = self.plan_of(cast("RunCreated", history[0]))
            except NewerPlanError as error:
                version = self.driven_by(run_id)
                raise NewerPlanError(
                    f"{run_id}: {error}{version and f': version {version} drove it last'}"
                ) from error
            run = fold_run(plan, history)
        seqs = {name: self._group(name)[1] for name in run.plan.groups}
        return Tracked(run, len(records), seqs)

    def plan_of(self, created: RunCreated) -> Plan:
        """The plan with which a run began."""
        name = created.plan_sha256 or created.digest
        if name not in self._plans:
            self._plans[name] = self._plan_from_text(self.store.get_plan(name))
        return self._plans[name]

    def driven_by(self, run_id: str) -> str:
        """The version of this program that drove a run last, "" if none did. Needs no plan."""
        events = [record.event for record in self.store.read(RUN + run_id)]
        return next((e.version for e in reversed(events) if isinstance(e, DriverCameUp)), "")

    def runs(self) -> list[str]:
        """Ids of all runs, oldest first."""
        return [name[len(RUN) :] for name in self.store.streams(RUN)]

    def refresh(self, tracked: Tracked) -> bool:
        """Fold what other processes appended. True if the run has moved on."""
        records = self.store.read(RUN + tracked.run.id, tracked.stream_seq)
        for record in records:
            with self._understood():
                tracked.run = evolve(tracked.run, cast("RunEvent", record.event))
            tracked.stream_seq = record.stream_seq
        if records:
            self._on_others(tracked.run, tuple(cast("RunEvent", record.event) for record in records))
        for name in tracked.group_seqs:
            newer = self.store.read(GROUP + name, tracked.group_seqs[name])
            if newer:
                tracked.group_seqs[name] = newer[-1].stream_seq
        return bool(records)

    def submit(self, tracked: Tracked, given: Input) -> Decision:
        """Decide an input and make its events durable; on a conflict decide it again.

        Raises RefusedError (nothing appended), InvariantBroken (nothing appended), JournalError.
        """
        from orchestrator.core.machine import advance

        for _ in range(CONFLICTS_MAX):
            decision = advance(tracked.run, given)
            if not decision.events:
                return decision
            self._assert_invariants(tracked.run, decision)
            point = name_of(given)
            self._at_point(f"before {point}")
            try:
                self.store.append(self._appends(tracked, decision))
            except ConflictError:
                self.refresh(tracked)
                continue
            self._at_point(f"after {point}")
            tracked.run = decision.run
            tracked.stream_seq += len(decision.events)
            for event in decision.groups:
                tracked.group_seqs[event.group] += 1
            self._on_events(decision.run, decision.events)
            return decision
        raise InvariantBroken(f"run {tracked.run.id}: {CONFLICTS_MAX} conflicts in a row")

    def _appends(self, tracked: Tracked, decision: Decision) -> list[Append]:
        appends = [Append(RUN + tracked.run.id, tracked.stream_seq, decision.events)]
        by_group: dict[str, list[GroupEvent]] = {}
        for event in decision.groups:
            by_group.setdefault(event.group, []).append(event)
        for name, events in by_group.items():
            appends.append(Append(GROUP + name, tracked.group_seqs[name], tuple(events)))
        return appends

    def _assert_invariants(self, before: Run, decision: Decision) -> None:
        from orchestrator.core.invariants import check as check_invariants

        broken = check_invariants(before, decision.run, decision.events, is_deep=self._is_deep)
        states: dict[str, GroupState] = {}
        for event in decision.groups:
            state = states.get(event.group) or self.group(event.group)
            after = states[event.group] = group_states.evolve_group(state, event)
            broken += group_states.check_group(state, after, before.id)
        if broken:
            raise InvariantBroken(
                f"run {before.id}: {broken[0]} (nothing was appended; the log is as it was)"
            )


@contextmanager
def without_collector() -> Iterator[None]:
    """Folding makes many objects and no cycles: looking for some would grow faster than the log."""
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_collecting:
            gc.enable()


def _must_be_free(state: GroupState, plan: Plan) -> None:
    move = plan.groups[state.name]
    if not state.adopted:
        raise RefusedError(
            f"group {state.name}: this log has never seen it", (group_states.adopt_command(state.name),)
        )
    if state.claim:
        raise RefusedError(
            f"group {state.name} is claimed by run {state.claim}, started by {state.claim_by} on "
            f"{state.claim_machine} at {utc_text(state.claim_utc_ns)}",
            (f"continuity status {state.claim}", f"continuity resume {state.claim}"),
        )
    if state.conflict:
        raise RefusedError(
            f"group {state.name} is in split brain", (group_states.resolve_command(state.name),)
        )
    if (state.active, state.epoch) != (move.active, move.epoch_seen):
        raise RefusedError(
            f"group {state.name} has moved on since the plan was made: it is {label(state)} at epoch "
            f"{state.epoch}; plan again"
        )
    if move.epoch_seen < move.epoch_next <= state.reserved:
        raise RefusedError(
            f"group {state.name}: epoch {move.epoch_next} was reserved by another run since the plan was made; "
            "plan again"
        )


def name_of(given: Input) -> str:
    """An input's kind, its step and what it found: names a point of a run for kill tests."""
    from orchestrator.core.inputs import Checked, Ended, UndoEnded

    match given:
        case Ended() | UndoEnded():
            return f"{type(given).__name__} {given.step} {type(given.outcome).__name__}"
        case Checked():
            return f"Checked {given.step} {given.finding.kind}"
        case _:
            return type(given).__name__


def utc_text(utc_ns: int) -> str:
    """``2026-11-23T10:11:12.345Z`` of UTC nanoseconds."""
    from datetime import UTC, datetime

    moment = datetime.fromtimestamp(utc_ns / 1e9, tz=UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{utc_ns // 1_000_000 % 1000:03d}Z"


def moment(at: At) -> str:
    return utc_text(at.utc_ns)
