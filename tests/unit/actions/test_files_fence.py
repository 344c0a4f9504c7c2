"""The fence of documents on real folders: what the old side no longer takes, and who may say so."""

from __future__ import annotations

import fcntl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.actions.files_replicator import (
    StartReplicator,
    StartReplicatorParams,
    StopReplicator,
    StopReplicatorParams,
)
from orchestrator.core.outcomes import Failed
from orchestrator.core.plan import Parts
from orchestrator.drivers import files_host
from orchestrator.lab.gazette import Gazette
from tests.action_context import context
from tests.unit.actions.test_files_documents import PARTS

HELD_MS = 100
BOUND_MS = 5_000


@dataclass
class Side:
    published: Path

    def close(
        self, epoch: int = 5, run: str = "run-5", *, undo: bool = False, timeout_ms: int = BOUND_MS
    ) -> Any:
        return files_host.close(
            {
                "published": str(self.published), "epoch": epoch, "site": "embassy", "run": run, "undo": undo,
                "timeout_ms": timeout_ms,
            }
        )  # fmt: skip

    def look(self) -> Any:
        return files_host.look({"published": str(self.published)})

    def mode(self) -> str:
        return self.published.with_name("published.mode").read_text().strip()


@pytest.fixture
def home(tmp_path: Path) -> Side:
    """Published in full at epoch 4, as the side that is about to be left."""
    (tmp_path / "documents").mkdir()
    made = Side(tmp_path / "published")
    said = files_host.publish(
        {
            "directory": str(tmp_path / "documents"), "published": str(made.published), "mode": "full",
            "epoch": 4, "site": "home", "run": "run-4", "timeout_ms": BOUND_MS,
        }
    )  # fmt: skip
    assert said["result"] == "done"
    return made


def test_the_old_side_takes_nothing_any_more_and_shows_what_it_showed(home: Side) -> None:
    shown = home.published.readlink()
    assert home.close()["result"] == "done"
    assert home.close()["result"] == "done", "again is no harm"
    found = home.look()
    assert (home.mode(), found["entry"]["epoch"], found["entry"]["run"]) == ("read-only", 5, "run-5")
    assert home.published.readlink() == shown


def test_undo_gives_the_mode_back_however_often_it_was_closed(home: Side) -> None:
    home.close()
    home.close()
    assert home.close(undo=True)["result"] == "done"
    assert home.mode() == "full"


def test_undo_where_nothing_was_closed_changes_nothing(home: Side) -> None:
    assert home.close(undo=True)["result"] == "done"
    assert (home.mode(), home.look()["entry"]["run"]) == ("full", "run-4")


def test_an_older_or_another_run_may_neither_close_nor_open(home: Side) -> None:
    home.close(epoch=6, run="run-6")
    for epoch, run, text in ((5, "run-5", "stale"), (6, "run-x", "another run")):
        for undo in (False, True):
            said = home.close(epoch, run, undo=undo)
            assert said["result"] == "refused"
            assert undo or text in said["message"]
    assert home.mode() == "read-only"


def test_it_is_not_closed_while_a_document_is_still_being_taken(home: Side) -> None:
    with home.published.with_name("published.taking").open("a") as taking:
        fcntl.flock(taking, fcntl.LOCK_SH)
        said = home.close(timeout_ms=HELD_MS)
        assert (said["result"], home.look()["taking"]) == ("failed", True)
        assert "still being taken" in said["message"]
    assert home.close()["result"] == "done"
    assert not home.look()["taking"]


def test_the_gazette_holds_that_lock_while_it_takes_one(home: Side) -> None:
    taken: list[bool] = []

    class Watched(Gazette):
        def publish_all(self, added: Any) -> int:
            taken.append(home.look()["taking"])
            return 7

    gazette = Watched({"site": "home", "folder": str(home.published.parent), "key_file": "none"})
    assert gazette.take("a.txt", b"x") == 7
    home.close()
    assert gazette.take("b.txt", b"x") == 0
    assert taken == [True]


def test_a_stopped_replicator_alone_is_described_as_no_proof_of_anything() -> None:
    plain = StopReplicatorParams("e1", "copier", "/srv/docs")
    closing = StopReplicatorParams("e1", "copier", "/srv/docs", "/srv/published", 5, "home")
    parts: Parts = PARTS
    assert not any("mode" in line for line in StopReplicator().describe(plain, parts).commands)
    described = StopReplicator().describe(closing, parts)
    assert any("/srv/published.mode: read-only" in line for line in described.commands)
    assert "/srv/published.mode as it was" in described.undo_commands[0]


def test_nothing_is_copied_to_a_side_that_still_takes_documents(home: Side) -> None:
    """A home that people gave up for lost comes back in the middle of the move that left it."""
    params = StartReplicatorParams("e1", "copier", "e1", published=str(home.published))
    told: list[str] = []
    outcome = StartReplicator().execute(context(params, PARTS, recorded=told))
    assert isinstance(outcome, Failed)
    assert "still takes new documents" in outcome.message
    assert (outcome.retryable, told) == (False, [])
    assert home.close()["result"] == "done"
    outcome = StartReplicator().execute(context(params, PARTS, recorded=told))
    assert isinstance(outcome, Failed)
    assert "no manager is declared" in outcome.message, "it goes on to the manager, of which there is none"
