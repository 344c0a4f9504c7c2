"""Decides which rows of the transition tables and which faults a set of seeds has reached; must never
judge a run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from orchestrator.core import events
from orchestrator.core.fold_steps import trigger_of
from orchestrator.core.plan import Plan
from orchestrator.core.states import RunState, StepState
from orchestrator.core.transitions import RUN_ROWS, RUN_TABLE, STEP_ROWS, STEP_TABLE, Row
from orchestrator.sim.faults import StepFault, WorldFault


@dataclass(slots=True)
class Reached:
    """Counts over many runs. ``rows``: by (table, trigger, target); ``faults``: (fault, step kind)."""

    rows: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    faults: Counter[tuple[str, str]] = field(default_factory=Counter)
    worlds: Counter[str] = field(default_factory=Counter)

    def add(self, other: Reached) -> None:
        self.rows.update(other.rows)
        self.faults.update(other.faults)
        self.worlds.update(other.worlds)

    def missing_rows(self) -> list[str]:
        wanted = [("step", row) for row in STEP_ROWS] + [("run", row) for row in RUN_ROWS]
        return [
            f"{table}: {'|'.join(row.sources)} on {row.trigger}"
            for table, row in wanted
            if not self.rows[table, row.trigger, _key(row)]
        ]

    def missing_faults(self, pairs: Iterable[tuple[StepFault, str]]) -> list[str]:
        """Those of the given pairs of fault and step kind that no seed has seen, and world faults."""
        missing = [f"{fault} x {kind}" for fault, kind in pairs if not self.faults[fault, kind]]
        return missing + [f"{fault} x world" for fault in WorldFault if not self.worlds[fault]]

    def summary(self, pairs: Collection[tuple[StepFault, str]]) -> list[str]:
        rows, faults = len(STEP_ROWS) + len(RUN_ROWS), len(pairs) + len(WorldFault)
        lack_rows, lack_faults = self.missing_rows(), self.missing_faults(pairs)
        return [
            f"transition rows reached: {rows - len(lack_rows)} of {rows}",
            f"fault x step kind reached: {faults - len(lack_faults)} of {faults}",
            *(f"  not reached: {text}" for text in (*lack_rows, *lack_faults)),
        ]


def _key(row: Row) -> str:
    return f"{row.sources[0]}>{row.target}"


def rows_of(plan: Plan, history: Sequence[events.RunEvent]) -> Counter[tuple[str, str, str]]:
    """Every row that a run's history went through, by following the tables along its events."""
    found: Counter[tuple[str, str, str]] = Counter()
    steps: dict[str, StepState] = dict.fromkeys(plan.steps, StepState.PENDING)
    run, before_hold = RunState.PREFLIGHT, RunState.PREFLIGHT

    def step_goes(step: str, trigger: str) -> None:
        row = STEP_TABLE[steps[step], trigger]
        found["step", trigger, _key(row)] += 1
        steps[step] = StepState(row.target)

    def run_goes(trigger: str) -> None:
        nonlocal run, before_hold
        row = RUN_TABLE[run, trigger]
        found["run", trigger, _key(row)] += 1
        if row.target in (RunState.HELD, RunState.PAUSED) and run is not RunState.HELD:
            before_hold = run
        run = RunState(row.target)

    for event in history[1:]:
        match event:
            case events.DriverCameUp():
                for step, state in steps.items():
                    if (state, event.KIND) in STEP_TABLE:
                        step_goes(step, event.KIND)
            case events.RunGoesOn() | events.RunResumed():
                run_goes(f"{event.KIND}/{before_hold}")
            case events.RunFinished():
                run_goes(f"{event.KIND}/{event.outcome}")
            case events.GateAccepted():
                if event.gate in steps:
                    step_goes(event.gate, event.KIND)
            case events.StaleResult() | events.TimerFired() | events.LossStated() | events.SiteDeclaredLost():
                pass
            case _ if hasattr(event, "step"):
                step_goes(event.step, trigger_of(plan.steps[event.step], event))
            case _:
                run_goes(event.KIND)
    return found
