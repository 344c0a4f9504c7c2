"""The preflight look at a real proxy: what could not be routed there is said before anything is promoted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.actions.claims import Asked, Claims, ClaimsParams
from orchestrator.core.model import Operation
from orchestrator.core.outcomes import Failed, FindingKind, Outcome, Succeeded
from tests.action_context import context
from tests.real.proxied import BACKEND, Lab, proxied

pytestmark = pytest.mark.real


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with proxied(tmp_path) as made:
        yield made


def compared(
    lab: Lab, backend: str, target: str = "home", operation: Operation = Operation.FAILOVER
) -> Outcome:
    params = ClaimsParams("g", (Asked("haproxy", "ph", backend),), target, expect_site="home", expect_epoch=1)
    asked = context(params, lab.parts, operation=operation)
    outcome = Claims().execute(asked)
    is_done = Claims().check(asked).kind is FindingKind.DONE
    assert is_done == isinstance(outcome, Succeeded)
    return outcome


def test_a_backend_that_the_target_does_not_have_fails_the_preflight(lab: Lab) -> None:
    assert isinstance(compared(lab, BACKEND), Succeeded)
    outcome = compared(lab, "population-registre")
    assert isinstance(outcome, Failed)
    assert "ph:" in outcome.message
    assert "there is no backend population-registre" in outcome.message
    assert not outcome.retryable
    (finding,) = outcome.evidence["findings"]
    assert "configuration" in finding["mend"]


def test_elsewhere_it_is_a_finding_and_stops_nobody(lab: Lab) -> None:
    for seen in (
        compared(lab, "population-registre", target="embassy"),
        compared(lab, "population-registre", operation=Operation.REPROTECT),
    ):
        assert isinstance(seen, Succeeded)
        assert len(seen.evidence["findings"]) == 1


def test_a_configuration_that_would_forget_the_route_and_one_that_is_not_loaded(lab: Lab) -> None:
    config = Path(lab.proxy.config)
    text = config.read_text()
    config.write_text(text.replace("load-server-state-from-file global", ""))
    outcome = compared(lab, BACKEND)
    assert isinstance(outcome, Failed)
    assert "a reload would undo a failover" in outcome.message
    config.write_text(text + text[text.index("backend land") :].replace("backend land", "backend later"))
    outcome = compared(lab, "later")
    assert isinstance(outcome, Failed)
    assert "the proxy has no such backend" in outcome.message


def test_a_name_that_holds_a_command_moves_nothing(lab: Lab) -> None:
    assert isinstance(lab.execute(True, 1, "run-1"), Succeeded)
    outcome = compared(lab, f"{BACKEND}; set server {BACKEND}/here state maint")
    assert isinstance(outcome, Failed)
    assert lab.ask() == (200, "home")
