"""What a losing site alone holds is listed by table and key, and exactly that."""

from __future__ import annotations

import json
import stat
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.bootstrap.app import App
from orchestrator.bootstrap.divergence import Diverged, diverged
from orchestrator.errors import InputError
from orchestrator.settings import Settings
from tests.real import pgmoves
from tests.real.pgpair import CLUSTER, HOSTS, PORT, SECRETS, SUPERVISOR_PORT, Pair

pytestmark = pytest.mark.real


@pytest.fixture
def pair(pg_lost: Pair, fast_path: Path) -> Iterator[Pair]:
    """Home is back by itself, as a primary, beside the embassy: a split brain."""
    with pgmoves.diverged(pg_lost, fast_path / "p") as made:
        pgmoves.start(made, "home")
        yield made


def estate(pair: Pair) -> dict[str, Any]:
    base = f"{pair.folder}/${{host.site}}/postgresql"
    roles = {"control": "continuity", "replication": "replicator", "rewind": "rewind"}
    return {
        "apiVersion": "continuity/v1",
        "kind": "Estate",
        "name": "two servers",
        "sites": {"home": {"role": "home"}, "embassy": {"role": "embassy"}},
        "groups": {"registers": {"services": ["population"]}},
        "hosts": {
            name: {
                "site": site,
                "address": pair.addresses[site],
                "via": "local",
                "reach": f"http://{pair.addresses[site]}:{SUPERVISOR_PORT}/",
            }
            for site, name in HOSTS.items()
        },
        "clusters": {
            CLUSTER: {
                "type": "postgresql",
                "members": {site: [name] for site, name in HOSTS.items()},
                "port": PORT,
                "data-directory": f"{base}/data",
                "config-directory": f"{base}/config",
                "bin-directory": f"{pair.folder}/bin",
                "unit": "postgresql",
                "tls": {"mode": "verify-full", "ca": f"{pair.config('embassy')}/ca.pem"},
                "roles": {
                    name: {"user": user, "password": f"secret://file/{name}"} for name, user in roles.items()
                },
            }
        },
        "fences": {site: [{"proves": "demoted", "action": "postgresql.stop"}] for site in HOSTS},
    }


def runbook(reconcile: list[str]) -> dict[str, Any]:
    database: dict[str, Any] = {"type": "postgresql", "cluster": CLUSTER, "database": "population"}
    return {
        "apiVersion": "continuity/v1",
        "kind": "Runbook",
        "name": "population",
        "owner": "Ministry",
        "legal-basis": "Act",
        "tier": 1,
        "objectives": {"rto": "15m", "rpo": "30s", "mtpd": "4h"},
        "components": {"database": {**database, **({"reconcile": reconcile} if reconcile else {})}},
        "done-when": [{"writes": {"through": "database"}}],
    }


def compare(pair: Pair, folder: Path, keep: str = "embassy", reconcile: list[str] | None = None) -> Diverged:
    (folder / "runbooks").mkdir(exist_ok=True)
    (folder / "secrets").mkdir(exist_ok=True)
    for reference, value in SECRETS.items():
        (folder / "secrets" / reference.rpartition("/")[2]).write_text(value)
    (folder / "estate.yaml").write_text(yaml.safe_dump(estate(pair)))
    (folder / "runbooks" / "population.yaml").write_text(yaml.safe_dump(runbook(reconcile or [])))
    app = App(Settings(folder / "estate.yaml"))
    try:
        return diverged(app, "registers", keep)
    finally:
        app.close()


def listed(found: Diverged) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(found.path).read_text().splitlines()]


def test_the_list_is_exactly_what_home_alone_holds(pair: Pair, tmp_path: Path) -> None:
    pair.ask("home", "INSERT INTO rows VALUES ('both', 'at home'), ('same', 'v'), ('a\"b', 'quote')")
    pair.ask("embassy", "INSERT INTO rows VALUES ('both', 'abroad'), ('same', 'v'), ('later', 'v')")
    found = compare(pair, tmp_path)
    told = listed(found)
    only = pgmoves.rows(pair, "home") - pgmoves.rows(pair, "embassy")
    assert {row["key"]["id"] for row in told if row["kind"] == "only"} == only
    assert len(only) == 51  # fifty that home acknowledged before it was lost, and one now
    assert [row for row in told if row["kind"] == "differs"] == [
        {
            "cluster": CLUSTER,
            "database": "population",
            "table": "public.rows",
            "site": "home",
            "keep": "embassy",
            "kind": "differs",
            "key": {"id": "both"},
            "lost": {"id": "both", "value": "at home"},
            "kept": {"id": "both", "value": "abroad"},
        }
    ]
    assert found.evidence["rows"] == 52
    name = f"{CLUSTER}/population/public.rows@home"
    assert found.evidence["tables"] == {name: {"compared": True, "only": 51, "differ": 1}}
    assert found.evidence["unseen"] == []
    assert "51 rows only at home, 1 with other values than at embassy" in found.lines[0]
    assert stat.S_IMODE(Path(found.path).stat().st_mode) == 0o600
    assert Path(found.path).parent == tmp_path / ".continuity"
    assert [path.name for path in Path(found.path).parent.iterdir()] == [Path(found.path).name]
    backwards = compare(pair, tmp_path, keep="home")
    assert {row["key"]["id"] for row in listed(backwards) if row["kind"] == "only"} == (
        pgmoves.rows(pair, "embassy") - pgmoves.rows(pair, "home")
    )


KEYS = """
SET search_path = public;  -- the control role is named like our schema
CREATE TABLE numbers (a int, b bigint, v numeric, whole text, PRIMARY KEY (a, b));
CREATE TABLE days (d date, u uuid, t timestamptz, f float8, PRIMARY KEY (d, u));
CREATE TABLE "Odd Name" ("Key" text PRIMARY KEY, v bytea);
CREATE TABLE keyless (v int);
CREATE SCHEMA apart; CREATE TABLE apart.rows (id int PRIMARY KEY);
INSERT INTO public.numbers SELECT n % 20 - 10, n, n / 7.0 FROM generate_series(1, 1000) AS n;
INSERT INTO public.days SELECT '2026-01-01'::date + n, md5(n::text)::uuid, '2026-01-01 12:00+02', n / 3.0
    FROM generate_series(1, 300) AS n;
INSERT INTO "Odd Name" SELECT chr(64 + n) || repeat(chr(96 + n % 26), n % 3) || 'é', decode('00ff', 'hex')
    FROM generate_series(1, 400) AS n ON CONFLICT DO NOTHING;
"""


def test_every_kind_of_key_is_read_in_one_order_at_both_sides(pair: Pair, tmp_path: Path) -> None:
    for site in HOSTS:
        with pair.connect(site) as session:
            session.execute(KEYS.encode())
    pair.ask("home", "UPDATE public.numbers SET v = v + 1 WHERE b IN (1, 500)")
    pair.ask("home", "DELETE FROM public.days WHERE d = '2026-03-01'")
    pair.ask("home", "INSERT INTO public.days VALUES ('1900-01-01', gen_random_uuid(), now(), 'NaN')")
    pair.ask("home", """INSERT INTO public."Odd Name" VALUES ('ß first', NULL), ('zzz', '')""")
    pair.ask("home", "INSERT INTO apart.rows VALUES (7)")
    pair.ask("home", "CREATE TABLE public.later (id int PRIMARY KEY)")
    pair.ask("home", "INSERT INTO public.later VALUES (1)")
    pair.ask("embassy", "DELETE FROM public.numbers WHERE b = 77")
    found = compare(pair, tmp_path)
    keys = [(row["table"], row["kind"], row["key"]) for row in listed(found) if row["table"] != "public.rows"]
    assert [key for key in keys if key[0] != "public.days"] == [
        ("apart.rows", "only", {"id": 7}),
        ("public.Odd Name", "only", {"Key": "zzz"}),
        ("public.Odd Name", "only", {"Key": "ß first"}),
        ("public.later", "only", {"id": 1}),
        ("public.numbers", "differs", {"a": -10, "b": 500}),
        ("public.numbers", "differs", {"a": -9, "b": 1}),
        ("public.numbers", "only", {"a": 7, "b": 77}),
    ]
    (day,) = (key for key in keys if key[0] == "public.days")
    assert day[2]["d"] == "1900-01-01"
    assert any("keyless: no primary key" in line for line in found.lines)
    chosen = compare(pair, tmp_path, reconcile=["numbers", "apart.rows", "nowhere"])
    assert {row["table"] for row in listed(chosen)} == {"public.numbers", "apart.rows"}
    assert any("no table public.nowhere at home" in line for line in chosen.lines)


def test_memory_does_not_grow_with_the_table(pair: Pair, tmp_path: Path) -> None:
    for site in HOSTS:
        insert = (
            "INSERT INTO rows SELECT 'big-' || n, repeat(md5(n::text), 20) FROM generate_series(1, 20000) n"
        )
        pair.ask(site, insert)
    tracemalloc.start()
    try:
        found = compare(pair, tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.evidence["rows"] == 50
    print(f"peak {peak / 1e6:.1f} MB for 2 x 13 MB")
    assert peak < 8_000_000


def test_where_no_server_runs_a_copy_of_what_lies_there_is_read(pair: Pair, tmp_path: Path) -> None:
    pair.ask("home", "INSERT INTO rows VALUES ('after', 'v')")
    only = pgmoves.rows(pair, "home") - pgmoves.rows(pair, "embassy")
    pair.kill_database("home")
    found = compare(pair, tmp_path)
    assert {row["key"]["id"] for row in listed(found)} == only
    assert "after" in only
    assert found.evidence["unseen"] == []
    assert any("at home: no server answers; a copy of" in line for line in found.lines)
    assert [path.name for path in (pair.folder / "home").glob("**/reading-*")] == []


def test_a_host_that_is_down_is_said_to_be_unseen(pair: Pair, tmp_path: Path) -> None:
    pair.kill_site("home")
    found = compare(pair, tmp_path)
    assert found.path == ""
    assert found.evidence["unseen"] == [{"cluster": CLUSTER, "database": "population", "site": "home"}]
    assert "at home: not seen" in found.lines[0]
    assert "kept whole when it is rejoined" in found.lines[0]
    assert list((tmp_path / ".continuity").iterdir()) == []
    with pytest.raises(InputError, match="no such site"):
        compare(pair, tmp_path, keep="nowhere")
