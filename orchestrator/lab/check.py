"""The independent checker: what did the register acknowledge, and what does the surviving site hold?

It imports nothing of the project and shares no code or connection with it; it reads the ledgers that the load
wrote and the rows themselves, value by value, from the server it is pointed at. Only its word makes
``verified`` true. Run as a program by path: ``check.py CONFIG.json``. CONFIG:
{"ledgers": [PATH…], "survivor": CONNINFO, "other": CONNINFO | null, "databases": {TABLE: DATABASE},
"lost_max": how many rows may be lost (0 unless a loss was stated before the promotion)}.

    lost        acknowledged, absent from the survivor
    changed     acknowledged, another value (or another site or epoch than acknowledged) there
    duplicated  rows of the load that nobody meant to write, or one id more than once
    refused_present  surely not done, said the register, and there all the same
    kept        acknowledged and there with its value
    unknown_kept, unknown_absent  nobody knew; either is right
    diverged    rows of the load that the other site alone holds, or holds with another value

Exit code: 0 verified, 1 not verified, 2 could not look.
"""

from __future__ import annotations

import itertools
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LISTED_MAX = 20
Row = tuple[str, str, int]  # value, site, epoch


@dataclass
class Story:
    """What a ledger says of one id. ``outcome`` is unknown until it says otherwise."""

    value: str
    table: str
    sent_ns: int
    outcome: str = "unknown"
    ended_ns: int = 0
    site: str = ""
    epoch: int = 0


@dataclass
class Ledger:
    stories: dict[tuple[str, str], Story] = field(default_factory=dict)
    runs: set[str] = field(default_factory=set)


def read_ledgers(paths: list[str]) -> Ledger:
    """Read every ledger. A last line that was cut off by a kill is left out; any other bad line is an error."""
    found = Ledger()
    for path in paths:
        table = ""
        text = Path(path).read_text(encoding="utf-8")
        lines = text.split("\n")
        for number, line in enumerate(lines, 1):
            if not line:
                continue
            try:
                entry = json.loads(line)
            except ValueError:
                if number == len(lines):
                    continue
                raise
            kind = entry["t"]
            if kind == "begin":
                table = entry["table"]
                found.runs.add(entry["run"])
            elif kind == "intent":
                story = Story(entry["value"], entry["table"], entry["at_ns"])
                found.stories[entry["table"], entry["id"]] = story
            elif kind in ("acked", "refused", "unknown"):
                story = found.stories[table, entry["id"]]
                story.outcome, story.ended_ns = kind, entry["at_ns"]
                story.site, story.epoch = entry.get("site", ""), entry.get("epoch", 0)
    return found


def read_rows(conninfo: str, databases: dict[str, str], runs: set[str]) -> dict[tuple[str, str], list[Row]]:
    """Every row of these loads, and every row that carries one of their values under another id."""
    import psycopg
    from psycopg import sql

    found: dict[tuple[str, str], list[Row]] = {}
    prefixes = [f"{run}-%" for run in sorted(runs)] + [f"%{run}-%" for run in sorted(runs)]
    for table, database in databases.items():
        with psycopg.connect(
            conninfo, dbname=database, autocommit=True, application_name="lab check"
        ) as session:
            query = sql.SQL(
                "SELECT id, value, site, epoch FROM {} WHERE id LIKE ANY(%s) OR value LIKE ANY(%s)"
            )
            for identifier, value, site, epoch in session.execute(
                query.format(sql.Identifier(table)), (prefixes, prefixes)
            ):
                found.setdefault((table, identifier), []).append((value, site, epoch))
    return found


def judge(ledger: Ledger, rows: dict[tuple[str, str], list[Row]], lost_max: int = 0) -> dict[str, Any]:
    """Compare value by value. ``verified`` only when nothing is changed, duplicated or wrongly there, and no
    more than ``lost_max`` is lost."""
    lists: dict[str, list[str]] = {
        name: []
        for name in (
            "lost",
            "changed",
            "duplicated",
            "refused_present",
            "kept",
            "unknown_kept",
            "unknown_absent",
        )
    }
    refused = 0
    for key, story in ledger.stories.items():
        name = "/".join(key)
        there = rows.get(key, [])
        if len(there) > 1:
            lists["duplicated"].append(name)
        row = there[0] if there else None
        refused += story.outcome == "refused"
        if story.outcome == "acked":
            if row is None:
                lists["lost"].append(name)
            elif row != (story.value, story.site, story.epoch):
                lists["changed"].append(name)
            else:
                lists["kept"].append(name)
        elif story.outcome == "refused" and row is not None:
            lists["refused_present"].append(name)
        elif story.outcome == "unknown" and row is None:
            lists["unknown_absent"].append(name)
        elif story.outcome == "unknown" and row is not None:
            lists["unknown_kept" if row[0] == story.value else "changed"].append(name)
    lists["duplicated"] += ["/".join(key) for key in rows if key not in ledger.stories]
    bad = ("changed", "duplicated", "refused_present")
    acked = sum(story.outcome == "acked" for story in ledger.stories.values())
    return {
        "verified": acked > 0 and not any(lists[name] for name in bad) and len(lists["lost"]) <= lost_max,
        "lost_max": lost_max,
        "acked": acked,
        "refused": refused,
        "failed_requests": sum(story.outcome != "acked" for story in ledger.stories.values()),
        **{name: len(found) for name, found in lists.items()},
        "listed": {name: sorted(lists[name])[:LISTED_MAX] for name in ("lost", *bad) if lists[name]},
        "by_epoch": by_epoch(ledger, set(lists["kept"])),
        "by_table": by_table(ledger, lists),
        "longest_pause_ns": longest_pause(ledger),
    }


def by_epoch(ledger: Ledger, kept: set[str]) -> dict[str, Any]:
    """Per table, epoch and site: first and last acknowledgement, and the first one that was found again."""
    found: dict[str, dict[str, Any]] = {}
    for (table, identifier), story in ledger.stories.items():
        if story.outcome != "acked":
            continue
        entry = found.setdefault(
            f"{table}/{story.epoch}/{story.site}",
            {
                "table": table,
                "epoch": story.epoch,
                "site": story.site,
                "acked": 0,
                "first_ack_ns": story.ended_ns,
                "last_ack_ns": story.ended_ns,
                "first_verified_ns": None,
            },
        )
        entry["acked"] += 1
        entry["first_ack_ns"] = min(entry["first_ack_ns"], story.ended_ns)
        entry["last_ack_ns"] = max(entry["last_ack_ns"], story.ended_ns)
        if f"{table}/{identifier}" in kept:
            earliest = entry["first_verified_ns"]
            entry["first_verified_ns"] = story.ended_ns if earliest is None else min(earliest, story.ended_ns)
    return found


def by_table(ledger: Ledger, lists: dict[str, list[str]]) -> dict[str, dict[str, int]]:
    """The same counts for each register."""
    tables = sorted({table for table, _ in ledger.stories})
    return {
        table: {name: sum(item.startswith(f"{table}/") for item in found) for name, found in lists.items()}
        for table in tables
    }


def longest_pause(ledger: Ledger) -> dict[str, int]:
    """Per register the longest time between two acknowledgements of any writers."""
    found: dict[str, int] = {}
    for table in sorted({table for table, _ in ledger.stories}):
        times = sorted(
            story.ended_ns
            for (of, _), story in ledger.stories.items()
            if of == table and story.outcome == "acked"
        )
        found[table] = max((later - earlier for earlier, later in itertools.pairwise(times)), default=0)
    return found


def diverged(
    ledger: Ledger, survivor: dict[tuple[str, str], list[Row]], other: dict[tuple[str, str], list[Row]]
) -> list[dict[str, Any]]:
    """Rows that the other site holds and the survivor does not, by table and key, with what the ledger says."""
    found = []
    for key, there in sorted(other.items()):
        here = survivor.get(key, [])
        if there == here:
            continue
        story = ledger.stories.get(key)
        found.append(
            {
                "table": key[0],
                "key": key[1],
                "kind": "changed" if here else "missing",
                "outcome": story.outcome if story else "foreign",
                "acked_ns": story.ended_ns if story and story.outcome == "acked" else None,
            }
        )
    return found


def main(config: dict[str, Any]) -> int:
    import psycopg

    try:
        ledger = read_ledgers(config["ledgers"])
        survivor = read_rows(config["survivor"], config["databases"], ledger.runs)
    except (OSError, ValueError, KeyError, psycopg.Error) as error:
        sys.stdout.write(json.dumps({"verified": False, "error": f"could not look: {error}"}) + "\n")
        return 2
    report = judge(ledger, survivor, config.get("lost_max", 0))
    if config.get("other"):
        try:
            other = read_rows(config["other"], config["databases"], ledger.runs)
            report["diverged"] = diverged(ledger, survivor, other)
        except psycopg.Error as error:
            report["diverged"] = None
            report["other_error"] = str(error).strip()[:300]
    sys.stdout.write(json.dumps(report) + "\n")
    return 0 if report["verified"] else 1


if __name__ == "__main__":
    sys.exit(main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
