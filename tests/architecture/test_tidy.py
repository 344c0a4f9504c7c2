"""Every committed file keeps the house rules, and every rule finds what it is there to find."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

import pytest

from tests.architecture import tidy_rules
from tests.architecture.tidy_rules import PYTHON_RULES, TEXT_RULES, Rule, Source

ROOT = Path(__file__).resolve().parents[2]
LEAST_FILES = 40  # a rule that reads no file passes without a word


@cache
def sources() -> tuple[Source, ...]:
    """Every text file that is committed or about to be (ignored ones are not)."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    found = []
    for name in sorted(filter(None, listed.split("\0"))):
        path = ROOT / name
        if path.is_file() and not path.is_symlink():
            try:
                found.append(Source(name, path.read_text(encoding="utf-8")))
            except UnicodeDecodeError:
                continue  # an image, a compressed journal
    return tuple(found)


def test_there_are_files_to_judge() -> None:
    assert len(sources()) >= LEAST_FILES
    assert any(source.path == "orchestrator/core/model.py" for source in sources())
    assert any(source.is_test for source in sources())


@pytest.mark.parametrize("rule", PYTHON_RULES, ids=lambda rule: rule.__name__)
def test_python_files_keep(rule: Rule) -> None:
    offenders = [line for source in sources() if source.is_python for line in rule(source)]
    assert not offenders, "\n" + "\n".join(offenders)


@pytest.mark.parametrize("rule", TEXT_RULES, ids=lambda rule: rule.__name__)
def test_text_files_keep(rule: Rule) -> None:
    offenders = [line for source in sources() for line in rule(source)]
    assert not offenders, "\n" + "\n".join(offenders)


def test_blind_excepts_that_are_allowed_exist() -> None:
    by_path = {source.path: source for source in sources()}
    for path, reason in tidy_rules.BLIND_EXCEPT_ALLOWED.items():
        assert reason
        assert path in by_path, f"{path} is gone: take it off the list"
        assert "except Exception" in by_path[path].text, f"{path} needs no exception any more"


# --- each rule, seen to fail ------------------------------------------------------------------

LONG_BODY = "\n".join(["    x = 1"] * 80)
BAD: dict[str, tuple[str, str]] = {
    "short_modules": ("orchestrator/long.py", '"""Doc."""\n' + "x = 1\n" * 400),
    "short_functions": ("orchestrator/long.py", f'"""Doc."""\ndef f():\n{LONG_BODY}\n'),
    "module_docstrings": ("orchestrator/bare.py", "x = 1\n"),
    "plain_names": ("orchestrator/utils.py", '"""Doc."""\n'),
    "no_patching": ("tests/test_x.py", "def test_x(monkeypatch):\n    monkeypatch.setattr('a.b', 1)\n"),
    "no_sleeping_tests": ("tests/test_x.py", "import time\ndef test_x():\n    time.sleep(1)\n"),
    "no_shell": ("orchestrator/x.py", "import subprocess\nsubprocess.run('ls', shell=True)\n"),
    "no_blind_except": ("orchestrator/x.py", "try:\n    f()\nexcept Exception:\n    pass\n"),
    "core_imports_little": ("orchestrator/core/x.py", "import time\n"),
    "core_reads_no_clock": ("orchestrator/core/x.py", "import datetime\nx = datetime.datetime.now()\n"),
    "nothing_unfinished": ("docs/x.md", "TO" + "DO: write this\n"),
    "no_machine_paths": ("docs/x.md", "see /wo" + "rk/main\n"),
    "no_registry_hosts": ("docs/x.md", "from https://py" + "pi.org/simple\n"),
    "no_private_keys": ("tests/key", "-----BEGIN PRI" + "VATE KEY-----\n" + "M" * 64 + "\n"),
}
MORE_BAD: list[tuple[str, str, str]] = [
    ("no_patching", "tests/test_x.py", "from unittest.mock import patch\n"),
    ("no_patching", "tests/test_x.py", "from unittest import mock\nmock.patch('a')\n"),
    (
        "no_sleeping_tests",
        "tests/test_x.py",
        "import time\ndef f():\n    while True:\n        time.sleep(1)\n",
    ),
    ("no_blind_except", "orchestrator/x.py", "try:\n    f()\nexcept:\n    pass\n"),
    ("no_blind_except", "orchestrator/x.py", "with contextlib.suppress(Exception):\n    f()\n"),
    ("no_shell", "orchestrator/x.py", "import os\nos.system('ls')\n"),
    ("no_machine_paths", "docs/x.md", "see ../sha" + "red/design/core.md\n"),
    ("core_imports_little", "orchestrator/components/x.py", "from os import path\n"),
]
GOOD: list[tuple[str, str, str]] = [
    (
        "no_sleeping_tests",
        "tests/test_x.py",
        "import time\ndef f(d):\n    while time.monotonic() < d:\n        time.sleep(1)\n",
    ),
    ("no_shell", "orchestrator/x.py", "import subprocess\nsubprocess.run(['ls'], shell=False)\n"),
    ("no_blind_except", "orchestrator/x.py", "try:\n    f()\nexcept Exception as e:\n    raise X from e\n"),
    ("no_machine_paths", "docs/x.md", "the frame" + "work/root folder\n"),
]


def the_rule(name: str) -> Rule:
    return next(rule for rule in (*PYTHON_RULES, *TEXT_RULES) if rule.__name__ == name)


def test_every_rule_has_an_offender_to_find() -> None:
    assert {rule.__name__ for rule in (*PYTHON_RULES, *TEXT_RULES)} == set(BAD)


@pytest.mark.parametrize(("name", "path", "text"), [*((n, p, t) for n, (p, t) in BAD.items()), *MORE_BAD])
def test_a_planted_offender_is_found(name: str, path: str, text: str) -> None:
    assert list(the_rule(name)(Source(path, text)))


@pytest.mark.parametrize(("name", "path", "text"), GOOD)
def test_what_is_allowed_passes(name: str, path: str, text: str) -> None:
    assert not list(the_rule(name)(Source(path, text)))
