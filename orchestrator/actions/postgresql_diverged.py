"""Decides what is said of the history that an old side took with it when it was brought back: ``postgresql.list-diverged``.

What was kept of it is read on a copy, compared by table and key with the side that writes now, and listed beside
what is kept. It changes nothing that is served or kept; where it cannot be done, that is said and stays owed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from orchestrator.core.outcomes import Failed, Finding, FindingKind, Outcome, Succeeded
from orchestrator.core.plan import Parts, Undo
from orchestrator.core.values import ClusterRef, HostRef, Json
from orchestrator.drivers import (
    postgresql,
    postgresql_copy,
    postgresql_copy_host,
    postgresql_divergence,
    postgresql_host,
    postgresql_rejoin,
    postgresql_server,
    postgresql_upstream,
)
from orchestrator.drivers.postgresql_copy import Stopped
from orchestrator.drivers.postgresql_divergence import Place, Tally
from orchestrator.drivers.postgresql_history import Standing, standing
from orchestrator.drivers.postgresql_member import Member, member
from orchestrator.errors import PermanentError, TransientError
from orchestrator.ports import Context, Description

LIST, SUMMARY = "diverged.jsonl", "diverged.json"
LINES_AT_ONCE = 500
RUN = "${run}"  # stands for the run's id where people see what is done


@dataclass(frozen=True, slots=True)
class ListParams:
    """``host``: the one that ``rejoin`` brought back, a step of the same unit; ``source``: the other one."""

    cluster: ClusterRef
    host: HostRef
    source: HostRef
    databases: tuple[str, ...]
    rejoin: str


class ListDiverged:
    """Read what was kept of the old history on a copy, and list what the active side has not."""

    kind: ClassVar[str] = "postgresql.list-diverged"
    version: ClassVar[int] = 1
    params: ClassVar[type[Any]] = ListParams
    idempotent: ClassVar[bool] = True
    mutates: ClassVar[bool] = True

    def describe(self, params: ListParams, parts: Parts) -> Description:
        follower, source = _sides(params, parts)
        kept = postgresql_rejoin.places(follower, RUN)
        stopped = Stopped(follower, kept.kept_data, f"{kept.kept}/outside")
        told = [
            *postgresql_copy.texts(stopped)[:3],
            *(
                f"compare {database} by table and key with the side that writes"
                for database in params.databases
            ),
            f"{follower.host.name}: write {kept.kept}/{LIST}",
            postgresql_copy.texts(stopped)[-1],
        ]
        return Description(tuple(told), (*follower.touches, source.touch), Undo.NONE_NEEDED)

    def load(self, context: Context[ListParams]) -> None:
        """It runs when all is served; nothing is kept ready for it."""

    def check(self, context: Context[ListParams]) -> Finding:
        """A copy that an interrupted attempt left is of no use to anybody: the next one ends and removes it."""

        def work() -> Finding:
            follower, _ = _sides(context.params, context.parts)
            kept = _kept(context)
            if not kept:
                return Finding(FindingKind.DONE, "", _nothing("nothing was left behind"))
            path = f"{_folder(kept)}/{SUMMARY}"
            text = postgresql_server.call(context, follower, postgresql_host.read_file, {"path": path})[
                "text"
            ]
            if text:
                return Finding(FindingKind.DONE, "", json.loads(text))
            return Finding(FindingKind.NOT_DONE, f"{path} is not there")

        return postgresql.found(work)

    def execute(self, context: Context[ListParams]) -> Outcome:
        import psycopg

        try:
            return Succeeded(_list(context))
        except TransientError as error:
            return Failed(f"not listed: {error}", retryable=True)
        except (PermanentError, TimeoutError, psycopg.Error) as error:
            return Failed(f"not listed: {postgresql.error_text(error)}; all of it is kept: {_kept(context)}")

    def undo(self, context: Context[ListParams]) -> Outcome:
        return Succeeded()


def _list(context: Context[ListParams]) -> Mapping[str, Json]:
    kept = _kept(context)
    if not kept:
        return _nothing("nothing was left behind")
    follower, _ = _sides(context.params, context.parts)
    active = _active(context)
    control = postgresql_rejoin.control_of(context, follower, kept)
    with postgresql.lease(context, active) as session:
        history = postgresql_upstream.history(session, active.host.name)
    judged, reason = standing(control, history)
    if judged is not Standing.DIVERGED:
        return _nothing(reason)
    tally = Tally()
    with postgresql_copy.reading(context, _stopped(context, kept)) as ask, _file(context, kept) as write:
        for database in context.params.databases:
            place = Place(follower.cluster.name, database, follower.host.site, active.host.site)
            with postgresql.lease(context, active, database) as kept_side, ask(database) as lost:
                postgresql_divergence.compare(lost, kept_side, place, (), tally, write)
    evidence: dict[str, Json] = {
        "how": "listed",
        "because": f"{tally.rows} rows by table and key in {_folder(kept)}/{LIST}{_not_compared(tally)}",
        "kept": kept,
        "rows": tally.rows,
        "tables": tally.tables,
        "list": f"{_folder(kept)}/{LIST}",
        "diverged": tally.named,
    }
    files: dict[str, Json] = {f"{_folder(kept)}/{SUMMARY}": json.dumps(evidence) + "\n"}
    postgresql_server.call(context, follower, postgresql_host.write_files, {"files": files})
    return evidence


def _not_compared(tally: Tally) -> str:
    """A list that is not whole says so: rows without a key cannot be told apart."""
    left = [
        place for place, found in tally.tables.items() if isinstance(found, Mapping) and not found["compared"]
    ]
    return f"; without a primary key, so not compared: {', '.join(left)}" if left else ""


@contextmanager
def _file(context: Context[ListParams], kept: str) -> Iterator[Callable[[str], None]]:
    """The list on the host: readable by its owner only, written in portions."""
    follower, _ = _sides(context.params, context.parts)
    waiting: list[str] = []
    is_first = True

    def flush() -> None:
        nonlocal is_first
        arguments: dict[str, Json] = {
            "path": f"{_folder(kept)}/{LIST}", "text": "".join(waiting), "begin": is_first,
        }  # fmt: skip
        postgresql_server.call(context, follower, postgresql_copy_host.append_lines, arguments)
        is_first = False
        waiting.clear()

    def write(line: str) -> None:
        waiting.append(line)
        if len(waiting) >= LINES_AT_ONCE:
            flush()

    context.record(f"{follower.host.name}: write {_folder(kept)}/{LIST}")
    yield write
    flush()


def _sides(params: ListParams, parts: Parts) -> tuple[Member, Member]:
    return member(parts, params.cluster, params.host), member(parts, params.cluster, params.source)


def _active(context: Context[ListParams]) -> Member:
    """The side that writes now: the move may be over when this is done. TransientError when there is none."""
    problem: TransientError | None = None
    for at in reversed(_sides(context.params, context.parts)):
        try:
            with postgresql.lease(context, at) as session:
                if not postgresql.value(session, "SELECT pg_is_in_recovery()"):
                    return at
        except TransientError as error:
            problem = error
    raise problem or TransientError(f"no member of {context.params.cluster} takes writes")


def _stopped(context: Context[ListParams], kept: str) -> Stopped:
    follower, _ = _sides(context.params, context.parts)
    return Stopped(follower, kept, f"{_folder(kept)}/outside")


def _kept(context: Context[ListParams]) -> str:
    """Where the rejoin has kept the old data directory; "" where there was nothing to keep."""
    return str(context.evidence.get(context.params.rejoin, {}).get("kept") or "")


def _folder(kept: str) -> str:
    return kept.rpartition("/")[0]


def _nothing(reason: str) -> dict[str, Json]:
    return {"how": "", "because": reason, "kept": "", "rows": 0, "diverged": []}
