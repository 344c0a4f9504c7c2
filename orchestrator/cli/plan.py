"""``continuity plan``: print what an operation would do, exactly; opens no socket unless --live."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from orchestrator.cli._complete import services
from orchestrator.cli._intact import looked_at
from orchestrator.cli._output import EstateOption, Output, OutputOption, emit
from orchestrator.core.model import Operation

ServiceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--service", "-s", help="Move this service's group; may be repeated.", autocompletion=services
    ),
]
ToOption = Annotated[str | None, typer.Option("--to", help="The site to move to.")]
LeaveOption = Annotated[
    list[str] | None, typer.Option("--leave", help="NAME=REASON: leave this service behind, on the record.")
]


class Rejoin(StrEnum):
    """How an old side that lost its place in history comes back."""

    REWIND = "rewind"
    RECLONE = "reclone"


class Offered(StrEnum):
    """The operations that can be ordered."""

    FAILOVER = Operation.FAILOVER.value
    SWITCHOVER = Operation.SWITCHOVER.value
    FAILBACK = Operation.FAILBACK.value
    REPROTECT = Operation.REPROTECT.value


OperationArgument = Annotated[Offered, typer.Argument(help="What would be ordered.")]
RejoinOption = Annotated[
    Rejoin,
    typer.Option(
        "--rejoin", help="How the old side comes back: rewind (its old history is kept first) or a new clone."
    ),
]


def register(app: typer.Typer) -> None:
    app.command("plan")(plan)


def plan(
    operation: OperationArgument,
    service: ServiceOption = None,
    to: ToOption = None,
    leave: LeaveOption = None,
    rejoin: RejoinOption = Rejoin.REWIND,
    live: Annotated[
        bool, typer.Option("--live", help="Add dated observations: reachability, loss now.")
    ] = False,
    estate: EstateOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show the steps, their order and commands, gates, endpoints and expected duration.

    Examples:

      continuity plan failover
      continuity plan switchover --service population-register --output json
      continuity plan failover --live
    """
    from orchestrator.bootstrap.app import open_app
    from orchestrator.bootstrap.operations import Wish, plan_operation

    app = open_app(estate)
    wish = Wish(Operation(operation), tuple(service or ()), to, leave_reasons(leave), rejoin)
    made, notes = plan_operation(app, wish)
    observed = None
    if live:
        from orchestrator.bootstrap.observe import observe

        observed = observe(app, made)
    show(app, made, notes, output, observed)


def show(app: Any, made: Any, notes: tuple[str, ...], output: Output, observed: Any = None) -> None:
    """Print a plan; ``failover --dry-run`` prints the identical one."""
    from orchestrator.planning.render import plan_document, plan_text
    from orchestrator.reports.durations import expected_ms

    expected = expected_ms(app.journal if app.has_log else None, made)
    log = looked_at(app)
    if output is Output.JSON:
        document = {**plan_document(made, expected, notes, observed), **log}
        emit(output, "continuity/plan/v1", document, "")
    else:
        emit(output, "continuity/plan/v1", {}, plan_text(made, expected, notes, observed))


def leave_reasons(leave: list[str] | None) -> dict[str, str]:
    """``NAME=REASON`` options as a mapping. InputError without a reason."""
    from orchestrator.errors import InputError

    reasons: dict[str, str] = {}
    for text in leave or ():
        name, _, reason = text.partition("=")
        if not reason.strip():
            raise InputError(f"--leave {text}: say why, as NAME=REASON: it stands in the record")
        reasons[name] = reason
    return reasons
