"""Decides what a thousand services cost: reading their YAML, compiling one plan of all, folding its run."""

from __future__ import annotations

import functools
import gc
import time
from collections.abc import Callable
from pathlib import Path

from bench import estates
from bench.figures import Figure, Limit
from bench.histories import live_through
from orchestrator.bootstrap.catalog import catalog
from orchestrator.core.events import RunEvent
from orchestrator.core.fold import fold
from orchestrator.core.model import Operation
from orchestrator.core.plan import Plan
from orchestrator.engine.journal import without_collector
from orchestrator.planning.compile import compile_plan
from orchestrator.runbook.parse import Loaded, load_estate

SERVICES, SERVICES_SMALL = estates.LIKE_THE_ISSUE, estates.LIKE_THE_ISSUE // 10
SERVICES_QUICK, SERVICES_SMALL_QUICK = 30, 10
TIMES, TIMES_QUICK = 5, 1
COMPILE_SECONDS_MAX = 1.0
FOLD_RATIO_MAX = 12.0


def measure_compile(folder: Path, *, quick: bool) -> list[Figure]:
    """Reading, with the bare reader of the same files beside it; compiling from what was read."""
    services = SERVICES_QUICK if quick else SERVICES
    times = TIMES_QUICK if quick else TIMES
    path = estates.write(folder / "compile", services)
    actions = catalog()
    loads = [_timed(lambda: load_estate(path, catalog=actions)) for _ in range(times)]
    bare = [_timed(lambda: _read_bare(path)) for _ in range(times)]
    loaded = load_estate(path, catalog=actions)
    _compile(loaded, services)  # imports every action once
    plan = _compile(loaded, services)
    compiles = [_timed(lambda: _compile(loaded, services)) for _ in range(times)]
    what = f"{services} services"
    return [
        Figure(
            "compile", f"read and check {what} (YAML)", "s CPU", tuple(loads), "libyaml alone", tuple(bare)
        ),
        Figure(
            "compile",
            f"compile {what}, {len(plan.steps)} steps",
            "s CPU",
            tuple(compiles),
            limit=Limit() if quick else Limit(value_max=COMPILE_SECONDS_MAX),
        ),
    ]


def measure_fold(folder: Path, *, quick: bool) -> list[Figure]:
    """Fold of a whole run, beside that of a run a tenth as long: the price of one event must not grow."""
    sizes = (SERVICES_SMALL_QUICK, SERVICES_QUICK) if quick else (SERVICES_SMALL, SERVICES)
    times = TIMES_QUICK if quick else TIMES
    plans, lives = [], []
    for services in sizes:
        path = estates.write(folder / f"fold-{services}", services)
        plans.append(_compile(load_estate(path), services))
        lives.append(live_through(plans[-1]))
    small, big = (
        [_timed(functools.partial(_fold, plan, events)) for _ in range(times)]
        for plan, (_, events) in zip(plans, lives, strict=True)
    )
    if fold(plans[1], lives[1][1]) != lives[1][0]:
        raise AssertionError("the fold of a run's events is not the run that decided them")
    growth = len(plans[1].steps) / len(plans[0].steps)
    decided = _timed(lambda: live_through(plans[1]))
    return [
        Figure(
            "fold",
            f"fold {len(lives[1][1])} events of {len(plans[1].steps)} steps",
            "s CPU",
            tuple(big),
            f"fold of {len(plans[0].steps)} steps",
            tuple(small),
            Limit() if quick else Limit(ratio_max=FOLD_RATIO_MAX * growth / 10),
        ),
        Figure("fold", "decide the same run, one input a step", "s CPU", (decided,)),
    ]


def _fold(plan: Plan, events: list[RunEvent]) -> None:
    with without_collector():  # as the journal does
        fold(plan, events)


def _compile(loaded: Loaded, services: int) -> Plan:
    return compile_plan(
        loaded.estate,
        loaded.runbooks,
        Operation.FAILOVER,
        states=estates.states(services),
        catalog=catalog(),
    ).plan


def _read_bare(path: Path) -> None:
    import yaml

    reader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for file in (path, *sorted((path.parent / "runbooks").glob("*.yaml"))):
        yaml.load(file.read_text(encoding="utf-8"), reader)


def _timed(work: Callable[[], object]) -> float:
    """Seconds of this process's own CPU: one thread computes, and others may use the machine meanwhile."""
    gc.collect()
    started = time.process_time()
    work()
    return time.process_time() - started
