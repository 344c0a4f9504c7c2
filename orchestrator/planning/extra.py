"""Decides the steps that belong to no component: site fences, the grant of groups without a
database, the gate before going home, owners' own steps, and what "done" is asked of. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any

from orchestrator.core.claims import Witness
from orchestrator.core.model import DoneDns, DoneHttp, DoneWrites, Estate, OwnStep, Stage
from orchestrator.core.move import AUTHORISED, BEFORE_OPEN, ONCE, OPENS, STANDARD_RETRY, Move, Placed
from orchestrator.core.plan import Draft, Role, Undo
from orchestrator.core.templates import host_values, resolve_json
from orchestrator.core.values import Json
from orchestrator.errors import InputError
from orchestrator.planning.beside import fences_of_hosts

CLAIMS_MS = 3_000
EPOCH_MS = 5_000
PEOPLE_MS = 7 * 86_400_000
DONE_MS = 10_000
CHECK_MARGIN_MS = 2_000
WITNESS_ORDER = attrgetter("kind", "part", "subject")
_NOT_A_WORD = re.compile(r"[^\w.]+")


def _arguments(declared: Mapping[str, Json], values: Mapping[str, str]) -> dict[str, Json]:
    """A ``with`` block with every template resolved."""
    return {key: resolve_json(entry, values) for key, entry in declared.items()}


def fence_drafts(estate: Estate, move: Move, host: str) -> list[Draft]:
    """The estate's fences of the old site against one host, but those that components carry out."""
    values = host_values(estate.hosts[host])
    out: list[Draft] = []
    for fence in fences_of_hosts(estate, move.source):
        same = sum(1 for draft in out if draft.proves is fence.proves)
        arguments = _arguments(fence.with_, values) | {"proves": fence.proves.value}
        if fence.on:
            arguments["host"] = fence.on
        out.append(
            Draft(
                key=f"{fence.proves}-{host}" + (f"-{same + 1}" if same else ""),
                stage=Stage.FENCE,
                role=Role.FENCE,
                title=f"{fence.proves} of {host}",
                why="a second way to be sure, beside asking the database itself",
                action=fence.action,
                arguments=arguments,
                timeout_ms=estate.policies.fence_budget_ms,
                gates=AUTHORISED,
                retry=ONCE,
                fences=(host,),
                proves=fence.proves,
            )
        )
    return out


def claims_draft(move: Move, witnesses: Sequence[Witness]) -> Draft:
    """Group state comes from evidence, not from one machine's file (semantics 3.1)."""
    return Draft(
        key="claims",
        stage=Stage.PREFLIGHT,
        role=Role.EVIDENCE,
        title=f"compare every claim that stands beside what {move.group} switches with the log",
        why="a log that is old or lost must not decide who may write",
        action="continuity.claims",
        arguments={
            "group": move.group,
            "witnesses": [witness.arguments() for witness in sorted(witnesses, key=WITNESS_ORDER)],
            "target": move.target,
            "expect_site": move.holder,
            "expect_epoch": move.epoch_seen,
            **({"taken_back": list(move.taken_back)} if move.taken_back else {}),
        },
        timeout_ms=CLAIMS_MS,
        retry=STANDARD_RETRY,
    )


def grant_draft(move: Move) -> Draft:
    """A group without anything stateful is granted its epoch by the log."""
    return Draft(
        key="epoch",
        stage=Stage.PROMOTE,
        role=Role.EPOCH,
        title=f"grant epoch {move.epoch_next} of {move.group} to {move.target}",
        why="the right to serve is one number and one site, also where no database keeps it",
        action="continuity.epoch",
        arguments={"group": move.group, "site": move.target, "epoch": move.epoch_next},
        timeout_ms=EPOCH_MS,
        gates=AUTHORISED,
        retry=STANDARD_RETRY,
    )


def go_home_draft(group: str) -> Draft:
    """A question to people, not a point of no return: nothing has moved yet."""
    return Draft(
        key="go-home",
        stage=Stage.AUTHORISE,
        role=Role.ORDINARY,
        title=f"{group} is protected again: go home now?",
        why="catching up may take hours; people choose the moment of the switch",
        action="manual.confirm",
        arguments={"prompt": f"{group} is protected again: go home now?"},
        timeout_ms=PEOPLE_MS,
        gates=AUTHORISED,
        retry=ONCE,
        undo=Undo.NONE_NEEDED,
    )


NO_OWN_STEPS: Mapping[tuple[str, Stage], str] = {
    ("before", Stage.PREFLIGHT): "nothing acts before people have confirmed: `before: freeze`",
    ("after", Stage.PREFLIGHT): "preflight only looks, before people have confirmed: `before: freeze`",
    ("before", Stage.AUTHORISE): "nothing acts before people have confirmed: `before: freeze`",
    ("before", Stage.FENCE): "a fence waits for nobody: `after: drain`",
    ("after", Stage.FENCE): "nothing waits for one fence, a promotion asks for its proof: `before: promote`",
}
"""Where no step of an owner can stand, and what to write instead."""


def own_drafts(item: Placed) -> Iterator[tuple[OwnStep, Draft]]:
    """The owner's own steps; each states its time-out and its undo or point of no return."""
    for number, own in enumerate(item.runbook.steps, start=1):
        side, stage = ("before", own.before) if own.before else ("after", own.after)
        where = f"{item.runbook.name}: step {own.name}"
        if stage is None or (own.before and own.after):
            raise InputError(f"{where}: name one stage, `before` or `after` it")
        if (side, stage) in NO_OWN_STEPS:
            raise InputError(f"{where}: {side} {stage}: {NO_OWN_STEPS[side, stage]}")
        is_late = stage not in BEFORE_OPEN or (side, stage) == ("after", Stage.PROMOTE)
        yield (
            own,
            Draft(
                key=f"{number}-" + _NOT_A_WORD.sub("-", own.name.lower()).strip("-"),
                stage=stage,
                role=Role.ORDINARY,
                title=own.name,
                why=f"the owner's own step, {side} {stage}",
                action=own.action,
                arguments=item.json(own.with_),
                timeout_ms=own.timeout_ms,
                gates=OPENS if is_late else AUTHORISED,
                retry=STANDARD_RETRY if own.idempotent else ONCE,
                undo=Undo(own.undo),
            ),
        )


def done_drafts(item: Placed) -> list[Draft]:
    """What is asked from outside; nothing else counts as done (semantics 9.1)."""
    done = item.runbook.done_when
    out: list[Draft] = []
    for number, http in enumerate(done.http, start=1):
        out += _pages_answer(item, number, http)
    for number, asked in enumerate(done.dns, start=1):
        out += _names_answer(item, number, asked)
    for number, writes in enumerate(done.writes, start=1):
        out.append(_takes_writes(item, number, writes))
    for number, refuses in enumerate(done.refuses_writes, start=1):
        out += _refuses(item, number, item.text(refuses.at))
    return out


def _pages_answer(item: Placed, number: int, asked: DoneHttp) -> list[Draft]:
    url, servers = item.text(asked.url), _servers(item)
    return [
        _done(
            f"http-{number}-from-{site or 'here'}",
            f"{url} answers as it must, asked from {site or 'here'}",
            "http.check",
            {
                "url": url,
                "status": asked.status,
                "json": item.json(asked.json),
                "from_site": site,
                "resolve_at": list(servers),
                "within_ms": DONE_MS - CHECK_MARGIN_MS,
            },
        )
        for site in asked.from_ or ("",)
    ]


def _takes_writes(item: Placed, number: int, asked: DoneWrites) -> Draft:
    cluster, database = _database(item, asked.through)
    host = item.move.estate.clusters[cluster].members[item.move.target][0]
    arguments: dict[str, Json] = {
        "cluster": cluster, "host": host, "database": database, "within_ms": asked.within_ms,
    }  # fmt: skip
    title = f"{database} at {item.move.target} takes a write"
    done = _done(f"writes-{number}", title, "postgresql.canary", arguments)
    return replace(done, timeout_ms=max(DONE_MS, asked.within_ms + CHECK_MARGIN_MS))


def _done(
    key: str, title: str, action: str, arguments: Mapping[str, Json], *, best_effort: bool = False
) -> Draft:
    return Draft(
        key=key,
        stage=Stage.CHECK,
        role=Role.DONE,
        title=title,
        why="done means that it serves, asked from outside, with the expected data",
        action=action,
        arguments=arguments,
        timeout_ms=DONE_MS,
        gates=OPENS,
        best_effort=best_effort,
        retry=STANDARD_RETRY,
    )


def _names_answer(item: Placed, number: int, asked: DoneDns) -> list[Draft]:
    servers = [s.name for s in item.move.estate.name_servers.values() if s.site == item.move.target]
    return [
        _done(
            f"dns-{number}-from-{site or 'here'}",
            f"{', '.join(servers)} answer for {asked.name} {asked.type}, asked from {site or 'here'}",
            "dns.query-check",
            {
                "name": asked.name,
                "type": asked.type,
                "expect": " ".join(asked.expect),
                "servers": list(servers),
                "from_site": site,
                "within_ms": DONE_MS - CHECK_MARGIN_MS,
            },
        )
        for site in asked.from_ or ("",)
    ]


def _refuses(item: Placed, number: int, site: str) -> list[Draft]:
    out = []
    for component in item.runbook.components.values():
        cluster, database = getattr(component, "cluster", ""), getattr(component, "database", "")
        if not cluster:
            continue
        for host in item.move.estate.clusters[cluster].members.get(site, ()):
            draft = _done(
                f"refuses-{number}-{host}",
                f"{database} at {host}, the old side, refuses a write",
                "postgresql.refuses",
                {"cluster": cluster, "host": host, "database": database},
                best_effort=True,
            )
            out.append(draft)
    return out


def _database(item: Placed, component: str) -> tuple[str, str]:
    found: Any = item.runbook.components.get(component)
    if found is None or not hasattr(found, "database"):
        raise InputError(f"{item.runbook.name}: done-when: writes through {component}, which is no database")
    return found.cluster, found.database


def _servers(item: Placed) -> list[str]:
    """The target's name servers, which must answer; those of the side that is left may be gone."""
    servers = item.move.estate.name_servers
    return sorted(name for name in servers if servers[name].site == item.move.target)
