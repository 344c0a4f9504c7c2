"""Decides how people are asked at the terminal of a driver: one question at a time, which never holds the driver up.

The keyboard is looked at between two turns of the driver, never waited for: another terminal may answer first, stop the
run or take it back, and timers come due, while a question stands on the screen.
"""

from __future__ import annotations

import os
import select
import sys
import termios
import threading
import time
from collections.abc import Callable

from orchestrator.cli._print import say as say_plainly

TRIES_MAX = 3
"""How often a phrase is asked for before no answer, or another one, counts as no."""
QUIET_SECONDS = 0.5
"""A question that other lines have covered is shown again when nothing more was said for so long."""
READ_BYTES = 4096


class Screen:
    """What stands on the terminal: lines of progress, from any thread, and the question that is open."""

    def __init__(
        self, tell: Callable[[str], None] = say_plainly, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tell = tell
        self._clock = clock
        self._lock = threading.Lock()
        self._has_open_line = False  # the cursor stands behind a question
        self._said_at = 0.0
        self.settle: Callable[[], object] = lambda: None  # waits until what is on its way was said

    def say(self, text: str) -> None:
        with self._lock:
            self._tell(f"\n{text}" if self._has_open_line else text)
            self._has_open_line = False
            self._said_at = self._clock()

    def ask(self, phrase: str) -> None:
        self.settle()
        with self._lock:
            print(f"Type '{phrase}' to go on: ", end="", file=sys.stderr, flush=True)
            self._has_open_line = True

    def line_ended(self) -> None:
        """Somebody pressed return: the terminal itself has begun a new line."""
        with self._lock:
            self._has_open_line = False

    def leave_line(self) -> None:
        """Nothing more is asked: what comes next begins a line of its own."""
        with self._lock:
            if self._has_open_line:
                print(file=sys.stderr, flush=True)
            self._has_open_line = False

    @property
    def is_covered(self) -> bool:
        return not self._has_open_line

    @property
    def is_quiet(self) -> bool:
        return self._clock() - self._said_at > QUIET_SECONDS


class Keyboard:
    """Whole lines as they are typed. Reads the descriptor itself: what a stream has read ahead would not be seen."""

    def __init__(self, descriptor: int = 0) -> None:
        self._descriptor = descriptor
        self._typed = b""

    def line(self, seconds_max: float = 0.0) -> str | None:
        """The next line with its end; "" when nobody will type any more; None when there is none yet."""
        if b"\n" not in self._typed:
            if not select.select([self._descriptor], [], [], seconds_max)[0]:
                return None
            piece = self._read()
            if not piece:
                left, self._typed = self._typed, b""
                return left.decode(errors="replace")
            self._typed += piece
            if b"\n" not in self._typed:
                return None
        line, _, self._typed = self._typed.partition(b"\n")
        return f"{line.decode(errors='replace')}\n"

    def _read(self) -> bytes:
        try:
            return os.read(self._descriptor, READ_BYTES)
        except OSError:  # EIO: the terminal is gone, and so is whoever sat at it
            return b""

    def forget(self) -> None:
        """Nothing that was typed before a question is an answer to it."""
        self._typed = b""
        if os.isatty(self._descriptor):
            termios.tcflush(self._descriptor, termios.TCIFLUSH)


class Prompt:
    """The question that is open, if any. A slip of the finger does not end a run; somebody who means no does, and so
    does a terminal that is gone."""

    def __init__(self, screen: Screen, keyboard: Keyboard) -> None:
        self.screen = screen
        self.keyboard = keyboard
        self.subject = ""  # what is asked about; "": nothing is asked
        self._phrase = ""
        self._left = 0

    def open(self, subject: str, phrase: str, *lines: str) -> None:
        self.screen.settle()
        for line in lines:
            self.screen.say(line)
        self.subject, self._phrase, self._left = subject, phrase, TRIES_MAX
        self.keyboard.forget()
        self.screen.ask(phrase)

    def close(self) -> None:
        self.subject = ""
        self.screen.leave_line()

    def answer(self, *, shows_at_once: bool = True, seconds_max: float = 0.0) -> bool | None:
        """Was the phrase typed? None: nothing is settled yet. ``shows_at_once``: nothing else goes on, so that a
        question which was covered may stand below what covered it."""
        line = self.keyboard.line(seconds_max)
        if line is None:
            if self.screen.is_covered and (shows_at_once or self.screen.is_quiet):
                self.screen.ask(self._phrase)
            return None
        if line:
            self.screen.line_ended()
        if line.strip() == self._phrase or not line:
            self.close()
            return bool(line)
        self._left -= 1
        if not self._left:
            self.close()
            return False
        times = f"{self._left} more time{'s' if self._left > 1 else ''}"
        self.screen.say(f"that is not '{self._phrase}'; asked {times}, then it counts as no")
        self.screen.ask(self._phrase)
        return None
