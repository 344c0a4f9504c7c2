"""A record states what was measured and what says so; where nothing was, it states no figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.bootstrap.app import plan_from_text, plan_to_text
from orchestrator.core import events
from orchestrator.core.inputs import LOSS_UNKNOWN
from orchestrator.core.log import Append
from orchestrator.core.model import Operation, ProofKind, Stage
from orchestrator.core.plan import GroupMove, Plan, Role, ServiceFacts
from orchestrator.core.values import Json
from orchestrator.engine.journal import RUN, Journal
from orchestrator.reports.record import record
from orchestrator.reports.record_text import record_text
from orchestrator.reports.state import run_document, run_text
from orchestrator.stores.memory import MemoryStore
from tests.builders import BOOT_NS, a_plan, a_step, at, created, promotion, stop

REBOOTED_NS = 5_000_000_000  # five seconds after another boot


def a_moved(*more: Any, operation: Operation = Operation.FAILOVER, units: Sequence[str] = ("db",)) -> Plan:
    plan = a_plan(
        stop("db", "h1"),
        *promotion("db"),
        *more,
        a_step("db/seen", Role.DONE, needs=("db/open",)),
        operation=operation,
        fence_hosts={"db": ("h1",)},
    )
    steps = {name: replace(step, service="svc") for name, step in plan.steps.items()}
    facts = ServiceFacts("svc", "g", 1, "ann", "law", 30_000, 10_000, 60_000)
    move = GroupMove("g", ("svc",), "home", 1, 2, tuple(units), {"db": ("h1",)})
    return replace(plan, steps=steps, services={"svc": facts}, groups={"g": move})


def journal_of(plan: Plan, *history: events.RunEvent) -> Journal:
    store = MemoryStore()
    store.put_plan(plan.digest, plan_to_text(plan))
    store.append([Append(RUN + "r1", 0, (created(), *history))])
    return Journal(store, plan_from_text)


def told(plan: Plan, *history: events.RunEvent) -> dict[str, Any]:
    return record(journal_of(plan, *history), "r1")


def service(plan: Plan, *history: events.RunEvent) -> dict[str, Any]:
    found: dict[str, Any] = told(plan, *history)["services"]["svc"]
    return found


def up(seconds: float, boot: str = "b1", boot_ns: int = BOOT_NS) -> events.DriverCameUp:
    return events.DriverCameUp(at(seconds, boot_ns), f"i{seconds}", 1, boot, "laptop", "0")


def order(seconds: float) -> tuple[events.RunEvent, ...]:
    return events.RunReady(at(seconds)), events.RunAuthorised(at(seconds), "ann", "d" * 64, 0, "typed")


def did(
    step: str, seconds: float, boot_ns: int = BOOT_NS, evidence: dict[str, Json] | None = None
) -> tuple[events.RunEvent, ...]:
    begun = events.StepStarted(at(seconds, boot_ns), step, 1)
    return begun, events.StepSucceeded(at(seconds + 0.5, boot_ns), step, 1, evidence or {})


def test_a_run_that_was_never_ordered_states_no_figure() -> None:
    found = service(a_moved(), up(1))
    assert [found[name] for name in ("rto_seconds", "rto_met", "rpo_seconds", "rpo_met")] == [None] * 4
    assert found["rpo_basis"] == "db: not measured"


def test_a_group_without_data_of_its_own_states_no_loss() -> None:
    found = service(a_moved(units=()), up(1), *order(2))
    assert (found["rpo_seconds"], found["rpo_met"]) == (None, None)
    assert "no data of its own" in found["rpo_basis"]


def test_documents_that_were_only_verified_were_not_measured() -> None:
    found = service(a_moved(), up(1), *order(2), *did("db/verify", 3))
    assert (found["rpo_seconds"], found["rpo_met"]) == (None, None)
    assert "verified as it is here" in found["rpo_basis"]


def test_a_stated_loss_is_the_figure_and_its_basis() -> None:
    stated = events.LossStated(at(3), "db", 12_000, 5, 7, "fence proof's time")
    found = service(a_moved(), up(1), *order(2), stated)
    assert (found["rpo_seconds"], found["rpo_met"]) == (12.0, False)
    assert found["rpo_basis"] == "db: fence proof's time"


def test_an_unknown_loss_stays_unknown() -> None:
    stated = events.LossStated(at(3), "db", None, None, None, "no heartbeat")
    found = service(a_moved(), up(1), *order(2), stated)
    assert (found["rpo_seconds"], found["rpo_met"], found["rpo_basis"]) == (None, None, "db: no heartbeat")


@pytest.mark.parametrize("others", [{}, {"drained": True}])
def test_a_planned_move_lost_nothing_once_the_last_record_has_arrived(others: dict[str, Json]) -> None:
    drained = a_step("db/verify-drained", Role.VERIFY, stage=Stage.VERIFY_DATA, mutates=False)
    plan = a_moved(drained, operation=Operation.SWITCHOVER)
    found = service(plan, up(1), *order(2), *did("db/verify-drained", 3, evidence=others))
    assert found["rpo_seconds"] == (0 if others else None)
    assert ("db/verify-drained" in found["rpo_basis"]) is bool(others)


def test_an_equal_manifest_is_a_proof_of_zero_too() -> None:
    plan = a_moved(a_step("db/drain", Role.DRAIN, stage=Stage.DRAIN), operation=Operation.SWITCHOVER)
    found = service(plan, up(1), *order(2), *did("db/drain", 3))
    assert (found["rpo_seconds"], found["rpo_met"]) == (0, True)
    assert found["rpo_basis"] == "db: db/drain: both sites had an equal manifest"


def test_one_unit_that_was_not_measured_leaves_the_group_unknown() -> None:
    stated = events.LossStated(at(3), "db", 0, 0, 0, "waited")
    found = service(a_moved(units=("db", "svc/documents")), up(1), *order(2), stated)
    assert found["rpo_seconds"] is None
    assert found["rpo_basis"] == "svc/documents: not measured"


def test_seconds_are_those_of_the_monotonic_clock_within_one_boot() -> None:
    found = service(a_moved(), up(1), *order(2), *did("db/seen", 5))
    assert (found["rto_seconds"], found["rto_met"]) == (3.5, True)


def test_seconds_across_a_boot_are_those_of_utc() -> None:
    """Monotonic clocks would say a negative time, and that the objective was met."""
    rebooted = up(100, "b2", REBOOTED_NS)
    found = service(a_moved(), up(1), *order(2), rebooted, *did("db/seen", 101, REBOOTED_NS))
    assert (found["rto_seconds"], found["rto_met"]) == (99.5, False)


def test_a_long_second_boot_is_told_by_its_id() -> None:
    late = BOOT_NS + 10_000_000_000  # later than the first boot's clock was: only the id tells
    found = service(a_moved(), up(1), *order(2), up(100, "b2", late), *did("db/seen", 101, late))
    assert found["rto_seconds"] == 99.5


def test_a_utc_clock_that_was_set_back_across_a_boot_gives_no_figure() -> None:
    history = (up(200), *order(201), up(1, "b2", REBOOTED_NS), *did("db/seen", 2, REBOOTED_NS))
    found = service(a_moved(), *history)
    assert (found["rto_seconds"], found["rto_met"]) == (None, None)


def told_as_text(plan: Plan, *history: events.RunEvent) -> str:
    journal = journal_of(plan, *history)
    return record_text(record(journal, "r1"), journal.load("r1").run)


def test_the_text_names_what_proves_that_the_old_side_cannot_write() -> None:
    text = told_as_text(a_moved(), up(1), *order(2), *did("db/stop", 3, evidence={"proof": "demoted"}))
    assert "  proof: db/stop: h1 demoted at 2027-01-15T08:00:03.500Z" in text.splitlines()


def test_the_text_names_what_gave_no_proof_and_who_declared_the_site_lost() -> None:
    begun = events.StepStarted(at(3), "db/stop", 1)
    failed = events.StepFailed(at(4), "db/stop", 1, "home does not answer")
    lost = events.SiteDeclaredLost(at(5), "home", "ann", "seen from the air", at(5).utc_ns)
    lines = told_as_text(a_moved(), up(1), *order(2), begun, failed, lost).splitlines()
    assert "  no proof: db/stop failed: home does not answer" in lines
    assert "  declared lost: home by ann at 2027-01-15T08:00:05.000Z: seen from the air" in lines


def test_the_text_says_how_the_old_side_came_back_and_what_is_kept_of_it() -> None:
    plan = a_moved(a_step("db/rejoin", Role.REJOIN))
    back: dict[str, Json] = {"how": "rewind", "because": "it went on alone", "kept": "/pg/evidence/r1/data"}
    history = (up(1), *order(2), *did("db/rejoin", 3, evidence=back))
    assert told(plan, *history)["came_back"] == [
        {"step": "db/rejoin", "state": "succeeded", "diverged": [], "diverged_count": 0, "list": None, **back}
    ]
    wanted = "  came back: db/rejoin: rewind (it went on alone); kept as it was: /pg/evidence/r1/data"
    assert wanted in told_as_text(plan, *history).splitlines()


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({"rows": 1_500, "list": "/pg/evidence/r1/diverged.jsonl"}, "1490 more; all of them: /pg/evidence/r1/diverged.jsonl"),
        ({"only": 1_400, "differ": 100}, "1490 more; all of them: /pg/evidence/r1/data"),
        ({"rows": 1_000}, "990 more; all of them: continuity report r1 --output json"),
    ],
)  # fmt: skip
def test_what_is_not_named_is_counted_exactly(more: dict[str, Json], wanted: str) -> None:
    """The journal names the first thousand; there may be more of them."""
    named: list[Json] = [{"kind": "only", "table": "p/t", "key": str(n)} for n in range(1_000)]
    kept: dict[str, Json] = {"how": "listed", "because": "rows", "kept": "/pg/evidence/r1/data"}
    back: dict[str, Json] = {**kept, "diverged": named, **more}
    plan = a_moved(a_step("db/list", Role.ORDINARY))
    lines = told_as_text(plan, up(1), *order(2), *did("db/list", 3, evidence=back)).splitlines()
    assert f"    and {wanted}" in lines
    assert sum(line.startswith("    only: ") for line in lines) == 10


def test_the_text_says_which_loss_was_accepted_by_whom_and_when() -> None:
    accepted = events.GateAccepted(at(4), "loss", "bob", "home is destroyed", 600_000)
    gate = events.GateAccepted(at(5), "db/verify", "bob", "one index")
    unknown = events.RunResumed(at(6), "eve", LOSS_UNKNOWN)
    begun = events.StepStarted(at(2.5), "db/verify", 1), events.StepFailed(at(3), "db/verify", 1, "no")
    history = (up(1), *order(2), *begun, accepted, gate, events.RunPaused(at(5.5), "eve"), unknown)
    lines = told_as_text(a_moved(), *history).splitlines()
    assert [line for line in lines if line.startswith("  accepted loss")] == [
        "  accepted loss: no loss, by ann at 2027-01-15T08:00:02.000Z (typed)",
        "  accepted loss: at most 10m, by bob at 2027-01-15T08:00:04.000Z (home is destroyed)",
        "  accepted loss: a loss that nobody can bound, by eve at 2027-01-15T08:00:06.000Z (on resume)",
    ]
    assert "  2027-01-15T08:00:05.000Z gate.accepted db/verify by bob one index" in lines
    found = told(a_moved(), *history)["accepted_losses"]
    assert [each["limit_seconds"] for each in found] == [0, 600, None]


def test_the_text_says_what_was_tried_again_and_what_could_not_be_seen() -> None:
    tried = (
        events.StepStarted(at(3), "db/verify", 1),
        events.StepFailed(at(4), "db/verify", 1, "no answer"),
        events.StepRetried(at(5), "db/verify", "ann"),
        events.StepStarted(at(6), "db/verify", 2),
        events.StepSucceeded(at(7), "db/verify", 2, {}),
    )
    unseen = did("db/seen", 8, evidence={"observed": False, "detail": "h1 does not answer"})
    seen = did("db/open", 7.2, evidence={"observed": True})
    lines = told_as_text(a_moved(), up(1), *order(2), *tried, *seen, *unseen).splitlines()
    assert [line for line in lines if line.startswith("  step ")] == [
        "  step db/verify: succeeded; 2 attempts",
        "  step db/seen: succeeded; not observed (h1 does not answer): the fence proof stands for it",
    ]
    steps = {step["id"]: step for step in told(a_moved(), up(1), *order(2), *seen, *unseen)["steps"]}
    assert [steps[name]["observed"] for name in ("db/open", "db/seen", "db/verify")] == [True, False, None]


def test_a_fence_that_gave_proof_and_what_was_not_undone_are_no_exposure() -> None:
    """An aborted run names what nobody took back; only a fence without proof leaves a site exposed."""
    plan = a_moved(
        a_step("db2/stop", Role.FENCE, fences=("h1",), proves=ProofKind.DEMOTED),
        a_step("db/rejoin", Role.REJOIN),
    )
    failed = (events.StepStarted(at(3), "db2/stop", 1), events.StepFailed(at(4), "db2/stop", 1, "no"))
    back = (
        events.StepStarted(at(5), "db/rejoin", 1),
        events.StepUnknown(at(5.5), "db/rejoin", 1, "connection lost"),
        events.StepResolved(at(6), "db/rejoin", 1, 0, "cannot-tell", people=True),
    )
    end = events.RunFinished(at(9), "aborted", (), ("db/stop", "db2/stop", "db/rejoin"))
    asked = events.AbortAsked(at(8), "ann", "enough", leave_closed=True)
    history = (up(1), *order(2), *did("db/stop", 3), *failed, *back, asked, end)
    document = told(plan, *history)
    assert document["exposures"] == ["db2/stop"]
    assert [each["step"] for each in document["left_as_it_is"]] == ["db/stop", "db/rejoin"]
    run = journal_of(plan, *history).load("r1").run
    for text in (told_as_text(plan, *history), run_text(run, 0)):
        lines = text.splitlines()
        assert [line for line in lines if line.startswith("  exposed: ")] == [
            "  exposed: db2/stop gave no proof: what it should have stopped may come back as it was"
        ]
        assert "  left as it is: db/stop: stays in force" in lines
        assert "  left as it is: db/rejoin: nobody can tell whether it happened" in lines
    assert run_document(run, 0)["exposures"] == ["db2/stop"]


def test_the_time_in_which_nobody_drove_makes_no_step_the_longest() -> None:
    plan = a_moved()
    history = (
        up(0),
        *order(1),
        events.StepStarted(at(1), "db/close", 1),
        events.StepStarted(at(1), "db/stop", 1),
        events.StepSucceeded(at(3), "db/stop", 1, {}),
        events.StepStarted(at(3), "db/promote", 1),
        up(103),
        events.StepSucceeded(at(104), "db/promote", 1, {}),
        events.StepSucceeded(at(105), "db/close", 1, {}),
    )
    journal = journal_of(plan, *history)
    document = record(journal, "r1")
    steps = {step["id"]: (step["seconds"], step["undriven_seconds"]) for step in document["steps"]}
    assert (steps["db/stop"], steps["db/promote"]) == ((2.0, 0.0), (101.0, 100.0))
    said = [
        line.strip()
        for line in record_text(document, journal.load("r1").run).splitlines()
        if "longest" in line
    ]
    assert said == [
        "longest: db/close 4.000 s, and up to 100.000 s in which nobody drove",
        "longest: db/stop 2.000 s",
        "longest: db/promote 1.000 s, and up to 100.000 s in which nobody drove",
    ]


def seconds(*history: events.RunEvent) -> float | None:
    """How long ``db/stop`` took, by the record."""
    steps = told(a_moved(), up(0), *order(1), *history)["steps"]
    (found,) = [step["seconds"] for step in steps if step["id"] == "db/stop"]
    return found  # type: ignore[no-any-return]


TOOK_HALF_A_SECOND = did("db/stop", 3)
LOST = (events.StepStarted(at(3), "db/stop", 1), events.StepUnknown(at(4), "db/stop", 1, "connection lost"))


def looked(at_seconds: float, finding: str, **more: Any) -> events.StepResolved:
    return events.StepResolved(at(at_seconds), "db/stop", 1, 1, finding, **more)


@pytest.mark.parametrize(
    ("history", "wanted"),
    [
        (TOOK_HALF_A_SECOND, 0.5),
        ((*TOOK_HALF_A_SECOND, events.AbortAsked(at(8), "ann", "enough", leave_closed=False),
          events.StepUndoStarted(at(9), "db/stop", 1), events.StepUndone(at(60), "db/stop", 1)), 0.5),
        ((*TOOK_HALF_A_SECOND, events.StepReopened(at(20), "db/stop", "too old"), looked(21, "done")), 0.5),
        ((events.StepStarted(at(3), "db/stop", 1),), None),
        (LOST, 1.0),
        ((*LOST, looked(5, "running", again_in_ms=10), looked(7, "done")), 4.0),
        ((*LOST, looked(5, "cannot-tell", people=True)), 2.0),
        ((*LOST, looked(5, "cannot-tell", people=True), events.StepRetried(at(9), "db/stop", "ann"),
          looked(10, "done")), 7.0),
        ((*LOST, looked(5, "not-done"), events.StepStarted(at(6), "db/stop", 2),
          events.StepSucceeded(at(6.25), "db/stop", 2, {})), 0.25),
    ],
)  # fmt: skip
def test_a_step_took_what_its_last_attempt_took(
    history: tuple[events.RunEvent, ...], wanted: float | None
) -> None:
    """Its undo and a later look at it are no part of that."""
    assert seconds(*history) == wanted


def test_what_is_declared_to_be_without_backup_is_no_failure_and_is_said() -> None:
    said = "no backup at embassy: the archiver of db is declared absent"
    plan = a_moved(a_step("db/aftercare", Role.ORDINARY, mutates=False))
    history = (up(1), *order(2), *did("db/aftercare", 3, evidence={"unprotected": said}))
    run = journal_of(plan, *history).load("r1").run
    for text in (told_as_text(plan, *history), run_text(run, 0)):
        assert f"  unprotected: {said}" in text.splitlines()
    assert told(plan, *history)["unprotected"] == run_document(run, 0)["unprotected"] == [said]
    assert told(plan, up(1), *order(2))["unprotected"] == []
