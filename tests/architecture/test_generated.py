"""What is drawn from the code's tables is what the tables say now."""

from __future__ import annotations

import re

import pytest

from docs import generate, reference
from orchestrator.actions import ACTIONS
from orchestrator.bootstrap.catalog import catalog
from orchestrator.core import states, transitions
from orchestrator.core.model import Estate, Runbook
from orchestrator.runbook import shape

PAGE = re.compile(r"docs/[a-z-]+\.md")


def test_generated_documents_are_fresh() -> None:
    assert not generate.stale(), "run `make docs` and review the difference"


def test_every_row_and_state_is_in_the_page() -> None:
    page = generate.state_machine()
    for row in (*transitions.RUN_ROWS, *transitions.STEP_ROWS):
        assert f"`{row.trigger}`" in page
        assert row.why.replace("|", "\\|") in page
    for state in (*states.RunState, *states.StepState):
        assert state.replace("-", "_") in page


def test_every_invariant_and_gate_says_what_it_holds() -> None:
    page = generate.state_machine()
    assert "` |  |" not in page
    assert page.count("stateDiagram-v2") == 2


def test_a_changed_table_would_be_seen() -> None:
    row = transitions.RUN_ROWS[0]
    other = transitions.Row(row.sources, row.trigger, row.target, row.phase, "another reason")
    assert generate.transition_table([row]) != generate.transition_table([other])


@pytest.mark.parametrize("page", [reference.runbook_reference(), reference.actions_reference()])
def test_a_reference_links_to_its_own_headings_only(page: str) -> None:
    titles = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    headings = {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}
    linked = set(re.findall(r"\]\(#([^)]*)\)", page))
    assert linked
    assert linked <= headings
    assert "semantics" not in page, "a number that its readers cannot look up"


def test_every_key_that_people_write_is_in_the_reference() -> None:
    page = reference.runbook_reference()
    for root in (Estate, Runbook, *shape.component_classes().values()):
        for cls in reference.nested(root):
            assert "\n".join(reference.keys_table(cls)) in page, cls.__name__
    assert "| `lag` | a duration such as 30s or 15m | `10s` |" in page


def test_every_action_says_its_arguments_and_its_undo() -> None:
    page = reference.actions_reference()
    for kind in ACTIONS:
        action = type(catalog().action(kind))
        assert reference.undo_of(action), f"{kind}: its description names no undo"
        assert f"\n## {kind}\n" in page
        assert "\n".join(reference.arguments_table(action.params)) in page


def test_a_page_that_a_message_names_is_there() -> None:
    sources = (generate.ROOT / "orchestrator").rglob("*.py")
    named = {page for path in sources for page in PAGE.findall(path.read_text(encoding="utf-8"))}
    assert "docs/actions.md" in named
    assert [page for page in named if not (generate.ROOT / page).is_file()] == []
