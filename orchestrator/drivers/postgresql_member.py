"""Decides where one member of a cluster stands and what its names are there; must never open anything.

Pure: actions describe their commands with it. LSNs are text 'X/Y'; as numbers they are bytes since
the beginning of the log.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.core.model import Cluster, Host
from orchestrator.core.plan import Parts, Touch
from orchestrator.core.templates import host_values, resolve

REPLAY_BYTES_PER_MS = 140_000  # what a standby replays while it is promoted; measured, conservative
PROMOTE_MS = 40


@dataclass(frozen=True, slots=True)
class Member:
    """One server of a cluster: the cluster as its host sees it."""

    cluster: Cluster
    host: Host

    @property
    def data_directory(self) -> str:
        return self._here(self.cluster.data_directory)

    @property
    def config_directory(self) -> str:
        return self._here(self.cluster.config_directory)

    @property
    def evidence_directory(self) -> str:
        """Where old histories are kept; beside the data directory unless the estate says so."""
        return self._here(self.cluster.evidence_directory) or self.data_directory.rstrip("/") + ".evidence"

    @property
    def ca(self) -> str:
        return self._here(self.cluster.tls.ca)

    @property
    def slot(self) -> str:
        """Its replication slot at whatever primary it follows."""
        return re.sub(r"[^a-z0-9_]", "_", self.host.name.lower())

    @property
    def config_file(self) -> str:
        return f"{self.config_directory}/postgresql.conf"

    @property
    def role_file(self) -> str:
        """The included file that a role change rewrites."""
        return f"{self.config_directory}/continuity.conf"

    @property
    def password_file(self) -> str:
        return f"{self.config_directory}/continuity.pgpass"

    @property
    def endpoint(self) -> str:
        return f"{self.host.address}:{self.cluster.port}"

    @property
    def touch(self) -> Touch:
        return Touch(self.host.site, f"postgresql {self.endpoint}")

    @property
    def touches(self) -> tuple[Touch, ...]:
        """The server and the host it runs on."""
        return (self.touch, Touch(self.host.site, f"host {self.host.name} ({self.host.address})"))

    def tool(self, name: str) -> str:
        """The path of a PostgreSQL program on this host."""
        return f"{self._here(self.cluster.bin_directory)}/{name}" if self.cluster.bin_directory else name

    def _here(self, text: str) -> str:
        return resolve(text, host_values(self.host))


def member(parts: Parts, cluster: str, host: str) -> Member:
    """The member of a plan's cluster that runs on a host."""
    return Member(parts.clusters[cluster], parts.hosts[host])


def members(parts: Parts, cluster: str, sites: Iterable[str] = ()) -> tuple[Member, ...]:
    """Every member, or those at ``sites``, in the order of the estate."""
    wanted = tuple(sites)
    declared = parts.clusters[cluster].members
    return tuple(
        member(parts, cluster, host)
        for site, hosts in declared.items()
        if not wanted or site in wanted
        for host in hosts
    )


def lsn_number(text: str) -> int:
    """``16/B374D848`` as bytes since the beginning of the log."""
    high, low = text.split("/")
    return (int(high, 16) << 32) + int(low, 16)


def lsn_text(number: int) -> str:
    """The text of an LSN, as PostgreSQL writes it."""
    return f"{number >> 32:X}/{number & 0xFFFFFFFF:X}"


def bytes_between(ahead: str | None, behind: str | None) -> int | None:
    """How many bytes ``ahead`` is ahead, at least 0; None when either is not known."""
    if not ahead or not behind:
        return None
    return max(0, lsn_number(ahead) - lsn_number(behind))


def highest(*lsns: str | None) -> str | None:
    """The highest of the LSNs that are known."""
    return max((lsn for lsn in lsns if lsn), key=lsn_number, default=None)


def promote_ms(backlog_bytes: int) -> int:
    """How long a promotion will take: it first replays all that was received."""
    return PROMOTE_MS + backlog_bytes // REPLAY_BYTES_PER_MS


def parse_control_data(text: str) -> dict[str, str]:
    """The output of pg_controldata (LC_ALL=C) by its labels."""
    found = {}
    for line in text.splitlines():
        label, colon, value = line.partition(":")
        if colon:
            found[label.strip()] = value.strip()
    return found
