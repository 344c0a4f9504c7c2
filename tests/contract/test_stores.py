"""One contract, every store: ``ports.Store`` as the journal relies on it."""

from __future__ import annotations

import multiprocessing
import os
import re
import resource
import signal
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.core.events import GroupAdopted, RunReady, StepStarted
from orchestrator.core.log import Append
from orchestrator.errors import ConflictError, DamagedLogError, JournalError
from orchestrator.ports import Store
from orchestrator.stores.memory import MemoryStore
from orchestrator.stores.sqlite import SqliteStore
from tests.builders import at, created

APPENDS_EACH = 40
MakeStore = Callable[[], Store]


@pytest.fixture(params=["memory", "sqlite"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeStore]:
    """Opens the same log each time it is called, as another user of it would."""
    opened: list[Store] = []
    memory = MemoryStore()

    def open_log() -> Store:
        store = memory if request.param == "memory" else SqliteStore(tmp_path / "deep" / "journal.db")
        opened.append(store)
        return store

    yield open_log
    for store in opened:
        store.close()


def started(number: int) -> StepStarted:
    return StepStarted(at(number), "db/promote", number)


def adopted(name: str = "g") -> GroupAdopted:
    return GroupAdopted(at(0), name, "home", 1, "protected", "ann", {"lsn": "0/10", "rows": [1, None, True]})


def test_what_is_appended_is_read_back_in_order(make: MakeStore) -> None:
    store = make()
    assert store.append([Append("run:r", 0, (created(), RunReady(at(1))))]) == 2
    assert store.append([Append("run:r", 2, (started(1),)), Append("group:g", 0, (adopted(),))]) == 4
    assert [r.event for r in store.read("run:r")] == [created(), RunReady(at(1)), started(1)]
    assert [r.stream_seq for r in store.read("run:r")] == [1, 2, 3]
    assert [r.event for r in store.read("run:r", 2)] == [started(1)]
    assert [(r.seq, r.stream) for r in store.read_all(2)] == [(3, "run:r"), (4, "group:g")]
    assert [r.event for r in make().read("group:g")] == [adopted()]
    assert store.read("run:nobody") == []
    assert store.verify() == []


def test_streams_are_listed_by_their_first_event(make: MakeStore) -> None:
    store = make()
    for name in ("run:b", "group:g", "run:a"):
        store.append([Append(name, 0, (RunReady(at(0)),))])
    store.append([Append("run:b", 1, (RunReady(at(1)),))])
    assert store.streams("run:") == ["run:b", "run:a"]
    assert store.streams("group:") == ["group:g"]
    assert store.streams("run:a%") == []


def test_a_stream_that_moved_on_refuses_and_nothing_is_written(make: MakeStore) -> None:
    store, other = make(), make()
    store.append([Append("run:r", 0, (created(),))])
    with pytest.raises(ConflictError) as conflict:
        other.append([Append("group:g", 0, (adopted(),)), Append("run:r", 0, (created(),))])
    assert (conflict.value.stream, conflict.value.expected, conflict.value.actual) == ("run:r", 0, 1)
    assert store.read("group:g") == []
    assert len(store.read_all()) == 1


def test_plans_lie_beside_the_log_and_never_change(make: MakeStore) -> None:
    store = make()
    store.put_plan("d1", "one")
    store.put_plan("d1", "another")
    assert make().get_plan("d1") == "one"
    with pytest.raises(JournalError, match="no plan"):
        store.get_plan("d2")


def test_both_stores_link_the_same_chain(tmp_path: Path) -> None:
    memory = MemoryStore()
    with closing(SqliteStore(tmp_path / "journal.db")) as sqlite:
        for store in (memory, sqlite):
            store.append(
                [Append("run:r", 0, (created(), RunReady(at(1)))), Append("group:g", 0, (adopted(),))]
            )
            store.append([Append("run:r", 2, (started(1),))])
        assert memory.head() == sqlite.read_all()[-1].hash


# --- SQLite alone -----------------------------------------------------------------------------


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "journal.db")
    store.append([Append("run:r", 0, (created(), *(started(n) for n in range(1, 6))))])
    yield store
    store.close()


def test_the_file_is_for_its_owner_only(log: SqliteStore) -> None:
    for path in log.path.parent.glob("journal.db*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name


def test_a_missing_log_is_not_made_by_readers(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="no log at"):
        SqliteStore(tmp_path / "nothing.db", create=False)
    assert list(tmp_path.iterdir()) == []


def test_version_moves_only_for_what_others_wrote(log: SqliteStore) -> None:
    before = log.version()
    log.append([Append("run:r", 6, (started(6),))])
    assert log.version() == before
    with closing(SqliteStore(log.path)) as other:
        other.append([Append("run:r", 7, (started(7),))])
    assert log.version() != before


def test_the_log_itself_refuses_to_be_changed(log: SqliteStore) -> None:
    with closing(sqlite3.connect(log.path)) as raw:
        for statement in ("UPDATE events SET body='{}' WHERE seq=2", "DELETE FROM events WHERE seq=2"):
            with pytest.raises(sqlite3.DatabaseError, match="append-only"):
                raw.execute(statement)


@pytest.mark.parametrize(
    ("tampering", "found"),
    [
        ("UPDATE events SET body=replace(body,'promote','prom0te') WHERE seq=3", "event 3 .*changed"),
        ("UPDATE events SET at=at+1 WHERE seq=3", "event 3 .*changed"),
        ("UPDATE events SET stream_seq=99 WHERE seq=6", "event 6 .*changed"),
        ("UPDATE events SET kind='run.ready' WHERE seq=4", "event 4 .*changed"),
        ("DELETE FROM events WHERE seq=4", "event 4 is missing"),
        ("UPDATE events SET seq=40 WHERE seq=6", "event 6 is missing"),
        ("UPDATE events SET hash='0', prev='0' WHERE seq=2", "event 2: does not follow"),
    ],
)
def test_an_edited_or_missing_row_is_found(log: SqliteStore, tampering: str, found: str) -> None:
    assert log.verify() == []
    with closing(sqlite3.connect(log.path)) as raw, raw:
        raw.execute("DROP TRIGGER events_never_change")
        raw.execute("DROP TRIGGER events_never_go")
        raw.execute(tampering)
    problems = "\n".join(log.verify())
    assert problems
    assert re.search(found, problems), problems


def tampered(log: SqliteStore, statement: str) -> None:
    with closing(sqlite3.connect(log.path)) as raw, raw:
        raw.execute("DROP TRIGGER events_never_change")
        raw.execute("DROP TRIGGER events_never_go")
        raw.execute(statement)


@pytest.mark.parametrize(
    "body", ["", "{", "[]", "7", "{}", '{"at":7,"step":"s","attempt":1}', '{"at":[1],"step":"s","attempt":1}']
)
def test_a_body_that_cannot_be_understood_is_an_error_of_the_log_with_its_place(
    log: SqliteStore, body: str
) -> None:
    tampered(log, f"UPDATE events SET body='{body}' WHERE seq=3")
    for read in (lambda: log.read("run:r"), log.read_all):
        with pytest.raises(
            JournalError, match=r"journal\.db: event 3 of run:r: the body of this step.started"
        ):
            read()
    assert log.verify()


def test_whatever_sqlite_says_is_an_error_of_the_log(log: SqliteStore) -> None:
    tampered(log, "ALTER TABLE events RENAME TO gone")
    tampered_calls: list[Callable[[], object]] = [
        lambda: log.read("run:r"), log.read_all, lambda: log.streams("run:"), log.verify,
        lambda: log.append([Append("run:r", 6, (started(6),))]),
    ]  # fmt: skip
    for call in tampered_calls:
        with pytest.raises(JournalError, match=r"journal\.db: no such table"):
            call()
    log.close()
    closed: list[Callable[[], object]] = [
        log.version, lambda: log.get_plan("d"), lambda: log.put_plan("d", "")
    ]  # fmt: skip
    for call in closed:
        with pytest.raises(JournalError, match="closed"):
            call()


def test_a_file_that_is_no_log_is_an_error_of_the_log(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(b"not a database, whatever its name says " * 200)
    with pytest.raises(DamagedLogError, match=r"journal\.db: file is not a database") as damaged:
        SqliteStore(path)
    assert damaged.value.instead == (f"mv {tmp_path} {tmp_path}.damaged", "continuity adopt --all --by NAME")
    with pytest.raises(JournalError, match="the log cannot be made"):
        SqliteStore(path / "below" / "journal.db")


def test_a_log_with_damaged_pages_says_what_is_safe(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    log = SqliteStore(path)
    log.append([Append("run:r", 0, (created(), *map(started, range(1, 400))))])
    log.close()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    with pytest.raises(
        DamagedLogError, match=r"malformed: the file of the log is damaged; nothing more is begun"
    ):
        SqliteStore(path).read("run:r")


def test_a_full_disk_writes_nothing_and_the_log_goes_on_afterwards(log: SqliteStore) -> None:
    pages = log._db.execute("PRAGMA page_count").fetchone()[0]
    log._db.execute(f"PRAGMA max_page_count={pages}")
    big = StepStarted(at(9), "x" * 200_000, 1)
    with pytest.raises(JournalError, match="full"):
        log.append([Append("run:r", 6, (started(6), big))])
    assert len(log.read("run:r")) == 6
    log._db.execute("PRAGMA max_page_count=1000000")
    log.append([Append("run:r", 6, (big,))])
    assert log.verify() == []


def test_a_file_size_limit_is_a_journal_error_too(tmp_path: Path) -> None:
    """As a quota would: the kernel refuses the write (in a process of its own, limits cannot be lifted)."""
    code = _in_child(_write_under_limit, tmp_path / "journal.db")
    assert code == 0


def _write_under_limit(path: Path) -> int:
    store = SqliteStore(path)
    store.append([Append("run:r", 0, (created(),))])
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    try:
        store.append([Append("run:r", 1, (StepStarted(at(9), "x" * 400_000, 1),))])
    except JournalError:
        return 0 if len(store.read("run:r")) == 1 and store.verify() == [] else 2
    return 3


def _in_child(work: Callable[[Path], int], path: Path) -> int:
    child = os.fork()
    if child == 0:
        code = 99
        try:
            code = work(path)
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _append_many(path: str, name: str, gate: object) -> None:
    gate.wait()  # type: ignore[attr-defined]
    store = SqliteStore(Path(path))
    done = own = 0
    while done < APPENDS_EACH:
        seq = len(store.read("run:r"))
        try:
            store.append(
                [
                    Append("run:r", seq, (StepStarted(at(done), name, done + 1),)),
                    Append(f"run:{name}", own, (RunReady(at(0)),)),
                ]
            )
        except ConflictError:
            continue
        done, own = done + 1, own + 1
    store.close()


def test_two_processes_at_once_lose_nothing_and_break_no_chain(log: SqliteStore) -> None:
    context = multiprocessing.get_context("spawn")
    gate = context.Barrier(2)
    workers = [context.Process(target=_append_many, args=(str(log.path), name, gate)) for name in ("a", "b")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    told = [r.event for r in log.read("run:r")][6:]
    for name in ("a", "b"):
        mine = [e.attempt for e in told if isinstance(e, StepStarted) and e.step == name]
        assert mine == list(range(1, APPENDS_EACH + 1))
        assert len(log.read(f"run:{name}")) == APPENDS_EACH
    assert log.verify() == []


def test_only_the_newest_events_are_checked_when_that_is_asked(log: SqliteStore) -> None:
    total = len(log.read_all())
    assert total > 4
    assert log.verify(2) == log.verify(total) == log.verify(10 * total) == []
    tampered(log, "UPDATE events SET at=at+1 WHERE seq=3")
    assert log.verify(total - 3) == []
    for newest in (total - 2, total, 0):
        (found,) = log.verify(newest)
        assert found.startswith("event 3 ("), found


def test_an_event_that_is_missing_where_the_check_begins_is_found(log: SqliteStore) -> None:
    tampered(log, "DELETE FROM events WHERE seq=3")
    total = log.read_all()[-1].seq
    assert log.verify(total - 3)[0] == "event 3 is missing"


def test_what_is_told_as_written_is_on_the_disk(tmp_path: Path) -> None:
    """FULL (2) syncs the log at each commit; NORMAL would lose the newest ones with the power."""
    with closing(SqliteStore(tmp_path / "journal.db")) as store:
        assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)
        assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_the_newest_event_has_a_number(make: MakeStore) -> None:
    store = make()
    assert store.last_seq() == 0
    store.append([Append("run:r", 0, (created(), RunReady(at(1)))), Append("group:g", 0, (adopted(),))])
    assert (store.last_seq(), make().last_seq()) == (3, 3)
