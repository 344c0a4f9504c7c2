"""Simulated nights: every invariant of the world holds, whatever the seed brings; the same seed is the
same night, to the byte; and a long range of seeds reaches all that can happen.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.sim.estate import SETTINGS, catalog, plan_of
from orchestrator.sim.kinds import KINDS
from orchestrator.sim.nights import simulate
from orchestrator.sim.suite import play, play_all
from tests import seeds

ROOT = Path(__file__).resolve().parents[2]
SMOKE = range(40)
SUITE = range(3_500)  # what is reached must not hang on a single seed
SUITE_SECONDS_MAX = 120
TWICE = range(12)
KEPT = range(100)


def command(*arguments: str, hash_seed: str = "random") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    return subprocess.run(
        [sys.executable, "-m", "orchestrator.sim", *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100,
    )  # fmt: skip


def broken(total: Any) -> list[str]:
    return [f"make sim SEED={v.seed}: {text}" for v in total.failed for text in v.broken]


def test_some_nights_hold_every_invariant() -> None:
    total = play(SMOKE)
    assert broken(total) == []
    assert total.seeds == len(SMOKE)


def test_a_new_seed_holds_every_invariant() -> None:
    first = seeds.of_today("sim")
    assert broken(play(range(first, first + 6))) == []


@pytest.mark.parametrize("seed", seeds.kept("sim"))
def test_a_seed_that_once_failed_holds_every_invariant(seed: int) -> None:
    assert simulate(seed).broken == ()


def test_what_people_kept_is_followed_where_it_stands() -> None:
    """A site that had lost its epoch and was given a new one: its names and routes come back under the next."""
    nights = [simulate(seed, setting="kept") for seed in KEPT]
    assert [text for verdict in nights for text in verdict.broken] == []
    assert {verdict.outcome for verdict in nights} >= {"done", "aborted then done"}


def test_the_same_seeds_are_the_same_nights_to_the_byte() -> None:
    """In two processes whose sets and dicts hash differently."""
    wanted = f"{TWICE.start}..{TWICE.stop - 1}"
    one, two = (command("--seeds", wanted, "--output", "json", hash_seed=h) for h in ("1", "4242"))
    heads = [json.loads(answer.stdout)["heads"] for answer in (one, two)]
    assert heads[0] == heads[1]
    assert len(heads[0]) == 64


def test_another_seed_is_another_night() -> None:
    assert simulate(0).head != simulate(6).head


def test_one_seed_is_played_again_with_all_that_happens() -> None:
    shown = command("--seed", "7", "--trace")
    assert shown.returncode == 0, shown.stderr
    assert "every invariant held" in shown.stdout
    assert "run.created" in shown.stdout
    told = json.loads(command("--seed", "7", "--output", "json").stdout)
    assert told["head"] in shown.stdout
    assert told["broken"] == []


def test_a_wrong_call_is_bad_input() -> None:
    assert command().returncode == 2
    assert command("--seed", "1", "--seeds", "1..2").returncode == 2


def test_simulated_actions_make_the_promises_of_the_real_ones() -> None:
    """What the machine knows of an action decides what it does after a crash: it must be equal."""
    for name in SETTINGS:
        for step in plan_of(name).steps.values():
            kind, bound = KINDS[step.action.kind], step.action
            real = catalog().action(bound.kind)
            assert (kind.idempotent, kind.mutates) == (real.idempotent, real.mutates), bound.kind
            if bound.undo.value == "undo":
                assert kind.take_back is not None, f"{bound.kind} promises an undo"
                assert kind.undo is bound.undo, bound.kind


def test_every_action_that_a_plan_may_use_is_simulated() -> None:
    used = {step.action.kind for name in SETTINGS for step in plan_of(name).steps.values()}
    assert used <= KINDS.keys()
    assert KINDS.keys() <= set(catalog().kinds())


@pytest.mark.slow
def test_thousands_of_nights_hold_every_invariant_and_reach_everything() -> None:
    used = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    began = time.monotonic()
    total = play_all(SUITE)
    seconds = time.monotonic() - began
    used = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - used
    print("\n".join(total.lines()))
    print(f"{seconds:.0f} s, of which {used:.0f} s of processor time")
    assert broken(total) == []
    assert total.missing() == [], "what the simulator never reaches is not proven by it"
    assert total.seeds == len(SUITE)
    assert used / len(SUITE) * 2_000 / 2 < SUITE_SECONDS_MAX, "2,000 seeds on two processors"
