"""Decides the lab's certificates and passwords: made anew for each lab, never read from anywhere else."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import secrets
from pathlib import Path

from orchestrator.lab import layout
from orchestrator.lab.layout import SITES, Lab

DAYS_VALID = 30
SECRET_NAMES = ("pg-control", "pg-replication", "pg-rewind", "supervisor")
APPLICATION_SECRETS = ("pg-population", "pg-land", "pg-auditor")


def make(lab: Lab) -> None:
    """Write the CA, a server certificate per site (for its own and its relay address) and all passwords."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    def builder(subject: str, key: ec.EllipticCurvePrivateKey, issuer: x509.Name) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=DAYS_VALID))
        )

    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = name(f"continuity lab {lab.number}")
    ca = (
        builder(f"continuity lab {lab.number}", ca_key, ca_name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    ca_text = _pem(ca)
    layout.write_file(lab.ca, ca_text, 0o644)
    for site in SITES:
        key = ec.generate_private_key(ec.SECP256R1())
        addresses = [lab.address(site), lab.way_to(site)]
        alternatives = x509.SubjectAlternativeName(
            [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        )
        certificate = (
            builder(f"database at {site}", key, ca_name)
            .add_extension(alternatives, critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .sign(ca_key, hashes.SHA256())
        )
        config = lab.site(site).config
        layout.write_file(config / "server.crt", _pem(certificate), 0o644)
        layout.write_file(config / "server.key", _key_pem(key), 0o600)
        layout.write_file(config / "ca.pem", ca_text, 0o644)
    make_secrets(lab)


def make_secrets(lab: Lab) -> None:
    """Write every password and the TSIG key, each a file of its own, mode 0600."""
    for secret in (*SECRET_NAMES, *APPLICATION_SECRETS):
        layout.write_file(lab.secrets / secret, secrets.token_urlsafe(24) + "\n")
    layout.write_file(lab.secrets / "tsig", base64.b64encode(secrets.token_bytes(32)).decode() + "\n")


def make_signing_key(folder: Path) -> tuple[Path, Path]:
    """An Ed25519 key in OpenSSH's format in ``folder``: (private, public)."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    key = ed25519.Ed25519PrivateKey.generate()
    private, public = folder / "gazette-key", folder / "gazette-key.pub"
    layout.write_file(
        private,
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        ).decode(),
    )
    line = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    layout.write_file(public, line.decode() + " gazette\n", 0o644)
    return private, public


def _pem(certificate: object) -> str:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    assert isinstance(certificate, x509.Certificate)
    return certificate.public_bytes(Encoding.PEM).decode()


def _key_pem(key: object) -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
