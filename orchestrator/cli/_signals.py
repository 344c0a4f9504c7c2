"""Decides what a signal that ends this process means: SIGTERM and SIGHUP end a command as Ctrl-C does, in order and with
a word. Must stay light: every command hears signals.
"""

from __future__ import annotations

SIGNALLED, SIGINT = 128, 2
"""By convention a process that a signal ended has the exit code 128 + its number."""


class Signalled(KeyboardInterrupt):
    """No error: like Ctrl-C it passes whatever catches errors, and is heard wherever Ctrl-C is."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def hear() -> None:
    """From now on SIGTERM and SIGHUP raise. The first one counts: what is said then is not cut off by another (both
    come when a session ends). One that is ignored (nohup) stays so."""
    import signal

    def end(number: int, frame: object) -> None:
        for each in heard:
            signal.signal(each, signal.SIG_IGN)
        raise Signalled(number)

    both = (signal.SIGTERM, signal.SIGHUP)
    heard = [number for number in both if signal.getsignal(number) is not signal.SIG_IGN]
    for number in heard:
        signal.signal(number, end)


def stopped_code(cause: KeyboardInterrupt) -> int:
    return SIGNALLED + (cause.number if isinstance(cause, Signalled) else SIGINT)
