"""What stands open to the side that is left, at a real HAProxy: ended in a failover, answered in a planned move."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.actions.haproxy import LEFT, Route, RouteParams
from orchestrator.core.outcomes import Succeeded
from tests.action_context import context
from tests.real.proxied import Lab, proxied
from tests.waiting import until

pytestmark = pytest.mark.real


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with proxied(tmp_path) as made:
        assert isinstance(made.execute(True, 1, "run-1"), Succeeded)
        yield made


def ended(answer: http.client.HTTPResponse) -> bool:
    """Is the session cut? TimeoutError: it still stands."""
    try:
        return answer.read() == b""
    except (http.client.IncompleteRead, ConnectionError):
        return True


def test_a_failover_ends_what_stands_open_to_the_lost_side(lab: Lab) -> None:
    with lab.session() as answer:
        assert isinstance(lab.execute(False, 2, "run-2", end_sessions=True), Succeeded)
        assert ended(answer)
    assert lab.ask() == (200, "embassy")


def test_a_planned_move_lets_them_have_their_answer(lab: Lab) -> None:
    with lab.session() as answer:
        assert isinstance(lab.execute(False, 2, "run-2"), Succeeded)
        assert lab.ask() == (200, "embassy")
        lab.here.let_go.set()
        assert answer.read() == b"home"


def test_what_a_planned_move_left_open_is_ended_by_the_failover_after_it(lab: Lab) -> None:
    """The side was closed already when the order came, by another run or by an attempt that died in between."""
    with lab.session() as answer:
        assert isinstance(lab.execute(False, 2, "run-2"), Succeeded)
        assert isinstance(lab.execute(False, 3, "run-3", end_sessions=True), Succeeded)
        assert ended(answer)


def test_a_failover_ends_what_a_worker_from_before_a_reload_still_has(lab: Lab) -> None:
    def ends_all() -> bool:
        """Half a second may be too short on a busy machine; then it says so, and may be tried again."""
        found = lab.execute(False, 2, "run-2", end_sessions=True)
        assert isinstance(found, Succeeded)
        return LEFT not in found.evidence

    with lab.session() as answer:
        lab.reload_beside_a_session()
        until(ends_all, "the older worker has no session left")
        assert ended(answer)
    assert lab.ask() == (200, "embassy")


def test_what_an_old_worker_has_open_elsewhere_is_let_alone(lab: Lab) -> None:
    params = RouteParams("ph", "land", True, "home", 1)
    assert isinstance(Route().execute(context(params, lab.parts, run="run-1")), Succeeded)
    with lab.session(host="land.example") as answer:
        lab.reload_beside_a_session()
        assert isinstance(lab.execute(False, 2, "run-2", end_sessions=True), Succeeded)
        lab.here.let_go.set()
        assert answer.read() == b"home"


def test_a_master_that_does_not_answer_undoes_no_route_and_is_told(lab: Lab) -> None:
    lab.parts = replace(lab.parts, proxies={"ph": replace(lab.proxy, master_socket="/nowhere/m")})
    found = lab.execute(False, 2, "run-2", end_sessions=True)
    assert isinstance(found, Succeeded)
    assert found.evidence[LEFT] == "/nowhere/m: No such file or directory"
    assert lab.ask() == (200, "embassy")
