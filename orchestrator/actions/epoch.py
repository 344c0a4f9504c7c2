"""Decides the epoch step of a group without a database: the journal alone holds the grant; must
never reach outside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from orchestrator.core.outcomes import Finding, FindingKind, Outcome, Succeeded
from orchestrator.core.plan import Parts, Undo
from orchestrator.core.values import Json, SiteRef
from orchestrator.ports import Context, Description


@dataclass(frozen=True, slots=True)
class EpochParams:
    group: str
    site: SiteRef
    epoch: int


class Epoch:
    """Grant a group's epoch to a site; its actuators (DNS, proxies, files) compare it themselves."""

    kind: ClassVar[str] = "continuity.epoch"
    version: ClassVar[int] = 1
    params: ClassVar[type[Any]] = EpochParams
    idempotent: ClassVar[bool] = True
    mutates: ClassVar[bool] = False

    def describe(self, params: EpochParams, parts: Parts) -> Description:
        command = f"journal: group {params.group} has epoch {params.epoch} at {params.site}"
        return Description((command,), (), Undo.NONE_NEEDED)

    def load(self, context: Context[EpochParams]) -> None:
        """Nothing to load."""

    def check(self, context: Context[EpochParams]) -> Finding:
        return Finding(FindingKind.DONE, "", _evidence(context))

    def execute(self, context: Context[EpochParams]) -> Outcome:
        return Succeeded(_evidence(context))

    def undo(self, context: Context[EpochParams]) -> Outcome:
        return Succeeded()


def _evidence(context: Context[EpochParams]) -> dict[str, Json]:
    params = context.params
    return {"group": params.group, "site": params.site, "epoch": params.epoch, "run": context.run}
