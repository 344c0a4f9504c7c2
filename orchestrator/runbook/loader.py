"""Decides how YAML text becomes plain values with line numbers; must never know what they mean.

YAML 1.2 core schema, only stricter: what two YAML readers could read differently is refused instead
of guessed (bare ``yes``, ``017``, ``1.5``, ``12:30``, ``2017-06-20``), and so are duplicate keys,
tags, merge keys and aliases: every thing stands where it is written, so that each problem has one
line. Nodes are composed by libyaml where PyYAML was built with it (13 times faster).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from orchestrator.runbook.problems import Problems, YamlPath, path_text

try:
    from yaml._yaml import CParser

    HAS_C_LOADER = True
except ImportError:
    HAS_C_LOADER = False

SLOW_LOADER_WARNING = (
    "PyYAML was built without libyaml: reading many runbooks takes about 13 times longer"
    " (install a PyYAML wheel, or libyaml-dev before building it)"
)
FILE_BYTES_MAX = 4 * 1024 * 1024
DEPTH_MAX = 40
INTEGER_DIGITS_MAX = 18

_IMPLICIT = ""  # the tag of every node that was written without one
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)\Z")
_NUMBER_LIKE = (
    (re.compile(r"[-+]?0[0-9_]+\Z"), "is octal to some YAML readers and decimal to others"),
    (re.compile(r"[-+]?0[xob][0-9A-Fa-f_]+\Z"), "is a number to some YAML readers and text to others"),
    (re.compile(r"[-+]?[1-9][0-9]*_[0-9_]*\Z"), "is a number to some YAML readers and text to others"),
    (
        re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?\Z"),
        "is a base-60 number to some YAML readers and text to others",
    ),
    (re.compile(r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?\Z"), "is a float"),
    (re.compile(r"[-+]?\.(inf|Inf|INF)\Z|\.(nan|NaN|NAN)\Z"), "is a float"),
    (
        re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt ].*)?\Z"),
        "is a date to some YAML readers and text to others",
    ),
)
_NUMBER_START = frozenset("-+.0123456789")
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_OLD_BOOLEANS = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


def warnings(*, has_c_loader: bool = HAS_C_LOADER) -> list[str]:
    """What people should know of the reader itself."""
    return [] if has_c_loader else [SLOW_LOADER_WARNING]


class _StrictResolver:
    """Leaves every written scalar as it is: this module decides what it is."""

    def resolve(self, _kind: type[yaml.Node], _value: object, _implicit: object) -> str:
        return _IMPLICIT

    def descend_resolver(self, _parent: object, _index: object) -> None:
        pass

    def ascend_resolver(self) -> None:
        pass


if HAS_C_LOADER:

    class _FastComposer(_StrictResolver, CParser):
        def __init__(self, text: str) -> None:
            CParser.__init__(self, text)


class _PlainComposer(
    _StrictResolver, yaml.reader.Reader, yaml.scanner.Scanner, yaml.parser.Parser, yaml.composer.Composer
):
    def __init__(self, text: str) -> None:
        yaml.reader.Reader.__init__(self, text)
        yaml.scanner.Scanner.__init__(self)
        yaml.parser.Parser.__init__(self)
        yaml.composer.Composer.__init__(self)


def compose(text: str, *, fast: bool = HAS_C_LOADER) -> yaml.Node | None:
    """The root node of the one document in ``text``, None for an empty text. Raises YAMLError."""
    composer: Any = _FastComposer(text) if fast else _PlainComposer(text)
    try:
        node: yaml.Node | None = composer.get_single_node()
        return node
    finally:
        if hasattr(composer, "dispose"):
            composer.dispose()


@dataclass(slots=True)
class Document:
    """One file: plain values and the nodes they came from.

    ``file`` is the name shown to people. ``prune`` removes a part that cannot be used, so that the
    rest can still be checked; paths and lines keep meaning what stands in the file.
    """

    file: str
    path: Path
    root: yaml.MappingNode
    data: dict[str, Any]
    _index: dict[int, tuple[int, yaml.Node]] = field(default_factory=dict)  # by id: where it stood
    _cut: set[str] = field(default_factory=set)

    def place(self, path: YamlPath) -> tuple[int, str]:
        """Line (1-based) and printed path of the nearest part of ``path`` that is written."""
        node: yaml.Node | None = self.root
        line = self.root.start_mark.line + 1
        printed: list[str | int] = []
        for item in path:
            found: yaml.Node | None = None
            shown: str | int = item
            if isinstance(node, yaml.MappingNode):
                for key, value in node.value:
                    if key.value == item:
                        found, line = value, key.start_mark.line + 1
                        break
            elif isinstance(node, yaml.SequenceNode) and isinstance(item, int) and item < len(node.value):
                found = node.value[item]
                line = found.start_mark.line + 1
                shown = self._index.get(id(found), (item, found))[0]
            node = found
            printed.append(shown)
        return line, path_text(printed)

    def get(self, path: YamlPath) -> Any:
        """The value at ``path``, None if nothing stands there."""
        value: Any = self.data
        for item in path:
            if isinstance(value, dict) and item in value:
                value = value[item]
            elif isinstance(value, list) and isinstance(item, int) and item < len(value):
                value = value[item]
            else:
                return None
        return value

    def was_cut(self, path: YamlPath) -> bool:
        """Was something written there that could not be used?"""
        return self.place(path)[1] in self._cut

    def was_cut_below(self, path: YamlPath) -> bool:
        """Was something written there, or anywhere below, that could not be used?"""
        place = self.place(path)[1]
        return any(cut == place or cut.startswith(f"{place}.") for cut in self._cut)

    def prune(self, path: YamlPath) -> bool:
        """Remove what stands at ``path``; False if nothing does."""
        self._cut.add(self.place(path)[1])
        parent, node, last = self.data, self.root, path[-1]
        for item in path[:-1]:
            parent, node = _child(parent, node, item)
            if node is None:
                return False
        if isinstance(parent, dict) and last in parent:
            del parent[last]
            node.value[:] = [pair for pair in node.value if pair[0].value != last]
            return True
        if isinstance(parent, list) and isinstance(last, int) and last < len(parent):
            for index, child in enumerate(node.value):
                self._index.setdefault(id(child), (index, child))
            del parent[last], node.value[last]
            return True
        return False


def _child(parent: Any, node: Any, item: str | int) -> tuple[Any, Any]:
    if isinstance(parent, dict) and item in parent and isinstance(node, yaml.MappingNode):
        return parent[item], next(value for key, value in node.value if key.value == item)
    if isinstance(parent, list) and isinstance(item, int) and item < len(parent):
        return parent[item], node.value[item]
    return None, None


def read(path: Path, file: str, problems: Problems) -> Document | None:
    """Read one file; problems of text and syntax go to ``problems``, None when nothing is usable."""
    try:
        with path.open("rb") as stream:
            content = stream.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        problems.add(file, 0, "", f"cannot be read: {error.strerror}", "check the path and its rights")
        return None
    if len(content) > FILE_BYTES_MAX:
        problems.add(
            file, 0, "", f"is larger than {FILE_BYTES_MAX} bytes", "a runbook of this size is a mistake"
        )
        return None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problems.add(file, line, "", "is not UTF-8 text", "save the file as UTF-8")
        return None
    return parse_text(text, path, file, problems)


def parse_text(
    text: str, path: Path, file: str, problems: Problems, *, fast: bool = HAS_C_LOADER
) -> Document | None:
    """As ``read``, for text at hand."""
    try:
        node = compose(text, fast=fast)
    except yaml.YAMLError as error:
        _note_syntax(error, file, problems)
        return None
    except RecursionError:
        problems.add(file, 0, "", "is nested too deep to be read", f"at most {DEPTH_MAX} levels")
        return None
    if node is None:
        problems.add(file, 0, "", "is empty", "begin with `apiVersion: continuity/v1` and `kind:`")
        return None
    if not isinstance(node, yaml.MappingNode):
        problems.add(
            file, node.start_mark.line + 1, "", "must be a mapping at the top", "write `key: value` lines"
        )
        return None
    converter = _Converter(file, problems)
    data = converter.mapping(node, ())
    return Document(file=file, path=path, root=node, data=data)


def _note_syntax(error: yaml.YAMLError, file: str, problems: Problems) -> None:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    message = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be read as YAML"
    line = mark.line + 1 if mark is not None else 0
    hint = "look at this line and the one above: indentation, a missing `:` or an unclosed quote"
    if "another document" in message or "document" in str(getattr(error, "context", "")):
        hint = "one document per file: put each runbook into a file of its own"
    elif "alias" in message or "anchor" in message:
        hint = "anchors and aliases are not used here: write the value out"
    elif "\\t" in message or "'\t'" in message:
        hint = "indent with spaces, never tabs"
    problems.add(file, line, "", f"YAML syntax: {message}", hint)


class _Converter:
    """One document's nodes to plain dict, list, str, int, bool and None."""

    def __init__(self, file: str, problems: Problems) -> None:
        self._file = file
        self._problems = problems
        self._seen: set[int] = set()

    def _note(self, node: yaml.Node, path: YamlPath, message: str, hint: str) -> None:
        self._problems.add(self._file, node.start_mark.line + 1, path_text(path), message, hint)

    def value(self, node: yaml.Node, path: YamlPath) -> Any:
        if id(node) in self._seen:
            self._note(
                node, path, "an alias is refused", "write the value out where it is used: no `&` and `*`"
            )
            return None
        self._seen.add(id(node))
        if node.tag != _IMPLICIT:
            self._note(node, path, f"tag `{node.tag}` is refused", "remove the tag: types are known here")
        if isinstance(node, yaml.ScalarNode):
            text: str = node.value
            if node.style:  # quoted or a block: text as it stands
                return text
            first = text[:1]
            if first not in _NUMBER_START:
                lowered = text.lower()
                if text in _BOOLEANS:
                    return _BOOLEANS[text]
                if text in _NULLS:
                    return None
                if lowered in _OLD_BOOLEANS:
                    self._old_boolean(node, path, text)
                return text
            return self._number(node, path, text)
        if len(path) >= DEPTH_MAX:
            self._note(node, path, "is nested too deep", f"at most {DEPTH_MAX} levels")
            return None
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        assert isinstance(node, yaml.SequenceNode)
        return [self.value(child, (*path, index)) for index, child in enumerate(node.value)]

    def mapping(self, node: yaml.MappingNode, path: YamlPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key, child in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag != _IMPLICIT:
                self._note(key, path, "a key must be plain text", "write `key: value`")
                continue
            name: str = key.value
            here = (*path, name)
            if name == "<<" and not key.style:
                self._note(key, path, "merge key `<<` is refused", "write the merged keys out")
                continue
            if not name:
                self._note(key, path, "a key is empty", "name it, or remove the line")
                continue
            if name in result:
                self._note(
                    key,
                    here,
                    f"key `{name}` stands twice, first in line {lines[name]}",
                    "remove one: YAML readers disagree about which counts",
                )
                continue
            lines[name] = key.start_mark.line + 1
            result[name] = self.value(child, here)
        if len(result) != len(node.value):  # keep the nodes in step with the values
            kept: set[str] = set()
            pairs = []
            for key, child in node.value:
                if isinstance(key.value, str) and key.value in result and key.value not in kept:
                    kept.add(key.value)
                    pairs.append((key, child))
            node.value[:] = pairs
        return result

    def _old_boolean(self, node: yaml.Node, path: YamlPath, text: str) -> None:
        meant = _OLD_BOOLEANS[text.lower()]
        self._note(
            node,
            path,
            f"bare `{text}` is {meant} in YAML 1.1 and text in YAML 1.2",
            f'write `{meant}` for the boolean, or "{text}" in quotes for the text',
        )

    def _number(self, node: yaml.Node, path: YamlPath, text: str) -> int | str:
        if _INTEGER.match(text):
            if len(text) > INTEGER_DIGITS_MAX:
                self._note(node, path, f"`{text}` has too many digits", "quote it if it is text")
                return text
            return int(text)
        for pattern, reading in _NUMBER_LIKE:
            if pattern.match(text):
                hint = f'quote it ("{text}") if it is text'
                if reading == "is a float":
                    hint += ", or use a whole number of a smaller unit (`1500ms` for 1.5 s)"
                self._note(node, path, f"bare `{text}` {reading}", hint)
                return text
        return text
