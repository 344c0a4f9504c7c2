"""Decides how a problem of shape is told to people; must never drop one or change where it is.

pydantic names what failed; this module names the line, the YAML path, what was found and what would
be right. A secret that was written as a value is never repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.core.model import Cluster, DoneWhen, Group, OwnStep, Policies, Proxy, Site
from orchestrator.runbook import shape
from orchestrator.runbook.problems import YamlPath, suggest

RELOAD_HINT = (
    "after `set server` a reload sends traffic back to what the configuration says: name the file that"
    " it loads server states from"
)
_SPECIAL_MISSING: Mapping[tuple[type[Any], str], tuple[str, str]] = {
    (OwnStep, "timeout"): (
        "a step without timeout",
        "a step that nobody bounds can hold up a crisis for ever: write for example `timeout: 30s`",
    ),
    (OwnStep, "undo"): (
        "a step without undo or point of no return",
        "write `undo: none-needed` if nothing need be taken back, else `undo: point-of-no-return`",
    ),
    (Proxy, "state-file"): (
        "a proxy without a state file",
        RELOAD_HINT,
    ),
}
_LATER: Mapping[tuple[type[Any], str], str] = {
    (Cluster, "when-embassy-gone"): "a cluster always holds when the embassy is gone",
    (Group, "undo-window"): "a move is not undone after promotion: go back by `continuity failback`",
    (Policies, "anti-flap"): "no move is refused because another one was just made",
}
"""Keys of the language that nothing reads yet, and what holds until then: a promise that nobody keeps is
refused."""
_LATER_VALUES: Mapping[tuple[type[Any], str, str], str] = {
    (
        Site,
        "role",
        "witness",
    ): "no site keeps epochs or copies of the log for others; to ask from outside there is `role: observer`",
}
"""Values that nothing reads yet, the same way."""


def yaml_path(error: Mapping[str, Any], root: type[Any]) -> YamlPath:
    """Where the error stands in the file: pydantic's place without its own additions."""
    place = list(error["loc"])
    if place and place[-1] == "[key]":
        place.pop()
    is_union_error = str(error["type"]).startswith("union_tag")
    if len(place) > 2 and place[0] == "components" and not is_union_error and _has_components(root):
        del place[2]  # the tag of the union
    return tuple(place)


def _has_components(root: type[Any]) -> bool:
    return any(key.key == "components" for key in shape.keys_of(root))


def explain(
    error: Mapping[str, Any], root: type[Any], data: Mapping[str, Any], path: YamlPath
) -> tuple[str, str]:
    """Message and hint of one error."""
    kind = str(error["type"])
    last = str(path[-1]) if path else ""
    if kind == "missing":
        return _missing(root, data, path)
    if kind == "extra_forbidden":
        return _unknown_key(root, data, path)
    if kind.startswith("union_tag"):
        return _component_type(data, path)
    if kind == "bad_unit":
        context = error["ctx"]
        return str(context["message"]), str(context["hint"])
    if error["loc"] and error["loc"][-1] == "[key]":
        if kind == "string_pattern_mismatch":
            return f"`{last}` is not a name", "use lower-case letters, digits and `-`, as in `front-door`"
        words = shape.choices(_key_annotation(root, data, path[:-1]))
        return f"unknown key `{last}`", suggest(last, words)
    annotation, _, _ = shape.keys_at(root, data, path)
    if annotation is shape.DoneItem:
        expected = "a mapping with one key, for example `- http: {…}`"
    else:
        expected = shape.described(annotation)
    if kind == "literal_error":
        parent, _, _ = shape.keys_at(root, data, path[:-1])
        until_then = _LATER_VALUES.get((shape.bare(parent), last, str(error["input"])))
        if until_then is not None:
            return f"{_found(error['input'])} comes with a later release", f"until then {until_then}"
        words = shape.choices(annotation)
        return f"{_found(error['input'])} is not known here", suggest(str(error["input"]), words)
    return _wrong_type(error, annotation, expected)


def _missing(root: type[Any], data: Mapping[str, Any], path: YamlPath) -> tuple[str, str]:
    parent, keys, _ = shape.keys_at(root, data, path[:-1])
    name = str(path[-1])
    special = _SPECIAL_MISSING.get((shape.bare(parent), name))
    if special is not None:
        return special
    for key in keys:
        if key.key == name:
            return f"`{name}` is missing", f"write `{name}:` with {shape.described(key.annotation)}"
    return f"`{name}` is missing", f"write `{name}:`"


def _unknown_key(root: type[Any], data: Mapping[str, Any], path: YamlPath) -> tuple[str, str]:
    parent, keys, extra = shape.keys_at(root, data, path[:-1])
    name = str(path[-1])
    until_then = _LATER.get((shape.bare(parent), name))
    if until_then is not None:
        return f"`{name}` comes with a later release", f"remove it; until then {until_then}"
    written = [key.key for key in keys] + list(extra)
    return f"unknown key `{name}`", suggest(name, written, none="no keys are taken here")


def _component_type(data: Mapping[str, Any], path: YamlPath) -> tuple[str, str]:
    known = shape.component_classes()
    component: Any = data
    for item in path:
        component = component.get(item) if isinstance(component, dict) else None
    written = component.get("type") if isinstance(component, dict) else None
    if written is None:
        return "`type` is missing", suggest("", known)
    return f"unknown component type {_found(written)}", suggest(str(written), known)


def _key_annotation(root: type[Any], data: Mapping[str, Any], path: YamlPath) -> Any:
    annotation, _, _ = shape.keys_at(root, data, path)
    plain = shape.bare(annotation)
    return plain.__args__[0] if shape.is_mapping(annotation) else plain


def _wrong_type(error: Mapping[str, Any], annotation: Any, expected: str) -> tuple[str, str]:
    found = error["input"]
    if isinstance(found, str) and (
        shape.is_dataclass(annotation) or shape.is_component(annotation)
    ):  # may be a secret
        return f"must be {expected}, found text", f"write {expected}"
    message = f"must be {expected}, found {_found(found)}"
    if found is None:
        return f"is empty, must be {expected}", "write a value, or remove the key"
    if shape.bare(annotation) is str and isinstance(found, (int, bool)):
        shown = str(found).lower() if isinstance(found, bool) else str(found)
        return message, f'quote it: "{shown}"'
    if shape.is_sequence(annotation) and not isinstance(found, (dict, list)):
        return message, f"put it into brackets: [{found}]"
    if isinstance(found, str) and shape.bare(annotation) in (int, bool):
        return message, "remove the quotes" if found.strip('"').isdigit() else f"write {expected}"
    return message, f"write {expected}"


def _found(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, (int, str)):
        text = str(value)
        return f"`{text[:40]}…`" if len(text) > 40 else f"`{text}`"
    return "a list" if isinstance(value, list) else "a mapping"


def done_items(data: Mapping[str, Any]) -> list[tuple[YamlPath, str, str]]:
    """Entries of ``done-when`` that hold no check or several: (path, message, hint)."""
    found: list[tuple[YamlPath, str, str]] = []
    items = data.get("done-when")
    names = ", ".join(f"`{key.key}`" for key in shape.keys_of(DoneWhen))
    for index, item in enumerate(items if isinstance(items, list) else ()):
        if isinstance(item, dict) and len(item) != 1:
            message = "holds no check" if not item else "holds several checks"
            found.append((("done-when", index), message, f"one of {names} per `-` entry"))
    return found
