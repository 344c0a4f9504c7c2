"""One operation as the command runs it, with a note of when each action began.

    python -m bench.ours failover|reprotect|switchover LAB-FOLDER

A process of its own. It calls what ``continuity OPERATION --yes --output json`` calls; the one difference is a
catalog that notes when each action's work begins. What lies between the result that let a step start and the
beginning of its work is continuity's own: fold, decide, append, hand over. Prints one JSON object as the last line.
"""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import Any

from orchestrator.actions import ACTIONS
from orchestrator.bootstrap.app import App
from orchestrator.bootstrap.operations import Wish, plan_operation
from orchestrator.cli._conduct import Flags
from orchestrator.cli._output import Output
from orchestrator.cli._progress import Progress
from orchestrator.cli.operate import set_out
from orchestrator.core.events import RunEvent
from orchestrator.core.model import Operation
from orchestrator.core.outcomes import Outcome
from orchestrator.core.plan import Plan, Role
from orchestrator.engine.journal import RUN
from orchestrator.engine.observe import Aside
from orchestrator.lab import layout
from orchestrator.planning.bind import TableCatalog
from orchestrator.ports import Context
from orchestrator.settings import locate

SERVICE = "population-register"


class Watched:
    """An action whose ``execute`` is noted; everything else is the action's own."""

    def __init__(self, action: Any, begun: dict[str, int]) -> None:
        self._action = action
        self._begun = begun

    def __getattr__(self, name: str) -> Any:
        return getattr(self._action, name)

    def execute(self, context: Context[Any]) -> Outcome:
        self._begun[context.step] = time.monotonic_ns()
        outcome: Outcome = self._action.execute(context)
        return outcome


class WatchedCatalog(TableCatalog):
    """The actions of this program, each noted when it begins."""

    def __init__(self) -> None:
        super().__init__(ACTIONS)
        self.begun: dict[str, int] = {}
        self._watched: dict[str, Any] = {}

    def action(self, kind: str) -> Any:
        if kind not in self._watched:
            self._watched[kind] = Watched(super().action(kind), self.begun)
        return self._watched[kind]


def main(operation: str, folder: str) -> int:
    lab = layout.load(folder)
    catalog = WatchedCatalog()
    app = App(locate(str(lab.estate)), _catalog=catalog)
    plan, _ = plan_operation(app, Wish(Operation(operation)))
    aside = Aside(Progress())
    app.listeners.append(aside)
    before = set(app.journal.runs())
    with redirect_stdout(io.StringIO()):
        code = set_out(app, plan, Flags("bench", True, None, True, Output.JSON), "bench")  # noqa: FBT003
    aside.close()
    (run,) = set(app.journal.runs()) - before
    history = [record.event for record in app.journal.store.read(RUN + run)]
    print(json.dumps(phases(plan, history, catalog.begun)))
    return code


def phases(plan: Plan, history: list[Any], begun: Mapping[str, int]) -> dict[str, int]:
    """When what was reached, in nanoseconds of CLOCK_MONOTONIC; ``own`` and ``inputs`` of the way to the
    register's first write: nanoseconds between actions, and how many results were waited for."""
    found: dict[str, int] = {}
    names = {
        Role.FENCE: "fenced", Role.CLOSE: "closed", Role.PROMOTE: "promoted", Role.EPOCH: "epoch",
        Role.OPEN: "opened", Role.PROTECT: "protected",
    }  # fmt: skip
    last = ""
    for event in history:
        if event.KIND == "run.authorised":
            found["order"] = event.at.mono_ns
        elif event.KIND == "run.finished":
            found["done"] = event.at.mono_ns
        elif event.KIND == "step.succeeded":
            step = plan.steps[event.step]
            if step.role is Role.FENCE or (step.role in names and step.unit in plan.parts.clusters):
                found.setdefault(names[step.role], event.at.mono_ns)
            if step.role is Role.ROUTE and step.service == SERVICE and step.up:
                found["routed"], last = event.at.mono_ns, step.id
    return {**found, **_own(history, begun, last)} if last else found


def _own(history: list[RunEvent], begun: Mapping[str, int], last: str) -> dict[str, int]:
    """Walk back from ``last`` to the order: each step was started by the input whose moment it carries."""
    started = {e.step: e.at.mono_ns for e in history if e.KIND == "step.started"}  # type: ignore[union-attr]
    ended = {e.at.mono_ns: e.step for e in history if e.KIND == "step.succeeded"}  # type: ignore[union-attr]
    own = inputs = 0
    step: str | None = last
    while step is not None and step in started:
        own += begun[step] - started[step]
        inputs += 1
        step = ended.get(started[step])
    return {"own": own, "inputs": inputs}


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
