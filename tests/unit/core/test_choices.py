"""Whatever a held run or a refusal offers can be typed as it stands, and is not refused when it is."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import typer

from orchestrator.cli import _commands
from orchestrator.core import transitions, verb_table
from orchestrator.core.claims import CONTRADICTIONS
from orchestrator.core.events import RunCreated, RunHeld
from orchestrator.core.fold import evolve
from orchestrator.core.machine import advance
from orchestrator.core.outcomes import Failed
from orchestrator.core.run import Run, start
from orchestrator.errors import RefusedError
from tests.builders import a_wide_failover, driver
from tests.property.nights import PLANS, night, of_seed
from tests.story import Story, read_choice

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


def held_runs() -> Iterator[Run]:
    """Every hold of the nights, and one by evidence against the log."""
    for plan in PLANS:
        for seed in range(10):
            history = night(plan, of_seed(seed)).story.history
            run = start(plan, cast("RunCreated", history[0]))
            for event in history[1:]:
                run = evolve(run, event)
                if isinstance(event, RunHeld):
                    yield run
    story = Story(a_wide_failover())
    story.tell(driver(0))
    story.proceed()
    story.ended("db1/inspect", Failed("no", evidence={CONTRADICTIONS: ["two places know epoch 2"]}))
    yield story.run


def refused_choices(run: Run) -> list[str]:
    """What the run offers and would not take. ValueError for what no run can take while it holds its groups."""
    refused = []
    for choice in run.held_choices:
        if choice.split()[1] == "status":
            continue
        try:
            advance(run, read_choice(choice.replace("DURATION", "1h"), run.last))
        except RefusedError as error:
            refused.append(f"{choice}: {error.message}")
    return refused


def test_what_a_held_run_offers_is_accepted_while_it_holds_its_groups() -> None:
    """Among the choices is nothing that its own claim stands against, such as adopting a group that it holds."""
    runs = list(held_runs())
    assert len(runs) > 30
    assert [refused for run in runs for refused in refused_choices(run)] == []


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
