"""Threads for work: one that is free is used again, and no work ever waits for another to end."""

from __future__ import annotations

import threading

from orchestrator.engine.workers import Workers
from tests.waiting import until

SECONDS_MAX = 5.0


def test_a_free_thread_is_used_again_under_the_name_of_its_work() -> None:
    workers, seen = Workers(), list[tuple[int, str]]()

    def work() -> None:
        seen.append((threading.get_ident(), threading.current_thread().name))

    for name in ("a", "b"):
        assert workers.begin(work, name).wait(SECONDS_MAX)
        until(lambda: workers.free, "a free thread")
    assert [name for _, name in seen] == ["a", "b"]
    assert seen[0][0] == seen[1][0]


def test_work_is_begun_although_all_threads_are_busy() -> None:
    workers, go = Workers(), threading.Event()
    begun = threading.Semaphore(0)

    def work() -> None:
        begun.release()
        assert go.wait(SECONDS_MAX)

    ended = [workers.begin(work, str(number)) for number in range(40)]
    assert all(begun.acquire(timeout=SECONDS_MAX) for _ in ended)
    assert not any(each.is_set() for each in ended)
    go.set()
    assert all(each.wait(SECONDS_MAX) for each in ended)


def test_work_that_raises_has_ended_and_takes_only_its_own_thread_along() -> None:
    workers, raised = Workers(), threading.Event()
    before = threading.excepthook
    threading.excepthook = lambda told: raised.set()
    try:
        assert workers.begin(lambda: 1 / 0, "bad").wait(SECONDS_MAX)  # type: ignore[arg-type, return-value]
        assert raised.wait(SECONDS_MAX)
    finally:
        threading.excepthook = before
    assert workers.begin(lambda: None, "good").wait(SECONDS_MAX)
