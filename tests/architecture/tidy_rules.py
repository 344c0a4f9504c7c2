"""The house rules that a reader of one file can judge, each a function from a file to its offenders.

Every rule takes a ``Source`` and yields lines such as ``path:12: what is wrong``. Rules that concern
the whole tree (imports, layers) stand in ``test_contracts.py`` and ``test_imports.py``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

MODULE_LINES_LIMIT = 400
FUNCTION_LINES_LIMIT = 70

# Where a blind `except Exception` may stand, and why. Nothing else may be added without a reason.
BLIND_EXCEPT_ALLOWED = {
    "orchestrator/engine/dispatch.py": "turns whatever an action lets through into Unknown or Failed",
    "tests/interrupt/nursery.py": "a forked child says what broke and ends; it never returns into the test run",
}

CORE_IMPORTS = frozenset(
    {
        "__future__",
        "bisect",
        "collections",
        "contextlib",
        "dataclasses",
        "datetime",
        "enum",
        "functools",
        "graphlib",
        "hashlib",
        "heapq",
        "itertools",
        "json",
        "math",
        "operator",
        "orchestrator",
        "re",
        "string",
        "types",
        "typing",
    }
)

# Written in pieces, so that this file does not offend against its own rule.
MACHINE_PATHS = re.compile("(?<![A-Za-z0-9_.])/(?:" + "|".join(["wo" + "rk/", "ro" + "ot/"]) + ")")
SHARED_FOLDER = re.compile("(?:^|[^A-Za-z])sha" + "red/(?:design|prototypes)")
REGISTRY_HOSTS = re.compile(
    "|".join(
        [
            r"py" + r"pi\.org",
            r"python" + r"hosted\.org",
            r"cra" + r"tes\.io",
            r"registry\.npm" + r"js",
            r"proxy\.golang" + r"\.org",
            r"maven" + r"\.org",
            r"(?:deb|security|archive|snapshot)\.(?:debian|ubuntu)" + r"\.(?:org|com)",
        ]
    )
)
PRIVATE_KEY = re.compile("BEGIN [A-Z ]*PRI" + "VATE KEY-----\n[A-Za-z0-9+/=]{20}")
UNFINISHED = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
VAGUE_NAMES = frozenset({"utils.py", "util.py", "helpers.py", "common.py", "misc.py"})


@dataclass(frozen=True)
class Source:
    """One committed text file: its path from the root, with ``/``, and its text."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    @cached_property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @property
    def is_python(self) -> bool:
        return self.path.endswith(".py")

    @property
    def is_core(self) -> bool:
        return self.path.startswith(("orchestrator/core/", "orchestrator/components/"))

    @property
    def is_test(self) -> bool:
        return self.path.startswith("tests/")

    def at(self, node: ast.AST, message: str) -> str:
        return f"{self.path}:{getattr(node, 'lineno', 0)}: {message}"


Rule = Callable[[Source], Iterator[str]]


def _dotted(node: ast.AST) -> str:
    """``a.b.c`` of a name or attribute; empty for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([node.id, *reversed(parts)])


def _calls(source: Source) -> Iterator[tuple[ast.Call, str]]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call):
            yield node, _dotted(node.func)


# --- Python -----------------------------------------------------------------------------------


def short_modules(source: Source) -> Iterator[str]:
    if len(source.lines) > MODULE_LINES_LIMIT:
        yield f"{source.path}:1: {len(source.lines)} lines; at most {MODULE_LINES_LIMIT}"


def short_functions(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES_LIMIT:
                yield source.at(node, f"{node.name}: {length} lines; at most {FUNCTION_LINES_LIMIT}")


def module_docstrings(source: Source) -> Iterator[str]:
    if source.path.startswith("orchestrator/") and source.text.strip() and not ast.get_docstring(source.tree):
        yield f"{source.path}:1: the module does not say what it decides and must never do"


def plain_names(source: Source) -> Iterator[str]:
    if source.path.rsplit("/", 1)[-1] in VAGUE_NAMES:
        yield f"{source.path}:1: a module is named after what it holds"


def no_patching(source: Source) -> Iterator[str]:
    """Fakes are passed by argument. ``Mock(spec=…)`` is allowed, replacing names in modules is not."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ImportFrom) and node.module in {"unittest.mock", "mock"}:
            if any(alias.name in {"patch", "*"} for alias in node.names):
                yield source.at(node, "imports patch; pass a fake by argument")
        elif isinstance(node, ast.Attribute):
            name = _dotted(node)
            if name.endswith(("mock.patch", "monkeypatch.setattr", "mocker.patch")):
                yield source.at(node, f"{name}; pass a fake by argument")


def no_sleeping_tests(source: Source) -> Iterator[str]:
    """A sleep may pace a loop that has a bound; alone it is a guess about another process."""
    if not source.is_test:
        return
    bounded: set[ast.Call] = set()
    for function in ast.walk(source.tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            looks_at_the_clock = "monotonic" in ast.dump(function) or "perf_counter" in ast.dump(function)
            for loop in ast.walk(function):
                if isinstance(loop, ast.For) or (isinstance(loop, ast.While) and looks_at_the_clock):
                    bounded.update(node for node in ast.walk(loop) if isinstance(node, ast.Call))
    for call, name in _calls(source):
        if name in {"time.sleep", "sleep", "asyncio.sleep"} and call not in bounded:
            yield source.at(call, "sleeps outside a bounded loop; wait for the fact itself")


def no_shell(source: Source) -> Iterator[str]:
    for call, name in _calls(source):
        if name in {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}:
            yield source.at(call, f"{name} goes through a shell")
        for keyword in call.keywords:
            if keyword.arg == "shell" and not (
                isinstance(keyword.value, ast.Constant) and keyword.value.value is False
            ):
                yield source.at(call, "runs a shell; give an argument list")


def _is_blind(handler: ast.ExceptHandler) -> bool:
    types = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(kind is None or _dotted(kind) in {"Exception", "BaseException"} for kind in types)


def _ends_by_raising(handler: ast.ExceptHandler) -> bool:
    return isinstance(handler.body[-1], ast.Raise)


def no_blind_except(source: Source) -> Iterator[str]:
    if source.path in BLIND_EXCEPT_ALLOWED:
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ExceptHandler) and _is_blind(node) and not _ends_by_raising(node):
            yield source.at(node, "catches everything; name what may happen")
    for call, name in _calls(source):
        if name.endswith("suppress") and any(_dotted(a) in {"Exception", "BaseException"} for a in call.args):
            yield source.at(call, "suppresses everything; name what may happen")


def core_imports_little(source: Source) -> Iterator[str]:
    if not source.is_core:
        return
    for node in ast.walk(source.tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            if name.split(".")[0] not in CORE_IMPORTS:
                yield source.at(node, f"the core may not import {name}")


def core_reads_no_clock(source: Source) -> Iterator[str]:
    if not source.is_core:
        return
    for call, name in _calls(source):
        if name.split(".")[-1] in {"now", "utcnow", "today", "open", "input", "print"} and "." in name:
            yield source.at(call, f"{name} in the core: time and input arrive as values")
        elif name in {"open", "input", "print", "breakpoint"}:
            yield source.at(call, f"{name} in the core: it does nothing but decide")


# --- any text ---------------------------------------------------------------------------------


def _matching(source: Source, pattern: re.Pattern[str], message: str) -> Iterator[str]:
    for number, line in enumerate(source.lines, start=1):
        found = pattern.search(line)
        if found:
            yield f"{source.path}:{number}: {message}: {found.group(0).strip()!r}"


def nothing_unfinished(source: Source) -> Iterator[str]:
    yield from _matching(source, UNFINISHED, "left unfinished")


def no_machine_paths(source: Source) -> Iterator[str]:
    yield from _matching(source, MACHINE_PATHS, "a path of one machine")
    yield from _matching(source, SHARED_FOLDER, "a folder that no clone has")


def no_registry_hosts(source: Source) -> Iterator[str]:
    yield from _matching(source, REGISTRY_HOSTS, "names a registry's host")


def no_private_keys(source: Source) -> Iterator[str]:
    if PRIVATE_KEY.search(source.text):
        yield f"{source.path}:1: holds a private key; make it when it is needed"


PYTHON_RULES: tuple[Rule, ...] = (
    short_modules,
    short_functions,
    module_docstrings,
    plain_names,
    no_patching,
    no_sleeping_tests,
    no_shell,
    no_blind_except,
    core_imports_little,
    core_reads_no_clock,
)
TEXT_RULES: tuple[Rule, ...] = (
    nothing_unfinished,
    no_machine_paths,
    no_registry_hosts,
    no_private_keys,
)
