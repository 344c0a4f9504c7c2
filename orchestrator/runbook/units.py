"""Decides how durations, sizes, secret references and plain names are written; must never guess a unit.

``core.values`` writes the same forms back: what it prints, this module reads.
"""

from __future__ import annotations

import json
import re

from orchestrator.core.values import PlainMark

_DURATION = re.compile(
    r"(?:(?P<d>[0-9]+)d)?(?:(?P<h>[0-9]+)h)?(?:(?P<m>[0-9]+)m(?!s))?"
    r"(?:(?P<s>[0-9]+)(?:\.(?P<f>[0-9]{1,3}))?s)?(?:(?P<ms>[0-9]+)ms)?\Z"
)
_SIZE = re.compile(r"(?P<whole>[0-9]+)(?P<unit>B|KiB|MiB|GiB|TiB)\Z")
_DECIMAL_SIZE = re.compile(r"[0-9]+ ?(k|K|M|G|T|KB|kB|MB|GB|TB|Ki|Mi|Gi|Ti|b)?\Z")
_BINARY = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}

DURATION_PATTERN = r"^(?=[0-9])([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+(\.[0-9]{1,3})?s)?([0-9]+ms)?$"
SIZE_PATTERN = r"^[0-9]+(B|KiB|MiB|GiB|TiB)$"
SECRET_PATTERN = r"^secret://(env/[A-Za-z_][A-Za-z0-9_]*|file/[A-Za-z0-9_][A-Za-z0-9._-]*)$"
NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"
NAME_HINT = "use lower-case letters, digits and `-`, as in `front-door`"

DURATION_MS_MAX = 10 * 366 * 86_400_000
SIZE_BYTES_MAX = 1 << 60
DURATION_HINT = "write a number with its unit: 250ms, 30s, 15m, 4h, 2d, or together 1h30m"
SIZE_HINT = "write a whole number with a binary unit: 100B, 512KiB, 64MiB, 1GiB"
SECRET_HINT = (
    "write a reference, never the value: secret://file/NAME (a file in the estate's folder secrets/)"
    " or secret://env/NAME"
)
SECRET_FILE_HINT = "name a file that stands in the estate's folder secrets/ itself: secret://file/NAME"


class BadUnit(ValueError):
    """``message`` says what is wrong, ``hint`` what would be right."""

    def __init__(self, message: str, hint: str) -> None:
        self.message, self.hint = message, hint
        super().__init__(message)


def parse_duration(written: object) -> int:
    """``1h30m`` as milliseconds. Raises BadUnit."""
    if isinstance(written, bool) or not isinstance(written, (str, int)):
        raise BadUnit("must be a duration", DURATION_HINT)
    if isinstance(written, int):
        raise BadUnit(f"duration `{written}` has no unit", DURATION_HINT)
    match = _DURATION.match(written)
    if not written or match is None:
        raise BadUnit(f"`{written}` is not a duration", DURATION_HINT)
    total = int((match["f"] or "").ljust(3, "0")) + int(match["ms"] or 0)
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)):
        total += int(match[unit] or 0) * size
    if total > DURATION_MS_MAX:
        raise BadUnit(f"`{written}` is longer than ten years", DURATION_HINT)
    return total


def parse_size(written: object) -> int:
    """``64MiB`` as bytes. Raises BadUnit."""
    if isinstance(written, bool) or not isinstance(written, (str, int)):
        raise BadUnit("must be a size", SIZE_HINT)
    if isinstance(written, int):
        raise BadUnit(f"size `{written}` has no unit", SIZE_HINT)
    match = _SIZE.match(written)
    if match is None:
        if _DECIMAL_SIZE.match(written):
            raise BadUnit(f"size `{written}` has no binary unit", SIZE_HINT)
        raise BadUnit(f"`{written}` is not a size", SIZE_HINT)
    total = int(match["whole"]) * _BINARY[match["unit"]]
    if total > SIZE_BYTES_MAX:
        raise BadUnit(f"`{written}` is larger than any store", SIZE_HINT)
    return total


_SECRET = re.compile(SECRET_PATTERN)


def is_secret_reference(text: str) -> bool:
    return _SECRET.fullmatch(text) is not None


def parse_secret(written: object) -> str:
    """A secret reference as it stands. Raises BadUnit, whose text never repeats what was written."""
    if not isinstance(written, str) or not is_secret_reference(written):
        file = written.removeprefix("secret://file/") if isinstance(written, str) else written
        if isinstance(file, str) and file != written:
            parts = file.split("/")
            if ".." in parts or file.startswith("/"):
                raise BadUnit("leads out of secrets/", SECRET_FILE_HINT)
            if len(parts) > 1:
                raise BadUnit("names a folder inside secrets/", SECRET_FILE_HINT)
        if isinstance(written, str) and written.startswith("secret://"):
            raise BadUnit("is not a known kind of secret reference", SECRET_HINT)
        raise BadUnit("a secret stands here as a value", SECRET_HINT)
    return written


def parse_plain(written: object, mark: PlainMark) -> str:
    """A name that other programs are given, as it stands. Raises BadUnit."""
    if not isinstance(written, str):
        raise BadUnit(f"must be a {mark.what}", mark.hint)
    if not re.fullmatch(mark.pattern, written):
        shown = json.dumps(written, ensure_ascii=False)  # a line break in it is seen as one
        raise BadUnit(f"{shown} cannot be a {mark.what}", mark.hint)
    return written
