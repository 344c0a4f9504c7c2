"""Every driver dies by SIGKILL at its next point, and the operations end as if none had.

A point is just before or just after an append, just after an effect, or between two commands of one step; each
is killed once. Two labs side by side: failover and reprotect in one, failback and switchover in the other.
The first pass runs steps in parallel; in the passes after it one step runs at a time, effects were survived
already, and what is left are the appends of the steps' own results; the last pass finds no point any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.lab import traffic
from orchestrator.lab.layout import SITES
from tests import labs
from tests.interrupt import chain as chains
from tests.interrupt.chain import Chain, Operated
from tests.interrupt.witnesses import claim_files, control_sessions
from tests.waiting import until

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(900)]

PASSES_MAX = 12
GONE_SECONDS = 3.0


def out_and_protected(chain: Chain) -> None:
    """Failover and reprotect, again and again; home gets its place back by a switch nobody disturbs."""
    chain.crash_home()
    chain.operate("failover")
    chain.heal()
    chain.operate("reprotect")
    chain.operate("switchover", killing=False)
    chain.one_step_at_a_time()
    until_no_point_is_left(chain, ("failover", "reprotect"), ("switchover",))


def home_and_out(chain: Chain) -> None:
    """Failback (the first one brings home back into the pair first) and switchover, again and again."""
    chain.crash_home()
    chain.operate("failover", killing=False)
    chain.heal()
    chain.operate("failback")
    chain.operate("switchover")
    chain.one_step_at_a_time()
    until_no_point_is_left(chain, ("failback", "switchover"), ())


def until_no_point_is_left(chain: Chain, killed: tuple[str, ...], plain: tuple[str, ...]) -> None:
    for _ in range(PASSES_MAX):
        done = [chain.operate(kind) for kind in killed]
        for kind in plain:
            chain.operate(kind, killing=False)
        if not any(operated.killed for operated in done):
            return
    raise AssertionError(f"still new points after {PASSES_MAX} passes: {sorted(chain.points().killed)[-20:]}")


@dataclass(frozen=True, slots=True)
class Story:
    chain: Chain
    killed: list[Operated]
    report: dict[str, Any]
    loads: list[dict[str, Any]]


def play(plot: Callable[[Chain], None], folder: Path) -> Iterator[Story]:
    with chains.a_chain(folder) as chain:
        chain.start_load()
        plot(chain)
        loads = traffic.stop(chain.lab)
        killed = [operated for operated in chain.operated if operated.killed]
        yield Story(chain, killed, traffic.check(chain.lab, chain.active), loads)


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Story]]:
    with labs.own_home():
        plays = [play(plot, tmp_path_factory.mktemp("chain")) for plot in (out_and_protected, home_and_out)]
        with ThreadPoolExecutor(len(plays)) as side_by_side:
            yield list(side_by_side.map(next, plays))
        for ended in plays:
            next(ended, None)


def test_every_point_was_killed(stories: list[Story]) -> None:
    for story in stories:
        points = story.chain.points()
        in_log = chains.appends_in_log(story.chain, story.killed)
        # Never told of an append: a thread at its own point killed the driver between the commit and the word.
        # Whoever appended something else afterwards had been told.
        unheard = in_log.all - points.killed
        kinds = {
            kind: sum(f": {kind} " in name for name in points.killed)
            for kind in ("before", "after", "effect", "command")
        }
        print(
            f"points killed {len(points.killed)} of {len(points.told)} that exist {kinds}; the log has"
            f" {chains.events_in_log(story.chain)} events, {len(in_log.all)} kinds of appends among them,"
            f" {len(unheard)} of them always the last of a driver that died before the word of them came"
        )
        assert points.killed == points.told
        assert unheard.isdisjoint(in_log.outlived), sorted(unheard & in_log.outlived)
        assert sum(operated.killed for operated in story.killed) == len(points.killed)
        assert all(kinds.values())


def test_each_effect_was_seen_once_by_others(stories: list[Story]) -> None:
    wrong = {
        operated.name: operated.wrong
        for story in stories
        for operated in story.chain.operated
        if operated.wrong
    }
    assert not wrong


def test_nothing_that_was_acknowledged_is_lost(stories: list[Story]) -> None:
    for story in stories:
        print(
            {name: story.report[name] for name in ("acked", "kept", "lost", "unknown_kept", "unknown_absent")}
        )
        assert story.report["verified"], story.report["listed"]
        assert story.report["lost"] == 0


def test_the_log_is_whole_and_nobody_holds_anything(stories: list[Story]) -> None:
    for story in stories:
        assert chains.breaks_in_log(story.chain) == []
        assert set(chains.claims(story.chain).values()) == {""}


def test_nothing_of_a_dead_driver_is_left(stories: list[Story]) -> None:
    for story in stories:
        assert story.chain.drivers.orphans() == {}
        until(lambda lab=story.chain.lab: not control_sessions(lab), "no session is left", GONE_SECONDS)


def test_the_target_carries_one_claim_and_it_is_the_last_run(stories: list[Story]) -> None:
    for story in stories:
        for site in SITES:
            (path,) = claim_files(story.chain.lab, site)
            assert chains.read_claim(path)["run"] == story.chain.last_to(site)
