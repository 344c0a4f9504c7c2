"""Stories of a run as text: what is told to the machine, and below each line, indented, what it answers.

A line at the margin is an input, ``#`` is a comment, ``plan NAME`` (a plan of ``tests.builders``) comes first.
Below an input stand its events, what was refused and why, the run's new state (``=``), and the orders that
came (``+``) and went (``-``). ``rendered`` plays the inputs and writes the answers anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields

from orchestrator.core import events
from orchestrator.core.effects import Cancel, Check, Effect, Execute, UndoStep, WakeAt
from orchestrator.core.inputs import LOSS_UNKNOWN, At, Authorise, Ended, Pause, Resume
from orchestrator.core.orders import orders
from orchestrator.core.outcomes import Failed, FindingKind, Outcome, Succeeded, Unknown
from orchestrator.core.plan import Plan
from orchestrator.core.values import Json
from orchestrator.errors import RefusedError
from orchestrator.runbook.units import parse_duration
from tests import builders
from tests.builders import START_NS, driver
from tests.story import LOCAL, REMOTE, Story, read_choice

PLANS: Mapping[str, Callable[[], Plan]] = {
    "failover": builders.a_failover,
    "patient-failover": builders.a_patient_failover,
    "mixed-failover": builders.a_mixed_failover,
    "wide-failover": builders.a_wide_failover,
    "failback": builders.a_failback,
    "four-services": builders.four_services,
}
QUIET = frozenset(
    {"at", "step", "causes", "choices", "steps", "evidence", "attempt", "number", "run", "gate"}
)


def rendered(text: str) -> tuple[str, Story]:
    """The same inputs and comments with the answers that the machine gives now, and the story told."""
    teller: Teller | None = None
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("plan "):
            teller = Teller(Story(PLANS[line.split()[1]](), folds_whole=False))
            lines.append(line)
        elif not line.strip() or line.startswith("#"):
            lines.append(line)
        elif not line.startswith(" "):
            assert teller is not None, "a story begins with its plan"
            lines.append(line)
            lines.extend(f"    {answer}" for answer in teller.tell(line.split()))
    assert teller is not None
    return "\n".join(lines).rstrip() + "\n", teller.story


@dataclass
class Teller:
    """Plays lines of a story."""

    story: Story
    given: list[str] = field(default_factory=list)

    def tell(self, words: list[str]) -> Iterator[str]:
        story = self.story
        before, ordered = story.run.state, self._orders()
        told, moved = len(story.history), len(story.groups)
        try:
            self._input(words[0], words[1:])
        except RefusedError as refused:
            yield f"refused: {refused.message}"
            yield from (f"    {instead}" for instead in refused.instead)
            return
        for event in story.history[told:]:
            yield from event_lines(event)
        yield from (f"{event.KIND} {group_text(event)}" for event in story.groups[moved:])
        if story.run.state is not before:
            yield f"= {story.run.state}"
        now = self._orders()
        yield from (f"- {order}" for order in ordered if order not in now)
        yield from (f"+ {order}" for order in now if order not in ordered)

    def _orders(self) -> list[str]:
        return [order_text(order, self.story) for order in orders(self.story.run)]

    def _input(self, kind: str, words: list[str]) -> None:
        story = self.story
        match kind:
            case "driver":
                if words[1:] == ["rebooted"]:
                    story.boot_ns = 5_000_000_000 - int(story.now * 1e9)
                story.tick()
                story.tell(driver(story.now, words[0], story.boot_ns))
            case "proceed":
                story.proceed()
            case "wait":
                story.tick(parse_duration(words[0]) / 1000)
            case "wake":
                story.wake()
            case "ok" | "failed" | "lost":
                self._ended(kind, words)
            case "late":
                step, attempt, kind = words
                story.tell(Ended(story.next(), step, int(attempt), outcome_of(kind, [], story)))
            case "found":
                story.found(words[0], FindingKind(words[1]), **evidence_of(words[2:], story))
            case "undone":
                outcomes = {"failed": Failed("home does not answer"), "mute": Succeeded({"writes": False})}
                story.undone(words[0], outcomes[words[1]] if words[1:] else None)
            case "authorise":
                digest = story.plan.digest
                story.tell(Authorise(story.next(), "ann", digest, limit_of(words[0])))
            case "pause":
                story.tell(Pause(story.next(), "ann"))
            case "resume":
                story.tell(Resume(story.next(), "ann", limit_of(words[0]) if words else None))
            case "$":
                story.tell(read_choice(" ".join(words), story.next()))
            case _:
                raise ValueError(f"not an input of a story: {kind}")

    def _ended(self, kind: str, words: list[str]) -> None:
        for step in words[0].split(","):
            self.story.ended(step, outcome_of(kind, words[1:], self.story))


def outcome_of(kind: str, words: list[str], story: Story) -> Outcome:
    match kind:
        case "ok":
            return Succeeded(evidence_of(words, story))
        case "failed" | "retryable":
            return Failed("no", retryable="retryable" in (kind, *words))
        case "lost":
            return Unknown("connection lost")
        case _:
            raise ValueError(f"not an outcome: {kind}")


def evidence_of(words: list[str], story: Story) -> dict[str, Json]:
    """``remote``: nothing can be lost. ``behind 3s``: the last commit present abroad is that old."""
    if words[:1] == ["remote"]:
        return dict(REMOTE)
    if words[:1] == ["behind"]:
        last = START_NS + int(story.now * 1e9) - parse_duration(words[1]) * 1_000_000
        return {**LOCAL, "last_commit_ns": last}
    return {}


def limit_of(text: str) -> int:
    return LOSS_UNKNOWN if text == "unknown" else 0 if text == "0" else parse_duration(text)


def event_lines(event: events.RunEvent) -> Iterator[str]:
    """``step.started db/promote #1`` and the like; times are left out, they are the story's own."""
    words = [event.KIND]
    step = getattr(event, "step", getattr(event, "gate", ""))
    if step:
        number = getattr(event, "attempt", 0)
        words.append(step + (f" #{number}" if number else ""))
    for name in (f.name for f in fields(event)):
        value = getattr(event, name)
        if name not in QUIET and not isinstance(value, At) and value not in ("", None, (), False):
            words.append(f"{name}={', '.join(value) if isinstance(value, tuple) else value}")
    yield " ".join(words)
    if isinstance(event, events.RunHeld):
        yield from (f"    {cause}" for cause in event.causes)
        yield from (f"    $ {choice}" for choice in event.choices)


def group_text(event: events.GroupEvent) -> str:
    quiet = {"at", "group", "run", "evidence"}
    values = [str(getattr(event, f.name)) for f in fields(event) if f.name not in quiet]
    return " ".join([event.group, *values]).rstrip()


def order_text(order: Effect, story: Story) -> str:
    match order:
        case Execute():
            return f"execute {order.step} #{order.attempt}"
        case Check():
            return f"check {order.step} #{order.attempt} ({order.number})"
        case UndoStep():
            return f"undo {order.step} ({order.number})"
        case Cancel():
            return f"cancel {order.step} #{order.attempt}"
        case WakeAt():
            return f"wake for {order.name} at {(order.mono_ns - story.boot_ns) / 1e9:.2f} s"
