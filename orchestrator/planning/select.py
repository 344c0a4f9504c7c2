"""Decides which groups an operation moves, from where to where; refuses what cannot be, all at once,
and names what is allowed. Direction follows from the groups' states, never from the runbook.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.core.groups import GroupState, adopt_command, label, resolve_command
from orchestrator.core.model import Estate, Operation, Runbook
from orchestrator.core.move import Move
from orchestrator.core.transitions import REFUSED_OPERATIONS
from orchestrator.core.values import with_article
from orchestrator.errors import InputError, RefusedError
from orchestrator.planning.beside import beside

HOLDS_SERVICES = ("home", "embassy")


@dataclass(frozen=True, slots=True)
class Selection:
    """Moves by group, and what people should know about the choice. ``stops``: what the fences stop although it
    stays, one of the notes each."""

    moves: Mapping[str, Move]
    notes: tuple[str, ...]
    stops: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    operation: Operation
    target: str | None
    services: Sequence[str]
    leave: Mapping[str, str]
    rejoin: str = "rewind"


def membership(estate: Estate, runbooks: Mapping[str, Runbook]) -> dict[str, str]:
    """Service → the group it moves with; one that no group names is a group of its own."""
    named = {service: name for name, group in estate.groups.items() for service in group.services}
    return {service: named.get(service, service) for service in runbooks}


def select(
    estate: Estate, runbooks: Mapping[str, Runbook], states: Mapping[str, GroupState], asked: Asked
) -> Selection:
    """The groups to move. Raises RefusedError with every reason, InputError for unknown names."""
    if asked.operation is Operation.DRILL:
        raise RefusedError(f"drill: {REFUSED_OPERATIONS['drill']}", ("continuity lab demo",))
    _known(estate, runbooks, asked)
    group_of = membership(estate, runbooks)
    members: dict[str, list[str]] = {}
    for name in runbooks:
        members.setdefault(group_of[name], []).append(name)
    wanted, notes = _wanted(members, group_of, asked)
    moves: dict[str, Move] = {}
    refusals: list[_No] = []
    for group in wanted:
        move = _move(estate, asked, states.get(group, GroupState(group)))
        if isinstance(move, Move):
            moves[group] = move
        elif asked.services or not move.is_already:
            refusals.append(move)
        else:
            notes.append(move.text)
    if refusals:
        raise RefusedError("; ".join(no.text for no in refusals), _instead(refusals, members))
    if not moves:
        raise RefusedError(f"nothing to do: {'; '.join(notes) or 'no group'}", ("continuity status",))
    if len({(move.source, move.target) for move in moves.values()}) > 1:
        ways = ", ".join(f"{g}: {m.source} → {m.target}" for g, m in moves.items())
        raise RefusedError(f"one run moves one way; name services with --service: {ways}")
    at = {service: states.get(group, GroupState(group)).active for service, group in group_of.items()}
    behind = _dependencies(
        runbooks, at, next(iter(moves.values())), {s for g in moves for s in members[g]}, asked
    )
    stops = []
    for each in beside(estate, runbooks, at, members, moves):
        if set(each.services) <= set(asked.leave):
            stops.append(each.note(asked.leave))
        else:
            behind.refuse(each.refusal(), each.services, asked)
    behind.must_be_wanted()
    return Selection(moves, (*notes, *behind.notes, *stops), tuple(stops))


def _wanted(
    members: Mapping[str, Sequence[str]], group_of: Mapping[str, str], asked: Asked
) -> tuple[list[str], list[str]]:
    """The groups that are meant, whole, and what to say about it. Without --service: all but those left."""
    named = set(asked.services)
    if named:
        wanted = {group_of[name] for name in named}
    else:
        wanted = {group for group, names in members.items() if not set(names) <= set(asked.leave)}
    torn = [name for name in asked.leave if group_of[name] in wanted]
    if torn:
        group = group_of[torn[0]]
        together = ", ".join(members[group])
        raise RefusedError(
            f"--leave {torn[0]}: its group {group} moves, and a group moves together: {together}",
            tuple(f"--leave {name}=REASON" for name in members[group]),
        )
    notes = [
        f"{name} moves with its group {group}: {', '.join(members[group])}"
        for name in asked.services
        if len(members[group := group_of[name]]) > 1
    ]
    return [group for group in members if group in wanted], notes


@dataclass(slots=True)
class _Behind:
    """What would stay behind, or without what it needs: refused, unless people have left it by name."""

    notes: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    services: set[str] = field(default_factory=set)  # what may move, too
    unnamed: set[str] = field(default_factory=set)  # what may be left, and is not yet

    def refuse(self, text: str, services: Collection[str], asked: Asked) -> None:
        self.refused.append(text)
        self.services.update(services)
        self.unnamed.update(name for name in services if name not in asked.leave)

    def must_be_wanted(self) -> None:
        """RefusedError with every reason, and what would do."""
        if self.refused:
            raise RefusedError(
                "; ".join(self.refused),
                (
                    *(f"--service {name}" for name in sorted(self.services)),
                    *(f"--leave {name}=REASON" for name in sorted(self.unnamed)),
                ),
            )


@dataclass(frozen=True, slots=True)
class _No:
    text: str
    is_already: bool = False  # the group needs nothing: no refusal unless it was named
    instead: str = ""  # the command that helps
    unseen: str = ""  # the group that this log has never seen


def _known(estate: Estate, runbooks: Mapping[str, Runbook], asked: Asked) -> None:
    unknown = [name for name in (*asked.services, *asked.leave) if name not in runbooks]
    if unknown:
        raise InputError(f"no service {', '.join(unknown)}; there are: {', '.join(runbooks)}")
    if asked.target is not None and asked.target not in estate.sites:
        raise InputError(f"--to {asked.target}: no such site; sites: {', '.join(estate.sites)}")


def _instead(refusals: Sequence[_No], groups: Collection[str]) -> tuple[str, ...]:
    """What helps each of them, as it is typed; groups that the log never saw are adopted together."""
    unseen = [no.unseen for no in refusals if no.unseen]
    which = "--all" if len(unseen) == len(groups) else " ".join(unseen)
    adopt = [f"continuity adopt {which} --by NAME"] if unseen else []
    others = [no.instead for no in refusals if no.instead]
    return tuple(dict.fromkeys([*adopt, *others])) or ("continuity status",)


def _move(estate: Estate, asked: Asked, state: GroupState) -> Move | _No:
    if not state.adopted:
        return _No(f"{state.name}: this log has never seen the group", unseen=state.name)
    if state.conflict:
        return _No(
            f"{state.name} is split_brain: people decide first whose history stands",
            instead=resolve_command(state.name),
        )
    target = _target(estate, asked, state)
    if isinstance(target, _No):
        return target
    source = state.active
    match asked.operation:
        case Operation.FAILOVER:
            return _failover(estate, asked, state, target)
        case Operation.SWITCHOVER:
            if source == target:
                return _No(f"{state.name} is active at {target} already", is_already=True)
            if state.protection != "protected":
                return _No(
                    f"{state.name} is {label(state)}: a planned move needs it protected",
                    instead="continuity reprotect",
                )
            return _made(estate, asked, state, target, is_planned=True, reprotects=False, moves=True)
        case Operation.FAILBACK:
            if source == target:
                return _No(f"{state.name} is at home already", is_already=True)
            reprotects = state.protection != "protected"
            return _made(estate, asked, state, target, is_planned=True, reprotects=reprotects, moves=True)
        case _:
            if state.protection == "protected":
                return _No(f"{state.name} is protected already", is_already=True)
            return _made(estate, asked, state, target, is_planned=True, reprotects=True, moves=False)


def _failover(estate: Estate, asked: Asked, state: GroupState, target: str) -> Move | _No:
    if state.active == target and state.left:
        return _made(
            estate, asked, state, target, is_planned=False, reprotects=False, moves=True, stands=True
        )
    if state.active == target:
        return _No(f"{state.name} is active at {target} already", is_already=True)
    if not state.active:
        return _No(
            f"{state.name} has no active site: the evidence says who writes",
            instead=f"continuity status {state.claim}" if state.claim else adopt_command(state.name),
        )
    return _made(estate, asked, state, target, is_planned=False, reprotects=False, moves=True)


def _made(
    estate: Estate,
    asked: Asked,
    state: GroupState,
    target: str,
    *,
    is_planned: bool,
    reprotects: bool,
    moves: bool,
    stands: bool = False,
) -> Move:
    source = state.left if stands else state.active
    return Move(
        asked.operation, estate, state.name, source, target, state.epoch,
        max(state.epoch, state.reserved) + 1 if moves else state.epoch, is_planned, reprotects, moves,
        state.taken_back, rejoin=asked.rejoin, is_resolved=state.is_resolved,
        stands=stands,
    )  # fmt: skip


def _target(estate: Estate, asked: Asked, state: GroupState) -> str | _No:
    places = [site.name for site in estate.sites.values() if site.role in HOLDS_SERVICES]
    if asked.operation is Operation.FAILBACK:
        home = [site.name for site in estate.sites.values() if site.role == "home"]
        if asked.target not in (None, *home):
            return _No(
                f"{state.name}: failback goes to {home[0]}",
                instead=f"continuity switchover --to {asked.target}",
            )
        return home[0] if home else _No("this estate declares no home site")
    if asked.target is not None:
        if asked.target not in places:
            return _No(
                f"{asked.target} holds no services: it is {with_article(estate.sites[asked.target].role)}"
            )
        return asked.target
    others = [place for place in places if place != state.active]
    if asked.operation is Operation.FAILOVER and estate.sites.get(state.active) is not None:
        embassies = [p for p in others if estate.sites[p].role == "embassy"]
        if estate.sites[state.active].role == "embassy" and not embassies:
            return state.active
        others = embassies or others
    if len(others) != 1:
        return _No(f"{state.name}: several sites could be meant; name one with --to: {', '.join(others)}")
    return others[0]


def _dependencies(
    runbooks: Mapping[str, Runbook], at: Mapping[str, str], move: Move, moving: set[str], asked: Asked
) -> _Behind:
    """Needs that stay elsewhere and dependents that stay behind are refused, or go on the record.

    ``at``: service → the site where it is served now.
    """
    behind = _Behind()
    if not move.moves:
        return behind
    for name, runbook in runbooks.items():
        for need in runbook.depends_on:
            if need in runbook.reachable_from:
                continue
            if name in moving and need not in moving and at.get(need) != move.target:
                text, stays = f"{name} needs {need}, which is not at {move.target}", need
            elif name not in moving and need in moving and at[name] != move.target:
                text, stays = f"{name} stays behind and needs {need}", name
            else:
                continue
            if stays in asked.leave:
                behind.notes.append(f"{text}: {asked.leave[stays]}")
            else:
                behind.refuse(text, (stays,), asked)
    return behind
