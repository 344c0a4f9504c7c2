"""The few names that others may rely on, and that every folder with code is a package."""

from __future__ import annotations

import importlib
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import orchestrator

ROOT = Path(__file__).resolve().parents[2]


def test_the_package_offers_its_version_and_nothing_else() -> None:
    assert {name for name in vars(orchestrator) if not name.startswith("_")} <= {
        path.stem for path in (ROOT / "orchestrator").iterdir()
    }
    with (ROOT / "pyproject.toml").open("rb") as file:
        assert orchestrator.__version__ == tomllib.load(file)["project"]["version"]


def test_the_version_stands_in_the_changelog() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{orchestrator.__version__}]" in changelog


def test_the_command_is_an_entry_point() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        target = tomllib.load(file)["project"]["scripts"]["continuity"]
    module, _, name = target.partition(":")
    assert callable(getattr(importlib.import_module(module), name))
    for entry in entry_points(group="console_scripts", name="continuity"):
        assert entry.value == target


def test_the_package_is_typed() -> None:
    assert (ROOT / "orchestrator" / "py.typed").is_file()


def test_every_folder_with_code_is_a_package() -> None:
    """A folder without __init__.py is invisible to the layer contracts."""
    folders = {path.parent for path in (ROOT / "orchestrator").rglob("*.py")}
    assert not [str(folder) for folder in folders if not (folder / "__init__.py").is_file()]
