"""The command ``continuity``: one file per verb; these only parse, call and print.

Reading commands import nothing heavy: every import that costs more than a failover step stands in
the function that needs it.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence

from orchestrator.cli import _exits


def main() -> None:
    """The entry point: runs a command and ends with its documented exit code."""
    sys.excepthook = _exits.say_bug
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that has no "→" is no reason to end with a bug
    sys.exit(_exits.guarded(lambda: _run(sys.argv[1:])))


def _run(words: Sequence[str]) -> None:
    from orchestrator.cli import _plain

    if not _plain.answered(words):
        from orchestrator.cli import _commands

        _commands.run(words, as_document=_exits.wants_json())
