"""What is seen and emptied of a data directory on its host."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.drivers import postgresql_keep_host

MARK = "mark"


def survey(folder: Path, data: str = "data") -> dict[str, object]:
    arguments = {"data": str(folder / data), "new": str(folder / "new"), "kept": str(folder / "e" / "kept")}
    return dict(postgresql_keep_host.survey({**arguments, "mark": MARK}))


def test_survey_of_nothing_and_of_each_thing(tmp_path: Path) -> None:
    seen = survey(tmp_path)
    assert seen == {
        "data": {"exists": False, "mark": None},
        "new": {"exists": False, "mark": None},
        "is_mount": False,
        "is_cloned": False,
        "is_kept": False,
        "outside": {},
        "same_device": True,
    }
    (tmp_path / "data" / "pg_tblspc").mkdir(parents=True)
    (tmp_path / "space").mkdir()
    (tmp_path / "data" / "pg_tblspc" / "17").symlink_to(tmp_path / "space")
    (tmp_path / "wal").mkdir()
    (tmp_path / "data" / "pg_wal").symlink_to(tmp_path / "wal")
    (tmp_path / "data" / MARK).write_text("ours")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "backup_manifest").touch()
    seen = survey(tmp_path)
    assert seen["data"] == {"exists": True, "mark": "ours"}
    assert seen["new"] == {"exists": True, "mark": None}
    assert seen["is_cloned"] is True
    assert seen["outside"] == {"17": str(tmp_path / "space"), "pg_wal": str(tmp_path / "wal")}
    (tmp_path / "e" / "kept").mkdir(parents=True)
    (tmp_path / "data").rename(tmp_path / "e" / "kept" / "data")
    seen = survey(tmp_path)
    assert seen["is_kept"] is True
    assert seen["outside"] == {"17": str(tmp_path / "space"), "pg_wal": str(tmp_path / "wal")}


def test_a_mount_point_is_seen() -> None:
    seen = postgresql_keep_host.survey({"data": "/proc", "new": "/x.new", "kept": "/y", "mark": MARK})
    assert seen["is_mount"] is True


def test_only_what_is_kept_is_cleared(tmp_path: Path) -> None:
    space = tmp_path / "space"
    (space / "PG_17_1" / "5").mkdir(parents=True)
    (space / "somebody else's").mkdir()
    arguments = {"folders": {"17": str(space)}, "kept": str(tmp_path / "kept")}
    with pytest.raises(FileNotFoundError, match="nothing is removed"):
        postgresql_keep_host.clear_outside(arguments)
    assert (space / "PG_17_1" / "5").exists()
    (tmp_path / "kept" / "17").mkdir(parents=True)
    assert postgresql_keep_host.clear_outside(arguments) == {"cleared": ["17"]}
    assert [path.name for path in space.iterdir()] == ["somebody else's"]


def test_the_log_on_its_own_volume_is_cleared_whole(tmp_path: Path) -> None:
    log = tmp_path / "log"
    (log / "archive_status").mkdir(parents=True)
    (log / "000000010000000000000001").touch()
    (tmp_path / "kept" / "pg_wal").mkdir(parents=True)
    postgresql_keep_host.clear_outside({"folders": {"pg_wal": str(log)}, "kept": str(tmp_path / "kept")})
    assert not list(log.iterdir())


def test_room_counts_what_lies_outside(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "base").write_bytes(b"x" * 100_000)
    arguments = {"data": str(tmp_path / "data"), "new": str(tmp_path / "new"), "kept": str(tmp_path / "e")}
    before = postgresql_keep_host.room(arguments)
    assert before["used_bytes"] >= 100_000
    assert before["free_bytes"] > 0
    assert before["kept_free_bytes"] > 0
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "1").write_bytes(b"x" * 500_000)
    (tmp_path / "data" / "pg_wal").symlink_to(tmp_path / "log")
    assert postgresql_keep_host.room(arguments)["used_bytes"] >= before["used_bytes"] + 500_000
    assert list(tmp_path.glob("tmp*")) == []
