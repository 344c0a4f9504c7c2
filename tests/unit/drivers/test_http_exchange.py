"""drivers.http: one exchange, bounded as a whole, whatever the other side does."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

import pytest

from orchestrator.drivers import http
from orchestrator.errors import PermanentError
from tests.http_server import free_port, raw_server, serving

BOUND_SECONDS = 0.3
SLACK_SECONDS = 1.0


def test_status_headers_and_json() -> None:
    with serving(lambda asked: (201, {"path": asked.path, "sent": asked.body.decode()})) as served:
        answer = http.exchange(
            "POST", f"{served.url}/a?b=1", body=b"xyz", headers={"X-One": "1"}, timeout_seconds=5
        )
    assert answer.status == 201
    assert answer.json() == {"path": "/a?b=1", "sent": "xyz"}
    assert answer.address == "127.0.0.1"
    assert served.asked[0].headers["x-one"] == "1"


def test_a_redirect_is_an_answer_and_not_followed() -> None:
    with serving(lambda asked: (302, {})) as served:
        assert http.exchange("GET", served.url, timeout_seconds=5).status == 302
    assert len(served.asked) == 1


def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    with serving(lambda asked: (200, {})) as served:
        assert http.exchange("GET", served.url, timeout_seconds=5).status == 200


def test_nobody_listens() -> None:
    with pytest.raises(http.NobodyListensError):
        http.exchange("GET", f"http://127.0.0.1:{free_port()}/", timeout_seconds=5)


def test_an_unknown_name_was_not_sent_anything() -> None:
    with pytest.raises(http.NotConnectedError):
        http.exchange("GET", "http://name.invalid/", timeout_seconds=5, resolve=lambda name: ())


def test_the_next_address_is_tried() -> None:
    with serving(lambda asked: (200, {})) as served:
        answer = http.exchange(
            "GET",
            f"http://x.example:{served.port}/",
            timeout_seconds=5,
            resolve=lambda name: ("127.9.9.9", "127.0.0.1"),
        )
    assert answer.address == "127.0.0.1"


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "nonsense", "http:///x", "file:///etc/passwd"])
def test_an_address_that_cannot_be_used(url: str) -> None:
    with pytest.raises(PermanentError, match="not an http"):
        http.exchange("GET", url, timeout_seconds=1)


def silent(stream: socket.socket) -> None:
    while stream.recv(1024):
        pass


def trickle_headers(stream: socket.socket) -> None:
    stream.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        stream.sendall(b"x")
        threading.Event().wait(0.02)


def trickle_body(stream: socket.socket) -> None:
    stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        stream.sendall(b"x")
        threading.Event().wait(0.02)


@pytest.mark.parametrize("handle", [silent, trickle_headers, trickle_body])
def test_the_whole_exchange_is_bounded(handle: Callable[[socket.socket], None]) -> None:
    """A server that says a byte now and then keeps every single read short: only the whole counts."""
    with raw_server(handle) as port:
        begin = time.monotonic()
        with pytest.raises(http.NoAnswerError):
            http.exchange("GET", f"http://127.0.0.1:{port}/", timeout_seconds=BOUND_SECONDS)
        assert time.monotonic() - begin < BOUND_SECONDS + SLACK_SECONDS


def cut_short(stream: socket.socket) -> None:
    stream.recv(1024)
    stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
    stream.close()


def not_http(stream: socket.socket) -> None:
    stream.recv(1024)
    stream.sendall(b"SSH-2.0-x\r\n")
    stream.close()


def endless(stream: socket.socket) -> None:
    stream.recv(1024)
    stream.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        stream.sendall(b"x" * 65536)


@pytest.mark.parametrize("handle", [cut_short, not_http, endless])
def test_no_whole_answer_is_no_answer(handle: Callable[[socket.socket], None]) -> None:
    with raw_server(handle) as port, pytest.raises(http.NoAnswerError):
        http.exchange("GET", f"http://127.0.0.1:{port}/", timeout_seconds=5, body_bytes_max=1 << 20)


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        ({"site": "embassy"}, 0),
        ({"site": "home"}, 1),
        ({"site": "embassy", "a.b": 1}, 0),
        ({"a.c": 1}, 1),
        ({"missing": None}, 0),
        ({"flag": True}, 0),
        ({"one": True}, 1),
        ({"flag": 1}, 1),
    ],
)
def test_mismatches(wanted: dict[str, object], count: int) -> None:
    found = {"site": "embassy", "a": {"b": 1}, "flag": True, "one": 1}
    assert len(http.mismatches(wanted, found)) == count  # type: ignore[arg-type]


def test_mismatches_of_what_is_no_object() -> None:
    assert http.mismatches({"a": 1}, None)
    assert http.mismatches({"a": 1}, [1])
