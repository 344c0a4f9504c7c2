"""Decides which commands there are, and loads those that the words name: building one costs milliseconds."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, cast

import typer
from typer.core import TyperGroup

from orchestrator.cli import _signals
from orchestrator.cli._exits import NO_RUN, StoppedError
from orchestrator.cli._help import keep_lines
from orchestrator.errors import InputError

VERBS: Mapping[str, tuple[str, ...]] = {
    "plan": ("plan",),
    "preflight": ("preflight",),
    "probe": ("probe",),
    "operate": ("failover", "switchover", "failback", "reprotect", "resume"),
    "status": ("status", "watch"),
    "verbs": (
        "pause", "retry", "skip", "mark-done", "confirm", "accept", "declare", "abort",
    ),
    "adopt": ("adopt", "resolve", "epoch"),
    "history": ("history",),
    "report": ("report",),
}  # fmt: skip
"""Module → its commands, in the order in which help shows them."""
GROUPS: Mapping[str, str] = {
    "runbook": "Check, explain and describe runbooks.",
    "lab": "Two data centres on this machine, with real parts.",
}
"""Modules with commands of their own below their name."""


def build(words: Sequence[str] = ()) -> typer.Typer:
    """The command with the one module that the first word names; with all of them for any other word."""
    app = _empty()
    first = words[0] if words else ""
    named = [module for module, verbs in VERBS.items() if first in verbs]
    for module in named or ([] if first in GROUPS else VERBS):
        import_module(f"orchestrator.cli.{module}").register(app)
    for name, text in GROUPS.items():
        if first == name or not (named or first in GROUPS):
            app.add_typer(import_module(f"orchestrator.cli.{name}").app, name=name, help=text)
    keep_lines(app)
    return app


USAGE_ERROR = cast("type[typer.BadParameter]", typer.BadParameter.__base__)
"""What the parser raises for words that are no command."""


def run(words: Sequence[str], *, as_document: bool) -> None:
    """Parse and carry out; ends the process. ``as_document``: what is wrong with the words is raised as an
    InputError, so that it is said in a document too."""
    _signals.hear()
    if not as_document:
        build(words)()
    try:
        code = build(words)(standalone_mode=False)
    except USAGE_ERROR as error:
        raise InputError(error.format_message()) from error
    sys.exit(code or 0)


class _Stoppable(TyperGroup):
    """Ctrl-C, or a signal that ends us, is said by us, as text or in a document, before the parser makes a bare exit of it."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise StoppedError(NO_RUN, code=_signals.stopped_code(error)) from error


def _empty() -> typer.Typer:
    app = typer.Typer(
        name="continuity",
        cls=_Stoppable,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="Bring critical services up at the data embassy, and take them home again.\n\n"
        "Exit codes: 0 done, 1 bug, 2 input, 3 refused, 4 held, 5 aborted or undone, 6 partial, "
        "7 nobody drives the run, 8 done but the answer could not be written, 129 130 143 stopped by SIGHUP, Ctrl-C, "
        "SIGTERM, 141 done but nobody reads the answer.",
    )

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

    return app
