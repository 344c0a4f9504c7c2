"""``continuity probe``: ask parts now and say up, degraded, down or unknown. Changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import _exits
from orchestrator.cli._output import EstateOption, Output, OutputOption, emit, paint, table

if TYPE_CHECKING:
    from orchestrator.bootstrap.probing import Answer

SECONDS = 3.0
VERDICTS = ("up", "degraded", "down", "unknown")
COLOURS = {"up": "green", "degraded": "yellow", "down": "red", "unknown": "yellow"}


def register(app: typer.Typer) -> None:
    app.command("probe")(probe)


def probe(
    kind: Annotated[
        str | None, typer.Argument(help="command, dns, files, http, postgresql or tcp. Default: --all.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every part of the estate, by every kind.")] = False,
    words: Annotated[
        list[str] | None,
        typer.Option("--with", help="key=value, or one JSON object: one question of your own."),
    ] = None,
    seconds: Annotated[
        float, typer.Option("--seconds", help="How long one answer may take.", min=0.1)
    ] = SECONDS,
    estate: EstateOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Ask the estate's parts now, side by side: databases, names, documents, front doors, hosts.

    Verdicts: up, degraded (it serves, but late or otherwise), down (nobody is there, or it fails) and unknown
    (no answer: not the same as down). Ends with 0 if all are up, else with 3. Changes nothing.

    Examples:

      continuity probe
      continuity probe postgresql --output json
      continuity probe tcp --with address=10.1.0.11 --with port=5432
      continuity probe command --with host=h1 --with 'argv=test -f /etc/motd'
    """
    from orchestrator.bootstrap import probing
    from orchestrator.bootstrap.app import open_app
    from orchestrator.errors import InputError

    if every and (kind or words):
        raise InputError("--all asks every part: name no kind and give no --with")
    if words and not kind:
        raise InputError(f"--with: name the probe: {', '.join(probing.kinds())}")
    if kind and kind not in probing.kinds():
        raise InputError(f"no probe {kind!r}; there are: {', '.join(probing.kinds())}")
    app = open_app(estate)
    notes: list[str] = []
    if kind and words:
        asks = [probing.ask_with(app, kind, words)]
    else:
        asks, notes = probing.asks_of(app, (kind,) if kind else ())
    if not asks:
        raise InputError(
            f"no part of this estate is asked by {kind or 'a probe'}: say what to ask, --with key=value"
        )
    answers = probing.look(app, asks, seconds)
    counts = {verdict: sum(answer.report.verdict == verdict for answer in answers) for verdict in VERDICTS}
    is_up = counts["up"] == len(answers)
    document = {"is_up": is_up, "verdicts": counts, "notes": notes, "probes": [_document(a) for a in answers]}
    rows = [[a.report.verdict, a.ask.kind, a.ask.about, " ".join(a.report.detail.split())] for a in answers]
    lines = [_coloured(line) for line in table(rows).splitlines()]
    total = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    emit(output, "continuity/probe/v1", document, "\n".join([*notes, *lines, total]))
    if not is_up:
        raise typer.Exit(_exits.REFUSED)


def _document(answer: Answer) -> dict[str, object]:
    report = answer.report
    return {
        "kind": answer.ask.kind,
        "about": answer.ask.about,
        "verdict": report.verdict,
        "detail": report.detail,
        "facts": dict(report.facts),
    }


def _coloured(line: str) -> str:
    """The verdict is the first word of a line."""
    verdict, space, rest = line.partition(" ")
    return paint(verdict, COLOURS[verdict]) + space + rest if verdict in COLOURS else line
