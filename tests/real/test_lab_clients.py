"""The lab's clients: where they go at each connect, and what they conclude from each kind of answer.

The servers here are small and scripted, so that every kind of answer comes up; the client is the load itself,
run as the program that it is.
"""

from __future__ import annotations

import collections
import contextlib
import http.server
import json
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.lab import load
from tests.waiting import until

pytestmark = [pytest.mark.real, pytest.mark.timeout(60)]

SECONDS = 1.0


class NameServer(threading.Thread):
    """Answers every question with ``address`` (None: stays silent), and counts the questions."""

    def __init__(self, address: str | None) -> None:
        super().__init__(daemon=True)
        self.address = address
        self.asked = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.start()

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                question, asker = self._socket.recvfrom(4096)
                if not question:
                    return
                self.asked += 1
                if self.address is not None:
                    self._socket.sendto(self._answer(question, self.address), asker)

    @staticmethod
    def _answer(question: bytes, address: str) -> bytes:
        header = question[:2] + struct.pack("!HHHHH", 0x8400, 1, 1, 0, 0)
        record = struct.pack("!HHHIH", 0xC00C, 1, 1, 5, 4) + socket.inet_aton(address)
        return header + question[12:] + record

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as goodbye:
            goodbye.sendto(b"", ("127.0.0.1", self.port))
        self.join(5)
        self._socket.close()


class Register:
    """An HTTP server on an address; ``status`` may be changed at any time, ``cut`` hangs up unanswered."""

    def __init__(self, address: str, port: int = 0) -> None:
        self.status: int | str = 200
        self.seen: collections.Counter[str] = collections.Counter()
        register = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                register.seen[self.path] += 1
                if register.status == "cut":
                    self.close_connection = True
                    return
                body = json.dumps({"site": address, "epoch": 1, "lsn": "0/1"}).encode()
                if register.status == "odd":
                    body = b"{}"
                self.send_response(200 if isinstance(register.status, str) else register.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Nobody reads it."""

        self._server = http.server.ThreadingHTTPServer((address, port), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def home() -> Iterator[Register]:
    register = Register("127.0.0.2")
    yield register
    register.close()


@pytest.fixture
def embassy(home: Register) -> Iterator[Register]:
    register = Register("127.0.0.3", home.port)
    yield register
    register.close()


@pytest.fixture
def first() -> Iterator[NameServer]:
    server = NameServer("127.0.0.2")
    yield server
    server.close()


@pytest.fixture
def second() -> Iterator[NameServer]:
    server = NameServer("127.0.0.2")
    yield server
    server.close()


class Load:
    """The program ``load.py`` at work, with one writer."""

    def __init__(self, folder: Path, port: int, servers: list[NameServer]) -> None:
        self.ledger = folder / "ledger.jsonl"
        config = {
            "host": "population.example",
            "port": port,
            "name_servers": [["127.0.0.1", server.port] for server in servers],
            "table": "persons",
            "ledger": str(self.ledger),
            "writers": 1,
            "seconds": 0,
            "pause_seconds": 0.005,
            "value_bytes": 10,
            "timeout_seconds": 0.5,
        }
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        self._process = subprocess.Popen(
            [sys.executable, "-S", load.__file__, str(folder / "config.json")],
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def entries(self) -> list[dict[str, Any]]:
        text = self.ledger.read_text(encoding="utf-8") if self.ledger.exists() else ""
        return [json.loads(line) for line in text.splitlines() if line.endswith("}")]

    def outcomes(self, since: int = 0) -> collections.Counter[str]:
        return collections.Counter(entry["t"] for entry in self.entries()[since:])

    def wait_for(self, outcome: str, count: int = 3) -> int:
        """Wait until an outcome has come so often from here on. Returns how many entries there are."""
        begin = len(self.entries())
        until(lambda: self.outcomes(begin)[outcome] >= count, f"{count} × {outcome}")
        return len(self.entries())

    def stop(self) -> dict[str, Any]:
        self._process.terminate()
        said, _ = self._process.communicate(timeout=10)
        summary: dict[str, Any] = json.loads(said)
        return summary


@contextlib.contextmanager
def loading(folder: Path, port: int, servers: list[NameServer]) -> Iterator[Load]:
    running = Load(folder, port, servers)
    try:
        yield running
    finally:
        if running._process.poll() is None:
            running._process.kill()
        running._process.communicate()


def test_what_each_answer_means(tmp_path: Path, home: Register, first: NameServer) -> None:
    meanings: dict[int | str, str] = {
        503: "refused",
        500: "unknown",
        "cut": "unknown",
        "odd": "unknown",
        422: "refused",
    }
    with loading(tmp_path, home.port, [first]) as running:
        running.wait_for("acked")
        for status, outcome in meanings.items():
            home.status = status
            running.wait_for(outcome)
        home.status = 200
        running.wait_for("acked")
        summary = running.stop()
    found = running.outcomes()
    assert all(summary[outcome] == found[outcome] for outcome in ("acked", "refused", "unknown"))
    assert summary["failed_requests"] == found["refused"] + found["unknown"] >= 15
    ended = [entry["id"] for entry in running.entries() if entry["t"] in ("acked", "refused", "unknown")]
    assert len(ended) == len(set(ended)) == found["intent"], "an id was used again"
    assert set(home.seen.values()) == {1}, "a request was sent twice"


def test_an_order_to_end_reaches_the_one_that_waits_for_it(
    tmp_path: Path, home: Register, first: NameServer
) -> None:
    """Whoever else of the load runs at that moment: a writer that took it would leave the load going on for ever."""
    ends = 1 << (signal.SIGTERM - 1) | 1 << (signal.SIGINT - 1)
    with loading(tmp_path, home.port, [first]) as running:
        running.wait_for("acked")
        everyone = Path(f"/proc/{running.pid}/task").iterdir()
        writers = [thread for thread in everyone if thread.name != str(running.pid)]
        assert writers
        for thread in writers:
            lines = (thread / "status").read_text(encoding="ascii").splitlines()
            blocked = next(line.split()[1] for line in lines if line.startswith("SigBlk:"))
            assert int(blocked, 16) & ends == ends, f"{thread.name} may be woken by it"
        running.stop()


def test_nobody_listening_is_surely_not_done(tmp_path: Path, home: Register, first: NameServer) -> None:
    first.address = "127.0.0.4"
    with loading(tmp_path, home.port, [first]) as running:
        running.wait_for("refused")
        running.stop()
    assert running.outcomes()["unknown"] == 0


def test_the_embassys_name_server_is_asked_first_and_the_second_when_it_is_silent(
    tmp_path: Path, home: Register, first: NameServer, second: NameServer
) -> None:
    home.status = 503  # so that each request is a new connection
    with loading(tmp_path, home.port, [first, second]) as running:
        running.wait_for("refused", 5)
        assert first.asked >= 5
        assert second.asked == 0
        first.address = None
        begun = time.monotonic()
        running.wait_for("refused", 2)
        assert second.asked >= 2
        assert time.monotonic() - begun < 2 * (load.RESOLVE_SECONDS_MAX + SECONDS)
        running.stop()


def test_a_name_is_looked_up_at_each_connect_and_a_moved_one_followed_at_once(
    tmp_path: Path, home: Register, embassy: Register, first: NameServer
) -> None:
    with loading(tmp_path, home.port, [first]) as running:
        running.wait_for("acked", 5)
        assert first.asked == 1, "a connection that works is kept"
        first.address = "127.0.0.3"
        running.wait_for("acked", 5)
        assert not embassy.seen
        home.status = 503
        until(lambda: bool(embassy.seen), "the writer has followed the name")
        running.stop()
    acked = [entry for entry in running.entries() if entry["t"] == "acked"]
    assert {entry["to"] for entry in acked} == {"127.0.0.2", "127.0.0.3"}
    assert all(entry["to"] == entry["site"] for entry in acked)
    assert running.outcomes()["refused"] == 1, "the next connect went to the new address at once"
