"""A small HTTP server for tests: scripted answers, a record of what was asked, and ways to misbehave."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Answer = tuple[int, Any]
Rule = Callable[[Asked], Answer | None]


@dataclass
class Served:
    """``rule`` answers (status, JSON); None: hang up without an answer."""

    url: str
    rule: Rule
    asked: list[Asked] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    served: Served

    def handle_error(self, *_: object) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def _any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(self.command, self.path, headers, self.rfile.read(length))
        self.server.served.asked.append(asked)
        answer = self.server.served.rule(asked)
        if answer is None:
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        body = answer[1] if isinstance(answer[1], bytes) else json.dumps(answer[1]).encode()
        self.send_response(answer[0])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self._any()

    def do_POST(self) -> None:
        self._any()

    def do_PUT(self) -> None:
        self._any()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(rule: Rule) -> Iterator[Served]:
    """Serve on a loopback port of its own while the block runs."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.served = Served(f"http://127.0.0.1:{server.server_address[1]}", rule)
    worker = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    worker.start()
    try:
        yield server.served
    finally:
        server.shutdown()
        server.server_close()
        worker.join()


def free_port() -> int:
    """A port that nothing listens at (just now)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def raw_server(handle: Callable[[socket.socket], None]) -> Iterator[int]:
    """Accept connections and give each to ``handle`` in a thread; yields the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    workers: list[threading.Thread] = []
    accepted: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                stream, _ = listener.accept()
            except OSError:
                return
            accepted.append(stream)
            worker = threading.Thread(target=_quietly, args=(handle, stream))
            workers.append(worker)
            worker.start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join()
        for stream in accepted:
            stream.close()
        for worker in workers:
            worker.join(5)


def _quietly(handle: Callable[[socket.socket], None], stream: socket.socket) -> None:
    try:
        handle(stream)
    except OSError:
        stream.close()
