"""Decides what a step by people is: a prompt. It is never executed; must never pass by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from orchestrator.core.model import ProofKind
from orchestrator.core.outcomes import Failed, Finding, FindingKind, Outcome, Unknown
from orchestrator.core.plan import Parts, Undo
from orchestrator.core.values import Template
from orchestrator.ports import Context, Description

WAITING = "waiting for people"


@dataclass(frozen=True, slots=True)
class ConfirmParams:
    prompt: Template
    proves: ProofKind | None = None


class Confirm:
    """Something that only people can do or see; they say so by a verb with their name."""

    kind: ClassVar[str] = "manual.confirm"
    version: ClassVar[int] = 1
    params: ClassVar[type[Any]] = ConfirmParams
    idempotent: ClassVar[bool] = False
    mutates: ClassVar[bool] = True

    def describe(self, params: ConfirmParams, parts: Parts) -> Description:
        return Description((f"people: {params.prompt}",), (), Undo.POINT_OF_NO_RETURN)

    def load(self, context: Context[ConfirmParams]) -> None:
        """Nothing to load."""

    def check(self, context: Context[ConfirmParams]) -> Finding:
        return Finding(FindingKind.CANNOT_TELL, f"{WAITING}: {context.params.prompt}")

    def execute(self, context: Context[ConfirmParams]) -> Outcome:
        return Unknown(f"{WAITING}: {context.params.prompt}")

    def undo(self, context: Context[ConfirmParams]) -> Outcome:
        return Failed(f"{WAITING}: undo by hand: {context.params.prompt}")
