"""files.verify and files.publish on real folders of this machine."""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from orchestrator.actions.files import Publish, PublishParams, Verify, VerifyParams
from orchestrator.core.model import Host
from orchestrator.core.outcomes import Failed, FindingKind, Succeeded
from orchestrator.core.plan import Parts
from orchestrator.drivers import files_keep_host, files_verify_host, sshsig
from tests.action_context import context

PARTS = Parts(hosts={"e1": Host("e1", "embassy", "127.0.0.1")})


@dataclass
class Gazette:
    folder: Path
    private: str
    public: str

    @property
    def documents(self) -> Path:
        return self.folder / "editions" / "0001" / "documents"

    @property
    def manifest(self) -> Path:
        return self.folder / "editions" / "0001" / "MANIFEST"

    def sign(self) -> None:
        names = sorted(
            p.relative_to(self.documents).as_posix() for p in self.documents.rglob("*") if p.is_file()
        )
        digest = {name: hashlib.sha256((self.documents / name).read_bytes()).hexdigest() for name in names}
        self.write_manifest("".join(f"{digest[name]}  {name}\n" for name in names))

    def write_manifest(self, text: str) -> None:
        self.manifest.write_text(text)
        self.manifest.with_name("MANIFEST.sig").write_text(sshsig.sign(self.private, text.encode()))

    def verify(self) -> Any:
        params = VerifyParams("e1", str(self.documents), "../MANIFEST", self.public)
        return Verify().execute(context(params, PARTS))

    def publish_params(self, mode: Any, epoch: int, site: str = "embassy") -> PublishParams:
        return PublishParams(
            "e1", str(self.folder / "current/documents"), str(self.folder / "published"), mode, epoch, site
        )

    def publish(self, mode: str, epoch: int, run: str) -> Any:
        return Publish().execute(context(self.publish_params(mode, epoch), PARTS, run=run))

    def mode(self) -> str:
        return (self.folder / "published.mode").read_text().strip()


@pytest.fixture
def gazette(tmp_path: Path) -> Gazette:
    key = ed25519.Ed25519PrivateKey.generate()
    made = Gazette(
        tmp_path,
        key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode(),
        key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode(),
    )
    (made.documents / "2026").mkdir(parents=True)
    (made.documents / "2026" / "001.txt").write_text("Act on Data Embassies")
    (made.documents / "ünï code.txt").write_text("x" * 100_000)
    (tmp_path / "current").symlink_to("editions/0001")
    made.sign()
    return made


def test_whole_and_signed_documents_pass(gazette: Gazette) -> None:
    outcome = gazette.verify()
    assert isinstance(outcome, Succeeded), outcome
    assert outcome.evidence["files"] == 2
    assert outcome.evidence["manifest_sha256"] == hashlib.sha256(gazette.manifest.read_bytes()).hexdigest()


def test_the_manifest_is_what_sha256sum_checks(gazette: Gazette) -> None:
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "../MANIFEST"], cwd=gazette.documents, capture_output=True
    )
    assert done.returncode == 0, done.stderr


def test_a_public_key_may_stand_in_a_file(gazette: Gazette, tmp_path: Path) -> None:
    (tmp_path / "key.pub").write_text(gazette.public + " comment\n")
    params = VerifyParams("e1", str(gazette.documents), str(gazette.manifest), str(tmp_path / "key.pub"))
    assert isinstance(Verify().execute(context(params, PARTS)), Succeeded)
    gone = replace(params, public_key="/nonexistent/key.pub")
    outcome = Verify().execute(context(gone, PARTS))
    assert isinstance(outcome, Failed)
    assert "cannot be read" in outcome.message


def tamper(gazette: Gazette) -> None:
    (gazette.documents / "2026" / "001.txt").write_text("Act on Data Embassies?")


def remove(gazette: Gazette) -> None:
    (gazette.documents / "2026" / "001.txt").unlink()


def add(gazette: Gazette) -> None:
    (gazette.documents / "2026" / "002.txt").write_text("Act that nobody passed")


def link(gazette: Gazette) -> None:
    (gazette.documents / "passwd").symlink_to("/etc/passwd")


def link_folder(gazette: Gazette) -> None:
    (gazette.documents / "etc").symlink_to("/etc")


def replace_by_link(gazette: Gazette) -> None:
    """Equal content behind a link is not the document: it can change without us."""
    path = gazette.documents / "2026" / "001.txt"
    path.rename(gazette.folder / "elsewhere")
    path.symlink_to(gazette.folder / "elsewhere")


def pipe(gazette: Gazette) -> None:
    path = gazette.documents / "2026" / "001.txt"
    path.unlink()
    os.mkfifo(path)


def change_manifest(gazette: Gazette) -> None:
    """Document and manifest agree, but nobody signed it."""
    tamper(gazette)
    signature = gazette.manifest.with_name("MANIFEST.sig").read_text()
    gazette.sign()
    gazette.manifest.with_name("MANIFEST.sig").write_text(signature)


def sign_by_another(gazette: Gazette) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    gazette.manifest.with_name("MANIFEST.sig").write_text(sshsig.sign(private, gazette.manifest.read_bytes()))


def drop_signature(gazette: Gazette) -> None:
    gazette.manifest.with_name("MANIFEST.sig").unlink()


def drop_manifest(gazette: Gazette) -> None:
    gazette.manifest.unlink()


def escape(gazette: Gazette) -> None:
    digest = hashlib.sha256(Path("/etc/passwd").read_bytes()).hexdigest()
    gazette.write_manifest(gazette.manifest.read_text() + f"{digest}  ../../../../../../../../etc/passwd\n")


def twice(gazette: Gazette) -> None:
    gazette.write_manifest(gazette.manifest.read_text() * 2)


def drop_all(gazette: Gazette) -> None:
    gazette.documents.rename(gazette.folder / "away")


@pytest.mark.parametrize(
    ("harm", "text"),
    [
        (tamper, "001.txt: is not what the manifest says"),
        (remove, "001.txt: is missing"),
        (add, "002.txt: is not in the manifest"),
        (link, "passwd: is not in the manifest"),
        (link_folder, "etc: is not in the manifest"),
        (replace_by_link, "001.txt: is missing"),
        (pipe, "001.txt: is missing"),
        (change_manifest, "signature: the signature does not fit"),
        (sign_by_another, "signature: signed by another key"),
        (drop_signature, "has no signature"),
        (drop_manifest, "there is no manifest"),
        (escape, "path inside the directory"),
        (twice, "listed twice"),
        (drop_all, "no such directory"),
    ],
)
def test_what_is_not_whole_or_not_signed_fails(
    gazette: Gazette, harm: Callable[[Gazette], None], text: str
) -> None:
    harm(gazette)
    outcome = gazette.verify()
    assert isinstance(outcome, Failed), outcome
    assert text in outcome.message
    assert not outcome.retryable
    params = VerifyParams("e1", str(gazette.documents), "../MANIFEST", gazette.public)
    assert Verify().check(context(params, PARTS)).kind is FindingKind.NOT_DONE


def test_many_problems_are_counted_and_some_are_named(gazette: Gazette) -> None:
    for number in range(50):
        (gazette.documents / f"extra-{number}").touch()
    outcome = gazette.verify()
    assert isinstance(outcome, Failed)
    assert "and 30 more" in outcome.message


def test_a_verification_that_takes_too_long_says_so(gazette: Gazette) -> None:
    with pytest.raises(TimeoutError):
        files_verify_host.verify(
            {"directory": str(gazette.documents), "manifest": "../MANIFEST", "timeout_ms": 0}
        )


def test_read_only_pins_what_was_verified_and_full_follows(gazette: Gazette) -> None:
    assert isinstance(gazette.publish("read-only", 2, "run-2"), Succeeded)
    assert os.readlink(gazette.folder / "published") == str(gazette.documents)
    assert gazette.mode() == "read-only"
    assert isinstance(gazette.publish("full", 2, "run-2"), Succeeded)
    assert os.readlink(gazette.folder / "published") == str(gazette.folder / "current/documents")
    assert gazette.mode() == "full"
    assert (gazette.folder / "published" / "2026" / "001.txt").read_text() == "Act on Data Embassies"


def test_check_knows_its_own_run_and_mode(gazette: Gazette) -> None:
    def check(mode: str, epoch: int, run: str) -> FindingKind:
        return Publish().check(context(gazette.publish_params(mode, epoch), PARTS, run=run)).kind

    assert check("read-only", 2, "run-2") is FindingKind.NOT_DONE
    assert isinstance(gazette.publish("read-only", 2, "run-2"), Succeeded)
    assert check("read-only", 2, "run-2") is FindingKind.DONE
    assert check("full", 2, "run-2") is FindingKind.NOT_DONE
    assert check("read-only", 2, "run-3") is FindingKind.NOT_DONE
    (gazette.folder / "published.epoch").write_text("{")
    assert check("read-only", 2, "run-2") is FindingKind.CANNOT_TELL


def test_stale_and_foreign_epochs_are_refused(gazette: Gazette) -> None:
    assert isinstance(gazette.publish("full", 5, "run-5"), Succeeded)
    for epoch, run, text in ((4, "run-4", "stale"), (5, "run-x", "another run")):
        outcome = gazette.publish("read-only", epoch, run)
        assert isinstance(outcome, Failed)
        assert text in outcome.message
    assert gazette.mode() == "full"
    assert isinstance(gazette.publish("read-only", 6, "run-6"), Succeeded)


def test_a_folder_of_somebody_else_is_never_replaced(gazette: Gazette) -> None:
    (gazette.folder / "published").mkdir()
    (gazette.folder / "published" / "kept").touch()
    outcome = gazette.publish("full", 2, "run-2")
    assert isinstance(outcome, Failed)
    assert "not a link" in outcome.message
    assert (gazette.folder / "published" / "kept").exists()


def test_publishing_what_is_not_there_is_refused(gazette: Gazette) -> None:
    drop_all(gazette)
    outcome = gazette.publish("full", 2, "run-2")
    assert isinstance(outcome, Failed)
    assert not (gazette.folder / "published").is_symlink()


def test_undo_gives_link_and_mode_back_and_keeps_the_epoch(gazette: Gazette) -> None:
    def undo(mode: str, epoch: int, run: str) -> Any:
        return Publish().undo(context(gazette.publish_params(mode, epoch), PARTS, run=run))

    assert isinstance(gazette.publish("full", 1, "run-1"), Succeeded)
    assert isinstance(gazette.publish("read-only", 2, "run-2"), Succeeded)
    assert isinstance(gazette.publish("read-only", 2, "run-2"), Succeeded)
    assert isinstance(undo("read-only", 2, "run-2"), Succeeded)
    assert gazette.mode() == "full"
    assert os.readlink(gazette.folder / "published") == str(gazette.folder / "current/documents")
    assert isinstance(gazette.publish("full", 1, "run-1"), Failed), "epochs only grow"
    assert isinstance(undo("full", 1, "run-1"), Failed)


def test_undo_of_a_first_publication_shows_nothing(gazette: Gazette) -> None:
    assert isinstance(gazette.publish("full", 1, "run-1"), Succeeded)
    assert isinstance(
        Publish().undo(context(gazette.publish_params("full", 1), PARTS, run="run-1")), Succeeded
    )
    assert not os.path.lexists(gazette.folder / "published")
    assert not (gazette.folder / "published.mode").exists()
    assert (gazette.documents / "2026" / "001.txt").exists(), "no document is ever deleted"


def test_the_lock_is_waited_for_within_the_bound(gazette: Gazette) -> None:
    import fcntl

    with (gazette.folder / "published.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        begin = time.monotonic()
        outcome = Publish().execute(context(gazette.publish_params("full", 2), PARTS, seconds=0.2))
        assert not isinstance(outcome, Succeeded)
        assert time.monotonic() - begin < 2
        threading.Timer(0.1, lambda: fcntl.flock(held, fcntl.LOCK_UN)).start()
        assert isinstance(gazette.publish("full", 2, "run-2"), Succeeded)


def test_process_tells_a_living_process_from_none_and_from_a_zombie() -> None:
    child = subprocess.Popen(["sleep", "60"])
    assert files_keep_host.process({"pid": child.pid})["alive"]
    child.kill()
    deadline = time.monotonic() + 10
    while files_keep_host.process({"pid": child.pid})["alive"]:  # not reaped yet: a zombie
        assert time.monotonic() < deadline
        time.sleep(0.005)
    child.wait()
    assert not files_keep_host.process({"pid": child.pid})["alive"]
