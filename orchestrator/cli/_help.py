"""Decides how help shows examples: one a line, as they stand in the docstring, so that each can be copied."""

from __future__ import annotations

import inspect

import typer

AS_IT_STANDS = "\b"
"""A paragraph that begins with a line of this alone is not wrapped anew."""
ONE = "Example: "


def keep_lines(app: typer.Typer) -> None:
    """Give every command of this application its docstring with the lines of its examples kept."""
    for command in app.registered_commands:
        if command.callback is not None:
            command.help = kept(inspect.getdoc(command.callback) or "")
    for group in app.registered_groups:
        if group.typer_instance is not None:
            keep_lines(group.typer_instance)


def kept(text: str) -> str:
    """Indented paragraphs, and a single example, each on lines of its own."""
    paragraphs = []
    for paragraph in text.split("\n\n"):
        if paragraph.startswith(ONE):
            command = " ".join(paragraph.removeprefix(ONE).split())
            paragraphs += ["Example:", f"{AS_IT_STANDS}\n  {command}"]
        elif all(line.startswith("  ") for line in paragraph.splitlines()):
            paragraphs.append(f"{AS_IT_STANDS}\n{paragraph}")
        else:
            paragraphs.append(paragraph)
    return "\n\n".join(paragraphs)
