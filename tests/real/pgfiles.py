"""What the two servers of a pair are made of: certificates, configuration, the supervisor's file."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import shlex
from pathlib import Path
from typing import Any

from tests.real.pgpair import HOSTS, PORT, SECRETS, SUPERVISOR_PORT, Pair


def write(path: Path, text: str, mode: int = 0o600) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def wrappers(folder: Path, real: str) -> None:
    prefix = "unshare --user --map-user=1000 --map-group=1000 --" if os.getuid() == 0 else ""
    for tool in (
        "postgres",
        "initdb",
        "pg_ctl",
        "pg_rewind",
        "pg_basebackup",
        "pg_controldata",
        "pg_waldump",
    ):
        write(
            folder / tool, f'#!/bin/sh\nLC_ALL=C exec {prefix} {shlex.quote(f"{real}/{tool}")} "$@"\n', 0o755
        )


def certificates(folder: Path, addresses: tuple[str, ...]) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    def make(
        subject: str, issuer: str, key: Any, signer: Any, *extensions: x509.ExtensionType
    ) -> x509.Certificate:
        moment = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(moment - dt.timedelta(hours=1))
            .not_valid_after(moment + dt.timedelta(days=1))
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return builder.sign(signer, hashes.SHA256())

    pem, none = serialization.Encoding.PEM, serialization.NoEncryption()
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = make("test ca", "test ca", ca_key, ca_key, x509.BasicConstraints(ca=True, path_length=0))
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(a)) for a in addresses])
    server = make("server", "test ca", key, ca_key, names)
    write(folder / "ca.pem", ca.public_bytes(pem).decode())
    write(folder / "server.crt", server.public_bytes(pem).decode())
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, none)
    write(folder / "server.key", private.decode())


CONFIG = """\
data_directory = '{data}'
hba_file = '{config}/pg_hba.conf'
ident_file = '{config}/pg_ident.conf'
listen_addresses = '{address}'
port = {port}
unix_socket_directories = ''
max_connections = 40
max_prepared_transactions = 5
shared_buffers = 32MB
dynamic_shared_memory_type = mmap
wal_level = replica
wal_log_hints = on
max_wal_senders = 10
max_replication_slots = 10
wal_keep_size = 64MB
max_slot_wal_keep_size = 1GB
hot_standby = on
wal_receiver_timeout = 10s
wal_sender_timeout = 10s
password_encryption = 'scram-sha-256'
ssl = on
ssl_cert_file = '{config}/server.crt'
ssl_key_file = '{config}/server.key'
log_line_prefix = '%m [%p] %q%a '
timezone = 'UTC'
log_timezone = 'UTC'
include_if_exists = 'continuity.conf'
"""
HBA = """\
hostssl all continuity 127.0.0.0/8 scram-sha-256
hostssl replication replicator 127.0.0.0/8 scram-sha-256
hostssl postgres rewind 127.0.0.0/8 scram-sha-256
"""


def configure(pair: Pair, site: str) -> None:
    config, primary = pair.config(site), "home"
    text = CONFIG.format(data=pair.data(site), config=config, address=pair.addresses[site], port=PORT)
    write(config / "postgresql.conf", text)
    write(config / "pg_hba.conf", HBA)
    write(config / "pg_ident.conf", "")
    lines = [
        f"*:*:*:{user}:{SECRETS[f'secret://file/{name}']}" for user, name in (("replicator", "replication"),)
    ]
    write(config / "pgpass", "\n".join(lines) + "\n")
    if site == primary:
        names = "'FIRST 1 (\"e1\")'" if pair.synchronous else "''"
        role = f"synchronous_standby_names = {names}\n"
    else:
        conninfo = (
            f"host={pair.addresses[primary]} port={PORT} user=replicator passfile={config}/pgpass "
            f"sslmode=verify-full sslrootcert={config}/ca.pem application_name={HOSTS[site]}"
        )
        role = f"primary_conninfo = '{conninfo}'\nprimary_slot_name = '{HOSTS[site]}'\n"
    write(config / "continuity.conf", role)
    write(
        pair.folder / site / "s.conf",
        f"""[supervisord]
logfile={pair.folder}/{site}/supervisord.log
pidfile={pair.folder}/{site}/supervisord.pid
nodaemon=true
[inet_http_server]
port={pair.addresses[site]}:{SUPERVISOR_PORT}
username=continuity
password={SECRETS["secret://file/supervisor"]}
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[program:postgresql]
command={pair.folder}/bin/postgres -D {pair.data(site)} -c config_file={config}/postgresql.conf
autostart=true
autorestart=unexpected
exitcodes=0
startsecs=0
stopsignal=INT
stopwaitsecs=30
redirect_stderr=true
stdout_logfile={pair.folder}/{site}/postgresql.log
stdout_logfile_maxbytes=0
""",
    )
