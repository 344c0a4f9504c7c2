"""Labs for tests: each test module has a CONTINUITY_HOME of its own, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from orchestrator.lab import claims, processes, sites
from orchestrator.lab.layout import Lab

ROOT = Path(__file__).resolve().parents[1]
COMMAND_SECONDS_MAX = 90.0


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


def answer(lab: Lab, *words: str) -> tuple[int, dict[str, Any]]:
    """The exit code of a command and its JSON document."""
    done = command(lab, *words, "--output", "json")
    return done.returncode, json.loads(done.stdout) if done.stdout else {"stderr": done.stderr}


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
