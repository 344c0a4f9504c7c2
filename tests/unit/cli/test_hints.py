"""Every command that a text of this program names is one: it goes through the parser, and is not refused for want
of a name or a reason.

The texts are read from the source itself, so that none is forgotten; what stands in braces there is some name.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from orchestrator.cli import _commands
from orchestrator.cli._commands import USAGE_ERROR

ROOT = Path(__file__).resolve().parents[3]
SOURCES = sorted((ROOT / "orchestrator").rglob("*.py"))
COMMAND = re.compile(r"continuity ((?:[a-z][a-z-]*)(?: [^\s:;,()`·]+)*)")
SIGNED = frozenset({"accept", "declare", "adopt", "resolve"})
REASONED = frozenset({"accept", "declare", "resolve", "abort", "skip", "mark-done"})
COMMANDS_MIN = 80
PUT_IN = "1"  # what a text puts in: some name, or a number
NOT_SHOWN = {
    "continuity rejoin",  # how a tool calls itself to the server
    "continuity at each role change",  # the head of a file that this program writes
    "continuity as a normal user",  # how to start it, not what to type
    "continuity lab 1",  # what a certificate says
    "continuity plan",  # in prose, of the command as such
    "continuity plan OPERATION",
    "continuity accept 1 loss",  # how choices of one kind begin, to tell them apart
    "continuity abort 1",
}


class NoCommandError(Exception):
    """A word that is no command, where there are others."""


def texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, text) of every string of a module that is no docstring; what is put into it is 1."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else PUT_IN for part in node.values)
            yield node.lineno, "".join(map(str, parts))
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and not {id(node)} & (inner | docstrings)
        ):
            yield node.lineno, node.value


def named(text: str) -> list[str]:
    """The commands in a text, without the full stop of its sentence."""
    found = [match.group(0).rstrip(".") for match in COMMAND.finditer(text)]
    return [command for command in found if command not in NOT_SHOWN]


def hints() -> list[tuple[str, str]]:
    found = []
    for path in SOURCES:
        for line, text in texts(ast.parse(path.read_text(encoding="utf-8"))):
            found += [(f"{path.relative_to(ROOT)}:{line}", command) for command in named(text)]
    return found


@pytest.fixture(scope="module")
def top() -> Any:
    return typer.main.get_command(_commands.build())


def parse(top: Any, command: str) -> None:
    """Go down to the named command and parse its words. Raises what the parser raises."""
    words = shlex.split(command)[1:]
    at, name = top, "continuity"
    while hasattr(at, "commands"):
        name = words.pop(0) if words else ""
        if name not in at.commands:
            raise NoCommandError(f"there is no command {name!r}")
        at = at.commands[name]
    at.make_context(name, words)


def lacks(command: str) -> list[str]:
    """What the command would be refused for, though it can be parsed."""
    words = command.split()
    wanted = [("--by", SIGNED), ("--reason", REASONED)]
    return [option for option, verbs in wanted if words[1] in verbs and option not in words]


def test_every_command_that_is_named_can_be_typed_as_it_stands(top: Any) -> None:
    found = hints()
    assert len(found) >= COMMANDS_MIN
    wrong = []
    for where, command in found:
        try:
            parse(top, command)
        except (USAGE_ERROR, NoCommandError) as error:
            wrong.append(f"{where}: {command}: {error}")
            continue
        wrong += [f"{where}: {command}: lacks {option}" for option in lacks(command)]
    assert wrong == []


def test_no_group_is_called_group() -> None:
    assert [(where, command) for where, command in hints() if "GROUP" in command.split()] == []


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("continuity adopt g", "--by"),
        ("continuity abort r1", "--reason"),
        ("continuity resolve g --keep s --by N", "--reason"),
    ],
)
def test_what_is_missing_would_be_seen(command: str, said: str) -> None:
    assert said in lacks(command)


def test_what_cannot_be_parsed_would_be_seen(top: Any) -> None:
    for command in ("continuity reprotect it", "continuity nothing", "continuity confirm r1"):
        with pytest.raises((USAGE_ERROR, NoCommandError)):
            parse(top, command)
