"""Decides what every simulated action outside the databases does: proxies, names, documents, units,
power; must never ask the run. Each compares epochs as its real counterpart does, and an undo gives the
state back but never the epoch: epochs only grow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from orchestrator.core.claims import Claimed, contradictions
from orchestrator.core.outcomes import Failed, Finding, FindingKind, Outcome, Succeeded
from orchestrator.core.plan import Role, Undo
from orchestrator.core.values import Json
from orchestrator.sim.calls import (
    NOT_DONE,
    Answer,
    Call,
    Kind,
    always_done,
    found,
    looked_again,
    never_seen,
)
from orchestrator.sim.world import UTC_START_NS, Claim, Documents

# --- claims -----------------------------------------------------------------------------------


def refusal(claim: Claim, call: Call) -> str:
    """Why this run may not change what carries this claim, "" when it may (semantics 2.2)."""
    epoch = call.number("epoch")
    if epoch < claim.epoch:
        return f"epoch {epoch} is stale: epoch {claim.epoch} of {claim.site} rules here"
    if epoch == claim.epoch and claim.run != call.run:
        return f"epoch {epoch} was used here by another run ({claim.run})"
    return ""


def own_claim(call: Call) -> Claim:
    return Claim(call.number("epoch"), call.text("site"), call.run)


def is_own(claim: Claim, call: Call) -> bool:
    return (claim.epoch, claim.run) == (call.number("epoch"), call.run)


def read_claims(call: Call) -> Answer:
    """What stands beside names, routes and documents against the log, as ``continuity.claims`` asks it."""
    world, claims, silent = call.world, [], []
    witnesses = call.step.action.arguments["witnesses"]
    assert isinstance(witnesses, list | tuple)
    for witness in witnesses:
        assert isinstance(witness, Mapping)
        kind, part, subject = (str(witness[name]) for name in ("kind", "part", "subject"))
        where, site, answers, claim = world.witness(kind, part, subject)
        if not answers and site == call.text("target"):
            silent.append(where)
        elif answers:
            claims.append(Claimed(where, site, claim.epoch, claim.site, claim.run))
    epoch, site = call.number("expect_epoch"), call.text("expect_site")
    against = contradictions(claims, epoch, site, call.names("taken_back"))
    if against:
        return Failed("; ".join(against))
    return Failed(f"{', '.join(silent)}: no answer", retryable=True) if silent else Succeeded()


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
    proxy = call.text("proxy")
    old = call.world.routes[proxy, call.text("backend")]
    if told := refusal(old.claim, call):
        return Failed(f"{proxy}: {told}")
    judge_opening(call, call.text("site"))
    call.remember(old)
    call.world.routes[proxy, call.text("backend")] = replace(
        old, here=call.flag("here"), claim=own_claim(call)
    )
    return Succeeded()


def check_route(call: Call) -> Finding:
    now = call.world.routes[call.text("proxy"), call.text("backend")]
    return found(now.here == call.flag("here") and is_own(now.claim, call))


def route_back(call: Call) -> Outcome:
    key = call.text("proxy"), call.text("backend")
    now, old = call.world.routes[key], call.remembered()
    if old is None or not is_own(now.claim, call):
        return Failed(f"{key[0]}: nothing of this run to undo")
    call.world.routes[key] = replace(now, here=old.here)
    return Succeeded()


def update_name(call: Call) -> Answer:
    key = call.text("server"), call.text("name")
    old = call.world.names[key]
    if told := refusal(old.claim, call):
        return Failed(f"{key[1]}: {told}")
    expected = call.number("expect_epoch"), call.text("expect_site")
    is_expected = old.claim.epoch < expected[0] or (old.claim.epoch, old.claim.site) == expected
    if not is_own(old.claim, call) and not is_expected:
        return Failed(f"{key[1]}: expected epoch {expected[0]} of {expected[1]}, found {old.claim}")
    judge_opening(call, call.text("site"))
    call.remember(old)
    call.world.names[key] = replace(old, points_to=call.text("site"), claim=own_claim(call))
    return Succeeded()


def check_name(call: Call) -> Finding:
    now = call.world.names[call.text("server"), call.text("name")]
    return found(now.points_to == call.text("site") and is_own(now.claim, call))


def name_back(call: Call) -> Outcome:
    key = call.text("server"), call.text("name")
    now, old = call.world.names[key], call.remembered()
    if old is None or not is_own(now.claim, call):
        return Failed(f"{key[1]}: the value before is not known")
    call.world.names[key] = replace(now, points_to=old.points_to)
    return Succeeded()


# --- units and documents ----------------------------------------------------------------------


def turn_unit(call: Call, *, on: bool) -> Outcome:
    call.remember(call.world.runs(call.text("host"), call.text("unit")))
    call.world.units[call.text("host"), call.text("unit")] = on
    return Succeeded()


def unit_back(call: Call) -> Outcome:
    """As it was before this run; what the run did not change stays."""
    ran = call.remembered()
    if ran is not None:
        call.world.units[call.text("host"), call.text("unit")] = ran
    return Succeeded()


def check_started(call: Call) -> Finding:
    return found(call.world.runs(call.text("host"), call.text("unit")))


def check_stopped(call: Call) -> Finding:
    return found(not call.world.runs(call.text("host"), call.text("unit")))


def ready(call: Call) -> Answer:
    if call.world.runs(call.text("host"), call.text("unit")):
        return Succeeded()
    return Failed("not ready within its time", retryable=True)


def unit_status(call: Call) -> Answer:
    runs = call.world.runs(call.text("host"), call.text("unit"))
    is_so = runs == (call.text("state") != "stopped")
    return Succeeded() if is_so else Failed("it is not so", retryable=True)


def inspect_unit(call: Call) -> Answer:
    """What does not run, or does not answer, is a finding and stands in nobody's way; cold is as it should be."""
    runs = call.text("standby") == "cold" or call.world.runs(call.text("host"), call.text("unit"))
    return Succeeded({"findings": [] if runs else [{"text": "it does not run", "mend": ""}]})


def inspect_documents(call: Call) -> Answer:
    """A serving side that does not answer is a fact."""
    if call.world.answers(call.text("host")) or call.flag("serves"):
        return Succeeded({"findings": []})
    return Failed("no answer", retryable=True)


def documents(call: Call) -> Documents:
    return call.world.documents[call.text("host")]


def documents_as_of(call: Call) -> Answer:
    as_of_ns = documents(call).as_of_ns
    at_ns = None if as_of_ns is None else UTC_START_NS + as_of_ns
    return Succeeded({"durability": "local", "last_commit_ns": at_ns, "heartbeat_ns": at_ns, "is_look": True})


def stop_replicator(call: Call) -> Answer:
    """With ``published`` no new documents are taken there either, which alone proves that it is closed."""
    here = documents(call)
    if not call.text("published"):
        call.remember((here.mode, here.replicates))
        here.replicates = False
        return Succeeded()
    if told := "" if stands_under(here.claim, call) else refusal(here.claim, call):
        return Failed(f"{call.text('host')}: {told}")
    call.remember((here.mode, here.replicates))
    claim = here.claim if stands_under(here.claim, call) else own_claim(call)
    here.mode, here.claim, here.replicates = "read-only", claim, False
    return Succeeded({"proof": "demoted"})


def stands_under(claim: Claim, call: Call) -> bool:
    """Is the side that was left behind closed under the right that rules already, whichever run's?"""
    return call.flag("follows") and (claim.epoch, claim.site) == (call.number("epoch"), call.text("site"))


def check_replicator_stopped(call: Call) -> Finding:
    here = documents(call)
    if not call.text("published"):
        return found(not here.replicates)
    is_closed = here.mode == "read-only" and (is_own(here.claim, call) or stands_under(here.claim, call))
    return found(is_closed and not here.replicates, proof="demoted")


def replicate_again(call: Call) -> Outcome:
    here = documents(call)
    mode, ran_before = call.remembered() or ("", False)
    if call.text("published"):
        if here.claim.epoch >= call.number("epoch") and not is_own(here.claim, call):
            return Failed(f"{call.text('host')}: {here.claim.run} has published since")
        if is_own(here.claim, call) and mode:
            here.mode = mode
    here.replicates = here.replicates or ran_before
    return Succeeded()


def replicate_as_before(call: Call) -> Outcome:
    """One that ran before this run goes on."""
    here, ran_before = documents(call), call.remembered()
    here.replicates = here.replicates if ran_before is None else ran_before
    return Succeeded()


def keep_documents(call: Call) -> Answer:
    """What a side alone holds is listed only once it takes nothing more."""
    if documents(call).mode == "full":
        call.world.blame("one-writer", f"{call.step.id} lists what {call.text('host')} still takes")
    return Succeeded()


def start_replicator(call: Call) -> Answer:
    """Until both sites are equal; the other side must answer, too."""
    source, here = call.text("source_host"), documents(call)
    if here.mode == "full" and call.text("published"):
        return Failed(f"{call.text('host')} still takes new documents")
    if here.mode == "full":
        call.world.blame("one-writer", f"{call.step.id} copies over what {call.text('host')} publishes")
    call.remember(here.replicates)
    here.replicates = True
    if not call.world.answers(source):
        return Failed(f"{source} does not answer", retryable=True)
    return Succeeded()


def blame_open_fences(call: Call) -> None:
    """Where this run fenced documents, none may be taken any more."""
    for step in call.plan.steps.values():
        if (
            step.unit == call.step.unit
            and step.role is Role.FENCE
            and (call.run, step.id) in call.world.effects
        ):
            host = str(step.action.arguments["host"])
            if call.world.documents[host].mode == "full":
                call.world.blame("one-writer", f"{call.step.id} publishes while {host} takes new documents")


def publish(call: Call) -> Answer:
    """In a mode, under an epoch. Whoever takes new documents must be the only one who writes there."""
    here, mode = documents(call), call.text("mode")
    if told := refusal(here.claim, call):
        return Failed(f"{call.text('host')}: {told}")
    if here.replicates and call.step.role is Role.OPEN:
        call.world.blame("one-writer", f"{call.step.id} publishes while a replicator writes there")
    if call.step.role is Role.OPEN:
        blame_open_fences(call)
    call.remember(here.mode)
    here.mode, here.claim = mode, own_claim(call)
    return Succeeded()


def check_published(call: Call) -> Finding:
    here = documents(call)
    return found(here.mode == call.text("mode") and is_own(here.claim, call))


def publish_back(call: Call) -> Outcome:
    here = documents(call)
    if not is_own(here.claim, call):
        return Failed("nothing of this run to undo")
    here.mode = call.remembered() or ""
    return Succeeded()


# --- orders over HTTP, commands ---------------------------------------------------------------


def request(call: Call) -> Answer:
    """The power controller switches a host off; what counts is its read-back."""
    world = call.world
    if not world.controller_up:
        return Failed("the power controller does not answer", retryable=True)
    for host in call.step.fences:
        world.crash(host)
        world.prove_off(host)
    return Succeeded(proof_of(call))


def proof_of(call: Call) -> dict[str, Json]:
    return {"proof": str(call.step.proves or "")}


def check_request(call: Call) -> Finding:
    world = call.world
    if not world.controller_up:
        return Finding(FindingKind.CANNOT_TELL, "the power controller does not answer")
    if any(world.machines[host].is_on for host in call.step.fences):
        return NOT_DONE
    for host in call.step.fences:
        world.prove_off(host)
    return Finding(FindingKind.DONE, "", proof_of(call))


def command(call: Call) -> Answer:
    return Succeeded()


def cannot_tell(call: Call) -> Finding:
    """No check is declared for this command."""
    return Finding(FindingKind.CANNOT_TELL, "no check is declared")


def asked_from_outside(call: Call) -> Answer:
    """A citizen's way: the name, the front door, the program and the database, all at the target."""
    world, plan = call.world, call.plan
    for step in plan.steps.values():
        if step.service != call.step.service:
            continue
        arguments, kind = step.action.arguments, step.action.kind
        leads = True
        if kind == "dns.update" and world.server_sites[str(arguments["server"])] == plan.target:
            key = str(arguments["server"]), str(arguments["name"])
            leads = world.names[key].points_to == plan.target
        elif kind == "haproxy.route" and world.proxy_sites[str(arguments["proxy"])] == plan.target:
            leads = world.routes[str(arguments["proxy"]), str(arguments["backend"])].here
        if not leads:
            return Failed(f"{step.id} does not lead there", retryable=True)
    for unit in plan.groups[call.step.group].units:
        cluster = world.clusters.get(unit)
        if cluster is not None:
            holder = cluster.servers[cluster.holder]
            if holder.site != plan.target or not cluster.accepts(world, holder):
                return Failed(f"{unit} does not serve at {plan.target}", retryable=True)
    return Succeeded()


NO_RETURN = Undo.POINT_OF_NO_RETURN
KINDS: Mapping[str, Kind] = {
    "command.run": Kind(command, cannot_tell, idempotent=False, undo=NO_RETURN),
    "continuity.claims": Kind(read_claims, looked_again(read_claims), mutates=False),
    "continuity.epoch": Kind(lambda call: Succeeded(), always_done, mutates=False),
    "dns.update": Kind(update_name, check_name, name_back, undo=Undo.UNDO),
    "files.inspect": Kind(
        inspect_documents, looked_again(inspect_documents), mutates=False, asks_hosts=False
    ),
    "files.keep": Kind(keep_documents, always_done),
    "files.measure": Kind(documents_as_of, never_seen, mutates=False),
    "files.publish": Kind(publish, check_published, publish_back, undo=Undo.UNDO),
    "files.start-replicator": Kind(
        start_replicator, lambda call: found(documents(call).replicates), replicate_as_before, undo=Undo.UNDO
    ),
    "files.stop-replicator": Kind(stop_replicator, check_replicator_stopped, replicate_again, undo=Undo.UNDO),
    "files.verify": Kind(command, looked_again(command), mutates=False),
    "haproxy.route": Kind(route, check_route, route_back, undo=Undo.UNDO),
    "http.check": Kind(asked_from_outside, looked_again(asked_from_outside), mutates=False),
    "http.request": Kind(request, check_request, idempotent=False, undo=NO_RETURN, milliseconds=150),
    "manual.confirm": Kind(command, cannot_tell, idempotent=False, undo=NO_RETURN),
    "service.inspect": Kind(inspect_unit, looked_again(inspect_unit), mutates=False, asks_hosts=False),
    "service.ready": Kind(ready, looked_again(ready), mutates=False),
    "service.start": Kind(
        partial(turn_unit, on=True), check_started, unit_back, undo=Undo.UNDO, milliseconds=30
    ),
    "service.status": Kind(unit_status, looked_again(unit_status), mutates=False),
    "service.stop": Kind(
        partial(turn_unit, on=False), check_stopped, unit_back, undo=Undo.UNDO, milliseconds=30
    ),
}
