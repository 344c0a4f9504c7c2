"""Real parts that several modules share: made once, copied per test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real import pgharness, pgmoves
from tests.real.pgharness import Pair


@pytest.fixture(scope="session")
def pg_template(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Home and embassy with PostgreSQL of the wheel, cleanly stopped; see ``pgharness.running``."""
    return pgharness.make_template(tmp_path_factory.mktemp("pg"), pgharness.installations()["17"])


@pytest.fixture
def pair(pg_template: Pair, tmp_path: Path) -> Iterator[Pair]:
    """Home is the primary, the embassy streams, and commits wait for it."""
    with pgharness.running(pg_template, tmp_path / "p") as made:
        yield made


@pytest.fixture(scope="session", params=pgharness.installations())
def pg_any(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The same for each PostgreSQL version that is here."""
    label = str(request.param)
    return pgharness.make_template(tmp_path_factory.mktemp(f"pg{label}"), pgharness.installations()[label])


@pytest.fixture(scope="session")
def pg_lost(pg_template: Pair, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Home crashed with rows of its own, the embassy went on without them and is cleanly stopped."""
    return pgmoves.make_diverged(pg_template, tmp_path_factory.mktemp("lost") / "p")
