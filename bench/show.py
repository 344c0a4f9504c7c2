"""Decides how results are printed and kept: one table, one JSON document."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.figures import Figure
from bench.moves import Played

SCHEMA = "continuity/bench/v1"
RESULTS = Path(__file__).parent / "results"
HEADER = ("", "figure", "ours", "n", "beside", "theirs", "ratio", "95 %", "budget")
WORDS = {True: "ok", False: "OVER", None: ""}


def document(figures: Sequence[Figure], problems: Sequence[str], played: Played) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
        "load_average_1m": round(os.getloadavg()[0], 2),
        "figures": [figure.document() for figure in figures],
        "problems": list(problems),
        "rounds": played.documents(),
    }


def keep(found: dict[str, Any], folder: Path) -> Path:
    """Write the document under the moment it was made at."""
    path = folder / f"{found['at'].replace(':', '')}.json"
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return path


def table(figures: Sequence[Figure], problems: Sequence[str] = ()) -> str:
    rows: list[tuple[str, ...]] = [HEADER]
    section = ""
    for figure in figures:
        if figure.section != section:
            section = figure.section
            rows.append((section, *[""] * (len(HEADER) - 1)))
        rows.append(_row(figure))
    widths = [max(len(row[place]) for row in rows) for place in range(len(HEADER))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    lines += [f"  note: {figure.name}: {figure.note}" for figure in figures if figure.note]
    lines += [f"  failed: {text}" for text in problems]
    return "\n".join(lines)


def _row(figure: Figure) -> tuple[str, ...]:
    interval = figure.interval
    below = figure.reference_median
    return (
        WORDS[figure.is_within],
        figure.name,
        _amount(figure.median, figure.unit),
        str(len(figure.samples)),
        figure.reference_name,
        "" if below is None else _amount(below, figure.unit),
        "" if figure.ratio is None else f"{figure.ratio:.2f}",
        "" if interval is None else f"{interval[0]:.2f}–{interval[1]:.2f}",
        figure.limit.text,
    )


def _amount(value: float, unit: str) -> str:
    return f"{value:.4g} {unit}".rstrip()
