"""Decides what a seed is: a night, what comes after it, and the verdict; must never judge by anything but
the world and what the runs promised.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from orchestrator.core import events
from orchestrator.core.groups import breaks_of
from orchestrator.core.model import Operation
from orchestrator.core.run import Run, has_ended
from orchestrator.core.states import RunState
from orchestrator.engine.journal import GROUP
from orchestrator.errors import ContinuityError, InvariantBroken, RefusedError
from orchestrator.sim.coverage import Reached, rows_of
from orchestrator.sim.dispatch import NothingGoesOn
from orchestrator.sim.estate import SETTINGS, again, way_home
from orchestrator.sim.harness import TURN_OF_SETTINGS, Night, Trace, night
from orchestrator.sim.judge import judge
from orchestrator.stores.memory import MemoryStore

GOES_HOME = 3  # every third night that ends abroad


@dataclass(frozen=True, slots=True)
class Verdict:
    """``broken``: invariants that did not hold, each text beginning with its name. ``head``: the log's
    last hash, equal for equal seeds. ``outcome``: how the first run ended, then any that followed it."""

    seed: int
    setting: str
    outcome: str
    broken: tuple[str, ...]
    head: str
    drivers: int
    events: int
    reached: Reached


def simulate(seed: int, folder: Path | None = None, setting: str = "", trace: Trace | None = None) -> Verdict:
    """Run one seed and judge the world that it leaves behind."""
    what = night(seed, folder or _locks(), setting, trace)
    try:
        run = what.go()
        judge(what.world, run, what.journal(of_driver=False).groups())
        if not what.world.broken and not run.leave_closed:
            _afterwards(what, run)
    except NothingGoesOn:
        what.world.blame("always-ends", why_stuck(what))
    except InvariantBroken as broken:
        what.world.blame(str(broken).split(": ")[1] if ": " in str(broken) else "bug", str(broken))
    except ContinuityError as error:
        what.world.blame("no-other-error", f"{type(error).__name__}: {error}")
    return _verdict(what)


def _afterwards(what: Night, run: Run) -> None:
    """A run that was taken back leaves an estate on which the same can be ordered anew, and ends well; and
    from abroad there is a way home."""
    groups = what.journal(of_driver=False).groups()
    try:
        if run.state is not RunState.DONE:
            if not _has_come_through(what):
                _must_end_well(what, what.run_next(again(what.setting, groups)))
        elif run.plan.target == "embassy" and what.seed // len(TURN_OF_SETTINGS) % GOES_HOME == 0:
            _must_end_well(what, what.run_next(way_home(groups)))
    except RefusedError as refused:
        what.world.blame("can-be-begun-again", f"after {what.setting} ended {run.state}: {refused}")


def _has_come_through(what: Night) -> bool:
    """Is every group where the operation wanted it, although the run was aborted at its very end?"""
    moves = SETTINGS[what.setting].operation is not Operation.REPROTECT
    return all(
        (state.active == what.plan.target and not state.left) if moves else state.protection == "protected"
        for state in what.journal(of_driver=False).groups().values()
    )


def _must_end_well(what: Night, run: Run) -> None:
    if run.state is not RunState.DONE:
        what.world.blame("can-be-begun-again", f"the {run.plan.operation} that followed ended {run.state}")
    judge(what.world, run, what.journal(of_driver=False).groups())


_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []


def _locks() -> Path:
    """One folder for the drivers' locks of this process."""
    if not _FOLDERS:
        _FOLDERS.append(tempfile.TemporaryDirectory(prefix="continuity-sim-"))
    return Path(_FOLDERS[0].name)


def why_stuck(what: Night) -> str:
    if what.people is None:
        return "nothing goes on"
    run = what.people.journal.load(what.run_id).run
    left = [
        f"{step_id} {run.step(step_id).state}"
        for step_id, step in run.plan.steps.items()
        if not has_ended(step, run.step(step_id).state)
    ]
    causes = "; ".join(run.held_causes)
    return f"{run.state} after {what.people.turns} orders ({causes}); not ended: {', '.join(left) or 'none'}"


def _verdict(what: Night) -> Verdict:
    reached = Reached()
    count = 0
    for name in what.plan.groups:
        told_of_group = [record.event for record in what.store.read(GROUP + name)]
        since = max((n for n, e in enumerate(told_of_group) if isinstance(e, events.GroupAdopted)), default=0)
        for text in breaks_of(name, told_of_group[since:]):  # type: ignore[arg-type]
            what.world.blame(text.split(":")[0], text)
    for stream, plan in what.store.plans.items():
        history = [record.event for record in what.store.read(stream)]
        told = [event for event in history if not isinstance(event, events.GroupEvent)]
        count += len(told)
        if told:
            reached.rows.update(rows_of(plan, told))
    reached.faults.update(what.book.seen)
    reached.worlds.update(what.book.worlds)
    head = what.store.inner.head() if isinstance(what.store.inner, MemoryStore) else ""
    outcome = " then ".join(what.outcomes) or "stuck"
    broken = tuple(what.world.broken.values())
    return Verdict(what.seed, what.setting, outcome, broken, head, what.drivers, count, reached)
