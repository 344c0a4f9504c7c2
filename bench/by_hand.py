"""The moves by hand: what an engineer who knows the lab would script, with every gate on and nothing else.

    python -m bench.by_hand failover|rejoin|switchover LAB-FOLDER TARGET EPOCH

A process of its own, as the command is. Sessions are opened and messages made before the order. It keeps no
record, asks nobody, resumes nothing and states no loss; what is left is the time that the parts themselves
need. Prints one JSON object: when the order was given, and each phase, by CLOCK_MONOTONIC.
"""

from __future__ import annotations

import http.client
import json
import re
import sys
import time
import xmlrpc.client
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg

from orchestrator.lab import layout, postgres, power, supervise
from orchestrator.lab.layout import HOST_NAMES, SERVICE_HOSTS, Lab, SiteName, other
from playbooks.lab.files import documents, names, route

POLL_SECONDS = 0.001
WAIT_SECONDS_MAX = 60.0
RUN = "by-hand"
REGISTERS = {"population-register": "population", "land-register": "land"}
CLOSE = (
    "ALTER SYSTEM SET default_transaction_read_only = on",
    "ALTER SYSTEM SET synchronous_standby_names = ''",
    "ALTER SYSTEM SET wal_retrieve_retry_interval = '1ms'",
    "SELECT pg_reload_conf()",
)
OPEN = (
    "ALTER SYSTEM RESET default_transaction_read_only",
    "ALTER SYSTEM RESET wal_retrieve_retry_interval",
    "SELECT pg_reload_conf()",
)
PROMOTE = "SELECT pg_promote(false) FROM continuity.writer WHERE epoch = %s AND site = %s"
CLAIM = """
UPDATE continuity.writer SET epoch = %s, site = %s, run = %s, durability = %s WHERE epoch = %s AND site = %s"""
BUSY = "SELECT count(*) FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()"
CAUGHT_UP = """
SELECT 1 FROM pg_stat_replication
WHERE application_name = %s AND state = 'streaming' AND replay_lsn >= %s::pg_lsn"""


class Hands:
    """One move to ``target`` at ``epoch``, everything at hand. ``seen``: the epoch that stands now."""

    def __init__(self, lab: Lab, target: SiteName, epoch: int) -> None:
        self.lab, self.target, self.source = lab, target, other(target)
        self.epoch, self.seen = epoch, epoch - 1
        self.phases: dict[str, int] = {}
        self.key = lab.secret("tsig")

    def session(self, site: SiteName, database: str) -> psycopg.Connection[Any]:
        return postgres.connect(self.lab, site, database)

    def note(self, phase: str) -> None:
        self.phases[phase] = time.monotonic_ns()

    # --- parts ----------------------------------------------------------------------------------

    def cut_power(self) -> None:
        """The controller says what it sees after the cut; nothing at the site listens any more."""
        controller = http.client.HTTPConnection(urlsplit(self.lab.power_url).netloc, timeout=5)
        body = json.dumps({"ResetType": "ForceOff"})
        controller.request("POST", f"{power.SYSTEMS}/{self.source}/{power.ACTION}", body)
        answer = json.loads(controller.getresponse().read())
        if answer["PowerState"] != "Off":
            raise RuntimeError(f"{self.source} has power: {answer}")
        self.note("fenced")

    def unit(self, site: SiteName, order: str, name: str) -> Any:
        where = f"{self.lab.address(site)}:{layout.SUPERVISOR_PORT}"
        secret = self.lab.secret("supervisor")
        manager = xmlrpc.client.ServerProxy(f"http://{supervise.USER}:{secret}@{where}/RPC2")
        method: Callable[..., Any] = getattr(manager.supervisor, order)
        return method(name) if order == "getProcessInfo" else method(name, False)  # noqa: FBT003

    def route(self, site: SiteName, service: str, *, close: bool = False) -> None:
        side = "here" if site == self.target else "there"
        folder = self.lab.site(site).haproxy
        route.route(folder, service, side, self.epoch, self.target, RUN, close=close)

    def names(self, site: SiteName) -> dict[str, Any]:
        """An update a service, made before the order from the claims that stand on this site's server."""
        wanted = f"epoch={self.epoch} site={self.target} run={RUN}"
        server, address = self.lab.address(site), self.lab.address(self.target)
        return {
            service: names.message(
                self.key, host, address, names.claim(server, layout.DNS_PORT, host), wanted
            )
            for service, host in SERVICE_HOSTS.items()
        }

    def send(self, site: SiteName, message: Any) -> None:
        names.send(message, self.lab.address(site), layout.DNS_PORT)

    # --- the database ---------------------------------------------------------------------------

    def close(self, session: psycopg.Connection[Any]) -> None:
        for statement in CLOSE:
            session.execute(statement)
        self.note("closed")

    def promote(self, sessions: dict[str, psycopg.Connection[Any]], durability: str) -> None:
        """Guarded by the row in the statement; nothing opens before every epoch is committed."""
        control = sessions["population"]
        if control.execute(PROMOTE, (self.seen, self.source)).fetchone() is None:
            raise RuntimeError("the standby carries another epoch: not promoted")
        while is_standby(control):
            time.sleep(POLL_SECONDS)
        self.note("promoted")
        for session in sessions.values():
            session.execute("SET default_transaction_read_only = off")
            claimed = (self.epoch, self.target, RUN, durability, self.seen, self.source)
            if session.execute(CLAIM, claimed).rowcount != 1:
                raise RuntimeError("the epoch row is another's")
        self.note("epoch")
        for statement in OPEN:
            control.execute(statement)
        self.note("opened")


def is_standby(session: psycopg.Connection[Any]) -> bool:
    row = session.execute("SELECT pg_is_in_recovery()").fetchone()
    return bool(row and row[0])


def wait(what: str, is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not is_so():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {WAIT_SECONDS_MAX:g} s: {what}")
        time.sleep(POLL_SECONDS)


def side_by_side(*works: Callable[[], None]) -> None:
    """Do all of it at the same time; the first failure is raised."""
    with ThreadPoolExecutor(len(works)) as pool:
        for done in [pool.submit(work) for work in works]:
            done.result()


def answers(lab: Lab, site: SiteName, service: str) -> bool:
    address, port = lab.address(site), layout.SERVICE_PORTS[service]
    try:
        connection = http.client.HTTPConnection(address, port, timeout=1)
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False


# --- moves --------------------------------------------------------------------------------------


def failover(hands: Hands) -> None:
    """The register first; the rest when it serves."""
    lab, target = hands.lab, hands.target
    sessions = {name: hands.session(target, name) for name in REGISTERS.values()}
    updates = hands.names(target)
    hands.note("order")
    side_by_side(hands.cut_power, lambda: hands.close(sessions["population"]))
    hands.promote(sessions, "local")
    first = "population-register"
    side_by_side(lambda: hands.route(target, first), lambda: hands.send(target, updates[first]))
    hands.note("routed")
    hands.unit(target, "startProcess", "land-register")
    hands.unit(target, "stopProcess", "gazette-replicator")
    gazette, public_key = lab.site(target).gazette, lab.estate.parent / "gazette-key.pub"
    documents.publish(gazette, public_key, hands.epoch, target, RUN)
    for service in ("state-gazette", "land-register"):
        wait(service, partial(answers, lab, target, service))
        hands.route(target, service)
        hands.send(target, updates[service])
    sessions["population"].execute("CHECKPOINT")
    hands.note("done")


def switchover(hands: Hands) -> None:
    """Planned: nothing is in flight when the old side stops, and its last record is at the new one."""
    lab, target, source = hands.lab, hands.target, hands.source
    old = hands.session(source, "population")
    sessions = {name: hands.session(target, name) for name in REGISTERS.values()}
    updates = {site: hands.names(site) for site in (target, source)}
    pid = hands.unit(source, "getProcessInfo", "postgresql")["pid"]
    hands.note("order")
    old.execute("CHECKPOINT")
    hands.close(sessions["population"])
    old.execute("ALTER SYSTEM SET default_transaction_read_only = on")
    old.execute("SELECT pg_reload_conf()")
    wait("no write in flight", lambda: not (old.execute(BUSY).fetchone() or (0,))[0])
    old.close()
    hands.unit(source, "stopProcess", "postgresql")
    wait("the old database has stopped", lambda: not Path(f"/proc/{pid}").exists())
    hands.note("stopped")
    told = postgres.run(lab, ["pg_controldata", "-D", str(lab.site(source).data)], 10)
    last = re.search(r"Latest checkpoint location:\s+(\S+)", told)
    if last is None or not re.search(r"cluster state:\s+shut down\n", told):
        raise RuntimeError("the old side did not shut down cleanly")
    behind = "SELECT pg_last_wal_replay_lsn() > %s::pg_lsn"
    wait("drained", lambda: (sessions["land"].execute(behind, (last[1],)).fetchone() or (False,))[0])
    hands.note("drained")
    hands.promote(sessions, "local")
    first = "population-register"
    works = [partial(hands.route, site, first) for site in (target, source)]
    works += [partial(hands.send, site, updates[site][first]) for site in (target, source)]
    side_by_side(*works)
    hands.note("routed")
    if target == "embassy":
        hands.unit(target, "startProcess", "land-register")
    wait("land-register", lambda: answers(lab, target, "land-register"))
    for site in (target, source):
        hands.route(site, "land-register")
        hands.send(site, updates[site]["land-register"])
    follow(hands, sessions["population"])
    hands.note("done")


def rejoin(hands: Hands) -> None:
    """Rewind the old side (``source``) from the active one (``target``) and let commits wait for it again."""
    lab, active, old = hands.lab, hands.target, hands.source
    control = hands.session(active, "postgres")
    hands.note("order")
    conninfo = postgres.replication_conninfo(lab, old).replace(
        f"user={postgres.REPLICATION}", f"user={postgres.REWIND}"
    )
    config = lab.site(old).config
    argv = ["pg_rewind", "--target-pgdata", str(lab.site(old).data), "--no-sync"]
    argv += ["--source-server", f"{conninfo} dbname=postgres", "--config-file", f"{config}/postgresql.conf"]
    postgres.run(lab, argv, WAIT_SECONDS_MAX)
    hands.note("rewound")
    follow(hands, control)
    hands.note("done")


def follow(hands: Hands, control: psycopg.Connection[Any]) -> None:
    """Start the old side as the standby of the active one; commits wait for it when it has caught up."""
    lab, old = hands.lab, hands.source
    slot = HOST_NAMES[old]
    (lab.site(old).data / "postgresql.auto.conf").write_text("", encoding="ascii")
    (lab.site(old).data / "standby.signal").touch(mode=0o600)
    postgres.write_role(lab, old, hands.target, synchronous=False)
    has = control.execute("SELECT 1 FROM pg_replication_slots WHERE slot_name = %s", (slot,)).fetchone()
    if not has:
        control.execute("SELECT pg_create_physical_replication_slot(%s, true)", (slot,))
    hands.unit(old, "startProcess", "postgresql")
    row = control.execute("SELECT pg_current_wal_lsn()::text").fetchone()
    assert row
    wait("the old side streams", lambda: control.execute(CAUGHT_UP, (slot, row[0])).fetchone())
    control.execute(f"""ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 ("{slot}")'""")
    control.execute("SELECT pg_reload_conf()")
    hands.note("protected")


MOVES = {"failover": failover, "switchover": switchover, "rejoin": rejoin}


def main(words: list[str]) -> None:
    move, folder, target, epoch = words
    hands = Hands(layout.load(folder), "home" if target == "home" else "embassy", int(epoch))
    MOVES[move](hands)
    sys.stdout.write(json.dumps(hands.phases) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
