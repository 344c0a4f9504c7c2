"""A person at a terminal: types the confirmation that a command asks for, and sees what it says."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

PROMPT = re.compile(r"Type '([^']+)' to go on: ")  # a line of progress may have come behind it
READ_SECONDS = 0.05


class Terminal:
    """One command on a pseudo-terminal of its own; killed at the end if it is still there.

    ``said`` is everything that it printed so far. The person types only what a prompt asks for.
    """

    def __init__(self, argv: Sequence[str], *, environment: Mapping[str, str], folder: Path) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            list(argv),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=dict(environment),
            cwd=folder,
            close_fds=True,
        )
        os.close(theirs)
        self.said = ""
        self.answers: list[str] = []
        self._answered = 0  # how much of what was said an answer has covered

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._ours)

    def read(self) -> bool:
        """Take in what is there; False when the command has closed its terminal."""
        readable, _, _ = select.select([self._ours], [], [], READ_SECONDS)
        if not readable:
            return True
        try:
            piece = os.read(self._ours, 65_536)
        except OSError:  # EIO: nobody holds the other end
            return False
        self.said += piece.decode(errors="replace").replace("\r\n", "\n")
        return bool(piece)

    def asked(self) -> str:
        """What the command asks to be typed just now; empty if it asks nothing."""
        found = PROMPT.search(self.said[self._answered :])
        return found.group(1) if found else ""

    def answer(self) -> None:
        self.type(self.asked())

    def type(self, text: str) -> None:
        """Type a line, whatever was asked."""
        self._answered = len(self.said)
        self.answers.append(text)
        os.write(self._ours, f"{text}\n".encode())

    def wait_until_asked(self, within_seconds: float) -> str:
        deadline = time.monotonic() + within_seconds
        while not self.asked():
            assert self.read(), f"ended without a question:\n{self.said}"
            assert time.monotonic() < deadline, f"no question within {within_seconds} s:\n{self.said}"
        return self.asked()

    def finish(self, within_seconds: float) -> int:
        """Answer every question until the command ends; its exit code."""
        deadline = time.monotonic() + within_seconds
        while self.read():
            if self.asked():
                self.answer()
            assert time.monotonic() < deadline, f"not over within {within_seconds} s:\n{self.said}"
        return self.process.wait(timeout=max(1.0, deadline - time.monotonic()))
