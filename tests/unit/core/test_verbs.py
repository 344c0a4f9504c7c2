"""What people order: what it does, what else it asks for, and what a refusal offers instead."""

from __future__ import annotations

import pytest

from orchestrator.core import events, guards
from orchestrator.core.claims import CONTRADICTIONS
from orchestrator.core.fold import evolve
from orchestrator.core.inputs import (
    LOSS_UNKNOWN,
    Abort,
    Accept,
    Authorise,
    Confirm,
    DeclareLost,
    MarkDone,
    Pause,
    Resume,
    Retry,
    Skip,
    Verb,
)
from orchestrator.core.model import Operation
from orchestrator.core.outcomes import Failed, FindingKind
from orchestrator.core.plan import CANNOT_BE_SKIPPED, MANUAL, Role
from orchestrator.core.settle import adopts, step_choices
from orchestrator.core.states import RunState, StepState
from orchestrator.core.verbs import CONDITIONS, verb_name
from orchestrator.errors import RefusedError
from tests.builders import (
    FENCED,
    START_NS,
    a_failback,
    a_plan,
    a_step,
    a_wide_failover,
    at,
    authorise,
    driver,
    promotion,
    stop,
)
from tests.story import LOCAL, REMOTE, Story, ordered, promoting


def refused(story: Story, verb: Verb, match: str) -> RefusedError:
    before = story.run
    with pytest.raises(RefusedError, match=match) as caught:
        story.tell(verb)
    assert story.run is before
    assert caught.value.message.startswith(verb_name(verb))
    return caught.value


def two_steps() -> Story:
    return ordered(plan=a_plan(a_step("s/one"), a_step("s/two", needs=("s/one",))))


def test_every_condition_says_in_its_first_line_what_it_asks() -> None:
    for conditions in CONDITIONS.values():
        for condition in conditions:
            assert condition.__doc__


def test_only_this_plan_is_authorised() -> None:
    story = Story(a_plan(a_step("s/one")))
    story.tell(driver(0))
    story.proceed()
    error = refused(story, Authorise(story.next(), "ann", "e" * 64, 0), "eeeeeeeeeeee was confirmed")
    assert any("abort" in choice for choice in error.instead)
    story.tell(authorise(story.tick(), LOSS_UNKNOWN))
    assert (story.run.accepted_loss_ms, story.run.authorised_by) == (LOSS_UNKNOWN, "ann")


def test_a_name_and_a_reason_stand_in_the_record() -> None:
    story = promoting()
    refused(story, Accept(story.next(), " ", "loss", "why", 1), "--by is needed")
    refused(story, Accept(story.next(), "ann", "loss", "", 1), "--reason is needed")
    refused(story, DeclareLost(story.next(), "", "home", "why"), "--by is needed")
    refused(story, DeclareLost(story.next(), "ann", "home", " "), "--reason is needed")
    one = two_steps()
    one.failed("s/one")
    refused(one, Skip(one.next(), "ann", "s/one", " "), "--reason is needed")
    refused(one, Skip(one.next(), "", "s/one", "why"), "--by is needed")
    refused(one, MarkDone(one.next(), "", "s/one", "why"), "--by is needed")
    refused(one, Abort(one.next(), "", "why"), "--by is needed")
    refused(one, Abort(one.next(), "ann", " "), "--reason is needed")
    refused(one, MarkDone(one.next(), "ann", "s/one", " "), "--reason is needed")
    waiting = ordered(plan=a_plan(a_step("s/call", kind=MANUAL)))
    refused(waiting, Confirm(waiting.next(), " ", "s/call", "seen"), "--by is needed")


def test_a_step_that_does_not_exist_is_met_with_those_that_sound_alike() -> None:
    story = two_steps()
    for verb in (Skip, MarkDone):
        assert refused(story, verb(story.next(), "ann", "two", "why"), "no step 'two'").instead == ("s/two",)
    error = refused(story, Retry(story.next(), "ann", "nothing-like-it"), "no step")
    assert error.instead == ("continuity status r1",)
    refused(story, Confirm(story.next(), "ann", "three", "seen"), "no step")


def test_what_alone_shows_that_nothing_is_lost_is_among_what_cannot_be_skipped() -> None:
    """Of documents it is the drain: whoever skips it opens the new side without what had not arrived."""
    assert {Role.DRAIN, Role.FENCE, Role.VERIFY, Role.LOSS} <= CANNOT_BE_SKIPPED


@pytest.mark.parametrize("role", sorted(CANNOT_BE_SKIPPED))
def test_a_word_alone_never_satisfies_a_gate(role: Role) -> None:
    story = ordered(plan=a_plan(a_step("s/other"), a_step("s/gate", role, needs=("s/other",))))
    story.tell(Pause(story.next(), "ann"))
    for verb in (Skip, MarkDone):
        error = refused(story, verb(story.next(), "ann", "s/gate", "I saw it"), "never satisfied by a word")
        want = {Role.FENCE: "declare site-lost"}.get(
            role, "status"
        )  # nothing has failed yet, and it is paused
        assert want in error.instead[0]


def test_a_step_that_is_not_reached_is_not_skipped() -> None:
    story = two_steps()
    story.failed("s/one")
    for verb in (Skip, MarkDone):
        refused(story, verb(story.next(), "ann", "s/two", "why"), "not reached yet: it waits for s/one")
    story.tell(Skip(story.next(), "ann", "s/one", "not tonight"))
    assert story.run.step("s/one").reason == "ann: not tonight"
    story.proceed()
    assert story.executing() == {"s/two"}


def test_a_failed_step_whose_needs_are_open_again_is_not_skipped() -> None:
    """Its data check is taken anew: skipping what failed after it would drop that wait."""
    plan = a_plan(
        a_step("db/verify", Role.VERIFY, mutates=False),
        a_step("db/after", needs=("db/verify",)),
    )
    story = ordered(plan=plan)
    story.ok("db/verify")
    story.failed("db/after")
    story.run = evolve(story.run, events.StepReopened(story.next(), "db/verify", "old"))
    refused(story, Skip(story.next(), "ann", "db/after", "why"), "waits for db/verify")


def test_before_the_confirmation_only_preflight_is_reached() -> None:
    story = Story(a_wide_failover())
    story.tell(driver(0))
    story.proceed()
    refused(story, Skip(story.next(), "ann", "db1/freeze", "why"), "waits for the confirmation")
    story.failed("db1/inspect")
    assert story.run.state is RunState.HELD
    refused(story, MarkDone(story.next(), "ann", "db1/inspect", "why"), "retried or accepted, never marked")
    refused(story, DeclareLost(story.next(), "ann", "home", "war"), "after the confirmation")
    refused(story, Skip(story.next(), "ann", "db1/inspect", "seen by eye"), "never satisfied by a word")
    story.tell(Retry(story.next(), "ann", "db1/inspect"))
    story.proceed()
    story.ok("db1/inspect")
    assert story.run.state is RunState.READY


def test_evidence_against_the_log_is_no_choice_of_words_but_ends_in_adopt() -> None:
    """An old log is put right by what is out there; going on with it would hand out an epoch twice."""
    story = Story(a_wide_failover())
    story.tell(driver(0))
    story.proceed()
    story.failed("db1/inspect")
    assert not any("adopt" in cause for cause in story.run.held_causes), "nothing stands against the log yet"
    story.tell(Retry(story.next(), "ann", "db1/inspect"))
    story.proceed()
    against = Failed("two places know epoch 2", evidence={CONTRADICTIONS: ["two places know epoch 2"]})
    story.ended("db1/inspect", against)
    wanted = ["continuity retry r1 db1/inspect", "continuity abort r1 --reason TEXT"]
    assert list(story.run.held_choices) == wanted, "while the run holds the group it cannot be adopted"
    assert step_choices(story.run, story.plan.steps["db1/inspect"], StepState.FAILED) == wanted
    adopt = "continuity adopt g1 --by NAME"
    assert story.run.held_causes[0].endswith(f"two places know epoch 2; once this run has ended: {adopt}")
    assert adopts(story.run) == (adopt,)
    story.follow(wanted[-1])
    assert story.run.state is RunState.ABORTED
    assert story.states["g1"].claim == "", "the next command is accepted now"


def test_retry_without_a_step_takes_all_that_waits_for_people() -> None:
    story = ordered(plan=a_plan(a_step("a/one"), a_step("b/one"), a_step("c/one", attempts=2)))
    refused(story, Retry(story.next(), "ann"), "no step has failed")
    story.failed("a/one")
    story.lost("b/one")
    story.found("b/one", FindingKind.CANNOT_TELL)
    story.failed("c/one", retryable=True)
    story.tell(Retry(story.next(), "ann"))
    states = [story.state(step) for step in ("a/one", "b/one", "c/one")]
    assert states == [StepState.PENDING, StepState.UNKNOWN, StepState.BACKOFF]


def test_pausing_twice_and_resuming_what_runs() -> None:
    story = two_steps()
    story.tell(Pause(story.next(), "ann"))
    refused(story, Pause(story.next(), "ann"), "paused already")
    story.tell(Resume(story.next(), "bob"))
    assert story.run.state is RunState.RUNNING
    assert not story.tell(Resume(story.next(), "bob")).events, "nothing is to be resumed"


def test_resuming_accepts_a_loss_only_while_it_can_matter() -> None:
    story = ordered(accepted_ms=1)
    story.tell(Resume(story.next(), "ann", 5_000))
    assert story.run.accepted_loss_ms == 5_000
    sent = promoting()
    assert not sent.tell(Resume(sent.next(), "ann", 5_000)).events


def test_a_pause_after_the_promotion_was_sent_keeps_what_was_accepted() -> None:
    story = promoting()
    story.tell(Pause(story.next(), "ann"))
    story.tell(Resume(story.next(), "ann"))
    assert story.run.accepted_loss_ms == 1_000


def test_the_loss_can_be_accepted_as_long_as_one_group_is_not_promoted() -> None:
    story = ordered(accepted_ms=0, plan=a_wide_failover())
    for step in ("site/power", "db1/close", "db1/verify", "db2/close", "db2/verify"):
        story.ok(step)
    story.ok("db1/measure", **REMOTE)
    assert story.state("db1/promote") is StepState.RUNNING
    story.ok("db2/measure", **LOCAL)
    refused(story, Accept(story.next(), "ann", "loss", "why"), "up to a limit")
    story.tell(Accept(story.next(), "ann", "loss", "why", 60_000))
    story.proceed()
    assert story.state("db2/promote") is StepState.RUNNING
    refused(promoting(), Accept(at(9), "ann", "loss", "why", 1), "every promotion was sent")


def test_only_a_data_gate_that_failed_is_accepted() -> None:
    story = ordered()
    error = refused(story, Accept(story.next(), "ann", "db/verify", "why"), "no data gate that failed")
    assert len(error.instead) == 1
    story.failed("db/verify")
    error = refused(story, Accept(story.next(), "ann", "db/close", "why"), "no data gate that failed")
    assert any("db/verify" in choice for choice in error.instead)
    story.tell(Accept(story.next(), "ann", "db/verify", "two rows differ, known"))
    assert story.state("db/verify") is StepState.ACCEPTED


def a_planned_move() -> Story:
    """The old side died while it was drained: it is declared lost, and what it still had is not known to be here."""
    drained = a_step("db/drained", Role.VERIFY, gates=FENCED, mutates=False)
    plan = a_plan(
        stop("db", "h1"),
        drained,
        *promotion("db", after=("db/drained",), with_loss=False),
        operation=Operation.SWITCHOVER,
        fence_hosts={"db": ("h1",)},
    )
    story = ordered(plan=plan)
    story.failed("db/stop")
    story.tell(DeclareLost(story.next(), "ann", "home", "it burns"))
    story.proceed()
    story.ok("db/close")
    story.ok("db/verify")
    assert "db/drained" in story.executing()
    return story


def test_what_alone_says_that_nothing_is_lost_is_never_accepted() -> None:
    story = a_planned_move()
    step = story.plan.steps["db/drained"]
    assert not guards.is_all_that_bounds_the_loss(story.run, story.plan.steps["db/verify"])
    assert guards.is_all_that_bounds_the_loss(story.run, step)
    story.failed("db/drained")
    run = story.run
    assert run.state is RunState.HELD
    assert [choice.split()[1] for choice in run.held_choices] == ["retry", "abort"]
    error = refused(story, Accept(story.next(), "ann", "db/drained", "so be it"), "nobody has stated")
    assert "then: continuity failover" in error.message
    assert [choice.split()[1] for choice in error.instead] == ["retry", "abort", "abort"]
    assert not [choice for choice in step_choices(run, step, StepState.FAILED) if " accept " in choice]
    for verb in (Skip, MarkDone):
        word = refused(story, verb(story.next(), "ann", "db/drained", "w"), "never satisfied by a word")
        assert word.instead == ("continuity retry r1 db/drained",)
    error = refused(story, Accept(story.next(), "ann", "db/close", "w"), "no data gate that failed")
    assert not [choice for choice in error.instead if "db/drained" in choice]


def test_only_the_site_that_is_left_is_declared_lost_and_not_in_the_future() -> None:
    story = ordered()
    assert refused(story, DeclareLost(story.next(), "ann", "embassy", "war"), "only that site").instead == (
        "--site home",
    )
    late = DeclareLost(story.next(), "ann", "home", "war", story.at().utc_ns + 1)
    refused(story, late, "in the future")
    story.tell(DeclareLost(story.next(), "ann", "home", "war"))
    assert story.run.lost_sites["home"].lost_at_ns == story.at().utc_ns, "when nobody knows when: now"
    nowhere = ordered(plan=a_plan(a_step("s/one"), source=""))
    refused(nowhere, DeclareLost(nowhere.next(), "ann", "home", "war"), "leaves no site")


def test_an_abort_that_is_held_is_still_an_abort() -> None:
    story = ordered()
    story.ok("site/power")
    story.abort()
    for step in ("db/stop", "db/close", "db/verify", "db/measure"):
        story.failed(step)
    story.undone("db/stop", Failed("home does not answer"))
    assert (story.run.state, story.run.phase) == (RunState.HELD, RunState.ABORTING)
    for verb in (
        Pause(story.next(), "ann"),
        Skip(story.next(), "ann", "svc/front/route", "why"),
        Accept(story.next(), "ann", "loss", "why", 1),
        DeclareLost(story.next(), "ann", "home", "war"),
    ):
        refused(story, verb, "abort")
    refused(story, Retry(story.next(), "ann", "db/verify"), "not done any more")


def test_people_answer_a_step_that_waits_for_them() -> None:
    story = ordered(plan=a_failback())
    refused(story, Confirm(story.next(), "ann", "db/rejoin", "seen"), "is running")
    story.ok("db/rejoin")
    story.ok("db/reprotect")
    assert story.run.state is RunState.RUNNING, "close and verify still run"
    story.ok("db/close")
    story.ok("db/verify")
    assert story.run.state is RunState.HELD
    assert story.run.held_choices[0] == "continuity confirm r1 g/go-home --by NAME --text TEXT"
    story.follow(story.run.held_choices[0])
    assert story.run.step("g/go-home").reason == "ann: because"
    assert story.run.state is RunState.RUNNING


def test_a_limit_that_lets_no_group_go_on_is_refused_and_one_that_lets_one_is_taken() -> None:
    """Each group waits for its own loss; what another one loses refuses nobody's acceptance."""
    story = ordered(accepted_ms=0, plan=a_wide_failover())
    for step in ("site/power", "db1/close", "db1/verify", "db2/close", "db2/verify"):
        story.ok(step)
    story.ok("db1/measure", **{**LOCAL, "last_commit_ns": START_NS - 30_000_000_000})
    story.ok("db2/measure", **{**LOCAL, "heartbeat_ns": None})
    lost_ms = story.run.losses["db1"].milliseconds
    assert lost_ms
    assert story.run.losses["db2"].milliseconds is None
    error = refused(
        story,
        Accept(story.next(), "ann", "loss", "so be it", lost_ms - 1),
        "db1 31s, db2 what nobody can bound",
    )
    assert error.instead == ("--limit unknown",)
    story.tell(Accept(story.next(), "ann", "loss", "so be it", lost_ms))
    story.proceed()
    assert story.state("db1/promote") is StepState.RUNNING
    assert story.state("db2/promote") is StepState.PENDING
