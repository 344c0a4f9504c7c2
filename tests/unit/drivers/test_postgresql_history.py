"""Whether data may follow a primary, from its control file and the primary's history."""

from __future__ import annotations

import pytest

from orchestrator.drivers.postgresql_history import (
    History,
    Standing,
    backup_start,
    can_be_rewound,
    common_checkpoint,
    parse_history,
    standing,
)

HISTORY = History("42", 3, "0/8FFE000", "0/9000000", {1: "0/3000100", 2: "0/5000000"}, "0/3000000")


def control(state: str, lsn: str, timeline: int, recovered: str = "0/0", **more: str) -> dict[str, str]:
    return {
        "Database system identifier": "42",
        "Database cluster state": state,
        "Latest checkpoint location": lsn,
        "Latest checkpoint's TimeLineID": str(timeline),
        "Minimum recovery ending location": recovered,
        "Min recovery ending loc's timeline": str(timeline) if recovered != "0/0" else "0",
        "Data page checksum version": "1",
        "wal_log_hints setting": "off",
        **more,
    }


@pytest.mark.parametrize(
    ("seen", "wanted", "text"),
    [
        pytest.param({}, Standing.ABSENT, "no database", id="nothing"),
        pytest.param(
            control("shut down", "0/3000050", 1) | {"Database system identifier": "7"},
            Standing.FOREIGN,
            "7, not 42",
            id="foreign",
        ),
        pytest.param(control("shut down", "0/30000F0", 1), Standing.FOLLOWS, "0/30000F0", id="drained"),
        pytest.param(
            control("shut down", "0/3000100", 1), Standing.DIVERGED, "left at 0/3000100", id="one-record-more"
        ),
        pytest.param(
            control("shut down in recovery", "0/3000050", 1, "0/3000100"),
            Standing.FOLLOWS,
            "0/3000100",
            id="a-standby-that-replayed-up-to-the-fork",
        ),
        pytest.param(
            control("in archive recovery", "0/3000050", 1, "0/3000101"),
            Standing.DIVERGED,
            "timeline 1",
            id="a-standby-past-the-fork",
        ),
        pytest.param(
            control("in production", "0/3000050", 1), Standing.DIVERGED, "in production", id="crashed"
        ),
        pytest.param(
            control("shut down", "0/6000000", 4), Standing.DIVERGED, "timeline 4", id="own-timeline"
        ),
        pytest.param(
            control("shut down", "0/8000000", 3), Standing.FOLLOWS, "timeline 3", id="same-timeline"
        ),
        pytest.param(control("shut down", "0/9000001", 3), Standing.DIVERGED, "0/9000000", id="ahead"),
        pytest.param(
            control("in archive recovery", "0/5000000", 3, "0/8FFF000"),
            Standing.FOLLOWS,
            "",
            id="rewound-to-what-the-primary-has-not-flushed-yet",
        ),
        pytest.param(control("shut down", "0/2FFFFFF", 1), Standing.TOO_OLD, "begins at", id="log-is-gone"),
        pytest.param(
            control("in archive recovery", "0/2000000", 1, "0/2FFFFFF"),
            Standing.FOLLOWS,
            "",
            id="its-own-log-may-reach-further",
        ),
    ],
)
def test_standing(seen: dict[str, str], wanted: Standing, text: str) -> None:
    judged, reason = standing(seen, HISTORY)
    assert judged is wanted, reason
    assert text in reason


@pytest.mark.parametrize(
    ("more", "timeline", "text"),
    [
        pytest.param({}, 1, "", id="checksums"),
        pytest.param({"Data page checksum version": "0", "wal_log_hints setting": "on"}, 2, "", id="hints"),
        pytest.param({"Data page checksum version": "0"}, 1, "neither", id="pitfall-7-neither"),
        pytest.param({}, 4, "timeline 4 is no part", id="own-timeline"),
        pytest.param({}, 3, "", id="ahead-on-the-same-timeline"),
    ],
)
def test_what_pg_rewind_needs(more: dict[str, str], timeline: int, text: str) -> None:
    said = can_be_rewound(control("in production", "0/3000050", timeline) | more, HISTORY)
    assert text in said
    assert bool(said) == bool(text)


def test_the_log_from_the_fork_on_must_be_there() -> None:
    late = History("42", 2, "0/9000000", "0/9000000", {1: "0/3000100"}, "0/4000000")
    assert "part at 0/3000100" in can_be_rewound(control("in production", "0/3000050", 1), late)


def test_texts_of_the_tools() -> None:
    text = "1\t0/3000100\tno recovery target specified\n\n# a remark\n2\t0/5000000\tbefore 2020-01-01\n"
    assert parse_history(text) == {1: "0/3000100", 2: "0/5000000"}
    assert parse_history("") == {}
    said = "pg_rewind: rewinding from last common checkpoint at 0/3000028 on timeline 1\npg_rewind: Done!\n"
    assert common_checkpoint(said) == "0/3000028"
    assert common_checkpoint("pg_rewind: no rewind required") == ""
    label = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nCHECKPOINT LOCATION: 0/2000060\n"
    assert backup_start(label) == "0/2000028"
    assert backup_start("") == ""
