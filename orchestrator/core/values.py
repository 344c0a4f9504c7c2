"""Decides the small typed values of the language; must never parse text (``runbook/`` does).

Dataclasses of the model mark their fields with these ``Annotated`` types. ``runbook/schema.py``
builds the strict loader and the JSON Schema from the markers, so purity, error lists and schema
cannot drift apart. The YAML key of a field is its name with ``_ms`` or ``_bytes`` cut off and
``_`` turned into ``-`` (``timeout_ms`` is written ``timeout: 30s``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeAlias

Json: TypeAlias = "bool | int | str | Sequence[Json] | Mapping[str, Json] | None"
"""JSON without floats: canonical text must be the same on every machine."""


@dataclass(frozen=True, slots=True)
class DurationUnit:
    """An int of milliseconds, written ``250ms``, ``30s``, ``15m``, ``4h`` or ``2d``."""


@dataclass(frozen=True, slots=True)
class SizeUnit:
    """An int of bytes, written ``64MiB``, ``1GiB``, ``512KiB`` or ``100B``."""


@dataclass(frozen=True, slots=True)
class FromKey:
    """The field is not written: it takes the key of the mapping that the object stands under."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A name of something declared elsewhere; ``to`` says what (site, host, cluster, …)."""

    to: str


@dataclass(frozen=True, slots=True)
class SecretMark:
    """``secret://env/NAME`` or ``secret://file/NAME``: a reference, never a value."""


@dataclass(frozen=True, slots=True)
class PlainMark:
    """A name that is put into another program's command or message: nothing in it may mean more than
    itself there. ``pattern`` matches the whole of it; ``what`` says what it is, ``hint`` how it is written."""

    what: str
    pattern: str
    hint: str


@dataclass(frozen=True, slots=True)
class TemplateMark:
    """Text that may hold ``${…}`` of the closed set (from, to, host, site, component fields)."""


Milliseconds = Annotated[int, DurationUnit()]
Bytes = Annotated[int, SizeUnit()]
Name = Annotated[str, FromKey()]
Secret = Annotated[str, SecretMark()]
Template = Annotated[str, TemplateMark()]
_PLAIN_HINT = "use letters, digits and `_ . : -`, as in `population-register`; it does not begin with `-`"
_LABEL = "[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
BackendName = Annotated[str, PlainMark("backend name", r"^[A-Za-z0-9_.:][A-Za-z0-9_.:-]*$", _PLAIN_HINT)]
UnitName = Annotated[str, PlainMark("unit name", r"^[A-Za-z0-9_.:@+][A-Za-z0-9_.:@+-]*$", _PLAIN_HINT)]
DnsName = Annotated[
    str,
    PlainMark("DNS name", rf"^([*]\.)?{_LABEL}(\.{_LABEL})*\.?$", "write it as in `population.example.`"),
]
SiteRef = Annotated[str, Reference("site")]
HostRef = Annotated[str, Reference("host")]
ClusterRef = Annotated[str, Reference("cluster")]
ServiceRef = Annotated[str, Reference("service")]
ComponentRef = Annotated[str, Reference("component")]
ProxyRef = Annotated[str, Reference("proxy")]
NameServerRef = Annotated[str, Reference("name-server")]


def canonical(value: Json) -> str:
    """The one text of a value: sorted keys, no white space, no floats (RFC 8785 for such values)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def with_article(noun: str) -> str:
    return f"{'an' if noun[:1] in 'aeiou' else 'a'} {noun}"


def duration_text(milliseconds: int) -> str:
    """Milliseconds as people write them: ``1500`` is ``1.5s``, ``90000`` is ``1m30s``."""
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    if milliseconds < 60_000:
        whole, rest = divmod(milliseconds, 1000)
        return f"{whole}.{rest:03d}".rstrip("0").rstrip(".") + "s"
    parts = []
    seconds = (milliseconds + 500) // 1000
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def size_text(count: int) -> str:
    """Bytes as people write them, in binary units; exact multiples stay whole."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:.1f}".rstrip("0").rstrip(".") + unit
    return f"{count}B"
