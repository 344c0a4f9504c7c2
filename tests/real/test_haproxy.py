"""haproxy.route against a real HAProxy: epochs, reload, restart, undo, check (semantics 2.5)."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.actions.haproxy import Route
from orchestrator.bootstrap.catalog import catalog
from orchestrator.core.outcomes import Failed, FindingKind, Succeeded
from orchestrator.drivers import haproxy, haproxy_host
from orchestrator.errors import InputError
from tests.action_context import context
from tests.real.proxied import BACKEND, Lab, proxied, until

pytestmark = pytest.mark.real

ROUTE = {"proxy": "ph", "backend": BACKEND, "here": True, "site": "home", "epoch": 1}


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with proxied(tmp_path) as made:
        yield made


def test_without_saved_state_a_proxy_routes_nowhere(lab: Lab) -> None:
    assert lab.ask()[0] == 503
    assert lab.check(True, 1, "run-1") is FindingKind.NOT_DONE


def test_a_route_survives_reload_and_restart_both_ways(lab: Lab) -> None:
    for epoch, here, site in ((1, True, "home"), (2, False, "embassy"), (3, True, "home")):
        run = f"run-{epoch}"
        outcome = lab.execute(here, epoch, run)
        assert isinstance(outcome, Succeeded), outcome
        assert outcome.evidence["site"] == site
        assert lab.ask() == (200, site)
        assert lab.check(here, epoch, run) is FindingKind.DONE
        lab.reload()
        assert lab.ask() == (200, site), "after a reload"
        assert lab.check(here, epoch, run) is FindingKind.DONE
        lab.stop()
        lab.start()
        assert lab.ask() == (200, site), "after a restart"
        assert lab.check(here, epoch, run) is FindingKind.DONE


def test_the_other_backend_is_untouched(lab: Lab) -> None:
    def land() -> dict[str, str] | None:
        arguments = haproxy.arguments(lab.proxy, "land", here=True, site="", epoch=0, run="")
        found = haproxy_host.look({**arguments, "timeout_ms": 2000})
        return found["runtime"]  # type: ignore[no-any-return]

    assert land() == {"here": "maint", "there": "maint"}
    assert isinstance(lab.execute(True, 1, "run-1"), Succeeded)
    assert land() == {"here": "maint", "there": "maint"}


def test_a_stale_epoch_is_refused_and_changes_nothing(lab: Lab) -> None:
    assert isinstance(lab.execute(False, 5, "run-new"), Succeeded)
    before = (Path(lab.proxy.state_file).read_bytes(), Path(lab.proxy.epoch_file).read_bytes())
    outcome = lab.execute(True, 4, "run-old")
    assert isinstance(outcome, Failed)
    assert not outcome.retryable
    assert "stale" in outcome.message
    assert lab.ask() == (200, "embassy")
    assert before == (Path(lab.proxy.state_file).read_bytes(), Path(lab.proxy.epoch_file).read_bytes())
    assert lab.check(True, 4, "run-old") is FindingKind.NOT_DONE


def test_an_equal_epoch_passes_for_its_own_run_only(lab: Lab) -> None:
    assert isinstance(lab.execute(False, 5, "run-new"), Succeeded)
    assert isinstance(lab.execute(False, 5, "run-new"), Succeeded)
    outcome = lab.execute(True, 5, "run-other")
    assert isinstance(outcome, Failed)
    assert "another run" in outcome.message
    assert lab.ask() == (200, "embassy")


def test_check_sees_a_proxy_that_somebody_moved_back(lab: Lab) -> None:
    assert isinstance(lab.execute(False, 2, "run-2"), Succeeded)
    haproxy_host._ask(
        lab.proxy.socket,
        [
            ("set", "server", f"{BACKEND}/here", "state", "ready"),
            ("set", "server", f"{BACKEND}/there", "state", "maint"),
        ],
        time.monotonic() + 2,
    )
    assert lab.check(False, 2, "run-2") is FindingKind.NOT_DONE
    assert isinstance(lab.execute(False, 2, "run-2"), Succeeded)
    assert lab.check(False, 2, "run-2") is FindingKind.DONE


def test_check_sees_a_state_file_that_was_not_written(lab: Lab) -> None:
    assert isinstance(lab.execute(True, 1, "run-1"), Succeeded)
    old = Path(lab.proxy.state_file).read_text()
    assert isinstance(lab.execute(False, 2, "run-2"), Succeeded)
    Path(lab.proxy.state_file).write_text(old)
    assert lab.check(False, 2, "run-2") is FindingKind.NOT_DONE


def test_undo_gives_the_route_back_and_keeps_the_epoch(lab: Lab) -> None:
    assert isinstance(lab.execute(True, 1, "run-1"), Succeeded)
    assert isinstance(lab.execute(False, 2, "run-2"), Succeeded)
    assert isinstance(lab.execute(False, 2, "run-2"), Succeeded)  # a second attempt forgets nothing
    undone = Route().undo(context(lab.params(False, 2), lab.parts, run="run-2"))
    assert isinstance(undone, Succeeded), undone
    assert lab.ask() == (200, "home")
    lab.reload()
    assert lab.ask() == (200, "home")
    assert isinstance(lab.execute(False, 1, "run-1"), Failed), "epochs only grow"
    assert isinstance(lab.execute(False, 3, "run-3"), Succeeded)
    outcome = Route().undo(context(lab.params(False, 2), lab.parts, run="run-2"))
    assert isinstance(outcome, Failed), "another run has routed since"
    assert lab.ask() == (200, "embassy")


def test_a_configuration_that_loads_no_state_is_refused(lab: Lab) -> None:
    text = Path(lab.proxy.config).read_text()
    for line in (
        "load-server-state-from-file global",
        f"server-state-file {lab.proxy.state_file}",
        "server here",
    ):
        Path(lab.proxy.config).write_text(text.replace(line, "# " + line))
        outcome = lab.execute(True, 1, "run-1")
        assert isinstance(outcome, Failed), line
        assert not outcome.retryable
        assert lab.ask()[0] == 503
    Path(lab.proxy.config).write_text(text)
    assert isinstance(lab.execute(True, 1, "run-1"), Succeeded)


def test_a_backend_that_holds_another_command_moves_nothing(lab: Lab) -> None:
    """HAProxy takes several commands a line: a name from a runbook must never become one, not even in a look."""
    assert isinstance(lab.execute(True, 1, "run-1"), Succeeded)
    for planted in (
        f"{BACKEND}; set server {BACKEND}/here state maint",
        f"{BACKEND}\nset server {BACKEND}/here state maint",
        f"{BACKEND};set\tserver {BACKEND}/here state maint",
        "-x",
    ):
        arguments = haproxy.arguments(lab.proxy, planted, here=True, site="home", epoch=2, run="run-2")
        seen = haproxy_host.look({**arguments, "timeout_ms": 2000})
        assert seen["runtime"] is None
        assert "is not sent to the proxy" in seen["message"]
        assert haproxy_host.route({**arguments, "timeout_ms": 2000})["result"] == "refused"
        with pytest.raises(haproxy_host._StopError):
            haproxy_host._runtime({**arguments}, time.monotonic() + 2)
        assert lab.ask() == (200, "home"), f"{planted!r} moved the proxy"
        with pytest.raises(InputError, match="not a backend name"):
            catalog().parse("haproxy.route", {**ROUTE, "backend": planted})


def test_a_broken_epoch_file_is_never_taken_as_empty(lab: Lab) -> None:
    Path(lab.proxy.epoch_file).write_text('{"population-register": {"epoch": 9')
    outcome = lab.execute(True, 1, "run-1")
    assert isinstance(outcome, Failed)
    assert "people decide" in outcome.message
    assert lab.check(True, 1, "run-1") is FindingKind.CANNOT_TELL


def test_a_proxy_that_is_down_or_hangs(lab: Lab) -> None:
    lab.stop()
    outcome = lab.execute(True, 1, "run-1")
    assert isinstance(outcome, Failed)
    assert outcome.retryable
    assert lab.check(True, 1, "run-1") is FindingKind.CANNOT_TELL
    lab.start()
    for pid in (*lab.workers(), lab.process.pid):
        os.kill(pid, signal.SIGSTOP)
    begin = time.monotonic()
    outcome = Route().execute(context(lab.params(True, 1), lab.parts, run="run-1", seconds=0.5))
    assert not isinstance(outcome, Succeeded)
    assert time.monotonic() - begin < 2
    for pid in (*lab.workers(), lab.process.pid):
        os.kill(pid, signal.SIGCONT)
    assert isinstance(lab.execute(True, 1, "run-1"), Succeeded)


def test_two_changes_at_once_are_one_after_the_other(lab: Lab) -> None:
    """Two runs race at different epochs; the end is the higher one, in every one of 10 rounds."""
    for number in range(10):
        low, high = 2 * number + 1, 2 * number + 2
        threads = [
            threading.Thread(target=lab.execute, args=(True, low, f"run-{low}")),
            threading.Thread(target=lab.execute, args=(False, high, f"run-{high}")),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert lab.ask() == (200, "embassy")
        assert lab.check(False, high, f"run-{high}") is FindingKind.DONE


def test_what_home_surely_refused_is_sent_on_after_the_cutover(lab: Lab) -> None:
    """A write that meets the closed side waits and is answered by the other: no failed request."""
    assert isinstance(lab.execute(True, 1, "run-1"), Succeeded)
    lab.here.closed = True
    answers: list[tuple[int, str]] = []
    writer = threading.Thread(target=lambda: answers.append(lab.ask("PUT")))
    asked = lab.here.asked
    writer.start()
    until(lambda: lab.here.asked > asked + 3, "the proxy sends it again")
    begin = time.monotonic()
    assert isinstance(lab.execute(False, 2, "run-2"), Succeeded)
    took = time.monotonic() - begin
    writer.join()
    assert answers == [(200, "embassy")]
    print(f"route: {took * 1000:.1f} ms")


def test_a_route_is_quick(lab: Lab) -> None:
    took = []
    for epoch in range(1, 21):
        begin = time.monotonic()
        assert isinstance(lab.execute(epoch % 2 == 0, epoch, f"run-{epoch}"), Succeeded)
        took.append(time.monotonic() - begin)
    median = sorted(took)[len(took) // 2]
    print(f"haproxy.route: median {median * 1000:.1f} ms, worst {max(took) * 1000:.1f} ms")
    assert median < 0.05


def test_description_names_lock_socket_and_file(lab: Lab) -> None:
    said = Route().describe(replace(lab.params(False, 7), end_sessions=True), lab.parts)
    text = "\n".join(said.commands)
    for part in (
        lab.proxy.epoch_file,
        lab.proxy.state_file,
        lab.proxy.socket,
        "epoch 7",
        "shutdown sessions",
    ):
        assert part in text
    assert said.touches[0].site == "home"
