"""What a side that was left behind alone holds is kept aside on real folders; nothing of it is deleted."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.actions.files_keep import Keep, KeepParams
from orchestrator.core.model import Host
from orchestrator.core.outcomes import Failed, FindingKind, Succeeded
from orchestrator.core.plan import Parts
from orchestrator.drivers import files_host, files_keep_host
from tests.action_context import context

PARTS = Parts(
    hosts={"h1": Host("h1", "home", "127.0.0.1"), "e1": Host("e1", "embassy", "127.0.0.1")},
)
BOUND_MS = 5_000


@dataclass
class Side:
    folder: Path
    site: str

    def write(self, documents: dict[str, str]) -> None:
        for name, text in documents.items():
            path = self.folder / "documents" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        lines = (f"{hashlib.sha256(text.encode()).hexdigest()}  {name}\n" for name, text in documents.items())
        (self.folder / "MANIFEST").write_text("".join(lines))
        (self.folder / "MANIFEST.sig").write_text("signed")

    def publish(self, epoch: int, run: str) -> None:
        said = files_host.publish(
            {
                "directory": str(self.folder / "documents"), "published": str(self.folder / "published"),
                "mode": "full", "epoch": epoch, "site": self.site, "run": run, "timeout_ms": BOUND_MS,
            }
        )  # fmt: skip
        assert said["result"] == "done", said

    def close(self, epoch: int, site: str, run: str) -> Any:
        return files_host.close(
            {
                "published": str(self.folder / "published"), "epoch": epoch, "site": site, "run": run,
                "undo": False, "follows": True, "timeout_ms": BOUND_MS,
            }
        )  # fmt: skip


@pytest.fixture
def sides(tmp_path: Path) -> tuple[Side, Side]:
    """Home published at epoch 1; the embassy took over at epoch 2 without one of its documents."""
    home, embassy = Side(tmp_path / "home", "home"), Side(tmp_path / "embassy", "embassy")
    for side, documents in (
        (home, {"a": "1", "b": "1", "d/e": "late"}), (embassy, {"a": "1", "b": "2", "new": "n"}),
    ):  # fmt: skip
        side.folder.mkdir()
        side.write(documents)
    home.publish(1, "lab")
    embassy.publish(2, "failover-1")
    return home, embassy


def params(sides: tuple[Side, Side], *, resolved: bool = False) -> KeepParams:
    home, embassy = (side.folder for side in sides)
    return KeepParams(
        "h1", str(home / "documents"), str(home / "MANIFEST"), str(home / "published"), "e1",
        str(embassy / "MANIFEST"), str(embassy / "published"), 2, "embassy", resolved,
    )  # fmt: skip


def keep(given: KeepParams, **more: Any) -> Any:
    return Keep().execute(context(given, PARTS, run="reprotect-1", **more))


def test_nothing_is_listed_while_documents_are_still_taken(sides: tuple[Side, Side]) -> None:
    outcome = keep(params(sides))
    assert isinstance(outcome, Failed)
    assert outcome.retryable
    assert "still takes documents" in outcome.message


def test_what_only_one_side_holds_is_kept_whole_and_listed_by_name_and_hash(
    sides: tuple[Side, Side],
) -> None:
    home, _ = sides
    assert home.close(2, "embassy", "reprotect-1")["result"] == "done"
    outcome = keep(params(sides))
    assert isinstance(outcome, Succeeded), outcome
    folder = Path(str(outcome.evidence["kept"]))
    rows = [json.loads(line) for line in (folder / "list.jsonl").read_text().splitlines()]
    late, one, two = (hashlib.sha256(text.encode()).hexdigest() for text in ("late", "1", "2"))
    wanted = [
        {"document": "b", "kind": "differs", "lost": one, "kept": two},
        {"document": "d/e", "kind": "only", "lost": late, "kept": ""},
    ]
    assert rows == outcome.evidence["diverged"] == wanted
    assert (folder / "documents" / "d" / "e").read_text() == "late"
    assert (folder / "MANIFEST").read_text() == (home.folder / "MANIFEST").read_text()
    assert (home.folder / "documents" / "d" / "e").exists(), "nothing is deleted"
    again = keep(params(sides))
    assert isinstance(again, Succeeded)
    assert (again.evidence["changed"], again.evidence["kept"]) == ([], str(folder))
    finding = Keep().check(context(params(sides), PARTS, run="reprotect-1"))
    assert (finding.kind, finding.evidence["diverged"]) == (FindingKind.DONE, wanted)


def test_a_second_history_is_refused_before_people_have_resolved_it(sides: tuple[Side, Side]) -> None:
    home, _ = sides
    home.write({"a": "1", "b": "1", "ghost": "g"})
    assert home.close(2, "embassy", "reprotect-1")["result"] == "done"
    outcome = keep(params(sides))
    assert isinstance(outcome, Failed)
    assert "split brain" in outcome.message
    assert "continuity status --live, which names the group" in outcome.message
    assert not (home.folder / "published.diverged").exists()
    resolved = keep(params(sides, resolved=True))
    assert isinstance(resolved, Succeeded)
    assert resolved.evidence["only"] == 1


def test_a_name_that_leads_out_of_the_folder_is_listed_and_nothing_of_it_is_touched(
    sides: tuple[Side, Side], tmp_path: Path
) -> None:
    """The manifest is that of a side which nobody trusts any more."""
    home, _ = sides
    secret = tmp_path / "secret"
    secret.write_text("s")
    inside = (home.folder / "MANIFEST").read_text()
    digest = hashlib.sha256(b"s").hexdigest()
    outside = ("../../secret", str(secret), "../../../../secret", "d//e")
    (home.folder / "MANIFEST").write_text(inside + "".join(f"{digest}  {name}\n" for name in outside))
    assert home.close(2, "embassy", "reprotect-1")["result"] == "done"
    outcome = keep(params(sides, resolved=True))
    assert isinstance(outcome, Succeeded), outcome
    assert set(outcome.evidence["changed"]) == set(outside)
    assert {row["document"] for row in outcome.evidence["diverged"]} == {"b", "d/e", *outside}
    kept = [path for path in home.folder.rglob("*") if path.is_file() and path.read_text() == "s"]
    assert kept == []


def kept_texts(folder: Path) -> dict[str, str]:
    """What was kept as files, links left out."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


def test_a_link_is_kept_as_a_link_and_nothing_is_read_through_one(
    sides: tuple[Side, Side], tmp_path: Path
) -> None:
    """Who wrote the documents may have planted them: what lies outside must not come among what is kept."""
    home, _ = sides
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "e").write_text("late")  # even what the manifest names: it can change without us
    secret = outside / "secret"
    secret.write_text("1")
    documents = home.folder / "documents"
    (documents / "b").unlink()
    (documents / "b").symlink_to(secret)
    shutil.rmtree(documents / "d")
    (documents / "d").symlink_to(outside)
    (home.folder / "MANIFEST.sig").unlink()
    (home.folder / "MANIFEST.sig").symlink_to(secret)
    assert home.close(2, "embassy", "reprotect-1")["result"] == "done"
    outcome = keep(params(sides))
    assert isinstance(outcome, Succeeded), outcome
    folder = Path(str(outcome.evidence["kept"]))
    assert kept_texts(folder).keys() == {"list.jsonl", "MANIFEST"}
    assert (folder / "documents" / "b").readlink() == (folder / "MANIFEST.sig").readlink() == secret
    assert not (folder / "documents" / "d").exists()
    assert (outcome.evidence["changed"], outcome.evidence["bytes"]) == (["b", "d/e"], 0)
    again = keep(params(sides))
    assert isinstance(again, Succeeded)
    assert again.evidence["changed"] == ["b", "d/e"]


def test_a_link_that_an_earlier_try_kept_is_not_written_through(
    sides: tuple[Side, Side], tmp_path: Path
) -> None:
    """What is a document now was a link when the try that died came to it."""
    home, _ = sides
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "b").write_text("untouched")
    coming = home.folder / "published.diverged" / "reprotect-1.partial" / "documents"
    coming.mkdir(parents=True)
    (coming / "b").symlink_to(outside / "b")
    (coming / "d").symlink_to(outside)
    assert home.close(2, "embassy", "reprotect-1")["result"] == "done"
    outcome = keep(params(sides))
    assert isinstance(outcome, Succeeded), outcome
    folder = Path(str(outcome.evidence["kept"]))
    assert [path.name for path in outside.iterdir()] == ["b"]
    assert (outside / "b").read_text() == "untouched"
    assert kept_texts(folder)["documents/b"] == "1"
    assert outcome.evidence["changed"] == ["d/e"]


def test_a_folder_that_the_estate_names_over_a_link_is_read(sides: tuple[Side, Side]) -> None:
    """As with ``current``, which is flipped: that link is the estate's own."""
    home, _ = sides
    (home.folder / "documents").rename(home.folder / "edition-1")
    (home.folder / "documents").symlink_to("edition-1")
    assert home.close(2, "embassy", "reprotect-1")["result"] == "done"
    outcome = keep(params(sides))
    assert isinstance(outcome, Succeeded), outcome
    assert kept_texts(Path(str(outcome.evidence["kept"])))["documents/d/e"] == "late"


def test_without_room_nothing_is_kept_and_that_is_said(sides: tuple[Side, Side], tmp_path: Path) -> None:
    huge = sides[0].folder / "documents" / "huge"
    with huge.open("wb") as file:
        file.truncate(shutil.disk_usage(tmp_path).free + 1)  # sparse: it only looks big
    arguments = {
        "directory": str(huge.parent), "manifest": str(tmp_path / "MANIFEST"), "folder": str(tmp_path / "k"),
        "rows": [{"document": "huge", "lost": "0"}], "timeout_ms": BOUND_MS,
    }  # fmt: skip
    said = files_keep_host.keep(arguments)
    assert said["kept"] == 0
    assert "are free" in said["problem"]
    assert not (tmp_path / "k").exists()


def test_a_side_closed_under_the_ruling_right_stays_under_the_run_that_was_granted_it(
    sides: tuple[Side, Side],
) -> None:
    home, _ = sides
    assert home.close(2, "embassy", "failover-1")["result"] == "done"
    (home.folder / "published.mode").write_text("full\n")
    assert home.close(2, "embassy", "reprotect-1")["result"] == "done"
    entry = json.loads((home.folder / "published.epoch").read_text())
    assert (entry["run"], (home.folder / "published.mode").read_text()) == ("failover-1", "read-only\n")
    stale = replace(params(sides), epoch=1)
    assert home.close(stale.epoch, "home", "reprotect-1")["result"] == "refused"
