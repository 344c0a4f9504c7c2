"""Decides how the present state of groups and runs is shown, as text and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.core.groups import GroupState, label
from orchestrator.core.inputs import LOSS_UNKNOWN, LOSS_WITHIN_RPO
from orchestrator.core.plan import Step, asked
from orchestrator.core.run import Loss, Run
from orchestrator.core.states import RunState, StepState
from orchestrator.core.values import duration_text, size_text
from orchestrator.reports.leftovers import exposed, left_as_it_is, leftover_lines, unprotected

MARKS: Mapping[StepState, str] = {
    StepState.PENDING: "·",
    StepState.RUNNING: "▸",
    StepState.UNKNOWN: "?",
    StepState.BACKOFF: "↻",
    StepState.WAITING: "✋",
    StepState.MARKING: "?",
    StepState.FAILED: "✗",
    StepState.UNDECIDED: "?!",
    StepState.SUCCEEDED: "✓",
    StepState.SKIPPED: "–",
    StepState.MARKED: "✓*",
    StepState.ACCEPTED: "✓*",
    StepState.UNDOING: "↶",
    StepState.UNDO_FAILED: "↶!",
    StepState.UNDONE: "↶✓",
}


def group_document(state: GroupState) -> dict[str, Any]:
    """``names_lead_to``: the side that lost the epoch, while names and routes still lead there."""
    return {
        "name": state.name,
        "label": label(state),
        "active_site": state.active or None,
        "epoch": state.epoch,
        "protection": state.protection,
        "claim": state.claim or None,
        "conflict": "split_brain" if state.conflict else None,
        "names_lead_to": state.left or None,
    }


def loss_document(loss: Loss) -> dict[str, Any]:
    return {
        "seconds": None if loss.milliseconds is None else loss.milliseconds / 1000,
        "bytes": loss.bytes,
        "rows_bound": loss.rows_bound,
        "basis": loss.basis,
    }


def loss_text(loss: Loss) -> str:
    if loss.milliseconds is None:
        return f"unknown ({loss.basis})"
    size = "" if loss.bytes is None else f", {size_text(loss.bytes)}"
    rows = "" if loss.rows_bound is None else f", {rows_text(loss.rows_bound)}"
    return f"{duration_text(loss.milliseconds)}{size}{rows} ({loss.basis})"


def limit_name(limit_ms: int) -> str:
    """An accepted limit as people read it."""
    named = {LOSS_UNKNOWN: "unknown", LOSS_WITHIN_RPO: "the RPO of each service", 0: "0"}
    return named.get(limit_ms) or duration_text(limit_ms)


def rows_text(bound: int) -> str:
    """Rows as they are bounded: by the highest rate at which anybody saw them written, which may not have been it."""
    return f"at most {bound} rows at the highest rate seen" if bound else "no rows"


def run_document(run: Run, driver_pid: int) -> dict[str, Any]:
    """A run as JSON: state, why it is held, and each step's state."""
    counts: dict[str, int] = {}
    steps = []
    for step_id, step in run.plan.steps.items():
        state = run.step(step_id)
        counts[state.state] = counts.get(state.state, 0) + 1
        steps.append(
            {
                "id": step_id,
                "stage": step.stage.value,
                "role": step.role.value,
                "state": state.state.value,
                "attempt": state.attempt,
                "message": state.message or None,
                "asks": asked(step) if state.state is StepState.WAITING else None,
            }
        )
    return {
        "run": run.id,
        "operation": run.plan.operation.value,
        "from": run.plan.source or None,
        "to": run.plan.target,
        "state": run.state.value,
        "driver_pid": driver_pid or None,
        "started_by": run.created.by,
        "machine": run.created.machine,
        "authorised_by": run.authorised_by or None,
        "held": {"causes": list(run.held_causes), "choices": list(run.held_choices)}
        if run.held_causes
        else None,
        "next": list(_choices(run, driver_pid)),
        "loss": {unit: loss_document(loss) for unit, loss in sorted(run.losses.items())},
        "accepted_loss_ms": run.accepted_loss_ms,
        "accepted_loss": None if run.accepted_loss_ms is None else limit_name(run.accepted_loss_ms),
        "debts": list(run.debts),
        "unprotected": list(unprotected(run)),
        "exposures": list(exposed(run)),
        "left_as_it_is": [{"step": step, "why": why} for step, why in left_as_it_is(run)],
        "counts": counts,
        "steps": steps,
    }


def run_text(run: Run, driver_pid: int) -> str:
    """A run as people read it at night: state first, then what to do, then what stands open."""
    driver = f"driven by process {driver_pid}" if driver_pid else "no driver"
    if run.is_final:
        driver = "over"
    way = f"{run.plan.source} → {run.plan.target}" if run.plan.source else run.plan.target
    done = sum(1 for s in run.plan.steps if run.step(s).state is StepState.SUCCEEDED)
    lines = [f"{run.id}: {run.state.value.upper()} — {way}, {done}/{len(run.plan.steps)} steps, {driver}"]
    lines += [f"  cause: {cause}" for cause in run.held_causes]
    lines += [f"  stated loss {unit}: {loss_text(loss)}" for unit, loss in sorted(run.losses.items())]
    if run.state is RunState.READY:
        lines.append(f"  waits for its confirmation: continuity resume {run.id}")
    if choices := _choices(run, driver_pid):
        lines.append("  what you can do now:")
        lines += [f"    {choice}" for choice in choices]
    lines += [_step_line(run, step) for step in run.plan.steps.values() if _is_interesting(run, step)]
    lines += [f"  still owed: {debt}" for debt in run.debts]
    lines += leftover_lines(run)
    return "\n".join(lines)


def _choices(run: Run, driver_pid: int) -> tuple[str, ...]:
    """What people can do now: a held run says it itself; one that nobody drives is gone on with or ended."""
    if run.held_choices or run.is_final or driver_pid or run.state is RunState.READY:
        return tuple(run.held_choices)
    from orchestrator.core.abort import ways_to_end

    return ways_to_end(run)


def _is_interesting(run: Run, step: Step) -> bool:
    quiet = (StepState.SUCCEEDED, StepState.PENDING)
    return not run.is_final and run.step(step.id).state not in quiet


def _step_line(run: Run, step: Step) -> str:
    state = run.step(step.id)
    attempt = f" (attempt {state.attempt})" if state.attempt > 1 else ""
    said = asked(step) if state.state is StepState.WAITING else state.message
    message = f": {said}" if said else ""
    return f"  {MARKS[state.state]} {step.id} {state.state.value}{attempt}{message}"
