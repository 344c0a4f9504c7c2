"""Decides what each part of an estate is asked by which probe, and asks them side by side within a
bound. Must never change anything, and never call a part down that merely did not answer.
"""

from __future__ import annotations

import dataclasses
import json
import queue
import shlex
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from orchestrator.core.model import Cluster, Host, NameServer
from orchestrator.core.outcomes import Failed, Outcome, Succeeded
from orchestrator.errors import ContinuityError, InputError
from orchestrator.ports import Hosts, Report, Secrets
from orchestrator.probes import PROBES, probe

if TYPE_CHECKING:
    from orchestrator.bootstrap.app import App
    from orchestrator.core.model import Estate

AT_ONCE_MAX = 32
JOIN_SECONDS = 0.5  # beyond its own bound, so that the probe itself says what it waited for
UNANSWERED = Report("unknown", "no answer in time")


@dataclass(frozen=True, slots=True)
class Ask:
    """One question. ``problem``: why it cannot even be put; the verdict is then unknown."""

    kind: str
    about: str
    params: Any = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    ask: Ask
    report: Report


def look(app: App, asks: Sequence[Ask], seconds: float) -> list[Answer]:
    """Put every question, at most AT_ONCE_MAX at a time; each answer may take ``seconds``."""
    from orchestrator.bootstrap.operations import surroundings

    around = surroundings(app)
    return put(asks, seconds, around.hosts, around.secrets, app.clock.monotonic)


def put(
    asks: Sequence[Ask], seconds: float, hosts: Hosts, secrets: Secrets, clock: Callable[[], float]
) -> list[Answer]:
    """The same with its surroundings as arguments."""
    found: dict[int, Report] = {}
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(len(asks)):
        waiting.put(number)

    def work() -> None:
        while True:
            try:
                number = waiting.get_nowait()
            except queue.Empty:
                return
            found[number] = _report(asks[number], seconds, hosts, secrets)

    rounds = -(-len(asks) // AT_ONCE_MAX)
    deadline = clock() + rounds * seconds + JOIN_SECONDS
    workers = [threading.Thread(target=work, daemon=True) for _ in range(min(AT_ONCE_MAX, len(asks)))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(max(0.0, deadline - clock()))
    return [Answer(ask, found.get(number, UNANSWERED)) for number, ask in enumerate(asks)]


def _report(ask: Ask, seconds: float, hosts: Hosts, secrets: Secrets) -> Report:
    """What one probe says; whatever it raises is no verdict on the part."""
    from orchestrator.engine.dispatch import guarded

    if ask.problem:
        return Report("unknown", ask.problem)
    said: list[Report] = []

    def asked() -> Outcome:
        said.append(probe(ask.kind).look(ask.params, timeout_seconds=seconds, hosts=hosts, secrets=secrets))
        return Succeeded()

    outcome = guarded(asked, mutates=False)
    if isinstance(outcome, Failed):
        return Report("unknown", outcome.message)
    return said[0]


# --- the estate's own parts -------------------------------------------------------------------


def asks_of(app: App, kinds: Sequence[str] = ()) -> tuple[list[Ask], list[str]]:
    """A question to every part that a probe of these kinds (none: all) can ask, and notes for people.

    What a part should be (primary, the value of a name) is taken from the log; without one it is not judged.
    """
    active, notes = _active_sites(app)
    wanted = _Parts(app.loaded.estate, app.loaded.runbooks, active)
    return [ask for ask in wanted.all() if not kinds or ask.kind in kinds], notes


def _active_sites(app: App) -> tuple[dict[str, str], list[str]]:
    """Service → the site that holds its group's epoch, as far as the log says."""
    from orchestrator.core.model import group_of

    if not app.has_log:
        return {}, ["this estate has no log yet: roles and values are not judged"]
    try:
        groups = app.journal.groups()
    except ContinuityError as error:
        return {}, [f"the log cannot be read, so roles and values are not judged: {error}"]
    estate = app.loaded.estate
    of = {service: group_of(estate, service) for service in app.loaded.runbooks}
    return {service: groups[name].active for service, name in of.items() if name in groups}, []


@dataclass(frozen=True, slots=True)
class _Parts:
    estate: Estate
    runbooks: Mapping[str, Any]
    active: Mapping[str, str]

    def all(self) -> Iterator[Ask]:
        for host in self.estate.hosts.values():
            if host.reach:
                # whatever it says counts: only a host that lives answers
                yield _ask("http", f"{host.name} at {host.site}", url=host.reach, status=0)
        for cluster in self.estate.clusters.values():
            yield from self._members(cluster)
        for service, runbook in self.runbooks.items():
            for component in runbook.components.values():
                yield from self._component(service, runbook, component)
            for done in runbook.done_when.http:
                yield _ask_if("http", f"{service}, front door", partial(self._front_door, service, done))

    def _members(self, cluster: Cluster) -> Iterator[Ask]:
        from orchestrator.components.postgresql import PostgreSQL

        database, active = "postgres", ""
        for service, runbook in self.runbooks.items():
            for component in runbook.components.values():
                if isinstance(component, PostgreSQL) and component.cluster == cluster.name and not active:
                    database, active = component.database, self.active.get(service, "")
        for site, members in cluster.members.items():
            role = ("primary" if site == active else "standby") if active else ""
            for name in members:
                host, about = self.estate.hosts[name], f"{cluster.name} on {name} at {site}"
                yield _ask("tcp", about, address=host.address, port=cluster.port)
                yield _ask("postgresql", about, cluster=cluster, host=host, database=database, expect=role)

    def _component(self, service: str, runbook: Any, component: Any) -> Iterator[Ask]:
        from orchestrator.components.dns import Dns
        from orchestrator.components.files import Files

        if isinstance(component, Dns):
            for site, name in component.servers.items():
                server = self.estate.name_servers[name]
                for record in component.records:
                    about, expect = (
                        f"{record.name} on {name} at {site}",
                        self._value(service, runbook, record),
                    )
                    yield _ask("dns", about, server=server, name=record.name, type=record.type, expect=expect)
        if isinstance(component, Files):
            for site, place in component.at.items():
                about = f"{service}/{component.name} on {place.host} at {site}"
                yield _ask_if("files", about, partial(self._documents, service, component, site))

    def _value(self, service: str, runbook: Any, record: Any) -> str:
        """What a name should be, "" where the log does not say which site is active."""
        active = self.active.get(service, "")
        if active and record.proxy:
            return str(runbook.components[record.proxy].address_at(self.estate, active))
        return " ".join(record.at.get(active, ()))

    def _documents(self, service: str, files: Any, site: str) -> dict[str, Any]:
        from pathlib import Path

        from orchestrator.components.files import joined

        place, active = files.at[site], self.active.get(service, "")
        key = files.public_key
        if not key.startswith("ssh-"):
            try:
                key = Path(key).read_text(encoding="utf-8")
            except OSError as error:
                raise InputError(f"{key}: {error.strerror}") from error
        said: dict[str, Any] = {
            "host": self.estate.hosts[place.host],
            "directory": self._on(place.directory, place.host),
            "manifest": files.manifest,
            "public_key": key,
        }
        if active and site != active and active in files.at:
            source = files.at[active]
            manifest = joined(self._on(source.directory, source.host), files.manifest)
            said |= {"source": self.estate.hosts[source.host], "source_manifest": manifest}
        return said

    def _on(self, text: str, host: str) -> str:
        from orchestrator.core.templates import host_values, resolve

        return resolve(text, host_values(self.estate.hosts[host]))

    def _front_door(self, service: str, done: Any) -> dict[str, Any]:
        """A page as citizens ask for it: names from the embassy's servers first, then everybody else's."""
        from orchestrator.core.templates import resolve, resolve_json

        active = self.active.get(service, "")
        values = {"to.name": active} if active else {}
        servers = sorted(self.estate.name_servers.values(), key=lambda s: (self._is_home(s), s.name))
        return {
            "url": resolve(done.url, values),
            "status": done.status,
            "json": resolve_json(done.json, values) if active else {},
            "resolve_at": tuple(servers),
        }

    def _is_home(self, server: NameServer) -> bool:
        return self.estate.sites[server.site].role == "home"


def _ask(kind: str, about: str, **said: Any) -> Ask:
    return Ask(kind, about, probe(kind).params(**said))


def _ask_if(kind: str, about: str, said: Callable[[], Mapping[str, Any]]) -> Ask:
    """A question whose arguments must be looked up first, which can fail."""
    try:
        return _ask(kind, about, **said())
    except InputError as error:
        return Ask(kind, about, problem=str(error))


# --- one probe with arguments of people's own -------------------------------------------------


def ask_with(app: App, kind: str, words: Sequence[str]) -> Ask:
    """One question from ``key=value`` words or a JSON object. ``host``, ``source``, ``cluster``, ``server``
    and ``resolve_at`` name parts of the estate. InputError says what is unknown, missing or wrong."""
    from orchestrator.planning.bind import converter

    params = probe(kind).params
    takes = get_type_hints(params, localns={"Json": object})
    said = _said(words)
    known = {field.name: takes[field.name] for field in dataclasses.fields(params)}
    for name in said:
        if name not in known:
            raise InputError(f"{kind}: unknown argument {name}; it takes: {', '.join(known)}")
    values = {name: _part(app, name, known[name], value) for name, value in said.items()}
    about = ", ".join(f"{name}={value}" for name, value in said.items())
    return Ask(kind, about, converter(params)(values, kind))


def _said(words: Sequence[str]) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for word in words:
        if word.lstrip().startswith("{"):
            try:
                said |= json.loads(word)
            except ValueError as error:
                raise InputError(f"--with: not a JSON object: {error}") from None
            continue
        name, mark, value = word.partition("=")
        if not mark:
            raise InputError(f"--with {word}: write key=value, or a JSON object")
        said[name.replace("-", "_")] = value
    return said


def _part(app: App, name: str, wanted: Any, value: Any) -> Any:
    """A value of a person as the probe takes it."""
    members = {wanted, *get_args(wanted)}
    for cls, parts in _named(app).items():
        if cls not in members:
            continue
        known = parts()
        names = [value] if get_origin(wanted) is not tuple else _words(value)
        unknown = [each for each in names if each not in known]
        if unknown:
            raise InputError(f"{name}: the estate has no {unknown[0]!r}; there are: {', '.join(known)}")
        found = tuple(known[each] for each in names)
        return found if get_origin(wanted) is tuple else found[0]
    if not isinstance(value, str) or wanted is str:
        return value
    if get_origin(wanted) is tuple:
        return _words(value)
    try:
        return json.loads(value)
    except ValueError:
        return value  # a word; the converter says whether it is one that the probe takes


def _words(value: Any) -> list[Any]:
    return shlex.split(value) if isinstance(value, str) else list(value)


def _named(app: App) -> Mapping[type[Any], Callable[[], Mapping[str, Any]]]:
    """Types that are named by a part of the estate; it is read only if one is used."""
    return {
        Host: lambda: app.loaded.estate.hosts,
        Cluster: lambda: app.loaded.estate.clusters,
        NameServer: lambda: app.loaded.estate.name_servers,
    }


def kinds() -> list[str]:
    return sorted(PROBES)
