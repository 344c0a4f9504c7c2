"""A group that a plan leaves out because it is there already: its sites are asked whether the log is right."""

from __future__ import annotations

from orchestrator.bootstrap.app import App
from orchestrator.bootstrap.expected import INSPECT
from orchestrator.bootstrap.left_out import findings
from orchestrator.bootstrap.observe import CLAIMS, Looked
from tests.unit.bootstrap.registers import ABROAD, GROUP, known

ROW = {"epoch": 3, "site": "home", "run": "failback-2222"}


def a_row(epoch: int, site: str) -> Looked:
    sites = {"home": {"writers": {"population": {**ROW, "epoch": epoch, "site": site}}}}
    return Looked(GROUP, "registers-db", INSPECT, {"sites": sites}, "")


def a_claim(epoch: int, site: str) -> Looked:
    claim = {"where": "population-register at ph", "at": "home", "epoch": epoch, "site": site, "run": "r9"}
    return Looked(GROUP, "registers", CLAIMS, {"claims": [claim]}, "")


def test_an_old_log_is_found_although_the_plan_leaves_the_group_out(app: App) -> None:
    known(app, *ABROAD)  # active at the embassy, epoch 2: by a copy from before the way home
    for seen in (a_row(3, "home"), a_claim(3, "home")):
        ((text, mend),) = findings(app, (), lambda _, seen=seen: [seen])  # type: ignore[misc]
        assert text.startswith("registers: THE LOG IS BEHIND: epoch 3 of home")
        assert mend == "continuity adopt registers --by NAME"
    assert findings(app, (), lambda _: [a_row(2, "embassy"), a_claim(1, "home")]) == []


def test_a_group_of_the_plan_is_asked_by_its_own_gates(app: App) -> None:
    def never(_: App) -> list[Looked]:
        raise AssertionError("the sites are asked twice")

    known(app, *ABROAD)
    assert findings(app, (GROUP,), never) == []


def test_nothing_is_asked_without_a_log(app: App) -> None:
    assert findings(app, ()) == []
    assert not app.has_log
