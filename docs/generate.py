"""Writes the documents that are drawn from tables in the code; judges nothing.

``python -m docs.generate`` writes them, ``--check`` names those that are stale and exits 1.
``tests/architecture/test_generated.py`` keeps them fresh.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from orchestrator.core import guards, invariants, plan, states, transitions, verb_table, verbs

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


def cases() -> list[tuple[str, states.RunState, states.RunState]]:
    """Every state of a run with each phase that it can be in, and its name for people."""
    return [
        (str(state) if len(phases) == 1 else f"{state} in {phase}", state, phase)
        for state, phases in verb_table.PHASES.items()
        for phase in phases
    ]


def verb_tables() -> list[str]:
    heads = [name for name, _, _ in cases()]
    lines = ["### By the state of the run", ""]
    rows = []
    for verb in verb_table.BY_RUN:
        answers = (verb_table.of_run(verb, state, phase) for _, state, phase in cases())
        rows.append((f"`{verb}`", *("yes" if isinstance(a, verb_table.Does) else "–" for a in answers)))
    lines += [*table(("verb", *heads), rows), ""]
    for verb in verb_table.BY_STEP:
        lines += [f"### `{verb}`, by the states of run and step", "", *step_table(verb, heads), ""]
    lines += [
        "### What a verb does, or why it is refused",
        "",
        *table(("verb", "run", "answer"), run_answers()),
    ]
    lines += ["", "### What a verb on a step says of each state", ""]
    lines += [*table(("verb", "step", "answer"), step_answers()), ""]
    lines += ["### What else each verb asks for", "", *table(("verb", "condition"), conditions())]
    roles = ", ".join(sorted(f"`{role}`" for role in plan.CANNOT_BE_SKIPPED))
    return [*lines, "", f"Never satisfied by `skip` or `mark-done`: steps with the roles {roles}."]


def step_table(verb: str, heads: Sequence[str]) -> list[str]:
    """What the step is in afterwards; – = refused."""
    rows = []
    for step in states.StepState:
        cells = []
        for _, state, phase in cases():
            answer = verb_table.of_run(verb, state, phase)
            if isinstance(answer, verb_table.Does):
                answer = verb_table.of_step(verb, phase, step)
            cells.append(answer.what if isinstance(answer, verb_table.Does) else "–")
        rows.append((str(step), *cells))
    return table(("step", *heads), rows)


def answer_text(answer: verb_table.Answer) -> str:
    return answer.what if isinstance(answer, verb_table.Does) else f"refused: {answer.text}"


def run_answers() -> Iterable[tuple[str, str, str]]:
    for verb, row in verb_table.BY_RUN.items():
        told: dict[str, list[str]] = {}
        for state, answer in row.items():
            told.setdefault(answer_text(answer), []).append(state)
        for text, where in told.items():
            yield f"`{verb}`", ", ".join(where), text


def step_answers() -> Iterable[tuple[str, str, str]]:
    refusals: dict[str, dict[str, list[str]]] = {}
    for verb, row in verb_table.BY_STEP.items():
        for step, answer in row.items():
            if isinstance(answer, verb_table.Refuses):
                refusals.setdefault(step, {}).setdefault(answer.text, []).append(f"`{verb}`")
    for step in states.StepState:
        for text, verbs_of in refusals.get(step, {}).items():
            yield ", ".join(verbs_of), str(step), f"refused: {text}"


def conditions() -> Iterable[tuple[str, str]]:
    for verb, rules in verbs.CONDITIONS.items():
        for rule in rules:
            yield f"`{verb}`", sentence(rule)


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
        f"Steps that rejoin the old side or belong to the stage `commit` also ask: {sentence(guards.fences_ended)}",
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
    from docs import reference
    from orchestrator.runbook.schema import schema_documents

    schemas = {f"runbooks/schema/{name}": text for name, text in schema_documents().items()}
    return {
        "docs/state-machine.md": state_machine(),
        "docs/runbook.md": reference.runbook_reference(),
        "docs/actions.md": reference.actions_reference(),
        **schemas,
    }


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
