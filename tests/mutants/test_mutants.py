"""Breaks of the program that must not go unseen: each patch is applied to a copy of the package, and the
simulator finds it within a few hundred seeds, by the name of the invariant that the patch's head names.
A patch that no longer applies fails: the promise that it breaks has moved, and nobody has looked where to.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.mutants.patching import apply

ROOT = Path(__file__).resolve().parents[2]
PATCHES = sorted(Path(__file__).parent.glob("*.patch"))
SEEDS = "1000..1299"  # three hundred in which every break shows itself
SECONDS_MAX = 200
CAUGHT_BY = re.compile(r"^caught-by: (\S+)$", re.MULTILINE)
WANTED = {
    "effect-before-append",
    "unknown-is-retried-without-a-look",
    "recovery-in-two-appends",
    "fence-guard-dropped",
    "epoch-compare-dropped",
    "stale-attempt-accepted",
    "skip-passes-a-gate",
    "second-driver-admitted",
    "time-out-is-failed",
    "paused-run-starts-steps",
}


@dataclass(frozen=True, slots=True)
class Played:
    """What the simulator said of one copy of the program."""

    failed: tuple[Mapping[str, Any], ...]
    error: str

    @property
    def broken(self) -> tuple[str, ...]:
        return tuple(text.split(":")[0] for verdict in self.failed for text in verdict["broken"])


def play(folder: Path, until: str) -> Played:
    """Seeds one after the other, with the package in ``folder``, up to the first that breaks an invariant."""
    ended = subprocess.run(
        [sys.executable, "-m", "orchestrator.sim", "--seeds", SEEDS, "--until", until, "--output", "json"],
        cwd=folder, capture_output=True, text=True, timeout=SECONDS_MAX,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    if ended.returncode not in (0, 1) or not ended.stdout:
        return Played((), ended.stderr[-2_000:])
    return Played(tuple(json.loads(ended.stdout)["failed"]), "")


def copy(patch: Path | None, folder: Path) -> Path:
    """A copy of the package, broken by the patch."""
    ignored = shutil.ignore_patterns("__pycache__", "lab", "cli", "probes", "reports", "bootstrap", "runbook")
    shutil.copytree(ROOT / "orchestrator", folder / "orchestrator", ignore=ignored)
    if patch is not None:
        apply(patch.read_text(encoding="utf-8"), folder)
    return folder


def test_every_break_that_was_asked_for_is_tried() -> None:
    assert {path.stem[3:] for path in PATCHES} >= WANTED


@pytest.mark.parametrize("patch", PATCHES, ids=lambda path: path.stem)
def test_a_patch_applies_and_says_what_it_breaks(patch: Path, tmp_path: Path) -> None:
    text = patch.read_text(encoding="utf-8")
    assert CAUGHT_BY.search(text)
    for name in set(re.findall(r"^\+\+\+ b/(\S+)", text, re.MULTILINE)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    assert apply(text, tmp_path)


@pytest.mark.slow
def test_each_break_is_caught_by_name_and_the_whole_program_is_not(tmp_path: Path) -> None:
    names = {patch: CAUGHT_BY.findall(patch.read_text(encoding="utf-8"))[0] for patch in PATCHES}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        whole = pool.submit(lambda: play(copy(None, tmp_path / "none"), "any"))
        played = dict(
            zip(names, pool.map(lambda p: play(copy(p, tmp_path / p.stem), names[p]), names), strict=True)
        )
    unseen = []
    for patch, found in played.items():
        seed = found.failed[-1]["seed"] if found.failed else "-"
        broken = ", ".join(sorted(set(found.broken))) or found.error or "nothing"
        print(f"{patch.stem}: up to seed {seed}: {broken}")
        if names[patch] not in found.broken:
            unseen.append(f"{patch.stem}: expected {names[patch]}, found {broken}")
    assert unseen == []
    assert whole.result() == Played((), ""), "the unbroken program must pass the same seeds"
