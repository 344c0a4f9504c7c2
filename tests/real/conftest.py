"""Real parts that several modules share: made once, copied per test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real import pgharness, pgmoves
from tests.real.pgharness import Pair


@pytest.fixture(scope="session")
def pg_template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Home and embassy with PostgreSQL of the wheel, cleanly stopped; see ``pgharness.running``."""
    with pgmoves.in_memory(tmp_path_factory.mktemp("pg")) as folder:
        yield pgharness.make_template(folder / "p", pgharness.installations()["17"])


@pytest.fixture
def pair(pg_template: Pair, fast_path: Path) -> Iterator[Pair]:
    """Home is the primary, the embassy streams, and commits wait for it."""
    with pgharness.running(pg_template, fast_path / "p") as made:
        yield made


@pytest.fixture
def fast_path(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is room: servers that sync every file wait for nobody's disk there."""
    with pgmoves.in_memory(tmp_path) as folder:
        yield folder


@pytest.fixture(scope="session", params=pgharness.installations())
def pg_any(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """The same for each PostgreSQL version that is here."""
    label = str(request.param)
    with pgmoves.in_memory(tmp_path_factory.mktemp(f"pg{label}")) as folder:
        yield pgharness.make_template(folder / "p", pgharness.installations()[label])


@pytest.fixture(scope="session")
def pg_lost(pg_template: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Home crashed with rows of its own, the embassy went on without them and is cleanly stopped."""
    with pgmoves.in_memory(tmp_path_factory.mktemp("lost")) as folder:
        yield pgmoves.make_diverged(pg_template, folder / "p")
