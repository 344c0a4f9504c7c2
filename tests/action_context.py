"""Runs one action outside the engine: a real clock, real hosts, secrets by argument."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from orchestrator.core.model import Operation
from orchestrator.core.plan import Parts
from orchestrator.drivers.hosts import LocalHosts
from orchestrator.ports import Context

T = TypeVar("T")


@dataclass
class GivenSecrets:
    values: Mapping[str, str] = field(default_factory=dict)

    def value(self, reference: str) -> str:
        return self.values[reference]


class RealClock:
    def utc_ns(self) -> int:
        return time.time_ns()

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    def monotonic(self) -> float:
        return time.monotonic()


class KeptResources:
    def __init__(self) -> None:
        self.kept: dict[Hashable, Any] = {}

    def get(self, key: Hashable, factory: Callable[[], T]) -> T:
        if key not in self.kept:
            self.kept[key] = factory()
        return self.kept[key]  # type: ignore[no-any-return]


def context(
    params: Any,
    parts: Parts,
    *,
    run: str = "run-1",
    step: str = "s/step",
    number: int = 1,
    seconds: float = 5.0,
    secrets: Mapping[str, str] | None = None,
    evidence: Mapping[str, Mapping[str, Any]] | None = None,
    operation: Operation = Operation.FAILOVER,
    recorded: list[str] | None = None,
    cancelled: threading.Event | None = None,
) -> Context[Any]:
    return Context(
        params=params,
        parts=parts,
        operation=operation,
        run=run,
        step=step,
        attempt=f"{run}/{step}/{number}",
        deadline=time.monotonic() + seconds,
        evidence=evidence or {},
        resources=KeptResources(),
        secrets=GivenSecrets(secrets or {}),
        hosts=LocalHosts(),
        clock=RealClock(),
        cancelled=cancelled or threading.Event(),
        record=(recorded if recorded is not None else []).append,
    )
