"""Decides how one HTTP exchange is made with a bound on the whole of it; must never retry.

A new connection per exchange, no redirects, no proxy of the environment. The two errors say what a
caller must know of a mutation: ``NotConnectedError`` (nothing was sent) and ``NoAnswerError`` (nobody knows).
"""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from orchestrator.core.values import Json
from orchestrator.errors import PermanentError, TransientError

BODY_BYTES_MAX = 4 * 1024 * 1024
CHUNK_BYTES = 64 * 1024
ATTEMPT_SECONDS_MAX = 5.0

Resolve = Callable[[str], Sequence[str]]
"""A host name → its addresses, best first. Raises TransientError when nobody could answer."""


class NotConnectedError(TransientError):
    """No connection came about: the request was surely not sent."""


class NobodyListensError(NotConnectedError):
    """Every address refused the connection: its host is there, and the service surely is not."""


class NoAnswerError(TransientError):
    """The request may have been sent, and no whole answer came: the outcome is unknown."""


@dataclass(frozen=True, slots=True)
class Response:
    """One whole answer. ``address`` is the one that answered; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    address: str

    def json(self) -> Any:
        """The body as JSON, None when it is not JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


class _Bounded:
    """Mixed into a socket: every read waits for no longer than what is left of the whole bound."""

    deadline: float = 0.0

    def recv_into(self, *arguments: Any, **named: Any) -> int:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the time for this exchange is over")
        self.settimeout(left)  # type: ignore[attr-defined]
        count: int = super().recv_into(*arguments, **named)  # type: ignore[misc]
        return count


class _PlainSocket(_Bounded, socket.socket):
    pass


class _TlsSocket(_Bounded, ssl.SSLSocket):
    pass


def basic_authorisation(user: str, password: str) -> Mapping[str, str]:
    """The header of HTTP basic authentication."""
    token = base64.b64encode(f"{user}:{password}".encode()).decode("ascii")
    return {"Authorization": f"Basic {token}"}


def exchange(
    method: str,
    url: str,
    *,
    timeout_seconds: float,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    resolve: Resolve | None = None,
    ca_file: str = "",
    body_bytes_max: int = BODY_BYTES_MAX,
) -> Response:
    """Send one request and read the whole answer, all within ``timeout_seconds``.

    ``resolve`` replaces the system's name look-up. Raises NotConnectedError, NoAnswerError, or PermanentError
    for an address that cannot be used.
    """
    deadline = time.monotonic() + timeout_seconds
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise PermanentError(f"{url}: not an http or https address")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    connected, address = _connect(parts.hostname, port, deadline, resolve)
    try:
        stream = (
            _secure(connected, parts.hostname, deadline, ca_file) if parts.scheme == "https" else connected
        )
        connection = http.client.HTTPConnection(parts.hostname, port)
        connection.sock = stream
        return _converse(connection, method, parts, headers or {}, body, address, body_bytes_max)
    finally:
        connected.close()


def _converse(
    connection: http.client.HTTPConnection,
    method: str,
    parts: Any,
    headers: Mapping[str, str],
    body: bytes,
    address: str,
    body_bytes_max: int,
) -> Response:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        sent = {"Connection": "close", **headers}
        connection.request(method, target, body=body or None, headers=sent)
        answer = connection.getresponse()
        received = bytearray()
        while chunk := answer.read(CHUNK_BYTES):
            received += chunk
            if len(received) > body_bytes_max:
                raise NoAnswerError(
                    f"{method} {parts.geturl()}: the answer is longer than {body_bytes_max} bytes"
                )
        if answer.length:  # reading in parts says nothing of an early end
            raise NoAnswerError(f"{method} {parts.geturl()}: the answer is cut short")
        found = {name.lower(): value for name, value in answer.getheaders()}
        return Response(answer.status, found, bytes(received), address)
    except (OSError, http.client.HTTPException) as error:
        raise NoAnswerError(f"{method} {parts.geturl()}: no answer ({_text(error)})") from error
    finally:
        connection.close()


def _connect(name: str, port: int, deadline: float, resolve: Resolve | None) -> tuple[_PlainSocket, str]:
    if resolve is None:
        try:
            found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise NotConnectedError(f"{name}: cannot be resolved ({_text(error)})") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    else:
        addresses = list(resolve(name))
    problems = []
    refused = 0
    for number, address in enumerate(addresses):
        left = deadline - time.monotonic()
        if left <= 0:
            break
        share = left / (len(addresses) - number)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        stream = _PlainSocket(family, socket.SOCK_STREAM)
        try:
            stream.settimeout(min(share, ATTEMPT_SECONDS_MAX))
            stream.connect((address, port))
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stream.deadline = deadline
            stream.settimeout(max(0.001, deadline - time.monotonic()))
            return stream, address
        except OSError as error:
            stream.close()
            refused += isinstance(error, ConnectionRefusedError)
            problems.append(f"{address}:{port} {_text(error)}")
    kind = NobodyListensError if addresses and refused == len(addresses) else NotConnectedError
    raise kind(f"{name}: cannot connect ({'; '.join(problems) or 'no address'})")


def _secure(stream: _PlainSocket, name: str, deadline: float, ca_file: str) -> _TlsSocket:
    context = ssl.create_default_context(cafile=ca_file or None)
    context.sslsocket_class = _TlsSocket
    try:
        secured = context.wrap_socket(stream, server_hostname=name)
    except OSError as error:
        raise NotConnectedError(f"{name}: no TLS session ({_text(error)})") from error
    assert isinstance(secured, _TlsSocket)
    secured.deadline = deadline
    return secured


def mismatches(expected: Mapping[str, Json], found: Any) -> tuple[str, ...]:
    """What of ``expected`` (equalities by key; ``a.b`` reaches into objects) ``found`` does not hold."""
    problems = []
    for path, value in expected.items():
        at = found
        for key in path.split("."):
            at = at.get(key) if isinstance(at, Mapping) else None
        if at != value or isinstance(at, bool) != isinstance(value, bool):
            problems.append(f"{path} is {json.dumps(at)}, not {json.dumps(value)}")
    return tuple(problems)


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__
