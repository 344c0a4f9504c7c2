"""What a stopped server alone holds is read on a copy, and listed exactly; nothing of it is touched."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.actions.postgresql_diverged import ListDiverged, ListParams
from orchestrator.core.outcomes import Failed, FindingKind, Succeeded
from orchestrator.drivers import postgresql_copy
from orchestrator.drivers.postgresql_member import member
from tests.real import pgmoves
from tests.real.pgpair import CLUSTER, HOSTS, Pair

pytestmark = pytest.mark.real

REJOIN = f"{CLUSTER}/rejoin-h1"
TABLE = f"{CLUSTER}/population/public.rows@home"


@pytest.fixture(scope="module")
def pair(pg_lost: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Home's data lie as its crash left them, kept by a rejoin; the embassy serves."""
    with (
        pgmoves.in_memory(tmp_path_factory.mktemp("pair")) as folder,
        pgmoves.diverged(pg_lost, folder) as made,
    ):
        kept(made).parent.mkdir(parents=True)
        copied = ["cp", "-a", "--reflink=auto", str(made.data("home")), str(kept(made))]
        assert subprocess.run(copied).returncode == 0
        outside = kept(made).parent / "outside"
        outside.mkdir()
        (kept(made) / "pg_wal").rename(
            outside / "pg_wal"
        )  # it lay on a volume of its own, which is in use again
        (kept(made) / "pg_wal").symlink_to(made.folder / "home" / "log")
        (made.folder / "home" / "log").mkdir()
        yield made


def kept(pair: Pair) -> Path:
    return pair.folder / "home" / "evidence" / "r1" / "data"


def params() -> ListParams:
    return ListParams(CLUSTER, HOSTS["home"], HOSTS["embassy"], ("population",), REJOIN)


def context(pair: Pair, seconds: float = 30.0, folder: str | None = None) -> Any:
    place = str(kept(pair)) if folder is None else folder
    return pair.context(params(), seconds=seconds, evidence={REJOIN: {"kept": place}})


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Path → (size, when it was changed) of everything that is kept."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in folder.rglob("*")
    }


def test_the_list_is_exactly_what_home_took_with_it_and_nothing_kept_is_touched(pair: Pair) -> None:
    before = snapshot(kept(pair))
    outcome = ListDiverged().execute(context(pair))
    assert isinstance(outcome, Succeeded), outcome
    rows = [json.loads(line) for line in (kept(pair).parent / "diverged.jsonl").read_text().splitlines()]
    wanted = {f"home-only-{number}" for number in range(1, 51)}
    assert {row["key"]["id"] for row in rows if row["table"] == "public.rows"} == wanted
    assert {(row["kind"], row["site"], row["keep"]) for row in rows} == {("only", "home", "embassy")}
    named = outcome.evidence["diverged"]
    assert isinstance(named, list)
    assert {json.loads(row["key"])["id"] for row in named} == wanted  # type: ignore[index]
    assert outcome.evidence["tables"] == {TABLE: {"compared": True, "only": 50, "differ": 0}}
    assert (kept(pair).parent / "diverged.jsonl").stat().st_mode & 0o777 == 0o600
    assert snapshot(kept(pair)) == before
    assert [path.name for path in kept(pair).parents[1].iterdir()] == ["r1"], "the copy is gone"
    finding = ListDiverged().check(context(pair))
    assert (finding.kind, finding.evidence) == (FindingKind.DONE, outcome.evidence)


def test_the_copy_is_met_by_nobody_else(pair: Pair) -> None:
    stopped = postgresql_copy.Stopped(
        member(pair.parts, CLUSTER, HOSTS["home"]), str(kept(pair)), str(kept(pair).parent / "outside")
    )
    seen = pair.context(None, seconds=30.0)
    with postgresql_copy.reading(seen, stopped) as ask, ask("population") as session:
        names = ("listen_addresses", "archive_mode", "primary_conninfo", "shared_preload_libraries")
        shown = {name: session.execute(f"SHOW {name}").fetchone()[0] for name in names}  # type: ignore[index]
        assert shown == {**dict.fromkeys(names, ""), "archive_mode": "off"}
        with pytest.raises(Exception, match="read-only transaction"):
            session.execute("INSERT INTO rows VALUES ('ghost', 'x')")
        assert pgmoves.refusal(pair, "home"), "it listens where the server did"
    assert not Path(stopped.folder).exists()


def test_without_room_or_time_that_is_said_and_all_stays_kept(pair: Pair) -> None:
    gone = ListDiverged().execute(context(pair, folder=""))
    assert isinstance(gone, Succeeded)
    assert (gone.evidence["how"], gone.evidence["because"]) == ("", "nothing was left behind")
    late = ListDiverged().execute(context(pair, seconds=0.05))
    assert isinstance(late, Failed)
    assert "not listed" in late.message
    assert not (kept(pair).parents[1] / "reading-h1.partial").exists()
    free = postgresql_copy.ROOM_LEFT_BYTES
    room = {"used_bytes": 1, "free_bytes": free, "shares": False}
    assert "are free" in postgresql_copy.missing_room(room)
    assert postgresql_copy.missing_room({**room, "shares": True}) == ""
