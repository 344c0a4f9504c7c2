"""``continuity report``: the record of a run."""

from __future__ import annotations

import typer

from orchestrator.cli._exits import write_line
from orchestrator.cli._intact import all_looked_at
from orchestrator.cli._output import EstateOption, Output, OutputOption, RunArgument


def register(app: typer.Typer) -> None:
    app.command("report")(report)


def report(run: RunArgument = None, estate: EstateOption = None, output: OutputOption = Output.TEXT) -> None:
    """Show the record of a run: objectives against what was reached, losses, proofs, decisions;
    and whether the log that it was read from is whole.

    Examples:

      continuity report
      continuity report failover-7k3q --output json
    """
    import json

    from orchestrator.bootstrap.app import open_app
    from orchestrator.bootstrap.operations import open_run
    from orchestrator.reports.record import record
    from orchestrator.reports.record_text import record_text

    app = open_app(estate)
    chain = all_looked_at(app)
    name = open_run(app.journal, run)
    document = {**record(app.journal, name), **chain.document(), "events_checked": chain.checked}
    if output is Output.JSON:
        write_line(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        text = record_text(document, app.journal.load(name).run)
        print(f"{text}\n  {chain.text()}" if chain.is_whole else f"{chain.text()}\n{text}")
