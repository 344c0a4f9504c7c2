"""Every command that the documents show exists, takes the options shown, and is run by a test.

Documents show commands in ``console`` blocks, a line each, after ``$ ``. A command that is new there
needs a line in COVERED: the test that really runs it.
"""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from orchestrator.cli import _commands, _exits

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "docs/architecture.md")
BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
HELP_SECONDS = 60

README_PATH = "tests/real/test_readme_path.py::test_the_path_by_hand"
COVERED = {
    "make demo": "tests/real/test_make_demo.py::test_make_demo_prints_one_json_document",
    "make test": ".ci/run",
    "make check": ".ci/run",
    "make setup": ".ci/run",
    "kill": README_PATH,
    "continuity lab up": README_PATH,
    "continuity lab load": README_PATH,
    "continuity lab break": README_PATH,
    "continuity lab heal": README_PATH,
    "continuity lab check": README_PATH,
    "continuity lab down": README_PATH,
    "continuity status": README_PATH,
    "continuity plan": README_PATH,
    "continuity failover": README_PATH,
    "continuity resume": README_PATH,
    "continuity report": README_PATH,
    "continuity failback": README_PATH,
}
SPAN = re.compile(r"`([^`\n]+)`")
WRITTEN = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")),
)
MOVES = ("failover", "switchover", "reprotect", "failback")


@cache
def shown() -> tuple[tuple[str, str], ...]:
    """(document, command) of every command line in a console block."""
    found = []
    for document in DOCUMENTS:
        for block in BLOCK.findall((ROOT / document).read_text(encoding="utf-8")):
            for line in block.splitlines():
                if line.startswith("$ "):
                    found.append((document, line.removeprefix("$ ").split(" #")[0].strip()))
    return tuple(found)


def commands_of(program: str) -> list[str]:
    return sorted({command for _, command in shown() if command.split()[0] == program})


def covering(command: str) -> str:
    """The test that runs the longest beginning of ``command`` that COVERED knows; empty if none."""
    words = command.split()
    for length in range(len(words), 0, -1):
        test = COVERED.get(" ".join(words[:length]))
        if test:
            return test
    return ""


def continuity(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "orchestrator", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=HELP_SECONDS,
        stdin=subprocess.DEVNULL,
    )


def test_documents_show_commands() -> None:
    assert {command.split()[0] for _, command in shown()} == {"continuity", "kill", "make"}
    assert len(shown()) >= 15


@pytest.mark.parametrize("command", commands_of("continuity"))
def test_a_command_takes_what_is_shown(command: str) -> None:
    """With --help at its end the line is parsed, unknown options refused, and nothing is run."""
    done = continuity(*shlex.split(command)[1:], "--help")
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_option_that_does_not_exist_would_be_seen() -> None:
    assert continuity("status", "--no-such-option", "--help").returncode == 2


@pytest.mark.parametrize("command", commands_of("make"))
def test_a_target_exists(command: str) -> None:
    done = subprocess.run(
        ["make", "--dry-run", *shlex.split(command)[1:]], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_every_target_is_listed_by_make_alone() -> None:
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = next(line for line in makefile.splitlines() if line.startswith(".PHONY:")).split()[1:]
    assert {line.split()[0] for line in listed.splitlines()} == set(phony)


@pytest.mark.parametrize("command", sorted({command for _, command in shown()}))
def test_a_shown_command_is_run_by_a_test(command: str) -> None:
    test = covering(command)
    assert test, f"{command}: no test in COVERED runs it"
    path, _, name = test.partition("::")
    assert (ROOT / path).is_file(), f"{command}: {path} is not there"
    if name:
        assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), f"{command}: {test} is not there"


@cache
def commands() -> dict[str, frozenset[str]]:
    """Every command as it is typed, without its program, and the options that it takes."""
    return dict(_leaves(get_command(_commands.build()), ()))


def _leaves(command: Any, above: tuple[str, ...]) -> Iterator[tuple[str, frozenset[str]]]:
    if hasattr(command, "commands"):
        for name, below in command.commands.items():
            yield from _leaves(below, (*above, name))
        return
    names = (name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts))
    yield " ".join(above), frozenset(name for name in names if name.startswith("-"))


def section(title: str) -> str:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_the_readme_lists_every_command_and_no_other() -> None:
    table = section("Commands").split("| exit code")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ") and "`" in line]
    listed = []
    for row in rows:
        for span in SPAN.findall(row.split("(")[0]):
            listed.append(" ".join(word for word in span.split() if not word.isupper()))
    assert len(listed) == len(set(listed))
    assert set(listed) == set(commands())


def test_every_command_takes_what_the_readme_says_of_all() -> None:
    lacking = [name for name, options in commands().items() if "--output" not in options]
    assert not lacking
    assert all("--dry-run" in commands()[move] for move in MOVES)


def test_the_exit_codes_are_those_of_the_program_and_of_its_help() -> None:
    rows = re.findall(r"^\| ([\d, ]+) \| .+ \|$", section("Commands"), re.MULTILINE)
    listed = {int(code) for row in rows for code in row.split(",")}
    by_signal = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)
    codes = {*range(_exits.UNSAID + 1), *(_exits.SIGNALLED + number for number in by_signal)}
    assert listed == codes
    said = " ".join(continuity("--help").stdout.split())
    summary = said.split("Exit codes: ")[1].split(" Options:")[0]
    assert {int(code) for code in re.findall(r"\b\d+\b", summary)} == codes


def spans() -> list[tuple[str, list[str]]]:
    """(document, words) of every command of this program that stands in running text."""
    found = []
    for document in WRITTEN:
        for span in SPAN.findall((ROOT / document).read_text(encoding="utf-8")):
            if span.startswith("continuity "):
                found.append((document, span.split()[1:]))
    return found


def test_commands_in_running_text_exist_and_take_the_options_shown() -> None:
    groups = {name.split()[0] for name in commands() if " " in name}
    wrong = []
    for document, words in spans():
        if words[0].isupper() or not re.fullmatch(r"[a-z-]+", words[0]):
            continue  # a table of refusals: `continuity VERB`
        name = " ".join(words[:2]) if words[0] in groups else words[0]
        if name in groups:
            continue
        options = commands().get(name, frozenset())
        unknown = [w for w in words if w.startswith("--") and w.split("=")[0].strip(",;") not in options]
        if name not in commands() or unknown:
            wrong.append((document, " ".join(words)))
    assert len(spans()) > 20
    assert not wrong
