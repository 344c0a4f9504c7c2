"""Decides how a service's names come to point at the active site; must never update without the epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from orchestrator.core.claims import Witness
from orchestrator.core.model import Estate, Stage
from orchestrator.core.move import (
    OPENS,
    QUICK_RETRY,
    Contribution,
    Placed,
    as_moving,
    must_stand_at,
)
from orchestrator.core.plan import Draft, Role
from orchestrator.core.values import (
    ComponentRef,
    DnsName,
    Milliseconds,
    Name,
    NameServerRef,
    Secret,
    SiteRef,
)
from orchestrator.errors import InputError

UPDATE_MS = 3_000


@dataclass(frozen=True, slots=True)
class Record:
    """One name. Its value at a site is the front address of ``proxy``'s first proxy there, or stands in ``at``."""

    name: DnsName
    ttl_ms: Milliseconds
    type: Literal["A", "AAAA", "CNAME"] = "A"
    proxy: ComponentRef = ""
    at: Mapping[SiteRef, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Dns:
    """Names on authoritative servers of both sites, changed by signed updates that compare the epoch.

    ``zone``: left out, what follows the first label of each record's name.
    """

    name: Name
    servers: Mapping[SiteRef, NameServerRef]
    key: Secret
    records: tuple[Record, ...]
    key_name: DnsName = "continuity."
    key_algorithm: Literal["hmac-sha256", "hmac-sha384", "hmac-sha512"] = "hmac-sha256"
    zone: DnsName = ""
    needs: tuple[ComponentRef, ...] = ()

    def unit_in(self, service: str) -> str:
        return f"{service}/{self.name}"

    def address_at(self, estate: Estate, site: str) -> str:
        server = self.servers.get(site)
        return estate.name_servers[server].address if server else ""

    def contribute(self, placed: Placed) -> Contribution:
        """Every record on the server of each side; a reprotect moves nobody and renames nothing."""
        move, service = placed.move, placed.runbook.name
        unit = self.unit_in(service)
        drafts: list[Draft] = []
        if move.moves:
            must_stand_at(unit, move.target, tuple(filter(None, [self.servers.get(move.target)])))
            for site in (move.target, move.source):
                if site in self.servers:
                    drafts += [self._update(placed, site, record) for record in self.records]
        witnesses = [
            Witness("dns", server, record.name) for server in self.servers.values() for record in self.records
        ]
        return Contribution(unit, service, tuple(drafts), witnesses=tuple(witnesses))

    def _update(self, placed: Placed, site: str, record: Record) -> Draft:
        move, server = placed.move, self.servers[site]
        is_target = site == move.target
        _, _, rest = record.name.partition(".")
        name = f"{record.name.removesuffix('.')}-{record.type.lower()}"
        key = f"update-{site}" if len(self.records) == 1 else f"update-{site}-{name}"
        value = self._value(placed, record)
        best = "" if is_target else "; best effort, owed until it is done"
        return Draft(
            key, Stage.CUTOVER, Role.ROUTE, f"point {record.name} at {move.target} on {server} of {site}",
            "whoever asks anew is sent to the site that holds the epoch; the server itself refuses an older "
            f"one{best}",
            "dns.update",
            {
                "server": server, "zone": self.zone or rest, "name": record.name, "type": record.type,
                "ttl_ms": record.ttl_ms, "value": value, "key_name": self.key_name,
                "key_algorithm": self.key_algorithm, "key": self.key, "site": move.target,
                "epoch": move.epoch_next, "expect_site": move.holder, "expect_epoch": move.epoch_seen,
            },
            UPDATE_MS, (), OPENS, up=is_target, best_effort=not is_target,
            retry=QUICK_RETRY if is_target else move.retry_at_source(),
        )  # fmt: skip

    def _value(self, placed: Placed, record: Record) -> str:
        """The record's value at the target. InputError if nothing says it."""
        target = placed.move.target
        if record.proxy:
            door = placed.runbook.components[record.proxy]
            value = as_moving(door).address_at(placed.move.estate, target)
        else:
            value = " ".join(record.at.get(target, ()))
        if not value:
            raise InputError(f"{self.unit_in(placed.runbook.name)}: {record.name} has no value at {target}")
        return value
