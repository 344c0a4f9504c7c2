"""Decides what a state register's HTTP service answers: population (persons) and land (parcels).

The contract that lets a planned switch lose no request: **503 is said only for what was surely not done,
500 when nobody knows**. A write compares the epoch row's site with its own in the writing statement itself,
so a database that was promoted or came back stays closed. A refusal is remembered for 50 ms and answered
after 10 ms, and then it looks before it writes again: nothing that writes is under way when the database
stops, and retries are paced. Run as a program:
``python -m orchestrator.lab.registry CONFIG.json``.
"""

from __future__ import annotations

import http.client
import http.server
import json
import os
import queue
import select
import socketserver
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

REFUSAL_SECONDS = 0.05
PACE_SECONDS = 0.01
HEARTBEAT_SECONDS = 1.0
ASK_OWNER_SECONDS_MAX = 0.5
SESSIONS_MAX = 24  # commits that wait for a lost embassy must not use up the server's connections
SESSION_SECONDS_MAX = 0.2
BODY_BYTES_MAX = 64 * 1024

WRITE = {
    "persons": """
INSERT INTO persons (id, value, site, epoch)
    SELECT %(id)s, %(value)s, writer.site, writer.epoch FROM continuity.writer WHERE writer.site = %(site)s
ON CONFLICT (id) DO UPDATE SET value = excluded.value, site = excluded.site, epoch = excluded.epoch,
    at = excluded.at
RETURNING epoch, pg_current_wal_insert_lsn()::text""",
    "parcels": """
INSERT INTO parcels (id, value, owner, site, epoch)
    SELECT %(id)s, %(value)s, %(owner)s, writer.site, writer.epoch FROM continuity.writer
    WHERE writer.site = %(site)s
ON CONFLICT (id) DO UPDATE SET value = excluded.value, owner = excluded.owner, site = excluded.site,
    epoch = excluded.epoch, at = excluded.at
RETURNING epoch, pg_current_wal_insert_lsn()::text""",
}
READ = {
    "persons": "SELECT id, value, site, epoch, NULL FROM persons WHERE id = %s",
    "parcels": "SELECT id, value, site, epoch, owner FROM parcels WHERE id = %s",
}
STATE = """
SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only') = 'on', epoch, site
FROM continuity.writer"""
HEARTBEAT = """
UPDATE continuity.heartbeat SET at = clock_timestamp(), waits = current_setting('synchronous_standby_names') <> ''
    AND current_setting('synchronous_commit') NOT IN ('off', 'local')
FROM continuity.writer WHERE writer.site = %s"""


class NotReachedError(Exception):
    """No session could be had: nothing was sent."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: dict[str, Any]


class Sessions:
    """Database sessions that are looked at before they are used: one whose server said goodbye is dropped."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        self._parameters = parameters
        self._idle: queue.LifoQueue[psycopg.Connection[Any]] = queue.LifoQueue()
        self._free = threading.BoundedSemaphore(SESSIONS_MAX)

    def take(self) -> psycopg.Connection[Any]:
        """A session of which nothing is known to be wrong; give it back or drop it. NotReachedError."""
        if not self._free.acquire(timeout=SESSION_SECONDS_MAX):
            raise NotReachedError("all sessions are waiting")
        while True:
            try:
                session = self._idle.get_nowait()
            except queue.Empty:
                break
            if not session.closed and not select.select([session.fileno()], [], [], 0)[0]:
                return session
            session.close()
        try:
            return psycopg.connect(autocommit=True, **self._parameters)
        except psycopg.Error as error:
            self._free.release()
            raise NotReachedError(str(error).strip()[:200]) from error

    def give_back(self, session: psycopg.Connection[Any]) -> None:
        self._idle.put_nowait(session)
        self._free.release()

    def drop(self, session: psycopg.Connection[Any]) -> None:
        session.close()
        self._free.release()


class Register:
    """One register at one site."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.site: str = config["site"]
        self.table: str = config["table"]
        self._persons_at: tuple[str, int] | None = (
            tuple(config["persons_at"]) if config["persons_at"] else None
        )
        parameters = dict(config["database"])
        parameters["password"] = Path(parameters.pop("password_file")).read_text(encoding="utf-8").strip()
        self._parameters = parameters
        self._sessions = Sessions(parameters)
        self._closed_until = 0.0
        self._was_closed = False

    def ready(self) -> Answer:
        """200 when the database answers, whoever may write; ``writes`` says whether writes are taken here."""
        try:
            session = self._sessions.take()
        except NotReachedError as error:
            return self._refuse(str(error))
        try:
            row = session.execute(STATE).fetchone()
        except psycopg.Error as error:
            self._sessions.drop(session)
            return self._refuse(str(error))
        self._sessions.give_back(session)
        if row is None:
            return self._refuse("no epoch row: continuity epoch install registers-db")
        standby, read_only, epoch, writer = row
        writes = not standby and not read_only and writer == self.site
        role = "standby" if standby else "primary"
        return Answer(200, {"site": self.site, "role": role, "writes": writes, "epoch": epoch})

    def read(self, identifier: str) -> Answer:
        try:
            session = self._sessions.take()
        except NotReachedError as error:
            return self._refuse(str(error))
        try:
            row = session.execute(READ[self.table], (identifier,)).fetchone()
        except psycopg.Error as error:
            self._sessions.drop(session)
            return self._refuse(str(error))  # a read changes nothing: it may be asked elsewhere
        self._sessions.give_back(session)
        if row is None:
            return Answer(404, {"site": self.site, "error": f"no {identifier} in {self.table}"})
        found = {"site": self.site, "id": row[0], "value": row[1], "written_at": row[2], "epoch": row[3]}
        return Answer(200, found if row[4] is None else {**found, "owner": row[4]})

    def write(self, identifier: str, body: str) -> Answer:
        """Insert or replace one row. The acknowledgement carries site, epoch and LSN of this very write."""
        if time.monotonic() < self._closed_until:
            return self._refuse("closed a moment ago")
        if self._was_closed and not self._looks_open():
            return self._refuse("still closed")
        values = {"id": identifier, "value": body, "site": self.site}
        if self._persons_at is not None:
            owner = self._owner(body)
            if isinstance(owner, Answer):
                return owner
            values["owner"] = owner
        try:
            session = self._sessions.take()
        except NotReachedError as error:
            return self._refuse(str(error))
        return self._write_by(session, values)

    def _looks_open(self) -> bool:
        """After a refusal only a look is under way, never a write: a server that stops now breaks off a
        look, and the request was surely not done."""
        found = self.ready()
        if found.status == 200 and found.body["writes"]:
            self._was_closed = False
            return True
        self._close()
        return False

    def _close(self) -> None:
        self._was_closed = True
        self._closed_until = time.monotonic() + REFUSAL_SECONDS

    def _write_by(self, session: psycopg.Connection[Any], values: dict[str, str]) -> Answer:
        try:
            row = session.execute(WRITE[self.table], values).fetchone()
        except psycopg.errors.ReadOnlySqlTransaction:
            self._sessions.give_back(session)
            self._close()
            return self._refuse("read-only")
        except psycopg.Error as error:
            self._sessions.drop(session)
            return Answer(500, {"site": self.site, "error": f"outcome unknown: {str(error).strip()[:200]}"})
        self._sessions.give_back(session)
        if row is None:
            self._close()
            return self._refuse("another site holds the epoch")
        return Answer(200, {"site": self.site, "epoch": row[0], "lsn": row[1], "id": values["id"]})

    def _owner(self, body: str) -> str | Answer:
        """A parcel's owner must exist in the population register of this site, which is asked over HTTP."""
        assert self._persons_at is not None
        try:
            owner = str(json.loads(body)["owner"])
        except (ValueError, KeyError, TypeError):
            return Answer(422, {"site": self.site, "error": 'a parcel is JSON with an "owner"'})
        connection = http.client.HTTPConnection(*self._persons_at, timeout=ASK_OWNER_SECONDS_MAX)
        try:
            connection.request("GET", f"/persons/{owner}")
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            return self._refuse(f"the population register does not answer: {error}")
        finally:
            connection.close()
        if status == 404:
            return Answer(422, {"site": self.site, "error": f"no person {owner}"})
        return owner if status == 200 else self._refuse(f"the population register answered {status}")

    def _refuse(self, why: str) -> Answer:
        """Surely not done. Each refusal takes a moment: a proxy that tries again must not use up its tries."""
        time.sleep(PACE_SECONDS)
        return Answer(503, {"site": self.site, "error": why})

    def beat(self) -> None:
        """Write the heartbeat row each second while this site holds the epoch; never returns."""
        session: psycopg.Connection[Any] | None = None
        while True:
            try:
                if session is None or session.closed:
                    session = psycopg.connect(autocommit=True, **self._parameters)
                session.execute(HEARTBEAT, (self.site,))
            except psycopg.errors.ReadOnlySqlTransaction:
                pass  # a standby, or closed: the row comes from the other site
            except psycopg.Error:
                if session is not None:
                    session.close()
                session = None
            time.sleep(HEARTBEAT_SECONDS)


def handler(register: Register) -> type[http.server.BaseHTTPRequestHandler]:
    prefix = f"/{register.table}/"

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            if self.path == "/readyz":
                self._answer(register.ready())
            elif self.path.startswith(prefix):
                self._answer(register.read(self.path.removeprefix(prefix)))
            else:
                self._answer(Answer(404, {"site": register.site, "error": "no such path"}))

        def do_PUT(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(min(length, BODY_BYTES_MAX)).decode("utf-8", "replace")
            if length > BODY_BYTES_MAX or not self.path.startswith(prefix):
                self.close_connection = True
                self._answer(Answer(413 if length > BODY_BYTES_MAX else 404, {"site": register.site}))
            else:
                self._answer(register.write(self.path.removeprefix(prefix), body))

        def _answer(self, answer: Answer) -> None:
            body = json.dumps(answer.body).encode()
            self.send_response(answer.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Each request is in the client's ledger; a log of them would only cost."""

    return Handler


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of the register."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def main(path: str) -> None:
    config = json.loads(Path(path).read_text(encoding="utf-8"))
    register = Register(config)
    server = Server((config["address"], config["port"]), handler(register))
    threading.Thread(target=register.beat, daemon=True, name="heartbeat").start()
    server.serve_forever(poll_interval=60)


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except KeyboardInterrupt:
        os._exit(0)
