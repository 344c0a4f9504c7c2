"""The layers hold, and each contract is broken by exactly the violation planted for it.

A contract whose wildcard matches nothing passes silently; so each one is run against a temporary
copy of the package with one import too many, and must be the only one that breaks.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINT_SECONDS = 60
VERDICT = re.compile(r"^(?P<name>.+?) (?P<verdict>KEPT|BROKEN)\b", re.MULTILINE)


def contracts() -> dict[str, str]:
    """Every contract's id and name, as pyproject.toml declares them."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        declared = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    return {contract["id"]: contract["name"] for contract in declared}


def lint(folder: Path) -> tuple[dict[str, str], str]:
    """Verdict by contract name of the package in ``folder``, and the whole output."""
    command = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", command, "--no-cache", "--config", str(folder / "pyproject.toml")],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin", "COLUMNS": "200", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        timeout=LINT_SECONDS,
    )
    output = done.stdout + done.stderr
    return {match["name"].strip(): match["verdict"] for match in VERDICT.finditer(output)}, output


@dataclass(frozen=True)
class Plant:
    """One import too many: ``line`` is appended to ``path``; only ``breaks`` may notice."""

    breaks: str
    path: str
    line: str


PLANTS = {
    "the errors import the core": Plant("layers", "errors.py", "import orchestrator.core.model"),
    "a driver imports planning": Plant("layers", "drivers/planted.py", "import orchestrator.planning"),
    "a store imports the command line": Plant("layers", "stores/planted.py", "import orchestrator.cli"),
    "a package that no layer places": Plant("layers", "planted/__init__.py", ""),
    "the core reads the clock": Plant("core-is-pure", "core/model.py", "import time"),
    "a component opens a socket": Plant("core-is-pure", "components/planted.py", "import socket"),
    "a port runs processes": Plant("ports-hold-no-parts", "ports.py", "import subprocess"),
    "an action imports an action": Plant(
        "plugins", "actions/planted.py", "import orchestrator.actions.planted_neighbour"
    ),
    "a probe imports a probe": Plant(
        "plugins", "probes/planted.py", "import orchestrator.probes.planted_neighbour"
    ),
    "a component imports a component": Plant(
        "plugins", "components/planted.py", "import orchestrator.components.planted_neighbour"
    ),
    "the engine speaks to a database": Plant("no-vendor", "engine/planted.py", "import psycopg"),
    "planning reads YAML": Plant("no-vendor", "planning/planted.py", "import yaml"),
    "the simulator draws with rich": Plant("no-vendor", "sim/planted.py", "import rich"),
}


def plant(folder: Path, planted: Plant) -> None:
    target = folder / "orchestrator" / planted.path
    target.parent.mkdir(exist_ok=True)
    if "planted_neighbour" in planted.line:
        (target.parent / "planted_neighbour.py").write_text('"""Planted."""\n')
    with target.open("a", encoding="utf-8") as file:
        file.write(f"\n{planted.line}\n")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(
        ROOT / "orchestrator", tmp_path / "orchestrator", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_every_contract_is_kept() -> None:
    verdicts, output = lint(ROOT)
    assert verdicts == dict.fromkeys(contracts().values(), "KEPT"), output


def test_every_contract_has_a_plant() -> None:
    assert {planted.breaks for planted in PLANTS.values()} == set(contracts())


@pytest.mark.parametrize("case", PLANTS, ids=lambda case: case.replace(" ", "-"))
def test_a_planted_violation_breaks_exactly_its_contract(case: str, copy: Path) -> None:
    planted = PLANTS[case]
    plant(copy, planted)
    verdicts, output = lint(copy)
    expected = {name: "BROKEN" if key == planted.breaks else "KEPT" for key, name in contracts().items()}
    assert verdicts == expected, output
