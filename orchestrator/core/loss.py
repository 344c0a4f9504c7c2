"""Decides the data loss that a run states before it promotes (semantics 4); must never round down.

seconds = the fence proof's time - the commit time of the last transaction present abroad, and what the old side's
clock was seen to be ahead of the one that timed the proof. A
heartbeat row each second at home keeps an idle register from looking lost; without it, and without
remote durability, the loss is unknown. Without a fence time it is unbounded while home may accept.
Zero is said only where every acknowledged commit waited for the other site.
"""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.core.events import LossStated
from orchestrator.core.inputs import At
from orchestrator.core.values import Json, duration_text

MILLISECOND_NS = 1_000_000
LAST_COMMIT = "fence proof's time - last commit present abroad"
NOT_SEEN = "by the word of {} alone that the site is lost: nobody saw it closed, and what it still takes is not counted"
NO_HEARTBEAT = "no heartbeat from home bounds an idle register"
CLOCKS_APART_MS = 1_000
"""A last commit later than the proof by more than this cannot be explained by two clocks."""


def lsn_number(text: str) -> int:
    """An LSN such as ``16/B374D848`` as bytes since the beginning of the log."""
    high, low = text.split("/")
    return (int(high, 16) << 32) + int(low, 16)


def state_loss(
    unit: str, evidence: Mapping[str, Json], fenced_utc_ns: int | None, at: At, word: str = ""
) -> LossStated:
    """The stated loss of a unit from the evidence of its LOSS step. ``word``: who declared the site lost at the time of
    the fence, where nothing else proves it: what the site takes after that moment is in no figure.

    Evidence: durability (remote | local), last_commit_ns | null, heartbeat_ns | null, received_lsn,
    home_lsn | null, write_rate_rows_per_s | null. What is not a database says itself what its moment rests on
    (``basis``), why there is none (``without``), and whether it is one of looking (``is_look``): looks go on after the
    old side was closed, commits do not.
    """
    if evidence.get("durability") == "remote":
        return LossStated(at, unit, 0, 0, 0, "every acknowledged commit waited for the embassy")
    lost_bytes = _bytes(evidence)
    last_commit = evidence.get("last_commit_ns")
    if fenced_utc_ns is None:
        return LossStated(at, unit, None, lost_bytes, None, "unbounded while home may accept writes")
    if not isinstance(last_commit, int) or evidence.get("heartbeat_ns") is None:
        return LossStated(at, unit, None, lost_bytes, None, str(evidence.get("without") or NO_HEARTBEAT))
    milliseconds = -((last_commit - fenced_utc_ns) // MILLISECOND_NS)
    milliseconds += ahead_ms(evidence.get("clock_offset_ms"))
    if milliseconds < -CLOCKS_APART_MS and (word or not evidence.get("is_look")):
        basis = "what is here is newer than the moment at which the old side is said to have stopped"
        return LossStated(at, unit, None, lost_bytes, None, basis)
    milliseconds = max(1, milliseconds)
    rate = evidence.get("write_rate_rows_per_s")
    rows = -(-milliseconds * rate // 1000) if isinstance(rate, int) else None
    basis = str(evidence.get("basis") or LAST_COMMIT) + _clocks(evidence)
    if word:
        basis += f"; {NOT_SEEN.format(word)}"
    return LossStated(at, unit, milliseconds, lost_bytes, rows, basis)


def ahead_ms(offset_ms: Json) -> int:
    """By how much a moment of the old side's clock lies too late, as far as anybody saw: what was written then is older."""
    return max(0, offset_ms) if isinstance(offset_ms, int) else 0


def _clocks(evidence: Mapping[str, Json]) -> str:
    """How far the clock that wrote the last commit is from the one that timed the proof, where anybody looked."""
    if "clock_offset_ms" not in evidence:
        return ""
    offset = evidence["clock_offset_ms"]
    if not isinstance(offset, int):
        return "; the old side's clock was not seen"
    return f"; the old side's clock: {offset:+} ms"


def _bytes(evidence: Mapping[str, Json]) -> int | None:
    home, received = evidence.get("home_lsn"), evidence.get("received_lsn")
    if not isinstance(home, str) or not isinstance(received, str):
        return None
    return max(0, lsn_number(home) - lsn_number(received))


def bound_text(milliseconds: int) -> str:
    """A loss as people read and type it: rounded up to what the text can say, never down."""
    exact = milliseconds if milliseconds < 1_000 else -(-milliseconds // 1_000) * 1_000
    return duration_text(exact)
