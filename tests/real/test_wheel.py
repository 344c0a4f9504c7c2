"""What the container image installs: a wheel made of what the Dockerfile copies, whole without the clone beside it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.unit.planning import estates

pytestmark = pytest.mark.real

ROOT = Path(__file__).resolve().parents[2]
COPIED = re.compile(r"^COPY (?!--from)(.+) \S+$", re.MULTILINE)


def sources() -> list[str]:
    """What the Dockerfile copies out of the clone."""
    found = [word for line in COPIED.findall((ROOT / "Dockerfile").read_text()) for word in line.split()]
    assert found
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as the Dockerfile says, without isolation: what it is built with stands in requirements/build.txt."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in sources():
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    subprocess.run(
        ["uv", "build", "--quiet", "--wheel", "--no-build-isolation", "--offline", "--out-dir", "out"],
        cwd=folder, check=True, env={**os.environ, "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"},
    )  # fmt: skip
    (made,) = (folder / "out").glob("continuity-*.whl")
    return made


def test_every_file_of_the_package_is_in_the_wheel(wheel: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "orchestrator"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    with zipfile.ZipFile(wheel) as unpacked:
        assert set(listed.stdout.split()) - set(unpacked.namelist()) == set()


def test_the_command_works_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path / "site")
    shutil.copytree(estates.GOOD, tmp_path / "estate")
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "PYTHONPATH": str(tmp_path / "site"),
        "CONTINUITY_ESTATE": str(tmp_path / "estate" / "estate.yaml"),
    }

    def say(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "orchestrator", *words]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    where = "import orchestrator; print(orchestrator.__file__)"
    found = subprocess.run([sys.executable, "-c", where], cwd=tmp_path, env=environment, capture_output=True)
    assert str(tmp_path / "site") in found.stdout.decode(), "the clone was imported, not the wheel"
    assert say("runbook", "lint").returncode == 0
    assert json.loads(say("runbook", "schema", "estate").stdout)["$schema"]
    assert "adopt" in say("status").stderr
    refused = say("lab", "up")
    assert (refused.returncode, "from a clone" in refused.stderr) == (3, True), refused.stderr
