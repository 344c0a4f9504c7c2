"""Runs of nothing but people's steps: a real action, and no real part; one command drives them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from orchestrator.bootstrap.app import plan_to_text
from orchestrator.core.model import Operation
from orchestrator.core.plan import MANUAL, Plan, Role, Step
from orchestrator.settings import Settings
from tests.builders import a_plan, a_step, authorise, driver
from tests.golden import Logged

ONE, TWO = "one/ask", "two/ask"
PROMOTE = "two/promote"
GO_HOME = "g/go-home"
PROMPT = "look out of the window"


def asked(step: str, needs: tuple[str, ...] = (), role: Role = Role.ORDINARY) -> Step:
    """Before a promotion, who takes a run up is asked for the loss."""
    made = a_step(step, role, kind=MANUAL, needs=needs)
    return replace(made, action=replace(made.action, arguments={"prompt": PROMPT}))


def a_planned_move(*steps: Step) -> Plan:
    return a_plan(*steps, operation=Operation.SWITCHOVER)


def with_a_promotion() -> Plan:
    return a_planned_move(asked(ONE), asked(PROMOTE, (ONE,), Role.PROMOTE))


def begun(folder: Path, plan: Plan, *, ordered: bool) -> Logged:
    """A run that nobody drives: it waits for its confirmation, or was ordered and paused."""
    estate = folder / "estate.yaml"
    estate.write_text("# the log alone is read\n", encoding="utf-8")
    story = Logged(plan, folds_whole=False)
    story.begin(Settings(estate).log)
    story.store.put_plan(story.run.created.digest, plan_to_text(plan))
    story.tell(driver(story.tick()))
    story.proceed()
    if ordered:
        story.tell(authorise(story.tick(), 0))
    return story
