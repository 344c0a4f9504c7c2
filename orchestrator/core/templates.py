"""Decides what ``${…}`` becomes: a closed set of values, resolved at compile time; never an expression.

Which names exist depends on where a text stands: a cluster's folders know ``host.*`` and
``site.name``, a service's texts also ``from.*`` and ``to.*``. A name that is not in the given set is
an error that lists the set; nothing is ever left in the text or taken from the environment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from orchestrator.core.model import Host
from orchestrator.core.values import Json
from orchestrator.errors import InputError

_PLACEHOLDER = re.compile(r"\$\{([^{}]*)\}")


def resolve(text: str, values: Mapping[str, str]) -> str:
    """``text`` with every ``${name}`` replaced. InputError names what is unknown and what is known."""
    if "${" not in text:
        return text
    unknown: list[str] = []

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in values:
            unknown.append(name)
            return ""
        return values[name]

    out = _PLACEHOLDER.sub(value, text)
    if unknown:
        known = ", ".join(f"${{{name}}}" for name in sorted(values)) or "none here"
        raise InputError(f"{text!r}: unknown ${{{unknown[0]}}}; known: {known}")
    if "${" in _PLACEHOLDER.sub("", text):
        raise InputError(f"{text!r}: a ${{ that is not closed")
    return out


def resolve_json(value: Json, values: Mapping[str, str]) -> Json:
    """The same for every text inside a JSON value; keys are left alone."""
    if isinstance(value, str):
        return resolve(value, values)
    if isinstance(value, Mapping):
        return {key: resolve_json(item, values) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [resolve_json(item, values) for item in value]
    return value


def host_values(host: Host) -> dict[str, str]:
    """What a text that belongs to a host may use."""
    return {
        "host.name": host.name,
        "host.address": host.address,
        "host.site": host.site,
        "site.name": host.site,
    }
