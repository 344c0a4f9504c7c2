"""Decides which texts of an estate or runbook name something else; must never resolve them.

``walk`` goes over dataclass values by the same annotations that shape the YAML, so a new field with
a marker is checked without a line here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, get_args

from orchestrator.core.model import DoneWhen
from orchestrator.core.values import Reference, SecretMark, TemplateMark
from orchestrator.runbook import shape
from orchestrator.runbook.problems import YamlPath

PLACEHOLDER = re.compile(r"\$\{([^{}]*)\}")
OPEN_PLACEHOLDER = re.compile(r"\$\{(?![^{}]*\})|\$\{[^}]*\{")

HOST_PLACEHOLDERS = ("host.name", "host.address", "host.site", "site.name")
SIDE_PLACEHOLDERS = ("from.name", "to.name")


@dataclass(frozen=True, slots=True)
class Text:
    """One text in the model. ``kind``: text, template, secret, or what it names (host, site, …);
    ``site``: the mapping key above it where that key is a site."""

    path: YamlPath
    kind: str
    text: str
    site: str = ""


_Visitor = Callable[[Any, YamlPath, str], Iterator[Text]]


def walk(value: Any) -> Iterator[Text]:
    """Every text of an Estate or Runbook with its YAML path, free texts included."""
    return _fields(type(value))(value, (), "")


@shape.remembered
def _fields(cls: type[Any]) -> _Visitor:
    plan: list[tuple[str, str, _Visitor]] = []
    for key in shape.keys_of(cls):
        visitor = _visitor(key.annotation)
        if visitor is not None:
            plan.append((key.field, key.key, visitor))

    def visit(value: Any, path: YamlPath, site: str) -> Iterator[Text]:
        for field, key, visitor in plan:
            found = getattr(value, field)
            if found is not None:
                yield from visitor(found, (*path, key), site)

    return visit


@shape.remembered
def _visitor(annotation: Any) -> _Visitor | None:
    plain = shape.bare(annotation)
    marker = shape.marker_of(annotation) or shape.marker_of(_without_none(annotation))
    if plain is DoneWhen:
        return _done_when
    if shape.is_component(annotation):
        return lambda value, path, site: _fields(type(value))(value, path, site)
    if shape.is_mapping(annotation):
        return _mapping(*get_args(plain))
    if shape.is_sequence(annotation):
        return _sequence(get_args(plain)[0])
    if shape.is_dataclass(annotation):
        return _fields(plain)
    if plain is shape.AnyJson:
        return json_texts
    if plain is not str or (isinstance(plain, type) and issubclass(plain, Enum)):
        return None
    kind = "text"
    if isinstance(marker, Reference):
        kind = marker.to
    elif isinstance(marker, SecretMark):
        kind = "secret"
    elif isinstance(marker, TemplateMark):
        kind = "template"

    def visit(value: Any, path: YamlPath, site: str) -> Iterator[Text]:
        if value:
            yield Text(path, kind, value, site)

    return visit


def _without_none(annotation: Any) -> Any:
    if shape.is_optional(annotation):
        return next(item for item in get_args(annotation) if item is not type(None))
    return annotation


def _mapping(key_annotation: Any, value_annotation: Any) -> _Visitor:
    marker = shape.marker_of(key_annotation)
    kind = marker.to if isinstance(marker, Reference) else ""
    inner = _visitor(value_annotation)

    def visit(value: Any, path: YamlPath, site: str) -> Iterator[Text]:
        for key, item in value.items():
            here = (*path, key)
            if kind:
                yield Text(here, kind, key, site)
            if inner is not None:
                yield from inner(item, here, key if kind == "site" else site)

    return visit


def _sequence(item_annotation: Any) -> _Visitor | None:
    inner = _visitor(item_annotation)
    if inner is None:
        return None

    def visit(value: Any, path: YamlPath, site: str) -> Iterator[Text]:
        for index, item in enumerate(value):
            yield from inner(item, (*path, index), site)

    return visit


def _done_when(value: DoneWhen, path: YamlPath, site: str) -> Iterator[Text]:
    """Checks stand in three tuples, in YAML in one list: ``DONE_INDEX`` items say which and where."""
    for key in shape.keys_of(DoneWhen):
        item_class = get_args(shape.bare(key.annotation))[0]
        for index, item in enumerate(getattr(value, key.field)):
            yield from _fields(item_class)(item, (*path, DONE_MARK + key.key, index), site)


DONE_MARK = "#"


def done_path(path: YamlPath, data: Mapping[str, Any]) -> YamlPath:
    """A walk's path with the place in ``done-when`` as it stands in the file."""
    for position, item in enumerate(path):
        if isinstance(item, str) and item.startswith(DONE_MARK):
            key, nth = item.removeprefix(DONE_MARK), path[position + 1]
            assert isinstance(nth, int)
            entries = data.get("done-when") or []
            places = [index for index, entry in enumerate(entries) if key in entry]
            return (*path[:position], places[nth], key, *path[position + 2 :])
    return path


def json_texts(value: Any, path: YamlPath, site: str = "") -> Iterator[Text]:
    """Every text inside a JSON value, as templates (arguments of actions may hold placeholders)."""
    if isinstance(value, str):
        yield Text(path, "template", value, site)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from json_texts(item, (*path, key), site)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from json_texts(item, (*path, index), site)
