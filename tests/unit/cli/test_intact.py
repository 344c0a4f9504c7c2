"""A log that was changed by hand and can still be read: whoever only looks is warned, with where."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.bootstrap.app import plan_from_text
from orchestrator.core.events import GroupAdopted
from orchestrator.engine.journal import Journal
from orchestrator.settings import Settings
from orchestrator.stores.sqlite import SqliteStore
from tests.builders import at
from tests.unit.cli.logs import HELD_FOR_LOSS, continuity, told
from tests.unit.planning import estates


def touch(estate: Path, statement: str) -> None:
    with closing(sqlite3.connect(Settings(estate).log)) as raw, raw:
        raw.execute("DROP TRIGGER events_never_change")
        raw.execute(statement)


@pytest.mark.parametrize("words", [("status",), ("status", "r1")])
def test_status_shows_what_it_reads_and_warns(tmp_path: Path, words: tuple[str, ...]) -> None:
    told(tmp_path, HELD_FOR_LOSS)
    done = continuity(tmp_path, *words, "--output", "json")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert (document["log_intact"], document["log_breaks"]) == (True, [])
    touch(tmp_path / "estate.yaml", "UPDATE events SET at=at+1 WHERE seq=3")
    for more in ((), ("--output", "json")):
        done = continuity(tmp_path, *words, *more)
        assert done.returncode == 0, done.stderr
        assert "WARNING: the log is not what was written: event 3 (" in done.stderr
        assert "continuity history --verify" in done.stderr
    document = json.loads(done.stdout)
    assert document["log_intact"] is False
    assert document["log_breaks"][0].startswith("event 3 (")


def test_plan_warns_too(tmp_path: Path) -> None:
    folder = tmp_path / "estate"
    shutil.copytree(estates.GOOD, folder)
    store = SqliteStore(Settings(folder / "estate.yaml").log)
    adopted = GroupAdopted(at(1), "registers", "home", 4, "protected", "ann")
    Journal(store, plan_from_text).append_group("registers", lambda _: adopted)
    store.close()
    whole = continuity(folder, "plan", "failover", "--output", "json")
    assert (whole.returncode, json.loads(whole.stdout)["log_intact"]) == (0, True), whole.stderr
    touch(folder / "estate.yaml", "UPDATE events SET body=replace(body, 'ann', 'eve') WHERE seq=1")
    done = continuity(folder, "plan", "failover", "--output", "json")
    assert (done.returncode, json.loads(done.stdout)["log_intact"]) == (0, False), done.stderr
    assert "WARNING: the log is not what was written: event 1 (" in done.stderr
