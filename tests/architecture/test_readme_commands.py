"""Every command that the documents show exists, takes the options shown, and is run by a test.

Documents show commands in ``console`` blocks, a line each, after ``$ ``. A command that is new there
needs a line in COVERED: the test that really runs it.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

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
VERBS = (
    "plan preflight probe failover switchover failback reprotect status watch pause resume retry skip mark-done confirm accept declare "
    "adopt resolve abort history report runbook epoch lab"
).split()


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


def test_every_verb_stands_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [verb for verb in VERBS if f"`{verb}" not in text]
    assert not missing
    listed = continuity("--help")
    assert listed.returncode == 0, listed.stderr
    assert not [verb for verb in VERBS if not re.search(rf"(?<![\w-]){verb}(?![\w-])", listed.stdout)]
