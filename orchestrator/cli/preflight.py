"""``continuity preflight``: ask every read-only gate of an operation now, and say what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import _exits
from orchestrator.cli._output import EstateOption, Output, OutputOption, emit, paint
from orchestrator.cli.plan import (
    LeaveOption,
    OperationArgument,
    Rejoin,
    RejoinOption,
    ServiceOption,
    ToOption,
    leave_reasons,
)
from orchestrator.core.model import Operation

if TYPE_CHECKING:
    from orchestrator.bootstrap.observe import Gated
    from orchestrator.errors import RefusedError

SECONDS = 30.0
COLOURS = {"ok": "green", "failed": "red", "unknown": "yellow"}


def register(app: typer.Typer) -> None:
    app.command("preflight")(preflight)


def preflight(
    operation: OperationArgument,
    service: ServiceOption = None,
    to: ToOption = None,
    leave: LeaveOption = None,
    rejoin: RejoinOption = Rejoin.REWIND,
    seconds: Annotated[
        float, typer.Option("--seconds", help="How long the gates may take, all together.", min=1)
    ] = SECONDS,
    estate: EstateOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Ask every read-only gate now: what is missing, and what mends it. Changes nothing at any site; ends
    with 3 if a gate is not met, if the log was changed, or if the sites know more than it. A split brain, or a standby that is gone, is written into the log.

    Examples:

      continuity preflight failover
      continuity preflight failback --output json
    """
    from orchestrator.bootstrap.app import open_app
    from orchestrator.bootstrap.left_out import findings
    from orchestrator.bootstrap.observe import ask_gates, look_before
    from orchestrator.bootstrap.operations import Wish, plan_operation
    from orchestrator.errors import RefusedError

    app = open_app(estate)
    wish = Wish(Operation(operation), tuple(service or ()), to, leave_reasons(leave), rejoin)
    look_before(app, wish.operation)
    try:
        made, notes = plan_operation(app, wish)
    except RefusedError as refused:  # by what the log says: is that so?
        raise _with(refused, findings(app, ())) from refused
    gates = ask_gates(app, made, seconds)
    beside = findings(app, made.groups)
    document = {
        "operation": made.operation.value,
        "from": made.source or None,
        "to": made.target,
        "plan_digest": made.digest,
        "is_met": not beside and all(gate.is_met for gate in gates),
        "notes": list(notes),
        "findings": [{"text": text, "mend": mend} for text, mend in beside],
        "gates": [_document(gate) for gate in gates],
    }
    lines = [*notes, *_finding_lines(beside), *(line for gate in gates for line in _lines(gate))]
    emit(output, "continuity/preflight/v1", document, "\n".join(lines))
    if not document["is_met"]:
        raise typer.Exit(_exits.REFUSED)


def _with(refused: RefusedError, found: list[tuple[str, str]]) -> RefusedError:
    """The refusal, and what speaks against the log by which it was refused."""
    from orchestrator.errors import RefusedError

    texts, mends = [text for text, _ in found], [mend for _, mend in found]
    instead = tuple(dict.fromkeys((*mends, *refused.instead)))
    return RefusedError("; ".join([refused.message, *texts]), instead)


def _finding_lines(found: list[tuple[str, str]]) -> Iterator[str]:
    for text, mend in found:
        yield f"{paint('failed', 'red'):<8} {text}"
        yield f"           mend:  {mend}"


def _document(gate: Gated) -> dict[str, object]:
    findings = [{"text": text, "mend": mend or None} for text, mend in gate.findings]
    return {
        "step": gate.step,
        "title": gate.title,
        "result": gate.result,
        "message": gate.message or None,
        "findings": findings,
    }


def _lines(gate: Gated) -> list[str]:
    lines = [f"{paint(gate.result, COLOURS[gate.result]):<8} {gate.step}: {gate.title}"]
    if gate.message:
        lines.append(f"         {gate.message}")
    for text, mend in gate.findings:
        lines.append(f"         finding: {text}")
        if mend:
            lines.append(f"           mend:  {mend}")
    return lines
