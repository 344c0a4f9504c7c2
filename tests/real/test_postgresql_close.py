"""Closing a standby before it is promoted, and opening it after, on real PostgreSQL."""

from __future__ import annotations

import threading

import psycopg
import pytest

from orchestrator.actions.postgresql_close import Close, CloseParams, Open, OpenParams
from orchestrator.actions.postgresql_promote import Epoch, EpochParams, Promote, PromoteParams
from orchestrator.core.outcomes import Failed, FindingKind, Succeeded
from tests.real.pgharness import CLUSTER, DATABASES, Pair, until

pytestmark = pytest.mark.real

CLOSE = CloseParams(CLUSTER, "e1")
OPEN = OpenParams(CLUSTER, "e1")
PROMOTE = PromoteParams(CLUSTER, "e1", DATABASES, "home", 1)
EPOCH = EpochParams(CLUSTER, "e1", DATABASES, 2, "embassy", "home", 1, "local")


def new_session_setting(pair: Pair, site: str, name: str) -> str:
    return str(pair.ask(site, f"SELECT current_setting('{name}')"))


def test_close_ends_when_new_sessions_are_closed(pair: Pair) -> None:
    action = Close()
    assert action.check(pair.context(CLOSE)).kind is FindingKind.NOT_DONE
    assert isinstance(pair.perform(action, CLOSE), Succeeded)
    for name, wanted in (("default_transaction_read_only", "on"), ("wal_retrieve_retry_interval", "1ms")):
        assert new_session_setting(pair, "embassy", name) == wanted
    assert action.check(pair.context(CLOSE)).kind is FindingKind.DONE
    assert isinstance(pair.perform(action, CLOSE), Succeeded)  # idempotent
    assert isinstance(action.undo(pair.context(CLOSE)), Succeeded)
    assert new_session_setting(pair, "embassy", "wal_retrieve_retry_interval") == "5s"
    assert action.check(pair.context(CLOSE)).kind is FindingKind.NOT_DONE


def test_close_names_a_role_that_would_not_be_closed(pair: Pair) -> None:
    pair.ask("home", "CREATE ROLE app LOGIN PASSWORD 'x'")
    pair.ask("home", "ALTER ROLE app SET default_transaction_read_only = off")
    pair.wait_caught_up()
    outcome = pair.perform(Close(), CLOSE)
    assert isinstance(outcome, Failed)
    assert "app in every database" in outcome.message


def test_closing_says_what_is_wrong_with_the_files(pair: Pair) -> None:
    with (pair.config("embassy") / "continuity.conf").open("a") as handle:
        handle.write("no_such_setting = 1\n")
    outcome = pair.perform(Close(), CLOSE)
    assert isinstance(outcome, Failed)
    assert "no_such_setting" in outcome.message


def test_open_refuses_a_standby(pair: Pair) -> None:
    outcome = pair.perform(Open(), OPEN)
    assert isinstance(outcome, Failed)
    assert "standby" in outcome.message
    assert Open().check(pair.context(OPEN)).kind is FindingKind.NOT_DONE


def test_open_lets_new_sessions_write(pair: Pair) -> None:
    pair.perform(Close(), CLOSE)
    pair.kill_site("home")
    assert isinstance(pair.perform(Promote(), PROMOTE), Succeeded)
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        pair.ask("embassy", "INSERT INTO rows VALUES ('closed', '')")
    assert Open().check(pair.context(OPEN)).kind is FindingKind.NOT_DONE
    assert isinstance(pair.perform(Open(), OPEN), Succeeded)
    pair.ask("embassy", "INSERT INTO rows VALUES ('opened', '')")
    assert Open().check(pair.context(OPEN)).kind is FindingKind.DONE
    assert new_session_setting(pair, "embassy", "wal_retrieve_retry_interval") == "5s"


def test_a_primary_is_not_closed(pair: Pair) -> None:
    """A plan that names the wrong host would stop whoever writes there."""
    outcome = pair.perform(Close(), CloseParams(CLUSTER, "h1"))
    assert isinstance(outcome, Failed)
    assert "not a standby" in outcome.message
    pair.ask("home", "INSERT INTO rows VALUES ('goes', 'on')")


def test_clients_that_look_for_a_writable_server_do_not_enter_before_it_is_opened(pair: Pair) -> None:
    """Semantics of promotion: between promotion and epoch nobody may be let in."""
    assert isinstance(pair.perform(Close(), CLOSE), Succeeded)
    pair.kill_site("home")
    assert isinstance(pair.perform(Promote(), PROMOTE), Succeeded)
    with pytest.raises(psycopg.OperationalError, match="read-only"):
        pair.connect("embassy", target_session_attrs="read-write").close()
    assert isinstance(pair.perform(Epoch(), EPOCH), Succeeded)
    with pytest.raises(psycopg.OperationalError, match="read-only"):
        pair.connect("embassy", target_session_attrs="read-write").close()
    assert isinstance(pair.perform(Open(), OPEN), Succeeded)
    pair.connect("embassy", target_session_attrs="read-write").close()


def test_pitfall_2_the_first_commit_does_not_wait_for_a_standby_that_the_backup_inherited(pair: Pair) -> None:
    """The base backup brought home's synchronous_standby_names along: nobody by that name follows here,
    and no time-out of the server ends such a wait."""
    with (pair.config("embassy") / "continuity.conf").open("a") as handle:
        handle.write("synchronous_standby_names = 'FIRST 1 (\"e1\")'\n")
    pair.ask("embassy", "SELECT pg_reload_conf()")
    until(lambda: new_session_setting(pair, "embassy", "synchronous_standby_names"), "not reloaded")
    assert isinstance(pair.perform(Close(), CLOSE), Succeeded)
    pair.kill_site("home")
    for action, params in ((Promote(), PROMOTE), (Epoch(), EPOCH), (Open(), OPEN)):
        assert isinstance(pair.perform(action, params), Succeeded)
    written = threading.Event()

    def write() -> None:
        pair.ask("embassy", "INSERT INTO rows VALUES ('first', 'commit')")
        written.set()

    threading.Thread(target=write, daemon=True).start()
    assert written.wait(3), "the first commit hangs"


def test_what_is_described_is_what_is_sent(pair: Pair) -> None:
    pair.recorded.clear()
    pair.perform(Close(), CLOSE)
    assert tuple(pair.recorded) == Close().describe(CLOSE, pair.parts).commands
    pair.kill_site("home")
    pair.perform(Promote(), PROMOTE)
    pair.recorded.clear()
    pair.perform(Open(), OPEN)
    assert tuple(pair.recorded) == Open().describe(OPEN, pair.parts).commands
