"""Decides what a PostgreSQL database contributes to each operation; must never move a cluster twice.

The cluster's steps belong to the cluster, however many services use it (semantics 6.1).
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.values import ClusterRef, ComponentRef, Name


@dataclass(frozen=True, slots=True)
class PostgreSQL:
    """A database of a cluster that the estate declares; the cluster moves once for all its services."""

    name: Name
    cluster: ClusterRef
    database: str
    reconcile: tuple[str, ...] = ()
    needs: tuple[ComponentRef, ...] = ()
