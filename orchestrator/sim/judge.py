"""Decides, when a run is over, whether the world is as the run's end promises; must never take the
run's word for anything but what it promised (its outcome, its stated loss, its listed debts).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from orchestrator.core.groups import GroupState
from orchestrator.core.model import Operation, ProofKind
from orchestrator.core.plan import GroupMove, Role
from orchestrator.core.run import Run
from orchestrator.core.states import RunState, StepState
from orchestrator.sim.servers import Cluster, Promotion, Server
from orchestrator.sim.world import MILLISECOND_NS, UTC_START_NS, Claim, Documents, World

BY_WORD = frozenset({StepState.SKIPPED, StepState.MARKED})


def judge(world: World, run: Run, groups: Mapping[str, GroupState]) -> None:
    """Blame the world for whatever differs from what the run's end means."""
    for name, move in run.plan.groups.items():
        state = groups[name]
        if state.claim:
            world.blame("journal-equals-world", f"{name} is still claimed by {state.claim}")
        for unit in move.units:
            cluster = world.clusters.get(unit)
            if cluster is not None:
                _judge_cluster(world, run, move, cluster, state)
        if run.state is RunState.DONE:
            _judge_done(world, run, move, state)
        elif run.state is RunState.ABORTED and not run.leave_closed:
            _judge_taken_back(world, run, move)
        _judge_claims(world, run, move, state)
    _judge_losses(world, run)
    if run.state is RunState.DONE and run.plan.operation is not Operation.REPROTECT:
        _judge_traffic(world, run)


def moves(run: Run) -> bool:
    return run.plan.operation is not Operation.REPROTECT


# --- databases --------------------------------------------------------------------------------


def _judge_cluster(world: World, run: Run, move: GroupMove, cluster: Cluster, state: GroupState) -> None:
    if run.leave_closed and run.state is not RunState.DONE:
        return
    holder = cluster.servers[cluster.holder]
    writer = holder.writer()
    if (state.active, state.epoch) != (writer.site, writer.epoch):
        told = f"{state.active or 'nobody'} at epoch {state.epoch}"
        world.blame(
            "journal-equals-world",
            f"{cluster.name}: the journal says {told}, its writer says {writer.site} at {writer.epoch}",
        )
    if holder.site != writer.site:
        world.blame("journal-equals-world", f"{cluster.name} is written at {holder.site}, not {writer.site}")
    if state.protection == "protected":
        followers = [
            s for s in cluster.servers.values() if s.upstream == holder.host and s.site != holder.site
        ]
        if not followers:
            world.blame("protected-means-followed", f"{cluster.name}: nobody follows {holder.host}")


def _judge_taken_back(world: World, run: Run, move: GroupMove) -> None:
    """An aborted run leaves the old side as the one that writes, unless people left it closed."""
    for unit in move.units:
        cluster = world.clusters.get(unit)
        if cluster is None:
            continue
        holder = cluster.servers[cluster.holder]
        if holder.site != move.active:
            world.blame("aborted-means-one-writer", f"{unit} moved to {holder.site} in an aborted run")
        elif _is_kept_from_writing(world, holder):
            world.blame("aborted-means-one-writer", f"{holder.host} was left unable to write by this run")
    for host, here in _documents(world, run, move):
        is_active = world.site_of(host) == move.active
        if here.mode == "full" and not is_active and here.claim.epoch < move.epoch_seen:
            continue  # it came back by itself, and this run ended before it came to closing it
        if moves(run) and (here.mode == "full") != is_active and not _has_moved(run, move):
            world.blame(
                "aborted-means-one-writer", f"the documents on {host} were left {here.mode or 'unseen'}"
            )


def _has_moved(run: Run, move: GroupMove) -> bool:
    """Did all of this group end as planned, so that the abort of others leaves it there?"""
    epochs = run.index.epochs.get(move.name, ())
    return bool(epochs) and all(run.step(step).state is StepState.SUCCEEDED for step in epochs)


def _is_kept_from_writing(world: World, server: Server) -> bool:
    machine = world.machines[server.host]
    by_run = (
        server.is_stopped_by_run or server.is_frozen_by_run or (machine.off_by_fence and not machine.is_on)
    )
    return by_run or not server.is_primary


def _judge_done(world: World, run: Run, move: GroupMove, state: GroupState) -> None:
    want = (run.plan.target, move.epoch_next) if moves(run) else (move.active, move.epoch_seen)
    if (state.active, state.epoch) != want:
        world.blame(
            "done-means-serving", f"{move.name}: done, but the journal says {state.active} {state.epoch}"
        )
    for unit in move.units:
        cluster = world.clusters.get(unit)
        if cluster is None:
            continue
        holder = cluster.servers[cluster.holder]
        if holder.site != want[0]:
            world.blame("done-means-serving", f"{unit}: done, but {holder.host} is the writer")
        elif holder.is_read_only or _is_kept_from_writing(world, holder):
            world.blame("done-means-serving", f"{unit}: done, but {holder.host} does not accept writes")
        if moves(run):
            for server in cluster.servers.values():
                _judge_old_member(world, run, cluster, server)
    for host, here in _documents(world, run, move):
        at_target = world.site_of(host) == run.plan.target
        if moves(run) and at_target and here.mode != "full":
            world.blame("done-means-serving", f"done, but the documents on {host} are {here.mode}")
        if moves(run) and at_target and here.replicates:
            world.blame("done-means-serving", f"done, but a replicator writes over what {host} publishes")


def _judge_old_member(world: World, run: Run, cluster: Cluster, server: Server) -> None:
    """The old side refuses, or the record names it."""
    if server.site == run.plan.target or not cluster.could_write(world, server):
        return
    fences = [
        run.plan.steps[step] for step in run.index.fences if run.step(step).state is StepState.SUCCEEDED
    ]
    proven = any(
        server.host in fence.fences and (fence.proves is not ProofKind.DEMOTED or fence.unit == cluster.name)
        for fence in fences
    )
    named = server.site in run.lost_sites or any(
        server.host in run.plan.steps[step].fences for step in run.exposures
    )
    if not world.has_returned(server.host) and (proven or not named):
        world.blame("done-means-the-old-side-refuses", f"{server.host} can write, and the record is silent")


def _documents(world: World, run: Run, move: GroupMove) -> Iterable[tuple[str, Documents]]:
    """The documents that this run publishes, by host."""
    steps = run.plan.steps.values()
    hosts = {
        str(s.action.arguments["host"]): None
        for s in steps
        if s.group == move.name and s.action.kind == "files.publish"
    }
    return [(host, world.documents[host]) for host in hosts]


# --- claims and traffic -----------------------------------------------------------------------


def _judge_claims(world: World, run: Run, move: GroupMove, state: GroupState) -> None:
    """Nothing may stand under a right that is newer than what the log says of the group."""
    known = max(state.epoch, move.epoch_next)
    for step in run.plan.steps.values():
        claim = _claim_of(world, step.action.kind, step.action.arguments)
        if step.group == move.name and claim is not None and claim.epoch > known:
            world.blame("journal-equals-world", f"{step.id} stands at epoch {claim.epoch} of {claim.run}")


def _claim_of(world: World, kind: str, arguments: Mapping[str, object]) -> Claim | None:
    match kind:
        case "haproxy.route":
            return world.routes[str(arguments["proxy"]), str(arguments["backend"])].claim
        case "dns.update":
            return world.names[str(arguments["server"]), str(arguments["name"])].claim
        case "files.publish":
            return world.documents[str(arguments["host"])].claim
        case _:
            return None


def _judge_traffic(world: World, run: Run) -> None:
    """Every proxy and name sends clients to the target, but for what is listed as owed."""
    states = {step: state.state for unit in run.units.values() for step, state in unit.steps.items()}
    excused = {*run.debts, *(step for step, state in states.items() if state in BY_WORD)}
    for step in run.plan.steps.values():
        if step.role is not Role.ROUTE or step.id in excused:
            continue
        arguments = step.action.arguments
        if step.action.kind == "haproxy.route":
            proxy, backend = str(arguments["proxy"]), str(arguments["backend"])
            here = world.routes[proxy, backend].here
            if here != (world.proxy_sites[proxy] == run.plan.target):
                world.blame("traffic-follows", f"{proxy} sends {backend} away from {run.plan.target}")
        elif step.action.kind == "dns.update":
            server, name = str(arguments["server"]), str(arguments["name"])
            if world.names[server, name].points_to != run.plan.target:
                world.blame("traffic-follows", f"{name} at {server} names another site")


# --- losses -----------------------------------------------------------------------------------


def _judge_losses(world: World, run: Run) -> None:
    for cluster in world.clusters.values():
        mine = [promotion for promotion in cluster.promotions if promotion.run == run.id]
        for promotion in mine:
            _judge_loss(world, run, cluster, promotion)
        if len(mine) > 1:
            world.blame("promote-once", f"{cluster.name} was promoted twice by one run")


def _judge_loss(world: World, run: Run, cluster: Cluster, promotion: Promotion) -> None:
    """Rows that clients were told of and that are gone, against what the run stated: nothing, in a planned move,
    whatever people say. What a site that people declared lost, or one that came back by itself, acknowledged is
    diverged, not lost."""
    limits = [lost.lost_at_ns - UTC_START_NS for lost in run.lost_sites.values()]
    old = cluster.servers[promotion.old]
    if world.has_returned(old.host) and old.fence_ns is not None:
        limits.append(old.fence_ns)  # it was off; what it took when it came back is diverged
    limit_ns = min(limits, default=None)
    lost = [
        row
        for row in promotion.missing
        if row.acked_ns is not None and (limit_ns is None or row.acked_ns <= limit_ns)
    ]
    if not lost:
        return
    stated = run.losses.get(cluster.name)
    last_ns = max(row.ns for row in lost)
    gap_ms = -((promotion.last_present_ns - last_ns) // MILLISECOND_NS)
    if stated is None:
        world.blame(
            "stated-loss-is-a-bound", f"{cluster.name}: {len(lost)} acknowledged rows lost, none stated"
        )
    elif stated.milliseconds is not None and stated.milliseconds < gap_ms - 1:
        world.blame(
            "stated-loss-is-a-bound", f"{cluster.name}: {gap_ms} ms lost, {stated.milliseconds} ms stated"
        )
    elif stated.rows_bound is not None and stated.rows_bound < len(lost):
        world.blame(
            "stated-loss-is-a-bound",
            f"{cluster.name}: {len(lost)} rows lost, at most {stated.rows_bound} stated",
        )
