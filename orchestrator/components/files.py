"""Decides how replicated documents change sides; must never publish what no signed manifest covers.

Nothing deletes across a role change: the old side takes no new documents, replication is stopped at both
ends, both are seen, the documents are verified, then published under the group's epoch, read-only first where the service
says so. Before replication turns round, what the side that was left behind alone holds is listed and kept aside.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from orchestrator.core.claims import Witness
from orchestrator.core.model import Estate, ProofKind, Stage
from orchestrator.core.move import (
    AUTHORISED,
    FENCE_RETRY,
    ONCE,
    OPENS,
    QUICK_RETRY,
    STANDARD_RETRY,
    Contribution,
    Placed,
    must_stand_at,
)
from orchestrator.core.plan import Draft, Gate, Role, Undo
from orchestrator.core.values import (
    ComponentRef,
    HostRef,
    Json,
    Name,
    SiteRef,
    Template,
    UnitName,
)

INSPECT_MS = 3_000
STALE_MS_MIN = 10_000
STALE_SHARE = 10  # a replicator looks many times within the loss that its owner can bear
STOP_MS = 15_000
VERIFY_MS = 30 * 60_000
PUBLISH_MS = 15_000
EPOCH_MS = 1_000
MEASURE_MS = 2_000
REPLICATE_MS = 4 * 3_600_000
DRAIN_MS = 5 * 60_000
"""Publication stands still meanwhile: what was never copied is brought before a move is ordered."""
VERIFIED = (Gate.AUTHORISED, Gate.FENCED, Gate.VERIFIED)


@dataclass(frozen=True, slots=True)
class FilesAt:
    """Documents at one site. ``replicator_unit``: the program there that brings them from the other site.
    ``as_of``: where it keeps, by this host's clock (``2026-11-24T17:22:33.344Z``), when it last began a look after
    which all that the other side had was here; with it a failover measures what may be missing, and people accept it.
    """

    host: HostRef
    directory: Template
    published: Template
    replicator_unit: UnitName
    as_of: Template = ""


@dataclass(frozen=True, slots=True)
class Files:
    """Documents replicated as files, listed in a signed manifest; published under the group's epoch.

    ``manifest``: its place seen from the directory, its signature beside it as ``MANIFEST.sig``.
    ``public_key``: the signer's SSH public key, or the file that holds it.
    """

    name: Name
    at: Mapping[SiteRef, FilesAt]
    public_key: str
    manifest: str = "MANIFEST"
    needs: tuple[ComponentRef, ...] = ()

    def unit_in(self, service: str) -> str:
        return f"{service}/{self.name}"

    def address_at(self, estate: Estate, site: str) -> str:
        place = self.at.get(site)
        return estate.hosts[place.host].address if place else ""

    def contribute(self, placed: Placed) -> Contribution:
        unit, move = self.unit_in(placed.runbook.name), placed.move
        for site in (move.source, move.target):
            must_stand_at(unit, site, (self.at[site].host,) if site in self.at else ())
        drafts = tuple(_Steps(self, placed).all())
        fenced = (self.at[move.source].host,) if move.moves else ()
        witnesses = tuple(
            Witness("files", place.host, placed.text(place.published, place.host))
            for place in self.at.values()
        )
        return Contribution(unit, placed.runbook.name, drafts, fenced, is_stateful=True, witnesses=witnesses)


class _Steps:
    """The steps of one component's documents in one operation."""

    def __init__(self, files: Files, placed: Placed) -> None:
        self.files, self.placed, self.move = files, placed, placed.move
        self.old, self.new = files.at[self.move.source], files.at[self.move.target]
        clusters = self.move.databases
        self.grants = self.move.moves and not clusters  # else the clusters' epoch is the group's
        self.measures = not self.move.is_planned and bool(self.new.as_of)
        accepted = (Gate.LOSS_ACCEPTED,) if self.measures and self.grants else ()
        self.safe = (*VERIFIED, *accepted)

    def all(self) -> Iterator[Draft]:
        move = self.move
        if move.reprotects:
            yield from self._turn_round()
        if not move.moves:
            return
        if not move.reprotects:
            yield self._inspect(self.new, move.target)
            yield self._inspect(self.old, move.source, serves=True)
        if move.is_planned:
            yield self._publish(
                "freeze", Stage.FREEZE, Role.FREEZE, self.old, "read-only", f"take no new documents at {self.old.host}",
                "what is published from here on would have to be carried over again", (), AUTHORISED,
            )  # fmt: skip
            yield self._replicate(
                "drain", Stage.DRAIN, Role.DRAIN, self.new, self.old,
                "a planned move loses nothing: both sites have an equal manifest before it goes on", ("freeze",),
                within_ms=DRAIN_MS,
            )  # fmt: skip
        yield from self._close_and_verify(("drain",) if move.is_planned else ())
        yield from self._take_over()
        if move.is_planned:
            yield self._replicate(
                "protect", Stage.COMMIT, Role.PROTECT, self.old, self.new,
                f"{move.source} receives the documents from now on: the way back stays open", ("publish",),
            )  # fmt: skip

    def _inspect(self, place: FilesAt, site: str, *, serves: bool = False) -> Draft:
        """An unplanned move never waits for what this finds: it is said before people confirm. A planned one looks
        again: documents may just be on their way."""
        arguments: dict[str, Json] = {
            "host": place.host, "directory": self._text(place.directory, place), "manifest": self.files.manifest,
            "public_key": self.files.public_key, "published": self._text(place.published, place),
            "unit": place.replicator_unit,
        }  # fmt: skip
        if serves:
            title = f"look at where documents are published on {place.host}"
            why = f"what cannot be closed at {site} holds the run after its order"
            arguments["serves"] = True
        else:
            title = f"look at the documents on {place.host}, at who brings them and since when"
            why = f"what nobody signed, or what is missing at {site}, would be found out only after the fence"
            if place.as_of:
                goal = self.placed.runbook.objectives.rpo_ms
                arguments["as_of"] = self._text(place.as_of, place)
                arguments["stale_ms"] = max(STALE_MS_MIN, goal // STALE_SHARE)
        return Draft(
            f"inspect-{place.host}", Stage.PREFLIGHT, Role.EVIDENCE, title, why, "files.inspect", arguments,
            INSPECT_MS, (), (), best_effort=not self.move.is_planned, retry=QUICK_RETRY if self.move.is_planned else ONCE,
        )  # fmt: skip

    def _turn_round(self) -> Iterator[Draft]:
        """The side that was left behind is closed, seen to be so and listed before anything is copied to it.
        None of this is taken back: it has no right to publish, whatever becomes of the run."""
        move = self.move
        source, target = move.source, move.target
        right: dict[str, Json] = {"epoch": move.epoch_seen, "site": source}
        published = {place.host: self._text(place.published, place) for place in (self.old, self.new)}
        closes: dict[str, Json] = {"published": published[self.new.host], **right, "follows": True}
        yield Draft(
            f"close-{target}", Stage.AUTHORISE, Role.CLOSE,
            f"take no new documents on {self.new.host}, stop replication there and see both",
            f"{target} has lost the right to publish: what it still took would be a second history",
            "files.stop-replicator", {**self._stop(self.new), **closes}, STOP_MS, (), AUTHORISED,
            retry=STANDARD_RETRY, undo=Undo.NONE_NEEDED,
        )  # fmt: skip
        yield Draft(
            f"hold-{source}", Stage.AUTHORISE, Role.CLOSE, f"stop replication on {self.old.host} and see it stopped",
            f"{source} publishes: nothing of the side that was left behind may be copied over it",
            "files.stop-replicator", self._stop(self.old), STOP_MS, (), AUTHORISED, retry=STANDARD_RETRY,
            undo=Undo.NONE_NEEDED,
        )  # fmt: skip
        decided: dict[str, Json] = {"resolved": True} if move.is_resolved else {}
        yield Draft(
            "keep", Stage.AUTHORISE, Role.REJOIN,
            f"list and keep aside what {self.new.host} alone holds",
            "evidence of a history that diverged is kept; replication would cover it", "files.keep",
            {
                "host": self.new.host, "directory": self._text(self.new.directory, self.new),
                "manifest": self._manifest(self.new), "published": published[self.new.host],
                "source_host": self.old.host, "source_manifest": self._manifest(self.old),
                "source_published": published[self.old.host], **right, **decided,
            },
            REPLICATE_MS, (f"close-{target}", f"hold-{source}"), AUTHORISED, retry=STANDARD_RETRY,
        )  # fmt: skip
        yield self._replicate(
            "reprotect", Stage.AUTHORISE, Role.PROTECT, self.new, self.old,
            f"{target} was left behind: without a copy there the next loss of {source} loses documents", ("keep",),
        )  # fmt: skip

    def _close_and_verify(self, drained: tuple[str, ...]) -> Iterator[Draft]:
        timeout = STOP_MS if self.move.is_planned else self.move.estate.policies.fence_budget_ms
        source, target = self.move.source, self.move.target
        yield Draft(
            f"stop-{source}", Stage.FENCE, Role.FENCE,
            f"take no new documents on {self.old.host}, stop replication there and see both",
            "what the old side still took would be missing here; nor may it change documents while they change hands",
            "files.stop-replicator", self._fence(self.old), timeout, drained, AUTHORISED, retry=FENCE_RETRY,
            fences=(self.old.host,), proves=ProofKind.DEMOTED,
        )  # fmt: skip
        yield Draft(
            f"stop-{target}", Stage.FENCE, Role.CLOSE, f"stop replication on {self.new.host} and see it stopped",
            "a replicator that still runs could carry the old side's state over what is published here",
            "files.stop-replicator", self._stop(self.new), STOP_MS, drained, AUTHORISED, retry=QUICK_RETRY,
        )  # fmt: skip
        yield Draft(
            "verify", Stage.VERIFY_DATA, Role.VERIFY, f"verify every document on {self.new.host}",
            "citizens are shown only what the owner signed: each listed document there and equal, nothing else",
            "files.verify",
            {
                "host": self.new.host, "directory": self._text(self.new.directory, self.new),
                "manifest": self.files.manifest, "public_key": self.files.public_key,
            },
            VERIFY_MS, (f"stop-{target}",), AUTHORISED, retry=QUICK_RETRY,
        )  # fmt: skip
        if self.measures:
            yield Draft(
                "measure", Stage.VERIFY_DATA, Role.LOSS, f"read until when all documents of {source} are here",
                "people accept a stated loss, after the fence, before anything is published here", "files.measure",
                {"host": self.new.host, "as_of": self._text(self.new.as_of, self.new)},
                MEASURE_MS, (), (*AUTHORISED, Gate.FENCED), retry=QUICK_RETRY,
            )  # fmt: skip

    def _take_over(self) -> Iterator[Draft]:
        move = self.move
        before: tuple[str, ...] = ("verify", "measure") if self.measures else ("verify",)
        if self.grants:
            yield Draft(
                "epoch", Stage.PROMOTE, Role.EPOCH, f"grant epoch {move.epoch_next} of {move.group} to {move.target}",
                "the right to publish is granted once, to one site; every later change compares it",
                "continuity.epoch", {"group": move.group, "site": move.target, "epoch": move.epoch_next},
                EPOCH_MS, before, self.safe, retry=QUICK_RETRY,
            )  # fmt: skip
            before = ("epoch",)
        modes = self.placed.runbook.modes
        first = "full" if modes[:1] == ("full",) else "read-only"
        yield self._publish(
            "publish", Stage.PROMOTE, Role.OPEN, self.new, first, f"publish the documents on {self.new.host} ({first})",
            f"{move.target} holds the epoch and the documents are whole", before, (*VERIFIED, Gate.GRANTED), up=True,
        )  # fmt: skip
        if first == "read-only" and "full" in modes:
            yield self._publish(
                "widen", Stage.WIDEN, Role.OPEN, self.new, "full", f"take new documents on {self.new.host}",
                "they are served from here: the service may offer the next mode that its owner allows",
                ("publish",), OPENS,
            )  # fmt: skip

    # --- arguments ----------------------------------------------------------------------------

    def _text(self, text: str, place: FilesAt) -> str:
        return self.placed.text(text, place.host)

    def _stop(self, place: FilesAt) -> dict[str, Json]:
        directory = self._text(place.directory, place)
        return {"host": place.host, "unit": place.replicator_unit, "directory": directory}

    def _fence(self, place: FilesAt) -> dict[str, Json]:
        published = self._text(place.published, place)
        return {
            **self._stop(place), "published": published, "epoch": self.move.epoch_next, "site": self.move.target,
        }  # fmt: skip

    def _publish(
        self, key: str, stage: Stage, role: Role, place: FilesAt, mode: str, title: str, why: str,
        needs: tuple[str, ...], gates: tuple[Gate, ...], *, up: bool = False,
    ) -> Draft:  # fmt: skip
        arguments: dict[str, Json] = {
            "host": place.host, "directory": self._text(place.directory, place),
            "published": self._text(place.published, place), "mode": mode,
            "epoch": self.move.epoch_next, "site": self.move.target,
        }  # fmt: skip
        return Draft(
            key, stage, role, title, why, "files.publish", arguments, PUBLISH_MS, needs, gates, up=up,
            retry=QUICK_RETRY,
        )  # fmt: skip

    def _replicate(
        self, key: str, stage: Stage, role: Role, to: FilesAt, source: FilesAt, why: str,
        needs: tuple[str, ...] = (), within_ms: int = REPLICATE_MS,
    ) -> Draft:  # fmt: skip
        arguments: dict[str, Json] = {
            "host": to.host, "unit": to.replicator_unit, "source_host": source.host,
            "manifest": self._manifest(to), "source_manifest": self._manifest(source),
            "published": self._text(to.published, to), "within_ms": within_ms,
        }  # fmt: skip
        return Draft(
            key, stage, role, f"let {to.host} receive from {source.host} until both manifests are equal", why,
            "files.start-replicator", arguments, within_ms, needs, AUTHORISED, retry=STANDARD_RETRY,
        )  # fmt: skip

    def _manifest(self, place: FilesAt) -> str:
        return joined(self._text(place.directory, place), self.files.manifest)


def joined(directory: str, name: str) -> str:
    """A path below a directory, ``..`` in ``name`` taken as text: ``/a/b`` and ``../M`` is ``/a/M``."""
    if name.startswith("/"):
        return name
    parts = directory.rstrip("/").split("/")
    for part in name.split("/"):
        if part == "..":
            del parts[max(1, len(parts) - 1) :]  # above the root is the root
        elif part not in (".", ""):
            parts.append(part)
    return "/".join(parts)
