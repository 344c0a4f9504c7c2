"""What is drawn from the code's tables is what the tables say now."""

from __future__ import annotations

from docs import generate
from orchestrator.core import states, transitions


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
