"""Logs of whole runs, kept for ever: what a version wrote, every later one must still replay to the same end.

``NAME.jsonl`` holds the rows of the log as they lie in the store, ``NAME.plan.json`` the plan beside it,
``NAME.end.json`` what the run and its groups were in the end. They are written once and never again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from orchestrator.core.decision import Decision, claims
from orchestrator.core.events import GroupAdopted, GroupEvent, RunEvent
from orchestrator.core.groups import GroupState, fold_group
from orchestrator.core.inputs import Input
from orchestrator.core.log import Append
from orchestrator.core.run import Run
from orchestrator.planning.codec import plan_to_json
from orchestrator.stores.sqlite import SqliteStore
from tests.builders import at
from tests.story import Story
from tests.transcript import PLANS, Teller

COLUMNS = ("seq", "stream", "stream_seq", "kind", "at", "body", "schema", "prev", "hash")


class Logged(Story):
    """A story whose every decision lies in a real log, one transaction each."""

    def begin(self, path: Path) -> None:
        self.store = SqliteStore(path)
        self._last: dict[str, int] = {}
        for name, move in self.plan.groups.items():
            adopted = GroupAdopted(at(0), name, move.active, move.epoch_seen, "protected", "ann")
            self._append({f"group:{name}": [adopted]})
        streams: dict[str, list[Any]] = {f"run:{self.run.id}": [self.run.created]}
        self._append(streams | {f"group:{claim.group}": [claim] for claim in claims(self.run)})

    def tell(self, given: Input) -> Decision:
        decision = super().tell(given)
        streams: dict[str, list[Any]] = {}
        for event in decision.events:
            streams.setdefault(f"run:{self.run.id}", []).append(event)
        for group in decision.groups:
            streams.setdefault(f"group:{group.group}", []).append(group)
        self._append(streams)
        return decision

    def _append(self, streams: Mapping[str, list[Any]]) -> None:
        appends = [Append(name, self._last.get(name, 0), tuple(new)) for name, new in streams.items()]
        if appends:
            self.store.append(appends)
        for append in appends:
            self._last[append.stream] = append.expected + len(append.events)


def write(name: str, transcript: str, folder: Path, log: Path) -> None:
    """Tell a story and keep its log in ``folder``. Refuses to write over one that is there."""
    kept = folder / f"{name}.jsonl"
    if kept.exists():
        raise FileExistsError(f"{kept.name} is kept for ever; a new version writes into a folder of its own")
    lines = [line for line in transcript.splitlines() if line and line[0] not in "# "]
    story = Logged(PLANS[lines[0].split()[1]](), folds_whole=False)
    story.begin(log)
    teller = Teller(story)
    for line in lines[1:]:
        list(teller.tell(line.split()))
    story.store.close()
    folder.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(log) as database:
        rows = database.execute(f"SELECT {', '.join(COLUMNS)} FROM events ORDER BY seq").fetchall()
    kept.write_text("".join(json.dumps(dict(zip(COLUMNS, row, strict=True))) + "\n" for row in rows))
    (folder / f"{name}.plan.json").write_text(json.dumps(plan_to_json(story.plan)) + "\n")
    (folder / f"{name}.end.json").write_text(json.dumps(end_of(story.run, story.states)) + "\n")


def end_of(run: Run, groups: Mapping[str, GroupState]) -> dict[str, Any]:
    """What a run and its groups are, as far as anybody may ask later."""
    return {
        "state": str(run.state),
        "steps": {step: str(run.step(step).state) for step in run.plan.steps},
        "attempts": {step: run.step(step).attempt for step in run.plan.steps},
        "losses": {
            unit: [loss.milliseconds, loss.bytes, loss.rows_bound] for unit, loss in run.losses.items()
        },
        "accepted_loss_ms": run.accepted_loss_ms,
        "lost_sites": sorted(run.lost_sites),
        "drivers": run.drivers,
        "authorised_by": run.authorised_by,
        "debts": list(run.debts),
        "exposures": list(run.exposures),
        "leave_closed": run.leave_closed,
        "groups": {name: [g.active, g.epoch, g.protection, g.claim] for name, g in sorted(groups.items())},
    }


def groups_of(streams: Mapping[str, list[GroupEvent | RunEvent]]) -> dict[str, GroupState]:
    """The groups that a log's streams make."""
    return {
        name.removeprefix("group:"): fold_group(name.removeprefix("group:"), cast("Any", history))
        for name, history in streams.items()
        if name.startswith("group:")
    }
