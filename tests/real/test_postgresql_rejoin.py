"""An old side whose history left the primary's is rewound, its old history kept, on real PostgreSQL."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import psycopg
import pytest

from orchestrator.actions.postgresql_follow import Follow, FollowParams
from orchestrator.actions.postgresql_protect import Protect, ProtectParams
from orchestrator.actions.postgresql_rejoin import RUN, Rejoin, RejoinParams
from orchestrator.core.outcomes import Failed, FindingKind, Succeeded
from orchestrator.drivers import postgresql, postgresql_rejoin, postgresql_upstream
from orchestrator.drivers.postgresql_foreign import foreign
from orchestrator.drivers.postgresql_member import member
from orchestrator.errors import RefusedError
from tests.real import pgharness, pgmoves
from tests.real.pgharness import CLUSTER, DATABASES, Pair, until

pytestmark = pytest.mark.real

REWIND = RejoinParams(CLUSTER, "h1", "e1", DATABASES, "rewind")


@pytest.fixture
def pair(pg_lost: Pair, fast_path: Path) -> Iterator[Pair]:
    """Home crashed with rows that the embassy never got; the embassy is the primary."""
    with pgmoves.diverged(pg_lost, fast_path / "p") as made:
        yield made


def rejoin(pair: Pair, params: RejoinParams = REWIND, **more: Any) -> Any:
    return pair.perform(Rejoin(), params, seconds=60, **more)


def kept(pair: Pair, site: str = "home") -> Path:
    return pair.folder / site / "evidence" / f"{CLUSTER}-{pgharness.HOSTS[site]}-run-1"


def test_a_crashed_primary_is_rewound_and_its_old_history_kept(pair: Pair) -> None:
    old = pgmoves.contents(pair.data("home"))
    action = Rejoin()
    assert action.check(pair.context(REWIND)).kind is FindingKind.NOT_DONE
    outcome = rejoin(pair)
    assert isinstance(outcome, Succeeded), outcome
    assert outcome.evidence["how"] == "rewind"
    assert outcome.evidence["common_checkpoint"]
    described = action.describe(REWIND, pair.parts).commands
    assert pair.recorded == [text.replace(RUN, "run-1") for text in described]
    assert outcome.evidence["kept"] == str(kept(pair) / "data")
    assert {**pgmoves.contents(kept(pair) / "data"), "standby.signal": ""} == {**old, "standby.signal": ""}
    note = json.loads((kept(pair) / "note.json").read_text())
    assert (note["host"], note["run"], note["how"]) == ("h1", "run-1", "rewind")
    assert note["control"]["Database cluster state"] == "in production"
    assert sorted(path.name for path in pair.data("home").parent.iterdir()) == ["config", "data"]
    pgmoves.follows(pair)
    found = action.check(pair.context(REWIND))
    assert found.kind is FindingKind.DONE
    assert set(found.evidence) == set(outcome.evidence)
    assert dataclasses.replace(found, evidence={}) == dataclasses.replace(found, evidence={}, reason="")
    pair.recorded.clear()
    assert isinstance(rejoin(pair), Succeeded)  # again: nothing is stopped or copied
    assert not any(text.startswith(("cp", "supervisor")) for text in pair.recorded)
    print({name: outcome.evidence[name] for name in ("needed_bytes", "predicted_ms")})


def test_what_was_rewound_archives_nothing_of_the_history_that_was_left(pair: Pair) -> None:
    """Its owner has every server archive for itself (``always``): that goes on, with the history that stands."""
    archive = pair.folder / "archive"
    archive.mkdir()
    owners = pair.config("home") / "postgresql.conf"
    command = f"cp %p {archive}/%f"
    owners.write_text(f"archive_mode = always\narchive_command = '{command}'\n{owners.read_text()}")
    left = sorted(path.name for path in (pair.data("home") / "pg_wal").glob("0" * 7 + "1*"))
    status = pair.data("home") / "pg_wal" / "archive_status"
    for name in left:  # as if the old primary had archived as well, and got no further
        (status / f"{name}.ready").touch(mode=0o600)
    outcome = rejoin(pair)
    assert isinstance(outcome, Succeeded), outcome
    assert pair.ask("home", "SHOW archive_command") == command
    pair.ask("embassy", "INSERT INTO rows VALUES ('new', '')")
    pair.ask("embassy", "SELECT pg_switch_wal()")
    pair.ask("embassy", "CHECKPOINT")
    until(lambda: any(path.name.startswith("00000002") for path in archive.iterdir()), "nothing is archived")
    assert left
    assert not [path.name for path in archive.iterdir() if path.name.startswith("00000001")]


def test_pitfall_3_the_primary_writes_a_checkpoint_first(pg_any: Pair, fast_path: Path) -> None:
    """PostgreSQL 15's pg_rewind reads the old timeline until then: nothing to do, and home loops for ever."""
    with pgharness.running(pg_any, fast_path / "p", synchronous=False) as pair:
        for setting in ("checkpoint_timeout = '1h'", "checkpoint_completion_target = 0.99"):
            pair.ask("embassy", f"ALTER SYSTEM SET {setting}")
        pair.ask("embassy", "SELECT pg_reload_conf()")
        load = "INSERT INTO rows SELECT 'much-' || n, repeat('x', 500) FROM generate_series(1, 20000) AS n"
        pair.ask("home", load)  # so that the checkpoint which a promotion asks for takes its time
        pair.wait_caught_up()
        pgmoves.diverge(pair, checkpoint=False)
        timeline = "SELECT timeline_id FROM pg_control_checkpoint()"
        assert pair.ask("embassy", timeline) == 1
        outcome = rejoin(pair)
        assert isinstance(outcome, Succeeded), outcome
        assert outcome.evidence["how"] == "rewind"
        pgmoves.follows(pair)
        protect = ProtectParams(CLUSTER, "e1", "h1", DATABASES, "remote")
        assert isinstance(pair.perform(Protect(), protect), Succeeded)
        pgmoves.switch_over(pair, "embassy", "home", 3)  # and the rest of the way home, on each version
        assert isinstance(pair.perform(Follow(), FollowParams(CLUSTER, "e1", "h1")), Succeeded)
        pgmoves.stop(pair, "embassy")
        again = RejoinParams(CLUSTER, "e1", "h1", DATABASES, "reclone")
        assert isinstance(rejoin(pair, again), Succeeded)
        pgmoves.follows(pair, "home", "embassy")


def test_pitfall_6_what_rewinding_copies_and_drops_is_set_right(pair: Pair) -> None:
    """The source's own settings are not home's, and home has a slot for the way back that holds nothing."""
    for setting in ("primary_slot_name = 'e1'", "default_transaction_read_only = off", "work_mem = '5MB'"):
        pair.ask("embassy", f"ALTER SYSTEM SET {setting}")
    assert isinstance(rejoin(pair), Succeeded)
    assert pair.ask("home", "SHOW primary_slot_name") == "h1"
    assert f"host={pair.addresses['embassy']}" in pair.ask("home", "SHOW primary_conninfo")
    assert pair.ask("home", "SHOW port") == str(pgharness.PORT)
    automatic = (pair.data("home") / "postgresql.auto.conf").read_text()
    assert "default_transaction_read_only" not in automatic
    assert "work_mem" in automatic  # what is not of the role is the cluster's
    assert pair.ask("embassy", "SELECT active FROM pg_replication_slots WHERE slot_name = 'h1'") is True
    slots = "SELECT array_agg(slot_name::text || ' ' || (restart_lsn IS NULL)) FROM pg_replication_slots"
    assert pair.ask("home", slots) == ["e1 true"]


@pytest.mark.parametrize("signal", ["", "# A primary that was fenced"])
def test_pitfall_11_nothing_in_place_could_start_as_a_primary(pair: Pair, signal: str) -> None:
    """From the first command on the data directory has standby.signal whenever it is there.

    With a fence's signal in it already, too: the recovery that pg_rewind runs refuses such a directory.
    """
    if signal:
        (pair.data("home") / "standby.signal").write_text(signal)
    open_to_start: list[str] = []
    first = True

    def record(command: str) -> None:
        nonlocal first
        data = pair.data("home")
        if data.exists() and not (data / "standby.signal").exists() and not (first and not signal):
            open_to_start.append(command)
        first = False

    context = dataclasses.replace(pair.context(REWIND, seconds=60), record=record)
    outcome = Rejoin().execute(context)
    assert isinstance(outcome, Succeeded), outcome
    assert outcome.evidence["how"] == "rewind"
    assert not open_to_start
    pgmoves.follows(pair)


LATE = "home-only-late"


def came_back(pair: Pair) -> None:
    """Home is a primary again beside the embassy, and accepts a row later than the second of its promotion."""
    is_up_again(pair)
    write_late(pair)


def is_up_again(pair: Pair) -> None:
    history = pair.data("embassy") / "pg_wal" / "00000002.history"
    until(lambda: time.time() > history.stat().st_mtime + 2, "the clock stands still")
    pgmoves.start(pair, "home")


def write_late(pair: Pair) -> None:
    pair.ask("home", "INSERT INTO rows VALUES (%s, '')", LATE)


def late_rows(pair: Pair) -> Any:
    return pair.ask("home", "SELECT count(*) FROM rows WHERE id = %s", LATE)


def test_home_that_came_back_by_itself_is_stopped_and_kept(pair: Pair) -> None:
    came_back(pair)
    outcome = rejoin(pair, dataclasses.replace(REWIND, resolved=True))
    assert isinstance(outcome, Succeeded), outcome
    assert "went on to" in outcome.evidence["because"]
    assert "after the other was promoted" in outcome.evidence["later"]
    assert (kept(pair) / "data" / "PG_VERSION").exists()
    pgmoves.follows(pair)


@pytest.mark.parametrize("is_up", [True, False])
@pytest.mark.parametrize("how", ["rewind", "reclone"])
def test_a_history_that_went_on_after_the_promotion_is_held_until_people_resolve(
    pair: Pair, is_up: bool, how: Literal["rewind", "reclone"]
) -> None:
    """Whether it still runs when somebody looks, or not: what it accepted is not thrown away unasked."""
    came_back(pair)
    if not is_up:
        pair.kill_database("home")
        until(lambda: not pair.processes("home"), "home did not die")
    outcome = rejoin(pair, dataclasses.replace(REWIND, how=how))
    assert isinstance(outcome, Failed), outcome
    assert not outcome.retryable
    assert "is of a split brain: it committed" in outcome.message
    conflict = outcome.evidence["conflict"]
    assert isinstance(conflict, dict)
    assert conflict["timeline"] == 1
    assert conflict["commits"] >= 1
    assert not kept(pair).exists()
    if not is_up:
        pgmoves.start(pair, "home")
    assert pair.ask("home", "SELECT pg_is_in_recovery()") is False
    assert late_rows(pair) == 1


@pytest.mark.parametrize("how", ["rewind", "reclone"])
def test_what_it_accepts_until_it_is_stopped_is_found_and_not_thrown_away(
    pair: Pair, how: Literal["rewind", "reclone"]
) -> None:
    """A server that runs is looked at first, and that look is old by the time it stands: somebody still wrote."""
    is_up_again(pair)
    params = dataclasses.replace(REWIND, how=how)
    _, follower = (member(pair.parts, CLUSTER, host) for host in ("e1", "h1"))
    said: list[str] = []

    def record(command: str) -> None:
        if command == postgresql_rejoin.signal_text(follower):  # it was looked at, and is stopped after this
            write_late(pair)
        said.append(command)

    context = dataclasses.replace(pair.context(params, seconds=60), record=record)
    outcome = Rejoin().execute(context)
    assert isinstance(outcome, Failed), outcome
    assert "is of a split brain: it committed" in outcome.message
    assert not outcome.retryable
    assert said[0] == postgresql_rejoin.signal_text(follower), "the first look found nothing to hold it"
    assert not any(text.startswith(("cp ", "/")) or "rename" in text for text in said[1:]), said
    assert not kept(pair).exists()
    assert not pair.processes("home")
    (pair.data("home") / "standby.signal").unlink()
    pgmoves.start(pair, "home")
    assert late_rows(pair) == 1


def test_a_log_that_is_gone_is_said_to_tell_nothing(pair: Pair) -> None:
    assert "committed nothing after" in rejoin(pair).evidence["later"]
    source, follower = (member(pair.parts, CLUSTER, host) for host in ("e1", "h1"))
    with postgresql.lease(pair.context(REWIND), source) as session:
        history = postgresql_upstream.history(session, "e1")
        control = {
            "Database system identifier": history.system_id,
            "Database cluster state": "in production",
            "Latest checkpoint's TimeLineID": "1",
        }
        empty = str(pair.folder / "home")
        found = foreign(pair.context(REWIND), session, follower, empty, control, history)
    assert found is not None
    assert found.commits == 0
    assert "cannot be told" in found.text()


def test_the_side_with_the_later_epoch_is_never_overwritten(pair: Pair) -> None:
    pgmoves.start(pair, "home")
    pair.ask("home", "UPDATE continuity.writer SET epoch = 3", database="land")
    outcome = rejoin(pair)
    assert isinstance(outcome, Failed)
    assert "h1 holds epoch 3 of land" in outcome.message
    assert pair.ask("home", "SELECT pg_is_in_recovery()") is False
    backwards = RejoinParams(CLUSTER, "e1", "h1", DATABASES, "rewind")
    pair.ask("home", "UPDATE continuity.writer SET epoch = 1, site = 'embassy'", database="land")
    outcome = rejoin(pair, backwards)
    assert isinstance(outcome, Failed)
    assert "the row of land names embassy" in outcome.message


def test_a_standby_of_the_same_history_just_follows(pg_lost: Pair, fast_path: Path) -> None:
    with pgmoves.diverged(pg_lost, fast_path / "p") as pair:
        assert isinstance(rejoin(pair), Succeeded)
        inode = (pair.data("home") / "PG_VERSION").stat().st_ino
        for stopped in (True, False):
            if stopped:
                pgmoves.stop(pair, "home")
            else:
                pair.kill_database("home")
            pair.ask("embassy", f"INSERT INTO rows VALUES ('missed-{stopped}', '')")
            outcome = rejoin(pair, run="run-2")
            assert isinstance(outcome, Succeeded), outcome
            assert outcome.evidence["how"] == "follow"
            pgmoves.follows(pair)
        pair.ask("home", "ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 port=1'")
        pair.ask("home", "SELECT pg_reload_conf()")  # up, and cut off
        until(lambda: not pgmoves.streaming(pair, "embassy", "h1"), "home still streams")
        outcome = rejoin(pair, run="run-2")
        assert isinstance(outcome, Succeeded), outcome
        assert outcome.evidence["how"] == "follow"
        assert (pair.data("home") / "PG_VERSION").stat().st_ino == inode
        assert not (pair.folder / "home" / "evidence" / f"{CLUSTER}-h1-run-2").exists()


def test_pitfall_4_a_standby_that_follows_in_name_only_is_rewound(pair: Pair) -> None:
    (pair.data("home") / "standby.signal").touch(mode=0o600)
    pgmoves.start(pair, "home")  # its crash recovered, up as a standby past the fork
    outcome = rejoin(pair)
    assert isinstance(outcome, Succeeded), outcome
    assert outcome.evidence["how"] == "rewind"
    pgmoves.follows(pair)


def test_a_rewind_that_died_half_way_is_begun_anew(pair: Pair) -> None:
    """Its copy is thrown away, whatever state it is in; what is kept is the same as before."""
    tool = pair.folder / "bin" / "pg_rewind"
    real = tool.with_name("pg_rewind.real")
    tool.rename(real)
    tool.write_text(f'#!/bin/sh\n"{real}" "$@"\nrm -rf "$2"/base "$2"/pg_wal\nkill -9 $$\n')
    tool.chmod(0o755)
    old = pgmoves.contents(pair.data("home"))
    outcome = rejoin(pair)
    assert isinstance(outcome, Failed), outcome
    assert outcome.retryable
    assert not pair.data("home").exists()  # and nothing that a unit could start
    real.rename(tool)
    outcome = rejoin(pair)
    assert isinstance(outcome, Succeeded), outcome
    assert outcome.evidence["how"] == "rewind"
    assert {**pgmoves.contents(kept(pair) / "data"), "standby.signal": ""} == {**old, "standby.signal": ""}
    pgmoves.follows(pair)


def test_what_lies_in_tablespaces_is_kept_and_put_back(pg_template: Pair, fast_path: Path) -> None:
    with pgharness.running(pg_template, fast_path / "p", synchronous=False) as pair:
        pair.kill_site("embassy")
        spaces = {site: pair.folder / site / "postgresql" / "space" for site in pgharness.HOSTS}
        for space in spaces.values():
            space.mkdir(mode=0o700)
        pair.ask("home", f"CREATE TABLESPACE apart LOCATION '{spaces['home']}'")
        for table in ("elsewhere", "untouched"):
            made = f"CREATE TABLE {table} TABLESPACE apart AS SELECT n FROM generate_series(1, 1000) n"
            pair.ask("home", made)
        mapping = f"--tablespace-mapping={spaces['home']}={spaces['embassy']}"
        pgmoves.replace_by_backup(pair, "embassy", "home", mapping)
        pair.start_site("embassy")
        pair.wait_ready("embassy")
        pair.wait_caught_up()
        pair.ask("home", "UPDATE elsewhere SET n = n + 1")
        pgmoves.diverge(pair)
        pair.ask("embassy", "UPDATE elsewhere SET n = 7")
        old = pgmoves.contents(spaces["home"])
        tool = pair.folder / "bin" / "pg_rewind"
        tool.rename(tool.with_name("real"))
        spoil = f'for file in "{spaces["home"]}"/PG_*/*/*; do echo spoilt > "$file"; done'
        tool.write_text(f'#!/bin/sh\n"{tool.with_name("real")}" "$@"\n{spoil}\nkill -9 $$\n')
        tool.chmod(0o755)
        assert rejoin(pair).retryable
        assert pgmoves.contents(spaces["home"]) != old  # rewound in place, and half done
        (oid,) = (path.name for path in (kept(pair) / "outside").iterdir())
        assert pgmoves.contents(kept(pair) / "outside" / oid) == old
        tool.with_name("real").rename(tool)
        outcome = rejoin(pair)
        assert isinstance(outcome, Succeeded), outcome
        assert outcome.evidence["how"] == "rewind"
        pgmoves.follows(pair)
        assert pair.ask("home", "SELECT sum(n) FROM elsewhere") == 7000
        assert pair.ask("home", "SELECT sum(n) FROM untouched") == 500500
        refused = rejoin(pair, dataclasses.replace(REWIND, how="reclone"), run="run-2")
        assert isinstance(refused, Succeeded)  # it streams: nothing to be done
        pgmoves.stop(pair, "home")
        refused = rejoin(pair, dataclasses.replace(REWIND, how="reclone"), run="run-2")
        assert isinstance(refused, Failed)
        assert "tablespaces (apart)" in refused.message


def test_what_is_not_offered_is_refused_when_it_is_planned(pair: Pair) -> None:
    cluster = pair.parts.clusters[CLUSTER]
    inside = dataclasses.replace(cluster, config_directory=cluster.data_directory)
    parts = dataclasses.replace(pair.parts, clusters={CLUSTER: inside})
    for params, where, text in (
        (dataclasses.replace(REWIND, how="keep"), pair.parts, "'keep'"),
        (REWIND, parts, "the configuration lies in the data directory"),
    ):
        with pytest.raises(RefusedError, match=text):
            Rejoin().describe(params, where)
        outcome = rejoin(pair, params, parts=where)
        assert isinstance(outcome, Failed)
        assert text in outcome.message
    assert not pair.recorded
    with pytest.raises(psycopg.OperationalError):
        pair.connect("home")
