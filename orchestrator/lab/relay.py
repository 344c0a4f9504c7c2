"""Decides what the link between the sites lets through; stands at neither site.

A relay of TCP and UDP by name of the way. ``cut`` is silent, like a cable: nothing is forwarded any more,
nothing is closed, new connections are accepted by nobody in particular and stay without an answer. ``slow``
delays each direction. ``heal`` lets what waited go on. It must never close a connection because the link
is cut. Run as a program: ``python -m orchestrator.lab.relay CONFIG.json``; orders come over its own socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

CHUNK_BYTES = 256 * 1024
CHUNKS_WAITING_MAX = 64
CONNECT_SECONDS_MAX = 5.0
UDP_SECONDS_KEPT = 5.0

Chunk = tuple[float, bytes]  # when it may arrive, and what; empty bytes: the end


class Link:
    """The state that every connection through the relay obeys."""

    def __init__(self) -> None:
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.delay_seconds = 0.0
        self.connections = 0
        self.bytes_forwarded = 0

    def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        """Carry out ``{"do": cut | heal | slow | status, "delay_ms": …}`` and say how things are."""
        action = order.get("do")
        if action == "cut":
            self.is_open.clear()
        elif action == "heal":
            self.delay_seconds = 0.0
            self.is_open.set()
        elif action == "slow":
            self.delay_seconds = max(0, int(order["delay_ms"])) / 1000
            self.is_open.set()
        elif action != "status":
            return {"error": f"unknown order {action!r}"}
        return {
            "link": "cut" if not self.is_open.is_set() else "slow" if self.delay_seconds else "up",
            "delay_ms": round(self.delay_seconds * 1000),
            "connections": self.connections,
            "bytes_forwarded": self.bytes_forwarded,
        }

    async def serve(self, target: tuple[str, int], reader: Any, writer: Any) -> None:
        """Relay one accepted connection until both directions have ended."""
        self.connections += 1
        try:
            await self.is_open.wait()
            far = await _reach(target)
            if far is None:
                writer.transport.abort()
                return
            far_reader, far_writer = far
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._pump(reader, far_writer))
                    group.create_task(self._pump(far_reader, writer))
            except* (OSError, asyncio.IncompleteReadError):
                writer.transport.abort()
                far_writer.transport.abort()
            finally:
                far_writer.close()
        finally:
            writer.close()
            self.connections -= 1

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        waiting: asyncio.Queue[Chunk] = asyncio.Queue(CHUNKS_WAITING_MAX)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._take(reader, waiting))
            group.create_task(self._deliver(waiting, writer))

    async def _take(self, reader: asyncio.StreamReader, waiting: asyncio.Queue[Chunk]) -> None:
        while True:
            chunk = await reader.read(CHUNK_BYTES)
            await waiting.put((time.monotonic() + self.delay_seconds, chunk))
            if not chunk:
                return

    async def _deliver(self, waiting: asyncio.Queue[Chunk], writer: asyncio.StreamWriter) -> None:
        while True:
            due, chunk = await waiting.get()
            late = due - time.monotonic()
            if late > 0:
                await asyncio.sleep(late)
            await self.is_open.wait()
            if not chunk:
                if writer.can_write_eof():
                    writer.write_eof()
                return
            writer.write(chunk)
            self.bytes_forwarded += len(chunk)
            await writer.drain()


async def _reach(target: tuple[str, int]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
    try:
        async with asyncio.timeout(CONNECT_SECONDS_MAX):
            return await asyncio.open_connection(*target, limit=CHUNK_BYTES)
    except (OSError, TimeoutError):
        return None


class Datagrams(asyncio.DatagramProtocol):
    """Relays questions to one target and answers back; on a cut link datagrams are lost."""

    def __init__(self, link: Link, target: tuple[str, int]) -> None:
        self._link = link
        self._target = target
        self._transport: asyncio.DatagramTransport | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        task = asyncio.get_running_loop().create_task(self._relay(data, addr))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _relay(self, question: bytes, asker: tuple[str, int]) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._link.delay_seconds)
        if not self._link.is_open.is_set():
            return
        answer: asyncio.Future[bytes] = loop.create_future()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: _OneAnswer(answer), remote_addr=self._target
        )
        try:
            transport.sendto(question)
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(UDP_SECONDS_KEPT):
                    received = await answer
                await asyncio.sleep(self._link.delay_seconds)
                if self._link.is_open.is_set() and self._transport is not None:
                    self._transport.sendto(received, asker)
        finally:
            transport.close()


class _OneAnswer(asyncio.DatagramProtocol):
    def __init__(self, answer: asyncio.Future[bytes]) -> None:
        self._answer = answer

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if not self._answer.done():
            self._answer.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self._answer.done():
            self._answer.set_exception(exc)


def _control(link: Link) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await reader.readline()
            try:
                said = link.obey(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                said = {"error": str(error)}
            writer.write(json.dumps(said).encode() + b"\n")
            await writer.drain()
        except OSError:
            return
        finally:
            writer.close()

    return answer


async def main(config: dict[str, Any]) -> None:
    """Serve ``{"socket": PATH, "tcp": [[from, port, to, port]], "udp": […]}`` until killed."""
    link = Link()
    loop = asyncio.get_running_loop()
    servers = []
    for near, near_port, far, far_port in config["tcp"]:
        serve = functools.partial(link.serve, (far, far_port))
        servers.append(await asyncio.start_server(serve, near, near_port, limit=CHUNK_BYTES, backlog=256))
    for near, near_port, far, far_port in config["udp"]:
        make = functools.partial(Datagrams, link, (far, far_port))
        await loop.create_datagram_endpoint(make, local_addr=(near, near_port))
    servers.append(await asyncio.start_unix_server(_control(link), config["socket"]))
    os.chmod(config["socket"], 0o600)
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    asyncio.run(main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
