"""Decides how a command is offered: nothing wider than what was typed, and with the estate that was typed, so that it can
be copied to another terminal and reaches the same log. What came from the environment or the folder is not repeated."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

TAKE_ESTATE = frozenset({
    "plan", "preflight", "probe", "failover", "switchover", "failback", "reprotect", "resume", "status", "watch", "pause",
    "retry", "skip", "mark-done", "confirm", "accept", "declare", "abort", "adopt", "resolve", "epoch", "history", "report",
})  # fmt: skip
"""First words of the commands that have the option; named here because ``status`` loads no parser."""
RUNBOOKS = (["runbook", "lint"], ["runbook", "explain"])
OFFERS = ("next", "choices", "instead")
"""Keys of documents whose value is a list of commands."""
MEND = "mend"
PUNCTUATION = (",", ";", ":", ")")
IN_TEXT = r"(?m)^( *|.*?: +)(continuity [a-z].*)$"


SHORT = {"--service": "-s"}
"""Options whose value an offered command may change, as they may have been typed."""


def again(*options: str) -> str:
    """This very command, with more options, or some of its options with other values: what is offered can be copied."""
    import shlex

    return shlex.join(["continuity", *reworded(sys.argv[1:], options), *options])


def again_as(verb: str, *, without: Mapping[str, bool]) -> str:
    """This very command as another verb, less the options that the other has not (whether each has a value)."""
    import shlex

    return shlex.join(["continuity", verb, *left_of(sys.argv[2:], without)])


def left_of(words: Sequence[str], without: Mapping[str, bool]) -> list[str]:
    """The words without some options. ``without``: option → has it a value of its own?"""
    left, rest = [], iter(words)
    for word in rest:
        if word in without:
            if without[word]:
                next(rest, None)
        elif word.partition("=")[0] not in without:
            left.append(word)
    return left


def reworded(words: Sequence[str], options: Sequence[str]) -> list[str]:
    """The words of a command, the verb first, without what ``options`` give another value."""
    left = list(words)
    for option, value in pairwise(options):
        if not option.startswith("--") or value.startswith("--"):
            continue
        names = (option, SHORT.get(option, option))
        left = [word for word in left if not word.startswith(tuple(f"{name}=" for name in names))]
        while at := next((place for place, word in enumerate(left) if word in names), 0):
            del left[at : at + 2]
    return left


def with_estate(text: str, words: Sequence[str] | None = None) -> str:
    """An offered command with the estate that was typed; anything else as it is. ``words``: what was typed."""
    estate = _typed(sys.argv[1:] if words is None else words)
    return f"{text} {estate}" if estate and _is_command(text) else text


def in_text(text: str, words: Sequence[str] | None = None) -> str:
    """Commands that have a line for themselves, or end one behind a colon."""
    if "continuity " not in text or not _typed(sys.argv[1:] if words is None else words):
        return text
    import re

    return re.sub(IN_TEXT, lambda found: found[1] + with_estate(found[2], words), text)


def in_document(document: Any, words: Sequence[str] | None = None) -> Any:
    """The same document; what is listed under ``next``, ``choices`` or ``instead``, and what
    mends a finding, names the estate."""
    if isinstance(document, list):
        return [in_document(each, words) for each in document]
    if not isinstance(document, dict):
        return document
    return {key: _in_value(key, value, words) for key, value in document.items()}


def _in_value(key: str, value: Any, words: Sequence[str] | None) -> Any:
    if key in OFFERS and isinstance(value, list):
        return [with_estate(each, words) if isinstance(each, str) else each for each in value]
    if key == MEND and isinstance(value, str):
        return with_estate(value, words)
    return in_document(value, words)


def _typed(words: Sequence[str]) -> str:
    """``--estate PATH`` with the whole path, as the shell takes it; "" where it was not typed."""
    import os
    import shlex

    found = [word.partition("=")[2] for word in words if word.startswith("--estate=")]
    found += [value for option, value in pairwise(words) if option == "--estate"]
    return shlex.join(["--estate", os.path.abspath(found[-1])]) if found and found[-1] else ""


def _is_command(text: str) -> bool:
    """Is this a command that can have the option and has it not, and no sentence that begins like one?"""
    import shlex

    try:
        words = shlex.split(text)
    except ValueError:
        return False
    if len(words) < 2:
        return False
    if words[0] != "continuity" or not (words[1] in TAKE_ESTATE or words[1:3] in RUNBOOKS):
        return False
    return not any(word.endswith(PUNCTUATION) or word.split("=")[0] == "--estate" for word in words)
