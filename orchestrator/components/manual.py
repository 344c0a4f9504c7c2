"""Decides where a run waits for something that only people can do; must never take silence for done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.core.model import Stage
from orchestrator.core.values import ComponentRef, Name, Template


@dataclass(frozen=True, slots=True)
class Manual:
    """What people do by hand: one prompt per stage, confirmed by a person's name."""

    name: Name
    prompts: Mapping[Stage, Template]
    needs: tuple[ComponentRef, ...] = ()
