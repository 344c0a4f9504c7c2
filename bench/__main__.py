"""``python -m bench [SECTION…]``: measure, print one table, keep the document in ``bench/results/``."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import append, big, show, start, steps
from bench.figures import Figure

MICRO: dict[str, Callable[..., list[Figure]]] = {
    "append": append.measure,
    "steps": steps.measure,
    "compile": big.measure_compile,
    "fold": big.measure_fold,
    "status": start.measure,
}
IN_THE_LAB = ("failover", "failback", "switch", "ansible")
PAIRS = 15


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says."""

    sections: tuple[str, ...]
    pairs: int
    quick: bool
    output: str
    limit_folder: Path | None


def main(words: Sequence[str]) -> int:
    asked = _parse(words)
    figures: list[Figure] = []
    skipped: list[str] = []
    show.RESULTS.mkdir(exist_ok=True)
    for name in asked.sections:
        if name in MICRO:
            _say(name)
            with tempfile.TemporaryDirectory(dir=show.RESULTS) as folder:  # the disk that logs lie on
                figures += MICRO[name](Path(folder), quick=asked.quick)
    found = show.document(figures, skipped)
    path = show.keep(found)
    print(json.dumps(found, indent=1) if asked.output == "json" else show.table(figures, skipped))
    _say(f"kept in {path}")
    return 0


def _parse(words: Sequence[str]) -> Asked:
    known = (*MICRO, *IN_THE_LAB)
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"default: all of {', '.join(known)}")
    parser.add_argument(
        "--pairs", type=int, default=PAIRS, help=f"pairs of rounds in the lab (default {PAIRS})"
    )
    parser.add_argument("--quick", action="store_true", help="small and once: does it run? Judges nothing")
    parser.add_argument("--output", choices=("text", "json"), default="text")
    parser.add_argument(
        "--limit",
        type=Path,
        help="a folder with other hand-made scripts of the same moves, to be paired with too",
    )
    given = parser.parse_args(words)
    unknown = [name for name in given.sections if name not in known]
    if unknown:
        parser.error(f"no section {', '.join(unknown)}; there are: {', '.join(known)}")
    sections = tuple(name for name in known if not given.sections or name in given.sections)
    return Asked(sections, 1 if given.quick else given.pairs, given.quick, given.output, given.limit)


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
