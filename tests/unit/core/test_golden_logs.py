"""What every version wrote is still read, folded and understood by this one (upgrade).

CONTINUITY_GOLDEN=1 writes the logs of this version, once, when it is released.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from orchestrator import __version__
from orchestrator.core.events import EVENT_KINDS, Event
from orchestrator.core.fold import fold
from orchestrator.core.log import GENESIS, link
from orchestrator.planning.codec import plan_from_json
from orchestrator.stores.codec import decode, encode
from tests.golden import end_of, groups_of, write

CASES = Path(__file__).resolve().parents[2] / "cases"
GOLDEN = CASES / "golden-logs"
STORIES = (
    "abort-before-promote",
    "abort-while-running",
    "crash-at-promote",
    "crash-while-undoing",
    "done-by-hand",
    "fence-fails-site-declared-lost",
    "late-answer",
    "late-fence",
    "loss-above-limit",
    "partial",
    "pause-and-resume",
    "plain-failback",
    "plain-failover",
    "promote-unknown-found-done",
    "skipped-and-accepted",
)
NOT_OF_RUNS = {"group.conflict-seen", "group.keep-reserved", "group.resolved", "group.protection-lost"}
LOGS = sorted(GOLDEN.rglob("*.jsonl"))


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def streams_of(rows: list[dict[str, Any]]) -> dict[str, list[Event]]:
    streams: dict[str, list[Event]] = {}
    for row in rows:
        streams.setdefault(row["stream"], []).append(decode(row["kind"], row["body"]))
    return streams


def beside(path: Path, kind: str) -> Any:
    return json.loads(path.with_suffix("").with_suffix(f".{kind}.json").read_text(encoding="utf-8"))


def test_this_version_has_left_its_logs(tmp_path: Path) -> None:
    folder = GOLDEN / f"v{__version__}"
    if os.environ.get("CONTINUITY_GOLDEN") == "1":
        for name in STORIES:
            text = (CASES / "machine" / f"{name}.txt").read_text(encoding="utf-8")
            write(name, text, folder, tmp_path / f"{name}.db")
    assert {path.stem for path in folder.glob("*.jsonl")} >= set(STORIES)


@pytest.mark.parametrize("path", LOGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_log_still_comes_to_the_same_end(path: Path) -> None:
    rows = read(path)
    streams = streams_of(rows)
    plan = plan_from_json(beside(path, "plan"))
    (run_stream,) = [name for name in streams if name.startswith("run:")]
    run = fold(plan, streams[run_stream])  # type: ignore[arg-type]
    assert end_of(run, groups_of(streams)) == beside(path, "end")  # type: ignore[arg-type]


@pytest.mark.parametrize("path", LOGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_log_is_still_one_chain_and_nothing_in_it_is_dropped(path: Path) -> None:
    last = GENESIS
    for row in read(path):
        assert row["prev"] == last
        columns = ("seq", "stream", "stream_seq", "kind", "at", "body", "schema")
        seq, stream, stream_seq, kind, at, body, schema = (row[name] for name in columns)
        last = link(last, seq, stream, stream_seq, kind, at, body, schema)
        assert row["hash"] == last
        again = json.loads(encode(decode(kind, body)))
        written = json.loads(body)
        assert {name: again[name] for name in written} == written


def test_the_logs_hold_every_kind_of_event_that_a_run_writes() -> None:
    kinds = {row["kind"] for path in (GOLDEN / f"v{__version__}").glob("*.jsonl") for row in read(path)}
    assert set(EVENT_KINDS) - kinds <= NOT_OF_RUNS


def test_a_log_is_never_written_again(tmp_path: Path) -> None:
    text = (CASES / "machine" / "plain-failover.txt").read_text(encoding="utf-8")
    with pytest.raises(FileExistsError):
        write("plain-failover", text, GOLDEN / f"v{__version__}", tmp_path / "log.db")
