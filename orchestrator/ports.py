"""Decides what the shell must offer the core and the actions; must never hold an implementation.

Actions and probes see the world only through these protocols; tests pass fakes by argument.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from orchestrator.core.log import Append, Recorded
from orchestrator.core.model import Host, Operation
from orchestrator.core.outcomes import Finding, Outcome
from orchestrator.core.plan import Bound, Parts, Touch, Undo
from orchestrator.core.values import Json

T = TypeVar("T")
P = TypeVar("P")
P_contra = TypeVar("P_contra", contravariant=True)


# --- actions ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Description:
    """What an action would do with its Params: exact commands (argv joined by shlex, or SQL with
    secrets as references), the endpoints it touches, and how it is undone."""

    commands: tuple[str, ...]
    touches: tuple[Touch, ...]
    undo: Undo
    undo_commands: tuple[str, ...] = ()


class HostScript(Protocol):
    """A self-contained, standard-library-only function that runs on a host: JSON in, JSON out.

    Its module must import nothing of orchestrator: ``local`` hosts call it in this process, hosts
    reached otherwise are sent its source.
    """

    __module__: str
    __qualname__: str

    def __call__(self, arguments: Mapping[str, Any], /) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Completed:
    """A host command that ended. ``exit_code`` is negative for a signal; output is bounded."""

    exit_code: int
    stdout: str
    stderr: str


class HostConnection(Protocol):
    """One host. Every call first makes sure that the host answers (``Host.reach``) and raises
    TransientError when it does not; a time-out of ``run`` raises TimeoutError (outcome unknown)."""

    @property
    def host(self) -> Host: ...

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_seconds: float,
        lock: str = "",
        stdin: bytes = b"",
        environment: Mapping[str, str] | None = None,
        cancelled: threading.Event | None = None,
    ) -> Completed:
        """Run a command without a shell. With ``lock`` the command itself holds that lock file for
        as long as it lives, even when this process is killed; see ``is_running``."""

    def is_running(self, lock: str) -> bool:
        """Is a command started with this ``lock`` still alive on the host?"""

    def call(self, script: HostScript, arguments: Mapping[str, Json], *, timeout_seconds: float) -> Any:
        """Run a HostScript on the host and return its JSON result.

        The script is given ``timeout_ms`` beside ``arguments`` and bounds itself by it. An exception
        in it is a PermanentError here; of a script that changes things the outcome is unknown."""


@dataclass(frozen=True, slots=True)
class Context(Generic[P]):
    """Everything one attempt of one step may use.

    ``attempt`` names it for ever (``RUN/STEP/N``): it stands in application_name and in lock files.
    ``evidence`` holds the evidence of every succeeded step of the same unit and of this step's
    needs, by step id. ``deadline`` is on ``monotonic``. ``cancelled`` is set when people abort:
    close what is in flight and return Unknown.
    """

    params: P
    parts: Parts
    operation: Operation
    run: str
    step: str
    attempt: str
    deadline: float
    evidence: Mapping[str, Mapping[str, Json]]
    resources: Resources
    secrets: Secrets
    hosts: Hosts
    clock: Clock
    cancelled: threading.Event = field(default_factory=threading.Event)
    record: Callable[[str], None] = lambda command: None  # exact argv or SQL, told before it is sent

    def seconds_left(self) -> float:
        """Seconds until the deadline, at least 0.001."""
        return max(0.001, self.deadline - self.clock.monotonic())


class Action(Protocol[P]):
    """One kind of step. Constructed without arguments; holds no state between calls.

    ``describe`` is pure. ``check`` is read-only and bounded by the context's deadline. ``execute``
    and ``undo`` return Unknown, never raise, for a time-out or lost connection of a mutation; any
    exception they let through is taken as Unknown by the dispatcher when the action mutates, as
    Failed when it does not. ``load`` imports what the kind needs and opens warm sessions: preflight
    calls it so that nothing is imported after the order.
    """

    kind: ClassVar[str]
    version: ClassVar[int]
    params: ClassVar[type[Any]]
    idempotent: ClassVar[bool]
    mutates: ClassVar[bool]

    def describe(self, params: P, parts: Parts) -> Description: ...
    def load(self, context: Context[P]) -> None: ...
    def check(self, context: Context[P]) -> Finding: ...
    def execute(self, context: Context[P]) -> Outcome: ...
    def undo(self, context: Context[P]) -> Outcome: ...


class Catalog(Protocol):
    """The actions that exist. ``planning`` binds drafts through it."""

    def bind(self, action: str, arguments: Mapping[str, Json], parts: Parts) -> Bound:
        """Parse the arguments into the action's Params and describe them. Raises InputError."""

    def kinds(self) -> Iterable[str]: ...


# --- probes -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Report:
    """What a probe saw. ``verdict``: up, degraded, down or unknown (unknown is not down)."""

    verdict: str
    detail: str
    facts: Mapping[str, Json] = field(default_factory=dict)


class Probe(Protocol[P_contra]):
    """Reads and reports, never changes."""

    kind: ClassVar[str]
    params: ClassVar[type[Any]]

    def look(self, params: P_contra, *, timeout_seconds: float, hosts: Hosts, secrets: Secrets) -> Report: ...


# --- services that the shell offers -----------------------------------------------------------


class Clock(Protocol):
    def utc_ns(self) -> int: ...
    def monotonic_ns(self) -> int: ...
    def monotonic(self) -> float: ...


class Secrets(Protocol):
    def value(self, reference: str) -> str:
        """The value behind ``secret://env/NAME`` or ``secret://file/NAME``; InputError if absent."""


class Hosts(Protocol):
    def connect(self, host: Host) -> HostConnection: ...


class Resources(Protocol):
    """Things opened once per process and shared by the steps of a run (session pools, clients)."""

    def get(self, key: Hashable, factory: Callable[[], T]) -> T:
        """The object for this key, made on first use. Its ``close()``, if any, is called at the end."""


class Store(Protocol):
    """The log of one estate (``stores/``). Streams: ``run:ID`` and ``group:NAME``."""

    def append(self, appends: Sequence[Append]) -> int:
        """One transaction over several streams. Raises ConflictError, and then wrote nothing."""

    def last_seq(self) -> int:
        """The number of the newest event, 0 for none."""

    def read(self, stream: str, after: int = 0) -> list[Recorded]: ...
    def read_all(self, after_seq: int = 0) -> list[Recorded]: ...
    def streams(self, prefix: str) -> list[str]: ...
    def version(self) -> int: ...
    def put_plan(self, name: str, body: str) -> None:
        """Keep a plan's text; one that lies there under this name stays as it is."""

    def get_plan(self, name: str) -> str:
        """Raises JournalError where none lies there."""

    def verify(self, newest: int = 0) -> list[str]:
        """Every break of the hash chain, and every plan that is not the one its run began with, as text;
        ``newest``: only among so many last events, 0: in all."""

    def close(self) -> None: ...
