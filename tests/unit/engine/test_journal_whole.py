"""Nothing is begun on a log that is not what was written, and what it says is an error of the log."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.bootstrap.app import plan_from_text, plan_to_text
from orchestrator.core.events import GroupAdopted, GroupReleased
from orchestrator.core.log import sha256_of
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


CHANGES = [
    "UPDATE plans SET body=replace(body, 'embassy', 'mars')",
    "UPDATE plans SET body='{'",
    "DELETE FROM plans",
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_plan_beside_the_log_that_was_changed_is_neither_driven_nor_begun_beside(
    journal: Journal, change: str
) -> None:
    tracked = begun(journal)
    assert journal.breaks_in_sight() == []
    tamper(journal, change)
    said = ["event 3 (run:r1): the plan beside the log was changed or taken away"]
    assert journal.breaks_in_sight() == said
    assert isinstance(journal.store, SqliteStore)
    with closing(SqliteStore(journal.store.path)) as store:
        another = Journal(store, plan_from_text)
        with pytest.raises(JournalError, match="the plan beside the log was changed"):
            come_up(another, tracked, driver(1))
        with pytest.raises(JournalError, match="the plan beside the log was changed"):
            another.create(PLAN, plan_to_text(PLAN), created("r2"))
        if change != CHANGES[0]:  # what cannot even be read says the same
            with pytest.raises(JournalError, match="the plan beside the log"):
                another.load("r1")


def test_the_same_plan_in_another_text_lies_beside_the_first(journal: Journal) -> None:
    """What is expected of a step is not in a plan's digest, and changes from one night to the next."""
    begun(journal)
    journal.append_group("g", lambda state: GroupReleased(at(1), "g", "r1", "aborted", ""))
    slower = replace(
        PLAN,
        groups={"g": replace(PLAN.groups["g"], epoch_next=3)},
        steps={name: replace(step, title="slow") for name, step in PLAN.steps.items()},
    )
    assert slower.digest == PLAN.digest
    journal.create(slower, plan_to_text(slower), created("r2"))
    assert isinstance(journal.store, SqliteStore)
    with closing(SqliteStore(journal.store.path)) as store:
        again = Journal(store, plan_from_text)
        titles = {run: again.load(run).run.plan.steps["db/stop"].title for run in ("r1", "r2")}
    assert titles == {"r1": PLAN.steps["db/stop"].title, "r2": "slow"}
    assert journal.breaks_in_sight() == []


def test_a_text_that_was_laid_under_the_hash_of_a_plan_before_it_came_begins_no_run(journal: Journal) -> None:
    text = plan_to_text(PLAN)
    journal.store.put_plan(sha256_of(text), text.replace("embassy", "mars"))
    with pytest.raises(JournalError, match="another text lies beside the log under the hash of this plan"):
        begun(journal)
    assert journal.runs() == []
