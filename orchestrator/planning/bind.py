"""Decides how a draft's JSON arguments become an action's frozen Params, and what that fixes into a
step: commands, endpoints, undo. Pure; a wrong argument is an error that names it.
"""

from __future__ import annotations

import dataclasses
import enum
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any

from orchestrator.core.plan import Bound, Parts
from orchestrator.core.values import Json, PlainMark
from orchestrator.errors import InputError

if TYPE_CHECKING:
    from orchestrator.ports import Action

Convert = Callable[[Any, str], Any]


class TableCatalog:
    """ports.Catalog over a table kind → ``module:Class``; classes are imported on first use."""

    def __init__(self, table: Mapping[str, str]) -> None:
        self._table = table
        self._actions: dict[str, Action[Any]] = {}

    def kinds(self) -> Iterable[str]:
        return self._table.keys()

    def action(self, kind: str) -> Action[Any]:
        """The one instance of an action. InputError for a kind that does not exist."""
        if kind not in self._actions:
            if kind not in self._table:
                near = get_close_matches(kind, self._table, 3) or sorted(self._table)
                raise InputError(f"no action {kind!r}; there are: {', '.join(near)}")
            module, _, name = self._table[kind].partition(":")
            self._actions[kind] = getattr(import_module(module), name)()
        return self._actions[kind]

    def parse(self, kind: str, arguments: Mapping[str, Json]) -> Any:
        """The action's Params. InputError names the unknown, missing or wrong argument."""
        return converter(self.action(kind).params)(arguments, kind)

    def bind(self, action: str, arguments: Mapping[str, Json], parts: Parts) -> Bound:
        made = self.action(action)
        described = made.describe(converter(made.params)(arguments, action), parts)
        return Bound(
            action, made.version, arguments, described.commands, described.touches, described.undo,
            described.undo_commands, made.idempotent, made.mutates,
        )  # fmt: skip


_converters: dict[Any, Convert] = {}


def converter(wanted: Any) -> Convert:
    """A function that turns JSON into a value of this type; made once per type."""
    try:
        return _converters[wanted]
    except KeyError:
        made = _converters[wanted] = _make(wanted)
        return made


def _make(wanted: Any) -> Convert:
    origin = typing.get_origin(wanted)
    if origin is typing.Annotated:
        plain, *marks = typing.get_args(wanted)
        if marks and isinstance(marks[0], PlainMark):
            return _plain_name(marks[0])
        return converter(plain)
    if dataclasses.is_dataclass(wanted):
        return _dataclass(wanted)
    if origin in (typing.Union, types.UnionType):
        return _union(typing.get_args(wanted))
    if origin is typing.Literal:
        return _literal(typing.get_args(wanted))
    if origin is tuple:
        return _tuple(typing.get_args(wanted)[0])
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _mapping(typing.get_args(wanted)[1])
    if isinstance(wanted, type) and issubclass(wanted, enum.StrEnum):
        return _literal_of(wanted)
    if wanted in (str, int, bool):
        return _plain(wanted)
    return lambda value, path: value  # Json: anything that came out of a plan


def _wrong(path: str, value: Any, want: str) -> InputError:
    return InputError(f"{path}: {value!r} is not {want}")


def _plain(wanted: type) -> Convert:
    def convert(value: Any, path: str) -> Any:
        if type(value) is not wanted:
            raise _wrong(path, value, {str: "a text", int: "a whole number", bool: "true or false"}[wanted])
        return value

    return convert


def _plain_name(mark: PlainMark) -> Convert:
    text, whole = converter(str), re.compile(mark.pattern)

    def convert(value: Any, path: str) -> Any:
        if not whole.fullmatch(text(value, path)):
            raise _wrong(path, value, f"a {mark.what}: {mark.hint}")
        return value

    return convert


def _literal(allowed: tuple[Any, ...]) -> Convert:
    def convert(value: Any, path: str) -> Any:
        if value not in allowed:
            raise _wrong(path, value, "one of " + ", ".join(map(str, allowed)))
        return value

    return convert


def _literal_of(wanted: type[enum.StrEnum]) -> Convert:
    def convert(value: Any, path: str) -> Any:
        try:
            return wanted(value)
        except ValueError:
            raise _wrong(path, value, "one of " + ", ".join(wanted)) from None

    return convert


def _tuple(item: Any) -> Convert:
    each = converter(item)

    def convert(value: Any, path: str) -> Any:
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise _wrong(path, value, "a list")
        return tuple(each(entry, f"{path}[{i}]") for i, entry in enumerate(value))

    return convert


def _mapping(item: Any) -> Convert:
    each = converter(item)

    def convert(value: Any, path: str) -> Any:
        if not isinstance(value, Mapping):
            raise _wrong(path, value, "a mapping")
        return {str(key): each(entry, f"{path}.{key}") for key, entry in value.items()}

    return convert


def _union(members: tuple[Any, ...]) -> Convert:
    others = [converter(member) for member in members if member is not type(None)]
    has_none = type(None) in members

    def convert(value: Any, path: str) -> Any:
        if value is None and has_none:
            return None
        error: InputError | None = None
        for other in others:
            try:
                return other(value, path)
            except InputError as wrong:
                error = wrong
        raise error or _wrong(path, value, "allowed here")

    return convert


def _dataclass(wanted: Any) -> Convert:
    hints = typing.get_type_hints(wanted, localns={"Json": object}, include_extras=True)  # Json is recursive
    fields = {f.name: converter(hints[f.name]) for f in dataclasses.fields(wanted)}
    missing = dataclasses.MISSING
    required = [
        f.name for f in dataclasses.fields(wanted) if f.default is missing and f.default_factory is missing
    ]

    known, needed = frozenset(fields), frozenset(required)

    def convert(value: Any, path: str) -> Any:
        if isinstance(value, wanted):
            return value
        if not isinstance(value, Mapping):
            raise _wrong(path, value, "a mapping")
        if not known.issuperset(value) or not needed.issubset(value):
            words = [f"unknown argument {name}" for name in sorted(set(value) - known)]
            words += [f"{name} is missing" for name in required if name not in value]
            raise InputError(f"{path}: {'; '.join(words)}; it takes: {', '.join(fields)}")
        return wanted(**{name: fields[name](entry, f"{path}.{name}") for name, entry in value.items()})

    return convert
