"""Decides how commands print: text for people, one JSON document for programs, colours only on a
terminal. Progress goes to stderr, so that stdout holds the answer and nothing else.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

from orchestrator.cli._exits import write_line
from orchestrator.cli._offered import in_document, in_text


class Output(StrEnum):
    TEXT = "text"
    JSON = "json"


_COLOURS = {"red": 31, "green": 32, "yellow": 33, "bold": 1, "dim": 2}


def has_colours(stream: Any = None) -> bool:
    stream = stream or sys.stdout
    return bool(stream.isatty()) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str, stream: Any = None) -> str:
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if has_colours(stream) else text


def emit(output: Output, schema: str, body: Mapping[str, Any], text: str) -> None:
    """Print the answer of a command: ``schema`` is ``continuity/NAME/vN``. Commands that it offers name the estate."""
    if output is Output.JSON:
        write_line(json.dumps(in_document({"schema": schema, **body}), indent=2, ensure_ascii=False))
    elif text:
        print(in_text(text))


def say(text: str) -> None:
    """A line about what is going on: stderr."""
    print(in_text(text), file=sys.stderr, flush=True)


def table(rows: Sequence[Sequence[str]], header: Sequence[str] = ()) -> str:
    """Columns of plain text, aligned."""
    lines = [list(header)] if header else []
    lines += [list(row) for row in rows]
    if not lines:
        return ""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def bullets(lines: Iterable[str], indent: str = "  ") -> str:
    return "\n".join(f"{indent}{line}" for line in lines)
