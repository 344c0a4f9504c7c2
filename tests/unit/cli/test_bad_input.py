"""What is wrong whatever the state is, is bad input (2), never a refusal by a rule (3); and nothing was changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from orchestrator.engine.journal import RUN as RUN_STREAM
from tests.unit.cli.logs import HELD_FOR_LOSS, RUN, continuity, told
from tests.unit.planning import estates

INPUT, REFUSED = 2, 3
SIGNED = ("--by", "A. Tamm")
WHY = ("--reason", "because")
STEP = "db/stop"
OF_A_RUN = [
    ("abort", RUN),
    ("abort", RUN, "--reason", " "),
    ("abort", RUN, *WHY, "--by", " "),
    ("abort", "no-such-run", *WHY),
    ("skip", RUN, STEP),
    ("skip", RUN, STEP, "--reason", ""),
    ("skip", RUN, "no/such-step", *WHY),
    ("mark-done", RUN, STEP, "--reason", ""),
    ("mark-done", RUN, "no/such-step", *WHY),
    ("retry", RUN, "no/such-step"),
    ("retry", RUN, "--by", ""),
    ("pause", RUN, "--by", " "),
    ("confirm", RUN, "no/such-step"),
    ("confirm", RUN, STEP, "--by", " "),
    ("accept", RUN, "loss", *WHY, *SIGNED),
    ("accept", RUN, "loss", *WHY, *SIGNED, "--limit", "much"),
    ("accept", RUN, "loss", *SIGNED, "--reason", " ", "--limit", "10m"),
    ("accept", RUN, "no/such-gate", *WHY, *SIGNED),
    ("accept", RUN, "loss", *WHY, "--limit", "10m"),
    ("declare", "site-lost", RUN, "--site", "home", *SIGNED),
    ("declare", "site-lost", RUN, *WHY, *SIGNED),
    ("declare", "site-lost", RUN, "--site", "nowhere", *WHY, *SIGNED),
    ("declare", "site-lost", RUN, "--site", "home", *WHY, *SIGNED, "--lost-at", "yesterday"),
    ("declare", "site-lost", RUN, "--site", "home", *WHY, *SIGNED, "--lost-at", "2999-01-01T00:00:00Z"),
    ("declare", RUN, "site-lost", "--site", "home", *WHY, *SIGNED),
    ("declare", "peace", RUN, "--site", "home", *WHY, *SIGNED),
    ("resume", RUN, "--accept-loss", "much", "--yes"),
    ("resume", RUN, "--by", " ", "--yes"),
    ("resume", "no-such-run", "--yes"),
    ("status", "no-such-run"),
    ("watch", "no-such-run"),
    ("report", "no-such-run"),
    ("history", "no-such-run"),
]
OF_AN_ESTATE = [
    ("adopt", *SIGNED),
    ("adopt", "no-such-group", *SIGNED),
    ("adopt", "registers", "--by", " "),
    ("resolve", "no-such-group", "--keep", "home", *WHY, *SIGNED),
    ("resolve", "registers", "--keep", "nowhere", *WHY, *SIGNED),
    ("resolve", "registers", "--keep", "home", *SIGNED, "--reason", " "),
    ("epoch", "install", "no-such-cluster"),
    ("failover", "--service", "no-such-service"),
    ("failover", "--to", "nowhere"),
    ("failover", "--leave", "land-register"),
    ("failover", "--accept-loss", "much"),
    ("failover", "--by", " ", "--yes"),
    ("plan", "failover", "--to", "nowhere"),
    ("plan", "conquest"),
    ("preflight", "switchover", "--service", "no-such-service"),
    ("probe", "crystal-ball"),
    ("probe", "--with", "port=1"),
    ("runbook", "explain", "--service", "no-such-service"),
    ("runbook", "lint", "no-such-file.yaml"),
    ("history", "--last", "-1"),
]
OF_THE_LAB = [
    ("lab", "break", "no-such-fault"),
    ("lab", "break", "home-crash", "--site", "nowhere"),
    ("lab", "heal", "no-such-fault"),
    ("lab", "heal", "--site", "nowhere"),
    ("lab", "load", "--service", "no-such-service"),
    ("lab", "check", "--site", "nowhere"),
    ("lab", "status", "--lab", "99"),
    ("lab", "up", "--lab", "999"),
]


@pytest.mark.parametrize("words", OF_A_RUN, ids=" ".join)
def test_words_that_no_state_of_a_run_would_allow(tmp_path: Path, words: tuple[str, ...]) -> None:
    story = told(tmp_path, HELD_FOR_LOSS)
    before = story.store.read(RUN_STREAM + RUN)
    must_be_input(tmp_path, words)
    assert story.store.read(RUN_STREAM + RUN) == before


@pytest.mark.parametrize("words", OF_AN_ESTATE, ids=" ".join)
def test_words_that_no_state_of_an_estate_would_allow(tmp_path: Path, words: tuple[str, ...]) -> None:
    folder = tmp_path / "estate"
    shutil.copytree(estates.GOOD, folder)
    must_be_input(folder, words)


@pytest.mark.parametrize("words", OF_THE_LAB, ids=" ".join)
def test_words_that_no_lab_would_allow(tmp_path: Path, words: tuple[str, ...]) -> None:
    must_be_input(tmp_path, words)


@pytest.mark.parametrize(
    ("words", "run"), [((RUN, "site-lost"), f" {RUN}"), (("peace",), ""), (("lost", RUN), "")]
)
def test_what_can_be_declared_is_said_as_it_is_typed(
    tmp_path: Path, words: tuple[str, ...], run: str
) -> None:
    told(tmp_path, HELD_FOR_LOSS)
    done = continuity(tmp_path, "declare", *words, "--site", "home", *WHY, *SIGNED)
    assert done.returncode == INPUT
    assert done.stderr.endswith(
        f"\n    continuity declare site-lost{run} --site SITE --by NAME --reason TEXT\n"
    )


def must_be_input(folder: Path, words: tuple[str, ...]) -> None:
    done = continuity(folder, *words, "--output", "json")
    assert done.returncode == INPUT, done.stdout + done.stderr
    document = json.loads(done.stdout)
    if "error" in document:  # `runbook lint` answers with its problems
        assert (document["error"], document["exit_code"]) == ("input", INPUT)
        assert len(document["message"]) > 10


@pytest.mark.parametrize(
    "words",
    [
        ("skip", RUN, STEP, *WHY),
        ("accept", RUN, "db/verify", *WHY, *SIGNED),
        ("declare", "site-lost", RUN, "--site", "embassy", *WHY, *SIGNED),
        ("confirm", RUN, "db/verify"),
    ],
    ids=" ".join,
)
def test_what_another_state_would_allow_is_refused_by_a_rule(tmp_path: Path, words: tuple[str, ...]) -> None:
    told(tmp_path, HELD_FOR_LOSS)
    assert continuity(tmp_path, *words).returncode == REFUSED
