"""Nothing is begun on a log that is not what was written, and what it says is an error of the log."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.bootstrap.app import plan_from_text, plan_to_text
from orchestrator.core.events import GroupAdopted
from orchestrator.engine.journal import Journal, Tracked
from orchestrator.engine.loop import come_up
from orchestrator.errors import JournalError
from orchestrator.stores.sqlite import SqliteStore
from tests.builders import a_failover, at, created, driver

PLAN = a_failover()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with closing(SqliteStore(tmp_path / "journal.db")) as store:
        journal = Journal(store, plan_from_text)
        journal.append_group("g", lambda state: GroupAdopted(at(0), "g", "home", 1, "protected", "ann"))
        journal.append_group("h", lambda state: GroupAdopted(at(0), "h", "home", 1, "protected", "ann"))
        yield journal


def begun(journal: Journal) -> Tracked:
    return journal.create(PLAN, plan_to_text(PLAN), created())


def tamper(journal: Journal, statement: str) -> None:
    assert isinstance(journal.store, SqliteStore)
    with closing(sqlite3.connect(journal.store.path)) as raw, raw:
        raw.execute("DROP TRIGGER events_never_change")
        raw.execute("DROP TRIGGER events_never_go")
        raw.execute(statement)


def test_no_run_begins_on_a_log_whose_chain_is_broken(journal: Journal) -> None:
    tamper(journal, "UPDATE events SET body=replace(body,'home','mars') WHERE stream='group:h'")
    with pytest.raises(JournalError, match=r"event 2 .*was changed.*continuity history --verify") as refused:
        begun(journal)
    assert "nothing is begun on it" in str(refused.value)
    assert journal.runs() == []


def test_no_driver_comes_up_on_a_log_whose_chain_is_broken(journal: Journal) -> None:
    tracked = begun(journal)
    tamper(journal, "DELETE FROM events WHERE stream='group:h'")
    with pytest.raises(JournalError, match=r"event 2 is missing"):
        come_up(journal, tracked, driver(1))
    assert len(journal.store.read("run:r1")) == 1


def test_a_whole_log_is_begun_and_driven(journal: Journal) -> None:
    come_up(journal, begun(journal), driver(1))
    assert journal.load("r1").run.drivers == 1


@pytest.mark.parametrize(
    ("statement", "read"),
    [
        (
            "UPDATE events SET kind='run.ready', body='{\"at\":[1,1]}' WHERE stream='group:g' AND stream_seq=1",
            lambda journal: journal.groups(),
        ),
        (
            "UPDATE events SET kind='run.ready', body='{\"at\":[1,1]}' WHERE stream='run:r1'",
            lambda journal: journal.load("r1"),
        ),
    ],
)
def test_what_makes_no_sense_any_more_is_said_to_have_been_changed(
    journal: Journal, statement: str, read: Callable[[Journal], object]
) -> None:
    begun(journal)
    tamper(journal, statement)
    with pytest.raises(JournalError, match="was changed after it was written"):
        read(journal)
