"""Decides which rounds are played in the lab and which figures are made of them.

Pairs alternate, and so does who begins: a slow minute of the machine hits both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench import calm
from bench.figures import Figure, Limit
from bench.playbook import Ansible
from bench.rounds import BY_HAND, OURS, ByHand, Ours, Round, Side, play

MOVES_OF = {
    "failover": ("failover",),
    "failback": ("failover", "rejoin"),
    "switch": ("switchover",),
}
ORDER_RATIO_MAX = 1.6
SWITCH_RATIO_MAX = 1.6
FAILBACK_SECONDS_MAX = 1.5
OWN_MS_MAX = 20.0
PLAYBOOK_ROUNDS_PER_PAIR = 1 / 3
FAILURES_PER_ROUND_MAX = 0.2

Say = Callable[[str], None]


@dataclass(slots=True)
class Played:
    """All rounds of both sides, pair by pair; a pair of which one failed counts for neither."""

    ours: list[Round] = field(default_factory=list)
    theirs: list[Round] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def seconds(self, name: str, scale: float = 1.0) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """(ours, by hand)."""
        return (
            tuple(one.seconds[name] * scale for one in self.ours),
            tuple(one.seconds[name] * scale for one in self.theirs),
        )

    def documents(self) -> list[dict[str, Any]]:
        return [
            {"side": side, "seconds": one.seconds, "counts": one.counts, "phases_ms": one.phases}
            for side, rounds in ((OURS, self.ours), (BY_HAND, self.theirs))
            for one in rounds
        ]


def moves_for(sections: Sequence[str]) -> tuple[str, ...]:
    """One chain of moves that serves all these sections: a switchover needs a site that follows."""
    wanted = {move for name in sections for move in MOVES_OF.get(name, ())}
    if "failover" in wanted and "switchover" in wanted:
        wanted.add("rejoin")
    return tuple(move for move in ("failover", "rejoin", "switchover") if move in wanted)


def play_pairs(moves: Sequence[str], pairs: int, calm_seconds: float, say: Say) -> Played:
    """Play alternating pairs, each round when the machine is calm or has been waited for long enough.

    RuntimeError when too many rounds fail to say anything.
    """
    played = Played()
    for number in range(pairs):
        sides: list[Side] = [Ours(), ByHand()]
        if number % 2:
            sides.reverse()
        made: dict[str, Round] = {}
        for side in sides:
            idle = calm.wait(calm_seconds)
            try:
                made[side.name] = play(side, moves)
                made[side.name].counts["idle_percent_before"] = round(100 * idle)
            except RuntimeError as error:
                say(f"pair {number + 1}: {error}")
                played.failures.append(f"pair {number + 1}: {_last_line(error)}")
        if len(made) == len(sides):
            played.ours.append(made[OURS])
            played.theirs.append(made[BY_HAND])
            say(
                f"pair {number + 1} of {pairs}: " + ", ".join(_short(made[side.name], side) for side in sides)
            )
    if len(played.failures) > FAILURES_PER_ROUND_MAX * 2 * pairs or not played.ours:
        raise RuntimeError(
            f"{len(played.failures)} of {2 * pairs} rounds failed; the last: {played.failures[-1]}"
        )
    return played


def _last_line(error: RuntimeError) -> str:
    lines = str(error).splitlines()
    return lines[0] if len(lines) == 1 else f"{lines[0]}: {lines[-1]}"


def _short(made: Round, side: Side) -> str:
    names = ("failover.order_to_write", "rejoin", "switchover.outage")
    return f"{side.name} " + " ".join(f"{made.seconds[name]:.3f}" for name in names if name in made.seconds)


def figures(sections: Sequence[str], played: Played) -> list[Figure]:
    found: list[Figure] = []
    if "failover" in sections:
        found += _failover(played)
    if "failback" in sections:
        ours, theirs = played.seconds("rejoin")
        found.append(
            Figure(
                "failback",
                "a crashed home follows again: order → caught up, commits wait for it",
                "s",
                ours,
                BY_HAND,
                theirs,
                Limit(value_max=FAILBACK_SECONDS_MAX),
                "by hand keeps no copy of the old history",
            )
        )
    if "switch" in sections:
        found += _switch(played)
    return found


def _failover(played: Played) -> list[Figure]:
    section = "failover"
    ours, theirs = played.seconds("failover.order_to_write", 1000)
    own = tuple(one.seconds["failover.own"] * 1000 for one in played.ours)
    inputs = sorted(one.counts["failover.inputs"] for one in played.ours)
    found = [
        Figure(section, "order → first verified write", "ms", ours, BY_HAND, theirs, Limit(ORDER_RATIO_MAX)),
        Figure(
            section,
            "of that between actions: fold, decide, append, hand over",
            "ms",
            own,
            limit=Limit(value_max=OWN_MS_MAX),
            note=f"{inputs[len(inputs) // 2]} results one after the other",
        ),
    ]
    for name, text in (
        ("failover.command_to_write", "start of the process → first verified write"),
        ("failover.outage", "clients' write outage, 0.3 s of detection in it"),
        ("failover.whole", "order → every service done"),
    ):
        ours, theirs = played.seconds(name, 1000)
        found.append(Figure(section, text, "ms", ours, BY_HAND, theirs))
    lost = tuple(float(one.counts["lost"]) for one in played.ours)
    found.append(Figure(section, "acknowledged writes lost", "", lost, limit=Limit(value_max=0.0)))
    return found


def _switch(played: Played) -> list[Figure]:
    section = "switch"
    outage, outage_by_hand = played.seconds("switchover.outage", 1000)
    whole, whole_by_hand = played.seconds("switchover.whole", 1000)
    failed, failed_by_hand = (
        (float(sum(one.counts["switchover.failed"] for one in rounds)),)
        for rounds in (played.ours, played.theirs)
    )
    return [
        Figure(
            section, "planned: write outage", "ms", outage, BY_HAND, outage_by_hand, Limit(SWITCH_RATIO_MAX)
        ),
        Figure(
            section,
            "planned: failed requests, all rounds",
            "",
            failed,
            BY_HAND,
            failed_by_hand,
            Limit(value_max=0.0),
        ),
        Figure(section, "planned: order → every service done", "ms", whole, BY_HAND, whole_by_hand),
    ]


def playbook(pairs: int, ours: Sequence[Round], say: Say) -> tuple[list[Figure], list[str]]:
    """The playbook's rounds beside ours: cold against the whole command, warm against the order."""
    count = max(1, round(pairs * PLAYBOOK_ROUNDS_PER_PAIR))
    beside = list(ours) or [play(Ours(), ("failover",)) for _ in range(count)]
    found, failures = [], []
    for how, name in (("cold", "failover.command_to_write"), ("warm", "failover.order_to_write")):
        seconds = []
        for number in range(count):
            try:
                seconds.append(play(Ansible(how), ("failover",)).seconds[name])
                say(f"playbook, {how}, {number + 1} of {count}: {seconds[-1]:.2f}")
            except RuntimeError as error:
                failures.append(f"playbook, {how}: {_last_line(error)}")
        if seconds:
            what = "start of the process" if how == "cold" else "order"
            found.append(
                Figure(
                    "ansible",
                    f"continuity: {what} → first verified write",
                    "s",
                    tuple(one.seconds[name] for one in beside),
                    f"the same as a playbook, {how}",
                    tuple(seconds),
                )
            )
    return found, failures
