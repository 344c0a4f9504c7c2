"""Point one name at an address by a signed update that the server itself compares with the epoch (RFC 2136).

    names.py SERVER PORT KEY-FILE NAME ADDRESS EPOCH SITE RUN SEEN-CLAIM

The claim stands beside the name as ``_continuity.NAME TXT``; SEEN-CLAIM is its exact text now.
"""

from __future__ import annotations

import sys
from pathlib import Path

import dns.message
import dns.query
import dns.rcode
import dns.rdtypes.ANY.TXT
import dns.rdtypes.IN.A
import dns.tsigkeyring
import dns.update

TTL_SECONDS = 5
UPDATE_SECONDS_MAX = 3.0
KEY_NAME, ALGORITHM = "continuity.", "hmac-sha256"


def message(key: str, name: str, address: str, seen: str, wanted: str) -> dns.update.UpdateMessage:
    """The signed message: record and claim together, if the claim still is ``seen``."""
    zone = name.partition(".")[2] + "."
    ring = dns.tsigkeyring.from_text({KEY_NAME: key})
    made = dns.update.UpdateMessage(zone, keyring=ring, keyname=KEY_NAME, keyalgorithm=ALGORITHM)
    claim = f"_continuity.{name}."
    made.present(claim, "TXT", f'"{seen}"')
    made.replace(claim, TTL_SECONDS, "TXT", f'"{wanted}"')
    made.replace(f"{name}.", TTL_SECONDS, "A", address)
    return made


def claim(server: str, port: int, name: str) -> str:
    """The claim that stands beside a name on a server."""
    question = dns.message.make_query(f"_continuity.{name}.", "TXT")
    reply = dns.query.udp(question, server, port=port, timeout=UPDATE_SECONDS_MAX)
    return str(reply.answer[0][0].to_text()).strip('"')


def send(made: dns.update.UpdateMessage, server: str, port: int) -> None:
    """RuntimeError when the server refuses (NXRRSET: another claim stands there)."""
    code = dns.query.tcp(made, server, port=port, timeout=UPDATE_SECONDS_MAX).rcode()
    if code != dns.rcode.NOERROR:
        raise RuntimeError(f"{server}: {dns.rcode.to_text(code)}")


if __name__ == "__main__":
    where, at_port, key_file, host, to, number, at, who, before = sys.argv[1:]
    secret = Path(key_file).read_text(encoding="utf-8").strip()
    send(message(secret, host, to, before, f"epoch={number} site={at} run={who}"), where, int(at_port))
