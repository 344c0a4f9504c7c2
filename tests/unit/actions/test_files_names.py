"""Names of documents that hold what some take for the end of a line: signed, fetched, verified, published and kept."""

from __future__ import annotations

import hashlib
import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from orchestrator.actions.files import Publish, PublishParams, Verify, VerifyParams
from orchestrator.actions.files_keep import Keep, KeepParams
from orchestrator.bootstrap import documents
from orchestrator.components.files import Files, FilesAt
from orchestrator.core.groups import GroupState
from orchestrator.core.outcomes import Failed, FindingKind, Succeeded
from orchestrator.drivers import files_history, files_host, files_keep_host, files_verify_host
from orchestrator.lab import editions
from orchestrator.lab.gazette import Gazette, handler
from orchestrator.lab.replicator import Replicator
from tests.action_context import context
from tests.unit.actions.test_files_keep import BOUND_MS, PARTS

ENDS = "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e\r"  # of lines, for str.splitlines; no newline is among them
STRANGE = {f"2026/a{end}b.txt": f"of {end!r}".encode() for end in ENDS} | {" %41 ü": b"plain"}
NEWLINE = "2026/a\nb.txt"
INJECTED = f"a\n{'0' * 64}  b"  # a name that would be two lines of a manifest


class Site:
    """A gazette with its folder, as the lab makes one."""

    def __init__(self, folder: Path, site: str, private: str) -> None:
        folder.mkdir()
        (folder / "key").write_text(private)
        self.folder = folder
        self.gazette = Gazette({"site": site, "folder": folder, "key_file": folder / "key"})

    @property
    def documents(self) -> Path:
        return self.folder / "current" / "documents"

    def manifest(self) -> str:
        return (self.folder / "current" / "MANIFEST").read_bytes().decode()

    def publish(self, mode: Any, epoch: int, site: str) -> None:
        params = PublishParams(
            self._host, str(self.documents), str(self.folder / "published"), mode, epoch, site
        )
        done = Publish().execute(context(params, PARTS, run=f"run-{epoch}"))
        assert isinstance(done, Succeeded), done

    def verify(self, public: str) -> Any:
        params = VerifyParams(self._host, str(self.documents), "../MANIFEST", public)
        return Verify().execute(context(params, PARTS))

    @property
    def _host(self) -> str:
        return "h1" if self.gazette.site == "home" else "e1"

    @contextmanager
    def served(self) -> Iterator[tuple[str, int]]:
        with ThreadingHTTPServer(("127.0.0.1", 0), handler(self.gazette)) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
            thread.start()
            try:
                yield "127.0.0.1", int(server.server_address[1])
            finally:
                server.shutdown()
                thread.join()


@pytest.fixture
def keys() -> tuple[str, str]:
    """(private, public)"""
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    return private, key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


@pytest.fixture
def home(tmp_path: Path, keys: tuple[str, str]) -> Site:
    made = Site(tmp_path / "home", "home", keys[0])
    made.gazette.publish_all({"first.txt": b"first"})
    made.publish("full", 1, "home")
    return made


def put(where: tuple[str, int], name: str, content: bytes) -> int:
    connection = http.client.HTTPConnection(*where, timeout=5)
    try:
        connection.request("PUT", f"/documents/{quote(name)}", body=content)
        return connection.getresponse().status
    finally:
        connection.close()


def test_a_name_is_the_same_from_the_client_to_the_other_site(
    home: Site, tmp_path: Path, keys: tuple[str, str]
) -> None:
    embassy = Site(tmp_path / "embassy", "embassy", keys[0])
    (tmp_path / "key.pub").write_text(keys[1])
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in STRANGE.items()}
    digests["first.txt"] = hashlib.sha256(b"first").hexdigest()
    with home.served() as where:
        assert {name: put(where, name, content) for name, content in STRANGE.items()} == dict.fromkeys(
            STRANGE, 200
        )
        source = f"http://{where[0]}:{where[1]}"
        Replicator(
            {"source": source, "folder": embassy.folder, "public_key_file": tmp_path / "key.pub"}
        ).step()
    for site in (home, embassy):
        assert editions.parse_manifest(site.manifest()) == files_history.parse(site.manifest()) == digests
        verified = site.verify(keys[1])
        assert isinstance(verified, Succeeded), verified
        assert verified.evidence["files"] == len(digests)
    embassy.publish("read-only", 2, "embassy")
    for name, content in STRANGE.items():
        assert (embassy.folder / "published" / name).read_bytes() == content
        assert embassy.gazette.document(name) == content
    assert editions.set_aside(embassy.folder, 1 + len(STRANGE), home.manifest()) == [], (
        "the very same edition"
    )


def keeping(home: Site, embassy: Site) -> KeepParams:
    return KeepParams(
        "h1", str(home.documents), str(home.folder / "current" / "MANIFEST"), str(home.folder / "published"),
        "e1", str(embassy.folder / "current" / "MANIFEST"), str(embassy.folder / "published"), 2, "embassy",
    )  # fmt: skip


@pytest.fixture
def apart(home: Site, tmp_path: Path, keys: tuple[str, str]) -> tuple[Site, Site]:
    """Home holds documents that never arrived at the embassy, which took over; home is closed."""
    embassy = Site(tmp_path / "embassy", "embassy", keys[0])
    embassy.gazette.publish_all({"first.txt": b"first"})
    home.gazette.publish_all(STRANGE)
    embassy.publish("full", 2, "embassy")
    closed = files_host.close(
        {
            "published": str(home.folder / "published"), "epoch": 2, "site": "embassy", "run": "reprotect-1",
            "undo": False, "follows": True, "timeout_ms": BOUND_MS,
        }
    )  # fmt: skip
    assert closed["result"] == "done"
    return home, embassy


def test_what_one_side_alone_holds_is_kept_and_listed_under_its_name(apart: tuple[Site, Site]) -> None:
    asked = context(keeping(*apart), PARTS, run="reprotect-1")
    outcome = Keep().execute(asked)
    assert isinstance(outcome, Succeeded), outcome
    assert outcome.evidence["changed"] == []
    folder = Path(str(outcome.evidence["kept"]))
    for name, content in STRANGE.items():
        assert (folder / "documents" / name).read_bytes() == content
    rows = files_keep_host.look({"folder": str(folder)})["rows"]
    assert {row["document"] for row in rows} == set(STRANGE)
    found = Keep().check(asked)
    assert found.kind is FindingKind.DONE
    assert found.evidence["diverged"] == outcome.evidence["diverged"]


@pytest.mark.parametrize("name", [NEWLINE, INJECTED, "a\0b", "a//b", "a/./b", "../b", ""])
def test_a_name_that_cannot_stand_in_a_manifest_is_not_taken(home: Site, name: str) -> None:
    before = home.manifest()
    with home.served() as where:
        assert put(where, name, b"x") == 422
    with pytest.raises(ValueError, match="not a document's name"):
        home.gazette.publish_all({name: b"x"})
    assert home.manifest() == before


def test_a_newline_in_a_name_is_told_and_never_read_as_two_names(home: Site, keys: tuple[str, str]) -> None:
    (home.documents / "a\nb").write_bytes(b"x")
    verified = home.verify(keys[1])
    assert isinstance(verified, Failed)
    assert "'a\\nb': is not in the manifest" in verified.message
    digest = hashlib.sha256(b"x").hexdigest()
    text = home.manifest() + f"\\{digest}  a\\nb\n"  # as sha256sum writes it
    assert files_history.unread(text) == 2
    problems: list[str] = []
    assert files_verify_host._parse(text, problems).keys() == {"first.txt"}
    assert problems == ["manifest line 2: a name that holds a newline or a backslash is not taken"]


def test_what_a_manifest_cannot_name_holds_up_what_would_leave_it_behind(apart: tuple[Site, Site]) -> None:
    home, _ = apart
    manifest = home.folder / "current" / "MANIFEST"
    text = manifest.read_bytes()
    manifest.write_bytes(text + f"\\{'0' * 64}  a\\nb\n".encode())
    outcome = Keep().execute(context(keeping(*apart), PARTS, run="reprotect-1"))
    assert isinstance(outcome, Failed)
    assert f"h1: {manifest}: line {len(STRANGE) + 2} is not `HASH  NAME`" in outcome.message
    assert not (home.folder / "published.diverged").exists()
    manifest.write_bytes(text)
    outcome = Keep().execute(context(keeping(*apart), PARTS, run="reprotect-1"))
    assert isinstance(outcome, Succeeded), json.dumps(outcome.message if isinstance(outcome, Failed) else "")


def test_a_status_says_that_a_manifest_names_something_that_it_cannot_read(apart: tuple[Site, Site]) -> None:
    home, embassy = apart
    files = Files(
        "documents",
        {
            site: FilesAt(host, str(where.documents), str(where.folder / "published"), "replicator")
            for site, host, where in (("home", "h1", home), ("embassy", "e1", embassy))
        },
        public_key="",
        manifest="../MANIFEST",
    )
    state = GroupState("g", epoch=2, active="embassy")

    def told() -> list[str]:
        return [each.text() for each in documents._apart(context(None, PARTS), state, "documents", files)]

    (beyond,) = told()
    assert beyond.startswith(f"{len(STRANGE)} documents only there")
    assert "cannot be read" not in beyond
    (embassy.folder / "current" / "MANIFEST").write_bytes(b"what is this\n" + home.manifest().encode())
    assert told() == ["line 1 of the manifest at embassy cannot be read: what it names is not compared"], (
        "said although nothing else is apart"
    )
