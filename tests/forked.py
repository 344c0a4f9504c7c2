"""The command in a process of its own that starts at once: forked from one that has imported it already.

For tests of what a command says and does. What a start itself costs or imports, and what a terminal, a closed
output or a signal does to it, is tried with a fresh interpreter.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

SECONDS_MAX = 60
IMPORTED = [
    "orchestrator.bootstrap.app",
    "orchestrator.bootstrap.estate",
    "orchestrator.cli._commands",
    "orchestrator.cli.runbook",
    "pydantic",
    "yaml",
]

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.forked", *IMPORTED])


def continuity(
    words: Sequence[str | Path],
    *,
    cwd: Path,
    environment: Mapping[str, str],
    before: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run ``continuity WORDS``. ``before``: Python that runs in its process first. TimeoutExpired after SECONDS_MAX."""
    argv = [str(word) for word in words]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").touch()
        process = _context.Process(target=_command, args=(argv, str(cwd), dict(environment), name, before))
        process.start()
        process.join(SECONDS_MAX)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(["continuity", *argv], SECONDS_MAX)
        out, errors = ((folder / channel).read_text(encoding="utf-8") for channel in ("out", "errors"))
        return subprocess.CompletedProcess(["continuity", *argv], process.exitcode, out, errors)


def _command(argv: list[str], cwd: str, environment: dict[str, str], folder: str, before: str) -> None:
    """In the new process: become what a fresh interpreter with these words would be."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    for number, (channel, flags) in enumerate(
        (("in", os.O_RDONLY), ("out", os.O_WRONLY | os.O_CREAT), ("errors", os.O_WRONLY | os.O_CREAT))
    ):
        opened = os.open(f"{folder}/{channel}", flags, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False), encoding="utf-8")
    sys.stdout = _writer(1)
    sys.stderr = _writer(2)
    sys.argv = ["continuity", *argv]
    try:
        if before:
            exec(before, {"__name__": "before"})
        from orchestrator.cli import main

        main()
    finally:  # what nobody caught ends this process as it ends an interpreter
        kind, error, trace = sys.exc_info()
        if kind is not None and error is not None and not isinstance(error, SystemExit):
            sys.excepthook(kind, error, trace)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1)


def _writer(number: int) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BufferedWriter(io.FileIO(number, "w", closefd=False)), encoding="utf-8")
