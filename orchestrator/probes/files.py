"""Decides whether replicated documents are whole and signed; must never repair them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from orchestrator.core.model import Host
from orchestrator.core.values import Json
from orchestrator.errors import ContinuityError, PermanentError
from orchestrator.ports import Hosts, Report, Secrets


@dataclass(frozen=True, slots=True)
class FilesProbeParams:
    """``manifest``: relative paths from the directory. ``public_key``: a line ``ssh-ed25519 AAAA…``.

    With ``source`` and ``source_manifest`` an equal manifest there is expected, too.
    """

    host: Host
    directory: str
    manifest: str
    public_key: str
    source: Host | None = None
    source_manifest: str = ""


class FilesProbe:
    """up: whole, signed, and equal to the source · degraded: whole, but behind the source · down: not
    what was signed · unknown: could not be read."""

    kind: ClassVar[str] = "files"
    params: ClassVar[type[Any]] = FilesProbeParams

    def look(
        self, params: FilesProbeParams, *, timeout_seconds: float, hosts: Hosts, secrets: Secrets
    ) -> Report:
        del secrets
        from orchestrator.drivers import files_host, files_verify_host, sshsig

        arguments: dict[str, Json] = {"directory": params.directory, "manifest": params.manifest}
        try:
            seen = hosts.connect(params.host).call(
                files_verify_host.verify, arguments, timeout_seconds=timeout_seconds
            )
        except (ContinuityError, TimeoutError) as error:
            return Report("unknown", str(error))
        facts: dict[str, Json] = {
            "files": seen["files"],
            "bytes": seen["bytes"],
            "manifest_sha256": seen["digest"],
        }
        problems = list(seen["problems"])
        try:
            sshsig.verify(params.public_key, seen["signature"], seen["manifest"].encode())
        except PermanentError as error:
            problems.insert(0, f"signature: {error}")
        if problems:
            return Report("down", "; ".join(problems[:5]), facts)
        if params.source is None:
            return Report("up", f"{seen['files']} documents are whole and signed", facts)
        try:
            there = hosts.connect(params.source).call(
                files_host.digest, {"manifest": params.source_manifest}, timeout_seconds=timeout_seconds
            )
        except (ContinuityError, TimeoutError) as error:
            return Report("up", f"{seen['files']} documents are whole and signed; source: {error}", facts)
        if there["digest"] != seen["digest"]:
            return Report("degraded", "whole and signed, but not what the source has now", facts)
        return Report("up", f"{seen['files']} documents are whole, signed and equal to the source", facts)
