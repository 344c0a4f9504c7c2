"""Each fault of the lab really breaks what it says, and its heal really mends it. Judged from outside."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import time
from collections.abc import Callable, Iterator

import psycopg
import pytest

from orchestrator.core.model import NameServer
from orchestrator.drivers import dns
from orchestrator.errors import RefusedError
from orchestrator.lab import faults, layout, postgres, processes, sites
from orchestrator.lab.layout import SERVICE_HOSTS, Lab, SiteName
from tests import labs
from tests.waiting import until

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

SILENCE_SECONDS = 0.6
ANSWER_SECONDS_MAX = 5.0
PORTS = (
    layout.POSTGRES_PORT,
    layout.FRONT_PORT,
    layout.POPULATION_PORT,
    layout.LAND_PORT,
    layout.GAZETTE_PORT,
    layout.DNS_PORT,
    layout.SUPERVISOR_PORT,
)


@pytest.fixture(scope="module")
def shared() -> Iterator[Lab]:
    with labs.a_lab() as made:
        yield made


@pytest.fixture
def lab(shared: Lab) -> Iterator[Lab]:
    """The module's lab, healed again whatever a test left broken."""
    yield shared
    if faults.broken(shared):
        faults.heal(shared)


def members(lab: Lab, site: SiteName) -> dict[int, processes.Process]:
    return processes.of_part(lab.mark(site), lab.site(site).path)


def listens(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=2).close()
    except ConnectionRefusedError:
        return False
    return True


def ask(
    address: str, port: int, method: str, path: str, host: str, body: str = ""
) -> tuple[int, dict[str, object]]:
    """One request at an address. OSError when there is no answer in time."""
    connection = http.client.HTTPConnection(address, port, timeout=ANSWER_SECONDS_MAX)
    try:
        connection.request(method, path, body=body.encode() or None, headers={"Host": host})
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text.startswith(b"{") else {}
    finally:
        connection.close()


def write(lab: Lab, key: str, site: SiteName = "home") -> tuple[int, dict[str, object]]:
    where = lab.address(site)
    return ask(
        where, layout.FRONT_PORT, "PUT", f"/persons/{key}", SERVICE_HOSTS["population-register"], "a value"
    )


def is_served(lab: Lab, key: str) -> Callable[[], bool]:
    def look() -> bool:
        try:
            return write(lab, key)[0] == 200
        except OSError:
            return False

    return look


def is_silent(stream: socket.socket, seconds: float = SILENCE_SECONDS) -> bool:
    """Does nothing come, neither bytes nor an end?"""
    stream.settimeout(seconds)
    try:
        stream.recv(1)
    except TimeoutError:
        return True
    return False


def count_persons(lab: Lab, site: SiteName) -> int:
    with postgres.connect(lab, site, "population", options="-c statement_timeout=2000") as session:
        row = session.execute("SELECT count(*) FROM persons").fetchone()
        assert row
        return int(row[0])


def test_home_crash_leaves_no_process_of_the_site_and_heal_brings_it_back(lab: Lab) -> None:
    before = members(lab, "home")
    sessions = set()
    for pid in before:
        with contextlib.suppress(ProcessLookupError):  # a worker may have ended meanwhile
            sessions.add(os.getsid(pid))
    assert len(sessions) > 5, "PostgreSQL's children have sessions of their own; were none of them seen?"
    found = faults.break_it(lab, "home-crash")
    assert found["done"]["killed"] > 5  # workers come and go: that none of them is left is asked next
    assert members(lab, "home") == {}
    assert not [pid for pid, process in before.items() if processes.is_alive(pid, process.started)]
    assert not [port for port in PORTS if listens(lab.address("home"), port)]
    cold = layout.LAND_PORT
    assert {port for port in PORTS if not listens(lab.address("embassy"), port)} == {cold}
    status = sites.status(lab)
    assert (status["sites"]["home"]["state"], status["sites"]["embassy"]["state"]) == ("gone", "running")
    assert faults.broken(lab) == {"home-crash": "home"}
    faults.heal(lab, "home-crash")
    until(is_served(lab, "after-crash"), "home serves again")
    postgres.wait_streaming(lab, "home")
    assert faults.broken(lab) == {}


def test_home_hang_stops_every_process_and_nothing_is_acknowledged(lab: Lab) -> None:
    host = SERVICE_HOSTS["population-register"]
    with postgres.connect(lab, "home", "population") as session:
        faults.break_it(lab, "home-hang")
        try:
            states = {process.state for process in members(lab, "home").values()}
            assert states == {"T"}, "a backend that was in no process group went on (pitfall 8)"
            assert sites.status(lab)["sites"]["home"]["state"] == "hung"
            with socket.create_connection((lab.address("home"), layout.FRONT_PORT), timeout=2) as stream:
                stream.sendall(
                    f"PUT /persons/hung HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1\r\n\r\nx".encode()
                )
                assert is_silent(stream), "somebody answered for a site that stands still"
                session.pgconn.send_query(b"INSERT INTO persons VALUES ('hung-sql', 'x', 'home', 1)")
                session.pgconn.flush()
                with socket.fromfd(session.fileno(), socket.AF_INET, socket.SOCK_STREAM) as backend:
                    assert is_silent(backend), "a backend answered"
            embassy = count_persons(lab, "embassy")
        finally:
            healed = faults.heal(lab, "home-hang")
        assert healed[0]["done"]["continued"] > 10
        while session.pgconn.get_result() is not None:
            pass
    until(is_served(lab, "after-hang"), "home goes on")
    assert count_persons(lab, "home") > embassy, "what was written before the heal was not held back"


def test_a_cut_link_is_silent_and_citizens_still_reach_both_sites(lab: Lab) -> None:
    host = SERVICE_HOSTS["population-register"]
    request = f"GET /persons/1 HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    way = (lab.way_to("home"), layout.POPULATION_PORT)
    with (
        socket.create_connection(way, timeout=2) as held,
        postgres.connect(lab, "home", "population") as session,
    ):
        held.sendall(request)
        held.settimeout(ANSWER_SECONDS_MAX)
        assert held.recv(65536)
        faults.break_it(lab, "link-cut")
        try:
            held.sendall(request)
            assert is_silent(held), "an open connection ended or was answered over a cut link"
            with socket.create_connection(way, timeout=2) as late:
                late.sendall(request)
                assert is_silent(late), "a new connection was refused or answered over a cut link"
            session.pgconn.send_query(b"UPDATE persons SET value = 'cut' WHERE id = '1'")
            session.pgconn.flush()
            with socket.fromfd(session.fileno(), socket.AF_INET, socket.SOCK_STREAM) as backend:
                assert is_silent(backend), "a commit at home did not wait for the embassy"
            for site in ("home", "embassy"):
                assert ask(lab.address(site), layout.POPULATION_PORT, "GET", "/persons/2", host)[0] == 200
        finally:
            faults.heal(lab, "link-cut")
        held.settimeout(ANSWER_SECONDS_MAX)
        assert held.recv(65536).startswith(b"HTTP/1.1 200"), "what waited did not go on"
        while session.pgconn.get_result() is not None:
            pass
    postgres.wait_streaming(lab, "home")


def test_a_slow_link_delays_each_way_and_only_the_link(lab: Lab) -> None:
    host = SERVICE_HOSTS["population-register"]

    def took(address: str) -> float:
        begun = time.monotonic()
        assert ask(address, layout.POPULATION_PORT, "GET", "/readyz", host)[0] == 200
        return time.monotonic() - begun

    faults.break_it(lab, "link-slow", delay_ms=150)
    try:
        assert took(lab.way_to("home")) >= 0.3
        assert min(took(lab.address("home")) for _ in range(5)) < 0.15
        begun = time.monotonic()
        assert write(lab, "over-a-slow-link")[0] == 200
        assert time.monotonic() - begun >= 0.3, "a commit did not wait for the embassy's answer"
    finally:
        faults.heal(lab, "link-slow")
    assert min(took(lab.way_to("home")) for _ in range(5)) < 0.15


def test_a_proxy_that_is_down_closes_the_front_door_and_nothing_else(lab: Lab) -> None:
    faults.break_it(lab, "proxy-down")
    try:
        assert not listens(lab.address("home"), layout.FRONT_PORT)
        host = SERVICE_HOSTS["population-register"]
        assert ask(lab.address("home"), layout.POPULATION_PORT, "GET", "/readyz", host)[0] == 200
        assert listens(lab.address("embassy"), layout.FRONT_PORT)
    finally:
        faults.heal(lab, "proxy-down")
    until(is_served(lab, "after-proxy"), "the front door is open again")


def test_a_name_server_that_refuses_changes_still_answers(lab: Lab) -> None:
    server = NameServer("ne", "embassy", lab.address("embassy"), layout.DNS_PORT)
    key = dns.Key(layout.TSIG_NAME, layout.TSIG_ALGORITHM, lab.secret("tsig"))

    def change() -> None:
        claim = dns.read_claim(server, "gazette.example.", timeout_seconds=2.0)
        dns.update(
            server,
            zone=layout.ZONE,
            name="gazette.example.",
            kind="A",
            ttl_seconds=5,
            values=[lab.address("home")],
            key=key,
            before=claim,
            after=dns.claim(1, "home", "again"),
            timeout_seconds=2.0,
        )

    faults.break_it(lab, "dns-refused")
    try:
        with pytest.raises(dns.RefusedByServerError, match="REFUSED"):
            change()
        found = dns.query(server, "gazette.example.", "A", timeout_seconds=2.0)
        assert list(found.values) == [lab.address("home")]
    finally:
        faults.heal(lab, "dns-refused")
    change()
    claim = dns.read_claim(server, "gazette.example.", timeout_seconds=2.0)
    assert claim is not None
    assert claim.run == "again"


def test_an_unknown_fault_is_refused_and_the_known_ones_are_named(lab: Lab) -> None:
    with pytest.raises(RefusedError) as refused:
        faults.break_it(lab, "meteorite")
    assert "home-crash" in refused.value.instead
    for each in faults.FAULTS.values():
        assert each.real
        assert each.not_real


def move_to_the_embassy(lab: Lab) -> None:
    """What a failover leaves behind, by hand: home is gone, the embassy's server writes at epoch 2."""
    with postgres.connect(lab, "embassy", "postgres") as session:
        session.execute("ALTER SYSTEM SET synchronous_standby_names = ''")
        session.execute("SELECT pg_promote(true)")
    for database in ("population", "land"):
        with postgres.connect(lab, "embassy", database) as session:
            session.execute("UPDATE continuity.writer SET epoch = 2, site = 'embassy', run = 'by-hand'")


def is_standby(lab: Lab, site: SiteName) -> bool:
    with postgres.connect(lab, site, "population") as session:
        row = session.execute("SELECT pg_is_in_recovery()").fetchone()
        return bool(row and row[0])


def test_home_returns_starts_all_of_it_unaided_and_heal_holds_the_old_primary_back() -> None:
    with labs.a_lab() as lab:
        running = {name: site["processes"] for name, site in sites.status(lab)["sites"].items()}
        faults.break_it(lab, "home-crash")
        move_to_the_embassy(lab)
        assert sites.active_site(lab) == "embassy"
        faults.break_it(lab, "home-returns")
        assert faults.broken(lab) == {"home-returns": "home"}
        assert not is_standby(lab, "home"), "the old primary did not come back as one"
        until(lambda: len(members(lab, "home")) >= running["home"] - 4, "all of home is up")
        assert sites.active_site(lab) is None, "two primaries that each believe in themselves"
        faults.heal(lab, "home-returns")
        with pytest.raises(psycopg.OperationalError):
            postgres.connect(lab, "home", "population")
        assert sites.active_site(lab) == "embassy"

        faults.break_it(lab, "home-crash")
        healed = faults.heal(lab)
        assert healed[0]["done"]["held"] == ["postgresql"]
        assert not listens(lab.address("home"), layout.POSTGRES_PORT), "the old primary was started"
        assert listens(lab.address("home"), layout.FRONT_PORT)

        faults.break_it(lab, "home-crash")
        faults.break_it(lab, "home-hang", "embassy")
        (healed,) = faults.heal(lab, "home-crash")
        assert healed["done"]["held"] == ["postgresql"]
        assert "embassy does not answer, and may be the one that writes" in healed["done"]["why"]
        assert not listens(lab.address("home"), layout.POSTGRES_PORT), "silence is no word"
        (healed,) = faults.heal(lab, "home-crash", "home", insist=True)
        assert [each["state"] for each in healed["done"]["started"]] == ["running"]
        postgres.wait_ready(lab, "home").close()
