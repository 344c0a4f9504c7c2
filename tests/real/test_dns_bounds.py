"""One deadline for all that is asked of name servers, whichever part of it is slow: real UDP and TCP on loopback."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import dns.flags
import dns.message
import dns.query
import dns.rrset
import pytest

from orchestrator.actions.dns import QueryCheck, QueryParams, Update, UpdateParams
from orchestrator.core.model import NameServer
from orchestrator.core.outcomes import Failed, FindingKind
from orchestrator.core.plan import Parts
from orchestrator.drivers import dns as driver
from orchestrator.drivers.hosts import LocalHosts
from orchestrator.errors import TransientError
from orchestrator.probes.dns import DnsProbe, DnsProbeParams
from tests.action_context import GivenSecrets, context
from tests.real.test_dns import free_port

pytestmark = pytest.mark.real

NAME = "population.example."
VALUE = "192.0.2.10"
CLAIM = '"epoch=2 site=embassy run=run-2"'
BOUND_SECONDS = 0.8
LATE_SECONDS = 0.65  # so late that another whole bound after it would be seen
MARGIN_SECONDS = 0.4  # of a busy machine
REFERENCE = "secret://file/tsig"


@dataclass
class Server:
    """Answers over UDP after ``late_seconds``; ``cut``: only that the answer is too long. ``claims``, ``tcp``:
    whether it says who holds the name, and answers over TCP at all. Who is not answered just waits."""

    where: NameServer
    late_seconds: float = 0.0
    is_silent: bool = False
    cut: bool = False
    claims: bool = True
    tcp: bool = True
    over: threading.Event = field(default_factory=threading.Event)
    asked: list[str] = field(default_factory=list)

    def answer(self, question: dns.message.Message) -> dns.message.Message | None:
        name, kind = question.question[0].name, question.question[0].rdtype
        is_claim = name == dns.name.from_text(driver.claim_name(NAME))
        if self.is_silent or (is_claim and not self.claims):
            return None
        made = dns.message.make_response(question)
        made.answer.append(dns.rrset.from_text(name, 5, "IN", kind, CLAIM if is_claim else VALUE))
        return made

    def serve_udp(self, sock: socket.socket) -> None:
        while not self.over.is_set():
            try:
                wire, who = sock.recvfrom(65535)
            except TimeoutError:
                continue
            self.asked.append("udp")
            answer = self.answer(dns.message.from_wire(wire))
            if answer is None or self.over.wait(self.late_seconds):
                continue
            if self.cut:
                answer.flags |= dns.flags.TC
                answer.answer.clear()
            sock.sendto(answer.to_wire(), who)

    def serve_tcp(self, listening: socket.socket) -> None:
        with contextlib.ExitStack() as kept:
            while not self.over.is_set():
                try:
                    client = kept.enter_context(listening.accept()[0])
                except TimeoutError:
                    continue
                self.asked.append("tcp")
                if self.tcp:
                    question, _ = dns.query.receive_tcp(client, time.time() + BOUND_SECONDS)
                    answer = self.answer(question)
                    assert answer is not None
                    dns.query.send_tcp(client, answer.to_wire())


Make = Callable[..., Server]


@pytest.fixture
def make() -> Iterator[Make]:
    with contextlib.ExitStack() as stack:

        def made(name: str = "ns", **more: object) -> Server:
            server = Server(NameServer(name, "embassy", "127.0.0.1", free_port()), **more)  # type: ignore[arg-type]
            udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            tcp = stack.enter_context(socket.socket())
            for sock in (udp, tcp):
                sock.settimeout(0.02)
                sock.bind((server.where.address, server.where.port))
            tcp.listen()
            for work, sock in ((server.serve_udp, udp), (server.serve_tcp, tcp)):
                thread = threading.Thread(target=work, args=(sock,))
                thread.start()
                stack.callback(thread.join)
            stack.callback(server.over.set)
            return server

        yield made


@contextlib.contextmanager
def within(seconds: float = BOUND_SECONDS) -> Iterator[None]:
    begin = time.monotonic()
    yield
    took = time.monotonic() - begin
    assert took < seconds + MARGIN_SECONDS, f"bound {seconds} s, took {took:.2f} s"


def test_an_answer_that_was_cut_is_fetched_over_tcp(make: Make) -> None:
    server = make(cut=True)
    with within():
        assert driver.query(server.where, NAME, "A", timeout_seconds=BOUND_SECONDS).values == (VALUE,)
    assert server.asked == ["udp", "tcp"]


def test_cut_and_then_silent_ends_at_the_bound_of_one(make: Make) -> None:
    server = make(cut=True, tcp=False, late_seconds=LATE_SECONDS)
    with within(), pytest.raises(driver.NoReplyError):
        driver.query(server.where, NAME, "A", timeout_seconds=BOUND_SECONDS)
    assert server.asked == ["udp", "tcp"]


def test_a_check_of_several_servers_asks_each_and_ends_at_one_bound(make: Make) -> None:
    silent = [make(name, is_silent=True) for name in ("one", "two", "three")]
    other = make("four")
    parts = Parts(name_servers={server.where.name: server.where for server in (*silent, other)})
    params = QueryParams(NAME, tuple(parts.name_servers), "198.51.100.1")
    with within():
        found = QueryCheck().check(context(params, parts, seconds=BOUND_SECONDS))
    assert found.kind is FindingKind.NOT_DONE
    assert [f"{server.where.name} (" in found.reason for server in silent] == [True] * 3
    assert f"four: {NAME} is {VALUE}" in found.reason, "a silent one before it keeps nobody from being asked"


def test_claim_and_value_are_read_within_one_bound(make: Make) -> None:
    server = make(late_seconds=LATE_SECONDS)
    parts = Parts(name_servers={"ns": server.where})
    params = UpdateParams(
        "ns", "example.", NAME, "A", 5_000, VALUE, "upd", "hmac-sha256", REFERENCE, "embassy", 2, "home", 1
    )
    given = {REFERENCE: "c2VjcmV0"}
    with within():
        found = Update().check(context(params, parts, run="run-2", seconds=BOUND_SECONDS))
    assert found.kind is FindingKind.CANNOT_TELL
    with within():
        outcome = Update().execute(context(params, parts, run="run-2", seconds=BOUND_SECONDS, secrets=given))
    assert isinstance(outcome, Failed)
    assert outcome.retryable, "nothing was sent"


def test_a_probe_of_value_and_claim_ends_at_one_bound(make: Make) -> None:
    def look(server: Server) -> str:
        return DnsProbe().look(
            DnsProbeParams(server.where, NAME), timeout_seconds=BOUND_SECONDS, hosts=LocalHosts(),
            secrets=GivenSecrets(),
        ).verdict  # fmt: skip

    with within():
        assert look(make(cut=True, tcp=False, late_seconds=LATE_SECONDS / 2)) == "unknown"
    with within():
        assert look(make(late_seconds=LATE_SECONDS / 2, claims=False)) == "unknown"
    assert look(make()) == "up"


def test_a_name_is_looked_up_at_the_next_server_within_one_bound(make: Make) -> None:
    silent = [make(name, is_silent=True) for name in ("one", "two")]
    with within():
        resolve = driver.resolver((*(s.where for s in silent), make().where), timeout_seconds=BOUND_SECONDS)
        assert tuple(resolve(NAME)) == (VALUE,)
    with within(), pytest.raises(TransientError, match=r"one .*two "):
        driver.resolver([s.where for s in silent], timeout_seconds=BOUND_SECONDS)(NAME)
