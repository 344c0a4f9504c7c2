"""Decides the exit codes, and how an error becomes a message and a code. Documented in the README.

0 done · 1 bug · 2 input · 3 refused · 4 held · 5 aborted or undone · 6 partial · 7 not driven · 8 done, its answer is lost ·
128 + a signal's number: stopped by it · 141 done, whoever read the answer went away
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from orchestrator.cli import _offered, _streams
from orchestrator.cli._signals import stopped_code
from orchestrator.core.states import RunState
from orchestrator.errors import (
    ChangedLogError,
    ContinuityError,
    DamagedLogError,
    InputError,
    InvariantBroken,
    JournalError,
    LogFileError,
    RefusedError,
    WrongWordsError,
)

DONE, BUG, INPUT, REFUSED, HELD, ABORTED, PARTIAL, NOT_DRIVEN, UNSAID = range(9)
SIGNALLED, SIGHUP, SIGINT, SIGPIPE, SIGTERM = (
    128,
    1,
    2,
    13,
    15,
)  # numbers: ``signal`` makes classes of them, slowly
STOPPED = SIGNALLED + SIGINT
READER_GONE = SIGNALLED + SIGPIPE
NOTHING: Mapping[str, Any] = {}
SEE_ALL = ("continuity history --verify",)
NO_RUN = "this process ends here; the log keeps every fact"

OF_RUN = {
    RunState.DONE: DONE,
    RunState.PARTIAL: PARTIAL,
    RunState.ABORTED: ABORTED,
}
"""Every other state of a run that a command leaves behind waits for people: HELD."""


def of_run(state: RunState) -> int:
    return OF_RUN.get(state, HELD)


class RunStands(ContinuityError):
    """The log cannot be written while a run exists: what stands, and how to go on once it can."""

    def __init__(self, run: str, cause: JournalError) -> None:
        is_damaged = isinstance(cause, DamagedLogError)
        first = "Put a good copy of the log back" if is_damaged else "Make room for the log"
        super().__init__(
            f"{cause}. {run} exists: its state is as the log has it, and what was begun may still take effect. "
            f"{first}, then look and go on"
        )
        self.instead = (f"continuity status {run}", f"continuity resume {run}")


class NotDrivenError(ContinuityError):
    """A run is under way and no process drives it."""

    def __init__(self, run: str, state: RunState) -> None:
        super().__init__(f"{run} is {state.value}, but no process drives it: nothing goes on by itself")
        self.instead = (f"continuity resume {run}", f"continuity status {run}")


class StoppedError(ContinuityError):
    """This process was stopped, by Ctrl-C or a signal. With a run: what is safe now, and every way to go on."""

    def __init__(
        self,
        message: str,
        instead: tuple[str, ...] = ("continuity status",),
        more: Mapping[str, Any] = NOTHING,
        code: int = STOPPED,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.instead = instead
        self.more = dict(more)


@contextmanager
def run_stands(run: str) -> Iterator[None]:
    """Once a run exists, nobody may be told that nothing was changed when the log fails."""
    try:
        yield
    except ChangedLogError:
        raise  # nothing was begun on it, and no room helps
    except JournalError as error:
        raise RunStands(run, error) from error


def guarded(call: Callable[[], None]) -> int:
    """Run a command; turn what it raises into one message on stderr and an exit code."""
    try:
        call()
    except InputError as error:
        return _say("input", INPUT, str(error), ())
    except WrongWordsError as error:
        return _say("input", INPUT, error.message, error.instead)
    except RefusedError as error:
        return _say("refused", REFUSED, error.message, error.instead)
    except RunStands as error:
        return _say("held", HELD, str(error), error.instead, says="held: the log cannot be written")
    except ChangedLogError as error:
        says = "the log was changed by hand; nothing was begun"
        return _say("log changed", REFUSED, str(error), SEE_ALL, says=says)
    except DamagedLogError as error:
        return _say("log damaged", REFUSED, str(error), error.instead, says="the log is damaged")
    except LogFileError as error:
        says = "the log cannot be used; nothing was begun"
        text = f"{error}. Make room for it, or let it be written to, then say it again"
        return _say("log unusable", REFUSED, text, (_offered.again(),), says=says)
    except JournalError as error:
        says = "the log cannot be used; nothing was begun"
        return _say("log unusable", REFUSED, str(error), (), says=says)
    except InvariantBroken as error:
        says = "bug: an invariant broke; the run is stopped with its state saved"
        return _say("bug", BUG, str(error), (), says=says)
    except NotDrivenError as error:
        return _say("not driven", NOT_DRIVEN, str(error), error.instead)
    except StoppedError as error:
        return _say("stopped", error.code, str(error), error.instead, error.more)
    except ContinuityError as error:
        return _say("refused", REFUSED, str(error), ())
    except KeyboardInterrupt as error:  # before or behind a command
        return _say("stopped", stopped_code(error), NO_RUN, ("continuity status",))
    return DONE


def code_of(end: SystemExit) -> int:
    """The number that a process which ends so ends with."""
    if isinstance(end.code, int):
        return end.code
    if end.code is None:
        return DONE
    print(end.code, file=sys.stderr)
    return BUG


def with_answer(code: int) -> int:
    """The exit code, once it is known whether the answer stands on stdout. How a command ended counts for more
    than a lost answer; a reader that went away (``| head``) has seen enough and is told nothing."""
    fault = _streams.stdout_fault()
    if isinstance(fault, BrokenPipeError):
        return code or READER_GONE
    if fault is not None:
        print(
            f"continuity: the answer could not be written to stdout ({fault.strerror}); what this command did stands",
            f"    {_offered.with_estate('continuity status')}",
            sep="\n",
            file=sys.stderr,
        )
        return code or UNSAID
    return code


def say_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """The last word on an exception that nobody expected: the traceback, and a document where one is wanted."""
    if wants_json():
        _print_document("bug", BUG, f"{kind.__name__}: {error}", ())
    sys.__excepthook__(kind, error, trace)


def _say(
    kind: str,
    code: int,
    message: str,
    instead: tuple[str, ...],
    more: Mapping[str, Any] = NOTHING,
    says: str = "",
) -> int:
    """``kind``: the word for programs; ``says``: what people read in its place, where a word is too short."""
    if wants_json():
        _print_document(kind, code, message, instead, more)
    print(_offered.in_text(f"continuity: {says or kind}: {message}"), file=sys.stderr)
    for command in instead:
        print(f"    {_offered.with_estate(command)}", file=sys.stderr)
    return code


def _print_document(
    kind: str, code: int, message: str, instead: tuple[str, ...], more: Mapping[str, Any] = NOTHING
) -> None:
    body = {"schema": "continuity/error/v1", "error": kind, "message": message, "instead": list(instead)}
    write_line(json.dumps(_offered.in_document({**body, **more, "exit_code": code})))


def write_line(text: str) -> None:
    """One whole line on stdout, or none: Ctrl-C does not come between a document and its end."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def wants_json() -> bool:
    words = sys.argv
    return bool({"--output=json", "-ojson"} & set(words)) or any(
        a in ("--output", "-o") and b == "json" for a, b in itertools.pairwise(words)
    )
