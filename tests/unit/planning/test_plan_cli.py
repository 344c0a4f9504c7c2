"""``continuity plan`` as people call it: it opens no socket, and a dry run prints the identical plan."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.core.events import GroupAdopted
from orchestrator.core.inputs import At
from orchestrator.engine.journal import Journal
from orchestrator.stores.sqlite import SqliteStore
from tests import forked
from tests.unit.planning import estates

SECONDS_MAX = 60
CAUGHT = 97
GUARD = """
import os, sys
def look(event, arguments):
    if event.startswith("socket.") and event != "socket.gethostname" or event == "subprocess.Popen":
        os.write(2, f"{event} {arguments}\\n".encode())
        os._exit(97)
sys.addaudithook(look)
"""
COMMAND = "from orchestrator.cli import main; main()"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The good estate beside a log whose groups were adopted at home."""
    folder = tmp_path_factory.mktemp("plan") / "estate"
    shutil.copytree(estates.GOOD, folder)
    store = SqliteStore(folder / ".continuity" / "journal.db")
    adopted = GroupAdopted(At(1, 1), "registers", "home", 4, "protected", "ann")
    Journal(store, lambda text: pytest.fail("no plan lies in this log")).append_group(
        "registers", lambda _: adopted
    )
    store.close()
    return folder


def continuity(
    *arguments: str, folder: Path, guard: str = "", seed: str = ""
) -> subprocess.CompletedProcess[str]:
    """``seed`` of the hashes: only a fresh interpreter takes one."""
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(estates.ROOT),
        "PYTHONHASHSEED": seed,
        "HOME": str(folder),
        "CONTINUITY_HOME": str(folder / "none"),
    }
    if not seed:
        return forked.continuity(arguments, cwd=folder, environment=environment, before=guard)
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS_MAX,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.parametrize(
    "arguments", [["plan", "failover"], ["plan", "switchover", "-o", "json"], ["failover", "--dry-run"]]
)
def test_a_plan_opens_no_socket(arguments: list[str], folder: Path) -> None:
    done = continuity(*arguments, folder=folder, guard=GUARD)
    assert done.returncode == 0, done.stderr
    assert "registers-db/promote" in done.stdout


def test_the_guard_sees_a_socket(folder: Path) -> None:
    """A live look does open sockets, so the guard that the test above relies on must end it."""
    done = continuity("plan", "failover", "--live", folder=folder, guard=GUARD)
    assert done.returncode == CAUGHT
    assert "socket." in done.stderr


def test_a_dry_run_prints_the_identical_plan_in_both_forms(folder: Path) -> None:
    printed = {}
    for form in ("text", "json"):
        plan = continuity("plan", "failover", "--output", form, folder=folder, seed="1")
        dry = continuity("failover", "--dry-run", "--output", form, folder=folder, seed="2")
        assert plan.returncode == dry.returncode == 0, plan.stderr + dry.stderr
        assert plan.stdout == dry.stdout
        printed[form] = plan.stdout
    document = json.loads(printed["json"])
    assert document["schema"] == "continuity/plan/v1"
    assert (document["from"], document["to"]) == ("home", "embassy")
    assert printed["text"].splitlines()[1] == f"plan {document['digest']}"
    assert printed["text"].rstrip().endswith(f"end of plan {document['digest']}")


def test_a_live_look_is_dated_stands_apart_and_says_the_loss(folder: Path, tmp_path: Path) -> None:
    """Nobody answers at these addresses: the plan stays the plan, and the loss is said to be unknown."""
    quiet = tmp_path / "estate"
    shutil.copytree(folder, quiet)
    written = (quiet / "estate.yaml").read_text()
    written = written.replace("10.1.0.", "127.9.1.").replace("10.2.0.", "127.9.2.")
    for net in ("1", "2"):
        written = written.replace(f"127.9.{net}.0/16", f"127.9.{net}.0/24")
    (quiet / "estate.yaml").write_text(written)
    plain = continuity("plan", "failover", folder=quiet).stdout
    live = continuity("plan", "failover", "--live", folder=quiet)
    assert live.returncode == 0, live.stderr
    assert live.stdout.startswith(plain.rstrip("\n"))
    part = live.stdout[len(plain.rstrip("\n")) :]
    assert "OBSERVED AT 20" in part
    assert "not part of the plan" in part
    assert "registers-db: expected loss now: unknown (no heartbeat from home)" in part
    document = json.loads(continuity("plan", "failover", "--live", "-o", "json", folder=quiet).stdout)
    assert set(document["observed"]) == {"at", "steps", "lines", "loss"}
    assert document["digest"] in plain


def test_a_refusal_says_what_is_allowed_and_exits_3(folder: Path) -> None:
    done = continuity("plan", "failback", folder=folder)
    assert done.returncode == 3
    assert "registers is at home already" in done.stderr


@pytest.mark.parametrize("words", [("--to", "mars"), ("--service", "foo")])
def test_a_name_that_nobody_knows_is_said_before_the_missing_terminal(
    words: tuple[str, str], folder: Path
) -> None:
    done = continuity("failover", *words, folder=folder, guard=GUARD)
    assert done.returncode == 2, done.stderr
    assert words[1] in done.stderr
    assert "terminal" not in done.stderr
    asked = continuity("failover", folder=folder, guard=GUARD)
    assert (asked.returncode, "no terminal to ask on" in asked.stderr) == (3, True), asked.stderr


def test_leaving_a_service_needs_a_reason(folder: Path) -> None:
    done = continuity("plan", "failover", "--leave", "land-register", folder=folder)
    assert done.returncode == 2
    assert "say why, as NAME=REASON" in done.stderr


def test_an_estate_whose_log_knows_no_group_is_refused(tmp_path: Path) -> None:
    shutil.copytree(estates.GOOD, tmp_path / "estate")
    done = continuity("plan", "failover", folder=tmp_path / "estate")
    assert done.returncode == 3
    assert "this log has never seen the group" in done.stderr
    assert "continuity adopt --all" in done.stderr
    assert not (tmp_path / "estate" / ".continuity").exists(), "a plan makes no log"
