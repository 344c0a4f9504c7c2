"""A log that was changed by hand and can still be read: whoever only looks is warned, with where."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.bootstrap.app import plan_from_text
from orchestrator.cli._exits import RunStands, run_stands
from orchestrator.cli._intact import all_looked_at, looked_at
from orchestrator.core.events import GroupAdopted
from orchestrator.engine.journal import Journal
from orchestrator.errors import ChangedLogError, JournalError
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


def an_estate(tmp_path: Path) -> Path:
    """One whose log knows the group of registers."""
    folder = tmp_path / "estate"
    shutil.copytree(estates.GOOD, folder)
    store = SqliteStore(Settings(folder / "estate.yaml").log)
    adopted = GroupAdopted(at(1), "registers", "home", 4, "protected", "ann")
    Journal(store, plan_from_text).append_group("registers", lambda _: adopted)
    store.close()
    return folder


def changed_estate(tmp_path: Path) -> Path:
    folder = an_estate(tmp_path)
    touch(folder / "estate.yaml", "UPDATE events SET body=replace(body, 'ann', 'eve') WHERE seq=1")
    return folder


def test_plan_warns_too(tmp_path: Path) -> None:
    folder = an_estate(tmp_path)
    whole = continuity(folder, "plan", "failover", "--output", "json")
    assert (whole.returncode, json.loads(whole.stdout)["log_intact"]) == (0, True), whole.stderr
    touch(folder / "estate.yaml", "UPDATE events SET body=replace(body, 'ann', 'eve') WHERE seq=1")
    done = continuity(folder, "plan", "failover", "--output", "json")
    assert (done.returncode, json.loads(done.stdout)["log_intact"]) == (0, False), done.stderr
    assert "WARNING: the log is not what was written: event 1 (" in done.stderr


def test_what_auditors_read_says_itself_whether_the_log_is_whole(tmp_path: Path) -> None:
    story = told(tmp_path, HELD_FOR_LOSS)
    count = story.store.last_seq()
    done = continuity(tmp_path, "report", "r1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == f"  log: whole ({count} events checked)"
    for words in (("report", "r1"), ("history",), ("history", "r1")):
        document = json.loads(continuity(tmp_path, *words, "--output", "json").stdout)
        assert (document["log_intact"], document["log_breaks"]) == (True, []), words
        assert document["events_checked"] == count
    touch(tmp_path / "estate.yaml", "UPDATE events SET at=at+1 WHERE seq IN (3, 5)")
    done = continuity(tmp_path, "report", "r1")
    assert done.stdout.startswith("LOG WAS CHANGED: event 3 ("), done.stdout
    assert " and 1 more break; do not rely" in done.stdout.splitlines()[0]
    for words in (("report", "r1"), ("history",), ("history", "r1")):
        done = continuity(tmp_path, *words, "--output", "json")
        assert done.returncode == 0, done.stderr
        assert "WARNING: the log is not what was written: event 3 (" in done.stderr
        document = json.loads(done.stdout)
        assert (document["log_intact"], len(document["log_breaks"])) == (False, 2)


class _LongStore:
    """A log in which only a look at all of it finds the break: it lies before the newest events."""

    def verify(self, newest: int = 0) -> list[str]:
        return [] if newest else ["event 1 (group.adopted of group:g): was changed after it was written"]

    def last_seq(self) -> int:
        return 30_000


def test_an_auditor_is_told_of_a_break_before_the_newest_events(capsys: pytest.CaptureFixture[str]) -> None:
    journal = Journal(_LongStore(), plan_from_text)  # type: ignore[arg-type]
    app = SimpleNamespace(journal=journal, has_log=True)
    assert looked_at(app)["log_intact"] is True
    assert all_looked_at(app).document()["log_intact"] is False
    assert "event 1" in capsys.readouterr().err


def test_the_verdict_on_the_chain_comes_first_and_the_log_only_where_it_was_asked_for(tmp_path: Path) -> None:
    count = told(tmp_path, HELD_FOR_LOSS).store.last_seq()
    verdict = f"log: whole ({count} events checked)"
    assert continuity(tmp_path, "history", "--verify").stdout == f"{verdict}\n"
    document = json.loads(continuity(tmp_path, "history", "--verify", "--output", "json").stdout)
    assert (document["chain_whole"], document["events"]) == (True, [])
    lines = continuity(tmp_path, "history", "--verify", "--last", "2").stdout.splitlines()
    assert (lines[0], len(lines)) == (verdict, 3)
    touch(tmp_path / "estate.yaml", "UPDATE events SET at=at+1 WHERE seq < 13")
    done = continuity(tmp_path, "history", "--verify")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.rstrip().endswith("; and 2 more")


@pytest.mark.parametrize(
    "words",
    [("adopt", "registers"), ("resolve", "registers", "--keep", "home", "--reason", "why")],
    ids=lambda words: str(words[0]),
)
def test_nothing_is_written_behind_a_log_that_was_changed(tmp_path: Path, words: tuple[str, ...]) -> None:
    folder = changed_estate(tmp_path)
    done = continuity(folder, *words, "--yes", "--by", "A. Tamm", "--output", "json")
    assert done.returncode == 3, done.stderr
    assert "the log is not what was written: event 1 (" in json.loads(done.stdout)["message"]
    with closing(sqlite3.connect(Settings(folder / "estate.yaml").log)) as raw:
        assert raw.execute("SELECT count(*) FROM events").fetchone() == (1,)


def test_a_preflight_finds_that_the_log_was_changed(tmp_path: Path) -> None:
    folder = changed_estate(tmp_path)
    done = continuity(
        folder, "preflight", "reprotect", "--service", "population-register", "--output", "json"
    )
    assert done.returncode == 3, done.stderr
    document = json.loads(done.stdout)
    assert "LOG WAS CHANGED: event 1 (" in document["message"]
    assert document["instead"][0] == "continuity history --verify"


REFUSED = 3
SIGNED = [
    ("confirm", "r1", "db/measure"),
    ("accept", "r1", "loss", "--limit", "5m", "--reason", "shown"),
    ("declare", "site-lost", "r1", "--site", "home", "--reason", "seen"),
    ("skip", "r1", "db/close", "--reason", "no"),
    ("retry", "r1"),
]


@pytest.mark.parametrize("words", SIGNED, ids=lambda words: words[0])
def test_nobody_signs_anything_on_a_log_that_was_changed(tmp_path: Path, words: tuple[str, ...]) -> None:
    story = told(tmp_path, HELD_FOR_LOSS)
    touch(tmp_path / "estate.yaml", "UPDATE events SET at=at+1 WHERE seq=3")
    before = story.store.last_seq()
    done = continuity(tmp_path, *words, by="ann")
    assert done.returncode == REFUSED, done.stderr
    assert "the log was changed by hand; nothing was begun" in done.stderr
    assert "    continuity history --verify\n" in done.stderr
    assert "Make room" not in done.stderr
    assert story.store.last_seq() == before


@pytest.mark.parametrize(
    "words", [("abort", "r1", "--reason", "stop"), ("watch", "r1")], ids=["abort", "watch"]
)
def test_what_only_stops_or_shows_a_run_warns(tmp_path: Path, words: tuple[str, ...]) -> None:
    told(tmp_path, HELD_FOR_LOSS)
    touch(tmp_path / "estate.yaml", "UPDATE events SET at=at+1 WHERE seq=3")
    done = continuity(tmp_path, *words, by="ann")
    assert "WARNING: the log is not what was written: event 3 (" in done.stderr
    assert done.returncode == 0, done.stderr


def test_a_log_that_was_changed_is_not_told_as_one_that_cannot_be_written() -> None:
    with pytest.raises(ChangedLogError), run_stands("r1"):
        raise ChangedLogError("event 3 was changed")
    with pytest.raises(RunStands), run_stands("r1"):
        raise JournalError("disk full")


@pytest.mark.parametrize(
    "words", [("status",), ("history",), ("abort", "r1", "--reason", "stop")], ids=lambda words: words[0]
)  # fmt: skip
def test_a_log_whose_file_is_damaged_names_the_way_out(tmp_path: Path, words: tuple[str, ...]) -> None:
    told(tmp_path, HELD_FOR_LOSS).store.close()
    log = Settings(tmp_path / "estate.yaml").log
    log.write_bytes(b"\xff" * log.stat().st_size)
    done = continuity(tmp_path, *words, "--output", "json")
    assert done.returncode == REFUSED, done.stderr
    document = json.loads(done.stdout)
    assert document["error"] == "log damaged"
    assert document["instead"] == [
        f"mv {log.parent} {log.parent}.damaged",
        "continuity adopt --all --by NAME",
    ]
    assert "continuity: the log is damaged: " in done.stderr
    assert "put its last good copy back" in done.stderr
    assert "Make room" not in done.stderr
