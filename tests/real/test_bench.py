"""The bench measures what it says, whatever the figures are: no test here looks at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import show
from bench.figures import Figure, Limit
from bench.moves import Played, moves_for

ROOT = Path(__file__).resolve().parents[2]
MICRO = ["append", "steps", "compile", "fold", "status", "probe"]

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    results = tmp_path_factory.mktemp("results")
    done = subprocess.run(
        [sys.executable, "-m", "bench", *MICRO, "--quick", "--output", "json", "--results", str(results)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    document: dict[str, Any] = json.loads(done.stdout)
    (kept,) = results.iterdir()
    assert json.loads(kept.read_text(encoding="utf-8")) == document
    return document


def test_the_micro_sections_run_and_say_what_they_are_beside(measured: dict[str, Any]) -> None:
    assert measured["schema"] == "continuity/bench/v1"
    assert measured["problems"] == []
    assert {figure["section"] for figure in measured["figures"]} == set(MICRO)
    for figure in measured["figures"]:
        assert figure["n"] == len(figure["samples"])
        assert min(figure["samples"]) > 0, figure["name"]
    with_ratio = {figure["section"] for figure in measured["figures"] if "ratio" in figure}
    assert with_ratio == {"append", "compile", "fold", "status", "probe"}


def test_it_names_the_machine_by_cores_and_python_only(measured: dict[str, Any]) -> None:
    assert set(measured["machine"]) == {"cores", "python"}


def test_a_figure_is_judged_by_the_pooled_ratio_and_by_its_own_median() -> None:
    slow = Figure("s", "slow", "ms", (3.0, 1.0, 2.0), "beside", (1.0, 1.0, 1.0), Limit(ratio_max=1.5))
    assert (slow.ratio, slow.is_within) == (2.0, False)
    assert Figure("s", "n", "ms", (2.0,), "beside", (2.0,), Limit(1.5, 1.0)).is_within is False
    assert Figure("s", "n", "ms", (1.0,), "beside", (2.0,), Limit(1.5, 1.0)).is_within is True
    assert Figure("s", "n", "ms", (1.0,)).is_within is None
    low, high = slow.interval or (0.0, 0.0)
    assert (low, high) == (1.0, 3.0)
    text = show.table([slow])
    assert "OVER" in text
    assert "≤ 1.5 ×" in text


def test_one_chain_of_moves_serves_the_sections() -> None:
    assert moves_for(["switch"]) == ("switchover",)
    assert moves_for(["failover"]) == ("failover",)
    assert moves_for(["failover", "switch"]) == ("failover", "rejoin", "switchover")
    assert moves_for(["append"]) == ()
    assert Played().documents() == []


def test_an_unknown_section_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "speed"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "there are: append, steps" in done.stderr
