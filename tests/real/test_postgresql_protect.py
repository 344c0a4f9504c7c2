"""A primary is protected again: its standby has caught up, commits wait for it, and only then the rows say so."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from orchestrator.actions.postgresql_follow import Follow, FollowParams
from orchestrator.actions.postgresql_protect import Protect, ProtectParams
from orchestrator.core.outcomes import Failed, FindingKind, Succeeded
from tests.real import pgharness, pgmoves
from tests.real.pgharness import CLUSTER, DATABASES, Pair, until

pytestmark = pytest.mark.real

REMOTE = ProtectParams(CLUSTER, "e1", "h1", DATABASES, "remote")
LOCAL = ProtectParams(CLUSTER, "e1", "h1", DATABASES, "local")
NAMES = 'ANY 1 ("h1")'
WAITS = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"


@pytest.fixture(scope="module")
def following(pg_template: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with (
        pgmoves.in_memory(tmp_path_factory.mktemp("protect")) as folder,
        pgharness.running(pg_template, folder / "p") as made,
    ):
        pgmoves.switch_over(made)
        assert isinstance(made.perform(Follow(), FollowParams(CLUSTER, "h1", "e1")), Succeeded)
        yield made


@pytest.fixture
def pair(following: Pair) -> Pair:
    """The embassy is the primary, home follows, and commits wait for nobody."""
    for site in ("embassy", "home"):
        if not following.processes(site):
            following.kill_site(site)
            following.start_site(site)
            following.wait_ready(site)
    pgmoves.wait_for_nobody(following, "embassy")
    following.wait_caught_up("embassy", "home")
    following.recorded.clear()
    return following


def durabilities(pair: Pair, site: str) -> set[str]:
    return {str(pair.ask(site, "SELECT durability FROM continuity.writer", database=d)) for d in DATABASES}


def recording(pair: Pair, params: ProtectParams, act: Callable[[str], None], **more: Any) -> Any:
    return dataclasses.replace(pair.context(params, **more), record=act)


@contextlib.contextmanager
def stopped(*pids: int) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def test_commits_wait_and_the_rows_say_so(pair: Pair) -> None:
    action = Protect()
    assert durabilities(pair, "embassy") == {"local"}
    assert action.check(pair.context(REMOTE)).kind is FindingKind.NOT_DONE
    outcome = pair.perform(action, REMOTE)
    assert isinstance(outcome, Succeeded), outcome
    assert outcome.evidence["sync_state"] == "quorum"
    assert outcome.evidence["state"] == "streaming"
    assert pair.recorded == list(action.describe(REMOTE, pair.parts).commands)
    assert durabilities(pair, "embassy") == durabilities(pair, "home") == {"remote"}
    assert pair.ask("embassy", "SHOW synchronous_standby_names") == NAMES
    found = action.check(pair.context(REMOTE))
    assert found.kind is FindingKind.DONE
    assert set(found.evidence) == set(outcome.evidence)
    assert isinstance(pair.perform(action, REMOTE), Succeeded)  # again
    assert isinstance(action.undo(pair.context(REMOTE)), Succeeded)
    assert durabilities(pair, "embassy") == {"remote"}
    pair.kill_site("home")
    assert action.check(pair.context(REMOTE)).kind is FindingKind.NOT_DONE
    with contextlib.ExitStack() as stack:  # and a commit waits now
        session = stack.enter_context(pair.connect("embassy"))
        thread = threading.Thread(target=lambda: _insert(session))
        thread.start()
        until(lambda: pair.ask("embassy", WAITS), "the commit does not wait")
        pair.kill_database("embassy")
        thread.join(5)


def _insert(session: psycopg.Connection[Any]) -> None:
    with contextlib.suppress(psycopg.Error):
        session.execute("INSERT INTO rows VALUES ('waits', '')")


def test_what_closing_left_behind_does_not_win_over_the_role_file(pair: Pair) -> None:
    """A closed and opened server keeps an empty synchronous_standby_names in postgresql.auto.conf."""
    pair.ask("embassy", "ALTER SYSTEM SET synchronous_standby_names = ''")
    pair.ask("embassy", "SELECT pg_reload_conf()")
    assert isinstance(pair.perform(Protect(), REMOTE), Succeeded)
    assert pair.ask("embassy", "SHOW synchronous_standby_names") == NAMES


def test_no_row_says_remote_before_the_standby_has_it(pair: Pair) -> None:
    """The row's own commit waits: as long as home stands still, nobody sees the row."""
    context = pair.context(REMOTE)
    outcomes: list[Any] = []
    reached, go = threading.Event(), threading.Event()

    def record(command: str) -> None:
        if "UPDATE" in command and not reached.is_set():
            reached.set()
            go.wait(10)

    context = recording(pair, REMOTE, record)
    thread = threading.Thread(target=lambda: outcomes.append(Protect().execute(context)))
    thread.start()
    assert reached.wait(10)
    with stopped(*pair.processes("home")):
        go.set()
        until(lambda: pair.ask("embassy", WAITS), "the row is written without waiting")
        assert durabilities(pair, "embassy") == {"local"}
        assert Protect().check(pair.context(REMOTE)).kind is FindingKind.RUNNING
    thread.join(10)
    assert isinstance(outcomes[0], Succeeded), outcomes
    assert durabilities(pair, "home") == {"remote"}


def test_no_row_says_remote_while_the_checkpointer_has_not_heard(pair: Pair) -> None:
    """Whether commits wait is decided by a flag of the checkpointer, not by what a session shows."""
    query = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'"
    checkpointer = int(pair.ask("embassy", query))
    outcomes: list[Any] = []
    seen: list[str] = []
    with stopped(checkpointer):
        context = recording(pair, REMOTE, seen.append, seconds=20)
        thread = threading.Thread(target=lambda: outcomes.append(Protect().execute(context)))
        thread.start()
        until(lambda: "CHECKPOINT" in seen or outcomes, "it neither waits nor ends")
        assert pair.ask("embassy", "SHOW synchronous_standby_names") == NAMES  # every session shows it
        with pair.connect("home"), stopped(*pair.processes("home")):
            pair.ask("embassy", "INSERT INTO rows VALUES ('unprotected', '')")  # and no commit waits
        assert durabilities(pair, "embassy") == {"local"}
        assert not outcomes
    thread.join(20)
    assert isinstance(outcomes[0], Succeeded), outcomes
    assert durabilities(pair, "embassy") == {"remote"}


def test_a_role_that_waits_for_nobody_is_named(pair: Pair) -> None:
    pair.ask("embassy", "CREATE ROLE batch LOGIN")
    pair.ask("embassy", "ALTER ROLE batch SET synchronous_commit = off")
    outcome = pair.perform(Protect(), REMOTE)
    assert isinstance(outcome, Failed)
    assert "batch in every database: synchronous_commit=off" in outcome.message
    assert durabilities(pair, "embassy") == {"local"}
    pair.ask("embassy", "ALTER ROLE batch SET synchronous_commit = remote_apply")
    assert isinstance(pair.perform(Protect(), REMOTE), Succeeded)


def test_the_rows_say_local_before_commits_stop_waiting(pair: Pair) -> None:
    assert isinstance(pair.perform(Protect(), REMOTE), Succeeded)
    pair.recorded.clear()
    seen: list[set[str]] = []

    def record(command: str) -> None:
        pair.recorded.append(command)
        if command.startswith("write "):
            seen.append(durabilities(pair, "home"))

    outcome = Protect().execute(recording(pair, LOCAL, record))
    assert isinstance(outcome, Succeeded), outcome
    assert seen == [{"local"}]
    assert pair.recorded == list(Protect().describe(LOCAL, pair.parts).commands)
    assert pair.ask("embassy", "SHOW synchronous_standby_names") == ""
    assert Protect().check(pair.context(LOCAL)).kind is FindingKind.DONE


def test_who_does_not_follow_or_has_no_row_protects_nobody(pair: Pair) -> None:
    pair.ask("embassy", "UPDATE continuity.writer SET site = 'home'", database="land")
    outcome = pair.perform(Protect(), REMOTE)
    assert isinstance(outcome, Failed)
    assert "land: its row does not name embassy" in outcome.message
    pair.kill_site("home")
    outcome = pair.perform(Protect(), LOCAL, seconds=1.0)
    assert isinstance(outcome, Failed)
    assert outcome.retryable
    assert "did not catch up" in outcome.message
    assert "h1 does not stream" in Protect().check(pair.context(LOCAL)).reason


class Killed(BaseException):
    """The driver dies between two commands."""


@pytest.mark.parametrize("params", [REMOTE, LOCAL], ids=["remote", "local"])
def test_killed_before_any_command_it_ends_well(pair: Pair, params: ProtectParams) -> None:
    died: list[str] = []

    def record(command: str) -> None:
        if command not in died:
            died.append(command)
            raise Killed

    for _ in range(20):
        context = recording(pair, params, record)
        assert Protect().check(context).kind is not FindingKind.CANNOT_TELL
        try:
            outcome: Any = Protect().execute(context)
        except Killed:
            if "remote" in durabilities(pair, "embassy"):
                assert pair.ask("embassy", "SHOW synchronous_standby_names") == NAMES
            continue
        break
    else:
        raise AssertionError("it never ends")
    assert isinstance(outcome, Succeeded), outcome
    assert set(Protect().describe(params, pair.parts).commands) == set(died)
