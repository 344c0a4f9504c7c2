"""Decides how the model's dataclasses look in YAML: their keys and what each holds.

The one reading of the annotations in ``core.model`` and ``components``: the strict models, the JSON
Schema, the hints and the walk over references all go by it, so they cannot disagree.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import (
    Annotated,
    Any,
    Literal,
    ParamSpec,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from orchestrator.components import COMPONENTS
from orchestrator.core.model import Component, DoneWhen
from orchestrator.core.values import (
    DurationUnit,
    FromKey,
    PlainMark,
    Reference,
    SecretMark,
    SizeUnit,
    TemplateMark,
    duration_text,
    size_text,
)
from orchestrator.runbook.problems import YamlPath

P = ParamSpec("P")
R = TypeVar("R")


def remembered(function: Callable[P, R]) -> Callable[P, R]:
    """``functools.cache`` that keeps the function's types."""
    return cast("Callable[P, R]", functools.cache(function))


class AnyJson:
    """Stands for ``core.values.Json``: whatever the loader lets through."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a mapping in YAML and the dataclass field that it fills."""

    field: str
    key: str
    annotation: Any
    required: bool
    default: Any  # MISSING for a required one, else the value that leaving it out means


def key_of(field_name: str) -> str:
    """``timeout_ms`` is written ``timeout``, ``with_`` is ``with``, ``data_directory`` with a dash."""
    name = field_name.rstrip("_")
    for suffix in ("_ms", "_bytes"):
        name = name.removesuffix(suffix)
    return name.replace("_", "-")


@remembered
def keys_of(cls: type[Any]) -> tuple[Key, ...]:
    """The keys of a dataclass in order of its fields; fields taken from the mapping key left out."""
    hints = get_type_hints(cls, localns={"Json": AnyJson}, include_extras=True)
    keys = []
    for field in dataclasses.fields(cls):
        annotation = hints[field.name]
        if isinstance(marker_of(annotation), FromKey):
            continue
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        required = default is dataclasses.MISSING
        keys.append(Key(field.name, key_of(field.name), annotation, required, default))
    return tuple(keys)


@remembered
def named_by_key(cls: type[Any]) -> str:
    """The field that takes the mapping key, "" if there is none."""
    hints = get_type_hints(cls, localns={"Json": AnyJson}, include_extras=True)
    for field in dataclasses.fields(cls):
        if isinstance(marker_of(hints[field.name]), FromKey):
            return field.name
    return ""


@remembered
def component_classes() -> Mapping[str, type[Any]]:
    """Component type → its dataclass."""
    found: dict[str, type[Any]] = {}
    for kind, target in COMPONENTS.items():
        module, _, name = target.partition(":")
        found[kind] = getattr(importlib.import_module(module), name)
    return found


def component_type(component: object) -> str:
    """The ``type`` under which a component is written."""
    for kind, cls in component_classes().items():
        if type(component) is cls:
            return kind
    return type(component).__name__.lower()


def marker_of(annotation: Any) -> Any:
    """The marker of ``core.values`` on an annotation, None if it has none."""
    if get_origin(annotation) is Annotated:
        return get_args(annotation)[1]
    return None


def bare(annotation: Any) -> Any:
    """The annotation without marker and without ``| None``."""
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation = get_args(annotation)[0]
        elif origin in (Union, types.UnionType):
            rest = [item for item in get_args(annotation) if item is not types.NoneType]
            if len(rest) != 1:
                return annotation
            annotation = rest[0]
        else:
            return annotation


def is_optional(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType) and types.NoneType in get_args(annotation)


def is_mapping(annotation: Any) -> bool:
    return get_origin(bare(annotation)) is Mapping


def is_sequence(annotation: Any) -> bool:
    return get_origin(bare(annotation)) in (tuple, Sequence)


def is_dataclass(annotation: Any) -> bool:
    plain = bare(annotation)
    return isinstance(plain, type) and dataclasses.is_dataclass(plain)


def is_component(annotation: Any) -> bool:
    return bare(annotation) is Component


def choices(annotation: Any) -> tuple[str, ...]:
    """The words a field takes, empty if it is not a closed set."""
    plain = bare(annotation)
    if get_origin(plain) is Literal:
        return tuple(str(item) for item in get_args(plain))
    if isinstance(plain, type) and issubclass(plain, Enum):
        return tuple(str(item.value) for item in plain)
    return ()


def described(annotation: Any) -> str:
    """What a field holds, for hints: ``a duration such as 30s``."""
    marker = marker_of(annotation)
    if isinstance(marker, DurationUnit):
        return "a duration such as 30s or 15m"
    if isinstance(marker, SizeUnit):
        return "a size such as 64MiB"
    if isinstance(marker, SecretMark):
        return "a reference such as secret://file/NAME"
    if isinstance(marker, PlainMark):
        return f"a {marker.what}"
    if isinstance(marker, Reference):
        return f"the name of a {marker.to.replace('-', ' ')}"
    if isinstance(marker, TemplateMark):
        return "text, which may hold ${…}"
    if words := choices(annotation):
        return "one of " + ", ".join(f"`{word}`" for word in words)
    plain = bare(annotation)
    if plain is DoneWhen:
        return "a list of `http:`, `writes:` and `refuses-writes:` checks"
    if is_component(annotation):
        return "a mapping with `type` and what that type takes"
    if is_mapping(annotation):
        return "a mapping (`key: value` lines)"
    if is_sequence(annotation):
        return "a list"
    if is_dataclass(annotation):
        required = [key.key for key in keys_of(plain) if key.required]
        return "a mapping with " + (", ".join(f"`{key}`" for key in required) or "its keys")
    return {str: "text", int: "a whole number", bool: "`true` or `false`"}.get(plain, "a value")


def written_default(key: Key) -> Any:
    """What leaving a key out means, as it would be written; None where that says nothing."""
    marker = marker_of(key.annotation)
    if isinstance(key.default, int) and isinstance(marker, DurationUnit):
        return duration_text(key.default)
    if isinstance(key.default, int) and isinstance(marker, SizeUnit):
        return size_text(key.default)
    if isinstance(key.default, (bool, int)) or (isinstance(key.default, str) and key.default):
        return key.default
    if isinstance(key.default, tuple) and key.default and all(isinstance(x, str) for x in key.default):
        return list(key.default)
    return None


def placeholder(annotation: Any) -> Any:
    """A value of the right shape, in YAML form: takes the place of an unusable top-level field, so
    that the rest of the file can still be checked."""
    marker = marker_of(annotation)
    if isinstance(marker, DurationUnit):
        return "0s"
    if isinstance(marker, SizeUnit):
        return "0B"
    if words := choices(annotation):
        return words[0]
    plain = bare(annotation)
    if plain is DoneWhen or is_sequence(annotation):
        return []
    if is_mapping(annotation):
        return {}
    if is_dataclass(annotation):
        return {key.key: placeholder(key.annotation) for key in keys_of(plain) if key.required}
    return {int: 0, bool: False}.get(plain, "")


def keys_at(cls: type[Any], data: Any, path: YamlPath) -> tuple[Any, tuple[Key, ...], tuple[str, ...]]:
    """The annotation at ``path`` under ``cls``, and, if a mapping with fixed keys stands there, its
    keys and the key names allowed beside them (``type`` of a component, ``apiVersion`` at the top)."""
    annotation: Any = cls
    for item in path:
        annotation = _descend(annotation, item, data)
        data = _item(data, item)
    if is_component(annotation):
        kind = data.get("type") if isinstance(data, dict) else None
        found = component_classes().get(kind) if isinstance(kind, str) else None
        return annotation, keys_of(found) if found else (), ("type",)
    if annotation is DoneItem:
        return annotation, keys_of(DoneWhen), ()
    if is_dataclass(annotation) and bare(annotation) is not DoneWhen:
        extra = ("apiVersion", "kind") if not path else ()
        return annotation, keys_of(bare(annotation)), extra
    return annotation, (), ()


class DoneItem:
    """Stands for one entry of ``done-when``: exactly one key of DoneWhen, holding one check."""


def _item(data: Any, item: str | int) -> Any:
    if isinstance(data, dict):
        return data.get(item)
    if isinstance(data, list) and isinstance(item, int) and item < len(data):
        return data[item]
    return None


def _descend(annotation: Any, item: str | int, data: Any) -> Any:
    plain = bare(annotation)
    if plain is DoneWhen:
        return DoneItem
    if annotation is DoneItem:
        for key in keys_of(DoneWhen):
            if key.key == item:
                return get_args(bare(key.annotation))[0]
        return AnyJson
    if is_mapping(annotation):
        return get_args(plain)[1]
    if is_sequence(annotation):
        return get_args(plain)[0]
    fixed = plain if is_dataclass(annotation) else None
    if is_component(annotation):
        kind = data.get("type") if isinstance(data, dict) else None
        fixed = component_classes().get(kind) if isinstance(kind, str) else None
    for key in keys_of(fixed) if fixed else ():
        if key.key == item:
            return key.annotation
    return AnyJson
