"""The command ``continuity``: one file per verb; these only parse, call and print.

Reading commands import nothing heavy: every import that costs more than a failover step stands in
the function that needs it.
"""

from __future__ import annotations

import sys

import typer

from orchestrator.cli import (
    _exits,
    adopt,
    history,
    lab,
    operate,
    plan,
    preflight,
    report,
    runbook,
    status,
    verbs,
)

app = typer.Typer(
    name="continuity",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Bring critical services up at the data embassy, and take them home again.\n\n"
    "Exit codes: 0 done, 1 bug, 2 input, 3 refused, 4 held, 5 aborted or undone, 6 partial.",
)
plan.register(app)
preflight.register(app)
operate.register(app)
status.register(app)
verbs.register(app)
adopt.register(app)
history.register(app)
report.register(app)
app.add_typer(runbook.app, name="runbook", help="Check, explain and describe runbooks.")
app.add_typer(lab.app, name="lab", help="Two data centres on this machine, with real parts.")


@app.callback(invoke_without_command=True)
def top(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version and end."),
) -> None:
    """Bring critical services up at the data embassy, and take them home again."""
    if version:
        from orchestrator import __version__

        print(f"continuity {__version__}")
        raise typer.Exit


def main() -> None:
    """The entry point: runs a command and ends with its documented exit code."""
    code = _exits.guarded(lambda: app(standalone_mode=True))
    sys.exit(code)
