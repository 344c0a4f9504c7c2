"""Decides how names are asked and changed: bounded queries, and updates that the server itself guards.

An update (RFC 2136, signed by TSIG) changes the record and its claim ``_continuity.NAME TXT`` in one
message whose prerequisite is the claim's exact former value: the server evaluates it, so a stale
update is refused by the server and never by a comparison here alone. dnspython is imported inside
functions: it costs more than an update.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.core.model import NameServer
from orchestrator.drivers.http import Resolve
from orchestrator.errors import ContinuityError, TransientError

CLAIM_LABEL = "_continuity"
RESOLVE_SECONDS = 0.5
LEFT_SECONDS_MIN = 0.001

_CLAIM = re.compile(r"epoch=(?P<epoch>\d+) site=(?P<site>\S+)(?: run=(?P<run>\S+))?")


class NotSentError(TransientError):
    """The server could not be reached: the update was surely not made."""


class NoReplyError(TransientError):
    """The message was sent and no valid reply came: of an update the outcome is unknown."""


class RefusedByServerError(ContinuityError):
    """The server answered with an error: nothing was changed. ``code`` is its name (NXRRSET, …)."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Answer:
    """``values`` as in zone files, sorted; ``code`` is NOERROR, NXDOMAIN, …"""

    code: str
    values: tuple[str, ...]
    ttl_seconds: int


@dataclass(frozen=True, slots=True)
class Claim:
    """Whose a name is. ``text`` is the exact value that stands (or would stand) in the zone."""

    epoch: int
    site: str
    run: str
    text: str


@dataclass(frozen=True, slots=True)
class Key:
    """A TSIG key; ``secret`` is base64 text and never shown."""

    name: str
    algorithm: str
    secret: str

    def __repr__(self) -> str:
        return f"Key({self.name!r}, {self.algorithm!r})"


def claim(epoch: int, site: str, run: str) -> Claim:
    """The claim of a run on a name."""
    return Claim(epoch, site, run, f"epoch={epoch} site={site} run={run}")


def claim_name(name: str) -> str:
    return f"{CLAIM_LABEL}.{absolute(name)}"


def absolute(name: str) -> str:
    return name if name.endswith(".") else name + "."


def parse_claim(text: str) -> Claim | None:
    """A claim from a TXT value (with or without its quotes); None when it is not one."""
    bare = text.strip('"')
    found = _CLAIM.fullmatch(bare)
    return Claim(int(found["epoch"]), found["site"], found["run"] or "", bare) if found else None


def read_claim(server: NameServer, name: str, *, timeout_seconds: float) -> Claim | None:
    """The claim that stands on a server; None when there is none. TransientError: no answer.

    RefusedByServerError: the server will not say, or what stands there is no claim of ours.
    """
    answer = query(server, claim_name(name), "TXT", timeout_seconds=timeout_seconds)
    if answer.code not in ("NOERROR", "NXDOMAIN"):
        raise RefusedByServerError(answer.code, f"{server.name}: {claim_name(name)}: {answer.code}")
    if not answer.values:
        return None
    found = parse_claim(answer.values[0]) if len(answer.values) == 1 else None
    if found is None:
        raise RefusedByServerError(
            "FORMERR", f"{server.name}: {claim_name(name)} is no claim: {answer.values}"
        )
    return found


def query(server: NameServer, name: str, kind: str, *, timeout_seconds: float) -> Answer:
    """Ask one server, over UDP and, when the answer is cut, over TCP: both together within the bound.

    The socket is connected: so "nobody listens there" and "no way there" (ICMP) end the wait at once.
    """
    import dns.exception
    import dns.message
    import dns.rcode

    question = dns.message.make_query(absolute(name), kind)
    try:
        reply = _exchange(server, question, time.monotonic() + timeout_seconds)
    except (dns.exception.DNSException, OSError) as error:
        raise NoReplyError(f"{server.name} ({server.address}:{server.port}): {_text(error)}") from error
    found = reply.get_rrset(
        reply.answer, question.question[0].name, question.question[0].rdclass, question.question[0].rdtype
    )
    values = tuple(sorted(item.to_text() for item in found)) if found else ()
    return Answer(
        dns.rcode.to_text(reply.rcode()),
        values,
        found.ttl if found else 0,
    )


def _exchange(server: NameServer, question: Any, deadline: float) -> Any:
    """dnspython's own fallback gives the whole bound to each of the two: one deadline is kept here."""
    import dns.message
    import dns.query

    try:
        with _connected(server) as sock:
            return dns.query.udp(
                question,
                server.address,
                timeout=seconds_until(deadline),
                port=server.port,
                ignore_unexpected=True,
                raise_on_truncation=True,
                sock=sock,
            )
    except dns.message.Truncated:
        return dns.query.tcp(question, server.address, timeout=seconds_until(deadline), port=server.port)


def seconds_until(deadline: float) -> float:
    """What is left until a deadline on ``time.monotonic``; never nothing, since 0 would mean something else."""
    return max(LEFT_SECONDS_MIN, deadline - time.monotonic())


def shares(servers: Sequence[NameServer], timeout_seconds: float) -> Iterator[tuple[NameServer, float]]:
    """Each server with the seconds it may take: what is left, divided among those still to be asked.

    So a silent one keeps nobody from being asked, and all together end within the bound.
    """
    deadline = time.monotonic() + timeout_seconds
    for at, server in enumerate(servers):
        yield server, seconds_until(deadline) / (len(servers) - at)


def _connected(server: NameServer) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        server.address, server.port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST
    )[0]
    made = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
    try:
        made.connect(address)
    except OSError:
        made.close()
        raise
    return made


def update(
    server: NameServer,
    *,
    zone: str,
    name: str,
    kind: str,
    ttl_seconds: int,
    values: Sequence[str],
    key: Key,
    before: Claim | None,
    after: Claim,
    timeout_seconds: float,
) -> None:
    """Replace a record and its claim in one message, if the claim still is ``before``.

    ``before`` None requires that there is no claim. Raises RefusedByServerError (nothing changed;
    NXRRSET and YXRRSET mean that the claim is another), NotSentError, NoReplyError (unknown).
    """
    message = _message(zone, key)
    claimed = claim_name(name)
    if before is None:
        message.absent(claimed, "TXT")
    else:
        message.present(claimed, "TXT", f'"{before.text}"')
    message.replace(claimed, ttl_seconds, "TXT", f'"{after.text}"')
    message.delete(absolute(name), kind)
    for value in values:
        message.add(absolute(name), ttl_seconds, kind, value)
    _send(server, message, timeout_seconds)


def _message(zone: str, key: Key) -> Any:
    import dns.name
    import dns.tsig
    import dns.tsigkeyring
    import dns.update

    ring = dns.tsigkeyring.from_text({key.name: key.secret})
    algorithm = dns.name.from_text(key.algorithm)
    return dns.update.UpdateMessage(
        absolute(zone), keyring=ring, keyname=dns.name.from_text(key.name), keyalgorithm=algorithm
    )


def _send(server: NameServer, message: Any, timeout_seconds: float) -> None:
    import dns.exception
    import dns.query
    import dns.rcode
    import dns.tsig

    where = f"{server.name} ({server.address}:{server.port})"
    try:
        reply = dns.query.tcp(message, server.address, timeout=timeout_seconds, port=server.port)
    except ConnectionRefusedError as error:
        raise NotSentError(f"{where}: {_text(error)}") from error
    except dns.tsig.PeerError as error:  # the server judged our signature: it changed nothing
        raise RefusedByServerError("NOTAUTH", f"{where}: {_text(error)}") from error
    except (dns.exception.DNSException, OSError) as error:
        raise NoReplyError(f"{where}: {_text(error)}") from error
    if reply.rcode() != dns.rcode.NOERROR:
        code = dns.rcode.to_text(reply.rcode())
        raise RefusedByServerError(code, f"{where}: refused the update: {code}")


def resolver(servers: Sequence[NameServer], *, timeout_seconds: float = RESOLVE_SECONDS) -> Resolve:
    """A look-up that asks these servers only, in this order; numeric addresses pass unasked.

    ``timeout_seconds`` is for all of them together.
    """

    def resolve(name: str) -> tuple[str, ...]:
        if _is_numeric(name):
            return (name,)
        problems = []
        for server, share_seconds in shares(servers, timeout_seconds):
            try:
                answer = query(server, name, "A", timeout_seconds=share_seconds)
            except TransientError as error:
                problems.append(str(error))
                continue
            if answer.values:
                return answer.values
            problems.append(f"{server.name}: {answer.code}, no address")
        raise TransientError(
            f"{name}: no name server gives an address ({'; '.join(problems) or 'none named'})"
        )

    return resolve


def _is_numeric(name: str) -> bool:
    import ipaddress

    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def load() -> None:
    """Import what an update needs, so that it is not imported after the order."""
    import dns.message
    import dns.query
    import dns.rdtypes.ANY.TXT
    import dns.rdtypes.IN.A
    import dns.tsigkeyring
    import dns.update  # noqa: F401


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__
