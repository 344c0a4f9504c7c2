"""Writes the documents that are drawn from tables in the code; judges nothing.

``python -m docs.generate`` writes them, ``--check`` names those that are stale and exits 1.
``tests/architecture/test_generated.py`` keeps them fresh.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from orchestrator.core import guards, invariants, plan, states, transitions, verbs

ROOT = Path(__file__).resolve().parents[1]
NOTICE = "<!-- Written by `make docs` from the tables in orchestrator/core. Change those, not this. -->"


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(cell(field) for field in row) + " |" for row in rows]
    return lines


def sentence(function: object) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join((inspect.getdoc(function) or "").split("\n\n", 1)[0].split())


def diagram(rows: Sequence[transitions.Row], final: Iterable[str]) -> list[str]:
    """A Mermaid state diagram: one arrow per pair of states, with all its triggers."""

    def name(state: str) -> str:
        return str(state).replace("-", "_")

    arrows: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for source in row.sources:
            arrows.setdefault((name(source), name(row.target)), []).append(row.trigger)
    first = name(rows[0].sources[0])
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {first}"]
    lines += [
        f"    {source} --> {target}: {', '.join(dict.fromkeys(triggers))}"
        for (source, target), triggers in arrows.items()
    ]
    lines += [f"    {name(state)} --> [*]" for state in final]
    return [*lines, "```"]


def transition_table(rows: Sequence[transitions.Row]) -> list[str]:
    return table(
        ("phase", "from", "on", "to", "why"),
        ((row.phase, ", ".join(row.sources), f"`{row.trigger}`", row.target, row.why) for row in rows),
    )


def verb_tables() -> list[str]:
    run_states = list(states.RunState)
    lines = [
        "### By the state of the run",
        "",
        *table(
            ("verb", *run_states),
            (
                (f"`{verb}`", *("yes" if cells[state] is None else "no" for state in run_states))
                for verb, cells in verbs.VERBS.items()
            ),
        ),
        "",
        "### What a refusal says",
        "",
        *table(
            ("verb", "run", "text"),
            (
                (f"`{verb}`", state, text)
                for verb, cells in verbs.VERBS.items()
                for state, text in cells.items()
                if text is not None
            ),
        ),
        "",
        "### By the state of the step",
        "",
        *table(
            ("verb", *states.StepState),
            (
                (f"`{verb}`", *("yes" if state in allowed else "no" for state in states.StepState))
                for verb, allowed in verbs.STEP_VERBS.items()
            ),
        ),
    ]
    roles = ", ".join(sorted(f"`{role}`" for role in plan.CANNOT_BE_SKIPPED))
    return [*lines, "", f"Never satisfied by `skip` or `mark-done`: steps with the roles {roles}."]


def state_machine() -> str:
    final_steps = sorted(states.SATISFIED | {states.StepState.UNDONE})
    lines = [
        NOTICE,
        "",
        "# The state machine",
        "",
        "A trigger is an event's kind, with `/variant` where one event can lead to several states. Whatever is not a row",
        "here cannot happen: it stops the run as a bug, with its state saved. Orders to the outside follow from the state alone.",
        "",
        "## A run",
        "",
        *diagram(transitions.RUN_ROWS, sorted(states.FINAL_RUN_STATES)),
        "",
        *transition_table(transitions.RUN_ROWS),
        "",
        "## A step",
        "",
        *diagram(transitions.STEP_ROWS, final_steps),
        "",
        *transition_table(transitions.STEP_ROWS),
        "",
        "States that count as met for the steps that come after: "
        + ", ".join(f"`{state}`" for state in sorted(states.SATISFIED))
        + ".",
        "",
        "## What people may order",
        "",
        *verb_tables(),
        "",
        "## Gates",
        "",
        "Asked in the very decision that would start a step, because proofs age.",
        "",
        *table(("gate", "rule"), ((f"`{gate}`", sentence(rule)) for gate, rule in guards.RULES.items())),
        "",
        "## Invariants",
        "",
        "Checked after every append; a broken one stops the run. Those of the second table are walks over every step: in tests only.",
        "",
        *table(("invariant", "says"), ((f"`{name}`", sentence(f)) for name, f in invariants.CHEAP.items())),
        "",
        *table(("invariant", "says"), ((f"`{name}`", sentence(f)) for name, f in invariants.DEEP.items())),
        "",
        "## Refused for now",
        "",
        *table(
            ("what", "text"), ((f"`{name}`", text) for name, text in transitions.REFUSED_OPERATIONS.items())
        ),
    ]
    return "\n".join(lines) + "\n"


def documents() -> Mapping[str, str]:
    """Text of every generated file by its path from the root."""
    from orchestrator.runbook.schema import schema_documents

    schemas = {f"runbooks/schema/{name}": text for name, text in schema_documents().items()}
    return {"docs/state-machine.md": state_machine(), **schemas}


def stale() -> list[str]:
    """Paths whose committed text is not what the tables say."""
    return [
        path
        for path, text in documents().items()
        if not (ROOT / path).is_file() or (ROOT / path).read_text(encoding="utf-8") != text
    ]


def main(arguments: Sequence[str]) -> int:
    old = stale()
    if "--check" in arguments:
        for path in old:
            print(f"{path}: stale; run `make docs`", file=sys.stderr)
        return 1 if old else 0
    found = documents()
    for path in old:
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(found[path], encoding="utf-8")
        print(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
