"""Decides which arguments of a command are secrets; must never repeat one.

Arguments stand in ``ps``, in the plan and in the log, and nobody resolves a reference among them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from orchestrator.runbook.problems import YamlPath
from orchestrator.runbook.references import Text

_WORD = re.compile(
    r"(?i)(password|passwd|passphrase|secret|token|api-?_?key|authorization|private-?_?key)s?$"
)
_NOT_A_VALUE = ("-", "/", "./", "../", "@", "${", "secret://")  # an option, a file, a placeholder
_TAKES_A_LOGIN = ("-u", "--user", "--proxy-user")
_SHORT_PASSWORD = ("mysql", "mariadb")  # `-pVALUE`
HINT = (
    "every argument stands in `ps` and in the log, and no reference is resolved there: let the program read a"
    " file on its host (an option file, as `--defaults-extra-file=FILE`), or start a script that reads it"
)


def secrets_in(texts: Iterable[Text]) -> Iterator[tuple[Text, str]]:
    """Every argument that is, or looks like, a secret, with what is wrong with it."""
    before, program = Text((), "", ""), ""
    for text in texts:
        if not _is_argument(text.path):
            continue
        follows = before.path[:-1] == text.path[:-1]
        if not follows:
            program = PurePosixPath(text.text).name
        if "secret://" in text.text:
            yield text, "a secret reference in `argv` is passed as it stands"
        elif _looks_secret(text.text, before.text if follows else "", program):
            yield text, "a secret stands here as a value"
        before = text


def _is_argument(path: YamlPath) -> bool:
    return len(path) > 1 and path[-2] == "argv" and "with" in path


def _looks_secret(text: str, before: str, program: str) -> bool:
    if before.startswith("-") and "=" not in before and _WORD.search(before) and _is_value(text):
        return True
    option, sign, login = (before, "=", text) if before in _TAKES_A_LOGIN else text.partition("=")
    if sign and option in _TAKES_A_LOGIN:
        return ":" in login and _is_value(login.partition(":")[2])
    for mark in ("=", ":"):  # an option or variable, a header
        key, _, value = text.partition(mark)
        if " " not in key and _WORD.search(key) and _is_value(value.strip()):
            return True
    return program.startswith(_SHORT_PASSWORD) and text.startswith("-p") and _is_value(text[2:])


def _is_value(text: str) -> bool:
    return bool(text) and not text.startswith(_NOT_A_VALUE)
