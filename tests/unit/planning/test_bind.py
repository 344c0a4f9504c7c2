"""Every component in every operation binds to real actions; what an action refuses names the component."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from orchestrator.actions import ACTIONS
from orchestrator.components import COMPONENTS
from orchestrator.core.model import ProofKind
from orchestrator.core.plan import Role, Undo
from orchestrator.core.values import Json, SiteRef
from orchestrator.errors import InputError
from orchestrator.planning.bind import TableCatalog, converter
from orchestrator.planning.reach import reach
from orchestrator.planning.render import shown
from tests.unit.planning import estates
from tests.unit.planning.estates import CATALOG, FAILOVER, NIGHTS, Books, Night, plan_of

SYNTHETIC = estates.synthetic()
EVERY_NIGHT = pytest.mark.parametrize("night", NIGHTS.values(), ids=NIGHTS)


def test_the_synthetic_estate_has_every_type_of_component() -> None:
    classes = {
        f"{type(c).__module__}:{type(c).__qualname__}"
        for book in SYNTHETIC.runbooks.values()
        for c in book.components.values()
    }
    assert classes == set(COMPONENTS.values())


@EVERY_NIGHT
@pytest.mark.parametrize("books", [SYNTHETIC, estates.good()], ids=["synthetic", "good"])
def test_every_component_binds_in_every_operation(books: Books, night: Night) -> None:
    plan = plan_of(books, night)
    assert plan.steps
    for step in plan.steps.values():
        assert step.action.kind in ACTIONS
        assert step.action.kind_version == CATALOG.action(step.action.kind).version
        assert step.action.commands, f"{step.id} says nothing of what it does"
        if step.action.undo is Undo.UNDO:
            assert step.action.undo_commands, f"{step.id} can be undone, but how?"
        everything = (
            *step.action.commands,
            *step.action.undo_commands,
            *(t.endpoint for t in step.action.touches),
        )
        assert not [text for text in everything if "${" in shown(text)], step.id
        _no_template_left(step.id, step.action.arguments)


def _no_template_left(step: str, value: Json) -> None:
    assert "${" not in str(value), f"{step}: {value}"


def test_every_kind_that_components_draft_exists_and_nearly_all_are_used() -> None:
    used = {s.action.kind for night in NIGHTS.values() for s in plan_of(SYNTHETIC, night).steps.values()}
    assert used <= set(ACTIONS)
    assert set(ACTIONS) == used, "an action that no plan of this estate ever uses"


@EVERY_NIGHT
def test_only_what_says_nothing_to_anybody_touches_nothing(night: Night) -> None:
    quiet = {"manual.confirm", "continuity.epoch"}
    for step in plan_of(SYNTHETIC, night).steps.values():
        assert bool(step.action.touches) is (step.action.kind not in quiet), step.id


def test_a_failover_is_proven_to_need_nothing_at_the_lost_site() -> None:
    plan = plan_of(SYNTHETIC, FAILOVER)
    found = reach(plan)
    assert found.required == ()
    fences = {step.id for step in plan.steps.values() if step.role is Role.FENCE}
    assert set(found.fences) == fences
    assert found.best_effort
    looks = {"main/inspect", "archive/documents/inspect-a1", "registers/claims", "archive/claims"}
    assert set(found.looks) == looks


# --- wrong arguments --------------------------------------------------------------------------


def test_a_wrong_argument_is_a_compile_error_that_names_component_and_argument() -> None:
    steps = SYNTHETIC.runbooks["citizens"].steps
    wrong = replace(steps[1], with_={"methd": "POST"})
    citizens = replace(SYNTHETIC.runbooks["citizens"], steps=(steps[0], wrong, *steps[2:]))
    with pytest.raises(InputError) as caught:
        plan_of(replace(SYNTHETIC, runbooks={**SYNTHETIC.runbooks, "citizens": citizens}), FAILOVER)
    (problem,) = caught.value.problems
    assert problem.path == "citizens/own/2-warm-up-the-cache"
    assert "unknown argument methd" in problem.message
    assert "method is missing" in problem.message


def test_all_wrong_arguments_are_told_at_once() -> None:
    fences = {"home": tuple(replace(f, with_={"arg": 1}) for f in SYNTHETIC.estate.fences["home"])}
    books = replace(SYNTHETIC, estate=replace(SYNTHETIC.estate, fences=fences))
    with pytest.raises(InputError) as caught:
        plan_of(books, FAILOVER)
    paths = [problem.path for problem in caught.value.problems]
    assert len(paths) == 6, "stop, power and cut, on two hosts each"
    assert {"main/stop-a1", "site-home/power-off-a1", "site-home/network-cut-a2"} <= set(paths)


def test_an_action_that_does_not_exist_is_answered_with_those_like_it() -> None:
    with pytest.raises(InputError, match=r"no action 'http.reqest'; there are: http.request"):
        CATALOG.action("http.reqest")


# --- the converter ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Inner:
    name: str


@dataclass(frozen=True, slots=True)
class _Params:
    site: SiteRef
    count: int
    flag: bool = False
    proves: ProofKind | None = None
    names: tuple[str, ...] = ()
    inner: _Inner | None = None
    headers: dict[str, str] = field(default_factory=dict)
    json: Json = None


GIVEN: dict[str, Json] = {"site": "home", "count": 3}


def test_arguments_become_params() -> None:
    more: dict[str, Json] = {
        "flag": True, "proves": "power-off", "names": ["a", "b"], "inner": {"name": "x"}, "headers": {"A": "b"},
        "json": {"any": [1, None]},
    }  # fmt: skip
    made = converter(_Params)(GIVEN | more, "act")
    assert made == _Params(
        "home", 3, True, ProofKind.POWER_OFF, ("a", "b"), _Inner("x"), {"A": "b"}, {"any": [1, None]}
    )
    assert isinstance(made.proves, ProofKind)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"count": True}, "act.count: True is not a whole number"),
        ({"count": "3"}, "act.count: '3' is not a whole number"),
        ({"site": 3}, "act.site: 3 is not a text"),
        ({"flag": 1}, "act.flag: 1 is not true or false"),
        ({"flag": None}, "act.flag: None is not true or false"),
        ({"proves": "hope"}, "act.proves: 'hope' is not one of demoted"),
        ({"names": "ab"}, "act.names: 'ab' is not a list"),
        ({"names": ["a", 1]}, r"act.names\[1\]: 1 is not a text"),
        ({"inner": {}}, "act.inner: name is missing"),
        ({"inner": {"nam": "x", "name": "y"}}, "act.inner: unknown argument nam"),
        ({"headers": []}, "act.headers: .* is not a mapping"),
        ({"headers": {"A": 1}}, "act.headers.A: 1 is not a text"),
    ],
)
def test_a_wrong_argument_is_named_with_its_path(wrong: dict[str, Json], said: str) -> None:
    with pytest.raises(InputError, match=said):
        converter(_Params)(GIVEN | wrong, "act")


def test_the_table_imports_a_class_once_and_only_when_asked() -> None:
    catalog = TableCatalog({"manual.confirm": "orchestrator.actions.manual:Confirm", "broken": "nowhere:X"})
    assert set(catalog.kinds()) == {"manual.confirm", "broken"}
    assert catalog.action("manual.confirm") is catalog.action("manual.confirm")
