"""The ledger is what clients were told, and the checker finds every row that is not as they were told."""

from __future__ import annotations

import ast
import json
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from orchestrator.core.loss import lsn_number
from orchestrator.errors import RefusedError
from orchestrator.lab import check, postgres, traffic
from orchestrator.lab import load as load_program
from orchestrator.lab.layout import Lab
from orchestrator.lab.tail import Tail
from tests import labs
from tests.waiting import until

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with labs.a_lab() as made:
        yield made


@pytest.fixture(scope="module")
def written(lab: Lab) -> list[traffic.Running]:
    """Both registers written for a second and a half, by five writers."""
    loads = [
        traffic.start(lab, traffic.Load("population-register", writers=4, seconds=1.5)),
        traffic.start(lab, traffic.Load("land-register", writers=1, seconds=1.5)),
    ]
    for each in loads:
        assert traffic.wait(each)["failed_requests"] == 0
    return loads


def entries(ledger: Path, kind: str) -> list[dict[str, Any]]:
    lines = ledger.read_text(encoding="utf-8").splitlines()
    return [entry for entry in map(json.loads, lines) if entry["t"] == kind]


def judged(lab: Lab, written: list[traffic.Running]) -> dict[str, Any]:
    return traffic.check(lab, "home", [each.ledger for each in written])


def sql(lab: Lab, statement: str, *values: object) -> int:
    with postgres.connect(lab, "home", "population") as session:
        return session.execute(statement, values).rowcount


def test_every_acknowledgement_carries_site_epoch_and_lsn_of_its_write(
    lab: Lab, written: list[traffic.Running]
) -> None:
    acked = entries(written[0].ledger, "acked")
    intents = {entry["id"]: entry for entry in entries(written[0].ledger, "intent")}
    assert len(acked) >= 100
    assert {(entry["site"], entry["epoch"]) for entry in acked} == {("home", 1)}
    by_writer: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for entry in acked:
        assert intents[entry["id"]]["at_ns"] < entry["at_ns"], "it was in the ledger before it was sent"
        by_writer[entry["id"].rsplit("-", 1)[0]].append(entry)
    assert len(by_writer) >= 4
    for of_one in by_writer.values():
        places = [lsn_number(entry["lsn"]) for entry in of_one]
        assert places == sorted(set(places)), "an LSN was not read in the transaction of its own write"
    with postgres.connect(lab, "embassy", "population") as session:
        row = session.execute("SELECT pg_last_wal_receive_lsn()::text").fetchone()
        assert row
        assert max(lsn_number(entry["lsn"]) for entry in acked) <= lsn_number(row[0]), "not at the embassy"


def test_what_is_whole_is_verified_at_both_sites(lab: Lab, written: list[traffic.Running]) -> None:
    report = judged(lab, written)
    assert report["verified"] is True
    assert report["kept"] == report["acked"] > 100
    assert report["diverged"] == []
    assert set(report["by_epoch"]) == {"persons/1/home", "parcels/1/home"}
    postgres.wait_streaming(lab, "home")
    assert traffic.check(lab, "embassy", [each.ledger for each in written])["verified"] is True


Plant = Callable[[Lab, str], None]


def missing(lab: Lab, key: str) -> None:
    assert sql(lab, "DELETE FROM persons WHERE id = %s", key) == 1


def changed(lab: Lab, key: str) -> None:
    assert sql(lab, "UPDATE persons SET value = value || '!' WHERE id = %s", key) == 1


def of_another_epoch(lab: Lab, key: str) -> None:
    assert sql(lab, "UPDATE persons SET epoch = 7 WHERE id = %s", key) == 1


def duplicated(lab: Lab, key: str) -> None:
    """The same write a second time, under a key that nobody sent."""
    copy = (
        "INSERT INTO persons (id, value, site, epoch) SELECT 'again-' || id, value, site, epoch FROM persons"
    )
    assert sql(lab, f"{copy} WHERE id = %s", key) == 1


def twice_under_one_key(lab: Lab, key: str) -> None:
    """As a damaged index would let it be: one key, two rows."""
    sql(lab, "ALTER TABLE persons DROP CONSTRAINT persons_pkey")
    assert sql(lab, "INSERT INTO persons SELECT * FROM persons WHERE id = %s", key) == 1


@pytest.mark.parametrize(
    ("plant", "found_as"),
    [
        (missing, "lost"),
        (changed, "changed"),
        (of_another_epoch, "changed"),
        (duplicated, "duplicated"),
        (twice_under_one_key, "duplicated"),
    ],
)
def test_each_planted_difference_is_found(
    lab: Lab, written: list[traffic.Running], plant: Plant, found_as: str
) -> None:
    key = entries(written[0].ledger, "acked")[17]["id"]
    with postgres.connect(lab, "home", "population") as session:
        row = session.execute("SELECT * FROM persons WHERE id = %s", (key,)).fetchone()
    assert row
    plant(lab, key)
    try:
        report = judged(lab, written)
        assert report["verified"] is False
        assert report[found_as] == 1
        assert sum(report[name] for name in ("lost", "changed", "duplicated")) == 1
        assert key in report["listed"][found_as][0]
    finally:
        sql(lab, "DELETE FROM persons WHERE id = %s OR id = 'again-' || %s", key, key)
        sql(lab, "INSERT INTO persons VALUES (%s, %s, %s, %s, %s)", *row)
        if plant is twice_under_one_key:
            sql(lab, "ALTER TABLE persons ADD PRIMARY KEY (id)")
    assert judged(lab, written)["verified"] is True


def test_a_stated_loss_covers_so_many_lost_rows_and_nothing_else(
    lab: Lab, written: list[traffic.Running]
) -> None:
    keys = [entry["id"] for entry in entries(written[0].ledger, "acked")[20:22]]
    paths = [each.ledger for each in written]
    with postgres.connect(lab, "home", "population") as session:
        rows = session.execute("DELETE FROM persons WHERE id = ANY(%s) RETURNING *", (keys,)).fetchall()
        try:
            assert traffic.check(lab, "home", paths, lost_max=1)["verified"] is False
            covered = traffic.check(lab, "home", paths, lost_max=2)
            assert (covered["verified"], covered["lost"], len(covered["listed"]["lost"])) == (True, 2, 2)
        finally:
            for row in rows:
                session.execute("INSERT INTO persons VALUES (%s, %s, %s, %s, %s)", row)


def test_a_refused_write_that_is_there_all_the_same_is_found(lab: Lab, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    lines = [
        {"t": "begin", "run": "planted", "table": "persons", "at_ns": 1},
        {"t": "intent", "table": "persons", "id": "planted-0-1", "value": "v", "at_ns": 2},
        {"t": "acked", "id": "planted-0-1", "site": "home", "epoch": 1, "lsn": "0/1", "at_ns": 3},
        {"t": "intent", "table": "persons", "id": "planted-0-2", "value": "w", "at_ns": 4},
        {"t": "refused", "id": "planted-0-2", "at_ns": 5},
    ]
    ledger.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    insert = "INSERT INTO persons (id, value, site, epoch) VALUES (%s, %s, 'home', 1)"
    sql(lab, insert, "planted-0-1", "v")
    assert traffic.check(lab, "home", [ledger])["verified"] is True
    sql(lab, insert, "planted-0-2", "w")
    report = traffic.check(lab, "home", [ledger])
    assert (report["verified"], report["refused_present"]) == (False, 1)


def test_a_ledger_without_any_acknowledgement_verifies_nothing(lab: Lab, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    ledger.write_text('{"t":"begin","run":"nobody","table":"persons","at_ns":1}\n', encoding="utf-8")
    assert traffic.check(lab, "home", [ledger])["verified"] is False
    with pytest.raises(RefusedError, match="no ledger"):
        traffic.check(lab, "home", [])


def test_rows_that_only_the_other_site_has_are_listed_by_table_and_key(
    lab: Lab, written: list[traffic.Running]
) -> None:
    """The survivor is what the checker is pointed at: a row that only the other side holds has diverged."""
    key = entries(written[0].ledger, "acked")[3]["id"]
    with postgres.connect(lab, "home", "population") as session:
        (value,) = session.execute("SELECT value FROM persons WHERE id = %s", (key,)).fetchone() or ("",)
    found = check.diverged(
        check.read_ledgers([str(written[0].ledger)]), {}, {("persons", key): [(value, "home", 1)]}
    )
    assert [(row["table"], row["key"], row["kind"], row["outcome"]) for row in found] == [
        ("persons", key, "missing", "acked")
    ]


def test_a_checker_that_cannot_look_says_so(lab: Lab, written: list[traffic.Running]) -> None:
    with postgres.connect(lab, "home", "postgres") as session:
        session.execute("ALTER ROLE auditor NOLOGIN")
        try:
            report = judged(lab, written)
        finally:
            session.execute("ALTER ROLE auditor LOGIN")
    assert report["verified"] is False
    assert "could not look" in report["error"]


def test_a_killed_load_leaves_a_ledger_that_can_be_checked(lab: Lab) -> None:
    running = traffic.start(lab, traffic.Load())
    tail = Tail([running.ledger])

    def are_written() -> bool:
        tail.look()
        return tail.acked("persons", "home") >= 50

    until(are_written, "fifty writes are acknowledged")
    running.process.send_signal(signal.SIGKILL)
    running.process.wait()
    with open(running.ledger, "ab") as handle:
        handle.write(b'{"t":"acked","id":"cut o')
    tail.look()
    report = traffic.check(lab, "home", [running.ledger])
    assert report["verified"] is True
    assert report["acked"] == tail.acked() >= 50


@pytest.mark.parametrize("program", [check.__file__, load_program.__file__])
def test_checker_and_load_import_nothing_of_the_project(program: str) -> None:
    tree = ast.parse(Path(program).read_text(encoding="utf-8"))
    imported = {
        (node.module or "" if isinstance(node, ast.ImportFrom) else name.name).partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    }
    assert imported <= set(sys.stdlib_module_names) | {"psycopg"}
    code = "import runpy, sys; runpy.run_path(sys.argv[1]); print([m for m in sys.modules if m.startswith('orch')])"
    done = subprocess.run(
        [sys.executable, "-c", code, program], capture_output=True, text=True, cwd="/", check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_checker_uses_a_role_that_can_only_read(lab: Lab) -> None:
    with (
        psycopg.connect(
            host=lab.address("home"),
            dbname="population",
            user=postgres.AUDITOR,
            password=lab.secret("pg-auditor"),
            sslmode="verify-full",
            sslrootcert=str(lab.ca),
        ) as session,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        session.execute("DELETE FROM persons")


def test_nothing_is_compared_while_load_runs(lab: Lab) -> None:
    """What is written between the two looks would pass for a fault."""
    running = traffic.start(lab, traffic.Load(writers=1, seconds=6.0))
    refused = labs.run(lab, sys.executable, "-m", "orchestrator", "lab", "check")
    assert (refused.returncode, "continuity lab load --stop" in refused.stderr) == (3, True), refused.stderr
    traffic.wait(running)
    compared = labs.run(lab, sys.executable, "-m", "orchestrator", "lab", "check")
    assert "load is running" not in compared.stderr
