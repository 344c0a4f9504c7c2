"""Whatever a held run or a refusal offers can be typed as it stands, and is not refused when it is."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from orchestrator.cli import _commands
from orchestrator.core import transitions, verb_table
from tests.property.nights import PLANS, night, of_seed

STORIES = Path(__file__).resolve().parents[2] / "cases" / "machine"
COMMAND = re.compile(r"continuity [a-z][a-z-]*(?: [^\s:;,]+)*")


def offered() -> set[str]:
    """Commands that stories, nights and tables name."""
    lines = [line for path in STORIES.glob("*.txt") for line in path.read_text(encoding="utf-8").splitlines()]
    texts = [line for line in lines if line.startswith("    ")]
    for row in (*verb_table.BY_RUN.values(), *verb_table.BY_STEP.values()):
        texts += [answer.text for answer in row.values() if isinstance(answer, verb_table.Refuses)]
    texts += list(transitions.REFUSED_OPERATIONS.values())
    found = {match.group(0) for text in texts for match in COMMAND.finditer(text)}
    for plan in PLANS:
        for seed in range(10):
            for event in night(plan, of_seed(seed)).story.history:
                found.update(getattr(event, "choices", ()))
    return found


@pytest.fixture(scope="module")
def commands() -> dict[str, Any]:
    made: Any = typer.main.get_command(_commands.build())
    return dict(made.commands)


def test_what_is_offered_can_be_typed(commands: dict[str, Any]) -> None:
    texts = offered()
    assert len(texts) > 30
    verbs = set()
    for text in texts:
        verb, *words = shlex.split(text)[1:]
        assert verb in commands, text
        commands[verb].make_context(verb, words)
        verbs.add(verb)
    assert verbs >= {
        "abort",
        "accept",
        "confirm",
        "declare",
        "mark-done",
        "resume",
        "retry",
        "skip",
        "status",
    }


def test_what_cannot_be_typed_would_be_seen(commands: dict[str, Any]) -> None:
    with pytest.raises(Exception, match=r"(?i)no such option"):
        commands["skip"].make_context("skip", ["r1", "db/stop", "--no-such-option"])
