"""What the sides say is told whole: what they hold, whose right they know of, and who said nothing."""

from __future__ import annotations

from orchestrator.core.groups import GroupState
from orchestrator.reports.sides import log_text, side_lines, sides_document, site_text

ROW = {"epoch": 9, "site": "embassy", "run": "failover-x"}
PRIMARY = {
    "reachable": True, "role": "primary", "serves_writes": True, "lsn": "0/5000060", "timeline": 2,
    "last_commit_ns": 1_000_000_000, "writers": {"population": ROW, "land": ROW},
}  # fmt: skip
STANDBY = {**PRIMARY, "role": "standby", "serves_writes": False, "receive_lsn": "0/4", "writers": {}}
CLAIMS = [
    {"where": "b.gov at n2", "at": "embassy", "epoch": 8, "site": "home", "run": ""},
    {"where": "a.gov at n1", "at": "embassy", **ROW},
    {"where": "route at p1", "at": "embassy", **ROW},
]
SEEN = {
    "db": {"sites": {"home": {"reachable": False, "error": "time-out"}, "embassy": PRIMARY}},
    "registers": {"claims": CLAIMS, "silent": ["a.gov at n3: no answer in time"]},
}


def test_each_side_says_its_role_how_far_it_reaches_and_its_rows() -> None:
    assert site_text(PRIMARY) == (
        "primary, takes writes; LSN 0/5000060, timeline 2, last commit 1970-01-01T00:00:01.000Z; "
        "land: epoch 9 of embassy (run failover-x), population: epoch 9 of embassy (run failover-x)"
    )
    assert "standby, takes no writes; LSN 0/4, " in site_text(STANDBY)
    assert site_text(STANDBY).endswith("; no epoch row")
    assert site_text({"reachable": True, "role": "primary", "serves_writes": True}) == (
        "primary, takes writes; no epoch row"
    )


def test_who_does_not_answer_stands_beside_who_does() -> None:
    lines = list(side_lines(SEEN, {"files": "", "other": "no such secret"}))
    assert lines == [
        "db at home: does not answer (time-out)",
        f"db at embassy: {site_text(PRIMARY)}",
        "claims at embassy: epoch 9 of embassy (run failover-x): a.gov at n1, route at p1",
        "claims at embassy: epoch 8 of home: b.gov at n2",
        "no answer: a.gov at n3: no answer in time",
        "files: not seen: no answer in time",
        "other: not seen: no such secret",
    ]


def test_what_the_log_believed_is_part_of_the_evidence() -> None:
    known = GroupState("registers", active="home", epoch=1, protection="protected", adopted=True)
    assert log_text(GroupState("registers")) == "the log: has never seen this group"
    assert log_text(known) == "the log: home_active_protected: active home, epoch 1, protected"
    document = sides_document(known, SEEN, {"files": ""})
    assert (document["log"]["active_site"], document["log"]["epoch"]) == ("home", 1)
    assert (document["seen"], document["not_seen"]) == (SEEN, {"files": ""})
