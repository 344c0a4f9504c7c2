"""Decides what the state gazette answers: it shows what is published, and takes documents only in full mode.

What is published and in which mode is decided by others (``published`` is a symlink, ``published.mode`` a word):
this service must never publish by itself. Run as a program: ``python -m orchestrator.lab.gazette CONFIG.json``.
"""

from __future__ import annotations

import fcntl
import http.server
import json
import sys
import threading
import time
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.lab import editions

BODY_BYTES_MAX = 1024 * 1024
PACE_SECONDS = 0.01


class Gazette:
    """The gazette at one site. ``folder`` holds editions, current, published and the signing key."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.site: str = config["site"]
        self.folder = Path(config["folder"])
        self._key = Path(config["key_file"])
        self._one_at_a_time = threading.Lock()

    def mode(self) -> str:
        """full, read-only, or off when nothing is published."""
        try:
            word = (self.folder / "published.mode").read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return "off"
        return word if word in ("full", "read-only") and (self.folder / "published").exists() else "off"

    def state(self) -> dict[str, Any]:
        return {"site": self.site, "mode": self.mode(), "edition": editions.current_number(self.folder)}

    def document(self, name: str) -> bytes | None:
        """A published document; None when there is none of that name."""
        return self._file((self.folder / "published").resolve(), name)

    def _file(self, base: Path, name: str) -> bytes | None:
        if "\0" in name:
            return None
        path = (base / name).resolve()
        return path.read_bytes() if path.is_relative_to(base) and path.is_file() else None

    def part_of_edition(self, number: str, name: str) -> bytes | None:
        """A file of an edition as it lies on disk, for the replicator of the other site."""
        return self._file((self.folder / "editions").resolve(), f"{number}/{name}")

    def take(self, name: str, content: bytes) -> int:
        """Take one document: the number of its edition; 0 in any mode but full.

        Looked at twice: whoever closes waits for the lock, and those who come later must not hold it.
        """
        if self.mode() != "full":
            return 0
        with (self.folder / "published.taking").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            return self.publish_all({name: content}) if self.mode() == "full" else 0

    def publish_all(self, added: Mapping[str, bytes]) -> int:
        """Add or replace documents: a new edition, signed. Returns its number."""
        from orchestrator.drivers import sshsig

        for name in added:
            editions.must_be_name(name)
        with self._one_at_a_time:
            number = editions.current_number(self.folder)
            documents = editions.read(self.folder, number)[0] if number else {}
            documents.update(added)
            manifest = manifest_of(documents)
            signature = sshsig.sign(self._key.read_text(encoding="utf-8"), manifest.encode())
            editions.add(self.folder, number + 1, documents, manifest, signature)
            return number + 1


def manifest_of(documents: dict[str, bytes]) -> str:
    import hashlib

    return "".join(f"{hashlib.sha256(documents[name]).hexdigest()}  {name}\n" for name in sorted(documents))


def named(path: str) -> str:
    """The name that a path in a request means."""
    return urllib.parse.unquote(path)


def handler(gazette: Gazette) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            if self.path in ("/readyz", "/editions/latest"):
                self._answer(200, gazette.state())
            elif self.path.startswith("/documents/"):
                self._send(gazette.document(named(self.path.removeprefix("/documents/"))))
            elif self.path.startswith("/replica/"):
                number, _, name = self.path.removeprefix("/replica/").partition("/")
                self._send(gazette.part_of_edition(number, named(name)))
            else:
                self._answer(404, {"site": gazette.site, "error": "no such path"})

        def do_PUT(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            if length > BODY_BYTES_MAX or not self.path.startswith("/documents/"):
                self.close_connection = True
                self._answer(413 if length > BODY_BYTES_MAX else 404, {"site": gazette.site})
                return
            content = self.rfile.read(length)
            name = named(self.path.removeprefix("/documents/"))
            try:
                editions.must_be_name(name)
            except ValueError:
                self._answer(422, {"site": gazette.site, "error": "not a document's name"})
                return
            edition = gazette.take(name, content)
            if not edition:
                time.sleep(PACE_SECONDS)  # a proxy that tries again must not use up its tries
                self._answer(503, {**gazette.state(), "error": "nothing is taken here now"})
                return
            self._answer(200, {"site": gazette.site, "edition": edition})

        def _answer(self, status: int, body: dict[str, Any]) -> None:
            self._write(status, "application/json", json.dumps(body).encode())

        def _send(self, content: bytes | None) -> None:
            if content is None:
                self._answer(404, {"site": gazette.site, "error": "no such document"})
            else:
                self._write(200, "application/octet-stream", content)

        def _write(self, status: int, kind: str, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Readers of a gazette are nobody's business."""

    return Handler


def main(config: dict[str, Any]) -> None:
    server = http.server.ThreadingHTTPServer((config["address"], config["port"]), handler(Gazette(config)))
    server.daemon_threads = True
    server.serve_forever(poll_interval=60)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
