"""Decides how the gazette's editions lie on disk: each whole, signed and never changed; ``current`` names one.

An edition is ``editions/NNNN`` with ``documents/``, ``MANIFEST`` (as ``sha256sum`` writes it, paths from
``documents``) and ``MANIFEST.sig`` (an SSH signature). ``current`` is a symlink that is flipped in one step, so
whoever is stopped at any moment leaves a whole edition behind. Nothing here ever deletes an edition.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

MANIFEST, SIGNATURE, DOCUMENTS = "MANIFEST", "MANIFEST.sig", "documents"


def current_number(folder: Path) -> int:
    """The number of the current edition; 0 when there is none."""
    try:
        return int(os.path.basename(os.readlink(folder / "current")))
    except (FileNotFoundError, ValueError):
        return 0


def parse_manifest(text: str) -> dict[str, str]:
    """path → digest. ValueError for a line that is not one, or a path that leaves the folder.

    Lines end by a newline and nothing else: U+2028, form feeds and their like may stand in names.
    """
    found: dict[str, str] = {}
    for line in text.removesuffix("\n").split("\n") if text else ():
        digest, separator, name = line.partition("  ")
        if not separator or len(digest) != 64:
            raise ValueError(f"not a line of a manifest: {line[:120]!r}")
        must_be_name(name)
        found[name] = digest
    return found


def must_be_name(name: str) -> None:
    """ValueError for what cannot stand in a manifest, or would be found under another name on disk."""
    if "\n" in name or "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise ValueError(f"not a document's name: {name[:120]!r}")


def add(folder: Path, number: int, documents: Mapping[str, bytes], manifest: str, signature: str) -> None:
    """Put a whole edition on disk and make it the current one. An edition that is there already stays."""
    editions = folder / "editions"
    editions.mkdir(mode=0o700, parents=True, exist_ok=True)
    target = editions / f"{number:04}"
    if not target.exists():
        coming = Path(tempfile.mkdtemp(prefix=".coming-", dir=editions))
        try:
            for name, content in documents.items():
                path = coming / DOCUMENTS / name
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                path.write_bytes(content)
            (coming / MANIFEST).write_bytes(manifest.encode())
            (coming / SIGNATURE).write_text(signature, encoding="utf-8")
            _flush(coming)
            os.rename(coming, target)
        finally:
            shutil.rmtree(coming, ignore_errors=True)
    point(folder / "current", Path("editions") / target.name)


def _flush(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def point(link: Path, target: Path) -> None:
    """Make ``link`` a symlink to ``target`` in one step."""
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    os.replace(temporary, link)


def _text(path: Path) -> str:
    """As it was signed: a carriage return in a name must not become a newline."""
    return path.read_bytes().decode("utf-8")


def set_aside(folder: Path, number: int, manifest: str) -> list[Path]:
    """Rename every edition from ``number`` on that is not this one: their numbers will be given again.

    Where they went; each stays whole.
    """
    moved = []
    for edition in sorted((folder / "editions").glob("[0-9]*")):
        theirs = _text(edition / MANIFEST)
        if int(edition.name) < number or (int(edition.name) == number and theirs == manifest):
            continue
        aside = folder / "aside"
        aside.mkdir(mode=0o700, exist_ok=True)
        digest = hashlib.sha256(theirs.encode()).hexdigest()
        target = aside / f"{edition.name}-{digest[:16]}"
        while target.exists():
            target = target.with_name(target.name + "-again")
        os.rename(edition, target)
        moved.append(target)
    return moved


def manifest_of_current(folder: Path) -> str:
    """The current edition's manifest; "" where there is none."""
    try:
        return _text(folder / "current" / MANIFEST)
    except FileNotFoundError:
        return ""


def read(folder: Path, number: int) -> tuple[dict[str, bytes], str, str]:
    """An edition's documents, manifest and signature."""
    edition = folder / "editions" / f"{number:04}"
    documents = edition / DOCUMENTS
    found = {
        path.relative_to(documents).as_posix(): path.read_bytes()
        for path in sorted(documents.rglob("*"))
        if path.is_file()
    }
    manifest = _text(edition / MANIFEST)
    return found, manifest, (edition / SIGNATURE).read_text(encoding="utf-8")
