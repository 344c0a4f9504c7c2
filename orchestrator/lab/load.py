"""Writers at the front door and their ledger. Stands outside both sites and imports nothing of the project.

Each writer resolves the name at every connect, the embassy's name server first and home's second, and sends
one request after another. **What it means to send is in the ledger before it is sent**; the outcome follows:

    acked    the register acknowledged it: site, epoch and LSN of the write are in the answer
    refused  surely not done (no connection, or 503)
    unknown  nobody knows (time-out, connection lost, 500): never counted as lost, never sent again

Ledger: one JSON object a line. Times are nanoseconds of CLOCK_MONOTONIC, one clock for this whole machine.
Run as a program by path: ``load.py CONFIG.json``; SIGTERM or SIGINT ends it after the requests under way.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import secrets
import signal
import socket
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any

RESOLVE_SECONDS_MAX = 0.15
CONNECT_SECONDS_MAX = 0.5
PAUSE_AFTER_FAILURE_SECONDS = 0.01
QUERY_A, CLASS_IN = 1, 1
ENDS = (signal.SIGTERM, signal.SIGINT)


class Ledger:
    """Append-only lines; a line is complete or absent, also when this process is killed."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._lock = threading.Lock()
        self.acked = self.refused = self.unknown = 0

    def write(self, entry: dict[str, Any]) -> None:
        line = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            os.write(self._descriptor, line)

    def count(self, outcome: str) -> None:
        with self._lock:
            setattr(self, outcome, getattr(self, outcome) + 1)


def resolve(name: str, servers: list[tuple[str, int]]) -> str:
    """The first address that a name server gives, asked in order. OSError when none does."""
    number = random.getrandbits(16)
    labels = b"".join(bytes([len(part)]) + part for part in name.rstrip(".").encode("ascii").split(b"."))
    question = (
        struct.pack("!HHHHHH", number, 0, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", QUERY_A, CLASS_IN)
    )
    for server in servers:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(RESOLVE_SECONDS_MAX)
            try:
                asking.connect(server)
                asking.send(question)
                address = first_address(asking.recv(4096), number, len(question))
            except OSError:
                continue
        if address is not None:
            return address
    raise OSError(f"no name server gives an address for {name}")


def first_address(reply: bytes, number: int, question_length: int) -> str | None:
    """The first A record of a reply whose names are compressed or plain; None when there is none."""
    if len(reply) < question_length or struct.unpack("!H", reply[:2])[0] != number or reply[3] & 0x0F:
        return None
    at = question_length
    for _ in range(struct.unpack("!H", reply[6:8])[0]):
        while reply[at] and reply[at] < 0xC0:
            at += reply[at] + 1
        at += 2 if reply[at] >= 0xC0 else 1
        kind, _, _, length = struct.unpack("!HHIH", reply[at : at + 10])
        at += 10
        if kind == QUERY_A and length == 4:
            return socket.inet_ntoa(reply[at : at + 4])
        at += length
    return None


class Writer(threading.Thread):
    """One client: its own ids, its own connection."""

    def __init__(
        self, config: dict[str, Any], run: str, number: int, ledger: Ledger, stop: threading.Event
    ) -> None:
        super().__init__(daemon=True, name=f"writer {number}")
        self._config = config
        self._prefix = f"{run}-{number}"
        self._ledger = ledger
        self._stop_order = stop
        self._connection: http.client.HTTPConnection | None = None
        self._address = ""

    def run(self) -> None:
        count = 0
        while not self._stop_order.is_set():
            count += 1
            outcome = self._one(f"{self._prefix}-{count}")
            self._ledger.count(outcome)
            pause = self._config["pause_seconds"] if outcome == "acked" else PAUSE_AFTER_FAILURE_SECONDS
            self._stop_order.wait(pause)
        self._drop()

    def _one(self, identifier: str) -> str:
        value = f"{identifier} {secrets.token_hex(self._config['value_bytes'] // 2)}"
        if self._config["table"] == "parcels":
            value = json.dumps({"owner": "1", "parcel": value})
        intent = {"t": "intent", "table": self._config["table"], "id": identifier, "value": value}
        self._ledger.write({**intent, "at_ns": time.monotonic_ns()})
        outcome, more = self._send(identifier, value)
        self._ledger.write(
            {"t": outcome, "id": identifier, "at_ns": time.monotonic_ns(), "to": self._address, **more}
        )
        if outcome != "acked":
            self._drop()
        return outcome

    def _send(self, identifier: str, value: str) -> tuple[str, dict[str, Any]]:
        try:
            connection = self._connect()
        except OSError as error:
            self._address = ""
            return "refused", {"why": f"no connection: {error}"}
        try:
            path = f"/{self._config['table']}/{identifier}"
            connection.request("PUT", path, body=value.encode(), headers={"Host": self._config["host"]})
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            return "unknown", {"why": f"{type(error).__name__}: {error}"}
        if answer.status == 200:
            try:
                said = json.loads(body)
                return "acked", {"site": said["site"], "epoch": said["epoch"], "lsn": said["lsn"]}
            except (ValueError, KeyError, TypeError) as error:
                return "unknown", {"why": f"200 that cannot be read: {error}"}
        outcome = "refused" if answer.status in (422, 503) else "unknown"
        return outcome, {"why": f"HTTP {answer.status}: {body[:120].decode('utf-8', 'replace')}"}

    def _connect(self) -> http.client.HTTPConnection:
        if self._connection is not None:
            return self._connection
        servers = [(str(address), int(port)) for address, port in self._config["name_servers"]]
        self._address = resolve(self._config["host"], servers)
        connection = http.client.HTTPConnection(
            self._address, self._config["port"], timeout=CONNECT_SECONDS_MAX
        )
        connection.connect()
        connection.sock.settimeout(self._config["timeout_seconds"])
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection
        return connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def main(config: dict[str, Any]) -> int:
    """Write until told to stop or ``seconds`` (0: no end) are over. Prints a summary as JSON."""
    # Blocked before the ledger or any writer is there, in all of them: a handler is run by the main thread, and the signal may
    # reach it just before it sleeps, or wake another one.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
    run = f"load{secrets.token_hex(3)}"
    ledger = Ledger(Path(config["ledger"]))
    ledger.write(
        {
            "t": "begin",
            "run": run,
            "table": config["table"],
            "host": config["host"],
            "at_ns": time.monotonic_ns(),
        }
    )
    stop = threading.Event()
    writers = [Writer(config, run, number, ledger, stop) for number in range(config["writers"])]
    for writer in writers:
        writer.start()
    if config["seconds"]:
        signal.sigtimedwait(ENDS, config["seconds"])
    else:
        signal.sigwait(ENDS)
    stop.set()
    for writer in writers:
        writer.join(config["timeout_seconds"] + CONNECT_SECONDS_MAX + 1)
    ledger.write({"t": "end", "run": run, "at_ns": time.monotonic_ns()})
    failed = ledger.refused + ledger.unknown
    counts = {"acked": ledger.acked, "refused": ledger.refused, "unknown": ledger.unknown}
    sys.stdout.write(json.dumps({"run": run, **counts, "failed_requests": failed}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
