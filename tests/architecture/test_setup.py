"""`make setup` says exactly what is missing, and keeps stdout free for the command after it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SETUP_SECONDS = 60
TOOLS = ("sh", "cat", "cut", "dirname", "sha256sum", "rm", "flock", "make", "awk")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What setup reads, in a folder of its own."""
    folder = tmp_path / "clone"
    shutil.copytree(ROOT / "requirements", folder / "requirements")
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    return folder


def setup(folder: Path, tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the installer with a PATH that holds a few plain tools and no Python and no uv."""
    tools = tmp_path / "tools"
    tools.mkdir(exist_ok=True)
    for name in TOOLS:
        found = shutil.which(name)
        if found and not (tools / name).exists():
            (tools / name).symlink_to(found)
    return subprocess.run(
        [str(folder / "requirements" / "install")],
        env={"PATH": str(tools), "HOME": str(tmp_path), "LC_ALL": "C.UTF-8", **environment},
        capture_output=True,
        text=True,
        timeout=SETUP_SECONDS,
    )


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_no_python_is_named(clone: Path, tmp_path: Path) -> None:
    done = setup(clone, tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Python 3.11 or newer is missing (found: no python3 at all)" in done.stderr
    assert "apt-get install python3 python3-venv" in done.stderr


def test_an_old_python_is_named_with_its_version(clone: Path, tmp_path: Path) -> None:
    old = script(tmp_path / "python3", 'case "$1" in --version) echo Python 3.9.2;; *) exit 1;; esac')
    done = setup(clone, tmp_path, PYTHON=str(old))
    assert done.returncode == 1
    assert "found: Python 3.9.2" in done.stderr
    assert not (clone / ".venv").exists()


def test_a_python_without_venv_names_the_package(clone: Path, tmp_path: Path) -> None:
    """Debian keeps ensurepip in pythonX.Y-venv; neither pip nor uv is there to stand in."""
    broken = tmp_path / "broken"
    broken.mkdir()
    for module in ("ensurepip", "pip"):
        (broken / f"{module}.py").write_text("raise ImportError\n", encoding="utf-8")
    python = script(tmp_path / "python3", f'PYTHONPATH={broken} exec "{sys.executable}" "$@"')
    done = setup(clone, tmp_path, PYTHON=str(python))
    assert done.returncode == 1
    assert done.stdout == ""
    assert f"apt-get install python3.{sys.version_info.minor}-venv" in done.stderr


def test_a_finished_setup_does_nothing_and_says_nothing() -> None:
    if not (ROOT / ".venv" / ".stamp").is_file():
        pytest.skip("not running from .venv: nothing was set up here")
    done = subprocess.run(
        ["make", "-s", "setup"],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=SETUP_SECONDS,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_ci_script_can_be_run() -> None:
    path = ROOT / ".ci" / "run"
    assert os.access(path, os.X_OK)
    assert "\nmake test\n" in path.read_text(encoding="utf-8")
    assert subprocess.run(["bash", "-n", str(path)], capture_output=True).returncode == 0
