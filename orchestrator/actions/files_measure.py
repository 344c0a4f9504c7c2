"""Decides what is known of documents that never arrived (``files.measure``): until when surely all that the other
side took is here. The core states the loss from it; must never take the age of a document for that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from orchestrator.core.outcomes import Finding, FindingKind, Outcome, Succeeded
from orchestrator.core.plan import Parts, Touch, Undo
from orchestrator.core.values import HostRef, Json, Template
from orchestrator.errors import ContinuityError
from orchestrator.ports import Context, Description

BASIS = "fence proof's time - the replicator's last look at documents that were all here"
TRIES_MAX = 2
WITHOUT = "the replicator never said that all documents were here"


@dataclass(frozen=True, slots=True)
class MeasureParams:
    """``as_of``: the file in which the replicator keeps when it last began a look after which all was here."""

    host: HostRef
    as_of: Template


class Measure:
    """Until when everything that the other side took has arrived; the core states the loss from it."""

    kind: ClassVar[str] = "files.measure"
    version: ClassVar[int] = 1
    params: ClassVar[type[Any]] = MeasureParams
    idempotent: ClassVar[bool] = True
    mutates: ClassVar[bool] = False

    def describe(self, params: MeasureParams, parts: Parts) -> Description:
        host = parts.hosts[params.host]
        return Description(
            (f"{host.name}: read {params.as_of}",), (Touch(host.site, host.address),), Undo.NONE_NEEDED
        )

    def load(self, context: Context[MeasureParams]) -> None:
        from orchestrator.drivers import files_as_of_host  # noqa: F401

    def check(self, context: Context[MeasureParams]) -> Finding:
        return Finding(FindingKind.DONE, "", self.execute(context).evidence)

    def execute(self, context: Context[MeasureParams]) -> Succeeded:
        from orchestrator.drivers import files_as_of_host

        params = context.params
        arguments: dict[str, Json] = {"as_of": params.as_of}
        why_not = ""
        for _ in range(TRIES_MAX):
            try:
                connection = context.hosts.connect(context.parts.hosts[params.host])
                seconds = context.seconds_left() / TRIES_MAX
                seen = connection.call(files_as_of_host.as_of, arguments, timeout_seconds=seconds)
                return Succeeded(evidence_of(params.host, seen["at_ns"], seen["message"]))
            except (ContinuityError, TimeoutError) as error:
                why_not = f"{params.as_of}: {error}"
        return Succeeded(evidence_of(params.host, None, why_not))

    def undo(self, context: Context[MeasureParams]) -> Outcome:
        return Succeeded()


def evidence_of(host: str, at_ns: int | None, why_not: str = "") -> dict[str, Json]:
    """As ``core/loss.py`` reads it: the replicator's looks are the heartbeat that bounds idle documents. A file that
    says nothing, or a host, leaves the loss unknown, for people to accept: a failed measurement would hold up what moves
    with the documents, and nobody could let it go on."""
    return {
        "host": host, "durability": "local", "last_commit_ns": at_ns, "heartbeat_ns": at_ns, "basis": BASIS,
        "without": why_not or WITHOUT, "is_look": True,
    }  # fmt: skip
