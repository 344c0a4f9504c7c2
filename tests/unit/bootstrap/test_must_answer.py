"""A planned move begins nothing where one of its two sides does not answer, and says what helps then."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from orchestrator.bootstrap.app import App
from orchestrator.bootstrap.operations import Wish, must_answer, plan_operation
from orchestrator.core import events
from orchestrator.core.model import Host, Operation
from orchestrator.errors import RefusedError, TransientError
from tests.unit.bootstrap.registers import ABROAD, AT, GROUP, HOME, known

LOOK = "continuity status --live"
ALONE = ("population-register",)
UNPROTECTED = events.GroupProtectionLost(AT, GROUP, "r1")


@dataclass
class Sites:
    """Hosts of which those at ``dead`` do not answer."""

    dead: str

    def connect(self, host: Host) -> Any:
        return Answer(host, host.site == self.dead)


@dataclass
class Answer:
    host: Host
    is_dead: bool

    def is_running(self, lock: str) -> bool:
        if self.is_dead:
            raise TransientError(f"{self.host.name}: does not answer: time-out")
        return False


def refused(app: App, operation: Operation, dead: str, *services: str) -> tuple[str, tuple[str, ...]]:
    plan, _ = plan_operation(app, Wish(operation, services))
    if services:  # as in an estate with more groups than one
        plan = replace(plan, services={name: plan.services[name] for name in services})
    with pytest.raises(RefusedError) as error:
        must_answer(app, plan, Sites(dead))
    assert error.value.message.endswith("nothing was begun, and no group is claimed")
    return error.value.message, error.value.instead


@pytest.mark.parametrize(
    ("history", "operation", "source", "target"),
    [
        ((HOME,), Operation.SWITCHOVER, "home", "embassy"),
        (ABROAD, Operation.FAILBACK, "embassy", "home"),
    ],
)
def test_a_move_whose_source_is_dead_offers_a_failover_to_the_side_that_lives(
    app: App, history: tuple[Any, ...], operation: Operation, source: str, target: str
) -> None:
    known(app, *history)
    text, instead = refused(app, operation, source)
    assert text.startswith(f"{source} does not answer ({source[0]}1: ")
    assert f"this {operation} needs it" in text
    assert instead == (f"continuity failover --to {target}", LOOK)
    assert refused(app, operation, source, *ALONE)[1][0] == f"{instead[0]} --service {ALONE[0]}"
    text, instead = refused(app, operation, target)
    assert text.startswith(f"{target} does not answer ({target[0]}1: ")
    assert f"this {operation} goes there" in text
    assert instead == (LOOK, "continuity probe")


def test_a_reprotect_whose_source_is_dead_sends_people_to_look_for_a_copy_first(app: App) -> None:
    known(app, *ABROAD, UNPROTECTED)
    text, instead = refused(app, Operation.REPROTECT, "embassy")
    assert "this reprotect needs it" in text
    assert instead == (LOOK, "continuity failover --to home")


def test_what_has_no_cluster_must_answer_too(app: App) -> None:
    known(app, HOME)
    plan, _ = plan_operation(app, Wish(Operation.SWITCHOVER))
    plan = replace(plan, parts=replace(plan.parts, clusters={}))
    with pytest.raises(RefusedError, match=r"^home does not answer"):
        must_answer(app, plan, Sites("home"))


def test_two_sides_that_answer_are_no_reason_to_refuse(app: App) -> None:
    known(app, HOME)
    plan, _ = plan_operation(app, Wish(Operation.SWITCHOVER))
    must_answer(app, plan, Sites("nowhere"))
