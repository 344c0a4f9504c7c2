"""An action that does nothing: what is left of a step's time is the engine's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from orchestrator.core.outcomes import Finding, FindingKind, Outcome, Succeeded
from orchestrator.core.plan import Parts, Undo
from orchestrator.ports import Context, Description

KIND = "bench.nothing"
TABLE = {KIND: "bench.trivial:Nothing"}


@dataclass(frozen=True, slots=True)
class NothingParams:
    number: int


class Nothing:
    kind: ClassVar[str] = KIND
    version: ClassVar[int] = 1
    params: ClassVar[type[NothingParams]] = NothingParams
    idempotent: ClassVar[bool] = True
    mutates: ClassVar[bool] = False

    def describe(self, params: NothingParams, parts: Parts) -> Description:
        return Description((f"nothing {params.number}",), (), Undo.NONE_NEEDED)

    def load(self, context: Context[NothingParams]) -> None:
        """Nothing to open."""

    def check(self, context: Context[NothingParams]) -> Finding:
        return Finding(FindingKind.DONE)

    def execute(self, context: Context[NothingParams]) -> Outcome:
        return Succeeded({"number": context.params.number})

    def undo(self, context: Context[NothingParams]) -> Outcome:
        return Succeeded()
