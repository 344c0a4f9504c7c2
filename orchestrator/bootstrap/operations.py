"""Decides how a command plans, begins and drives a run; the CLI and the lab's demo share it.

It asks nobody anything: what people must say is passed in. A driver holds the run's lock for as
long as it drives, and nothing else may.
"""

# ruff: noqa: PLC0414 - looking at runs is part of this vocabulary
from __future__ import annotations

import gc
import os
import secrets
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator import __version__
from orchestrator.bootstrap.app import App, plan_to_text
from orchestrator.bootstrap.looking import changed_sources as changed_sources
from orchestrator.bootstrap.looking import changed_text as changed_text
from orchestrator.bootstrap.looking import open_run as open_run
from orchestrator.core.events import RunCreated
from orchestrator.core.inputs import Authorise, DriverStarted, Verb
from orchestrator.core.model import Operation
from orchestrator.core.plan import PLAN_SCHEMA, Plan
from orchestrator.core.run import Run
from orchestrator.engine import lock
from orchestrator.engine.clock import now
from orchestrator.engine.journal import Journal, Tracked
from orchestrator.engine.loop import come_up, drive
from orchestrator.errors import ContinuityError, RefusedError, TransientError
from orchestrator.settings import boot_id, machine

if TYPE_CHECKING:
    from orchestrator.engine.dispatch import Surroundings, ThreadDispatcher
    from orchestrator.ports import Hosts

ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"
RUN_NAME_LENGTH = 4


@dataclass(frozen=True, slots=True)
class Wish:
    """What people ask for: an operation, of which services (empty: all), to which site.

    ``rejoin``: rewind (quick, the old history is kept first) or reclone (a new base backup).
    """

    operation: Operation
    services: tuple[str, ...] = ()
    target: str | None = None
    leave: Mapping[str, str] = field(default_factory=dict)
    rejoin: str = "rewind"

    def options(self) -> tuple[str, ...]:
        """Which services move and which are left behind, as people type it."""
        named = [word for name in self.services for word in ("--service", name)]
        return (*named, *(word for name, why in self.leave.items() for word in ("--leave", f"{name}={why}")))


def plan_operation(app: App, wish: Wish) -> tuple[Plan, tuple[str, ...]]:
    """Compile a plan from the estate and the groups' present states. Opens no socket."""
    from orchestrator.planning.compile import compile_plan

    loaded = app.loaded
    states = app.journal.groups() if app.has_log else {}
    compiled = compile_plan(
        loaded.estate,
        loaded.runbooks,
        wish.operation,
        target=wish.target,
        services=wish.services,
        states=states,
        catalog=app.catalog,
        leave=wish.leave,
        rejoin=wish.rejoin,
        file_digests=tuple(sorted(loaded.files.items())),
    )
    return compiled.plan, compiled.notes


def must_know_names(estate: str | None, wish: Wish) -> None:
    """InputError where a command names what the estate does not have. Nothing is asked of any site; an estate
    that cannot be read at all is left to whoever goes on."""
    from orchestrator.bootstrap.app import open_app

    try:
        app = open_app(estate)
    except ContinuityError:
        return
    with suppress(RefusedError):
        plan_operation(app, wish)


def must_answer(app: App, plan: Plan, hosts: Hosts | None = None) -> None:
    """RefusedError when no machine of a part answers at the site that a planned move goes to, or at the one that it
    leaves or follows: its run would claim every group, only to be held by each step that waits for an answer."""
    hosts = hosts or surroundings(app).hosts
    source = next(iter(move.active for move in plan.groups.values()))
    look = ("continuity status --live", "continuity probe")
    for cluster in plan.parts.clusters.values():
        if silent := _silent(hosts, plan, cluster.members.get(plan.target, ())):
            text = f"{plan.target} does not answer ({silent}), and this {plan.operation} goes there"
            raise RefusedError(f"{text}: nothing was begun, and no group is claimed", look)
    there = [cluster.members.get(source, ()) for cluster in plan.parts.clusters.values()]
    there += [names for move in plan.groups.values() for names in move.fence_hosts.values()]
    for names in dict.fromkeys(map(tuple, there)):
        if silent := _silent(hosts, plan, names):
            text = f"{source} does not answer ({silent}), and this {plan.operation} needs it"
            instead = (*_without_source(app, plan), look[0])
            if any(app.journal.group(name).protection == "unprotected" for name in plan.groups):
                instead = instead[::-1]  # whether there is a copy to go to at all is for the sites to say
            raise RefusedError(f"{text}: nothing was begun, and no group is claimed", instead)


def _silent(hosts: Hosts, plan: Plan, names: Sequence[str]) -> str:
    """Why none of these machines answers; "" where one does, or there are none."""
    silent = []
    for name in names:
        try:
            hosts.connect(plan.parts.hosts[name]).is_running("reach")
        except TransientError as error:
            silent.append(str(error))
        else:
            return ""
    return "; ".join(silent)


def _without_source(app: App, plan: Plan) -> tuple[str, ...]:
    """The unplanned way to the side that lives, where it has a copy that may be promoted; (): it has none."""
    named = () if len(plan.services) == len(app.loaded.runbooks) else tuple(plan.services)
    wish = Wish(Operation.FAILOVER, named, plan.target, plan.leave)
    try:
        plan_operation(app, wish)
    except RefusedError:
        return ()
    return (shlex.join(["continuity", "failover", "--to", plan.target, *wish.options()]),)


def begin(app: App, plan: Plan, by: str, reason: str = "") -> Tracked:
    """Create the run and claim its groups. RefusedError if somebody else holds one, or two sites write."""
    if plan.operation in (Operation.FAILBACK, Operation.REPROTECT):
        from orchestrator.bootstrap.observe import journal_conflicts

        journal_conflicts(app, plan)
    moment = now(app.clock)
    run_id = _run_name(app.journal, plan.operation)
    sources = dict(app.loaded.sources)
    created = RunCreated(moment, run_id, plan.operation, plan.digest, by, machine(), reason, sources)
    return app.journal.create(plan, plan_to_text(plan), created)


def _run_name(journal: Journal, operation: Operation) -> str:
    """Short enough to be typed at night and to stand in a session's name."""
    taken = set(journal.runs())
    while True:
        name = f"{operation}-" + "".join(secrets.choice(ALPHABET) for _ in range(RUN_NAME_LENGTH))
        if name not in taken:
            return name


@dataclass(slots=True)
class Driver:
    """This process as the driver of one run; make one through ``driving``."""

    app: App
    tracked: Tracked
    dispatcher: ThreadDispatcher
    warmed: Callable[[], None] = lambda: None  # waits for what the steps need to be opened
    heard: int = -1  # the log's version when it was last listened to

    @property
    def run(self) -> Run:
        return self.tracked.run

    def go(
        self,
        may_leave: Callable[[Run], bool] | None = None,
        is_called: Callable[[Run], bool] | None = None,
    ) -> Run:
        """Drive until the run is over or waits for people; see ``engine.loop.drive``."""
        return drive(self.app.journal, self.tracked, self.dispatcher, self.app.clock, may_leave, is_called)

    def listen(self) -> Run:
        """Take in what others ordered, and begin nothing: nobody has said yet that this run goes on."""
        newest = self.app.journal.store.version()
        if newest != self.heard:
            self.heard = newest
            self.app.journal.refresh(self.tracked)
        return self.run

    def tell(self, verb: Verb) -> Run:
        """Submit a verb of the person at this terminal."""
        self.app.journal.submit(self.tracked, verb)
        return self.run

    def authorise(self, by: str, accepted_loss_ms: int, method: str) -> Run:
        """The order: from here the clock of RTO figures runs, and no thread stands still for 12 ms while the
        collector looks through all that was loaded before."""
        self.warmed()
        gc.freeze()
        digest = self.run.plan.digest
        return self.tell(Authorise(now(self.app.clock), by, digest, accepted_loss_ms, method))


@contextmanager
def driving(app: App, tracked: Tracked) -> Iterator[Driver]:
    """Become the driver of a run: take its lock, append ``driver.started``; before the order, warm what is needed.

    The warming goes on beside the preflight and is over when the order is given.
    """
    _must_be_runnable(app, tracked.run)
    folder = app.settings.log_folder
    lock.acquire(folder, tracked.run.id)
    try:
        app.journal.refresh(tracked)
        dispatcher = _dispatcher(app)
        incarnation = secrets.token_hex(8)
        come_up(
            app.journal,
            tracked,
            DriverStarted(now(app.clock), incarnation, os.getpid(), boot_id(), machine(), __version__),
        )
        driver = Driver(app, tracked, dispatcher)
        if tracked.run.authorised is None:  # a successor opens what it needs when it needs it
            driver.warmed = dispatcher.warm(tracked.run)
        yield driver
    finally:
        lock.release(folder, tracked.run.id)


def surroundings(app: App) -> Surroundings:
    """What attempts of this process may use: sessions, secrets, hosts, the clock."""
    from orchestrator.bootstrap.secrets import FolderSecrets
    from orchestrator.drivers.hosts import LocalHosts
    from orchestrator.engine.dispatch import Surroundings
    from orchestrator.engine.resources import SharedResources

    secrets_folder = app.settings.folder / "secrets"
    return Surroundings(
        SharedResources(),
        FolderSecrets(secrets_folder),
        LocalHosts(),
        app.clock,
        app.record,
        app.at_point,
    )


def _dispatcher(app: App) -> ThreadDispatcher:
    from orchestrator.engine.dispatch import ThreadDispatcher

    return ThreadDispatcher(app.catalog, surroundings(app))


def _must_be_runnable(app: App, run: Run) -> None:
    """A program drives a run only if the plan's schema and each action's version equal its own. RefusedError names
    what differs and the version to install; what only looks at a run or takes it back needs neither."""
    differs = _what_differs(app, run.plan)
    if differs:
        version = app.journal.driven_by(run.id)
        raise RefusedError(
            f"{run.id}: {differs} (version {__version__}); nothing was begun. To go on with this run install"
            f" {f'version {version}, which drove it last' if version else 'the version that made its plan'}",
            (
                f"continuity status {run.id}",
                f"continuity report {run.id}",
                f"continuity abort {run.id} --reason TEXT",
            ),
        )


def _what_differs(app: App, plan: Plan) -> str:
    if plan.schema != PLAN_SCHEMA:
        return f"its plan has schema {plan.schema}, and this program drives schema {PLAN_SCHEMA}"
    known = frozenset(app.catalog.kinds())
    for step in plan.steps.values():
        kind, made_for = step.action.kind, step.action.kind_version
        if kind not in known:
            return f"its step {step.id} is of the kind {kind}, which this program does not have"
        own = app.catalog.action(kind).version
        if own != made_for:
            return f"its step {step.id} was made for version {made_for} of {kind}, and this program has version {own}"
    return ""
