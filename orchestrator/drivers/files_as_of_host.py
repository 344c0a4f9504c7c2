"""Decides how a host tells until when all documents of the other side are there. HostScript: standard library
only, nothing of orchestrator; it only reads.

The file holds one line: a moment by this host's clock, UTC, as RFC 3339 writes it (``2026-11-24T17:22:33.344Z``).
The replicator writes it after a look at the other side that left nothing to copy: the moment at which that look began.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

BYTES_MAX = 200


def as_of(arguments: Mapping[str, Any], /) -> Mapping[str, Any]:
    """Arguments: as_of (a path). Result: {at_ns: UTC nanoseconds, None where the file is not there; message: what is
    wrong with it, "" when nothing is}."""
    path = str(arguments["as_of"])
    try:
        with open(path, encoding="utf-8") as handle:
            text = handle.read(BYTES_MAX).strip()
    except FileNotFoundError:
        return {"at_ns": None, "message": ""}
    except (OSError, UnicodeDecodeError) as error:
        return {"at_ns": None, "message": f"{path}: cannot be read: {error}"}
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return {
            "at_ns": None,
            "message": f"{path}: {text!r} is not a moment such as 2026-11-24T17:22:33.344Z",
        }
    if moment.tzinfo is None:
        return {"at_ns": None, "message": f"{path}: {text!r} names no offset from UTC: write it with Z"}
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return {
        "at_ns": (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1_000,
        "message": "",
    }
