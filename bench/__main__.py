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

from bench import append, big, calm, limit, moves, probe, show, start, steps
from bench.figures import Figure
from bench.moves import Played
from orchestrator.errors import ContinuityError

MICRO: dict[str, Callable[..., list[Figure]]] = {
    "append": append.measure,
    "steps": steps.measure,
    "compile": big.measure_compile,
    "fold": big.measure_fold,
    "status": start.measure,
    "probe": probe.measure,
}
IN_THE_LAB = ("failover", "failback", "switch", "ansible")
PAIRS = 15
CALM_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says."""

    sections: tuple[str, ...]
    pairs: int
    quick: bool
    output: str
    limit_folder: Path | None
    results: Path
    calm_seconds: float


def main(words: Sequence[str]) -> int:
    asked = _parse(words)
    figures: list[Figure] = []
    problems: list[str] = []
    asked.results.mkdir(parents=True, exist_ok=True)
    for name in asked.sections:
        if name in MICRO:
            calm.wait(asked.calm_seconds)
            _say(name)
            try:
                with tempfile.TemporaryDirectory(dir=asked.results) as folder:  # the disk that logs lie on
                    figures += MICRO[name](Path(folder), quick=asked.quick)
            except (AssertionError, ContinuityError) as error:
                problems.append(f"{name}: {error}")
    played = _in_the_lab(asked, figures, problems)
    found = show.document(figures, problems, played)
    path = show.keep(found, asked.results)
    print(json.dumps(found, indent=1) if asked.output == "json" else show.table(figures, problems))
    _say(f"kept in {path}")
    return 1 if problems else 0


def _in_the_lab(asked: Asked, figures: list[Figure], problems: list[str]) -> Played:
    played = Played()
    chain = moves.moves_for(asked.sections)
    if chain:
        _say(f"{asked.pairs} pairs of {', '.join(chain)}")
        try:
            played = moves.play_pairs(chain, asked.pairs, asked.calm_seconds, _say)
            figures += moves.figures(asked.sections, played)
            problems += played.failures
        except (RuntimeError, ContinuityError) as error:
            problems.append(f"pairs: {error}")
    if "ansible" in asked.sections:
        _say("the failover as a playbook")
        try:
            found, failures = moves.playbook(asked.pairs, played.ours, _say)
            figures += found
            problems += failures
        except (RuntimeError, ContinuityError) as error:
            problems.append(f"ansible: {error}")
    if asked.limit_folder is not None and "failover" in asked.sections and played.theirs:
        _say(f"by hand beside {asked.limit_folder}")
        try:
            by_hand = played.seconds("failover.order_to_write", 1000)[1]
            figures.append(limit.measure(asked.limit_folder, by_hand, asked.pairs))
            if not figures[-1].is_within and not asked.quick:
                problems.append("our own moves by hand are too slow to be compared with")
        except RuntimeError as error:
            problems.append(f"limit: {error}")
    return played


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
        metavar="FOLDER",
        help="a folder with other hand-made scripts of the same moves, which are no part of this project: without it "
        "nothing here checks that our own moves by hand are quick (within "
        f"{limit.RATIO_MAX:g} x of theirs)",
    )
    parser.add_argument("--results", type=Path, default=show.RESULTS, help="where the document is kept")
    parser.add_argument(
        "--calm", type=float, default=CALM_SECONDS, metavar="SECONDS",
        help=f"wait so long at most, before each round, until three quarters of the machine are idle "
        f"(default {CALM_SECONDS:g})",
    )  # fmt: skip
    given = parser.parse_args(words)
    unknown = [name for name in given.sections if name not in known]
    if unknown:
        parser.error(f"no section {', '.join(unknown)}; there are: {', '.join(known)}")
    sections = tuple(name for name in known if not given.sections or name in given.sections)
    pairs = 1 if given.quick else given.pairs
    calm_seconds = 0.0 if given.quick else given.calm
    return Asked(sections, pairs, given.quick, given.output, given.limit, given.results, calm_seconds)


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
