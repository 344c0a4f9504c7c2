"""SSH signatures: made here, judged here and by OpenSSH; nothing that was changed passes."""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from orchestrator.drivers import sshsig
from orchestrator.errors import PermanentError

MESSAGE = b"0" * 64 + b"  2026/001.txt\n"


def key_pair() -> tuple[str, str]:
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return private, public + " gazette\n"


PRIVATE, PUBLIC = key_pair()
SIGNATURE = sshsig.sign(PRIVATE, MESSAGE)


def test_a_right_signature_passes() -> None:
    sshsig.verify(PUBLIC, SIGNATURE, MESSAGE)


@pytest.mark.parametrize(
    ("public", "signature", "message", "text"),
    [
        (PUBLIC, SIGNATURE, MESSAGE + b"x", "does not fit"),
        (key_pair()[1], SIGNATURE, MESSAGE, "another key"),
        (PUBLIC, sshsig.sign(PRIVATE, MESSAGE, "file"), MESSAGE, "signed for 'file'"),
        (PUBLIC, "", MESSAGE, "not an armoured"),
        (PUBLIC, SIGNATURE.replace("BEGIN SSH", "BEGIN PGP"), MESSAGE, "not an armoured"),
        (PUBLIC, SIGNATURE.replace("U1NIU0lH", "!!!!!!!!"), MESSAGE, "not base64"),
        ("ssh-rsa AAAA", SIGNATURE, MESSAGE, "the public key"),
        ("", SIGNATURE, MESSAGE, "the public key"),
    ],
    ids=["message", "key", "namespace", "nothing", "another armour", "not base64", "rsa", "no key"],
)
def test_what_does_not_pass(public: str, signature: str, message: bytes, text: str) -> None:
    with pytest.raises(sshsig.BadSignatureError, match=text):
        sshsig.verify(public, signature, message)


def test_no_changed_byte_of_a_signature_passes() -> None:
    lines = SIGNATURE.splitlines()
    blob = base64.b64decode("".join(lines[1:-1]))
    for at in range(len(blob)):
        changed = blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :]
        text = f"{lines[0]}\n{base64.b64encode(changed).decode()}\n{lines[-1]}\n"
        with pytest.raises(sshsig.BadSignatureError):
            sshsig.verify(PUBLIC, text, MESSAGE)
    for count in (0, 3, 10, len(blob) - 1):
        text = f"{lines[0]}\n{base64.b64encode(blob[:count]).decode()}\n{lines[-1]}\n"
        with pytest.raises(sshsig.BadSignatureError):
            sshsig.verify(PUBLIC, text, MESSAGE)


def test_only_ed25519_keys_sign() -> None:
    key = rsa.generate_private_key(65537, 2048)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    with pytest.raises(PermanentError, match="Ed25519"):
        sshsig.sign(private, MESSAGE)


needs_openssh = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")


@needs_openssh
def test_openssh_judges_ours(tmp_path: Path) -> None:
    (tmp_path / "signers").write_text(f"gazette {PUBLIC}")
    (tmp_path / "sig").write_text(SIGNATURE)
    command = [
        "ssh-keygen",
        "-Y",
        "verify",
        "-f",
        "signers",
        "-I",
        "gazette",
        "-n",
        sshsig.NAMESPACE,
        "-s",
        "sig",
    ]
    good = subprocess.run(command, cwd=tmp_path, input=MESSAGE, capture_output=True)
    assert good.returncode == 0, good.stderr
    bad = subprocess.run(command, cwd=tmp_path, input=MESSAGE + b"x", capture_output=True)
    assert bad.returncode != 0


@needs_openssh
@pytest.mark.parametrize("options", [[], ["-O", "hashalg=sha256"]], ids=["sha512", "sha256"])
def test_ours_judges_openssh(tmp_path: Path, options: list[str]) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    (tmp_path / "MANIFEST").write_bytes(MESSAGE)
    command = [
        "ssh-keygen",
        "-Y",
        "sign",
        "-q",
        "-n",
        sshsig.NAMESPACE,
        *options,
        "-f",
        str(tmp_path / "key"),
        str(tmp_path / "MANIFEST"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    signature = (tmp_path / "MANIFEST.sig").read_text()
    public = (tmp_path / "key.pub").read_text()
    sshsig.verify(public, signature, MESSAGE)
    with pytest.raises(sshsig.BadSignatureError):
        sshsig.verify(public, signature, MESSAGE + b"x")
