"""What people are told when they order something: who signs, how it goes on, and what stands when the log fails."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest

from orchestrator.bootstrap.app import plan_from_text, plan_to_text
from orchestrator.cli import _acceptance as acceptance
from orchestrator.cli import verbs
from orchestrator.core.claims import CONTRADICTIONS
from orchestrator.core.events import GateAccepted, RunCreated, SiteDeclaredLost
from orchestrator.core.inputs import LOSS_UNKNOWN, LOSS_WITHIN_RPO
from orchestrator.core.model import Operation
from orchestrator.core.outcomes import Failed
from orchestrator.core.plan import Role
from orchestrator.core.run import start
from orchestrator.engine.journal import RUN as RUN_STREAM
from orchestrator.engine.journal import Journal
from orchestrator.errors import InputError
from orchestrator.settings import Settings
from tests.builders import a_failback, a_plan, a_wide_failover, at, created, driver
from tests.golden import Logged
from tests.unit.cli.logs import HELD_FOR_LOSS, PROMOTED, RUN, continuity, told
from tests.unit.cli.people import ONE, PROMOTE, asked, begun

INPUT, REFUSED, HELD = 2, 3, 4
LIMIT_MS = 390_000
BY = ("--by", "A. Tamm", "--reason", "home is destroyed")
SHARED_MEMORY_BYTES = 32_768
"""The index of a write-ahead log has this size; a file may be no larger in a process with a full disk."""


def limited(bytes_max: int) -> str:
    """Python that lets no file of the process grow beyond what the log has now."""
    return (
        "import resource\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({bytes_max}, {resource.RLIM_INFINITY}))\n"
    )


def test_when_the_log_is_full_people_are_told_what_stands(tmp_path: Path) -> None:
    words = ("abort", RUN, *BY)
    story = told(tmp_path, HELD_FOR_LOSS)
    written = (tmp_path / ".continuity" / "journal.db-wal").stat().st_size
    assert written > SHARED_MEMORY_BYTES, "the index of the log can be made"
    before = story.store.read(RUN_STREAM + RUN)

    done = continuity(tmp_path, *words, "--output", "json", before=limited(written))
    assert done.returncode == HELD, done.stderr
    assert (
        f"{RUN} exists: its state is as the log has it, and what was begun may still take effect"
        in done.stderr
    )
    assert "nothing was changed" not in done.stderr
    document = json.loads(done.stdout)
    assert document["exit_code"] == HELD
    assert document["instead"] == [f"continuity status {RUN}", f"continuity resume {RUN}"]
    assert story.store.read(RUN_STREAM + RUN) == before

    roomy = continuity(tmp_path, *words)
    assert roomy.returncode == 0, roomy.stderr


@pytest.mark.parametrize("order", [("declare", "site-lost", RUN, "--site", "home"), ("accept", RUN, "loss")])
def test_who_accepts_or_declares_signs_by_name(tmp_path: Path, order: tuple[str, ...]) -> None:
    story = told(tmp_path, HELD_FOR_LOSS)
    before = story.store.read(RUN_STREAM + RUN)
    done = continuity(tmp_path, *order, "--reason", "home is destroyed")
    assert done.returncode == INPUT, done.stderr
    assert "a name is needed: it stands in the record" in done.stderr
    assert "CONTINUITY_BY" in done.stderr
    assert story.store.read(RUN_STREAM + RUN) == before


@pytest.mark.parametrize(
    "words", [("adopt", "--all", "--yes"), ("resolve", "g", "--keep", "home", "--reason", "ours", "--yes")]
)
def test_what_people_confirm_about_groups_is_signed_before_anything_is_asked(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    done = continuity(tmp_path, *words, "--by", " ")
    assert done.returncode == INPUT
    assert "a name is needed: it stands in the record" in done.stderr


def test_the_name_of_the_environment_signs(tmp_path: Path) -> None:
    story = told(tmp_path, HELD_FOR_LOSS)
    lost = ("declare", "site-lost", RUN, "--site", "home", "--reason", "gone")
    assert continuity(tmp_path, *lost, by="B. Kask").returncode == 0
    lost_by = [
        e.event.by for e in story.store.read(RUN_STREAM + RUN) if isinstance(e.event, SiteDeclaredLost)
    ]
    assert lost_by == ["B. Kask"]


@pytest.mark.parametrize(
    ("by", "environment"),
    [(None, {}), ("", {}), (" ", {"CONTINUITY_BY": "B. Kask"}), (None, {"CONTINUITY_BY": " "})],
)
def test_an_empty_name_signs_nothing(by: str | None, environment: dict[str, str]) -> None:
    with pytest.raises(InputError, match="a name is needed"):
        verbs.signed(by, environment)
    if by is not None:
        with pytest.raises(InputError, match="a name is needed"):
            verbs.who(by)


def test_a_given_name_counts_before_that_of_the_environment() -> None:
    assert verbs.signed(" A. Tamm ", {"CONTINUITY_BY": "B. Kask"}) == "A. Tamm"


def test_what_was_accepted_is_said_again_in_the_next_command(tmp_path: Path) -> None:
    told(tmp_path, HELD_FOR_LOSS)
    done = continuity(tmp_path, "accept", RUN, "loss", "--limit", "6m30s", *BY)
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith(f"to go on:\n    continuity resume {RUN} --accept-loss 6m30s\n")


def test_a_resume_honours_what_was_accepted_of_the_loss_as_it_was_last_stated(tmp_path: Path) -> None:
    story = told(tmp_path, HELD_FOR_LOSS)
    journal = Journal(story.store, plan_from_text)
    assert acceptance.limit_on_resume_ms(journal, story.run) == LOSS_WITHIN_RPO
    for limit, means in ((LIMIT_MS, LIMIT_MS), (1_000, 1_000), (LOSS_UNKNOWN, LOSS_UNKNOWN)):
        tracked = journal.load(RUN)
        accepted = GateAccepted(at(100), "loss", "ann", "destroyed", limit)
        story._append({RUN_STREAM + RUN: [accepted]})
        assert acceptance.limit_on_resume_ms(journal, tracked.run) == means
    story._append({RUN_STREAM + RUN: [_stated_again(journal)]})
    assert acceptance.limit_on_resume_ms(journal, journal.load(RUN).run) == LOSS_WITHIN_RPO, (
        "it was accepted of an older figure"
    )


def _stated_again(journal: Journal) -> object:
    (stated,) = [e.event for e in journal.store.read(RUN_STREAM + RUN) if e.event.KIND == "loss.stated"]
    return stated


def test_a_planned_move_accepts_nothing_whatever_its_objectives_are(tmp_path: Path) -> None:
    story = told(tmp_path, HELD_FOR_LOSS)
    story._append({RUN_STREAM + RUN: [GateAccepted(at(100), "loss", "ann", "destroyed", LIMIT_MS)]})
    first = created()
    planned = start(a_failback(), RunCreated(first.at, RUN, "failback", first.digest, "ann", "laptop", ""))
    assert acceptance.limit_on_resume_ms(Journal(story.store, plan_from_text), planned) == 0
    assert acceptance.text(0, planned.plan).startswith("By confirming you accept no data loss;")


def test_a_resume_that_asks_nothing_needs_no_terminal(tmp_path: Path) -> None:
    held = told(tmp_path, HELD_FOR_LOSS)
    done = continuity(tmp_path, "resume", RUN)
    assert done.returncode == REFUSED
    assert "there is no terminal to ask on" in done.stderr
    assert f"    continuity resume {RUN} --yes\n" in done.stderr
    assert acceptance.will_be_asked(held.run)

    (tmp_path / "later").mkdir()
    promoted = told(tmp_path / "later", PROMOTED)
    assert not acceptance.will_be_asked(promoted.run)
    assert acceptance.resume_command(promoted.run) == f"continuity resume {RUN}"


def test_a_resume_with_yes_says_what_is_accepted(tmp_path: Path) -> None:
    says = "By confirming you accept at most 5m of data loss;"
    steps = (asked(ONE), asked(PROMOTE, (ONE,), Role.PROMOTE))
    for operation, accepts in ((Operation.FAILOVER, ["--accept-loss", "5m"]), (Operation.SWITCHOVER, [])):
        folder = tmp_path / operation
        folder.mkdir()
        begun(folder, a_plan(*steps, operation=operation), ordered=True)
        done = continuity(folder, "resume", RUN, "--yes", *accepts, by="ann")
        assert done.returncode == HELD, done.stderr
        assert (says in done.stderr) is bool(accepts), "a planned move loses nothing"


def test_who_ends_a_run_that_evidence_stood_against_is_told_what_sets_the_log_right(tmp_path: Path) -> None:
    (tmp_path / "estate.yaml").write_text("# the log alone is read\n", encoding="utf-8")
    story = Logged(a_wide_failover(), folds_whole=False)
    story.begin(Settings(tmp_path / "estate.yaml").log)
    story.store.put_plan(story.run.created.digest, plan_to_text(story.plan))
    story.tell(driver(story.tick()))
    story.proceed()
    story.ended("db1/inspect", Failed("no", evidence={CONTRADICTIONS: ["two places know epoch 2"]}))
    adopt = "continuity adopt g1 --by NAME"

    document = json.loads(continuity(tmp_path, "status", "--output", "json").stdout)["run"]
    assert document["next"] == ["continuity retry r1 db1/inspect", "continuity abort r1 --reason TEXT"]
    assert f"once this run has ended: {adopt}" in document["held"]["causes"][0]
    done = continuity(tmp_path, "abort", RUN, "--reason", "the log is old")
    assert done.returncode == 0, done.stderr
    assert f"evidence stands against the log; what sets it right:\n    {adopt}\n" in done.stderr


def test_a_full_disk_before_anything_was_begun_names_the_command_to_say_again(tmp_path: Path) -> None:
    told(tmp_path, HELD_FOR_LOSS).store.close()
    done = continuity(tmp_path, "abort", RUN, *BY, before=limited(SHARED_MEMORY_BYTES // 2))
    assert done.returncode == REFUSED, done.stdout + done.stderr
    assert "the log cannot be used; nothing was begun: " in done.stderr
    assert ". Make room for it, or let it be written to, then say it again\n" in done.stderr
    assert done.stderr.endswith(f"\n    continuity abort {RUN} --by 'A. Tamm' --reason 'home is destroyed'\n")
