"""``continuity lab demo``: prints what the demo does while it does it, and a table of what was reached."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import _exits
from orchestrator.cli._output import Output, OutputOption, emit, has_colours, say, table
from orchestrator.cli._signals import stopped_code

if TYPE_CHECKING:
    from rich.console import Console

OPERATIONS = ("failover", "failback")
HEADER = ("service", "RTO / objective", "RPO / objective", "clients' outage")


def register(app: typer.Typer) -> None:
    app.command("demo")(demo)


def demo(
    asynchronous: Annotated[
        bool, typer.Option("--async", help="Commits do not wait for the embassy: loss can be shown.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the lab up when the demo is over.")] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Lose home under load, fail over, let the ledger judge, fail back, let it judge again.

    Ends with exit code 0 only if the independent checker verified both.

    Examples:

      continuity lab demo
      continuity lab demo --output json
      continuity lab demo --async --keep
    """
    from orchestrator.lab import demo as lab_demo
    from orchestrator.lab import figures

    wanted = lab_demo.Wanted("local" if asynchronous else "remote", keep)
    try:
        found = lab_demo.run(wanted, _Progress())
    except KeyboardInterrupt as error:
        say("stopped: the lab is gone")
        raise typer.Exit(stopped_code(error)) from None
    _print(output, figures.SCHEMA, found)
    if not found["verified"]:
        raise typer.Exit(_exits.PARTIAL)


class _Progress:
    """One line a step on stderr, dated from the demo's beginning; rich on a terminal."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._console: Console | None = None
        if has_colours(sys.stderr):
            from rich.console import Console

            self._console = Console(stderr=True, highlight=False, soft_wrap=True)

    def __call__(self, line: str) -> None:
        when = f"{time.monotonic() - self._begun:7.2f} s"
        if self._console is None:
            say(f"{when}  {line}")
            return
        from rich.text import Text

        style = "" if line.startswith("  ") else "bold"
        self._console.print(Text.assemble((f"{when}  ", "dim"), (line, style)))


def _print(output: Output, schema: str, found: dict[str, Any]) -> None:
    if output is Output.TEXT and has_colours():
        _print_rich(found)
        return
    parts = []
    for name in OPERATIONS:
        rows = table(_rows(found[name]), HEADER)
        lines = [_title(name, found[name]), *rows.splitlines(), *_lines(found[name])]
        parts.append("\n  ".join(lines))
    emit(output, schema, found, "\n\n".join([*parts, _last(found)]))


def _print_rich(found: dict[str, Any]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True)
    for name in OPERATIONS:
        stated = found[name]
        colour = "green" if stated["verified"] else "red"
        console.print(_title(name, stated), style=f"bold {colour}")
        shown = Table(box=SIMPLE_HEAD)
        for column in HEADER:
            shown.add_column(column, no_wrap=True)
        for row in _rows(stated):
            shown.add_row(*row)
        console.print(shown)
        for line in _lines(stated):
            console.print(f"  {line}")
        console.print()
    console.print(_last(found), style="bold")


def _title(name: str, stated: dict[str, Any]) -> str:
    return f"{name}: {'verified' if stated['verified'] else 'NOT VERIFIED'} by the independent ledger check"


def _rows(stated: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            name,
            f"{_seconds(facts['rto_seconds'])} / {_goal(facts['rto_objective_seconds'])}",
            f"{_lost(facts)} / {_goal(facts['rpo_objective_seconds'])}",
            "" if facts["client_outage_seconds"] is None else _seconds(facts["client_outage_seconds"]),
        )
        for name, facts in sorted(stated["services"].items(), key=lambda item: (item[1]["tier"], item[0]))
    ]


def _lost(facts: dict[str, Any]) -> str:
    """What a service lost at most; "-" where it holds no data."""
    from orchestrator.reports.record import HOLDS_NO_DATA

    return "-" if facts["rpo_basis"] == HOLDS_NO_DATA else _seconds(facts["rpo_seconds"])


def _lines(stated: dict[str, Any]) -> list[str]:
    loss, longest = stated["stated_loss"], stated["longest_step"]
    noticed = stated["detection_seconds"]
    outage = _seconds(stated["client_outage_seconds"])
    apart = "" if noticed is None else f", of which {_seconds(noticed)} until it was noticed from outside"
    first = _seconds(stated["order_to_first_verified_write_seconds"])
    since_command = _seconds(stated["command_to_first_verified_write_seconds"])
    lost, failed = stated["lost_acknowledged_writes"], stated["failed_requests"]
    rows = [
        ("clients' outage", f"{outage}{apart}"),
        ("first verified write", f"{first} after the order, {since_command} after the command was started"),
        ("acknowledged writes", f"{stated['acknowledged_writes']}, lost {lost}; failed requests {failed}"),
        ("loss stated beforehand", ", ".join((_seconds(loss["seconds"]), *_bounds(loss)))),
        ("longest step", f"{longest['step']} {_seconds(longest['seconds'])}" if longest else "none"),
        ("report", stated["report"]),
    ]
    return table(rows).splitlines()


def _bounds(loss: dict[str, Any]) -> tuple[str, str]:
    from orchestrator.reports.state import rows_text

    size, rows = loss["bytes"], loss["rows_bound"]
    return (
        "bytes unknown" if size is None else f"{size} bytes",
        "rows unknown" if rows is None else rows_text(rows),
    )


def _last(found: dict[str, Any]) -> str:
    word = "verified" if found["verified"] else "NOT VERIFIED"
    return f"{word} in {found['seconds']:.1f} s; reports: {found['reports']}"


def _seconds(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f} s"


def _goal(seconds: float) -> str:
    from orchestrator.core.values import duration_text

    return duration_text(int(seconds * 1000)) if seconds else "0"
