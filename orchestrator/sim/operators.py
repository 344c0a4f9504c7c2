"""Decides what simulated people order, from their own process; must never touch the world but to mend
what was broken. They follow the choices that a held run names: a choice that is refused is a bug.
"""

from __future__ import annotations

import random
import shlex
from dataclasses import dataclass, field

from orchestrator.core.inputs import (
    LOSS_UNKNOWN,
    Abort,
    Accept,
    At,
    Authorise,
    Confirm,
    DeclareLost,
    MarkDone,
    Pause,
    Resume,
    Retry,
    Skip,
    Verb,
)
from orchestrator.core.plan import CANNOT_BE_SKIPPED
from orchestrator.core.run import Run
from orchestrator.core.states import RunState, StepState
from orchestrator.engine.clock import now
from orchestrator.engine.journal import Journal, Tracked
from orchestrator.errors import RefusedError
from orchestrator.sim.faults import Book
from orchestrator.sim.world import MILLISECOND_NS, World

QUIET_AFTER_TURNS = 25
QUICK_TURNS_MAX = 200
NAMED = "ann"


@dataclass(slots=True)
class People:
    """One operator. ``turn`` is called by the world now and then; True while there is more to do."""

    world: World
    journal: Journal
    tracked: Tracked
    book: Book
    rng: random.Random
    is_noisy: bool
    aborts: bool
    turns: int = 0
    quick_turns: int = 0
    quiet_after: int = QUIET_AFTER_TURNS  # turns until everything is mended
    refused: list[str] = field(default_factory=list)

    def turn(self) -> bool:
        self.journal.refresh(self.tracked)
        run = self.tracked.run
        if run.is_final:
            return False
        if self._looks_often():
            self.quick_turns += 1
        else:
            self.turns += 1
        if self.turns == self.quiet_after:
            self.mend()
        if run.state is RunState.READY:
            self._at_ready(run)
        elif run.state is RunState.PAUSED:
            self._must(Resume(self._at(), NAMED, self._limit()))
        elif run.state is RunState.HELD:
            self._at_hold(run)
        elif self._should_take_back(run):
            self._may(Abort(self._at(), NAMED, "false alarm"))
        elif self.is_noisy and self.turns < self.quiet_after and self.rng.random() < 0.4:
            self._may(self._any_verb(run))
        return True

    def _should_take_back(self, run: Run) -> bool:
        """The seed wants to see a certain step undone."""
        wanted = self.book.abort_after
        return bool(wanted) and not self.book.is_quiet and run.step(wanted).state is StepState.SUCCEEDED

    def _looks_often(self) -> bool:
        return bool(self.book.abort_after) and not self.book.is_quiet and self.quick_turns < QUICK_TURNS_MAX

    def pause_ns(self) -> int:
        """How long until the next turn."""
        if self._looks_often():
            return self.rng.choice((5, 20, 60)) * MILLISECOND_NS
        fast = (1, 30, 100, 400, 2_000) if self.is_noisy else (300, 1_000, 3_000)
        return self.rng.choice(fast) * MILLISECOND_NS

    # --- what they do -------------------------------------------------------------------------

    def _at_ready(self, run: Run) -> None:
        if self.aborts and not self.book.abort_after and self.rng.random() < 0.2:
            self._must(Abort(self._at(), NAMED, "not tonight"))
        else:
            self._must(Authorise(self._at(), NAMED, run.plan.digest, self.book.accepted_loss_ms))

    def _at_hold(self, run: Run) -> None:
        """One of the choices that the run names; late in the night one that ends it."""
        choices = list(run.held_choices)
        if not choices:
            self.world.blame("held-says-why", f"run {run.id} is held without a choice")
            return
        if self.book.is_false_alarm and not self.book.is_quiet:
            self._at_false_alarm(run)
            return
        self._try_a_word(run)
        takes_back = [c for c in choices if " abort " in c]
        preferred = [c for verb in self.book.prefers for c in choices if f" {verb} " in c]
        if preferred:
            chosen = preferred[0]
        elif self.book.abort_after and run.authorised and takes_back and not self.book.is_quiet:
            chosen = takes_back[-1]
        elif self.turns > self.quiet_after + 10:
            chosen = choices[self.turns % len(choices)]
        else:
            wanted = [c for c in choices if self.aborts or " abort " not in c]
            chosen = self.rng.choice(wanted or choices)
        self._must(self.read(chosen, run), chosen)

    def _at_false_alarm(self, run: Run) -> None:
        """The site is declared lost; when it answers again, the order is taken back."""
        wanted = " declare " if not run.lost_sites else " abort " if self.world.link_up else ""
        chosen = [choice for choice in run.held_choices if wanted and wanted in choice]
        if chosen:
            self._must(self.read(chosen[-1], run), chosen[-1])

    def _try_a_word(self, run: Run) -> None:
        """Tired people say of a gate that it is done; nobody may believe them."""
        gates = [s for s in run.held_steps if run.plan.steps[s].role in CANNOT_BE_SKIPPED]
        if not gates or self.rng.random() < 0.7:
            return
        verb = self.rng.choice((Skip, MarkDone))(self._at(), NAMED, self.rng.choice(gates), "it surely is")
        try:
            self.journal.submit(self.tracked, verb)
        except RefusedError as refused:
            self.refused.append(str(refused))
        else:
            self.world.blame("gates-are-never-skipped", f"{verb.step} was passed by a word")

    def mend(self, *, power: bool = False) -> None:
        """Engineers have mended what can be mended; nothing more goes wrong from here. ``power``: also
        what a fence has switched off."""
        world = self.world
        world.say("people mend what is broken")
        self.book.is_quiet = True
        world.link_up = world.controller_up = True
        world.slow = 1
        for machine in world.machines.values():
            machine.is_hung = False
        for cluster in world.clusters.values():
            for server in cluster.servers.values():
                server.is_paused = False
        for machine in list(world.machines.values()):
            if power or not machine.off_by_fence:
                world.power_on(machine.name)

    def read(self, command: str, run: Run) -> Verb:
        """The verb behind a command line that the run itself named."""
        words = shlex.split(command)
        verb, rest = words[1], words[2:]
        if verb == "declare":
            site = rest[rest.index("--site") + 1]
            return DeclareLost(self._at(), NAMED, site, "seen from the air")
        plain = [w for w in rest if not w.startswith("--") and w not in ("NAME", "TEXT")]
        if "--limit" in rest:
            plain = [w for w in plain if w != rest[rest.index("--limit") + 1]]
        step = plain[1] if len(plain) > 1 else ""
        match verb:
            case "retry":
                return Retry(self._at(), NAMED, step)
            case "accept" if step == "loss":
                return Accept(self._at(), NAMED, "loss", "shown and accepted", self._enough(run))
            case "accept":
                return Accept(self._at(), NAMED, step, "shown and accepted")
            case "skip":
                return Skip(self._at(), NAMED, step, "not needed tonight")
            case "mark-done":
                return MarkDone(self._at(), NAMED, step, "done by hand")
            case "confirm":
                return Confirm(self._at(), NAMED, step, "done")
            case "abort":
                return Abort(self._at(), NAMED, "false alarm", leave_closed="--leave-closed" in rest)
            case "resume":
                return Resume(self._at(), NAMED, self._limit())
            case _:
                raise ValueError(f"a run names a command that people cannot give: {command}")

    def _any_verb(self, run: Run) -> Verb:
        step = self.rng.choice(list(run.plan.steps))
        at, rng = self._at(), self.rng
        verbs: list[Verb] = [
            Pause(at, NAMED),
            Pause(at, NAMED),
            Retry(at, NAMED, rng.choice(("", step))),
            Skip(at, NAMED, step, "not needed"),
            MarkDone(at, NAMED, step, "done by hand"),
            Confirm(at, NAMED, step, "done"),
            Accept(
                at, NAMED, rng.choice(("loss", step)), "so be it", rng.choice((None, 1_000, LOSS_UNKNOWN))
            ),
            Resume(at, NAMED, self._limit()),
            Authorise(at, NAMED, run.plan.digest, 0),
        ]
        if run.plan.source and rng.random() < 0.2:
            verbs.append(DeclareLost(at, NAMED, run.plan.source, "they say"))
        if self.aborts:
            verbs.append(Abort(at, NAMED, "false alarm", leave_closed=rng.random() < 0.2))
        return rng.choice(verbs)

    def _limit(self) -> int | None:
        return self.rng.choice((None, self.book.accepted_loss_ms, 600_000))

    def _enough(self, run: Run) -> int:
        stated = [loss.milliseconds for loss in run.losses.values()]
        if any(ms is None for ms in stated):
            return LOSS_UNKNOWN
        return max((ms or 0 for ms in stated), default=0) + 10_000

    def _must(self, verb: Verb, named: str = "") -> None:
        """What the run itself offers must not be refused."""
        try:
            self.journal.submit(self.tracked, verb)
        except RefusedError as refused:
            self.world.blame("choices-work", f"{named or verb} was refused: {refused}")

    def _may(self, verb: Verb) -> None:
        try:
            self.journal.submit(self.tracked, verb)
        except RefusedError as refused:
            self.refused.append(str(refused))
            if not refused.message.strip():
                self.world.blame("refusals-say-why", f"{verb} was refused without a word")

    def _at(self) -> At:
        return now(self.world)
