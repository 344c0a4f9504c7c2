"""The command ``continuity``: one file per verb; these only parse, call and print.

Reading commands import nothing heavy: every import that costs more than a failover step stands in
the function that needs it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from orchestrator.cli import _exits, _streams


def main() -> None:
    """The entry point: runs a command and ends with its documented exit code."""
    sys.excepthook = _exits.say_bug
    _streams.guard()
    try:
        code = _exits.guarded(lambda: _run(sys.argv[1:]))
    except SystemExit as end:
        code = _exits.code_of(end)
    sys.exit(_exits.with_answer(code))


def _run(words: Sequence[str]) -> None:
    from orchestrator.cli import _plain

    if not _plain.answered(words):
        from orchestrator.cli import _commands

        _commands.run(words, as_document=_exits.wants_json())
