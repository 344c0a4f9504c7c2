"""Decides what every other simulated action does: proxies, names, documents, units, power; must never
ask the run. Each compares epochs as its real counterpart does.
"""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.core.outcomes import Failed, Finding, FindingKind, Outcome, Succeeded
from orchestrator.core.plan import Role, Undo
from orchestrator.sim.calls import DONE, NOT_DONE, Answer, Call, Kind, always_done, found, never_seen
from orchestrator.sim.world import Documents, Record, Routed

# --- traffic ----------------------------------------------------------------------------------


def judge_opening(call: Call, site: str) -> None:
    """Nothing may send clients to a site whose databases do not carry its name."""
    for unit in call.plan.groups[call.step.group].units:
        cluster = call.world.clusters.get(unit)
        if cluster is None or site != call.plan.target:
            continue
        holder = cluster.servers[cluster.holder]
        if any(writer.site != site for writer in holder.writers.values()):
            call.world.blame("opens-after-epoch", f"{call.step.id} sends clients to {site} before its epoch")


def route(call: Call) -> Answer:
    world = call.world
    key = (call.text("proxy"), call.text("backend"))
    old = world.routes[key]
    epoch = call.number("epoch")
    if epoch < old.epoch or (epoch == old.epoch and old.run not in ("", call.run)):
        return Failed(f"{key[0]} stands at epoch {old.epoch} of run {old.run}")
    judge_opening(call, call.text("site"))
    world.before.setdefault(call.step.id, old)
    world.routes[key] = Routed(call.flag("here"), epoch, call.run)
    return Succeeded()


def check_route(call: Call) -> Finding:
    now = call.world.routes[call.text("proxy"), call.text("backend")]
    return found((now.here, now.epoch, now.run) == (call.flag("here"), call.number("epoch"), call.run))


def route_back(call: Call) -> Outcome:
    old = call.world.before.pop(call.step.id, None)
    if isinstance(old, Routed):
        call.world.routes[call.text("proxy"), call.text("backend")] = old
    return Succeeded()


def update_name(call: Call) -> Answer:
    world = call.world
    key = (call.text("server"), call.text("name"))
    if not world.link_reaches(world.server_sites[key[0]]) or not world.name_server_runs(key[0]):
        return Failed(f"{key[0]} does not answer", retryable=True)
    old = world.names[key]
    mine = (old.epoch, old.run) == (call.number("epoch"), call.run)
    if not mine and (old.epoch, old.site) != (call.number("expect_epoch"), call.text("expect_site")):
        return Failed(f"NXRRSET: {key[1]} stands at epoch {old.epoch}, site {old.site}")
    judge_opening(call, call.text("site"))
    world.before.setdefault(call.step.id, old)
    world.names[key] = Record(call.text("value"), call.text("site"), call.number("epoch"), call.run)
    return Succeeded()


def check_name(call: Call) -> Finding:
    world, name_server = call.world, call.text("server")
    if not world.link_reaches(world.server_sites[name_server]) or not world.name_server_runs(name_server):
        return Finding(FindingKind.CANNOT_TELL, f"{name_server} does not answer")
    now = world.names[name_server, call.text("name")]
    return found((now.epoch, now.run) == (call.number("epoch"), call.run))


def name_back(call: Call) -> Outcome:
    old = call.world.before.pop(call.step.id, None)
    if isinstance(old, Record):
        call.world.names[call.text("server"), call.text("name")] = old
    return Succeeded()


# --- units and documents ----------------------------------------------------------------------


def start_unit(call: Call) -> Answer:
    call.world.units[call.text("host"), call.text("unit")] = True
    return Succeeded()


def check_started(call: Call) -> Finding:
    return found(call.world.runs(call.text("host"), call.text("unit")))


def stop_unit(call: Call) -> Answer:
    call.world.units[call.text("host"), call.text("unit")] = False
    return Succeeded()


def check_stopped(call: Call) -> Finding:
    return found(not call.world.runs(call.text("host"), call.text("unit")))


def undo_stop(call: Call) -> Outcome:
    start_unit(call)
    return Succeeded()


def undo_start(call: Call) -> Outcome:
    stop_unit(call)
    return Succeeded()


def ready(call: Call) -> Answer:
    if call.world.runs(call.text("host"), call.text("unit")):
        return Succeeded()
    return Failed("not ready within its time", retryable=True)


def stop_replicator(call: Call) -> Answer:
    here = documents(call)
    here.replicates = False
    return Succeeded({"proof": "demoted"})


def documents(call: Call) -> Documents:
    return call.world.documents[call.text("host")]


def check_replicator_stopped(call: Call) -> Finding:
    return found(not documents(call).replicates, proof="demoted")


def replicate_again(call: Call) -> Outcome:
    documents(call).replicates = True
    return Succeeded()


def publish(call: Call) -> Answer:
    here = documents(call)
    if call.number("epoch") < here.epoch or (
        call.number("epoch") == here.epoch and here.run not in ("", call.run)
    ):
        return Failed(f"published at epoch {here.epoch} of run {here.run}")
    if here.replicates:
        call.world.blame("one-writer", f"{call.step.id} publishes while the replicator writes")
    here.is_published, here.epoch, here.run = True, call.number("epoch"), call.run
    return Succeeded()


def check_published(call: Call) -> Finding:
    here = documents(call)
    return found(here.is_published and (here.epoch, here.run) == (call.number("epoch"), call.run))


def start_replicator(call: Call) -> Answer:
    documents(call).replicates = True
    return Succeeded()


# --- orders over HTTP, commands ---------------------------------------------------------------


def request(call: Call) -> Answer:
    """A fence asks the power controller; anything else leaves its mark."""
    world = call.world
    if call.step.role is not Role.FENCE:
        world.deeds[call.step.id] = call.run
        return Succeeded()
    if not world.controller_up:
        return Failed("the power controller does not answer", retryable=True)
    for host in call.step.fences:
        world.crash(host)
        machine = world.machines[host]
        machine.off_by_fence, machine.returned = True, False
        for cluster in world.clusters.values():
            if host in cluster.servers:
                cluster.servers[host].fence_ns = world.now_ns
    return Succeeded({"proof": str(call.step.proves or "")})


def check_request(call: Call) -> Finding:
    world = call.world
    if call.step.role is not Role.FENCE:
        return found(world.deeds.get(call.step.id) == call.run)
    if not world.controller_up:
        return Finding(FindingKind.CANNOT_TELL, "the power controller does not answer")
    is_off = not any(world.machines[host].is_on for host in call.step.fences)
    if is_off:
        for host in call.step.fences:
            world.machines[host].off_by_fence = True
    return found(is_off, proof=str(call.step.proves or ""))


def command(call: Call) -> Answer:
    call.world.deeds[call.step.id] = call.run
    return Succeeded()


def check_command(call: Call) -> Finding:
    return DONE if call.world.deeds.get(call.step.id) == call.run else NOT_DONE


def asked_from_outside(call: Call) -> Answer:
    """A service answers at the target if all databases of its group accept writes there."""
    world, plan = call.world, call.plan
    for unit in plan.groups[call.step.group].units:
        cluster = world.clusters.get(unit)
        if cluster is not None:
            holder = cluster.servers[cluster.holder]
            if holder.site != plan.target or not cluster.accepts(world, holder):
                return Failed(f"{unit} does not serve at {plan.target}", retryable=True)
    return Succeeded()


KINDS: Mapping[str, Kind] = {
    "command.run": Kind(command, check_command, idempotent=False),
    "continuity.epoch": Kind(lambda call: Succeeded(), always_done, undo=Undo.POINT_OF_NO_RETURN),
    "dns.query-check": Kind(asked_from_outside, never_seen, mutates=False),
    "dns.update": Kind(update_name, check_name, name_back, undo=Undo.UNDO),
    "files.publish": Kind(publish, check_published, undo=Undo.POINT_OF_NO_RETURN),
    "files.start-replicator": Kind(
        start_replicator, lambda call: found(documents(call).replicates), undo=Undo.POINT_OF_NO_RETURN
    ),
    "files.stop-replicator": Kind(stop_replicator, check_replicator_stopped, replicate_again, undo=Undo.UNDO),
    "files.verify": Kind(lambda call: Succeeded(), never_seen, mutates=False),
    "haproxy.route": Kind(route, check_route, route_back, undo=Undo.UNDO),
    "http.check": Kind(asked_from_outside, never_seen, mutates=False, asks_hosts=False),
    "http.request": Kind(request, check_request, undo=Undo.POINT_OF_NO_RETURN, asks_hosts=False),
    "manual.confirm": Kind(lambda call: Succeeded(), never_seen, idempotent=False, asks_hosts=False),
    "service.ready": Kind(ready, never_seen, mutates=False),
    "service.start": Kind(start_unit, check_started, undo_start, undo=Undo.UNDO, milliseconds=30),
    "service.stop": Kind(stop_unit, check_stopped, undo_stop, undo=Undo.UNDO, milliseconds=30),
}
