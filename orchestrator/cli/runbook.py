"""``continuity runbook lint | schema | explain``: what runbooks say and what is derived from them.

Reads files only: no host is spoken to and no log is opened.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli import _exits
from orchestrator.cli._output import EstateOption, Output, OutputOption, emit
from orchestrator.errors import InputError

app = typer.Typer(no_args_is_help=True)
ENVELOPE = "continuity/runbook-schema/v1"


class SchemaKind(StrEnum):
    ESTATE = "estate"
    RUNBOOK = "runbook"


@app.command()
def lint(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Runbooks to look at as well; alone, without --estate, each for itself."),
    ] = None,
    estate: EstateOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Find every problem of the estate and its runbooks at once; exit 2 if there is one.

    Runbooks named without --estate are checked each for itself: hosts and clusters are not known then.

    Examples:

      continuity runbook lint
      continuity runbook lint runbooks/population-register.yaml
      continuity runbook lint --estate estate.yaml --output json
    """
    from orchestrator.bootstrap.catalog import catalog
    from orchestrator.runbook import explain as explaining
    from orchestrator.runbook import lint as linting

    path = None if files and estate is None else _estate_path(estate)
    actions = catalog()
    findings = linting.lint(
        path,
        _with_those_beside(path, files or ()),
        actions,
        lambda loaded: explaining.compile_all(loaded, actions),
    )
    emit(output, linting.SCHEMA, findings.as_json(), findings.as_text())
    if findings.problems:
        raise typer.Exit(_exits.INPUT)


def _estate_path(option: str | None) -> Path:
    from orchestrator.settings import locate

    return locate(option).estate


def _with_those_beside(estate: Path | None, files: Sequence[Path]) -> list[Path] | None:
    """The named runbooks and those beside the estate, each once; None for the latter alone."""
    if estate is None or not files:
        return list(files) or None
    beside = sorted((estate.parent / "runbooks").glob("*.yaml"))
    return list({path.resolve(): path for path in (*beside, *files)}.values())


@app.command()
def schema(
    kind: Annotated[SchemaKind | None, typer.Argument(help="Which one to print.")] = None,
    write: Annotated[
        Path | None, typer.Option("--write", help="Write both into this folder instead.", metavar="FOLDER")
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Print the JSON Schema of an estate or a runbook, for editors, or write both to a folder.

    As text it is the schema and nothing else; --output json puts one or both of them into an envelope.

    Examples:

      continuity runbook schema runbook
      continuity runbook schema --write runbooks/schema
      continuity runbook schema --output json
    """
    from orchestrator.runbook.schema import schema_documents

    documents = schema_documents()
    if write is not None:
        write.mkdir(parents=True, exist_ok=True)
        for name, text in documents.items():
            (write / name).write_text(text, encoding="utf-8")
        written = [str(write / name) for name in documents]
        emit(output, ENVELOPE, {"written": written}, "\n".join(written))
        return
    if output is Output.JSON:
        wanted = [kind] if kind else list(SchemaKind)
        emit(output, ENVELOPE, {k.value: json.loads(documents[f"{k.value}.schema.json"]) for k in wanted}, "")
        return
    if kind is None:
        raise InputError(
            "say which: `continuity runbook schema estate` or `continuity runbook schema runbook`"
        )
    print(documents[f"{kind.value}.schema.json"], end="")


@app.command()
def explain(
    service: Annotated[
        list[str] | None, typer.Option("--service", "-s", help="Only this service's group; may be repeated.")
    ] = None,
    estate: EstateOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show the steps derived for every operation side by side, each with why it is there.

    Examples:

      continuity runbook explain
      continuity runbook explain --service population-register --output json
    """
    from orchestrator.bootstrap.app import open_app
    from orchestrator.runbook import explain as explaining

    opened = open_app(estate)
    explanation = explaining.compile_all(opened.loaded, opened.catalog, tuple(service or ()))
    emit(output, explaining.SCHEMA, explaining.as_json(explanation), explaining.as_text(explanation))
