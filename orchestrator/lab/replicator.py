"""Decides when this site has the other site's newest edition: copied whole, verified, then made current.

It runs at the site that receives and asks over the link. An edition that does not verify is left out and said;
nothing is ever deleted, and no lower edition replaces a higher one, except where this site was closed because the
other one may publish: what it holds beyond the other's newest edition is then set aside. A site that takes
documents itself copies nothing. Run as a program:
``python -m orchestrator.lab.replicator CONFIG.json``.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from orchestrator.drivers import http, sshsig
from orchestrator.errors import ContinuityError
from orchestrator.lab import editions
from orchestrator.lab.layout import write_file

POLL_SECONDS = 0.2
AS_OF = "as-of"
ANSWER_SECONDS_MAX = 2.0


class Replicator:
    def __init__(self, config: dict[str, Any]) -> None:
        self._source: str = config["source"]
        self._folder = Path(config["folder"])
        self._public_key = Path(config["public_key_file"]).read_text(encoding="utf-8")
        self._said = ""

    def look(self) -> None:
        """Look once, copy what is newer, and keep when the look began after which all was here."""
        began = datetime.now(UTC)
        if self._mode() == "full":
            self._say("documents are taken here: nothing is copied")
            return
        self.step()
        write_file(
            self._folder / AS_OF, began.isoformat(timespec="milliseconds").replace("+00:00", "Z") + "\n"
        )

    def step(self) -> None:
        """Copy the newest edition if it is newer than ours."""
        source = json.loads(self._get("/editions/latest"))
        latest, goes_back = int(source["edition"]), self._may_publish() == source["site"]
        if latest <= editions.current_number(self._folder) and not goes_back:
            return
        base = f"/replica/{latest:04}"
        manifest = self._get(f"{base}/{editions.MANIFEST}").decode("utf-8")
        is_same = latest == editions.current_number(self._folder)
        if is_same and manifest == editions.manifest_of_current(self._folder):
            return
        signature = self._get(f"{base}/{editions.SIGNATURE}").decode("utf-8")
        sshsig.verify(self._public_key, signature, manifest.encode())
        documents: dict[str, bytes] = {}
        for name, digest in editions.parse_manifest(manifest).items():
            documents[name] = self._get(f"{base}/{editions.DOCUMENTS}/{quote(name)}")
            if hashlib.sha256(documents[name]).hexdigest() != digest:
                raise ValueError(f"edition {latest}: {name} is not what the manifest says")
        for aside in editions.set_aside(self._folder, latest, manifest) if goes_back else ():
            sys.stderr.write(f"{self._may_publish()} may publish: set aside as {aside.name}\n")
        editions.add(self._folder, latest, documents, manifest, signature)
        self._say(f"edition {latest} is here and whole")

    def _mode(self) -> str:
        try:
            return (self._folder / "published.mode").read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return ""

    def _may_publish(self) -> str:
        """The site under whose right this one was closed, or whose it is; "" where nothing was ever published."""
        try:
            return str(json.loads((self._folder / "published.epoch").read_text(encoding="utf-8"))["site"])
        except FileNotFoundError:
            return ""

    def _get(self, path: str) -> bytes:
        answer = http.exchange("GET", self._source + path, timeout_seconds=ANSWER_SECONDS_MAX)
        if answer.status != 200:
            raise ValueError(f"{path}: HTTP {answer.status}")
        return answer.body

    def _say(self, line: str) -> None:
        if line != self._said:
            self._said = line
            sys.stderr.write(line + "\n")

    def run(self) -> None:
        """Look again and again; never returns."""
        while True:
            try:
                self.look()
            except (ContinuityError, OSError, ValueError, KeyError, TypeError) as error:
                self._say(f"nothing copied: {error}")
            time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    Replicator(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))).run()
