"""Decides what ``python -m orchestrator.sim`` prints: one seed played again, or a range with its coverage."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from orchestrator.sim.estate import SETTINGS
from orchestrator.sim.nights import Verdict, simulate
from orchestrator.sim.suite import Total, play, play_all

SCHEMA = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """0: every invariant held (and with --cover everything was reached); 1: not so."""
    given = _parser().parse_args(arguments)
    if given.seed is not None:
        return _one(given)
    first, _, last = given.seeds.partition("..")
    seeds = range(int(first), int(last or first) + 1)
    total = play(seeds, given.until) if given.until else play_all(seeds, given.processes)
    missing = total.missing() if given.cover else []
    if given.output == "json":
        _say(json.dumps(_total_json(total), sort_keys=True))
    else:
        _say("\n".join(total.lines()))
    return 1 if total.failed or missing else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m orchestrator.sim", description=__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--seed", type=int, help="play one seed")
    which.add_argument("--seeds", metavar="A..B", help="play a range of seeds on all processors")
    parser.add_argument(
        "--setting", choices=tuple(SETTINGS), default="", help="with --seed: another operation"
    )
    parser.add_argument("--trace", action="store_true", help="with --seed: print all that happens")
    parser.add_argument(
        "--cover", action="store_true", help="with --seeds: fail unless everything was reached"
    )
    parser.add_argument(
        "--until", metavar="NAME", default="", help="with --seeds: stop where this invariant breaks, or any"
    )
    parser.add_argument("--processes", type=int, default=0)
    parser.add_argument("--output", choices=("text", "json"), default="text")
    return parser


def _one(given: argparse.Namespace) -> int:
    trace = (lambda text: _say(text, to_errors=given.output == "json")) if given.trace else None
    verdict = simulate(given.seed, setting=given.setting, trace=trace)
    if given.output == "json":
        _say(json.dumps(_verdict_json(verdict), sort_keys=True))
    else:
        _say(
            f"seed {verdict.seed}: {verdict.setting} ended {verdict.outcome} after {verdict.events} events "
            f"and {verdict.drivers} drivers; log head {verdict.head}"
        )
        _say("\n".join(verdict.broken) or "every invariant held")
    return 1 if verdict.broken else 0


def _verdict_json(verdict: Verdict) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "seed": verdict.seed,
        "setting": verdict.setting,
        "outcome": verdict.outcome,
        "broken": list(verdict.broken),
        "head": verdict.head,
        "drivers": verdict.drivers,
        "events": verdict.events,
    }


def _total_json(total: Total) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "seeds": total.seeds,
        "heads": total.heads,
        "events": total.events,
        "drivers": total.drivers,
        "outcomes": dict(total.outcomes),
        "failed": [_verdict_json(verdict) for verdict in total.failed],
        "not_reached": total.missing(),
    }


def _say(text: str, *, to_errors: bool = False) -> None:
    print(text, file=sys.stderr if to_errors else sys.stdout)


if __name__ == "__main__":
    raise SystemExit(main())
