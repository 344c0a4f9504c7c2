"""Decides where a run waits for something that only people can do; must never take silence for done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.core.model import Estate, Stage
from orchestrator.core.move import AUTHORISED, BEFORE_OPEN, ONCE, OPENS, Contribution, Placed
from orchestrator.core.plan import Draft, Role
from orchestrator.core.values import ComponentRef, Name, Template
from orchestrator.errors import InputError

WAIT_MS = 7 * 24 * 3_600_000
COUNTS_AS_UP = frozenset({Stage.START, Stage.CHECK, Stage.CUTOVER})


@dataclass(frozen=True, slots=True)
class Manual:
    """What people do by hand: one prompt per stage, confirmed by a person's name."""

    name: Name
    prompts: Mapping[Stage, Template]
    needs: tuple[ComponentRef, ...] = ()

    def unit_in(self, service: str) -> str:
        return f"{service}/{self.name}"

    def address_at(self, estate: Estate, site: str) -> str:
        return ""

    def contribute(self, placed: Placed) -> Contribution:
        """One question to people per stage, in the order of the stages; none in a reprotect."""
        service = placed.runbook.name
        drafts: list[Draft] = []
        if Stage.PREFLIGHT in self.prompts:
            raise InputError(f"{self.unit_in(service)}: nobody is asked in preflight, which only looks")
        if placed.move.moves:
            for stage in Stage:
                if stage in self.prompts:
                    drafts.append(self._ask(placed, stage, tuple(draft.key for draft in drafts[-1:])))
        return Contribution(self.unit_in(service), service, tuple(drafts))

    def _ask(self, placed: Placed, stage: Stage, needs: tuple[str, ...]) -> Draft:
        prompt = placed.text(self.prompts[stage])
        return Draft(
            f"confirm-{stage.value}", stage, Role.ORDINARY, prompt,
            "only people can do or see this; the run waits for a name, not for a time",
            "manual.confirm", {"prompt": prompt}, WAIT_MS, needs,
            AUTHORISED if stage in BEFORE_OPEN else OPENS, up=stage in COUNTS_AS_UP, retry=ONCE,
        )  # fmt: skip
