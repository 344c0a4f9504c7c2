"""Decides how an argument list is run as a step, here or on a host; must never involve a shell."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any, ClassVar

from orchestrator.core.model import Host, ProofKind
from orchestrator.core.outcomes import Failed, Finding, FindingKind, Outcome, Succeeded, Unknown
from orchestrator.core.plan import Parts, Touch, Undo
from orchestrator.core.values import HostRef, Template
from orchestrator.errors import ContinuityError, InputError, PermanentError, TransientError
from orchestrator.ports import Completed, Context, Description

OUTPUT_CHARACTERS_MAX = 2_000
CHECK_SECONDS_MAX = 10.0
POLL_SECONDS = (0.02, 0.5)
THIS_MACHINE = Host("(this machine)", "", "")


@dataclass(frozen=True, slots=True)
class CommandCheck:
    """Read-only: exits 0 and, when ``expect`` is given, prints exactly that (white space trimmed)."""

    argv: tuple[Template, ...]
    expect: Template = ""


@dataclass(frozen=True, slots=True)
class CommandParams:
    """``host`` '': the machine that drives the run. With ``check`` its finding counts, not the exit code.

    ``proves`` makes it usable as a fence: then a ``check`` that expects something is a must.
    """

    argv: tuple[Template, ...]
    host: HostRef = ""
    expect_exit: int = 0
    check: CommandCheck | None = None
    proves: ProofKind | None = None


class Run:
    """Run one command. It holds the step's lock while it lives, also when its driver is killed."""

    kind: ClassVar[str] = "command.run"
    version: ClassVar[int] = 1
    params: ClassVar[type[Any]] = CommandParams
    idempotent: ClassVar[bool] = False
    mutates: ClassVar[bool] = True

    def describe(self, params: CommandParams, parts: Parts) -> Description:
        if params.proves is not None and (params.check is None or not params.check.expect):
            raise InputError(
                f"{self.kind}: it proves {params.proves} only by a read-back:"
                " give a `check` with what it must print in `expect`"
            )
        commands = [shlex.join(params.argv)]
        if params.check is not None:
            expected = f" prints {shlex.quote(params.check.expect)}" if params.check.expect else " exits 0"
            commands.append(f"then {shlex.join(params.check.argv)}{expected}")
        host = parts.hosts.get(params.host)
        touches = (Touch(host.site, host.address),) if host else ()
        return Description(tuple(commands), touches, Undo.POINT_OF_NO_RETURN)

    def load(self, context: Context[CommandParams]) -> None:
        from orchestrator.drivers import waiting

        waiting.load()

    def check(self, context: Context[CommandParams]) -> Finding:
        try:
            if self._connection(context).is_running(_lock(context)):
                return Finding(FindingKind.RUNNING, "the command is still alive on the host")
            return self._look(context)
        except (ContinuityError, TimeoutError) as error:
            return Finding(FindingKind.CANNOT_TELL, str(error))

    def execute(self, context: Context[CommandParams]) -> Outcome:
        params = context.params
        context.record(shlex.join(params.argv))
        try:
            done = self._connection(context).run(
                params.argv,
                timeout_seconds=context.seconds_left(),
                lock=_lock(context),
                cancelled=context.cancelled,
            )
        except TimeoutError as error:
            return Unknown(str(error))
        except TransientError as error:
            return Failed(str(error), retryable=True)
        except PermanentError as error:
            return Failed(str(error))
        if params.check is not None:
            return self._judge(context, done)
        if done.exit_code != params.expect_exit:
            return Failed(_ended(params, done), evidence=_evidence(done))
        return Succeeded(_evidence(done))

    def undo(self, context: Context[CommandParams]) -> Outcome:
        return Failed(f"{shlex.join(context.params.argv)} cannot be undone")

    def _judge(self, context: Context[CommandParams], done: Completed) -> Outcome:
        """What the check finds counts; it is asked until it is satisfied or the time is over."""
        from orchestrator.drivers import waiting

        def look(left_seconds: float) -> Finding:
            try:
                return self._look(context)
            except (ContinuityError, TimeoutError) as error:
                return Finding(FindingKind.CANNOT_TELL, str(error))

        # a command that did not end as it should is looked at once: waiting would not change what it did
        seconds = context.seconds_left() if done.exit_code == context.params.expect_exit else 0.0
        found = waiting.until_done(context, look, seconds, waiting.Pace(*POLL_SECONDS))
        if found.kind is FindingKind.DONE:
            return Succeeded({**found.evidence, "exit_code": done.exit_code})
        return Unknown(f"{_ended(context.params, done)}; its check: {found.reason}")

    def _look(self, context: Context[CommandParams]) -> Finding:
        check = context.params.check
        if check is None:
            return Finding(FindingKind.CANNOT_TELL, "no check is declared for this command")
        bound = min(CHECK_SECONDS_MAX, context.seconds_left())
        seen = self._connection(context).run(check.argv, timeout_seconds=bound, cancelled=context.cancelled)
        said = seen.stdout.strip()
        if seen.exit_code == 0 and (not check.expect or said == check.expect.strip()):
            evidence: dict[str, Any] = {"check": said[:OUTPUT_CHARACTERS_MAX]}
            if context.params.proves is not None and check.expect:
                evidence["proof"] = str(context.params.proves)
            return Finding(FindingKind.DONE, "", evidence)
        text = f"{shlex.join(check.argv)}: exit {seen.exit_code}, {said[:200]!r}"
        return Finding(FindingKind.NOT_DONE, text)

    def _connection(self, context: Context[CommandParams]) -> Any:
        name = context.params.host
        return context.hosts.connect(context.parts.hosts[name] if name else THIS_MACHINE)


def _lock(context: Context[CommandParams]) -> str:
    """One lock a step, not an attempt: a second attempt must see the first one alive."""
    return f"{context.run}/{context.step}"


def _ended(params: CommandParams, done: Completed) -> str:
    said = (done.stderr.strip() or done.stdout.strip())[-300:]
    return f"{shlex.join(params.argv)}: exit {done.exit_code}{f', {said}' if said else ''}"


def _evidence(done: Completed) -> dict[str, Any]:
    """An exit code proves nothing about the site: only a check does, and that has evidence of its own."""
    return {
        "exit_code": done.exit_code,
        "stdout": done.stdout[-OUTPUT_CHARACTERS_MAX:],
        "stderr": done.stderr[-OUTPUT_CHARACTERS_MAX:],
    }
