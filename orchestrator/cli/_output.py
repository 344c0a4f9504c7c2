"""Decides the options that several commands share; how they print stands in ``_print``."""

# ruff: noqa: PLC0414 - printing is part of this vocabulary
from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli._print import Output as Output
from orchestrator.cli._print import bullets as bullets
from orchestrator.cli._print import emit as emit
from orchestrator.cli._print import has_colours as has_colours
from orchestrator.cli._print import paint as paint
from orchestrator.cli._print import say as say
from orchestrator.cli._print import table as table

EstateOption = Annotated[
    str | None,
    typer.Option(
        "--estate", help="estate.yaml, or its folder. Default: CONTINUITY_ESTATE, ./estate.yaml, the lab."
    ),
]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="text, or one JSON document.")]
ByOption = Annotated[str | None, typer.Option("--by", help="Who orders this; stands in the record.")]
SignedOption = Annotated[
    str | None, typer.Option("--by", help="Who signs this, by name; or CONTINUITY_BY. Stands in the record.")
]
RunArgument = Annotated[
    str | None, typer.Argument(help="The run; default: the one that is open, else the last.")
]
