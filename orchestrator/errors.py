"""Decides the error tree; must never hold logic beyond how an error names itself.

ContinuityError
├── InputError          bad input: nothing was changed (exit 2); carries every problem found
├── RefusedError        a rule says no; names what would be allowed (exit 3)
│   └── WrongWordsError what was asked is wrong whatever the state is: bad input (exit 2)
├── ConflictError       somebody appended first: read again and decide again
├── JournalError        the log cannot be read or written, or its chain is broken
│   ├── ChangedLogError it is not what was written
│   ├── NewerPlanError  a plan in it was made by a later version
│   └── DamagedLogError its file is no database any more
├── TransientError      a read or a connection that may succeed if tried again
├── PermanentError      trying again cannot help
└── InvariantBroken     a bug: the run is stopped with its state saved (exit 1)
"""

from __future__ import annotations

from dataclasses import dataclass


class ContinuityError(Exception):
    """Base of every error that this program raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with what people wrote, and where.

    ``line`` is 1-based, 0 when no line is known; ``path`` is a dotted YAML path; ``hint`` says what
    would be right and is never empty for problems of the loader.
    """

    file: str
    line: int
    path: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        path = self.path or ("(top)" if where else "")
        hint = f"\n    hint: {self.hint}" if self.hint else ""
        return ": ".join(filter(None, (where, path, self.message))) + hint


class InputError(ContinuityError):
    """Bad input. ``problems`` holds all of them, in file and line order."""

    def __init__(self, problems: list[Problem] | tuple[Problem, ...] | str) -> None:
        if isinstance(problems, str):
            problems = (Problem("", 0, "", problems),)
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class RefusedError(ContinuityError):
    """A rule refuses what was asked. ``message`` says why, ``instead`` what is allowed now."""

    def __init__(self, message: str, instead: tuple[str, ...] = ()) -> None:
        self.message = message
        self.instead = instead
        super().__init__(message)


class WrongWordsError(RefusedError):
    """No state would allow this: a name that is nobody's, a reason that is none. Bad input, and nothing changed."""


class ConflictError(ContinuityError):
    """A stream has moved on since it was read. ``actual`` is its present last stream_seq."""

    def __init__(self, stream: str, expected: int, actual: int) -> None:
        self.stream, self.expected, self.actual = stream, expected, actual
        super().__init__(f"{stream}: expected sequence {expected}, found {actual}")


class JournalError(ContinuityError):
    """The log cannot be used as it is; the text says what is safe to do."""


class LogFileError(JournalError):
    """The file of the log cannot be read or written just now: no room, no right, a disk that fails. Nothing of it is lost."""


class ChangedLogError(JournalError):
    """The log, or a plan beside it, is not what was written: nothing is begun on it, and making room helps nothing."""


class NewerPlanError(JournalError):
    """A plan in the log was made by a later version than can be read here."""


class DamagedLogError(JournalError):
    """The file of the log is damaged: nothing can be begun on it, nor said of it. ``instead``: what helps where no
    good copy of it is at hand."""

    def __init__(self, message: str, instead: tuple[str, ...]) -> None:
        self.instead = instead
        super().__init__(message)


class TransientError(ContinuityError):
    """May succeed if tried again."""


class PermanentError(ContinuityError):
    """Cannot succeed by trying again."""


class InvariantBroken(ContinuityError):
    """A predicate that must hold of every run does not: a bug in this program."""
