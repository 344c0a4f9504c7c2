"""An abort after home's power was cut: held while home is off, over once home is back and takes writes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from orchestrator.lab import adoption, faults, sites, traffic
from orchestrator.lab.layout import Lab
from tests import labs
from tests.faults import ledgers
from tests.faults.ledgers import Reader
from tests.labs import document as say
from tests.waiting import until

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

ACKS_MIN = 20
DONE, HELD, PARTIAL = 0, 4, 6
FENCE_SECONDS_MAX = 20
POWER = "site-home/power-off-h1"
STOP = "registers-db/stop-h1"
DOCUMENTS = "state-gazette/documents/stop-home"


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Commits at home wait for nobody: a failover may hold before any promotion because too much is lost."""
    with labs.own_home():
        yield sites.up(sites.Wanted(durability="local", owned=True), adopt=adoption.adopt)


def acked_at_home(ledger: Reader) -> int:
    return sum(told.site == "home" for told in ledgers.acked_at(ledger.read(), "home"))


def test_an_abort_after_a_power_off_ends_once_home_is_back_and_writes(lab: Lab) -> None:
    ledger = Reader([ledgers.start_probes(lab)])
    until(lambda: acked_at_home(ledger) >= ACKS_MIN, "home serves")
    faults.break_it(lab, "home-crash")
    labs.set_fence_budget(lab, FENCE_SECONDS_MAX)
    losses = say(lab, DONE, "plan", "failover", "--live")["observed"]["loss"]
    with labs.proof_slower_than_expected(lab, losses.values()) as limit:
        held = say(lab, HELD, "failover", "--yes", "--accept-loss", limit)
    name = held["run"]
    say(lab, DONE, "abort", name, "--reason", "false alarm")

    off = say(lab, HELD, "resume", name, "--yes")
    assert [cause.split()[0] for cause in off["held"]["causes"]] == [STOP, DOCUMENTS, POWER]
    assert off["held"]["choices"][:1] == labs.offered(lab, f"continuity retry {name} {STOP}")

    faults.heal(lab)
    say(lab, DONE, "retry", name)
    over = say(lab, PARTIAL, "resume", name, "--yes")
    assert POWER not in over["exposures"], "somebody put the power on again, and the database there writes"
    registers = next(each for each in say(lab, DONE, "status")["groups"] if each["name"] == "registers")
    assert registers["active_site"] == "home"
    before = acked_at_home(ledger)
    until(lambda: acked_at_home(ledger) >= before + ACKS_MIN, "home serves again")
    traffic.stop(lab)
