"""Who drives a run: the lock ends with its process, however that ends, and with nothing else."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.engine import lock
from orchestrator.errors import RefusedError

ROOT = Path(__file__).resolve().parents[3]
RUN = "r1"
ENDS_SECONDS_MAX = 20.0
DRIVES = """
import os, subprocess, sys
from pathlib import Path
from orchestrator.engine import lock

lock.acquire(Path(sys.argv[1]), "r1")
if sys.argv[2] == "fork":
    child = os.fork()
    if child == 0:
        os.read(0, 1)  # until the test lets go of this end
        os._exit(0)
else:
    child = subprocess.Popen([sys.executable, "-c", "import os; os.read(0, 1)"]).pid
print(child, flush=True)
os.read(0, 1)
"""
ASKS = """
import sys
from pathlib import Path
from orchestrator.engine import lock
print(lock.driver_pid(Path(sys.argv[1]), "r1"))
"""


def is_alive(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def seen_by_another(folder: Path) -> int:
    """The driver's pid as another process has it."""
    argv = [sys.executable, "-c", ASKS, str(folder)]
    done = subprocess.run(
        argv, cwd=ROOT, capture_output=True, text=True, timeout=ENDS_SECONDS_MAX, check=True
    )
    return int(done.stdout)


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Path]:
    """A folder in which this process drives the run."""
    lock.acquire(tmp_path, RUN)
    yield tmp_path
    lock.release(tmp_path, RUN)


@pytest.mark.parametrize("how", ["fork", "exec"])
def test_a_killed_driver_frees_it_though_a_child_of_it_lives(tmp_path: Path, how: str) -> None:
    """A child that was forked has the driver's descriptors: with flock it would go on holding the lock."""
    argv = [sys.executable, "-c", DRIVES, str(tmp_path), how]
    with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        child = int(driver.stdout.readline())
        assert lock.driver_pid(tmp_path, RUN) == driver.pid
        with pytest.raises(RefusedError, match=f"driven by process {driver.pid} "):
            lock.acquire(tmp_path, RUN)
        os.kill(driver.pid, signal.SIGKILL)
        os.waitid(os.P_PID, driver.pid, os.WEXITED | os.WNOWAIT)
        assert is_alive(child)
        assert lock.driver_pid(tmp_path, RUN) == 0
        lock.acquire(tmp_path, RUN)
        assert seen_by_another(tmp_path) == os.getpid()
        lock.release(tmp_path, RUN)
        assert is_alive(child), "it waits for the end of its input, which the test still holds"


def test_looking_who_drives_frees_nothing(held: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock goes with the first descriptor of its file that a process closes: there must be no second one."""
    (held / "link").symlink_to(held)
    monkeypatch.chdir(held)
    for folder in (held, Path(), held / "link", held / "x" / ".."):
        assert lock.driver_pid(folder, RUN) == os.getpid(), folder
        with pytest.raises(RefusedError, match="by this very process already"):
            lock.acquire(folder, RUN)
        assert seen_by_another(held) == os.getpid(), f"looked at as {folder}"


def test_it_is_free_again_once_it_is_released(held: Path) -> None:
    lock.release(held, RUN)
    assert lock.driver_pid(held, RUN) == seen_by_another(held) == 0
    lock.acquire(held, RUN)
    assert seen_by_another(held) == os.getpid()


def test_each_run_has_its_own(held: Path) -> None:
    lock.acquire(held, "r2")
    lock.release(held, "r2")
    assert seen_by_another(held) == os.getpid()
