"""What every test gets: a time limit that fits its kind, and its turn. Fixtures stand beside the tests that use them."""

from __future__ import annotations

import signal
from typing import Any

import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that starts a job in the background has Ctrl-C ignored, and so would every child that a test stops.
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # and so has one that was started by nohup
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

FAST_SECONDS = 60  # a fast test takes milliseconds; this only ends one that hangs
REAL_SECONDS = 240
SLOW_SECONDS = 600
SEVERAL_LABS = ("tests/faults/", "tests/interrupt/test_chain_kill.py")
"""Each of these fills the machine with two labs: they take turns on one worker, and begin first."""
FIRST = (*SEVERAL_LABS, "tests/real/")
"""Then comes what mostly waits for real parts; what only computes fills the end."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file stays on one worker, and so do all that bring up several labs at once."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "several labs" if nodeid.startswith(SEVERAL_LABS) else super()._split_scope(nodeid)

    return Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("timeout") is None:
            kinds = {marker.name for marker in item.iter_markers()}
            seconds = SLOW_SECONDS if "slow" in kinds else REAL_SECONDS if "real" in kinds else FAST_SECONDS
            item.add_marker(pytest.mark.timeout(seconds))
    items.sort(key=_place)  # stable: what is equal stays in its order


def _place(item: pytest.Item) -> int:
    return next((place for place, part in enumerate(FIRST) if item.nodeid.startswith(part)), len(FIRST))
