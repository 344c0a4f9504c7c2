"""Decides what becomes of documents that a side which lost the right to publish holds alone: ``files.keep``.

They are listed by name and hash and kept aside before replication turns round; none is deleted or changed. A
side that published after the other had taken over is of a split brain: nothing turns before people resolve it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from orchestrator.core.outcomes import Failed, Finding, FindingKind, Outcome, Succeeded, Unknown
from orchestrator.core.plan import Parts, Touch, Undo
from orchestrator.core.values import HostRef, Json, SiteRef, Template
from orchestrator.errors import ContinuityError, PermanentError, TransientError
from orchestrator.ports import Context, Description

LISTED_MAX = 1_000
LOOK_SECONDS_MAX = 10.0
RUN = "${run}"  # stands for the run's id where people see what is done


@dataclass(frozen=True, slots=True)
class KeepParams:
    """``source_host`` may publish, by ``epoch`` of ``site``; ``host`` may not. ``published``: the link that the
    service reads there, at either side. ``resolved``: people have decided that the source's history stands."""

    host: HostRef
    directory: Template
    manifest: Template
    published: Template
    source_host: HostRef
    source_manifest: Template
    source_published: Template
    epoch: int
    site: SiteRef
    resolved: bool = False


class Keep:
    """Compare both sides' manifests; copy what the closed side alone holds to a folder of its own."""

    kind: ClassVar[str] = "files.keep"
    version: ClassVar[int] = 1
    params: ClassVar[type[Any]] = KeepParams
    idempotent: ClassVar[bool] = True
    mutates: ClassVar[bool] = True

    def describe(self, params: KeepParams, parts: Parts) -> Description:
        commands = (
            f"{params.host}: {params.published}.mode is read-only, nobody holds {params.published}.taking",
            f"compare {params.host}:{params.manifest} with {params.source_host}:{params.source_manifest}",
            f"{params.host}: copy what is only there, or other there, to {_folder(params, RUN)}",
        )
        touches = tuple(
            Touch(parts.hosts[host].site, parts.hosts[host].address)
            for host in (params.host, params.source_host)
        )
        return Description(commands, touches, Undo.NONE_NEEDED)

    def load(self, context: Context[KeepParams]) -> None:
        from orchestrator.drivers import files_history, files_host, files_keep_host  # noqa: F401

    def check(self, context: Context[KeepParams]) -> Finding:
        from orchestrator.drivers import files_keep_host
        from orchestrator.drivers.files_history import Different

        params = context.params
        folder = _folder(params, context.run)
        try:
            rows = _call(context, params.host, files_keep_host.look, {"folder": folder})["rows"]
            outcome = self._look(context) if rows is None else None
        except (ContinuityError, TimeoutError) as error:
            return Finding(FindingKind.CANNOT_TELL, str(error))
        if rows is not None:
            found = [Different(row["document"], row["lost"], row["kept"]) for row in rows]
            return Finding(FindingKind.DONE, "", _evidence(params, found, folder))
        if isinstance(outcome, Succeeded):
            return Finding(FindingKind.DONE, "", outcome.evidence)
        return Finding(FindingKind.NOT_DONE, "documents that are only there are not kept aside yet")

    def execute(self, context: Context[KeepParams]) -> Outcome:
        try:
            found = self._look(context)
            return self._keep(context, found) if isinstance(found, list) else found
        except TransientError as error:
            return Failed(str(error), retryable=True)
        except (PermanentError, TimeoutError) as error:
            return Unknown(str(error))

    def _look(self, context: Context[KeepParams]) -> Outcome | list[Any]:
        """What is to be kept; an outcome where there is nothing, or nothing may be done yet."""
        from orchestrator.drivers import files_history, files_host

        params = context.params
        theirs: dict[str, Json] = {"published": params.published, "manifest": params.manifest}
        ours: dict[str, Json] = {"published": params.source_published, "manifest": params.source_manifest}
        seen = _call(context, params.host, files_host.holding, theirs)
        kept = _call(context, params.source_host, files_host.holding, ours)
        for host, side in ((params.host, seen), (params.source_host, kept)):
            if side["message"]:
                return Failed(f"{host}: {side['message']}")
        if kept["text"] is None:
            return Failed(f"{params.source_host}: {params.source_manifest}: there is no manifest")
        if seen["mode"] == files_history.OPEN or seen["taking"]:
            return Failed(f"{params.published} on {params.host} still takes documents", retryable=True)
        ours_held, theirs_held = files_history.holding(kept), files_history.holding(seen)
        for host, manifest, held in (
            (params.host, params.manifest, theirs_held),
            (params.source_host, params.source_manifest, ours_held),
        ):
            if held.unread:
                return Failed(
                    f"{host}: {manifest}: line {held.unread} is not `HASH  NAME` (a name cannot hold a newline): what it"
                    " names could be neither compared nor kept. People mend the manifest"
                )
        found = files_history.beyond(ours_held, theirs_held, params.epoch, params.site)
        if not found.documents:
            return Succeeded(_evidence(params, (), ""))
        if found.is_second and not params.resolved:
            return Failed(
                f"{params.host} is of a split brain: {found.text()}; none of them was changed. People decide first"
                " whose history stands: continuity abort --reason TEXT, then continuity status --live, which names the group",
                evidence={"conflict": found.evidence()},
            )
        return list(found.documents)

    def _keep(self, context: Context[KeepParams], found: Sequence[Any]) -> Outcome:
        from orchestrator.drivers import files_keep_host

        params, folder = context.params, _folder(context.params, context.run)
        context.record(f"{params.host}: keep {len(found)} documents of {params.directory} in {folder}")
        rows: list[Json] = [
            {"document": each.document, "kind": each.kind, "lost": each.lost, "kept": each.kept}
            for each in found
        ]
        arguments: dict[str, Json] = {
            "directory": params.directory, "manifest": params.manifest, "folder": folder, "rows": rows,
        }  # fmt: skip
        connection = context.hosts.connect(context.parts.hosts[params.host])
        done = connection.call(files_keep_host.keep, arguments, timeout_seconds=context.seconds_left())
        if done["problem"]:
            return Failed(f"{params.host}: nothing was kept aside, and nothing changed: {done['problem']}")
        changed: list[Json] = list(done["changed"])
        return Succeeded({**_evidence(params, found, folder), "bytes": done["bytes"], "changed": changed})

    def undo(self, context: Context[KeepParams]) -> Outcome:
        return Succeeded()


def _folder(params: KeepParams, run: str) -> str:
    return f"{params.published}.diverged/{run}"


def _call(context: Context[KeepParams], host: str, script: Any, arguments: dict[str, Json]) -> Any:
    bound = min(LOOK_SECONDS_MAX, context.seconds_left())
    return context.hosts.connect(context.parts.hosts[host]).call(script, arguments, timeout_seconds=bound)


def _evidence(params: KeepParams, found: Sequence[Any], folder: str) -> dict[str, Json]:
    """``diverged``: the first of them by name and hash; all are in the list beside what is kept."""
    only = sum(not each.kept for each in found)
    because = f"{only} documents only there, {len(found) - only} with other content" if found else ""
    return {
        "host": params.host,
        "how": "kept aside" if found else "",
        "because": because,
        "kept": folder,
        "only": only,
        "differ": len(found) - only,
        "diverged": [
            {"document": each.document, "kind": each.kind, "lost": each.lost, "kept": each.kept}
            for each in found[:LISTED_MAX]
        ],
    }
