"""Clients that know only home, and try to write there on every path: front door, register, direct SQL.

Stands outside both sites and imports nothing of the project; keeps a ledger as the lab's load does (intent
before it is sent, then acked | refused | unknown; nanoseconds of CLOCK_MONOTONIC, one clock for this
machine), so that the same checker judges its rows. Run as a program by path: ``prober.py CONFIG.json``;
SIGTERM ends it after the requests under way. CONFIG: {"ledger", "host", "front": [ADDRESS, PORT], "inside":
[ADDRESS, PORT], "conninfo", "timeout_seconds", "pause_seconds"}.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psycopg

TABLE = "persons"
WRITE = "INSERT INTO persons (id, value, site, epoch) VALUES (%s, %s, 'home', %s)"
AFTER_FAILURE_SECONDS = 0.02
READ_ONLY = "25006"

Told = tuple[str, dict[str, Any]]


class Way(threading.Thread):
    """One way into home, tried again and again, each write with an id of its own."""

    way = ""

    def __init__(self, config: dict[str, Any], ledger: int, run: str, stop: threading.Event) -> None:
        super().__init__(daemon=True, name=self.way)
        self._config = config
        self._ledger = ledger
        self._prefix = f"{run}-{self.way}"
        self._stop_order = stop

    def run(self) -> None:
        count = 0
        while not self._stop_order.is_set():
            count += 1
            identifier = f"{self._prefix}-{count}"
            value = f"{identifier} {secrets.token_hex(8)}"
            self._write({"t": "intent", "table": TABLE, "id": identifier, "value": value})
            outcome, more = self.attempt(identifier, value)
            self._write({"t": outcome, "id": identifier, "to": self.way, **more})
            pause = self._config["pause_seconds"] if outcome == "acked" else AFTER_FAILURE_SECONDS
            self._stop_order.wait(pause)

    def _write(self, entry: dict[str, Any]) -> None:
        line = json.dumps({**entry, "at_ns": time.monotonic_ns()}, separators=(",", ":")).encode() + b"\n"
        os.write(self._ledger, line)

    def attempt(self, identifier: str, value: str) -> Told:
        raise NotImplementedError


class Http(Way):
    """A PUT to one address, whatever names say."""

    def attempt(self, identifier: str, value: str) -> Told:
        address, port = self._config[self.way]
        connection = http.client.HTTPConnection(address, port, timeout=self._config["timeout_seconds"])
        try:
            try:
                connection.connect()
            except OSError as error:
                return "refused", {"why": f"no connection: {error}"}
            headers = {"Host": self._config["host"]}
            connection.request("PUT", f"/{TABLE}/{identifier}", body=value.encode(), headers=headers)
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            return "unknown", {"why": f"{type(error).__name__}: {error}"}
        finally:
            connection.close()
        if answer.status == 200:
            said = json.loads(body)
            return "acked", {"site": said["site"], "epoch": said["epoch"]}
        return ("refused" if answer.status == 503 else "unknown"), {"why": f"HTTP {answer.status}"}


class Front(Http):
    way = "front"


class Inside(Http):
    way = "inside"


class Sql(Way):
    """A session of the register's own role that compares nothing with its site: the rudest client."""

    way = "sql"
    _session: psycopg.Connection[Any] | None = None
    _epoch = 0

    def attempt(self, identifier: str, value: str) -> Told:
        try:
            if self._session is None or self._session.closed:
                self._session = psycopg.connect(self._config["conninfo"], autocommit=True)
                row = self._session.execute("SELECT epoch FROM continuity.writer").fetchone()
                self._epoch = row[0] if row else 0
        except psycopg.Error as error:
            return self._lost("refused", error)
        give_up = threading.Timer(self._config["timeout_seconds"], _hang_up, (self._session.fileno(),))
        give_up.start()
        try:
            self._session.execute(WRITE, (identifier, value, self._epoch))
        except psycopg.Error as error:
            return self._lost("refused" if error.sqlstate == READ_ONLY else "unknown", error)
        finally:
            give_up.cancel()
        return "acked", {"site": "home", "epoch": self._epoch}

    def _lost(self, outcome: str, error: psycopg.Error) -> Told:
        if self._session is not None:
            self._session.close()
        self._session = None
        return outcome, {"why": str(error).strip()[:120]}


def _hang_up(descriptor: int) -> None:
    """Close the line as a client does that has lost patience. The server is asked nothing: a cancelled wait
    for a standby would be reported as a success."""
    with socket.socket(fileno=os.dup(descriptor)) as line:
        line.shutdown(socket.SHUT_RDWR)


def main(config: dict[str, Any]) -> int:
    run = f"probe{secrets.token_hex(3)}"
    ledger = os.open(config["ledger"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    begin = {"t": "begin", "run": run, "table": TABLE, "host": config["host"], "at_ns": time.monotonic_ns()}
    os.write(ledger, json.dumps(begin).encode() + b"\n")
    signal.pthread_sigmask(
        signal.SIG_BLOCK, (signal.SIGTERM,)
    )  # before any thread is there: as the load does
    stop = threading.Event()
    ways = [kind(config, ledger, run, stop) for kind in (Front, Inside, Sql)]
    for way in ways:
        way.start()
    signal.sigwait((signal.SIGTERM,))
    stop.set()
    for way in ways:
        way.join(config["timeout_seconds"] + 3)
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
