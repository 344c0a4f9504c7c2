"""Decides how replicated documents change sides; must never publish what no signed manifest covers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.core.values import ComponentRef, HostRef, Name, SiteRef, Template


@dataclass(frozen=True, slots=True)
class FilesAt:
    """Documents at one site. ``replicator_unit``: the program there that brings them from the other site."""

    host: HostRef
    directory: Template
    published: Template
    replicator_unit: str


@dataclass(frozen=True, slots=True)
class Files:
    """Documents replicated as files, listed in a signed manifest; published under the group's epoch.

    ``manifest``: its name in the directory, its signature beside it as ``MANIFEST.sig``.
    ``public_key``: the signer's SSH public key.
    """

    name: Name
    at: Mapping[SiteRef, FilesAt]
    public_key: str
    manifest: str = "MANIFEST"
    needs: tuple[ComponentRef, ...] = ()
