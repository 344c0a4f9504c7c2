"""Decides, when a run is over, whether the world is as the run's end promises; must never take the
run's word for anything but what it promised (its outcome, its stated loss, its listed debts).
"""

from __future__ import annotations

from orchestrator.core.groups import GroupState
from orchestrator.core.model import Operation
from orchestrator.core.plan import GroupMove, Role
from orchestrator.core.run import Run
from orchestrator.core.states import RunState, StepState
from orchestrator.sim.servers import Cluster, Promotion
from orchestrator.sim.world import MILLISECOND_NS, UTC_START_NS, World

BY_WORD = frozenset({StepState.SKIPPED, StepState.MARKED})


def judge(world: World, run: Run, groups: dict[str, GroupState]) -> None:
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
    _judge_losses(world, run)
    if run.state is RunState.DONE and run.plan.operation is not Operation.REPROTECT:
        _judge_traffic(world, run)


def _judge_cluster(world: World, run: Run, move: GroupMove, cluster: Cluster, state: GroupState) -> None:
    holder = cluster.servers[cluster.holder]
    has_moved = holder.site != move.active
    if run.state is RunState.ABORTED and not run.leave_closed:
        if has_moved:
            world.blame(
                "aborted-means-one-writer", f"{cluster.name} moved to {holder.site} in an aborted run"
            )
        elif holder.is_stopped_by_run or holder.is_frozen_by_run or not holder.is_primary:
            world.blame("aborted-means-one-writer", f"{holder.host} was left unable to write by this run")
        elif world.machines[holder.host].off_by_fence and not world.machines[holder.host].is_on:
            world.blame("aborted-means-one-writer", f"{holder.host} was left without power by this run")
    if run.leave_closed and run.state is not RunState.DONE:
        return
    writer = holder.writer()
    if (state.active, state.epoch) != (writer.site, writer.epoch):
        told = f"{state.active} at epoch {state.epoch}"
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


def _judge_done(world: World, run: Run, move: GroupMove, state: GroupState) -> None:
    moves = run.plan.operation is not Operation.REPROTECT
    want = (run.plan.target, move.epoch_next) if moves else (move.active, move.epoch_seen)
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
        elif holder.is_read_only or not holder.is_primary or holder.is_stopped_by_run:
            world.blame("done-means-serving", f"{unit}: done, but {holder.host} does not accept writes")


def _judge_traffic(world: World, run: Run) -> None:
    """Every proxy and name sends clients to the target, but for what is listed as owed."""
    excused = {
        *run.debts,
        *(
            step
            for unit in run.units.values()
            for step, state in unit.steps.items()
            if state.state in BY_WORD
        ),
    }
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
            record = world.names[str(arguments["server"]), str(arguments["name"])]
            if record.site != run.plan.target:
                world.blame(
                    "traffic-follows", f"{arguments['name']} at {arguments['server']} names {record.site}"
                )


def _judge_losses(world: World, run: Run) -> None:
    for cluster in world.clusters.values():
        for promotion in cluster.promotions:
            if promotion.run == run.id:
                _judge_loss(world, run, cluster, promotion)
        if len([p for p in cluster.promotions if p.run == run.id]) > 1:
            world.blame("promote-once", f"{cluster.name} was promoted twice by one run")


def _judge_loss(world: World, run: Run, cluster: Cluster, promotion: Promotion) -> None:
    lost_sites = run.lost_sites
    limit_ns = min((lost.lost_at_ns - UTC_START_NS for lost in lost_sites.values()), default=None)
    lost = [
        row
        for row in promotion.missing
        if row.acked_ns is not None and (limit_ns is None or row.acked_ns <= limit_ns)
    ]
    if not lost:
        return
    stated = run.losses.get(cluster.unit)
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
