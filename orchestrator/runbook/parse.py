"""Decides how files become an ``Estate`` and ``Runbook`` values; must never change what they say.

All problems of all files are found in one pass. A part that cannot be used (an unknown key, a bad
duration) is reported, then cut out, so that what is left is still checked for its meaning.
"""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.core.model import Estate, Runbook
from orchestrator.errors import InputError, Problem
from orchestrator.ports import Catalog
from orchestrator.runbook import checks, loader, schema, shape, wording
from orchestrator.runbook.loader import Document
from orchestrator.runbook.problems import Problems, YamlPath, suggest
from orchestrator.runbook.references import walk
from orchestrator.runbook.sources import Parsed, Sources

PRUNE_ROUNDS_MAX = 60
REFERENCED_BYTES_MAX = 64 * 1024 * 1024
RUNBOOK_FOLDER = "runbooks"


@dataclass(frozen=True, slots=True)
class Loaded:
    """An estate and its runbooks by name, free of problems.

    ``files``: SHA-256 (hex) of each file that the texts refer to, by the path as it is written
    (``./tls/ca.pem``). ``sources``: the same of estate and runbook files, by name in the estate's
    folder. ``warnings`` are for people and stop nothing.
    """

    estate: Estate
    runbooks: Mapping[str, Runbook]
    warnings: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)


def load_estate(
    path_estate: Path, runbook_paths: Sequence[Path] | None = None, catalog: Catalog | None = None
) -> Loaded:
    """Read an estate and its runbooks (by default ``runbooks/*.yaml`` beside it).

    Raises InputError with every problem of every file. With a ``catalog`` the actions of own steps
    and fences are checked too.
    """
    loaded, problems = examine(path_estate, runbook_paths, catalog)
    if problems or loaded is None:
        raise InputError(problems)
    return loaded


def examine(
    path_estate: Path | None,
    runbook_paths: Sequence[Path] | None = None,
    catalog: Catalog | None = None,
    *,
    extra_checks: Sequence[Callable[[Sources], None]] = (),
) -> tuple[Loaded | None, tuple[Problem, ...]]:
    """As ``load_estate``, but hands the problems back. Without an estate (None) the runbooks are
    checked each for itself and nothing is loaded."""
    was_collecting = gc.isenabled()
    gc.disable()  # reading makes many objects and no cycles: collecting them took two thirds of the time
    try:
        return _examine(path_estate, runbook_paths, catalog, extra_checks)
    finally:
        if was_collecting:
            gc.enable()


def _examine(
    path_estate: Path | None,
    runbook_paths: Sequence[Path] | None,
    catalog: Catalog | None,
    extra_checks: Sequence[Callable[[Sources], None]],
) -> tuple[Loaded | None, tuple[Problem, ...]]:
    folder = path_estate.parent if path_estate is not None else None
    problems, warnings = Problems(), loader.warnings()
    if runbook_paths is None:
        runbook_paths = _runbooks_beside(path_estate, warnings) if path_estate is not None else ()
    estate = _parse(path_estate, folder, "Estate", problems) if path_estate is not None else None
    parsed = [_parse(path, folder, "Runbook", problems) for path in runbook_paths]
    unread = tuple(path.stem for path, item in zip(runbook_paths, parsed, strict=True) if item is None)
    read_well = tuple(item for item in parsed if item is not None)
    sources = Sources(estate, read_well, unread, problems, warnings, catalog)
    checks.check(sources)
    for extra in extra_checks:
        extra(sources)
    found = problems.ordered()
    if found or estate is None or folder is None:
        return None, found
    runbooks = {item.value.name: _beside(item, folder) for item in sources.runbooks}
    files = _referenced(folder, sources, warnings)
    read = [path_estate, *runbook_paths]
    digests = {_shown(path, folder): _sha256(path) for path in read if path is not None}
    return Loaded(_beside(estate, folder), runbooks, tuple(warnings), files, digests), ()


def _runbooks_beside(path_estate: Path, warnings: list[str]) -> tuple[Path, ...]:
    folder = path_estate.parent / RUNBOOK_FOLDER
    found = tuple(sorted(folder.glob("*.yaml")))
    if not found:
        warnings.append(f"no runbooks: {folder}/*.yaml matches nothing")
    warnings.extend(f"not read, its name must end in .yaml: {path}" for path in sorted(folder.glob("*.yml")))
    return found


def _shown(path: Path, folder: Path | None) -> str:
    if folder is not None and path.is_relative_to(folder):
        return str(path.relative_to(folder))
    return str(path)


# --- one file -----------------------------------------------------------------------------------


def _parse(path: Path, folder: Path | None, kind: str, problems: Problems) -> Parsed | None:
    document = loader.read(path, _shown(path, folder), problems)
    if document is None:
        return None
    return parse_document(document, kind, problems)


def parse_document(document: Document, kind: str, problems: Problems) -> Parsed | None:
    """Check the shape of one document of this kind; None if it says that it is of another kind."""
    if not _is_of_kind(document, kind, problems):
        return None
    root = schema.KINDS[kind]
    model = schema.model_of(root)
    names = {section: frozenset(found) for section, found in document.data.items() if isinstance(found, dict)}
    for path, message, hint in wording.done_items(document.data) if kind == "Runbook" else ():
        _note(document, path, message, hint, problems)
        document.prune(path)
    checked = None
    for attempt in range(PRUNE_ROUNDS_MAX):
        checked, errors = _validate(model, document.data)
        if checked is not None:
            break
        places: list[YamlPath] = []
        for error in errors:
            path = wording.yaml_path(error, root)
            if attempt == 0:
                message, hint = wording.explain(error, root, document.data, path)
                _note(document, path, message, hint, problems)
            places.append(path[:-1] if error["type"] == "missing" and len(path) > 1 else path)
        if not _cut(document, root, places):
            break
    value = schema.build(root, checked) if checked is not None else None
    if value is not None and kind == "Runbook" and not value.name:
        value = dataclasses.replace(value, name=document.path.stem)
    return Parsed(document, value, names, tuple(walk(value)) if value is not None else ())


def _note(document: Document, path: YamlPath, message: str, hint: str, problems: Problems) -> None:
    line, printed = document.place(path)
    problems.add(document.file, line, printed, message, hint, unless_known=True)


def _is_of_kind(document: Document, kind: str, problems: Problems) -> bool:
    """Fills in a wrong or missing apiVersion after reporting it; False for another kind of file."""
    data = document.data
    version, written = data.get("apiVersion"), data.get("kind")
    if version != schema.API_VERSION:
        message = "`apiVersion` is missing" if version is None else f"unknown apiVersion `{version}`"
        _note(document, ("apiVersion",), message, f"write `apiVersion: {schema.API_VERSION}`", problems)
        data["apiVersion"] = schema.API_VERSION
    if written == kind:
        return True
    hint = f"write `kind: {kind}`"
    if written is None:
        _note(document, ("kind",), "`kind` is missing", hint, problems)
        data["kind"] = kind
        return True
    if written in schema.KINDS:
        hint = f"a file of kind {kind} is expected here"
    elif isinstance(written, str):
        hint = suggest(written, schema.KINDS)
    _note(document, ("kind",), f"kind `{written}` is not `{kind}`", hint, problems)
    return False


def _validate(model: type[Any], data: Mapping[str, Any]) -> tuple[Any, list[Any]]:
    from pydantic import ValidationError

    try:
        return model.model_validate(data), []
    except ValidationError as error:
        return None, error.errors(include_url=False)


def _cut(document: Document, root: type[Any], places: Sequence[YamlPath]) -> bool:
    """Remove what cannot be used, last places first; False if nothing could be removed."""
    changed = False
    for path in sorted(set(places), key=_order, reverse=True):
        if len(path) == 1:
            document.prune(path)
            for key in shape.keys_of(root):
                if key.key == path[0] and key.required:
                    document.data[key.key] = shape.placeholder(key.annotation)
            changed = True
        elif path:
            changed = document.prune(path) or changed
    return changed


def _order(path: YamlPath) -> tuple[tuple[int, int, str], ...]:
    return tuple((0, item, "") if isinstance(item, int) else (1, 0, item) for item in path)


# --- paths beside the estate --------------------------------------------------------------------


def _referenced(folder: Path, sources: Sources, warnings: list[str]) -> dict[str, str]:
    """Digests of the files written as ``./…``; a missing one is a warning. Folders have none, and what
    lies outside the estate's folder (``./../…``) is data of a host, which changes without the plan."""
    digests: dict[str, str] = {}
    for parsed in (sources.estate, *sources.runbooks):
        assert parsed is not None
        for text in parsed.texts:
            is_beside = text.text.startswith("./") and ".." not in text.text and "${" not in text.text
            if not is_beside or text.text in digests:
                continue
            path = folder / text.text
            if path.is_file() and path.stat().st_size <= REFERENCED_BYTES_MAX:
                digests[text.text] = _sha256(path)
            elif not path.exists():
                line, printed = parsed.document.place(text.path)
                warnings.append(f"{parsed.document.file}:{line}: {printed}: {text.text} does not exist here")
    return dict(sorted(digests.items()))


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _beside(parsed: Parsed, folder: Path) -> Any:
    if any(text.text.startswith("./") for text in parsed.texts):
        return at_folder(parsed.value, folder)
    return parsed.value


def at_folder(value: Any, folder: Path) -> Any:
    """The value with every text that begins with ``./`` made absolute against the estate's folder."""
    if isinstance(value, str):
        return os.path.normpath(folder.resolve() / value) if value.startswith("./") else value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changed = {}
        for item in dataclasses.fields(value):
            before = getattr(value, item.name)
            after = at_folder(before, folder)
            if after is not before:
                changed[item.name] = after
        return dataclasses.replace(value, **changed) if changed else value
    if isinstance(value, Mapping):
        parts = {key: at_folder(item, folder) for key, item in value.items()}
        return parts if any(parts[key] is not value[key] for key in value) else value
    if isinstance(value, (list, tuple)):
        items = [at_folder(item, folder) for item in value]
        if any(after is not before for after, before in zip(items, value, strict=True)):
            return tuple(items) if isinstance(value, tuple) else items
    return value
