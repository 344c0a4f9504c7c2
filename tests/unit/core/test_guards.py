"""Each gate's answers, one by one: open, to be taken anew, waiting, blocked with the exact commands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from orchestrator.core import guards
from orchestrator.core.fold_steps import set_step
from orchestrator.core.guards import Blocked, Open, Renew, Wait
from orchestrator.core.index import index_of
from orchestrator.core.inputs import LOSS_UNKNOWN, LOSS_WITHIN_RPO, At
from orchestrator.core.model import Operation
from orchestrator.core.plan import MANUAL, Gate, Plan, Role, ServiceFacts, Undo
from orchestrator.core.run import Loss, Lost, Run, StepRun, start, with_run, with_step
from orchestrator.core.states import RunState, StepState
from tests.builders import a_failback, a_failover, a_mixed_failover, a_plan, a_step, at, created, stop

S = StepState
PROMOTE = "db/promote"
NOW = at(10)
GONE = Lost("ann", "war", at(4), at(3).utc_ns)


def a_run(states: Mapping[str, StepRun], plan: Plan | None = None) -> Run:
    plan = plan or a_failover()
    run = with_run(start(plan, created()), state=RunState.RUNNING, authorised=at(1), fencing=at(9))
    for step, state in states.items():
        run = set_step(run, plan.steps[step], state, at(2))
    return with_run(run, fencing=at(9))


def succeeded(seconds: float, started: float = 0.0) -> StepRun:
    return StepRun(S.SUCCEEDED, 1, started=at(started), proof_at=at(seconds), proof_since=at(seconds))


def ask(rule: guards.Rule, run: Run, step: str = PROMOTE, moment: At = NOW) -> guards.Answer:
    return rule(run, run.plan.steps[step], moment)


# --- authorised, granted ----------------------------------------------------------------------


def test_nothing_before_the_confirmation() -> None:
    run = a_run({})
    assert ask(guards.authorised, run) == Open()
    assert isinstance(ask(guards.authorised, with_run(run, authorised=None)), Wait)


def test_nothing_opens_before_the_epoch() -> None:
    assert isinstance(ask(guards.granted, a_run({}), "db/open"), Wait)
    assert ask(guards.granted, a_run({"db/epoch": succeeded(9)}), "db/open") == Open()


# --- fenced -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("states", "answer"),
    [
        ({}, Wait),
        ({"db/stop": StepRun(S.RUNNING, 1)}, Wait),
        ({"db/stop": StepRun(S.UNKNOWN, 1), "site/power": StepRun(S.FAILED, 1)}, Wait),
        ({"db/stop": StepRun(S.BACKOFF, 1), "site/power": StepRun(S.FAILED, 1)}, Wait),
        ({"db/stop": succeeded(9)}, Open),
        ({"site/power": succeeded(9), "db/stop": StepRun(S.FAILED, 1)}, Open),
        ({"site/power": succeeded(5), "db/stop": StepRun(S.FAILED, 1)}, Open),
        ({"site/power": succeeded(4.9)}, Renew),
        ({"site/power": with_step(succeeded(9), proof_at=None)}, Renew),
        ({"db/stop": StepRun(S.FAILED, 1), "site/power": StepRun(S.FAILED, 1)}, Blocked),
        ({"db/stop": StepRun(S.UNDECIDED, 1), "site/power": StepRun(S.FAILED, 1)}, Blocked),
    ],
)
def test_any_one_fence_opens_the_gate(states: dict[str, StepRun], answer: type[guards.Answer]) -> None:
    assert type(ask(guards.fenced, a_run(states))) is answer


def test_a_proof_of_exactly_the_age_that_is_allowed_is_young_enough() -> None:
    limit = a_failover().limits.proof_age_ms
    run = a_run({"db/stop": succeeded(10 - limit / 1000)})
    assert ask(guards.fenced, run) == Open()


def test_only_the_stale_proofs_are_taken_again() -> None:
    answer = ask(guards.fenced, a_run({"db/stop": succeeded(1), "site/power": StepRun(S.RUNNING, 1)}))
    assert isinstance(answer, Renew)
    assert answer.steps == ("db/stop",)


def test_without_proof_people_may_declare_retry_or_abort() -> None:
    failed = StepRun(S.FAILED, 1)
    answer = ask(guards.fenced, a_run({"db/stop": failed, "site/power": failed}))
    assert isinstance(answer, Blocked)
    assert "h1" in answer.cause
    assert [choice.split()[1] for choice in answer.choices] == ["declare", "retry", "abort"]


def test_the_budget_ends_the_waiting_and_offers_no_retry_of_what_still_runs() -> None:
    run = with_run(a_run({"db/stop": StepRun(S.RUNNING, 1)}), fencing=at(4))
    answer = ask(guards.fenced, run)
    assert isinstance(answer, Blocked)
    assert not any("retry" in choice for choice in answer.choices)
    assert isinstance(ask(guards.fenced, run, moment=at(8.9)), Wait)


def test_a_planned_move_waits_for_its_fences_as_long_as_they_take() -> None:
    run = with_run(a_run({"db/stop": StepRun(S.RUNNING, 1)}, a_failback()), fencing=at(1))
    assert isinstance(ask(guards.fenced, run, moment=at(100)), Wait)
    assert guards.budget_end_ns(run) is None
    assert run.plan.operation is Operation.FAILBACK


def test_a_site_that_was_declared_lost_counts_as_fenced_for_good() -> None:
    run = with_run(a_run({"db/stop": StepRun(S.FAILED, 1)}), lost_sites={"home": GONE})
    assert ask(guards.fenced, run, moment=at(1_000)) == Open()


def test_every_old_member_needs_a_proof_of_its_own() -> None:
    plan = a_plan(
        stop("db", "h1"),
        replace(stop("db", "h2"), id="db/stop-2"),
        a_step(PROMOTE, Role.PROMOTE, gates=(Gate.FENCED,)),
        fence_hosts={"db": ("h1", "h2")},
    )
    run = a_run({"db/stop": succeeded(9), "db/stop-2": StepRun(S.FAILED, 1)}, plan)
    answer = ask(guards.fenced, run)
    assert isinstance(answer, Blocked)
    assert "h2" in answer.cause
    assert "h1" not in answer.cause


def test_a_demoted_proof_speaks_for_its_own_unit_only() -> None:
    plan = a_plan(
        stop("other", "h1"),
        a_step(PROMOTE, Role.PROMOTE, gates=(Gate.FENCED,)),
        fence_hosts={"db": ("h1",), "other": ("h1",)},
    )
    assert isinstance(ask(guards.fenced, a_run({"other/stop": succeeded(9)}, plan)), Blocked)


def test_a_promotion_without_any_old_member_is_blocked() -> None:
    plan = a_plan(
        a_step(PROMOTE, Role.PROMOTE, gates=(Gate.FENCED,)), a_step("db/look", gates=(Gate.FENCED,))
    )
    answer = ask(guards.fenced, a_run({}, plan))
    assert isinstance(answer, Blocked)
    assert "names no old member" in answer.cause
    assert ask(guards.fenced, a_run({}, plan), "db/look") == Open()


def test_what_was_brought_back_is_not_fenced_anew() -> None:
    plan = a_plan(
        stop("db", "h1"),
        a_step(PROMOTE, Role.PROMOTE, gates=(Gate.FENCED,)),
        a_step("db/follow", Role.REJOIN),
        fence_hosts={"db": ("h1",)},
    )
    run = a_run({"db/stop": succeeded(1)}, plan)
    assert isinstance(ask(guards.fenced, run), Renew)
    run = a_run({"db/stop": succeeded(1), "db/follow": succeeded(9)}, plan)
    assert isinstance(ask(guards.fenced, run), Blocked)


# --- rejoin and commit ------------------------------------------------------------------------


@pytest.mark.parametrize("state", sorted(guards.IN_PROGRESS))
def test_the_old_side_is_not_brought_back_while_a_fence_may_act(state: StepState) -> None:
    run = a_run({"db/stop": StepRun(state, 1)}, a_failback())
    assert isinstance(guards.ask(run, run.plan.steps["db/follow"], NOW), Wait)


@pytest.mark.parametrize("state", [S.SUCCEEDED, S.FAILED, S.UNDECIDED])
def test_it_is_once_every_fence_has_ended(state: StepState) -> None:
    run = a_run({"db/stop": StepRun(state, 1), "db/epoch": succeeded(9)}, a_failback())
    assert guards.ask(run, run.plan.steps["db/follow"], NOW) == Open()


def test_a_rejoin_that_comes_before_the_fence_does_not_wait_for_it() -> None:
    index = index_of(a_failback())
    assert "db/rejoin" not in index.before_end
    assert index.before_end["db/follow"] == ("db/stop",)
    assert index.before_end["svc/stop-old"] == ("db/stop",)


# --- verified ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "answer"),
    [
        (StepRun(), Wait),
        (StepRun(S.RUNNING, 1), Wait),
        (StepRun(S.FAILED, 1), Wait),
        (succeeded(9), Open),
        (succeeded(1), Renew),
        (with_step(succeeded(9), proof_at=None), Renew),
        (StepRun(S.ACCEPTED, 1), Open),
    ],
)
def test_data_is_checked_just_now_or_accepted_by_name(state: StepRun, answer: type[guards.Answer]) -> None:
    assert type(ask(guards.verified, a_run({"db/verify": state}))) is answer


def test_what_people_looked_at_does_not_age() -> None:
    plan = a_plan(a_step("db/verify", Role.VERIFY, kind=MANUAL), a_step(PROMOTE, Role.PROMOTE))
    assert ask(guards.verified, a_run({"db/verify": succeeded(0)}, plan), moment=at(1_000)) == Open()
    assert isinstance(ask(guards.verified, a_run({"db/verify": StepRun(S.WAITING, 1)}, plan)), Wait)


# --- loss -------------------------------------------------------------------------------------

FENCED_RUN = {"site/power": succeeded(8), "db/stop": StepRun(S.FAILED, 1)}


def lossy(milliseconds: int | None, accepted: int | None, measured: StepRun | None = None) -> Run:
    run = a_run({**FENCED_RUN, "db/measure": measured or succeeded(9, started=8.5)})
    stated = Loss(milliseconds, 0, 0, "as measured", at(9))
    return with_run(run, losses={"db": stated}, accepted_loss_ms=accepted)


@pytest.mark.parametrize(
    ("milliseconds", "accepted", "answer"),
    [
        (0, None, Open),
        (500, 500, Open),
        (500, LOSS_UNKNOWN, Open),
        (None, LOSS_UNKNOWN, Open),
        (501, 500, Blocked),
        (1, None, Blocked),
        (None, 600_000, Blocked),
        (None, None, Blocked),
    ],
)
def test_loss_within_what_people_accepted(
    milliseconds: int | None, accepted: int | None, answer: type[guards.Answer]
) -> None:
    assert type(ask(guards.loss_accepted, lossy(milliseconds, accepted))) is answer


def mixed(db_ms: int | None, docs_ms: int | None, accepted: int) -> Run:
    """A database and documents in one group; both were measured, after both fences."""
    states = {**FENCED_RUN, "docs/stop": succeeded(8)}
    measured = {f"{unit}/measure": succeeded(9, started=8.5) for unit in ("db", "docs")}
    run = a_run({**states, **measured}, a_mixed_failover())
    stated = {unit: Loss(ms, 0, 0, "as measured", at(9)) for unit, ms in (("db", db_ms), ("docs", docs_ms))}
    return with_run(run, losses=stated, accepted_loss_ms=accepted)


def test_what_moves_with_a_database_is_accepted_before_it_is_promoted() -> None:
    assert ask(guards.loss_accepted, mixed(0, 400, 500)) == Open()
    assert ask(guards.loss_accepted, mixed(0, None, LOSS_UNKNOWN)) == Open()
    answer = ask(guards.loss_accepted, mixed(0, 600, 500))
    assert isinstance(answer, Blocked)
    assert answer.cause == "docs: stated loss 600ms (as measured); accepted: at most 500ms"
    both = ask(guards.loss_accepted, mixed(700, 600, 500))
    assert isinstance(both, Blocked)
    assert both.cause == (
        "db: stated loss 700ms (as measured); docs: stated loss 600ms (as measured); accepted: at most 500ms"
    )
    unknown = ask(guards.loss_accepted, mixed(700, None, 500))
    assert isinstance(unknown, Blocked)
    assert "--limit unknown" in unknown.choices[0]


def test_within_the_rpo_means_that_of_the_own_group() -> None:
    facts = ServiceFacts("svc", "g", 1, "ann", "law", 30_000, 10_000, 60_000)
    plan = replace(
        a_failover(),
        services={"svc": facts, "strict": replace(facts, name="strict", group="other", rpo_ms=0)},
    )
    run = with_run(lossy(10_000, LOSS_WITHIN_RPO), plan=plan, index=index_of(plan))
    assert ask(guards.loss_accepted, run) == Open()
    above = ask(guards.loss_accepted, with_run(run, losses={"db": Loss(10_001, 0, 0, "as measured", at(9))}))
    assert isinstance(above, Blocked)
    assert above.cause == "db: stated loss 11s (as measured); accepted: at most 10s, the RPO"
    unknown = with_run(run, losses={"db": Loss(None, 0, 0, "as measured", at(9))})
    assert isinstance(ask(guards.loss_accepted, unknown), Blocked)
    assert isinstance(ask(guards.loss_accepted, lossy(1, LOSS_WITHIN_RPO)), Blocked), (
        "no objective allows nothing"
    )


def test_it_is_also_measured_before_it() -> None:
    run = mixed(0, 0, 0)
    late = run.plan.steps["docs/measure"]
    assert ask(guards.loss_accepted, set_step(run, late, StepRun(S.RUNNING, 1), at(9))) == Wait(
        "docs/measure"
    )
    stale = set_step(run, late, succeeded(4, started=3), at(9))
    assert ask(guards.loss_accepted, stale) == Renew(
        ("docs/measure",), "the loss was measured too long ago, or before the fence"
    )


@pytest.mark.parametrize(
    ("measured", "answer"),
    [
        (StepRun(), Wait),
        (StepRun(S.RUNNING, 1), Wait),
        (succeeded(9, started=7.9), Renew),
        (succeeded(4, started=3), Renew),
        (with_step(succeeded(9, started=8.5), proof_at=None), Renew),
    ],
)
def test_loss_is_measured_after_the_fence_and_just_now(
    measured: StepRun, answer: type[guards.Answer]
) -> None:
    assert type(ask(guards.loss_accepted, lossy(0, 0, measured))) is answer


def test_a_loss_that_nobody_stated_is_waited_for() -> None:
    assert isinstance(ask(guards.loss_accepted, with_run(lossy(0, 0), losses={})), Wait)


def test_the_limit_that_is_named_is_enough_and_never_rounds_down() -> None:
    answer = ask(guards.loss_accepted, lossy(90_400, 1_000))
    assert isinstance(answer, Blocked)
    assert "stated loss 1m31s" in answer.cause
    grown = 91_000 + guards.DECIDING_MS
    assert f"--limit {grown // 60_000}m{grown % 60_000 // 1000}s" in answer.choices[0]


@pytest.mark.parametrize(
    ("states", "lost", "limit"),
    [
        ({"db/stop": succeeded(8), "site/power": StepRun(S.FAILED, 1)}, {}, "2s"),
        ({"site/power": StepRun(S.FAILED, 1), "db/stop": StepRun(S.FAILED, 1)}, {"home": GONE}, "2s"),
        (FENCED_RUN, {}, "5m2s"),
    ],
)
def test_only_a_proof_that_will_be_taken_anew_lets_the_loss_grow(
    states: dict[str, StepRun], lost: dict[str, Lost], limit: str
) -> None:
    run = a_run({**states, "db/measure": succeeded(9, started=8.5)})
    run = with_run(run, losses={"db": Loss(1_500, 0, 0, "b", at(9))}, accepted_loss_ms=0, lost_sites=lost)
    assert guards.enough(run) == limit


def test_a_loss_that_is_unknown_anywhere_needs_unknown() -> None:
    run = with_run(
        lossy(5, 1), losses={"db": Loss(5, 0, 0, "b", at(9)), "x": Loss(None, None, None, "b", at(9))}
    )
    assert guards.enough(run) == "unknown"


# --- all together -----------------------------------------------------------------------------


def test_stale_evidence_is_taken_again_together() -> None:
    old = succeeded(1, started=0.5)
    run = a_run({"db/stop": succeeded(0.4), "db/verify": old, "db/measure": old})
    run = with_run(run, losses={"db": Loss(0, 0, 0, "b", at(1))})
    answer = guards.ask(run, run.plan.steps[PROMOTE], NOW)
    assert isinstance(answer, Renew)
    assert set(answer.steps) == {"db/stop", "db/verify", "db/measure"}


def test_people_are_asked_before_evidence_that_merely_aged_is_taken_again() -> None:
    run = with_run(lossy(5_000, 0), losses={"db": Loss(5_000, 0, 0, "b", at(9))})
    aged = set_step(run, run.plan.steps["db/verify"], succeeded(1), at(9))
    assert isinstance(guards.ask(aged, run.plan.steps[PROMOTE], NOW), Blocked)
    void = set_step(run, run.plan.steps["db/verify"], with_step(succeeded(1), proof_at=None), at(9))
    answer = guards.ask(void, run.plan.steps[PROMOTE], NOW)
    assert isinstance(answer, Renew)
    assert answer.steps == ("db/verify",)


def test_a_step_without_gates_is_open_and_every_gate_has_a_rule() -> None:
    run = a_run({})
    assert guards.ask(run, a_step("db/x", gates=(), undo=Undo.UNDO), NOW) == Open()
    assert set(guards.RULES) == set(Gate)
