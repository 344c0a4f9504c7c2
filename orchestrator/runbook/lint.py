"""Decides what ``runbook lint`` finds beyond what loading needs, and how it is told; changes nothing.

Lint also reads files that belong to hosts (a proxy's configuration), where they can be read here:
loading never does, so that a plan does not depend on the machine it is made on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.core.values import Json
from orchestrator.errors import InputError, Problem
from orchestrator.ports import Catalog
from orchestrator.runbook.parse import Loaded, examine
from orchestrator.runbook.sources import Sources

SCHEMA = "continuity/lint/v1"
CONFIGURATION_BYTES_MAX = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Findings:
    """What was looked at and what was found. ``loaded`` is None with problems or without an estate."""

    estates: int
    runbooks: int
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]
    loaded: Loaded | None

    def as_json(self) -> Mapping[str, Json]:
        problems: list[Json] = [
            {"file": p.file, "line": p.line, "path": p.path, "message": p.message, "hint": p.hint}
            for p in self.problems
        ]
        return {
            "estates": self.estates,
            "runbooks": self.runbooks,
            "problems": problems,
            "warnings": list(self.warnings),
        }

    def as_text(self) -> str:
        counted = f"{_count(self.runbooks, 'runbook')}, {_count(self.estates, 'estate')}"
        lines = [f"warning: {warning}" for warning in self.warnings]
        lines += [str(problem) for problem in self.problems]
        total = _count(len(self.problems), "problem") if self.problems else "no problems"
        return "\n".join([*lines, f"{counted}: {total}"])


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def lint(
    path_estate: Path | None,
    runbook_paths: Sequence[Path] | None = None,
    catalog: Catalog | None = None,
    compile_all: Callable[[Loaded], object] | None = None,
) -> Findings:
    """Find every problem of an estate and its runbooks, or of runbooks alone (no estate).

    ``compile_all`` compiles each operation of what was loaded and raises InputError with what only
    binding can know (wrong arguments of a derived step).
    """
    seen: list[Sources] = []
    loaded, problems = examine(
        path_estate, runbook_paths, catalog, extra_checks=(check_proxy_configurations, seen.append)
    )
    if loaded is not None and compile_all is not None:
        try:
            compile_all(loaded)
        except InputError as error:
            problems = error.problems
    sources = seen[0]
    runbooks = len(sources.runbooks) + len(sources.unread)
    warnings = loaded.warnings if loaded is not None else tuple(sources.warnings)
    return Findings(int(path_estate is not None), runbooks, problems, warnings, loaded)


def check_proxy_configurations(sources: Sources) -> None:
    """A proxy's configuration must load the file that a route change writes (semantics 2.5)."""
    estate, parsed = sources.known_estate, sources.estate
    if estate is None or parsed is None:
        return
    for name, proxy in estate.proxies.items():
        host = estate.hosts.get(proxy.host)
        if host is None or host.via != "local" or not proxy.state_file:
            continue
        path = parsed.document.path.parent / proxy.config
        try:
            with path.open("rb") as stream:
                text = stream.read(CONFIGURATION_BYTES_MAX).decode("utf-8", errors="replace")
        except OSError:
            continue  # not readable from here: preflight asks on the host
        if Path(proxy.state_file).name not in text:
            message = f"the configuration {proxy.config} loads no saved state from {proxy.state_file}"
            hint = (
                "after `set server` a reload sends traffic back to what the configuration says: add"
                f" `server-state-file {Path(proxy.state_file).name}` and `load-server-state-from-file`"
            )
            sources.note(parsed, ("proxies", name, "config"), message, hint)
