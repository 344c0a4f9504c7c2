"""Writes the reference of the estate and runbook language and of the actions; judges nothing.

Keys, what they hold and their defaults come from the dataclasses that the loader itself goes by, texts
from their docstrings: ``docs/runbook.md`` and ``docs/actions.md``.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, get_args, get_type_hints

from orchestrator.actions import ACTIONS
from orchestrator.core.model import DoneWhen, Estate, Runbook
from orchestrator.core.plan import Undo
from orchestrator.planning.bind import TableCatalog
from orchestrator.runbook import shape
from orchestrator.runbook.references import HOST_PLACEHOLDERS, SIDE_PLACEHOLDERS

RUNBOOK_NOTICE = (
    "<!-- Written by `make docs` from orchestrator/core/model.py and orchestrator/components. "
    "Change those, not this. -->"
)
ACTIONS_NOTICE = "<!-- Written by `make docs` from orchestrator/actions. Change that, not this. -->"
DESIGN = re.compile(r"\s*\((?:semantics|core) [\d.]+\)")  # numbers that only readers of the code can look up
RUNBOOK_INTRO = """\
# The language of estates and runbooks

An estate (`estate.yaml`) says what there is: sites, hosts, clusters, proxies, name servers, fences, groups. A runbook
(`runbooks/NAME.yaml` beside it) says what one service is made of and what it owes; its steps are derived for every
direction, and `continuity runbook explain` shows them. Both begin with `apiVersion: continuity/v1` and their `kind`.
`continuity runbook lint` reports every problem at once, with file, line, path and hint;
[`runbooks/schema/`](../runbooks/schema) gives editors completion. Own steps and fences name an action: [`actions.md`](actions.md).
"""
RUNBOOK_RULES = """\
- **Unknown keys, keys that stand twice and words such as `yes` or `on` for true are refused.**
- **Durations** carry their unit: `250ms`, `30s`, `15m`, `4h`, `2d`, `1h30m`. **Sizes** carry a binary one: `100B`, `512KiB`, `64MiB`.
- **Names** are lower-case letters, digits and `-`. What names another part must name one that is declared.
- **Secrets** are references, never values: `secret://file/NAME` is the file `secrets/NAME` beside the estate, `secret://env/NAME`
  a variable of the environment.
- **Paths** that begin with `./` are taken from the folder of the estate.
- **Placeholders**: {host} in texts that belong to a host; in a service's texts also {sides} and
  `${{from.COMPONENT.address}}`, `${{to.COMPONENT.address}}`: where the service comes from, and goes to. Nothing else is replaced, and
  nothing is taken from the environment.
"""
ACTIONS_INTRO = """\
# Actions

What a step can do. Components derive most steps with their arguments; `continuity plan` shows each with its exact commands. An owner's
own step (`steps:` of a runbook) and a fence (`fences:` of the estate) name one and give the arguments as `with:`, under the names below.

- **undo**: *{none}*: nothing need be taken back · *{undo}*: an abort takes it back · *{point}*: an abort after it does not pretend to.
- **again**: *yes*: done twice is as done once, and a step whose outcome is unknown may be tried again after a look at it · *no*: never
  repeated without a look or a person's word.
- **changes**: *no*: it only reads; `continuity preflight` may ask it.
"""


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(cell(field) for field in row) + " |" for row in rows]


def text_of(cls: type[Any]) -> list[str]:
    """The docstring as Markdown; nothing for one that dataclasses wrote themselves."""
    text = inspect.getdoc(cls) or ""
    if not text or text.startswith(f"{cls.__name__}("):
        return []
    return [DESIGN.sub("", text.replace("``", "`")), ""]


# --- estates and runbooks -----------------------------------------------------------------------


def inner(annotation: Any) -> Any:
    """What stands below a mapping or list of it; the annotation itself for anything else."""
    plain = shape.bare(annotation)
    if shape.is_mapping(annotation) or shape.is_sequence(annotation):
        return inner(get_args(plain)[-1] if shape.is_mapping(annotation) else get_args(plain)[0])
    return annotation


def nested(cls: type[Any]) -> list[type[Any]]:
    """The dataclasses that are written below ``cls``, in order of first use, ``cls`` first."""
    found = [cls]
    for key in shape.keys_of(cls):
        below = inner(key.annotation)
        if shape.is_dataclass(below):
            found += [each for each in nested(shape.bare(below)) if each not in found]
    return found


def holds(annotation: Any) -> str:
    """What a key holds, with a link to where its own keys are told."""
    below = inner(annotation)
    if shape.bare(below) is DoneWhen:
        return "a list of checks, each one key of [DoneWhen](#donewhen)"
    if shape.is_component(below):
        return "NAME → a component with its `type`, see [components](#components)"
    if shape.is_dataclass(below):
        name = shape.bare(below).__name__
        what = f"[{name}](#{name.lower()})"
    else:
        what = shape.described(below)
    for layer in reversed(list(layers(annotation))):
        what = f"{layer} → {what}" if layer != "list" else f"a list: {what}"
    return what


def layers(annotation: Any) -> Iterator[str]:
    plain = shape.bare(annotation)
    if shape.is_mapping(annotation):
        key, value = get_args(plain)
        words, marker = shape.choices(key), getattr(shape.marker_of(key), "to", "")
        yield "/".join(words) if words else marker.replace("-", " ").upper() or "NAME"
        yield from layers(value)
    elif shape.is_sequence(annotation):
        yield "list"
        yield from layers(get_args(plain)[0])


def default_of(key: shape.Key) -> str:
    if key.required:
        return "**required**"
    written = shape.written_default(key)
    if isinstance(written, bool):
        return f"`{str(written).lower()}`"
    if isinstance(written, list):
        return "`[" + ", ".join(written) + "]`"
    return "" if written is None else f"`{written}`"


def keys_table(cls: type[Any]) -> list[str]:
    rows = ((f"`{key.key}`", holds(key.annotation), default_of(key)) for key in shape.keys_of(cls))
    return [*table(("key", "holds", "default"), rows), ""]


def section(cls: type[Any], level: str, heading: str = "") -> list[str]:
    return [f"{level} {heading or cls.__name__}", "", *text_of(cls), *keys_table(cls)]


def runbook_reference() -> str:
    def listed(names: Iterable[str]) -> str:
        return ", ".join(f"`${{{name}}}`" for name in names)

    told: list[type[Any]] = []
    lines = [RUNBOOK_NOTICE, "", RUNBOOK_INTRO, "## What holds everywhere", ""]
    lines += [RUNBOOK_RULES.format(host=listed(HOST_PLACEHOLDERS), sides=listed(SIDE_PLACEHOLDERS))]
    for root in (Estate, Runbook):
        for number, cls in enumerate(each for each in nested(root) if each not in told):
            lines += section(cls, "###" if number else "##")
            told.append(cls)
    lines += ["## Components", "", "`needs` names other components of the same service that come first.", ""]
    for kind, cls in shape.component_classes().items():
        lines += section(cls, "###", f"type: {kind}")
        told.append(cls)
        for below in nested(cls):
            if below not in told:
                lines += section(below, "####")
                told.append(below)
    return "\n".join(lines).rstrip() + "\n"


# --- actions ------------------------------------------------------------------------------------


def undo_of(action: type[Any]) -> str:
    """The kinds of undo that its description gives."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(action.describe)))
    named = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    found = {node.attr for node in named if isinstance(node.value, ast.Name) and node.value.id == "Undo"}
    return " or ".join(sorted(str(Undo[name]) for name in found))


def argument_type(annotation: Any) -> str:
    below = shape.bare(inner(annotation))
    if isinstance(below, type) and dataclasses.is_dataclass(below):
        what = "a list of mappings: " if shape.is_sequence(annotation) else "a mapping: "
        return what + ", ".join(f"`{field.name}`" for field in dataclasses.fields(below))
    what = shape.described(annotation)
    item = shape.described(inner(annotation))
    return f"a list of: {item}" if shape.is_sequence(annotation) and what != item else what


def argument_default(field: dataclasses.Field[Any]) -> str:
    if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
        return "**required**"
    value = field.default if field.default is not dataclasses.MISSING else None
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`" if isinstance(value, (int, str)) and value != "" else ""


def arguments_table(params: type[Any]) -> list[str]:
    hints = get_type_hints(params, localns={"Json": shape.AnyJson}, include_extras=True)
    rows = [
        (f"`{field.name}`", argument_type(hints[field.name]), argument_default(field))
        for field in dataclasses.fields(params)
    ]
    return [*table(("argument", "holds", "default"), rows), ""] if rows else ["Takes no arguments.", ""]


def actions_reference() -> str:
    catalog = TableCatalog(ACTIONS)
    intro = ACTIONS_INTRO.format(none=Undo.NONE_NEEDED, undo=Undo.UNDO, point=Undo.POINT_OF_NO_RETURN)
    lines = [ACTIONS_NOTICE, "", intro]
    rows, details = [], []
    for kind in sorted(ACTIONS):
        action: Any = catalog.action(kind)
        again, changes = ("yes" if answer else "no" for answer in (action.idempotent, action.mutates))
        rows.append((f"[`{kind}`](#{kind.replace('.', '')})", undo_of(type(action)), again, changes))
        details += [f"## {kind}", "", *text_of(type(action)), *text_of(action.params)]
        details += arguments_table(action.params)
    lines += [*table(("action", "undo", "again", "changes"), rows), "", *details]
    return "\n".join(lines).rstrip() + "\n"
