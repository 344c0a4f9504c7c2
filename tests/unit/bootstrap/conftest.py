"""The estate that these tests speak of, with a log of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.bootstrap.app import App
from orchestrator.settings import Settings
from tests.unit.planning import estates


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    shutil.copytree(estates.GOOD, tmp_path / "estate")
    made = App(Settings(tmp_path / "estate" / "estate.yaml"))
    yield made
    made.close()
