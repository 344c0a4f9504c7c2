"""Decides what each fault of the lab really does, how it is healed, and what is not real about it.

Faults act on processes and on the link, never on continuity's own state. What is broken now stands in
``LAB/outside/faults.json`` for ``lab status``; the truth is always read from the parts themselves.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import WrongWordsError
from orchestrator.lab import link, postgres, power, processes, sites, supervise
from orchestrator.lab.layout import SITES, Lab, SiteName, other, write_file

SLOW_MS = 80
READ_ONLY = "read-only\n"
UNIT_SECONDS_MAX = 5.0


@dataclass(frozen=True, slots=True)
class Fault:
    """``real``: what happens to real parts; ``not_real``: how a true disaster differs from it."""

    name: str
    title: str
    real: str
    not_real: str
    break_: Callable[[Lab, SiteName, int], dict[str, Any]]
    heal: Callable[[Lab, SiteName, bool], dict[str, Any]]


def _members(lab: Lab, site: SiteName) -> dict[int, processes.Process]:
    return processes.of_part(lab.mark(site), lab.site(site).path)


def _crash(lab: Lab, site: SiteName, delay_ms: int) -> dict[str, Any]:
    return {"killed": processes.kill_all(lambda: _members(lab, site))}


def _power_on(lab: Lab, site: SiteName, insist: bool) -> dict[str, Any]:
    """Power comes back with somebody there: a primary is held back, and its documents are read-only, unless the
    other site says that it does not write; silence is no such word. A standby can do no harm, and nobody else
    would start it. ``insist``: people know better."""
    if _members(lab, site):
        return _let_go(lab, site) if insist else {"note": f"{site} is up already"}
    why = "" if insist or _is_standby(lab, site) else _why_held(lab, other(site))
    if why:
        _hold_documents(lab, site)
    held = supervise.HELD_WHEN_NOT_ACTIVE if why else ()
    answer = power.reset(lab, site, "On", held)
    sites.wait_powered(lab, site, with_database=not held)
    return {"held": list(held), "why": why, **answer}


def _why_held(lab: Lab, elsewhere: SiteName) -> str:
    """Why a primary at the other site must not be started while ``elsewhere`` is as it is now; "" when it may."""
    import psycopg

    try:
        with postgres.connect(lab, elsewhere, "population", options="-c statement_timeout=2000") as session:
            row = session.execute("SELECT pg_is_in_recovery()").fetchone()
    except psycopg.Error as error:
        return f"{elsewhere} does not answer, and may be the one that writes: {' '.join(str(error).split())[:120]}"
    return "" if row and row[0] else f"{elsewhere} writes"


def _hold_documents(lab: Lab, site: SiteName) -> None:
    """No new documents; which mode they had, and by which right, is kept for whoever insists later."""
    folder = lab.site(site).gazette
    mode = folder / "published.mode"
    if mode.exists() and mode.read_text(encoding="utf-8") != READ_ONLY:
        kept = {"mode": mode.read_text(encoding="utf-8"), "right": _right(lab, site)}
        write_file(_kept_mode(lab, site), json.dumps(kept) + "\n")
        write_file(mode, READ_ONLY)


def _kept_mode(lab: Lab, site: SiteName) -> Path:
    return lab.path / "outside" / f"held-{site}.json"


def _right(lab: Lab, site: SiteName) -> str:
    path = lab.site(site).gazette / "published.epoch"
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _let_go(lab: Lab, site: SiteName) -> dict[str, Any]:
    """Start what was held back at a site that is up; nobody has changed whose right its documents are since."""
    path = _kept_mode(lab, site)
    if path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["right"] == _right(lab, site):
            write_file(lab.site(site).gazette / "published.mode", kept["mode"])
        path.unlink()
    return {"started": [_unit(lab, site, unit, start=True) for unit in supervise.HELD_WHEN_NOT_ACTIVE]}


def _is_standby(lab: Lab, site: SiteName) -> bool:
    """Can its server come up as nothing but a standby that has always been one? A fenced primary is none."""
    from orchestrator.drivers.postgresql_host import FENCE_MARK

    try:
        return not (lab.site(site).data / "standby.signal").read_text(encoding="utf-8").startswith(FENCE_MARK)
    except FileNotFoundError:
        return False


def _hang(lab: Lab, site: SiteName, delay_ms: int) -> dict[str, Any]:
    return {"stopped": processes.stop_all(lambda: _members(lab, site))}


def _unhang(lab: Lab, site: SiteName, insist: bool) -> dict[str, Any]:
    """Let a site go on where it stopped; one whose power was cut meanwhile gets power again."""
    if not _members(lab, site):
        return _power_on(lab, site, insist)
    return {"continued": processes.continue_all(lambda: _members(lab, site))}


def _returns(lab: Lab, site: SiteName, delay_ms: int) -> dict[str, Any]:
    """The site is back unaided: everything that starts by itself starts, the old primary too."""
    found = _members(lab, site)
    if found and not any(process.state in "Tt" for process in found.values()):
        return {"note": f"{site} is up already"}
    if found:
        return {"continued": processes.continue_all(lambda: _members(lab, site))}
    answer = power.reset(lab, site, "On")
    sites.wait_powered(lab, site, with_database=True)
    return answer


def _stop_again(lab: Lab, site: SiteName, insist: bool) -> dict[str, Any]:
    """People take a site that came back by itself out of service: its database is stopped."""
    if not _members(lab, site) or sites.active_site(lab) == site:
        return {}
    return _unit(lab, site, "postgresql", start=False)


def _cut(lab: Lab, site: SiteName, delay_ms: int) -> dict[str, Any]:
    return link.order(lab, "cut")


def _slow(lab: Lab, site: SiteName, delay_ms: int) -> dict[str, Any]:
    return link.order(lab, "slow", delay_ms or SLOW_MS)


def _whole(lab: Lab, site: SiteName, insist: bool) -> dict[str, Any]:
    return link.order(lab, "heal")


def _proxy_down(lab: Lab, site: SiteName, delay_ms: int) -> dict[str, Any]:
    return _unit(lab, site, "haproxy", start=False)


def _proxy_up(lab: Lab, site: SiteName, insist: bool) -> dict[str, Any]:
    return _unit(lab, site, "haproxy", start=True)


def _unit(lab: Lab, site: SiteName, unit: str, *, start: bool) -> dict[str, Any]:
    from orchestrator.core.model import Manager
    from orchestrator.drivers import supervisor
    from orchestrator.lab import layout

    class Secrets:
        def value(self, reference: str) -> str:
            return lab.secret(reference.rsplit("/", 1)[1])

    url = f"http://{lab.address(site)}:{layout.SUPERVISOR_PORT}/"
    manager = Manager(url=url, user=supervise.USER, password="secret://file/supervisor")
    order = supervisor.start if start else supervisor.stop
    return {"unit": unit, "state": order(manager, unit, Secrets(), UNIT_SECONDS_MAX).name}


def _refuse(lab: Lab, site: SiteName, delay_ms: int) -> dict[str, Any]:
    write_file(lab.site(site).nameserver / "refuse-updates", "by the lab\n")
    return {}


def _accept(lab: Lab, site: SiteName, insist: bool) -> dict[str, Any]:
    (lab.site(site).nameserver / "refuse-updates").unlink(missing_ok=True)
    return {}


FAULTS: dict[str, Fault] = {
    fault.name: fault
    for fault in (
        Fault(
            "home-crash",
            "home dies at once",
            "SIGKILL of every process at home: database, proxy, name server, registers, process manager",
            "the disk and the address stay; connections are refused or closed at once where a dead site would be silent",
            _crash,
            _power_on,
        ),
        Fault(
            "home-hang",
            "home stands still",
            "SIGSTOP of every process at home: TCP still accepts, nothing answers",
            "the kernel answers for the stopped processes, as it does for a host that swaps to death",
            _hang,
            _unhang,
        ),
        Fault(
            "home-returns",
            "home comes back by itself",
            "power returns: everything at home starts unaided, the old primary too, whatever happened meanwhile",
            "nothing",
            _returns,
            _stop_again,
        ),
        Fault(
            "link-cut",
            "the link between the sites is cut, silently",
            "the relay between the sites forwards nothing and closes nothing; citizens still reach both sites",
            "the relay's kernel still accepts connections; bytes wait and are not lost when it heals",
            _cut,
            _whole,
        ),
        Fault(
            "link-slow",
            "the link is slow",
            "the relay delays every byte in each direction",
            "no loss, no jitter, no limit of bandwidth (this needs no netem in the kernel)",
            _slow,
            _whole,
        ),
        Fault(
            "proxy-down",
            "a site's front door is closed",
            "HAProxy is stopped by the site's process manager and stays stopped",
            "nothing",
            _proxy_down,
            _proxy_up,
        ),
        Fault(
            "dns-refused",
            "a name server refuses changes",
            "the name server answers REFUSED to every update; questions are answered",
            "nothing",
            _refuse,
            _accept,
        ),
    )
}
OF_A_SITE = frozenset({"home-crash", "home-hang", "home-returns"})
OF_THE_LINK = frozenset({"link-cut", "link-slow"})
DEFAULT_SITE: dict[str, SiteName] = {"dns-refused": "embassy"}


def fault(name: str) -> Fault:
    """The fault of this name. WrongWordsError lists them."""
    try:
        return FAULTS[name]
    except KeyError:
        raise WrongWordsError(f"there is no fault {name}", tuple(FAULTS)) from None


def broken(lab: Lab) -> dict[str, SiteName]:
    """Faults that were made and not healed: name → site."""
    try:
        found: dict[str, SiteName] = json.loads(
            (lab.path / "outside" / "faults.json").read_text(encoding="utf-8")
        )
    except FileNotFoundError:
        return {}
    return found


def break_it(lab: Lab, name: str, site: SiteName | None = None, delay_ms: int = 0) -> dict[str, Any]:
    """Make a fault. Returns what was seen to happen, with what is real about it."""
    chosen = fault(name)
    where = site or DEFAULT_SITE.get(name, "home")
    done = chosen.break_(lab, where, delay_ms)
    now = {known: at for known, at in broken(lab).items() if not (_replaces(name, known) and at == where)}
    _keep(lab, {**now, name: where})
    return {"fault": name, "site": where, "real": chosen.real, "not_real": chosen.not_real, "done": done}


def _replaces(new: str, old: str) -> bool:
    """A site is down, stands still or came back: the last of these is what is true."""
    return any(new in names and old in names for names in (OF_A_SITE, OF_THE_LINK))


def heal(
    lab: Lab, name: str | None = None, site: SiteName | None = None, *, insist: bool = False
) -> list[dict[str, Any]]:
    """Heal one fault, or everything that is broken. Returns what was done, in order.

    ``insist``: a database is started although nobody can tell that the other site does not write.
    """
    known = broken(lab)
    chosen = list(known) if name is None else [name]
    # a fence may have cut the power of a site that nobody broke; a standby first: it then answers for itself
    dark = [at for at in SITES if not _members(lab, at) and at not in known.values()] if name is None else []
    first = [at for at in dark if _is_standby(lab, at)]
    healed = [_healed("power-off", at, _power_on(lab, at, insist)) for at in first]
    for each in chosen:
        where = site or known.get(each) or DEFAULT_SITE.get(each, "home")
        healed.append(_healed(each, where, fault(each).heal(lab, where, insist)))
        known.pop(each, None)
        _keep(lab, known)
    if name is None:
        healed += [
            _healed("power-off", at, _power_on(lab, at, insist)) for at in SITES if not _members(lab, at)
        ]
    return healed


def _healed(name: str, site: SiteName, done: dict[str, Any]) -> dict[str, Any]:
    return {"fault": name, "site": site, "done": done}


def _keep(lab: Lab, now: dict[str, SiteName]) -> None:
    write_file(lab.path / "outside" / "faults.json", json.dumps(now) + "\n")
