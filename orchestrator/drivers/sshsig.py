"""Decides whether an SSH signature (SSHSIG, Ed25519) is right, and makes one; must never trust the key
that a signature brings: it must be the key that the caller names.

The format is OpenSSH's PROTOCOL.sshsig, so people can make and check the same signatures with
``ssh-keygen -Y sign -n continuity-manifest -f KEY FILE`` and ``ssh-keygen -Y verify``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
import textwrap
from pathlib import Path

from orchestrator.errors import PermanentError

NAMESPACE = "continuity-manifest"
KEY_TYPE = b"ssh-ed25519"
MAGIC = b"SSHSIG"
VERSION = 1
HASHES = {b"sha512": hashlib.sha512, b"sha256": hashlib.sha256}
BEGIN, END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"


class BadSignatureError(PermanentError):
    """The signature is not a right one by the named key for this message."""


def sign(private_key: str, message: bytes, namespace: str = NAMESPACE) -> str:
    """An armoured signature by an unencrypted Ed25519 key in OpenSSH's format."""
    from cryptography.hazmat.primitives.asymmetric import ed25519
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        PublicFormat,
        load_ssh_private_key,
    )

    key = load_ssh_private_key(private_key.encode(), password=None)
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise PermanentError("only Ed25519 keys sign manifests")
    raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    signature = key.sign(_signed(namespace.encode(), b"sha512", message))
    blob = MAGIC + struct.pack(">I", VERSION)
    blob += _string(_string(KEY_TYPE) + _string(raw))
    blob += _string(namespace.encode()) + _string(b"") + _string(b"sha512")
    blob += _string(_string(KEY_TYPE) + _string(signature))
    lines = textwrap.wrap(base64.b64encode(blob).decode("ascii"), 70)
    return "\n".join((BEGIN, *lines, END)) + "\n"


def verify(public_key: str, signature: str, message: bytes, namespace: str = NAMESPACE) -> None:
    """Return when ``signature`` is by ``public_key`` (``ssh-ed25519 AAAA… comment``) for this message.

    Raises BadSignatureError with what is wrong.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ed25519

    trusted = _raw_key(_decoded_key(public_key))
    reader = _Reader(_unarmoured(signature))
    if reader.take(len(MAGIC)) != MAGIC:
        raise BadSignatureError("not an SSH signature")
    version = struct.unpack(">I", reader.take(4))[0]
    if version != VERSION:
        raise BadSignatureError(f"SSH signature of version {version}, not {VERSION}")
    named, space, _, hash_name, inner = (reader.string() for _ in range(5))
    reader.end()
    if _raw_key(named) != trusted:
        raise BadSignatureError("signed by another key than the one that is trusted")
    if space != namespace.encode():
        raise BadSignatureError(f"signed for {space.decode('utf-8', 'replace')!r}, not for {namespace!r}")
    if hash_name not in HASHES:
        raise BadSignatureError(f"unknown hash {hash_name.decode('utf-8', 'replace')!r}")
    parts = _Reader(inner)
    kind, value = parts.string(), parts.string()
    parts.end()
    if kind != KEY_TYPE:
        raise BadSignatureError(f"signature of type {kind.decode('utf-8', 'replace')!r}, not ssh-ed25519")
    try:
        key = ed25519.Ed25519PublicKey.from_public_bytes(trusted)
        key.verify(value, _signed(space, hash_name, message))
    except (InvalidSignature, ValueError) as error:
        raise BadSignatureError(
            "the signature does not fit: the content or the signature was changed"
        ) from error


class _Reader:
    """Reads SSH wire values; whatever is short or left over is a bad signature."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0

    def take(self, count: int) -> bytes:
        if count > len(self._content) - self._at:
            raise BadSignatureError("the signature is cut short")
        self._at += count
        return self._content[self._at - count : self._at]

    def string(self) -> bytes:
        return self.take(struct.unpack(">I", self.take(4))[0])

    def end(self) -> None:
        if self._at != len(self._content):
            raise BadSignatureError("the signature has something left over")


def _signed(namespace: bytes, hash_name: bytes, message: bytes) -> bytes:
    digest = HASHES[hash_name](message).digest()
    return MAGIC + _string(namespace) + _string(b"") + _string(hash_name) + _string(digest)


def _string(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content


def _raw_key(blob: bytes) -> bytes:
    reader = _Reader(blob)
    kind, raw = reader.string(), reader.string()
    reader.end()
    if kind != KEY_TYPE or len(raw) != 32:
        raise BadSignatureError(f"not an Ed25519 key: {kind.decode('utf-8', 'replace')}")
    return raw


def _decoded_key(line: str) -> bytes:
    words = line.split()
    if len(words) < 2 or words[0] != KEY_TYPE.decode():
        raise BadSignatureError("the public key is not a line `ssh-ed25519 AAAA… comment`")
    return _base64(words[1])


def _unarmoured(text: str) -> bytes:
    lines = [line.strip() for line in text.strip().splitlines()]
    if len(lines) < 3 or lines[0] != BEGIN or lines[-1] != END:
        raise BadSignatureError("not an armoured SSH signature")
    return _base64("".join(lines[1:-1]))


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadSignatureError("not base64") from error


def public_key(named: str) -> str:
    """A public key that is given as its line, or as the path of the file that holds it. PermanentError: no such file."""
    if named.startswith("ssh-"):
        return named
    try:
        return Path(named).read_text(encoding="utf-8")
    except OSError as error:
        raise PermanentError(f"{named}: the public key cannot be read: {error.strerror}") from error
