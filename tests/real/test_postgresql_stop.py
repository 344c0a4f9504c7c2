"""The fence of rank *demoted* on real PostgreSQL: stopped for good, proven on the host, and lifted again."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from orchestrator.actions.postgresql_freeze import Freeze, FreezeParams
from orchestrator.actions.postgresql_stop import Stop, StopParams
from orchestrator.actions.postgresql_verify import VerifyDrained, VerifyDrainedParams
from orchestrator.core.model import Operation
from orchestrator.core.outcomes import Failed, FindingKind, Succeeded, Unknown
from orchestrator.drivers import supervisor
from tests.action_context import GivenSecrets
from tests.real.pgharness import CLUSTER, SECRETS, Load, Pair, standing_still, until

pytestmark = pytest.mark.real

STOP = StopParams(CLUSTER, "h1")
DRAINED = VerifyDrainedParams(CLUSTER, "e1", "h1")


def stop(pair: Pair, **more: Any) -> Any:
    return pair.perform(Stop(), STOP, **more)


def start_unit(pair: Pair, site: str = "home") -> None:
    """Somebody starts the unit by hand."""
    supervisor.start(pair.manager(site), "postgresql", GivenSecrets(SECRETS), 10)
    pair.wait_ready(site)


def in_recovery(pair: Pair, site: str = "home") -> bool:
    return bool(pair.ask(site, "SELECT pg_is_in_recovery()"))


def test_a_stopped_primary_is_proven_and_comes_back_only_as_a_standby(pair: Pair) -> None:
    """Pitfall 11: standby.signal lies there before anything may start it."""
    assert Stop().check(pair.context(STOP)).kind is FindingKind.NOT_DONE
    outcome = stop(pair)
    assert isinstance(outcome, Succeeded), outcome
    proof = outcome.evidence
    assert proof["proof"] == "demoted"
    assert (proof["state"], proof["timeline"], proof["processes"]) == ("shut down", 1, [])
    found = Stop().check(pair.context(STOP))
    assert found.kind is FindingKind.DONE
    assert {**found.evidence, "seen_ns": 0} == {**proof, "seen_ns": 0}
    assert not pair.processes("home")
    start_unit(pair)
    assert in_recovery(pair)
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        pair.ask("home", "INSERT INTO rows VALUES ('late', '')")
    assert Stop().check(pair.context(STOP)).kind is not FindingKind.DONE
    assert isinstance(stop(pair), Succeeded)  # again, from there


def test_the_whole_site_restarts_and_home_stays_a_standby(pair: Pair) -> None:
    """Semantics of a fence: it survives a reboot, which starts every unit unaided."""
    assert isinstance(stop(pair), Succeeded)
    pair.kill_site("home")
    pair.start_site("home")
    pair.wait_ready("home")
    assert in_recovery(pair)


@pytest.mark.parametrize("is_frozen", [True, False])
def test_after_the_proof_home_acknowledges_nothing(pair: Pair, is_frozen: bool) -> None:
    """By one clock outside, on direct SQL, whatever restarts the unit; frozen first or not."""
    with Load(pair, "home", writers=4) as load:
        load.wait(200)
        if is_frozen:
            pair.perform(Freeze(), FreezeParams(CLUSTER, "h1"))
        assert isinstance(stop(pair), Succeeded)
        proven = time.monotonic()
        start_unit(pair)
        refused = load.refused
        until(lambda: load.refused >= refused + 20, "the writers do not try again")
    late = [name for name, at in load.acknowledged.items() if at > proven]
    assert not late


def test_a_clean_stop_is_proven_drained(pair: Pair) -> None:
    with Load(pair, "home") as load:
        load.wait(100)
        evidence = stop(pair, operation=Operation.SWITCHOVER).evidence
    drained = pair.perform(VerifyDrained(), DRAINED, evidence={f"{CLUSTER}/stop-h1": evidence})
    assert isinstance(drained, Succeeded), drained
    with pair.connect("embassy") as session:
        have = {row[0] for row in session.execute("SELECT id FROM rows")}
    assert set(load.acknowledged) <= have


def test_a_crash_is_a_fence_but_no_proof_of_a_drained_log(pair: Pair) -> None:
    outcome = pair.perform(Stop(), replace(STOP, mode="immediate"))
    assert isinstance(outcome, Succeeded), outcome
    assert outcome.evidence["state"] == "in production"
    drained = pair.perform(VerifyDrained(), DRAINED, evidence={f"{CLUSTER}/stop-h1": outcome.evidence})
    assert isinstance(drained, Failed)
    assert "no proof of a clean shutdown" in drained.message


def test_a_host_that_does_not_answer_is_no_proof(pair: Pair) -> None:
    pair.kill_site("home")
    outcome = stop(pair)
    assert isinstance(outcome, Failed), outcome
    assert outcome.retryable
    assert "h1" in outcome.message
    assert Stop().check(pair.context(STOP)).kind is FindingKind.CANNOT_TELL
    assert not (pair.data("home") / "standby.signal").exists()


def test_a_host_that_hangs_is_no_proof(pair: Pair) -> None:
    with standing_still(*pair.processes("home"), pair.supervisors["home"].pid):
        outcome = stop(pair, seconds=3)
        assert isinstance(outcome, Failed), outcome
        assert outcome.retryable


def test_pitfall_8_a_child_that_outlives_its_postmaster_is_found(pair: Pair) -> None:
    """Each child leads a session of its own: the postmaster's end says nothing of them."""
    with pair.connect("home") as session:
        (backend,) = session.execute("SELECT pg_backend_pid()").fetchone() or (0,)
        child = next(p for p in pair.processes("home") if p != pair.postmaster("home"))
        assert os.getsid(child) == child
        victim = host_pid(pair, backend)
        with standing_still(victim):
            os.kill(pair.postmaster("home"), signal.SIGKILL)
            outcome = stop(pair, seconds=2)
            assert isinstance(outcome, Unknown), outcome
            assert f"{victim} (postgres)" in outcome.message
            assert Stop().check(pair.context(STOP)).kind is FindingKind.CANNOT_TELL
    until(lambda: not pair.processes("home"), "the child does not end")
    assert isinstance(stop(pair), Succeeded)


def host_pid(pair: Pair, backend: int) -> int:
    """A backend's process; the harness maps users, not process ids."""
    assert backend in pair.processes("home")
    return backend


def test_a_process_of_another_name_is_named(pair: Pair) -> None:
    """Somebody's shell in the data directory holds the proof up, and the message says whose it is."""
    sleeper = subprocess.Popen(["sleep", "60"], cwd=pair.data("home"))
    try:
        outcome = stop(pair, seconds=2)
        assert isinstance(outcome, Unknown)
        assert f"{sleeper.pid} (sleep)" in outcome.message
    finally:
        sleeper.kill()
        sleeper.wait()
    assert Stop().check(pair.context(STOP)).kind is FindingKind.DONE


def test_the_directory_of_another_cluster_is_not_touched(pair: Pair) -> None:
    """An estate that names a stopped, other cluster's directory would get a proof for nothing."""
    inspected = {f"{CLUSTER}/inspect": {"sites": {"embassy": {"reachable": True, "system_id": "42"}}}}
    outcome = stop(pair, evidence=inspected)
    assert isinstance(outcome, Failed), outcome
    assert "not 42" in outcome.message
    assert not (pair.data("home") / "standby.signal").exists()
    assert not in_recovery(pair)
    right = str(pair.ask("home", "SELECT system_identifier::text FROM pg_control_system()"))
    inspected = {f"{CLUSTER}/inspect": {"sites": {"embassy": {"reachable": True, "system_id": right}}}}
    assert isinstance(stop(pair, evidence=inspected), Succeeded)


def test_an_order_that_the_manager_refuses_leaves_nothing_behind(pair: Pair) -> None:
    parts = pair.parts
    cluster = replace(parts.clusters[CLUSTER], unit="postgres-of-old")
    parts = replace(parts, clusters={CLUSTER: cluster})
    outcome = stop(pair, parts=parts)
    assert isinstance(outcome, Failed), outcome
    assert "no such unit" in outcome.message
    assert not (pair.data("home") / "standby.signal").exists()


# --- waiting for a synchronous standby ----------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "operation"),
    [
        pytest.param("fast", Operation.FAILOVER, id="fast, then immediate"),
        pytest.param("immediate", Operation.FAILOVER, id="immediate"),
    ],
)
def test_a_commit_that_waits_for_the_standby_is_never_acknowledged(
    pair: Pair, mode: Any, operation: Operation
) -> None:
    """Its row exists at home only: cancelled, the wait would report success; terminated, it does not.

    The embassy's receiver stands still, as behind a silent cut: a fast stop waits for it, and the
    fences have no time for that.
    """
    receiver = int(pair.ask("embassy", "SELECT pid FROM pg_stat_wal_receiver"))
    heard: list[str] = []

    def write() -> None:
        try:
            with pair.connect("home") as session:
                session.execute("INSERT INTO rows VALUES ('waits', 'for the embassy')")
                heard.append("acknowledged")
        except psycopg.Error as error:
            heard.append(str(error))

    with standing_still(receiver):
        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        until(lambda: pair.ask("home", waits) == 1, "the commit does not wait")
        params = replace(STOP, mode=mode)
        outcome = pair.perform(Stop(), params, seconds=4, operation=operation)
        writer.join(5)
    assert isinstance(outcome, Succeeded), outcome
    assert not pair.processes("home")
    assert heard
    assert heard != ["acknowledged"]


# --- lifting it ---------------------------------------------------------------------------------


def test_undo_starts_it_as_the_primary_it_was(pair: Pair) -> None:
    with Load(pair, "home") as load:
        load.wait(50)
        assert isinstance(pair.perform(Freeze(), FreezeParams(CLUSTER, "h1")), Succeeded)
        assert isinstance(stop(pair), Succeeded)
    undone = Stop().undo(pair.context(STOP))
    assert isinstance(undone, Succeeded), undone
    assert undone.evidence["writes"] is True
    pair.ask("home", "SET synchronous_commit = local; INSERT INTO rows VALUES ('again', 'writes')")
    assert pair.ask("home", "SELECT current_setting('synchronous_standby_names')") == 'FIRST 1 ("e1")'
    assert isinstance(Stop().undo(pair.context(STOP)), Succeeded)  # nothing is left to undo


def test_undo_of_one_that_somebody_started_meanwhile(pair: Pair) -> None:
    stop(pair)
    start_unit(pair)
    assert in_recovery(pair)
    undone = Stop().undo(pair.context(STOP))
    assert isinstance(undone, Succeeded), undone
    assert undone.evidence["writes"] is True
    assert not in_recovery(pair)


def test_undo_of_a_half_done_stop_does_not_interrupt_the_primary(pair: Pair) -> None:
    """The signal is written, the order never came: the server runs on as the primary."""
    (pair.data("home") / "standby.signal").write_text(
        "# A primary that was fenced by continuity: it may come up only as a standby.\n"
    )
    assert Stop().check(pair.context(STOP)).kind is FindingKind.CANNOT_TELL
    before = pair.postmaster("home")
    assert isinstance(Stop().undo(pair.context(STOP)), Succeeded)
    assert pair.postmaster("home") == before
    assert not (pair.data("home") / "standby.signal").exists()


def test_a_standby_that_was_stopped_is_started_as_one(pair: Pair) -> None:
    """Every member of the old side is stopped, and lifting the fence makes no second primary."""
    params = replace(STOP, host="e1")
    outcome = pair.perform(Stop(), params)
    assert isinstance(outcome, Succeeded), outcome
    assert outcome.evidence["state"] == "shut down in recovery"
    assert "shutdown_checkpoint" not in outcome.evidence
    undone = Stop().undo(pair.context(params))
    assert isinstance(undone, Succeeded), undone
    assert undone.evidence["writes"] is False
    assert in_recovery(pair, "embassy")


def test_what_is_described_is_what_is_done(pair: Pair) -> None:
    described = Stop().describe(STOP, pair.parts)
    pair.recorded.clear()
    stop(pair)
    assert tuple(pair.recorded) == described.commands
    pair.recorded.clear()
    Stop().undo(pair.context(STOP))
    assert tuple(pair.recorded) == described.undo_commands
