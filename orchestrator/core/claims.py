"""Decides what the claims that stand beside names, routes and documents say against the log; must never
take the absence of a claim, or a silent server, for agreement.

Every part that is switched carries (epoch, site, run) beside it. The log of one machine may be old or
lost: before anything is changed they are compared (semantics: whose truth).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from orchestrator.core.values import Json

PLACES_MAX = 3
CONTRADICTIONS = "contradictions"
"""Where a step's evidence says what stands against the log: ``adopt`` is then what helps."""


@dataclass(frozen=True, slots=True)
class Witness:
    """Something that carries a claim: a name on a server, a backend of a proxy, published documents.

    ``part``: the name server, proxy or host that is asked; ``subject``: the name, backend or path.
    """

    kind: str  # dns | haproxy | files
    part: str
    subject: str

    def arguments(self) -> dict[str, Json]:
        return {"kind": self.kind, "part": self.part, "subject": self.subject}


@dataclass(frozen=True, slots=True)
class Claimed:
    """What one witness said. ``at``: the site it stands at; ``site``: whose right it knows of."""

    where: str
    at: str
    epoch: int
    site: str
    run: str

    def evidence(self) -> Mapping[str, Json]:
        return {"where": self.where, "at": self.at, "epoch": self.epoch, "site": self.site, "run": self.run}


def contradictions(
    claims: Iterable[Claimed], epoch: int, site: str, taken_back: Collection[str] = ()
) -> list[str]:
    """What stands against (epoch, site) being the newest right to write. A claim that is older does not,
    nor a newer one of a run that this log knows to have been taken back. One sentence per right that is claimed,
    the newest first."""
    against: dict[tuple[int, str], list[Claimed]] = {}
    for claim in claims:
        newer = claim.epoch > epoch and claim.run not in taken_back
        if newer or (claim.epoch == epoch and claim.site != site):
            against.setdefault((claim.epoch, claim.site), []).append(claim)
    found = []
    for (their_epoch, their_site), those in sorted(against.items(), reverse=True):
        runs = ", ".join(sorted({claim.run for claim in those if claim.run}))
        by = f" (run {runs})" if runs else ""
        found.append(
            f"epoch {their_epoch} of {their_site}{by} is claimed by {places(claim.where for claim in those)}, "
            f"the log knows epoch {epoch} of {site}"
        )
    return found


def places(wheres: Iterable[str]) -> str:
    """The first few places by name, and how many there are: what people can read at night."""
    known = list(dict.fromkeys(wheres))
    shown = ", ".join(known[:PLACES_MAX])
    return shown if len(known) <= PLACES_MAX else f"{shown} and {len(known) - PLACES_MAX} more places"


def newest(claims: Iterable[Claimed]) -> tuple[int, frozenset[str]]:
    """The highest epoch that any claim knows and the sites named with it; (0, none) without claims."""
    known = list(claims)
    top = max((claim.epoch for claim in known), default=0)
    return top, frozenset(claim.site for claim in known if claim.epoch == top)
