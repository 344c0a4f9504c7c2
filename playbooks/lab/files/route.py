"""Route one backend of a HAProxy on its own host, if the epoch allows it; the change survives a reload.

    route.py FOLDER BACKEND here|there EPOCH SITE RUN [close-sessions]

FOLDER holds the proxy's admin.sock, server-state and epoch files. A script for people and playbooks, as an
administrator would keep one; ``bench/by_hand.py`` and ``failover.yml`` use it.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
from pathlib import Path

SOCKET_SECONDS_MAX = 3.0


def route(
    folder: Path, backend: str, side: str, epoch: int, site: str, run: str, *, close: bool = False
) -> None:
    """Raises RuntimeError when a newer epoch rules here or the proxy shows something else afterwards."""
    with open(folder / "epoch.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = folder / "epoch"
        entries = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        entry = entries.get(backend, {"epoch": 0, "run": ""})
        if entry["epoch"] > epoch or (entry["epoch"] == epoch and entry["run"] != run):
            raise RuntimeError(f"{backend}: epoch {epoch} is stale: {entry}")
        entries[backend] = {"epoch": epoch, "site": site, "run": run, "previous": {}}
        other = "there" if side == "here" else "here"
        _write(path, json.dumps(entries))
        order = [f"set server {backend}/{side} state ready", f"set server {backend}/{other} state maint"]
        if close:
            order.append(f"shutdown sessions server {backend}/{other}")
        answer = _ask(folder / "admin.sock", "; ".join(order)).strip()
        state = _ask(folder / "admin.sock", "show servers state")
        _write(folder / "server-state", state)
        if answer or _admin(state, backend, side) & ~0x04 or not _admin(state, backend, other) & 0x01:
            raise RuntimeError(f"{backend}: not routed {side}: {answer}")


def _admin(state: str, backend: str, server: str) -> int:
    """The administrative bits of a server: 0x01 forced maintenance, 0x04 disabled in the configuration."""
    for line in state.splitlines():
        fields = line.split()
        if len(fields) > 6 and (fields[1], fields[3]) == (backend, server):
            return int(fields[6])
    raise RuntimeError(f"the proxy has no server {backend}/{server}")


def _ask(path: Path, command: str) -> str:
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(SOCKET_SECONDS_MAX)
        stream.connect(str(path))
        stream.sendall(command.encode("ascii") + b"\n")
        answer = b""
        while chunk := stream.recv(65536):
            answer += chunk
    return answer.decode("utf-8", "replace")


def _write(path: Path, text: str) -> None:
    new = path.with_name(path.name + ".new")
    with open(new, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)


if __name__ == "__main__":
    where, name, to, number, at, who, *more = sys.argv[1:]
    route(Path(where), name, to, int(number), at, who, close=bool(more))
