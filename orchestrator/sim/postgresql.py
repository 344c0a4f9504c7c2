"""Decides what the simulated PostgreSQL actions do to the world's servers; must never ask the run.

Each mirrors the promise of ``actions/postgresql*``: guarded promotion, compare-and-set of the epoch,
a stop that leaves a standby behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from orchestrator.core.claims import CONTRADICTIONS, Claimed, contradictions
from orchestrator.core.model import Operation
from orchestrator.core.outcomes import Failed, Finding, FindingKind, Outcome, Succeeded
from orchestrator.core.plan import Undo
from orchestrator.core.values import Json
from orchestrator.sim.calls import (
    NOT_DONE,
    Answer,
    Call,
    Kind,
    Later,
    always_done,
    found,
    looked_again,
    never_seen,
)
from orchestrator.sim.servers import Server, set_writer
from orchestrator.sim.world import MILLISECOND_NS, SECOND_NS, UTC_START_NS


def inspect(call: Call) -> Answer:
    """An unreachable side is a fact; the side whose data the operation needs must answer."""
    world, cluster = call.world, call.cluster()
    source, target = call.text("source"), call.text("target")
    match call.plan.operation:
        case Operation.SWITCHOVER:
            needed: tuple[str, ...] = (target, source)
        case Operation.REPROTECT | Operation.FAILBACK:
            needed = (source,)
        case _:
            needed = (target,)
    for site in needed:
        if not any(s.is_up and world.answers(s.host) for s in cluster.servers.values() if s.site == site):
            return Failed(f"{cluster.name}: no member at {site} answers", retryable=True)
    rights = [
        Claimed(f"{name} at {server.host}", server.site, row.epoch, row.site, row.run)
        for server in cluster.servers.values()
        if server.is_up and world.answers(server.host)
        for name, row in server.writers.items()
    ]
    seen = (call.number("expect_epoch"), call.text("expect_site"))
    against = contradictions(rights, *seen, call.names("taken_back"))
    if against:
        return Failed("; ".join(against), evidence={CONTRADICTIONS: list(against)})
    sites: dict[str, Json] = {
        s.site: {"reachable": world.answers(s.host), "lsn": s.lsn()} for s in cluster.servers.values()
    }
    return Succeeded({"sites": sites})


def verify(call: Call) -> Answer:
    server = call.server()
    if not server.is_up:
        return Failed("the standby is not running", retryable=True)
    if server.is_primary or server.promoting_ns is not None:
        return Failed("it is no standby any more")
    if server.is_paused:
        return Failed("replay is paused")
    if not expected(call, server):
        return Failed(f"its writer row is {server.writer()}")
    return Succeeded({"lsn": server.lsn()})


def expected(call: Call, server: Server) -> bool:
    """Do all databases carry the epoch and site that the plan saw?"""
    seen = (call.number("expect_epoch"), call.text("expect_site"))
    return all((server.writers[d].epoch, server.writers[d].site) == seen for d in call.databases())


def freeze(call: Call) -> Answer:
    server = call.server()
    if not server.is_up or not server.is_primary:
        return Failed("not a running primary")
    server.is_read_only = server.is_frozen_by_run = True
    return Succeeded()


def check_freeze(call: Call) -> Finding:
    server = call.server()
    return found(server.is_up and server.is_read_only)


def unfreeze(call: Call) -> Outcome:
    server = call.server()
    if not server.is_up:
        return Failed(f"{server.host} is not running")
    server.is_read_only = server.is_frozen_by_run = False
    return Succeeded()


def checkpoint(call: Call) -> Answer:
    return Succeeded() if call.server().is_up else Failed("not running", retryable=True)


def stop(call: Call) -> Answer:
    """A clean stop sends what it has to whoever streams, then leaves a standby behind."""
    world, server, cluster = call.world, call.server(), call.cluster()
    server.signal = True
    if call.torn:
        return Failed("torn: the signal is written, the server was not stopped")
    if server.is_up:
        for standby in cluster.servers.values():
            if standby.upstream == server.host and cluster.streams(world, standby):
                standby.received = len(server.rows)
    server.stop(by_run=True)
    server.fence_ns = world.now_ns
    return Succeeded(stopped_evidence(server))


def stopped_evidence(server: Server) -> Mapping[str, str]:
    return {"proof": "demoted", "shutdown_checkpoint": server.lsn(), "host": server.host}


def check_stop(call: Call) -> Finding:
    server = call.server()
    if not server.is_up and server.signal:
        server.fence_ns = call.world.now_ns
        return Finding(FindingKind.DONE, "", stopped_evidence(server))
    is_half = server.signal and server.is_primary
    return Finding(FindingKind.CANNOT_TELL, "half done: it runs") if is_half else NOT_DONE


def start_again(call: Call) -> Outcome:
    """As what it was: the fence's signal and the freeze are lifted, then it starts."""
    server, cluster = call.server(), call.cluster()
    if server.host == cluster.holder:
        server.is_primary, server.signal = True, False
    server.is_read_only = server.is_frozen_by_run = False
    server.fence_ns = None
    server.start()
    return Succeeded({"writes": server.is_primary})


def verify_drained(call: Call) -> Answer:
    server, source = call.server(), call.cluster().servers[call.text("source")]
    if source.is_up and source.is_primary:
        return Failed("the old primary still runs", retryable=True)
    missing = len(source.rows) - server.received
    return Succeeded({"lsn": server.lsn()}) if missing == 0 else Failed(f"{missing} rows are not here")


def close(call: Call) -> Answer:
    server = call.server()
    if not server.is_up or server.is_primary:
        return Failed("not a running standby", retryable=not server.is_primary)
    server.is_read_only, server.is_sync = True, False
    return Succeeded()


def check_close(call: Call) -> Finding:
    server = call.server()
    return found(server.is_up and server.is_read_only)


def reopen(call: Call) -> Outcome:
    call.server().is_read_only = False
    return Succeeded()


def hold_log(call: Call) -> Answer:
    server = call.server()
    if not server.is_up:
        return Failed("not running", retryable=True)
    server.holds_log = True
    return Succeeded({"slots": []})


def check_hold_log(call: Call) -> Finding:
    server = call.server()
    return found(server.is_up and server.holds_log)


def let_log_go(call: Call) -> Outcome:
    server = call.server()
    if not server.is_up:
        return Failed(f"{server.host} is not running")
    server.holds_log = False
    return Succeeded()


def measure(call: Call) -> Answer:
    server, cluster = call.server(), call.cluster()
    upstream = cluster.servers.get(server.upstream)
    if upstream is None:
        return Failed("it follows nobody")
    count = server.received
    last_ns = UTC_START_NS + upstream.rows[count - 1].ns if count else None
    home = upstream.lsn() if call.world.answers(upstream.host) else None
    beats = cluster.interval_ns <= SECOND_NS
    seen: dict[str, Json] = {
        "durability": server.writer().durability if beats else "local",
        "received_lsn": server.lsn(),
        "replay_lsn": server.lsn(),
        "last_commit_ns": last_ns,
        "heartbeat_ns": last_ns if beats else None,
        "home_lsn": home,
        "write_rate_rows_per_s": -(-SECOND_NS // cluster.interval_ns),
    }
    return Succeeded(seen)


def promote(call: Call) -> Answer:
    world, server, cluster = call.world, call.server(), call.cluster()
    if server.is_primary and server.promoted_by == call.run:
        world.blame("promote-once", f"{call.step.id} was sent to {server.host}, which it promoted already")
        return Succeeded()
    if not server.is_up or server.is_primary:
        return Failed("not a running standby")
    if server.promoting_ns is not None:
        world.blame("promote-once", f"{call.step.id} was sent to {server.host} twice")
        return Later(server.promoting_ns - world.now_ns)
    if not expected(call, server):
        return Failed(f"its writer row is {server.writer()}: not promoted")
    if not server.is_read_only:
        world.blame("closed-before-promote", f"{server.host} is promoted while it is open to clients")
    takes_ns = world.rng.choice((20, 60, 300, 5_000)) * MILLISECOND_NS
    server.promoting_ns, server.promoted_by = world.now_ns + takes_ns, call.run
    world.after(takes_ns, f"{server.host} is promoted", lambda: cluster.promoted(world, server))
    return Later(takes_ns + 1)


def check_promote(call: Call) -> Finding:
    server = call.server()
    if server.is_up and server.is_primary and server.promoted_by == call.run:
        return Finding(FindingKind.DONE, "", {"timeline": server.timeline})
    if server.promoting_ns is not None and server.is_up:
        return Finding(FindingKind.RUNNING, "promotion is on its way")
    return NOT_DONE


def epoch(call: Call) -> Answer:
    """Compare-and-set per database; equal passes only for the same run."""
    server = call.server()
    if not server.is_up or not server.is_primary:
        return Failed("not a running primary", retryable=True)
    seen = (call.number("expect_epoch"), call.text("expect_site"))
    for number, database in enumerate(call.databases()):
        row = server.writers[database]
        if row.run == call.run and row.epoch == call.number("epoch"):
            continue
        own = call.flag("stands") and row.site == seen[1] and seen[0] <= row.epoch < call.number("epoch")
        if (row.epoch, row.site) != seen and not own:
            return Failed(f"{database}: the writer row is {row}")
        set_writer(
            server,
            (database,),
            epoch=call.number("epoch"),
            site=call.text("site"),
            run=call.run,
            durability=call.text("durability") or "local",
        )
        if call.torn and number == 0:
            break
    return Succeeded({"epoch": call.number("epoch")})


def check_epoch(call: Call) -> Finding:
    server = call.server()
    mine = (call.number("epoch"), call.run)
    rows = [server.writers[database] for database in call.databases()]
    return found(server.is_up and all((row.epoch, row.run) == mine for row in rows))


def open_writes(call: Call) -> Answer:
    server = call.server()
    if not server.is_up or not server.is_primary:
        return Failed("not a running primary", retryable=True)
    server.is_read_only = False
    return Succeeded()


def check_open(call: Call) -> Finding:
    server = call.server()
    return found(server.is_up and server.is_primary and not server.is_read_only)


def rejoin(call: Call) -> Answer:
    """Keeps a copy of a history that differs, then takes the primary's."""
    world, server, cluster = call.world, call.server(), call.cluster()
    primary = cluster.servers[call.text("source")]
    if server.host == cluster.holder:
        world.blame("never-rewinds-the-writer", f"{call.step.id} would overwrite the only good copy")
        return Failed("this is the writer")
    if not primary.is_up or not primary.is_primary or not world.answers(primary.host):
        return Failed(f"{primary.host} is no running primary", retryable=True)
    if server.rows and server.rows[-1:] != primary.rows[len(server.rows) - 1 : len(server.rows)]:
        server.evidence_copies += 1
    server.stop(by_run=True)
    cluster.follow(server, primary)
    world.takes_back(server.site)
    server.is_read_only = server.is_frozen_by_run = False
    server.start()
    return Later(200 * MILLISECOND_NS)


def check_follows(call: Call) -> Finding:
    server = call.server()
    return found(server.upstream == call.text("source") and call.cluster().streams(call.world, server))


def follow(call: Call) -> Answer:
    """A cleanly stopped old primary starts as a standby of the new one."""
    world, server, cluster = call.world, call.server(), call.cluster()
    primary = cluster.servers[call.text("source")]
    if not primary.is_primary:
        return Failed(f"{primary.host} is no primary", retryable=True)
    if server.host == cluster.holder:
        world.blame("never-rewinds-the-writer", f"{call.step.id} would demote the writer")
        return Failed("this is the writer")
    cluster.follow(server, primary)
    world.takes_back(server.site)
    server.is_read_only = server.is_frozen_by_run = False
    server.start()
    return Later(20 * MILLISECOND_NS)


def protect(call: Call) -> Answer:
    server, cluster = call.server(), call.cluster()
    standby = cluster.servers[call.text("standby")]
    if not server.is_primary or not server.is_up:
        return Failed("not a running primary", retryable=True)
    if standby.upstream != server.host or not cluster.streams(call.world, standby):
        return Failed(f"{standby.host} does not stream", retryable=True)
    if call.text("durability") == "remote":
        server.is_sync = True
    set_writer(server, call.databases(), durability=call.text("durability"))
    return Succeeded()


def check_protect(call: Call) -> Finding:
    server, cluster = call.server(), call.cluster()
    standby = cluster.servers[call.text("standby")]
    follows = standby.upstream == server.host and cluster.streams(call.world, standby)
    wanted = replace(server.writer(), durability=call.text("durability"))
    return found(follows and server.is_primary and server.writer() == wanted)


def aftercare(call: Call) -> Answer:
    """Nothing is amiss at the new primary but that it must run to be asked."""
    return Succeeded() if call.server().is_up else Failed("not running", retryable=True)


def canary(call: Call) -> Answer:
    """A write through the service's own path must go in."""
    if call.cluster().accepts(call.world, call.server()):
        return Succeeded()
    return Failed("the canary was not written", retryable=True)


def refuses(call: Call) -> Answer:
    if call.cluster().accepts(call.world, call.server()):
        return Failed("it accepts writes")
    return Succeeded()


_NO_RETURN = Undo.POINT_OF_NO_RETURN
KINDS: Mapping[str, Kind] = {
    "postgresql.inspect": Kind(inspect, looked_again(inspect), mutates=False, asks_hosts=False),
    "postgresql.verify": Kind(verify, never_seen, mutates=False),
    "postgresql.freeze": Kind(freeze, check_freeze, unfreeze, undo=Undo.UNDO, milliseconds=20),
    "postgresql.checkpoint": Kind(checkpoint, never_seen, milliseconds=30),
    "postgresql.stop": Kind(stop, check_stop, start_again, undo=Undo.UNDO, milliseconds=40),
    "postgresql.verify-drained": Kind(verify_drained, never_seen, mutates=False),
    "postgresql.close": Kind(close, check_close, reopen, undo=Undo.UNDO),
    "postgresql.hold-log": Kind(hold_log, check_hold_log, let_log_go, undo=Undo.UNDO),
    "postgresql.measure": Kind(measure, never_seen, mutates=False),
    "postgresql.promote": Kind(promote, check_promote, idempotent=False, undo=_NO_RETURN),
    "postgresql.epoch": Kind(epoch, check_epoch, undo=_NO_RETURN),
    "postgresql.open": Kind(open_writes, check_open, undo=_NO_RETURN),
    "postgresql.list-diverged": Kind(lambda call: Succeeded(), always_done, milliseconds=900),
    "postgresql.rejoin": Kind(rejoin, check_follows, undo=_NO_RETURN, milliseconds=900),
    "postgresql.follow": Kind(follow, check_follows, undo=_NO_RETURN, milliseconds=60),
    "postgresql.protect": Kind(protect, check_protect, undo=_NO_RETURN, milliseconds=20),
    "postgresql.aftercare": Kind(aftercare, looked_again(aftercare), mutates=False),
    "postgresql.canary": Kind(canary, never_seen),
    "postgresql.refuses": Kind(refuses, never_seen, mutates=False),
}
