"""What is published when the host cannot go on between two steps: a step fails because something stands in its way."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.drivers import files_host

BOUND_MS = 5_000
CLAIM, MODE, LINK = "published.epoch", "published.mode", "published"


@dataclass
class Side:
    folder: Path

    def publish(self, mode: str, epoch: int, *, target: str = "new", undo: bool = False) -> Any:
        return files_host.publish(
            {
                "directory": str(self.folder / target), "published": str(self.folder / LINK), "mode": mode,
                "epoch": epoch, "site": "home", "run": f"run-{epoch}", "undo": undo, "timeout_ms": BOUND_MS,
            }
        )  # fmt: skip

    def close(self, epoch: int) -> Any:
        return files_host.close(
            {
                "published": str(self.folder / LINK), "epoch": epoch, "site": "embassy",
                "run": f"run-{epoch}", "undo": False, "timeout_ms": BOUND_MS,
            }
        )  # fmt: skip

    def shown(self) -> tuple[str, str]:
        mode = (self.folder / MODE).read_text().strip()
        return os.path.basename(os.readlink(self.folder / LINK)), mode

    def claim(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / CLAIM).read_text())
        return found

    @contextmanager
    def blocked(self, name: str) -> Iterator[None]:
        """What comes to ``name`` cannot be made: a folder that is not empty stands where it would be begun."""
        coming = self.folder / f"{name}.new"
        (coming / "in-the-way").mkdir(parents=True)
        with pytest.raises(OSError, match=r"\.new"):
            yield
        (coming / "in-the-way").rmdir()
        coming.rmdir()


@pytest.fixture
def side(tmp_path: Path) -> Side:
    made = Side(tmp_path)
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    return made


def test_taking_ends_before_another_edition_is_shown(side: Side) -> None:
    """A document taken in between would go to what is shown no more."""
    assert side.publish("full", 1, target="old")["result"] == "done"
    with side.blocked(LINK):
        side.publish("read-only", 2)
    assert side.shown() == ("old", "read-only")
    assert side.publish("read-only", 2)["result"] == "done"
    assert side.shown() == ("new", "read-only")


def test_taking_begins_only_once_the_edition_is_shown(side: Side) -> None:
    assert side.publish("read-only", 1, target="old")["result"] == "done"
    with side.blocked(LINK):
        side.publish("full", 2)
    assert side.shown() == ("old", "read-only")
    with side.blocked(MODE):
        side.publish("full", 2)
    assert side.shown() == ("new", "read-only")
    assert side.publish("full", 2)["result"] == "done"
    assert side.shown() == ("new", "full")


def test_the_claim_stands_first_and_remembers_what_stood_before_every_attempt(side: Side) -> None:
    assert side.publish("full", 1, target="old")["result"] == "done"
    before = {"target": str(side.folder / "old"), "mode": "full"}
    with side.blocked(CLAIM):
        side.publish("read-only", 2)
    assert (side.shown(), side.claim()["epoch"]) == (("old", "full"), 1), "nothing changes without its claim"
    for step, shown in ((MODE, ("old", "full")), (LINK, ("old", "read-only"))):
        with side.blocked(step):
            side.publish("read-only", 2)
        assert side.shown() == shown
        assert (side.claim()["epoch"], side.claim()["previous"]) == (2, before)
        assert "stale" in side.publish("full", 1, target="old")["message"]
    assert side.publish("read-only", 2)["result"] == "done"
    assert side.publish("read-only", 2, undo=True)["result"] == "done"
    assert side.shown() == ("old", "full")


def test_a_closing_that_died_is_known_by_its_claim_and_ended_by_the_next(side: Side) -> None:
    assert side.publish("full", 1, target="old")["result"] == "done"
    with side.blocked(MODE):
        side.close(2)
    assert (side.shown(), side.claim()["epoch"]) == (("old", "full"), 2)
    assert "closed_ns" not in side.claim(), "it is not known to be closed"
    assert "stale" in side.publish("full", 1)["message"], "nobody opens it again"
    assert side.close(2)["result"] == "done"
    assert side.shown() == ("old", "read-only")
    assert side.claim()["closed_ns"] > 0
