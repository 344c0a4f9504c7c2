"""Decides which actions the simulator can play; must never hold one itself."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.sim import postgresql, surroundings
from orchestrator.sim.calls import Kind

KINDS: Mapping[str, Kind] = {**postgresql.KINDS, **surroundings.KINDS}
