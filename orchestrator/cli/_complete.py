"""Decides which words the shell completes: names that the estate or the lab knows. Says nothing where it cannot tell,
for a shell that is asked for a completion has no place for a message.
"""

from __future__ import annotations

import typer

from orchestrator.errors import ContinuityError


def services(context: typer.Context, incomplete: str) -> list[str]:
    """Services of the estate that the words so far mean."""
    from orchestrator.bootstrap.app import open_app

    try:
        names = list(open_app(context.params.get("estate")).loaded.runbooks)
    except ContinuityError:
        return []  # no estate here, or one that cannot be read: the command itself will say so
    return [name for name in names if name.startswith(incomplete)]


def faults(incomplete: str) -> list[str]:
    """Faults that a lab can be given."""
    from orchestrator.lab.faults import FAULTS

    return [name for name in FAULTS if name.startswith(incomplete)]
