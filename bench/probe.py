"""Decides what an HTTP probe costs its prober, beside a bare exchange of the standard library.

Both open a connection each time and ask the same server, which is a process of its own and is not counted; they
take turns, block by block. What is measured is the processor's time of this process: a probe waits for the rest.
"""

from __future__ import annotations

import http.client
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from bench.figures import Figure, Limit
from orchestrator.ports import Hosts, Secrets
from orchestrator.probes.http import HttpProbe, HttpProbeParams

SECTION = "probe"
BLOCKS, BLOCKS_QUICK = 15, 1
PROBES_PER_BLOCK, PROBES_PER_BLOCK_QUICK = 400, 10
PROBES_PER_SECOND_AND_CORE_MIN = 5_000
TIMEOUT_SECONDS = 5.0
STOP_SECONDS_MAX = 10.0
BODY = b'{"status": "ready", "site": "embassy", "epoch": 4}'
SERVER = f"""
import socket
answer = b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: {len(BODY)}\\r\\nConnection: close\\r\\n\\r\\n"
listening = socket.create_server(("127.0.0.1", 0), backlog=128)
print(listening.getsockname()[1], flush=True)
while True:
    client, _ = listening.accept()
    with client:
        client.recv(65536)
        client.sendall(answer + {BODY!r})
"""


def measure(folder: Path, *, quick: bool) -> list[Figure]:
    del folder
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        blocks, count = (BLOCKS_QUICK, PROBES_PER_BLOCK_QUICK) if quick else (BLOCKS, PROBES_PER_BLOCK)
        ours, bare = [], []
        for _ in range(blocks):
            ours.append(_cpu_ms(count, lambda: _probe(port)))
            bare.append(_cpu_ms(count, lambda: _exchange(port)))
    finally:
        server.terminate()
        server.wait(STOP_SECONDS_MAX)
        if server.stdout is not None:
            server.stdout.close()
    median = sorted(ours)[len(ours) // 2]
    return [
        Figure(
            SECTION,
            "one HTTP probe, a new connection",
            "ms CPU",
            tuple(ours),
            "http.client, a new connection",
            tuple(bare),
            limit=Limit() if quick else Limit(value_max=1000 / PROBES_PER_SECOND_AND_CORE_MIN),
            note=f"{1000 / median:.0f} probes per second and core",
        )
    ]


def _cpu_ms(count: int, look: Callable[[], None]) -> float:
    look()  # imports, and what is made once
    begun = time.process_time()
    for _ in range(count):
        look()
    return (time.process_time() - begun) * 1000 / count


def _probe(port: int) -> None:
    params = HttpProbeParams(f"http://127.0.0.1:{port}/readyz", json={"status": "ready"})
    nobody = cast("Any", None)  # an HTTP probe asks for no host and no secret
    report = HttpProbe().look(
        params, timeout_seconds=TIMEOUT_SECONDS, hosts=cast("Hosts", nobody), secrets=cast("Secrets", nobody)
    )
    assert report.verdict == "up", report.detail


def _exchange(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    connection.request("GET", "/readyz")
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (200, BODY)
    connection.close()
