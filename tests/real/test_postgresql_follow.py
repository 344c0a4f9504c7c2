"""A cleanly stopped old side comes back as the standby of the new primary, on real PostgreSQL."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.actions.postgresql_follow import Follow, FollowParams
from orchestrator.core.outcomes import Failed, FindingKind, Succeeded
from tests.action_context import RealClock
from tests.real import pgharness, pgmoves
from tests.real.pgharness import CLUSTER, Pair, until

pytestmark = pytest.mark.real

FOLLOW = FollowParams(CLUSTER, "h1", "e1")


@pytest.fixture
def pair(pg_template: Pair, fast_path: Path) -> Iterator[Pair]:
    with pgharness.running(pg_template, fast_path / "p") as made:
        yield made


def arrives(pair: Pair, name: str, primary: str = "embassy", standby: str = "home") -> None:
    pair.ask(primary, "INSERT INTO rows VALUES (%s, '')", name)
    until(lambda: name in pgmoves.rows(pair, standby), f"{name} does not arrive at {standby}")


def test_a_stopped_primary_follows_and_says_what_was_described(pair: Pair) -> None:
    pgmoves.switch_over(pair)
    action = Follow()
    assert action.check(pair.context(FOLLOW)).kind is FindingKind.NOT_DONE
    outcome = pair.perform(action, FOLLOW)
    assert isinstance(outcome, Succeeded), outcome
    assert outcome.evidence["timeline"] == 2
    assert outcome.evidence["state"] == "streaming"
    assert pair.recorded == list(action.describe(FOLLOW, pair.parts).commands)
    found = action.check(pair.context(FOLLOW))
    assert found.kind is FindingKind.DONE
    assert set(found.evidence) == set(outcome.evidence)
    arrives(pair, "after")
    assert isinstance(pair.perform(action, FOLLOW), Succeeded)  # again: it follows already
    arrives(pair, "again")
    assert isinstance(action.undo(pair.context(FOLLOW)), Succeeded)
    assert pgmoves.streaming(pair, "embassy", "h1") == "streaming"


def test_pitfall_11_the_signal_is_there_before_anything_may_start_it(pair: Pair) -> None:
    """A stopped old primary that is started without standby.signal is a second primary."""
    pgmoves.switch_over(pair)
    (pair.data("home") / "standby.signal").unlink()
    seen: list[bool] = []

    def record(command: str) -> None:
        if command.startswith("supervisor at h1: start"):
            seen.append((pair.data("home") / "standby.signal").exists())

    outcome = Follow().execute(dataclasses.replace(pair.context(FOLLOW), record=record))
    assert isinstance(outcome, Succeeded), outcome
    assert seen == [True]
    assert pair.ask("home", "SELECT pg_is_in_recovery()") is True


def test_pitfall_6_the_old_roles_settings_are_gone_and_slots_are_on_both_sides(pair: Pair) -> None:
    """What the old primary set by ALTER SYSTEM, and its slots, would hold as a standby and when it comes home."""
    pair.ask("home", "ALTER SYSTEM SET default_transaction_read_only = on")
    pair.ask("home", "ALTER SYSTEM SET primary_slot_name = 'e1'")
    pgmoves.switch_over(pair)
    assert isinstance(pair.perform(Follow(), FOLLOW), Succeeded)
    assert pair.ask("home", "SHOW default_transaction_read_only") == "off"
    assert pair.ask("home", "SHOW primary_slot_name") == "h1"
    assert pair.ask("embassy", "SELECT active FROM pg_replication_slots WHERE slot_name = 'h1'") is True
    held = "SELECT restart_lsn IS NOT NULL FROM pg_replication_slots WHERE slot_name = 'e1'"
    assert pair.ask("home", held) is False  # there, and keeping no log for a standby that is none


@pytest.mark.parametrize("where", ["by the owner's file", "by ALTER SYSTEM"])
def test_a_follower_takes_no_log_from_an_archive_whoever_told_it_to(pair: Pair, where: str) -> None:
    """What lies in an archive may be of the history that was left: a follower takes its log from its primary alone."""
    told = "/bin/false"
    if where == "by ALTER SYSTEM":
        pair.ask("home", f"ALTER SYSTEM SET restore_command = '{told}'")
    else:
        owners = pair.config("home") / "postgresql.conf"
        owners.write_text(f"restore_command = '{told}'\n{owners.read_text()}")
    pair.ask("home", "SELECT pg_reload_conf()")
    until(lambda: pair.ask("home", "SHOW restore_command") == told, "it is not told")
    pgmoves.switch_over(pair)
    assert isinstance(pair.perform(Follow(), FOLLOW), Succeeded)
    assert pair.ask("home", "SHOW restore_command") == ""


def test_pitfall_4_a_server_that_is_up_and_follows_nobody_is_not_done(pair: Pair) -> None:
    """A standby that went on where the primary's history did not stays up and tries for ever."""
    lsn = pair.ask("home", "SELECT pg_current_wal_lsn()::text")
    until(lambda: pair.ask("embassy", f"SELECT pg_last_wal_replay_lsn() >= '{lsn}'"), "not caught up")
    pair.kill_site("embassy")
    pair.ask("home", "SET synchronous_commit = local; INSERT INTO rows VALUES ('home-only', '')")
    pgmoves.stop(pair, "home")
    (pair.data("home") / "standby.signal").touch(mode=0o600)
    pair.start_site("embassy")
    pair.wait_ready("embassy")
    pgmoves.promote(pair, "embassy")
    refused = pair.perform(Follow(), FOLLOW)
    assert isinstance(refused, Failed)
    assert "went on to" in refused.message
    assert not pair.processes("home")  # seen before it was started
    context = pair.context(FOLLOW)
    from orchestrator.drivers import postgresql_follower
    from orchestrator.drivers.postgresql_member import member

    follower, source = member(pair.parts, CLUSTER, "h1"), member(pair.parts, CLUSTER, "e1")
    postgresql_follower.write_role(context, source, follower)
    pgmoves.start(pair, "home")  # somebody starts it all the same: it is up, and a standby
    outcome = pair.perform(Follow(), FOLLOW)
    assert isinstance(outcome, Failed), outcome
    assert "following nobody" in outcome.message
    assert Follow().check(pair.context(FOLLOW)).kind is FindingKind.NOT_DONE


def test_a_running_primary_is_not_touched(pair: Pair) -> None:
    pair.kill_site("embassy")
    pair.start_site("embassy")
    pair.wait_ready("embassy")
    pgmoves.promote(pair, "embassy")
    outcome = pair.perform(Follow(), FOLLOW)
    assert isinstance(outcome, Failed)
    assert "runs as a primary" in outcome.message
    assert pair.ask("home", "SELECT pg_is_in_recovery()") is False
    assert "primary_conninfo" not in (pair.config("home") / "continuity.conf").read_text()
    assert not pair.recorded  # nothing was sent
    reverse = FollowParams(CLUSTER, "e1", "h1")
    assert "runs as a primary" in pair.perform(Follow(), reverse).message


def test_nobody_follows_a_standby(pair: Pair) -> None:
    outcome = pair.perform(Follow(), FOLLOW)
    assert isinstance(outcome, Failed)
    assert "e1 is a standby" in outcome.message


def test_a_running_standby_is_pointed_elsewhere_without_a_restart(pair: Pair) -> None:
    pgmoves.switch_over(pair)
    pgmoves.start(pair, "home")  # up, with the files of a primary: it follows nobody
    postmaster = pair.postmaster("home")
    assert isinstance(pair.perform(Follow(), FOLLOW), Succeeded)
    assert pair.postmaster("home") == postmaster
    arrives(pair, "pointed")


def test_a_standby_that_waits_for_ever_for_a_gone_primary_is_pointed_too(pair: Pair) -> None:
    """It has no sessions: it is not consistent before somebody sends it the log of its base backup."""
    pgmoves.switch_over(pair)
    pgmoves.replace_by_backup(pair, "home", "embassy", "--wal-method=none")
    (pair.config("home") / "continuity.conf").write_text("primary_conninfo = 'host=127.0.0.1 port=1'\n")
    pgmoves.start_unit(pair, "home")
    until(lambda: "starting up" in pgmoves.refusal(pair, "home"), "it does not wait")
    outcome = pair.perform(Follow(), FOLLOW)
    assert isinstance(outcome, Succeeded), outcome
    assert "kill -HUP" in " ".join(pair.recorded)
    arrives(pair, "pointed")


class FastClock(RealClock):
    """An hour passes in a second."""

    def monotonic(self) -> float:
        return super().monotonic() * 3600


def test_a_follower_that_does_not_move_is_given_up(pair: Pair) -> None:
    pgmoves.switch_over(pair)
    pair.ask("embassy", "ALTER ROLE replicator NOLOGIN")
    clock = FastClock()
    context = pair.context(FOLLOW)
    began = time.monotonic()
    outcome = Follow().execute(
        dataclasses.replace(context, clock=clock, deadline=clock.monotonic() + 100 * 3600)
    )
    assert isinstance(outcome, Failed), outcome
    assert outcome.retryable
    assert "does not stream from e1" in outcome.message
    assert time.monotonic() - began < 15


class Killed(BaseException):
    """The driver dies between two commands."""


def test_killed_before_any_command_it_ends_well(pair: Pair) -> None:
    pgmoves.switch_over(pair)
    died: list[str] = []

    def record(command: str) -> None:
        if command not in died:
            died.append(command)
            raise Killed

    action = Follow()
    for _ in range(20):
        context = dataclasses.replace(pair.context(FOLLOW), record=record)
        assert action.check(context).kind in (FindingKind.NOT_DONE, FindingKind.DONE)
        try:
            outcome: Any = action.execute(context)
        except Killed:
            continue
        break
    else:
        raise AssertionError("it never ends")
    assert isinstance(outcome, Succeeded), outcome
    assert set(action.describe(FOLLOW, pair.parts).commands) <= set(died)
    print(f"killed before each of {len(died)} commands")
    arrives(pair, "survived")
