"""Decides the answers of the lab's authoritative name server, one at each site; must never resolve for others.

RFC 2136 updates over UDP and TCP, only when signed by TSIG. **Prerequisites are evaluated before the change,
by value**, in the same step of one thread, so a stale update is refused here and not by whoever sent it. The
zone is on disk before an update is answered: a restart keeps what was acknowledged. Run as a program:
``python -m orchestrator.lab.nameserver CONFIG.json``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any, cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdataset
import dns.rdatatype
import dns.tsig
import dns.tsigkeyring
import dns.update
import dns.zone

IDLE_SECONDS_MAX = 10.0
UDP_BYTES_MAX = 1232


class Authority:
    """One zone, its key, and the file that keeps it."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._file = Path(config["zone_file"])
        self._refuse = Path(config["refuse_file"])
        origin = dns.name.from_text(config["zone"])
        text = (self._file if self._file.exists() else Path(config["initial_file"])).read_text(
            encoding="utf-8"
        )
        self._zone = dns.zone.from_text(text, origin, relativize=False)
        self._origin = origin
        secret = Path(config["key_file"]).read_text(encoding="utf-8").strip()
        self._keyring = dns.tsigkeyring.from_text({config["key_name"]: (config["key_algorithm"], secret)})

    def answer(self, wire: bytes, size_max: int = 65535) -> bytes | None:
        """The answer to one message, or None when it is not worth one."""
        try:
            question = dns.message.from_wire(wire, keyring=self._keyring)
        except (dns.message.UnknownTSIGKey, dns.tsig.BadSignature, dns.tsig.BadKey, dns.tsig.BadTime):
            return self._not_authentic(wire)
        except dns.exception.DNSException:
            return None
        if question.flags & dns.flags.QR:
            return None
        reply = dns.message.make_response(question)  # signed like the question
        if isinstance(question, dns.update.UpdateMessage):
            reply.set_rcode(self._update(question))
            return reply.to_wire()
        if question.opcode() != dns.opcode.QUERY or len(question.question) != 1:
            reply.set_rcode(dns.rcode.NOTIMP)
            return reply.to_wire()
        self._look_up(question, reply)
        answered = reply.to_wire(max_size=65535)
        if len(answered) > size_max:
            reply.answer.clear()
            reply.flags |= dns.flags.TC
            answered = reply.to_wire()
        return answered

    def _look_up(self, question: dns.message.Message, reply: dns.message.Message) -> None:
        asked = question.question[0]
        if not asked.name.is_subdomain(self._origin):
            reply.set_rcode(dns.rcode.REFUSED)
            return
        reply.flags |= dns.flags.AA
        found = self._zone.get_rrset(asked.name, asked.rdtype)
        if found is not None:
            reply.answer.append(found)
            return
        authority = self._zone.get_rrset(self._origin, dns.rdatatype.SOA)
        assert authority is not None
        reply.authority.append(authority)
        if self._zone.get_node(asked.name) is None:
            reply.set_rcode(dns.rcode.NXDOMAIN)

    def _not_authentic(self, wire: bytes) -> bytes:
        header = struct.unpack("!H", wire[:2])[0]
        reply = dns.message.Message(header)
        reply.flags = dns.flags.QR
        reply.set_opcode(dns.opcode.UPDATE)
        reply.set_rcode(dns.rcode.NOTAUTH)
        return reply.to_wire()

    def _update(self, message: dns.update.UpdateMessage) -> dns.rcode.Rcode:
        if not message.had_tsig or self._refuse.exists():
            return dns.rcode.REFUSED
        if len(message.zone) != 1 or message.zone[0].name != self._origin:
            return dns.rcode.NOTZONE
        if any(
            not rrset.name.is_subdomain(self._origin) for rrset in (*message.prerequisite, *message.update)
        ):
            return dns.rcode.NOTZONE
        refused = self._prerequisites(message)
        if refused != dns.rcode.NOERROR:
            return refused
        before = self._zone.to_text(relativize=False)
        try:
            with self._zone.writer() as change:
                for rrset in message.update:
                    self._apply(change, rrset)
                change.update_serial(value=1, relative=True, name=self._origin)
            self._keep()
        except (dns.exception.DNSException, OSError, KeyError, ValueError) as error:
            self._zone = dns.zone.from_text(before, self._origin, relativize=False)
            sys.stderr.write(f"update failed, nothing changed: {error}\n")
            return dns.rcode.SERVFAIL
        changed = ", ".join(sorted({rrset.name.to_text() for rrset in message.update}))
        sys.stderr.write(f"updated {changed}\n")
        return dns.rcode.NOERROR

    def _prerequisites(self, message: dns.update.UpdateMessage) -> dns.rcode.Rcode:
        """RFC 2136 section 3.2: name in use or not, set exists or not, set has exactly these values."""
        wanted: dict[tuple[dns.name.Name, dns.rdatatype.RdataType], set[Any]] = {}
        for rrset in message.prerequisite:
            whole_name = rrset.rdtype == dns.rdatatype.ANY
            there: object = (
                self._zone.get_node(rrset.name)
                if whole_name
                else self._zone.get_rdataset(rrset.name, rrset.rdtype)
            )
            if rrset.deleting == dns.rdataclass.ANY:
                if there is None:
                    return dns.rcode.NXDOMAIN if whole_name else dns.rcode.NXRRSET
            elif rrset.deleting == dns.rdataclass.NONE:
                if there is not None:
                    return dns.rcode.YXDOMAIN if whole_name else dns.rcode.YXRRSET
            else:
                wanted.setdefault((rrset.name, rrset.rdtype), set()).update(rrset)
        for (name, kind), values in wanted.items():
            have = self._zone.get_rdataset(name, kind)
            if have is None or set(have) != values:
                return dns.rcode.NXRRSET
        return dns.rcode.NOERROR

    def _apply(self, change: Any, rrset: Any) -> None:
        at_top = rrset.name == self._origin
        if rrset.deleting is None:
            if rrset.rdtype == dns.rdatatype.SOA:
                return  # the serial is this server's own
            change.add(rrset.name, dns.rdataset.from_rdata_list(rrset.ttl, list(rrset)))
        elif at_top and rrset.rdtype in (dns.rdatatype.SOA, dns.rdatatype.NS, dns.rdatatype.ANY):
            return  # a zone keeps its SOA and its servers
        elif rrset.deleting == dns.rdataclass.ANY and rrset.rdtype == dns.rdatatype.ANY:
            change.delete(rrset.name)
        elif rrset.deleting == dns.rdataclass.ANY:
            change.delete(rrset.name, rrset.rdtype)
        else:
            change.delete(rrset.name, dns.rdataset.from_rdata_list(0, list(rrset)))

    def _keep(self) -> None:
        descriptor, temporary = tempfile.mkstemp(prefix=".zone.", dir=self._file.parent)
        with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
            handle.write(str(self._zone.to_text(relativize=False, want_origin=True)))
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, self._file)
        folder = os.open(self._file.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        answer = self._authority.answer(data, UDP_BYTES_MAX)
        if answer is not None and self._transport is not None:
            self._transport.sendto(answer, addr)


async def converse(authority: Authority, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer every message of one TCP connection until it ends or idles too long."""
    try:
        while True:
            async with asyncio.timeout(IDLE_SECONDS_MAX):
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                wire = await reader.readexactly(length)
            answer = authority.answer(wire)
            if answer is None:
                return
            writer.write(struct.pack("!H", len(answer)) + answer)
            await writer.drain()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def main(config: dict[str, Any]) -> None:
    """Serve the zone on one address, UDP and TCP, until killed."""
    authority = Authority(config)
    where = (config["address"], config["port"])
    await asyncio.get_running_loop().create_datagram_endpoint(lambda: Datagrams(authority), local_addr=where)
    server = await asyncio.start_server(lambda reader, writer: converse(authority, reader, writer), *where)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
