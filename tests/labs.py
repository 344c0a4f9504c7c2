"""Labs for tests: each test module has a CONTINUITY_HOME of its own, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest

from orchestrator.lab import claims, processes, sites
from orchestrator.lab.layout import Lab

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


def normal_user_prefix(folder: Path) -> list[str]:
    """How to run a command as somebody who is not root: another uid where that uid can run this Python,
    else a user namespace in which this user is uid 1000 without any capability."""
    if os.getuid() != 0:
        return []
    os.chown(folder, 65534, 65534)
    import sys

    as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
    probe = subprocess.run(
        [*as_nobody, sys.executable, "-c", "import orchestrator"], capture_output=True, check=False
    )
    if probe.returncode == 0:
        return as_nobody
    os.chown(folder, 0, 0)
    return ["unshare", "--user", "--map-user=1000", "--map-group=1000", "--"]
