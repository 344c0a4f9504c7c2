"""Decides which documents are shown at a site: verified against a signed manifest (``files.verify``) and
published under an epoch (``files.publish``). Must never delete a document.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from orchestrator.core.outcomes import Failed, Finding, FindingKind, Outcome, Succeeded, Unknown
from orchestrator.core.plan import Parts, Touch, Undo
from orchestrator.core.values import HostRef, Json, SiteRef, Template
from orchestrator.errors import ContinuityError, PermanentError, TransientError
from orchestrator.ports import Context, Description


@dataclass(frozen=True, slots=True)
class VerifyParams:
    """``manifest``: a path, relative ones from ``directory``; its signature stands beside it as ``.sig``.
    ``public_key``: a line ``ssh-ed25519 AAAA…``, or the path of a file with one."""

    host: HostRef
    directory: Template
    manifest: Template
    public_key: Template


class Verify:
    """Every listed document is there and equal, nothing else is there, and the manifest is signed."""

    kind: ClassVar[str] = "files.verify"
    version: ClassVar[int] = 1
    params: ClassVar[type[Any]] = VerifyParams
    idempotent: ClassVar[bool] = True
    mutates: ClassVar[bool] = False

    def describe(self, params: VerifyParams, parts: Parts) -> Description:
        commands = (
            f"{params.host}: in {params.directory}: sha256sum --check {params.manifest}, and nothing unlisted",
            f"ssh-keygen -Y verify -n continuity-manifest -s {params.manifest}.sig by {params.public_key}",
        )
        return Description(commands, (_touch(params.host, parts),), Undo.NONE_NEEDED)

    def load(self, context: Context[VerifyParams]) -> None:
        import cryptography.hazmat.primitives.asymmetric.ed25519  # noqa: F401

        from orchestrator.drivers import files_verify_host, sshsig  # noqa: F401

        sshsig.public_key(context.params.public_key)

    def check(self, context: Context[VerifyParams]) -> Finding:
        outcome = self.execute(context)
        match outcome:
            case Succeeded(evidence):
                return Finding(FindingKind.DONE, "", evidence)
            case Failed(message, retryable):
                return Finding(FindingKind.CANNOT_TELL if retryable else FindingKind.NOT_DONE, message)
            case Unknown(message):
                return Finding(FindingKind.CANNOT_TELL, message)

    def execute(self, context: Context[VerifyParams]) -> Outcome:
        from orchestrator.drivers import files_verify_host, sshsig

        params = context.params
        arguments = {"directory": params.directory, "manifest": params.manifest}
        try:
            connection = context.hosts.connect(context.parts.hosts[params.host])
            seen = connection.call(
                files_verify_host.verify, arguments, timeout_seconds=context.seconds_left()
            )
        except (TransientError, TimeoutError) as error:
            return Failed(str(error), retryable=True)
        except PermanentError as error:
            return Failed(str(error))
        problems = list(seen["problems"])
        try:
            sshsig.verify(sshsig.public_key(params.public_key), seen["signature"], seen["manifest"].encode())
        except ContinuityError as error:
            problems.insert(0, f"signature: {error}")
        facts = {
            "host": params.host,
            "files": seen["files"],
            "bytes": seen["bytes"],
            "manifest_sha256": seen["digest"],
            "manifest_written_ns": seen["written_ns"],
        }
        if problems:
            more = seen["problem_count"] - len(seen["problems"])
            text = "; ".join(problems) + (f"; and {more} more" if more else "")
            return Failed(
                f"{params.directory} is not what was signed: {text}", evidence={**facts, "findings": problems}
            )
        return Succeeded(facts)

    def undo(self, context: Context[VerifyParams]) -> Outcome:
        return Succeeded()


@dataclass(frozen=True, slots=True)
class PublishParams:
    """``published``: a link that the service reads; ``.mode`` and ``.epoch`` stand beside it."""

    host: HostRef
    directory: Template
    published: Template
    mode: Literal["read-only", "full"]
    epoch: int
    site: SiteRef


class Publish:
    """Show the documents, in a mode, under an epoch."""

    kind: ClassVar[str] = "files.publish"
    version: ClassVar[int] = 1
    params: ClassVar[type[Any]] = PublishParams
    idempotent: ClassVar[bool] = True
    mutates: ClassVar[bool] = True

    def describe(self, params: PublishParams, parts: Parts) -> Description:
        commands = (
            f"{params.host}: under lock {params.published}.lock: refuse unless epoch {params.epoch} is newer",
            f"{params.host}: link {params.published} to {params.directory}",
            f"{params.host}: write {params.published}.mode: {params.mode}",
        )
        undo = (f"{params.host}: {params.published} and its mode as they were before this run",)
        return Description(commands, (_touch(params.host, parts),), Undo.UNDO, undo)

    def load(self, context: Context[PublishParams]) -> None:
        from orchestrator.drivers import files_host  # noqa: F401

    def check(self, context: Context[PublishParams]) -> Finding:
        from orchestrator.drivers import files_host

        params = context.params
        try:
            seen = self._call(context, files_host.look)
        except (ContinuityError, TimeoutError) as error:
            return Finding(FindingKind.CANNOT_TELL, str(error))
        if seen["message"]:
            return Finding(FindingKind.CANNOT_TELL, seen["message"])
        entry = seen["entry"]
        if entry is None or (entry["epoch"], entry["run"]) != (params.epoch, context.run):
            return Finding(FindingKind.NOT_DONE, f"published by {entry['run'] if entry else 'nobody yet'}")
        if seen["mode"] != params.mode or seen["target"] is None:
            return Finding(FindingKind.NOT_DONE, f"published as {seen['mode']}")
        if seen["taking"] and params.mode != "full":
            return Finding(FindingKind.NOT_DONE, "a document is still being taken")
        return Finding(FindingKind.DONE, "", _published(params, seen["target"]))

    def execute(self, context: Context[PublishParams]) -> Outcome:
        return self._publish(context, undo=False)

    def undo(self, context: Context[PublishParams]) -> Outcome:
        return self._publish(context, undo=True)

    def _publish(self, context: Context[PublishParams], *, undo: bool) -> Outcome:
        from orchestrator.drivers import files_host

        params = context.params
        context.record(f"{params.host}: {'undo ' if undo else ''}publish {params.published} {params.mode}")
        try:
            answer = self._call(context, files_host.publish, undo=undo)
        except TransientError as error:
            return Failed(str(error), retryable=True)
        except (PermanentError, TimeoutError) as error:
            return Unknown(str(error))
        match answer["result"]:
            case "done":
                return Succeeded(_published(params, answer["target"]) | {"mode": answer["mode"]})
            case "refused":
                return Failed(answer["message"])
            case _:
                return Unknown(answer["message"])

    def _call(self, context: Context[PublishParams], script: Any, *, undo: bool = False) -> Any:
        params = context.params
        arguments: dict[str, Json] = {
            "directory": params.directory,
            "published": params.published,
            "mode": params.mode,
            "epoch": params.epoch,
            "site": params.site,
            "run": context.run,
            "undo": undo,
        }
        connection = context.hosts.connect(context.parts.hosts[params.host])
        return connection.call(script, arguments, timeout_seconds=context.seconds_left())


def _published(params: PublishParams, target: str) -> dict[str, Any]:
    return {
        "host": params.host,
        "published": params.published,
        "target": target,
        "mode": params.mode,
        "epoch": params.epoch,
        "site": params.site,
    }


def _touch(host: str, parts: Parts) -> Touch:
    return Touch(parts.hosts[host].site, parts.hosts[host].address)
