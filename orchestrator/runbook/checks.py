"""Decides what a well-formed estate and its runbooks must mean together; must never touch a host.

Each rule is a small function that notes what it finds; ``check`` runs them all, so that people see
every problem at once. Rules of the estate and of one service stand in ``rules_estate`` and
``rules_service``; this module holds what concerns every text: references, placeholders, secrets.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.runbook import rules_argv, rules_estate, rules_names, rules_service, units
from orchestrator.runbook.problems import YamlPath, suggest
from orchestrator.runbook.references import (
    HOST_PLACEHOLDERS,
    OPEN_PLACEHOLDER,
    PLACEHOLDER,
    SIDE_PLACEHOLDERS,
    Text,
    done_path,
)
from orchestrator.runbook.sources import Parsed, Sources

_SECTIONS: Mapping[str, str] = {
    "site": "sites",
    "host": "hosts",
    "cluster": "clusters",
    "proxy": "proxies",
    "name-server": "name-servers",
}
_SECRET_WORD = re.compile(
    r"(?i)(^|[-_.])(password|passwd|passphrase|secret|token|api-?_?key|authorization|private-?_?key)s?$"
)
_USER_INFO = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s:@]+:[^/\s@]+@")
_SIDE_COMPONENT = re.compile(r"(from|to)\.([a-z0-9-]+)\.address\Z")


@dataclass(frozen=True, slots=True)
class Names:
    """What can be referred to from one file."""

    known: Mapping[str, frozenset[str]]
    of_estate: bool


def check(sources: Sources) -> None:
    """Note every problem of meaning in everything that was read."""
    services = _services(sources)
    estate = sources.estate
    if estate is not None and estate.value is not None:
        _check_texts(sources, estate, _names(estate, services, None))
        rules_names.check(sources, estate)
        rules_estate.check(sources, estate)
    for parsed in sources.runbooks:
        if parsed.value is None:
            continue
        _check_texts(sources, parsed, _names(estate, services, parsed))
        rules_names.check(sources, parsed)
        rules_service.check(sources, parsed)
    rules_service.check_together(sources)


def _services(sources: Sources) -> frozenset[str]:
    named = {
        str(parsed.document.data.get("name") or parsed.document.path.stem) for parsed in sources.runbooks
    }
    return frozenset(named | set(sources.unread))


def _names(estate: Parsed | None, services: frozenset[str], runbook: Parsed | None) -> Names:
    known: dict[str, frozenset[str]] = {"service": services}
    for kind, section in _SECTIONS.items():
        if estate is not None:
            known[kind] = estate.names.get(section, frozenset())
    if runbook is not None:
        known["component"] = runbook.names.get("components", frozenset())
        if estate is None:
            del known["service"]  # a runbook looked at alone
    return Names(known, of_estate=runbook is None)


def _check_texts(sources: Sources, parsed: Parsed, names: Names) -> None:
    for text in parsed.texts:
        kind = text.kind
        if kind in names.known:
            if text.text not in names.known[kind]:
                _note_unknown(sources, parsed, text, names)
        elif "${" in text.text:
            _check_placeholders(sources, parsed, text, names)
        if names.of_estate and "with" not in text.path and not text.text.isprintable():
            path = done_path(text.path, parsed.document.data)
            hint = "write it on one line: it stands in files and commands whose lines mean something"
            sources.note(parsed, path, "a line break or control character stands here", hint)
        if kind in ("template", "text"):
            _check_no_secret(sources, parsed, text)
    for text, message in rules_argv.secrets_in(parsed.texts):
        sources.note(parsed, text.path, message, rules_argv.HINT)


def _note_unknown(sources: Sources, parsed: Parsed, text: Text, names: Names) -> None:
    what = text.kind.replace("-", " ")
    section = _SECTIONS.get(text.kind)
    where = f"the estate declares no {section}" if section else f"there is no {what} here"
    sources.note(
        parsed,
        done_path(text.path, parsed.document.data),
        f"unknown {what} `{text.text}`",
        suggest(text.text, names.known[text.kind], none=where),
    )


# --- placeholders -------------------------------------------------------------------------------


def _check_placeholders(sources: Sources, parsed: Parsed, text: Text, names: Names) -> None:
    path = done_path(text.path, parsed.document.data)
    if text.kind != "template":
        hint = "write the value itself"
        sources.note(parsed, path, "no placeholder is taken here", hint)
        return
    if OPEN_PLACEHOLDER.search(text.text):
        sources.note(parsed, path, "a `${` is not closed", "write `${name}`; nothing nests")
    for match in PLACEHOLDER.finditer(text.text):
        _check_placeholder(sources, parsed, path, match.group(1), names)


def _check_placeholder(sources: Sources, parsed: Parsed, path: YamlPath, inner: str, names: Names) -> None:
    allowed = _allowed(path, names)
    if inner in allowed:
        return
    side = _SIDE_COMPONENT.match(inner)
    if side is not None and not names.of_estate:
        components = names.known.get("component", frozenset())
        if side.group(2) not in components:
            message = f"`${{{inner}}}` names an unknown component `{side.group(2)}`"
            sources.note(parsed, path, message, suggest(side.group(2), components))
        return
    if not names.of_estate:
        allowed = (*allowed, "to.COMPONENT.address", "from.COMPONENT.address")
    hint = suggest(inner, allowed) + "; there are no expressions and no environment"
    sources.note(parsed, path, f"unknown placeholder `${{{inner}}}`", hint)


def _allowed(path: YamlPath, names: Names) -> tuple[str, ...]:
    if names.of_estate:
        return HOST_PLACEHOLDERS
    if path and path[0] in ("steps", "done-when"):  # no host is meant there
        return SIDE_PLACEHOLDERS
    return (*SIDE_PLACEHOLDERS, *HOST_PLACEHOLDERS)


# --- secrets ------------------------------------------------------------------------------------


def _check_no_secret(sources: Sources, parsed: Parsed, text: Text) -> None:
    """A value whose key says that it is a secret, or an address that carries a password."""
    key = next((item for item in reversed(text.path) if isinstance(item, str)), "")
    is_secret_key = "with" in text.path and _SECRET_WORD.search(key) is not None
    is_value = is_secret_key and not units.is_secret_reference(text.text)
    if is_value or _USER_INFO.search(text.text):
        path = done_path(text.path, parsed.document.data)
        sources.note(parsed, path, "a secret stands here as a value", units.SECRET_HINT)
