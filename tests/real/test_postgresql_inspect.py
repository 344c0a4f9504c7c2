"""Both sites looked at side by side on real PostgreSQL: what is evidence, what is a finding, what fails."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.actions.postgresql_inspect import Inspect, InspectParams
from orchestrator.core.claims import CONTRADICTIONS
from orchestrator.core.model import Operation
from orchestrator.core.outcomes import Failed, FindingKind, Succeeded
from tests.real.pgharness import CLUSTER, DATABASES, Load, Pair, running, standing_still, until

pytestmark = pytest.mark.real

INSPECT = InspectParams(CLUSTER, "e1", DATABASES, "home", "embassy")
SECONDS = 2.0  # what an inspection has


@pytest.fixture(scope="module")
def healthy(pg_template: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Shared by tests that leave it as they found it."""
    with running(pg_template, tmp_path_factory.mktemp("inspect") / "p") as made:
        yield made


def inspect(pair: Pair, **more: Any) -> Any:
    return pair.perform(Inspect(), INSPECT, **{"seconds": SECONDS, **more})


def beat(pair: Pair) -> None:
    pair.ask("home", "UPDATE continuity.heartbeat SET at = clock_timestamp()")


def findings(pair: Pair) -> dict[str, str]:
    """What was found, and what mends it."""
    return {finding["text"]: finding["mend"] for finding in inspect(pair).evidence["findings"]}


def mend_of(pair: Pair, part: str) -> str:
    """The mend of the only finding that says ``part``, once the standby has replayed it."""
    pair.wait_caught_up()
    found = [mend for text, mend in findings(pair).items() if part in text]
    assert len(found) == 1, (part, findings(pair))
    return found[0]


def test_both_sites_side_by_side(healthy: Pair) -> None:
    with Load(healthy, "home") as load:
        load.wait(50)
    beat(healthy)
    healthy.wait_caught_up()
    outcome = inspect(healthy)
    assert isinstance(outcome, Succeeded), outcome
    home, embassy = outcome.evidence["sites"]["home"], outcome.evidence["sites"]["embassy"]
    assert (home["reachable"], home["role"], home["serves_writes"]) == (True, "primary", True)
    assert (embassy["reachable"], embassy["role"], embassy["serves_writes"]) == (True, "standby", False)
    assert home["system_id"] == embassy["system_id"]
    assert home["timeline"] == embassy["timeline"] == 1
    row = {"epoch": 1, "site": "home", "run": "install", "durability": "remote"}
    assert home["writers"] == embassy["writers"] == dict.fromkeys(DATABASES, row)
    assert home["streaming"]
    assert embassy["streaming"]
    assert home["lsn"]
    assert embassy["receive_lsn"]
    assert abs(embassy["heartbeat_ns"] - time.time_ns()) < 5_000_000_000
    assert abs(embassy["last_commit_ns"] - time.time_ns()) < 5_000_000_000
    assert home["write_rate_rows_per_s"] > 0
    assert home["members"]["h1"]["reachable"]
    assert outcome.evidence["findings"] == []
    assert Inspect().check(healthy.context(INSPECT)).kind is FindingKind.DONE


@pytest.mark.parametrize(
    ("epoch", "site", "taken_back", "against"),
    [
        (1, "home", (), 0),
        (2, "embassy", (), 0),  # what stands here is older
        (1, "embassy", (), 1),  # one epoch, two sites
        (0, "", (), 0),  # nothing is compared without a log
    ],
)
def test_rows_that_the_log_does_not_know_stand_against_it(
    healthy: Pair, epoch: int, site: str, taken_back: tuple[str, ...], against: int
) -> None:
    params = replace(INSPECT, expect_epoch=epoch, expect_site=site, taken_back=taken_back)
    outcome = healthy.perform(Inspect(), params, seconds=SECONDS)
    assert isinstance(outcome, Failed if against else Succeeded), outcome
    assert len(outcome.evidence.get(CONTRADICTIONS, ())) == against
    assert outcome.evidence["sites"]["home"]["reachable"], "what was seen is told all the same"


def test_a_newer_row_stands_against_the_log_unless_its_run_was_taken_back(
    pg_template: Pair, tmp_path: Path
) -> None:
    with running(pg_template, tmp_path / "p") as pair:
        pair.ask("home", "UPDATE continuity.writer SET epoch = 2, run = 'r-other'")
        pair.wait_caught_up()
        params = replace(INSPECT, expect_epoch=1, expect_site="home")
        outcome = pair.perform(Inspect(), params, seconds=SECONDS)
        assert isinstance(outcome, Failed), outcome
        (text,) = outcome.evidence[CONTRADICTIONS]
        assert "epoch 2 of home (run r-other)" in text
        assert "the log knows epoch 1 of home" in text
        forgiven = replace(params, taken_back=("r-other",))
        assert isinstance(pair.perform(Inspect(), forgiven, seconds=SECONDS), Succeeded)


def test_pitfall_10_two_servers_on_one_machine_share_a_port_and_no_socket(
    pg_template: Pair, tmp_path: Path
) -> None:
    """A socket's path may have 107 bytes; nothing here needs one, so folders may be as deep as people like."""
    from orchestrator.lab.postgres import SETTINGS

    assert "unix_socket_directories = ''" in SETTINGS
    folder = tmp_path / ("deep" * 30)
    with running(pg_template, folder) as pair:
        assert len(str(pair.data("embassy"))) > 107
        sites = inspect(pair).evidence["sites"]
        assert (sites["home"]["role"], sites["embassy"]["role"]) == ("primary", "standby")


def test_nothing_is_changed_and_what_is_described_is_done(healthy: Pair) -> None:
    before = healthy.ask("home", "SELECT pg_current_wal_insert_lsn()::text")
    healthy.recorded.clear()
    inspect(healthy)
    assert tuple(healthy.recorded) == Inspect().describe(INSPECT, healthy.parts).commands
    assert healthy.ask("home", "SELECT pg_current_wal_insert_lsn()::text") == before


def test_a_lost_home_is_a_fact_and_no_failure(pair: Pair) -> None:
    pair.kill_site("home")
    outcome = inspect(pair)
    assert isinstance(outcome, Succeeded), outcome
    home = outcome.evidence["sites"]["home"]
    assert not home["reachable"]
    assert "refused" in home["error"]
    assert not outcome.evidence["sites"]["embassy"]["streaming"]
    for operation, is_fine in (
        (Operation.SWITCHOVER, False),
        (Operation.FAILBACK, False),
        (Operation.REPROTECT, False),
        (Operation.FAILOVER, True),
    ):
        outcome = inspect(pair, operation=operation)
        assert isinstance(outcome, Succeeded) is is_fine, (operation, outcome)
    assert "continuity failover" in inspect(pair, operation=Operation.SWITCHOVER).message


def test_a_home_that_hangs_takes_no_longer_than_the_step(pair: Pair) -> None:
    """A stopped process still accepts connections and never answers."""
    with standing_still(*pair.processes("home"), pair.supervisors["home"].pid):
        began = time.monotonic()
        outcome = inspect(pair, seconds=1.2)  # a connection alone would be waited for 2 s
        took = time.monotonic() - began
    assert took < 1.7
    assert isinstance(outcome, Succeeded), outcome
    home = outcome.evidence["sites"]["home"]
    assert (home["reachable"], home["members"]["h1"]["reachable"]) == (False, False)
    assert home["error"]


def test_a_target_that_does_not_answer_fails(pair: Pair) -> None:
    pair.kill_site("embassy")
    outcome = inspect(pair)
    assert isinstance(outcome, Failed), outcome
    assert outcome.retryable
    assert "embassy" in outcome.message
    assert outcome.evidence["sites"]["home"]["serves_writes"] is True  # all the same
    assert isinstance(inspect(pair, operation=Operation.REPROTECT), Succeeded)


# --- findings -----------------------------------------------------------------------------------


def test_what_would_wake_or_break_at_the_target_is_found(healthy: Pair) -> None:
    subscribe = "CREATE SUBSCRIPTION n CONNECTION '' PUBLICATION p WITH (connect = false, slot_name = NONE)"
    home_address = healthy.addresses["home"]
    plants = (
        ("CREATE UNLOGGED TABLE cache (id int)", "DROP TABLE cache",
         "cache is unlogged", "ALTER TABLE cache SET LOGGED"),
        (f"CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w OPTIONS (host '{home_address}')",
         "DROP SERVER s; DROP FOREIGN DATA WRAPPER w", "foreign server s points home", 'ALTER SERVER "s"'),
        ("UPDATE pg_database SET datcollversion = '2.1' WHERE datname = 'land'",
         "UPDATE pg_database SET datcollversion = NULL WHERE datname = 'land'",
         "land: its indexes were sorted by collation version 2.1", 'REINDEX DATABASE "land"'),
        (f"{subscribe}; UPDATE pg_subscription SET subenabled = true", "DROP SUBSCRIPTION n",
         "subscription n would go on", 'ALTER SUBSCRIPTION "n" DISABLE'),
    )  # fmt: skip
    for plant, remove, said, mend in plants:
        beat(healthy)
        healthy.ask("home", plant)
        try:
            assert mend in mend_of(healthy, said)
        finally:
            healthy.ask("home", remove)
    beat(healthy)
    healthy.wait_caught_up()
    assert findings(healthy) == {}


def test_what_is_missing_of_the_epoch_is_found(pair: Pair) -> None:
    pair.ask("home", "DELETE FROM continuity.writer", database="land")
    assert mend_of(pair, "land: no epoch row") == f"continuity epoch install {CLUSTER}"
    assert "land" not in inspect(pair).evidence["sites"]["embassy"]["writers"]
    pair.ask("home", "DROP SCHEMA continuity CASCADE", database="land")
    assert mend_of(pair, "land: no epoch row")
    for database in ("population",):
        pair.ask("home", "DELETE FROM continuity.heartbeat", database=database)
    assert "each second" in mend_of(pair, "no heartbeat row")
    assert inspect(pair).evidence["sites"]["embassy"]["heartbeat_ns"] is None


def test_an_old_heartbeat_and_a_promise_that_is_not_kept_are_found(pair: Pair) -> None:
    old = "UPDATE continuity.heartbeat SET at = clock_timestamp() - interval '1 minute'"
    for database in DATABASES:
        pair.ask("home", old, database=database)
    assert mend_of(pair, "the heartbeat is")
    # The rows promise that commits wait; people relaxed the setting by hand.
    pair.ask("home", "ALTER SYSTEM SET synchronous_standby_names = ''")
    pair.ask("home", "SELECT pg_reload_conf()")
    setting = "SELECT current_setting('synchronous_standby_names') = ''"
    until(lambda: pair.ask("home", setting), "the reload is not seen")
    assert mend_of(pair, "and they do not")
    assert inspect(pair).evidence["sites"]["home"]["waits"] is False
    for database in DATABASES:
        pair.ask("home", "UPDATE continuity.writer SET durability = 'local'", database=database)
    assert mend_of(pair, "commits do not wait") == "continuity reprotect"


def test_what_only_home_can_tell_is_found(pair: Pair) -> None:
    pair.ask("home", "ALTER SYSTEM SET wal_level = logical")
    restart(pair, "home")
    pair.ask("home", "SELECT pg_create_logical_replication_slot('feed', 'pgoutput')")
    assert "pg_create_logical_replication_slot('feed', 'pgoutput')" in mend_of(pair, "logical slot feed")
    pair.ask("home", "SELECT pg_drop_replication_slot('feed')")
    pair.ask("home", "BEGIN; CREATE TABLE held (id int); PREPARE TRANSACTION 'left over'")
    assert "ROLLBACK PREPARED 'left over'" in mend_of(pair, "left over is prepared")


def test_a_setting_lower_than_homes_is_found(pair: Pair) -> None:
    """The standby holds replay back once home's change of the setting arrives."""
    pair.ask("home", "ALTER SYSTEM SET max_connections = 50")
    restart(pair, "home")
    until(lambda: any("replay is paused" in text for text in findings(pair)), "replay goes on")
    found = findings(pair)
    lower = [mend for text, mend in found.items() if "max_connections = 40, lower than home's 50" in text]
    assert len(lower) == 1, found
    assert "ALTER SYSTEM SET max_connections = 50" in lower[0]


def restart(pair: Pair, site: str) -> None:
    pair.kill_site(site)
    pair.start_site(site)
    pair.wait_ready(site)


def test_a_copy_whose_replay_is_held_back_is_found(healthy: Pair) -> None:
    healthy.ask("embassy", "SELECT pg_wal_replay_pause()")
    try:
        until(lambda: any("replay is paused" in text for text in findings(healthy)), "not found")
    finally:
        healthy.ask("embassy", "SELECT pg_wal_replay_resume()")


def test_a_directory_that_is_not_the_servers_is_found(pair: Pair) -> None:
    """A fence would look for processes in the wrong place, and find none."""
    import dataclasses

    parts = pair.parts
    cluster = dataclasses.replace(parts.clusters[CLUSTER], data_directory=f"{pair.folder}/${{host.site}}/old")
    parts = dataclasses.replace(parts, clusters={CLUSTER: cluster})
    texts = [f["text"] for f in inspect(pair, parts=parts).evidence["findings"]]
    assert len([text for text in texts if "holds no database: a stop could not be proven" in text]) == 2
    other = pair.folder / "home" / "old"
    (other / "global").mkdir(parents=True)
    (other / "PG_VERSION").write_text("17\n")
    content = bytearray((pair.data("home") / "global" / "pg_control").read_bytes())
    content[0] ^= 1
    (other / "global" / "pg_control").write_bytes(bytes(content))
    texts = [f["text"] for f in inspect(pair, parts=parts).evidence["findings"]]
    assert any("h1" in text and "is of system" in text for text in texts), texts


def test_another_manager_is_refused(healthy: Pair) -> None:
    """Patroni's sessions bear its name; it would start what a run has stopped."""
    with contextlib.closing(healthy.connect("home", application_name="Patroni heartbeat")):
        outcome = inspect(healthy)
    assert isinstance(outcome, Failed), outcome
    assert not outcome.retryable
    assert "Patroni" in outcome.message
    assert outcome.evidence["sites"]["home"]["reachable"]
    until(lambda: isinstance(inspect(healthy), Succeeded), "refused for a session that has ended")
