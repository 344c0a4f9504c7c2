"""Decides how the parts are wired for a command: what only reads opens the log and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.core.events import RunEvent
from orchestrator.core.plan import Plan
from orchestrator.core.run import Run
from orchestrator.engine.clock import SystemClock
from orchestrator.engine.journal import Journal
from orchestrator.settings import Settings, locate
from orchestrator.stores.sqlite import SqliteStore

if TYPE_CHECKING:
    from orchestrator.planning.bind import TableCatalog
    from orchestrator.ports import Context
    from orchestrator.runbook.parse import Loaded

Listener = Callable[[Run, tuple[RunEvent, ...]], None]


def plan_from_text(text: str) -> Plan:
    from orchestrator.planning.codec import plan_from_json

    return plan_from_json(json.loads(text))


def plan_to_text(plan: Plan) -> str:
    from orchestrator.core.values import canonical
    from orchestrator.planning.codec import plan_to_json

    return canonical(plan_to_json(plan))


@dataclass(slots=True)
class App:
    """One estate as a command sees it. Heavy parts are made when first asked for."""

    settings: Settings
    clock: SystemClock = field(default_factory=SystemClock)
    listeners: list[Listener] = field(default_factory=list)  # of what this process appends
    listeners_to_others: list[Listener] = field(default_factory=list)
    at_point: Callable[[str], None] = lambda name: None  # kill tests end the process here
    record: Callable[[str, str], None] = lambda step, command: None  # exact commands as they are sent
    _journal: Journal | None = None
    _loaded: Any = None
    _catalog: Any = None

    def _tell(self, run: Run, events: tuple[RunEvent, ...]) -> None:
        for listener in self.listeners:
            listener(run, events)

    def _tell_of_others(self, run: Run, events: tuple[RunEvent, ...]) -> None:
        for listener in self.listeners_to_others:
            listener(run, events)

    @property
    def journal(self) -> Journal:
        """The log; made if the estate has none yet (it then knows no group, and refuses)."""
        if self._journal is None:
            self._journal = Journal(
                SqliteStore(self.settings.log), plan_from_text, self._tell, at_point=self.at_point,
                on_others=self._tell_of_others,
            )  # fmt: skip
        return self._journal

    @property
    def has_log(self) -> bool:
        return self.settings.log.is_file()

    @property
    def catalog(self) -> TableCatalog:
        if self._catalog is None:
            from orchestrator.bootstrap.catalog import catalog

            self._catalog = catalog()
        return self._catalog  # type: ignore[no-any-return]

    @property
    def loaded(self) -> Loaded:
        """The estate and its runbooks. Raises InputError with every problem at once."""
        if self._loaded is None:
            from orchestrator.runbook.parse import load_estate

            self._loaded = load_estate(self.settings.estate, catalog=self.catalog)
        return self._loaded  # type: ignore[no-any-return]

    @contextmanager
    def context(self, run: str, step: str, seconds: float) -> Iterator[Context[Any]]:
        """Surroundings for work outside any run (adopting, listing what differs); ``params`` is None."""
        from orchestrator.bootstrap.operations import surroundings
        from orchestrator.core.model import Operation
        from orchestrator.planning.parts import parts_of
        from orchestrator.ports import Context

        estate, around = self.loaded.estate, surroundings(self)
        try:
            yield Context(
                params=None,
                parts=parts_of(estate),
                operation=Operation.REPROTECT,
                run=run,
                step=step,
                attempt=f"{run}/{step}/1",
                deadline=self.clock.monotonic() + seconds,
                evidence={},
                resources=around.resources,
                secrets=around.secrets,
                hosts=around.hosts,
                clock=around.clock,
            )
        finally:
            close = getattr(around.resources, "close", None)
            if close is not None:
                close()

    def close(self) -> None:
        if self._journal is not None:
            self._journal.store.close()


def open_app(estate: str | None) -> App:
    """Find the estate and be ready to open what a command needs of it."""
    return App(locate(estate))
