"""Decides what a read-only command's exit and output say; must never involve a shell."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any, ClassVar

from orchestrator.core.model import Host
from orchestrator.core.values import Json
from orchestrator.errors import ContinuityError
from orchestrator.ports import Hosts, Report, Secrets

OUTPUT_CHARACTERS_MAX = 500


@dataclass(frozen=True, slots=True)
class CommandProbeParams:
    """``expect`` '': the exit code alone counts. ``degraded_exit``: an exit code that means so (0: none)."""

    host: Host
    argv: tuple[str, ...]
    expect_exit: int = 0
    expect: str = ""
    degraded_exit: int = 0


class CommandProbe:
    """up: exit and output as expected · degraded: its own exit code · down: another · unknown: it did
    not run or not end."""

    kind: ClassVar[str] = "command"
    params: ClassVar[type[Any]] = CommandProbeParams

    def look(
        self, params: CommandProbeParams, *, timeout_seconds: float, hosts: Hosts, secrets: Secrets
    ) -> Report:
        del secrets
        command = shlex.join(params.argv)
        try:
            done = hosts.connect(params.host).run(params.argv, timeout_seconds=timeout_seconds)
        except (ContinuityError, TimeoutError) as error:
            return Report("unknown", str(error))
        said = done.stdout.strip()
        facts: dict[str, Json] = {"exit_code": done.exit_code, "stdout": said[-OUTPUT_CHARACTERS_MAX:]}
        if params.degraded_exit and done.exit_code == params.degraded_exit:
            return Report("degraded", f"{command}: exit {done.exit_code}", facts)
        if done.exit_code != params.expect_exit:
            return Report("down", f"{command}: exit {done.exit_code}, not {params.expect_exit}", facts)
        if params.expect and said != params.expect.strip():
            return Report("down", f"{command}: prints {said[:200]!r}, not {params.expect!r}", facts)
        return Report("up", f"{command}: exit {done.exit_code}", facts)
