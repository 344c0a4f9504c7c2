"""What others saw of a run: the logs of PostgreSQL, HAProxy, name server and process manager at both sites.

None of them knows of our log. Each is read from where it ended before an operation, so that what is counted
happened in that operation.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from orchestrator.lab import postgres
from orchestrator.lab.layout import SERVICE_HOSTS, SITES, Lab, SiteName, other

PARTS = ("postgresql", "haproxy", "nameserver", "supervisord")
PROMOTED = "received promote request"


@dataclass(frozen=True, slots=True)
class Seen:
    """How often each effect was seen at each site while an operation ran. Keys: ``SITE: what``."""

    counts: Counter[str]

    def at(self, site: SiteName, what: str) -> int:
        return self.counts[f"{site}: {what}"]


class Witnesses:
    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._ends = {path: _size(path) for path in self._paths()}

    def _paths(self) -> list[Path]:
        return [self._lab.site(site).logs / f"{part}.log" for site in SITES for part in PARTS]

    def _since(self, site: SiteName, part: str) -> list[str]:
        path = self._lab.site(site).logs / f"{part}.log"
        if not path.exists():
            return []
        with path.open("rb") as log:
            log.seek(self._ends[path])
            return log.read().decode("utf-8", "replace").splitlines()

    def seen(self) -> Seen:
        counts: Counter[str] = Counter()
        for site in SITES:
            counts[f"{site}: promoted"] = sum(PROMOTED in line for line in self._since(site, "postgresql"))
            for service, name in SERVICE_HOSTS.items():
                for server in ("here", "there"):
                    opened = f"Server {service}/{server} is UP/READY"
                    counts[f"{site}: {service} {server}"] = sum(
                        opened in line for line in self._since(site, "haproxy")
                    )
                counts[f"{site}: {name}"] = sum(
                    line.startswith("updated ") and f" {name}." in line.replace("updated", "", 1)
                    for line in self._since(site, "nameserver")
                )
                counts[f"{site}: started {service}"] = sum(
                    f"spawned: '{service}'" in line for line in self._since(site, "supervisord")
                )
                counts[f"{site}: stopped {service}"] = sum(
                    f"stopped: {service} " in line for line in self._since(site, "supervisord")
                )
        return Seen(counts)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def wrong(seen: Seen, kind: str, target: SiteName, *, is_source_dark: bool, is_back: bool) -> list[str]:
    """Effects of a move to ``target`` that were not seen exactly once where they belong, or were elsewhere.

    ``is_source_dark``: nothing at the site that is left saw anything. ``is_back``: the target was away when it
    was left; its proxy still leads to its own site, and all that starts by itself there runs already, unless it
    was stopped when the site became the follower.
    """
    source = other(target)
    wanted: Counter[str] = Counter({f"{target}: promoted": 1})
    wanted[f"{target}: started land-register"] = 0 if is_back and kind == "failback" else 1
    for service, name in SERVICE_HOSTS.items():
        wanted[f"{target}: {service} here"] = 0 if is_back else 1
        wanted[f"{target}: {name}"] = 1
        if not is_source_dark:
            wanted[f"{source}: {service} there"] = 1
            wanted[f"{source}: {name}"] = 1
    if kind != "failover":
        wanted[f"{source}: stopped land-register"] = 1
    keys = sorted(set(wanted) | set(seen.counts))
    return [
        f"{key}: seen {seen.counts[key]} times, not {wanted[key]}"
        for key in keys
        if seen.counts[key] != wanted[key]
    ]


def control_sessions(lab: Lab) -> list[str]:
    """Sessions of drivers that a server still knows."""
    found = []
    for site in SITES:
        with postgres.connect(lab, site, "postgres") as session:
            rows = session.execute(
                "SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'cty%%'"
                " AND usename = %s",
                (postgres.CONTROL,),
            ).fetchall()
        found += [f"{site}: {row[0]}" for row in rows]
    return found


def claim_files(lab: Lab, site: SiteName) -> list[Path]:
    return sorted(lab.site(site).run.glob("*.claim"))
