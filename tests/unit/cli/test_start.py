"""A command loads what it needs: ``status`` in plain words no parser at all, any other one its own module."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import typer

from orchestrator.bootstrap.app import plan_from_text
from orchestrator.cli import _commands, _plain
from orchestrator.core.events import GroupAdopted
from orchestrator.engine.journal import Journal
from orchestrator.settings import Settings
from orchestrator.stores.sqlite import SqliteStore
from tests.builders import at
from tests.unit.cli.logs import HELD_FOR_LOSS, told

ROOT = Path(__file__).resolve().parents[3]
HEAVY = {"typer", "click", "pydantic", "rich", "yaml", "psycopg", "dns", "orchestrator.core.machine"}
STRANGERS = {
    "yaml", "kubernetes", "ansible", "ansible_runner", "psycopg", "dns", "httpx", "cryptography", "tenacity", "asyncio",
    "rich.table", "orchestrator.core.machine", "orchestrator.actions", "orchestrator.components", "orchestrator.drivers",
    "orchestrator.lab", "orchestrator.probes", "orchestrator.runbook",
}  # fmt: skip
"""What reading the log needs none of. The parser itself brings pydantic, from which it makes every option."""
RUN = "import sys\nfrom orchestrator.cli import main\ntry: main()\nfinally: print(*sys.modules, file=sys.stderr)"


@pytest.fixture
def estate(tmp_path: Path) -> Path:
    path = tmp_path / "estate.yaml"
    path.write_text("# status reads the log alone\n", encoding="utf-8")
    store = SqliteStore(Settings(path).log)
    adopted = GroupAdopted(at(1), "registers", "home", 3, "protected", "ann", {})
    Journal(store, plan_from_text).append_group("registers", lambda state: adopted)
    store.close()
    return path


def command(words: Sequence[str]) -> tuple[int, str, set[str]]:
    """Exit code, stdout, and the modules loaded, of a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    return done.returncode, done.stdout, set(done.stderr.split())


@pytest.mark.parametrize("output", ["text", "json"])
def test_plain_words_load_no_parser_and_say_the_same(estate: Path, output: str) -> None:
    plain = command(["status", "--estate", str(estate), "--output", output])
    parsed = command(["status", "--output", output, "--output", output, "--estate", str(estate)])
    assert plain[:2] == parsed[:2]
    assert plain[0] == 0
    assert "registers" in plain[1]
    assert not plain[2] & HEAVY
    assert "typer" in parsed[2]


@pytest.mark.parametrize("output", ["text", "json"])
@pytest.mark.parametrize("words", ["status", "watch", "report", "history", "history r1 --verify"])
def test_who_only_reads_the_log_loads_nothing_that_drives(tmp_path: Path, words: str, output: str) -> None:
    told(tmp_path, HELD_FOR_LOSS)
    code, said, loaded = command([*words.split(), "--estate", str(tmp_path), "--output", output])
    assert (code, bool(said)) == (0, True)
    assert "orchestrator.stores.sqlite" in loaded
    assert not loaded & STRANGERS


def test_an_error_in_plain_words_is_said_as_any_other(tmp_path: Path) -> None:
    code, _, said = command(["status", "--estate", str(tmp_path / "none.yaml")])
    assert code == 2
    assert "typer" not in said


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--live"],
        ["--output"],
        ["--output", "xml"],
        ["--output=xml"],
        ["-o", "--estate"],
        ["--estate="],
        ["one", "two"],
        ["-o", "json", "--output", "json"],
        ["--estate", "a", "--estate", "b"],
        ["-x"],
    ],
)
def test_what_is_not_plain_is_left_to_the_parser(words: list[str]) -> None:
    assert _plain._options(words) is None
    assert not _plain.answered(["watch", *words])


def test_plain_options() -> None:
    assert _plain._options([]) == {}
    assert _plain._options(["run-1", "-o", "json"]) == {"": "run-1", "--output": "json"}
    assert _plain._options(["--estate=a=b", "--output=text"]) == {"--estate": "a=b", "--output": "text"}


def commands_of(app: typer.Typer) -> set[str]:
    names = {command.name or "" for command in app.registered_commands}
    return names | {group.name or "" for group in app.registered_groups}


def test_every_command_is_in_the_module_that_its_name_loads() -> None:
    everything = commands_of(_commands.build())
    assert {"failover", "lab", "status"} < everything
    for name in everything:
        alone = commands_of(_commands.build([name]))
        assert name in alone
        assert alone < everything, f"{name} loads every module"
    assert commands_of(_commands.build(["no-such-word"])) == everything
    assert {verb for verbs in _commands.VERBS.values() for verb in verbs} <= everything
