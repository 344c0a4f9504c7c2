"""Decides what is seen of documents before anything is ordered: ``files.inspect``.

What would surely hold the run later fails it, while it can still be mended; what is only noteworthy is a finding.
No document is opened: the time does not grow with their size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar
from urllib.parse import urlsplit

from orchestrator.core.model import Operation
from orchestrator.core.outcomes import Failed, Finding, FindingKind, Outcome, Succeeded
from orchestrator.core.plan import Parts, Touch, Undo
from orchestrator.core.values import HostRef, Json, Milliseconds, Template, UnitName, duration_text
from orchestrator.errors import ContinuityError, InputError, TransientError
from orchestrator.ports import Context, Description

LOOK_SECONDS_MAX = 1.0  # of each question
SETTLE_SECONDS_MAX = 0.5  # a copy that is just being made is looked at again
POLL_SECONDS = (0.05, 0.2)

Remark = tuple[str, str]  # what is amiss, what mends it


@dataclass(frozen=True, slots=True)
class InspectParams:
    """``serves``: documents are published there now; else they wait there, and ``unit`` should bring them.
    ``as_of`` is worth a finding once it is older than ``stale_ms``."""

    host: HostRef
    directory: Template
    manifest: Template
    public_key: Template
    published: Template
    unit: UnitName
    as_of: Template = ""
    stale_ms: Milliseconds = 60_000
    serves: bool = False


@dataclass(slots=True)
class _Seen:
    """``surely``: what would hold the run later. ``noteworthy``: what people should know."""

    facts: dict[str, Json] = field(default_factory=dict)
    surely: list[Remark] = field(default_factory=list)
    noteworthy: list[Remark] = field(default_factory=list)


class Inspect:
    """Are documents whole by their names, signed and brought up to date where they wait, and is their place there
    where they are published? Said before the order. A serving side that does not answer is a fact and no failure.
    Where nobody brings them, a planned move fails; an unplanned one is told."""

    kind: ClassVar[str] = "files.inspect"
    version: ClassVar[int] = 1
    params: ClassVar[type[Any]] = InspectParams
    idempotent: ClassVar[bool] = True
    mutates: ClassVar[bool] = False

    def describe(self, params: InspectParams, parts: Parts) -> Description:
        host = parts.hosts[params.host]
        commands = [f"{host.name}: {params.published} can be published, closed and opened"]
        touches = [Touch(host.site, host.address)]
        if params.serves:
            commands.insert(0, f"{host.name}: {params.directory} and its {params.manifest} are there")
            return Description(tuple(commands), tuple(touches), Undo.NONE_NEEDED)
        commands[:0] = [
            f"{host.name}: in {params.directory}: the names of {params.manifest}, and no other",
            f"ssh-keygen -Y verify -n continuity-manifest -s {params.manifest}.sig by {params.public_key}",
        ]
        endpoint = urlsplit(host.manager.url).netloc if host.manager else host.address
        commands.append(f"{endpoint}: state of {params.unit}")
        touches.append(Touch(host.site, endpoint))
        if params.as_of:
            commands.append(f"{host.name}: read {params.as_of}")
        return Description(tuple(commands), tuple(dict.fromkeys(touches)), Undo.NONE_NEEDED)

    def load(self, context: Context[InspectParams]) -> None:
        import cryptography.hazmat.primitives.asymmetric.ed25519  # noqa: F401

        from orchestrator.drivers import (  # noqa: F401  # noqa: F401
            files_as_of_host,
            files_host,
            files_verify_host,
            sshsig,
            supervisor,
            waiting,
        )

        waiting.load()

    def check(self, context: Context[InspectParams]) -> Finding:
        outcome = self.execute(context)
        if isinstance(outcome, Succeeded):
            return Finding(FindingKind.DONE, "", outcome.evidence)
        return Finding(FindingKind.NOT_DONE, getattr(outcome, "message", ""))

    def execute(self, context: Context[InspectParams]) -> Outcome:
        params = context.params
        for command in self.describe(params, context.parts).commands:
            context.record(command)
        try:
            seen = self._look(context)
        except (TransientError, TimeoutError) as error:
            text = f"documents on {params.host} could not be looked at: {error}"
            if params.serves:
                return Succeeded({"host": params.host, "reachable": False, "findings": []})
            return Failed(text, retryable=True)
        findings: list[Json] = [{"text": t, "mend": m} for t, m in (*seen.surely, *seen.noteworthy)]
        evidence: dict[str, Json] = {
            "host": params.host, "reachable": True, **seen.facts, "findings": findings,
        }  # fmt: skip
        if not seen.surely:
            return Succeeded(evidence)
        text = "; ".join(text for text, _ in seen.surely)
        return Failed(
            f"documents on {params.host} would hold the run: {text}", retryable=True, evidence=evidence
        )

    def undo(self, context: Context[InspectParams]) -> Outcome:
        return Succeeded()

    # --- asking ---------------------------------------------------------------------------------

    def _look(self, context: Context[InspectParams]) -> _Seen:
        from orchestrator.drivers import waiting

        seen = _Seen()
        runs = not context.params.serves and _replicator(context, seen)
        beside, seen.surely = seen.surely, []

        def again(left_seconds: float) -> Finding:
            seen.surely = list(_documents(context, seen))
            return Finding(FindingKind.NOT_DONE if seen.surely else FindingKind.DONE)

        if runs:  # it may be in the middle of a copy
            waiting.until_done(context, again, SETTLE_SECONDS_MAX, waiting.Pace(*POLL_SECONDS))
        else:
            again(LOOK_SECONDS_MAX)
        seen.surely = [*seen.surely, *_place(context, seen), *beside]
        if context.params.as_of and not context.params.serves:
            _as_of(context, seen)
        return seen


def _ask(context: Context[InspectParams], script: Any, arguments: dict[str, Json]) -> Any:
    connection = context.hosts.connect(context.parts.hosts[context.params.host])
    return connection.call(script, arguments, timeout_seconds=min(LOOK_SECONDS_MAX, context.seconds_left()))


def _documents(context: Context[InspectParams], seen: _Seen) -> Iterator[Remark]:
    """What would surely hold the run about the folder, its names and its manifest."""
    from orchestrator.drivers import files_verify_host, sshsig

    params = context.params
    found = _ask(
        context, files_verify_host.names, {"directory": params.directory, "manifest": params.manifest}
    )
    seen.facts |= {"files": found["files"], "now_ns": found["now_ns"]}
    bring = f"let {params.unit} on {params.host} bring it whole, or mend the runbook"
    if not found["is_there"]:
        yield f"{params.directory}: there is no such directory", bring
        return
    if found["manifest"] is None:
        yield f"{params.directory}: there is no manifest {params.manifest}", bring
        return
    if params.serves:  # what is just being taken has a name before it is in the manifest
        return
    try:
        sshsig.verify(
            sshsig.public_key(params.public_key), found["signature"] or "", found["manifest"].encode()
        )
    except ContinuityError as error:
        yield f"signature: {error}", f"let the owner of {params.public_key} sign the manifest; {bring}"
    mend = (
        f"on {params.host} move out of {params.directory} what nobody signed, or let its owner sign it;"
        f" what is missing is brought by {params.unit}"
    )
    for text in found["problems"]:
        yield text, mend
    if more := found["problem_count"] - len(found["problems"]):
        yield f"and {more} more", mend
    unfinished = (
        f"{params.directory}: not all names could be compared within {LOOK_SECONDS_MAX:g} s",
        "continuity probe, where time does not press",
    )
    seen.noteworthy = [remark for remark in seen.noteworthy if remark != unfinished]
    if not found["is_whole"]:
        seen.noteworthy.append(unfinished)


def _place(context: Context[InspectParams], seen: _Seen) -> Iterator[Remark]:
    """What would surely hold the run where documents are published, closed and opened; and whether new ones are
    taken there now."""
    from orchestrator.drivers import files_host

    params = context.params
    found = _ask(context, files_host.look, {"published": params.published})
    seen.facts["takes"] = found["mode"] == files_host.TAKES and found["target"] is not None
    if found["message"]:
        yield found["message"], f"look at {params.published}.epoch on {params.host}: it was written by hand"
    if not found["is_free"]:
        yield (
            f"{params.published} is not a link: it was made by somebody else",
            f"move it away on {params.host}",
        )
    if params.serves and not found["has_folder"]:
        yield f"{params.published}: nothing was ever published here", "mend `published` in the runbook"


def _replicator(context: Context[InspectParams], seen: _Seen) -> bool:
    """Does it run? What is amiss with it is noted; a unit that its manager does not know cannot be stopped later. A
    planned move would close publication and then wait for what nobody brings."""
    from orchestrator.drivers import supervisor

    params = context.params
    host = context.parts.hosts[params.host]
    try:
        left = min(LOOK_SECONDS_MAX, context.seconds_left())
        manager = supervisor.manager_of(host)
        now = supervisor.state(manager, params.unit, context.secrets, timeout_seconds=left)
    except InputError:
        raise
    except supervisor.NoSuchUnitError as error:
        text = f"{params.unit} on {params.host}: its manager knows no unit of that name ({error})"
        seen.surely.append((text, f"mend `replicator-unit` in the runbook, or give {params.host} the unit"))
        return False
    except ContinuityError as error:
        text = f"whether {params.unit} runs on {params.host} is not known: {error}"
        seen.noteworthy.append((text, f"look at the manager of {params.host}"))
        return False
    seen.facts["replicator"] = now.name
    if now.name != "running":
        why = f" ({now.detail})" if now.detail else ""
        text = f"{params.unit} on {params.host} is {now.name}{why}: new documents do not come"
        holds = context.operation is not Operation.FAILOVER and now.name not in supervisor.RUNS
        (seen.surely if holds else seen.noteworthy).append(
            (text, supervisor.start_command(host, params.unit))
        )
    return now.name in supervisor.RUNS


def _as_of(context: Context[InspectParams], seen: _Seen) -> None:
    """How old is the last moment at which surely all documents were here?"""
    from orchestrator.drivers import files_as_of_host

    params = context.params
    found = _ask(context, files_as_of_host.as_of, {"as_of": params.as_of})
    mend = f"see what keeps {params.unit} on {params.host} from copying all that the other side has"
    if found["at_ns"] is None:
        why = found["message"] or f"{params.as_of}: {params.unit} never said that all documents were here"
        seen.noteworthy.append((f"{why}: a failover now could not state what is lost", mend))
        return
    now_ns = seen.facts["now_ns"]
    assert isinstance(now_ns, int)
    age_ms = (now_ns - found["at_ns"]) // 1_000_000
    seen.facts["as_of_ns"] = found["at_ns"]
    if age_ms > params.stale_ms:
        text = f"{params.host}: all documents were last here {duration_text(age_ms)} ago, says {params.as_of}"
        seen.noteworthy.append((text, mend))
