"""Decides what an append to the log costs beside a raw durable insert of the same row.

Both lie on the same disk in WAL with synchronous=FULL, both rows have the same columns, size and index, and
the two take turns row by row, so that a slow moment of the disk hits both.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from bench.figures import Figure, Limit
from orchestrator.core.events import StepSucceeded
from orchestrator.core.inputs import At
from orchestrator.core.log import GENESIS, Append
from orchestrator.core.values import Json
from orchestrator.stores.codec import EVENT_SCHEMA, encode
from orchestrator.stores.sqlite import SqliteStore

SECTION = "append"
ROWS = 600
ROWS_QUICK = 20
STREAM = "run:failover-bnch"
EVIDENCE: dict[str, Json] = {
    "lsn": "0/3A0012F8",
    "timeline": 2,
    "system": "7412345678901234567",
    "sessions": 0,
    "at": "home",
}
RAW_SCHEMA = """
CREATE TABLE events(
  seq INTEGER PRIMARY KEY, stream TEXT NOT NULL, stream_seq INTEGER NOT NULL, kind TEXT NOT NULL,
  at INTEGER NOT NULL, body TEXT NOT NULL, schema INTEGER NOT NULL, prev TEXT NOT NULL, hash TEXT NOT NULL,
  UNIQUE(stream, stream_seq))"""


def measure(folder: Path, *, quick: bool) -> list[Figure]:
    count = ROWS_QUICK if quick else ROWS
    ours, raw = _take_turns(folder, count)
    warm = min(len(ours) // 10, 20)  # the first rows make the files grow
    return [
        Figure(
            SECTION,
            "append of one event, durable",
            "ms",
            tuple(ours[warm:]),
            "raw INSERT, durable",
            tuple(raw[warm:]),
            Limit(ratio_max=2.0),
        )
    ]


def _take_turns(folder: Path, count: int) -> tuple[list[float], list[float]]:
    store = SqliteStore(folder / "ours.db")
    plain = sqlite3.connect(folder / "raw.db", isolation_level=None)
    plain.execute("PRAGMA journal_mode=WAL")
    plain.execute("PRAGMA synchronous=FULL")
    plain.execute(RAW_SCHEMA)
    ours, raw = [], []
    for number in range(count):
        moment = At(1_800_000_000_000_000_000 + number, number)
        event = StepSucceeded(moment, f"registers-db/step-{number}", 1, EVIDENCE)
        started = time.perf_counter()
        store.append([Append(STREAM, number, (event,))])
        ours.append((time.perf_counter() - started) * 1000)

        row = (number + 1, STREAM, number + 1, event.KIND, moment.utc_ns, encode(event), EVENT_SCHEMA)
        started = time.perf_counter()
        plain.execute("BEGIN IMMEDIATE")
        plain.execute("INSERT INTO events VALUES(?,?,?,?,?,?,?,?,?)", (*row, GENESIS, GENESIS))
        plain.execute("COMMIT")
        raw.append((time.perf_counter() - started) * 1000)
    _must_be_the_same_rows(store, plain, count)
    store.close()
    plain.close()
    return ours, raw


def _must_be_the_same_rows(store: SqliteStore, plain: sqlite3.Connection, count: int) -> None:
    kept = store.read(STREAM)
    bodies = [encode(record.event) for record in kept]
    rows = [body for (body,) in plain.execute("SELECT body FROM events ORDER BY seq")]
    if len(kept) != count or bodies != rows or store.verify():
        raise AssertionError("the two logs do not hold the same rows")
