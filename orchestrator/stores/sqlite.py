"""Decides how the log lies in one SQLite file: append-only, hash-chained, compare-and-swap.

One connection per process: closing a second one would free the locks of the first (POSIX). Opened
WAL and synchronous=FULL with mode 0600; never put it on a network file system.
"""

from __future__ import annotations

import os
import shlex
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from orchestrator.core.events import Event, RunCreated
from orchestrator.core.log import GENESIS, Append, Recorded, link, sha256_of
from orchestrator.errors import ConflictError, DamagedLogError, JournalError, LogFileError
from orchestrator.stores.codec import EVENT_SCHEMA, decode, encode

BUSY_TIMEOUT_SECONDS = 10.0
PRIMARY_CODE = 0xFF  # of an extended result code of SQLite
DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events(
  seq INTEGER PRIMARY KEY,
  stream TEXT NOT NULL,
  stream_seq INTEGER NOT NULL,
  kind TEXT NOT NULL,
  at INTEGER NOT NULL,
  body TEXT NOT NULL,
  schema INTEGER NOT NULL,
  prev TEXT NOT NULL,
  hash TEXT NOT NULL,
  UNIQUE(stream, stream_seq)
);
CREATE TABLE IF NOT EXISTS plans(digest TEXT PRIMARY KEY, body TEXT NOT NULL);
CREATE TRIGGER IF NOT EXISTS events_never_change BEFORE UPDATE ON events
  BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;
CREATE TRIGGER IF NOT EXISTS events_never_go BEFORE DELETE ON events
  BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;
"""
_SELECT = "SELECT seq, stream, stream_seq, kind, body, hash FROM events WHERE "
_INSERT = "INSERT INTO events VALUES(?,?,?,?,?,?,?,?,?)"


def _connected(name: str, *, uri: bool = False) -> sqlite3.Connection:
    return sqlite3.connect(
        name, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False, uri=uri
    )


def _at_rest(path: Path) -> tuple[int, ...]:
    """What tells that nobody has written to a log since, where no write-ahead log lies beside it; (): one does."""
    if path.with_name(f"{path.name}-wal").exists():
        return ()
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _opened_to_read(path: Path) -> tuple[sqlite3.Connection, tuple[int, ...]]:
    """A log that cannot be written to: a copy on read-only media, another user's. Where no write-ahead log lies
    beside it, it is at rest and read as it is now (with the second value: as what). What such a log holds SQLite
    reads only together with the file that processes share, which somebody who may write there must have made
    (https://sqlite.org/wal.html)."""
    rest = _at_rest(path)
    db = _connected(f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if rest else ''}", uri=True)
    try:
        db.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        db.close()
        if rest:
            raise
        raise JournalError(
            f"{path}: its newest entries lie in {path.name}-wal, and can only be read where one may write: copy both "
            "files to a folder of your own, beside estate.yaml as they lie here"
        ) from error
    return db, rest


def _damaged(path: Path, error: Exception) -> DamagedLogError:
    """What is safe to do; a file that SQLite calls damaged is never mended here: what it would leave is no evidence."""
    folder = path.absolute().parent
    return DamagedLogError(
        f"{path}: {error}: the file of the log is damaged; nothing more is begun on it. Keep it as it is and put its last "
        "good copy back (with no -wal and -shm of the damaged one beside it); without a copy, move its folder away and let "
        "the evidence speak: a run that was under way cannot be taken up then",
        (shlex.join(["mv", str(folder), f"{folder}.damaged"]), "continuity adopt --all --by NAME"),
    )


class SqliteStore:
    """The log of one estate. Not for use by several threads at once. Where the folder cannot be written to it
    can be read all the same, and appending is JournalError."""

    def __init__(self, path: Path, *, create: bool = True) -> None:
        self.path = path
        if not path.exists():
            if not create:
                raise JournalError(f"no log at {path}")
            try:
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            except OSError as error:
                raise LogFileError(f"{path}: the log cannot be made: {error.strerror}") from error
        with self._asking():
            may_write = os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
            self._rest: tuple[int, ...] = ()
            if not may_write:
                self._db, self._rest = _opened_to_read(path)
            else:
                self._db = _connected(str(path))
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=FULL")
                if not self._db.execute(
                    "SELECT 1 FROM sqlite_master WHERE name='events_never_go'"
                ).fetchone():
                    self._db.executescript(_SCHEMA)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Whatever SQLite says against it is one error of the log, with its place."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & PRIMARY_CODE in DAMAGED:
                raise _damaged(self.path, error) from error
            raise LogFileError(f"{self.path}: {error}") from error

    def _reading(self) -> sqlite3.Connection:
        """To read by: a log that was at rest is opened anew where somebody has written to it since."""
        if self._rest and self._rest != _at_rest(self.path):
            self._db.close()
            self._db, self._rest = _opened_to_read(self.path)
        return self._db

    def close(self) -> None:
        self._db.close()

    def append(self, appends: Sequence[Append]) -> int:
        """Append to several streams in one transaction. Returns the last seq.

        Raises ConflictError where a stream has moved on, and then nothing was written; JournalError
        (disk full, file gone) with nothing written either.
        """
        db = self._db
        with self._asking():
            db.execute("BEGIN IMMEDIATE")
            try:
                seq = self._write(db, appends)
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
        return seq

    def _write(self, db: sqlite3.Connection, appends: Sequence[Append]) -> int:
        row = db.execute("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1").fetchone()
        seq, last = row or (0, GENESIS)
        rows = []
        for append in appends:
            actual = self._last(db, append.stream)
            if actual != append.expected:
                raise ConflictError(append.stream, append.expected, actual)
            for offset, event in enumerate(append.events, start=1):
                seq += 1
                body = encode(event)
                entry = (seq, append.stream, actual + offset, event.KIND, event.at.utc_ns, body, EVENT_SCHEMA)
                digest = link(last, *entry)
                rows.append((*entry, last, digest))
                last = digest
        db.executemany(_INSERT, rows)
        return seq

    @staticmethod
    def _last(db: sqlite3.Connection, stream: str) -> int:
        row = db.execute("SELECT max(stream_seq) FROM events WHERE stream=?", (stream,)).fetchone()
        return int(row[0] or 0)

    def last_seq(self) -> int:
        with self._asking():
            return int(self._reading().execute("SELECT max(seq) FROM events").fetchone()[0] or 0)

    def read(self, stream: str, after: int = 0) -> list[Recorded]:
        """The events of one stream with stream_seq > ``after``, in order."""
        return self._recorded("stream=? AND stream_seq>? ORDER BY stream_seq", (stream, after))

    def read_all(self, after_seq: int = 0) -> list[Recorded]:
        return self._recorded("seq>? ORDER BY seq", (after_seq,))

    def _recorded(self, which: str, values: tuple[str | int, ...]) -> list[Recorded]:
        with self._asking():
            rows = self._reading().execute(_SELECT + which, values).fetchall()
        return [
            Recorded(seq, of, at, self._event(seq, of, kind, body), h) for seq, of, at, kind, body, h in rows
        ]

    def _event(self, seq: int, stream: str, kind: str, body: str) -> Event:
        try:
            return decode(kind, body)
        except JournalError as error:
            raise JournalError(f"{self.path}: event {seq} of {stream}: {error}") from error

    def streams(self, prefix: str) -> list[str]:
        """Names of the streams that begin with ``prefix``, in the order of their first event."""
        with self._asking():
            rows = (
                self._reading()
                .execute(
                    "SELECT stream FROM events WHERE stream_seq=1 AND substr(stream,1,?)=? ORDER BY seq",
                    (len(prefix), prefix),
                )
                .fetchall()
            )
        return [str(row[0]) for row in rows]

    def version(self) -> int:
        """Changes whenever ANOTHER connection has committed: a few microseconds to ask."""
        with self._asking():
            return int(self._db.execute("PRAGMA data_version").fetchone()[0])

    def put_plan(self, name: str, body: str) -> None:
        with self._asking():
            self._db.execute("INSERT OR IGNORE INTO plans VALUES(?,?)", (name, body))

    def get_plan(self, name: str) -> str:
        with self._asking():
            body = self._plan(name)
        if body is None:
            raise JournalError(f"{self.path}: no plan {name[:12]} lies beside the log")
        return body

    def _plan(self, name: str) -> str | None:
        row = self._db.execute("SELECT body FROM plans WHERE digest=?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def verify(self, newest: int = 0) -> list[str]:
        """Every break of the hash chain, as text, and every plan beside it that is not the one its run began
        with; [] = all is whole. About 2 ms for 1,000 events."""
        with self._asking():
            head = self._db.execute("SELECT max(seq) FROM events").fetchone()[0] or 0
            after = max(0, head - newest) if newest else 0
            return [*self._breaks(after), *self._changed_plans(after)]

    def _changed_plans(self, after: int) -> list[str]:
        """The chain covers the hash of a plan's text, so it covers the text."""
        rows = self._db.execute(
            "SELECT seq, stream, body FROM events WHERE seq>? AND kind=? ORDER BY seq",
            (after, RunCreated.KIND),
        ).fetchall()
        problems = []
        for seq, stream, body in rows:
            try:
                event = decode(RunCreated.KIND, body)
            except JournalError:
                continue  # that entry was changed, which the chain has said
            name = event.plan_sha256 if isinstance(event, RunCreated) else ""
            if name and sha256_of(self._plan(name) or "") != name:
                problems.append(f"event {seq} ({stream}): the plan beside the log was changed or taken away")
        return problems

    def _breaks(self, after: int) -> list[str]:
        problems, expected_seq, last = [], after + 1, GENESIS
        if after:
            row = self._db.execute("SELECT hash FROM events WHERE seq=?", (after,)).fetchone()
            problems += [] if row else [f"event {after} is missing"]
            last = row[0] if row else ""
        rows = self._db.execute(
            "SELECT seq, stream, stream_seq, kind, at, body, schema, prev, hash FROM events"
            " WHERE seq>? ORDER BY seq",
            (after,),
        )
        for seq, stream, stream_seq, kind, at, body, schema, prev, digest in rows:
            if seq != expected_seq:
                problems.append(f"event {expected_seq} is missing")
                expected_seq = seq
            if prev != last:
                problems.append(f"event {seq}: does not follow the event before it")
            if link(prev, seq, stream, stream_seq, kind, at, body, schema) != digest:
                problems.append(f"event {seq} ({kind} of {stream}): was changed after it was written")
            expected_seq, last = expected_seq + 1, digest
        return problems
