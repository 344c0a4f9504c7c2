"""What stop and start make of the states that a manager reports, one after the other."""

from __future__ import annotations

import threading
import xmlrpc.client
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from orchestrator.core.model import Manager
from orchestrator.drivers import supervisor
from orchestrator.errors import PermanentError

CODES = {
    "stopped": 0,
    "starting": 10,
    "running": 20,
    "backoff": 30,
    "stopping": 40,
    "exited": 100,
    "fatal": 200,
}


class NoSecrets:
    def value(self, reference: str) -> str:
        raise AssertionError(reference)


@contextmanager
def scripted(states: list[str], orders: list[str]) -> Iterator[Manager]:
    """A manager whose unit is in each of ``states`` for one question, and in the last for ever."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            _, method = xmlrpc.client.loads(body.decode())
            answer: object = True
            if method == "supervisor.getProcessInfo":
                name = states.pop(0) if len(states) > 1 else states[0]
                answer = {"state": CODES[name], "pid": 0, "start": 0, "now": 100, "spawnerr": ""}
            else:
                orders.append(str(method).removeprefix("supervisor."))
            sent = xmlrpc.client.dumps((answer,), methodresponse=True).encode()  # type: ignore[arg-type]
            self.send_response(200)
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        worker = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        worker.start()
        try:
            yield Manager(url=f"http://127.0.0.1:{server.server_address[1]}/")
        finally:
            server.shutdown()
            worker.join()


@pytest.mark.parametrize(
    ("states", "orders", "end"),
    [
        (["stopped"], [], "stopped"),
        (["running", "stopping", "stopped"], ["stopProcess"], "stopped"),
        (["backoff", "stopped"], ["stopProcess"], "stopped"),
        (["stopping", "stopped"], [], "stopped"),
        # restarted by the manager after it was seen exited: it must be stopped again
        (["exited", "starting", "stopped"], ["stopProcess"], "stopped"),
        (["running", "exited", "exited", "running", "stopped"], ["stopProcess", "stopProcess"], "stopped"),
        (["exited"], [], "exited"),
        (["fatal"], [], "fatal"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else str(value),
)
def test_stop(states: list[str], orders: list[str], end: str) -> None:
    given: list[str] = []
    with scripted(list(states), given) as manager:
        assert supervisor.stop(manager, "u", NoSecrets(), 3).name == end
    assert given == orders


@pytest.mark.parametrize(
    ("states", "orders"),
    [
        (["running"], ["startProcess"]),
        (["starting", "running"], ["startProcess"]),
        (["stopping", "stopped", "running"], ["startProcess", "startProcess"]),
    ],
    ids="-".join,
)
def test_start(states: list[str], orders: list[str]) -> None:
    given: list[str] = []
    with scripted(list(states), given) as manager:
        assert supervisor.start(manager, "u", NoSecrets(), 3).name == "running"
    assert given == orders


@pytest.mark.parametrize("states", [["exited"], ["starting", "fatal"], ["stopped"]], ids="-".join)
def test_start_of_what_does_not_stay(states: list[str]) -> None:
    with scripted(list(states), []) as manager, pytest.raises(PermanentError):
        supervisor.start(manager, "u", NoSecrets(), 3)


@pytest.mark.parametrize("call", [supervisor.start, supervisor.stop])
def test_the_wait_is_bounded(call: Callable[..., supervisor.UnitState]) -> None:
    state = "starting" if call is supervisor.start else "stopping"
    late = pytest.raises(TimeoutError, match=r"not (running|stopped) after")
    with scripted([state], []) as manager, late:
        call(manager, "u", NoSecrets(), 0.5)  # a busy machine answers late


def test_a_manager_without_an_address_is_refused() -> None:
    with pytest.raises(PermanentError, match="no url"):
        supervisor.state(Manager(), "u", NoSecrets())
