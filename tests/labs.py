"""Labs for tests: each test module has a CONTINUITY_HOME of its own, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from orchestrator.lab import claims, processes, sites
from orchestrator.lab.layout import Lab
from orchestrator.runbook.units import parse_duration
from tests.terminal import Terminal

ROOT = Path(__file__).resolve().parents[1]
COMMAND_SECONDS_MAX = 90.0


ORDER_SECONDS_MAX = 4
"""From a look at what would be lost to an order, on a busy machine."""


@contextlib.contextmanager
def own_home() -> Iterator[Path]:
    """A short folder as CONTINUITY_HOME; every lab in it is gone afterwards, and its processes too."""
    folder = Path(tempfile.mkdtemp(prefix="cty", dir="/tmp"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONTINUITY_HOME", str(folder))
        try:
            yield folder
        finally:
            for lab in claims.labs():
                claims.remove(lab)
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def a_lab(durability: Literal["remote", "local"] = "remote") -> Iterator[Lab]:
    """A lab of its own, in a home of its own."""
    with own_home():
        lab = sites.up(sites.Wanted(durability=durability, owned=True))
        try:
            yield lab
        finally:
            if lab.path.exists():
                sites.down(lab)


def run(lab: Lab, *argv: str) -> subprocess.CompletedProcess[str]:
    """A process beside a lab, with no terminal to ask on."""
    kept = {name: value for name, value in os.environ.items() if name != "CONTINUITY_ESTATE"}
    return subprocess.run(
        argv,
        cwd=lab.path,
        env={**kept, "PYTHONPATH": str(ROOT), "CONTINUITY_BY": "Tester"},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=COMMAND_SECONDS_MAX,
    )


def command(lab: Lab, *words: str) -> subprocess.CompletedProcess[str]:
    """A command as people give it, in a process of its own."""
    return run(lab, sys.executable, "-m", "orchestrator", *words, "--estate", str(lab.estate))


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "CONTINUITY_ESTATE"}
    return {**kept, "PYTHONPATH": str(ROOT), "TERM": "dumb"}


def terminal(lab: Lab, *words: str) -> Terminal:
    """A command at a terminal with a person before it."""
    argv = [sys.executable, "-m", "orchestrator", *words, "--estate", str(lab.estate)]
    return Terminal(argv, environment=environment(), folder=lab.path)


def answer(lab: Lab, *words: str) -> tuple[int, dict[str, Any]]:
    """The exit code of a command and its JSON document."""
    done = command(lab, *words, "--output", "json")
    return done.returncode, json.loads(done.stdout) if done.stdout else {"stderr": done.stderr}


def offered(lab: Lab, *commands: str) -> list[str]:
    """Commands as they are offered to whoever typed the lab's estate: with it."""
    return [f"{each} --estate {lab.estate}" for each in commands]


def document(lab: Lab, code: int, *words: str) -> dict[str, Any]:
    """The JSON document of a command that must end with this code."""
    done = command(lab, *words, "--output", "json")
    assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def members(lab: Lab) -> list[int]:
    """Every living process of a lab."""
    return list(processes.of_part(lab.mark(""), lab.path))


def listening(lab: Lab) -> dict[str, str]:
    """Who listens on this lab's addresses, from the kernel's own table: {inode of the socket: address}.

    By the socket, because the number of a lab that went may be another lab's a moment later: take the sockets
    while the lab is there, and look which of them are left.
    """
    found = {}
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split()
        raw = bytes.fromhex(fields[1].split(":")[0])[::-1]
        if fields[3] == "0A" and raw[0] == 127 and raw[1] == lab.number:
            found[fields[9]] = ".".join(map(str, raw))
    return found


def left_of(before: dict[str, str], lab: Lab) -> list[str]:
    """Addresses that one of these sockets still listens on."""
    return sorted(address for inode, address in listening(lab).items() if inode in before)


@contextlib.contextmanager
def power_controller_silent(lab: Lab) -> Iterator[Callable[[], None]]:
    """Nothing proves that home is off: its power controller accepts connections and says nothing, until the block
    ends or what it gives is called."""
    (found,) = [
        process
        for process in processes.of_part(lab.mark("outside"), lab.path / "outside").values()
        if b"orchestrator.lab.power" in Path(f"/proc/{process.pid}/cmdline").read_bytes()
    ]
    processes.send(found, signal.SIGSTOP)
    try:
        yield lambda: processes.send(found, signal.SIGCONT)
    finally:
        processes.send(found, signal.SIGCONT)


@contextlib.contextmanager
def proof_slower_than_expected(lab: Lab, losses: Iterable[str]) -> Iterator[str]:
    """What to give to --accept-loss, so that all that is expected to be lost (as a plan says it) is accepted with the
    order, and nothing of what is stated after the fence: home's proof comes only when more than that is gone."""
    ages = [parse_duration(text.split()[2]) / 1_000 for text in losses if text.startswith("up to ")]
    limit_seconds = math.ceil(max(ages)) + ORDER_SECONDS_MAX
    with power_controller_silent(lab) as speak:
        proof = threading.Timer(limit_seconds - min(ages) + 0.5, speak)
        proof.start()
        try:
            yield f"{limit_seconds}s"
        finally:
            proof.cancel()
            proof.join()


def set_fence_budget(lab: Lab, seconds: int) -> None:
    """How long this lab's fences have, all together."""
    text = lab.estate.read_text(encoding="utf-8")
    assert "fence-budget: 5s" in text
    lab.estate.write_text(text.replace("fence-budget: 5s", f"fence-budget: {seconds}s"), encoding="utf-8")


NOBODY = 65534
AS_NOBODY = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]
AS_UID_1000 = ["unshare", "--user", "--map-user=1000", "--map-group=1000", "--"]
ASK_AGAIN = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', 'import orchestrator, psycopg']))"


def normal_user(home: Path) -> tuple[list[str], str]:
    """How somebody who is not root runs Python with ``home`` as CONTINUITY_HOME: (prefix, interpreter).

    As root: another uid where it can run this interpreter or the system's of the same version, else a user
    namespace in which this user is uid 1000 without any capability.
    """
    if os.getuid() != 0:
        return [], sys.executable
    os.chown(home, NOBODY, NOBODY)
    for python in (sys.executable, system_python(home / "python")):
        # Asked twice: the first exec after a change of uid may still have what root may.
        probe = [*AS_NOBODY, python, "-c", ASK_AGAIN]
        if python and subprocess.run(probe, cwd=ROOT, capture_output=True, check=False).returncode == 0:
            return AS_NOBODY, python
    os.chown(home, 0, 0)
    return AS_UID_1000, sys.executable


def system_python(folder: Path) -> str:
    """The system's interpreter of this version, with the packages of this one; "" where there is none."""
    name = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    made = subprocess.run([name, "-m", "venv", "--without-pip", folder], capture_output=True, check=False)
    if made.returncode:
        return ""
    packages = folder / Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
    (packages / "same.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return str(folder / "bin" / "python")
