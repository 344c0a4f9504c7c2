"""Labs for tests: each test module has a CONTINUITY_HOME of its own, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest

from orchestrator.lab import claims, processes, sites
from orchestrator.lab.layout import Lab

ROOT = Path(__file__).resolve().parents[1]
WAIT_SECONDS_MAX = 15.0
POLL_SECONDS = 0.02


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


def wait_until(is_so: Callable[[], bool], what: str, seconds_max: float = WAIT_SECONDS_MAX) -> None:
    """Look again until it is so; fail with ``what`` when it never is."""
    deadline = time.monotonic() + seconds_max
    while not is_so():
        assert time.monotonic() < deadline, f"not within {seconds_max:g} s: {what}"
        time.sleep(POLL_SECONDS)


def members(lab: Lab) -> list[int]:
    """Every living process of a lab."""
    return list(processes.of_part(lab.mark(""), lab.path))


def listening(lab: Lab) -> list[str]:
    """Addresses of this lab that somebody listens on, from the kernel's own table."""
    found = []
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split()
        raw = bytes.fromhex(fields[1].split(":")[0])[::-1]
        if fields[3] == "0A" and raw[0] == 127 and raw[1] == lab.number:
            found.append(".".join(map(str, raw)))
    return found


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
