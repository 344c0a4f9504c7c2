"""Publish a folder of documents under an epoch, if each is what the manifest says and the manifest is signed.

documents.py GAZETTE-FOLDER PUBLIC-KEY EPOCH SITE RUN
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

from orchestrator.drivers import sshsig


def publish(folder: Path, public_key: Path, epoch: int, site: str, run: str) -> None:
    """Raises RuntimeError for a document that is missing, other or unlisted, or for a newer epoch."""
    edition = (folder / "current").resolve()
    manifest = (edition / "MANIFEST").read_text(encoding="utf-8")
    signature = (edition / "MANIFEST.sig").read_text(encoding="utf-8")
    sshsig.verify(public_key.read_text(encoding="utf-8"), signature, manifest.encode())
    listed = {name: digest for digest, _, name in (line.partition("  ") for line in manifest.splitlines())}
    documents = edition / "documents"
    found = {
        path.relative_to(documents).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in documents.rglob("*")
        if path.is_file()
    }
    if found != listed:
        raise RuntimeError(f"documents differ from the manifest: {sorted(found.items() ^ listed.items())}")
    epoch_file = folder / "published.epoch"
    if epoch_file.exists() and json.loads(epoch_file.read_text(encoding="utf-8"))["epoch"] > epoch:
        raise RuntimeError(f"epoch {epoch} is stale")
    claim = {"epoch": epoch, "site": site, "run": run, "previous": {"target": None, "mode": None}}
    _write(epoch_file, json.dumps(claim))
    link = folder / "published.new"
    link.unlink(missing_ok=True)
    link.symlink_to(folder / "current" / "documents")
    os.replace(link, folder / "published")
    _write(folder / "published.mode", "full\n")


def _write(path: Path, text: str) -> None:
    new = path.with_name(path.name + ".new")
    with open(new, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)


if __name__ == "__main__":
    where, key, number, at, who = sys.argv[1:]
    publish(Path(where), Path(key), int(number), at, who)
