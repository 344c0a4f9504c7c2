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
from orchestrator.runbook import shape
from orchestrator.runbook.parse import Loaded, at_folder, examine
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
    """Each proxy's configuration must load the file that a route change writes (semantics 2.5), for each backend
    that a runbook routes there. What cannot be read here is a warning: preflight asks on the host."""
    from orchestrator.drivers.haproxy import configuration_problems

    estate, parsed = sources.known_estate, sources.estate
    if estate is None or parsed is None:
        return
    folder = parsed.document.path.parent
    for name, backends in _backends_by_proxy(sources).items():
        written = estate.proxies.get(name)
        if written is None or not written.state_file:
            continue  # a problem of its own
        place = ("proxies", name, "config")
        proxy = at_folder(written, folder)
        try:
            with Path(proxy.config).open("rb") as stream:
                text = stream.read(CONFIGURATION_BYTES_MAX).decode("utf-8", errors="replace")
        except OSError as error:
            line, printed = parsed.document.place(place)
            sources.warnings.append(
                f"{parsed.document.file}:{line}: {printed}: {written.config} cannot be read here"
                f" ({error.strerror}): preflight asks on {written.host} whether it loads the saved state"
            )
            continue
        for backend in backends:
            hint = (
                f"a route must outlast a reload: `server-state-file {written.state_file}` in global, `load-server-state-"
                f"from-file global` in defaults or in backend {backend}, and there `server here …` and `server there …`"
            )
            for problem in configuration_problems(text, proxy, backend):
                sources.note(parsed, place, f"{written.config}: {problem}", hint)


def _backends_by_proxy(sources: Sources) -> dict[str, list[str]]:
    """What the runbooks route at each proxy."""
    found: dict[str, set[str]] = {}
    for parsed in sources.runbooks:
        components = parsed.value.components.values() if parsed.value is not None else ()
        for component in components:
            if shape.component_type(component) == "haproxy":
                for name in (name for names in component.proxies.values() for name in names):
                    found.setdefault(name, set()).add(component.backend)
    return {name: sorted(found[name]) for name in sorted(found)}
