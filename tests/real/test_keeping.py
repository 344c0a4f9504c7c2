"""People keep the site that lost the epoch: it gets a new one, serves again, and the other side follows it.

A false alarm on an asynchronous lab: the link is cut, home cannot be reached and is declared lost, and it has
taken writes all the time. One story, told in order; every command that is printed is given as it was printed.
"""

from __future__ import annotations

import json
import re
import shlex
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.bootstrap import keeping
from orchestrator.bootstrap.app import App
from orchestrator.core.groups import breaks_of
from orchestrator.errors import RefusedError
from orchestrator.lab import adoption, faults, postgres, sites, traffic
from orchestrator.lab.layout import Lab, SiteName
from orchestrator.settings import Settings
from orchestrator.stores.codec import decode
from tests import labs
from tests.faults import ledgers
from tests.labs import document as say
from tests.waiting import until

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

ROOT = Path(__file__).resolve().parents[2]
DONE, INPUT, REFUSED, HELD, KILLED = 0, 2, 3, 4, 9
GROUP = "registers"
SIGNED = ("--by", "Tester", "--reason", "a false alarm")
DATABASES = ("population", "land")
ROWS_AT_HOME = 3
ACKS_MIN = 30

DIES = """
import os, sys
from orchestrator.bootstrap import adoption, keeping
from orchestrator.bootstrap.app import App
from orchestrator.settings import Settings
from tests.waiting import until

estate, group, point = sys.argv[1:]
app = App(Settings(__import__("pathlib").Path(estate)), at_point=lambda name: name == point and os._exit(9))
wanted = keeping.Wanted(group, "home", "Tester", "a false alarm", close=True)
keeping.keep(app, wanted, keeping.look(app, wanted, app.journal.group(group)), {})
"""


@pytest.fixture(params=["local", "remote"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with labs.own_home():
        yield sites.up(sites.Wanted(durability=request.param, owned=True), adopt=adoption.adopt)


def type_it(lab: Lab, command: str, *more: str) -> dict[str, Any]:
    """A command that was printed, given as it stands; names and reasons filled in."""
    filled = command.replace("--by NAME --reason TEXT", shlex.join(SIGNED))
    return say(lab, DONE, *shlex.split(filled)[1:], *more)


def group(lab: Lab) -> dict[str, Any]:
    (found,) = [each for each in say(lab, DONE, "status")["groups"] if each["name"] == GROUP]
    return dict(found)


def history(lab: Lab) -> list[Any]:
    """The group's events, as the log has them."""
    with sqlite3.connect(lab.estate.parent / ".continuity" / "journal.db") as log:
        rows = log.execute("SELECT kind, body FROM events WHERE stream = ? ORDER BY seq", (f"group:{GROUP}",))
        return [decode(kind, body) for kind, body in rows]


def rights(lab: Lab, site: SiteName) -> set[tuple[int, str]]:
    """(epoch, site) of every row at a site."""
    found = set()
    for database in DATABASES:
        with postgres.connect(lab, site, database) as session:
            row = session.execute("SELECT epoch, site FROM continuity.writer").fetchone()
            assert row is not None
            found.add((int(row[0]), str(row[1])))
    return found


def write(lab: Lab, site: SiteName, name: str) -> None:
    with postgres.connect(lab, site, "population") as session:
        session.execute(
            "INSERT INTO public.persons (id, value, site, epoch) SELECT %s, 'v', site, epoch FROM continuity.writer",
            (name,),
        )


def serves(lab: Lab, site: SiteName) -> None:
    """New clients, who come through the front door, are acknowledged by this site alone."""
    load = traffic.start(lab, traffic.Load(writers=2, pause_ms=20))
    ledger = ledgers.Reader([load.ledger])
    try:
        until(lambda: ledger.count(lambda told: told.outcome == "acked") >= ACKS_MIN, "acknowledged")
    finally:
        traffic.stop(lab)
    assert {told.site for told in ledger.read() if told.outcome == "acked"} == {site}


def refused_after(
    lab: Lab, meanwhile: Callable[[], object], says: str, *, at: str = "keep reserved", **how: bool
) -> None:
    """Keeping home is begun, and what was seen before is true no more when its epoch would be granted."""
    app = App(Settings(lab.estate), at_point=lambda name: name == at and meanwhile())
    wanted = keeping.Wanted(GROUP, "home", "Tester", "a false alarm", **how)
    try:
        seen = keeping.look(app, wanted, app.journal.group(GROUP))
        keeping.must_be_possible(app, wanted, seen)
        with pytest.raises(RefusedError, match=says) as refused:
            keeping.keep(app, wanted, seen, {})
    finally:
        app.close()
    assert "stays reserved as resolve-" in refused.value.message
    assert group(lab)["conflict"] == "split_brain"


def opened_by_hand(lab: Lab) -> None:
    """Somebody makes a primary of what was closed: it was theirs a moment ago."""
    (lab.site("embassy").data / "standby.signal").unlink()
    faults._unit(lab, "embassy", "postgresql", start=True)
    postgres.wait_ready(lab, "embassy").close()


def changed_meanwhile(lab: Lab) -> None:
    """Home stops, or what was closed is opened, after both were seen to be as they should."""
    refused_after(
        lab, lambda: faults._unit(lab, "home", "postgresql", start=False), "takes no writes", close=True
    )
    faults._unit(lab, "home", "postgresql", start=True)
    postgres.wait_ready(lab, "home").close()
    assert rights(lab, "home") == {(1, "home")}

    refused_after(lab, lambda: opened_by_hand(lab), "two sites would write", at="keep stopped", close=True)
    assert rights(lab, "home") == {(1, "home")}


def both_are_shown(lab: Lab) -> None:
    """Whoever has not decided yet sees what there is to decide, and changes nothing by looking."""
    before = len(history(lab))
    looked = labs.command(lab, "resolve", GROUP, "--output", "json")
    assert looked.returncode == INPUT, looked.stderr
    assert "  the log: split_brain: active embassy, epoch 2, unprotected\n" in looked.stderr
    for site, epoch in (("home", 1), ("embassy", 2)):
        shown = f"  registers-db at {site}: primary, takes writes; LSN [^;]*; land: epoch {epoch} of {site} "
        assert re.search(shown, looked.stderr), looked.stderr
    assert json.loads(looked.stdout)["instead"] == labs.offered(lab, *(
        f"continuity resolve {GROUP} --keep {site} --by NAME --reason TEXT" for site in ("embassy", "home")
    ))  # fmt: skip
    assert len(history(lab)) == before


def outage_is_told_and_ended(lab: Lab, following: list[str]) -> None:
    """Status says where names still lead, and each command helps when its turn has come, not before."""
    shown = labs.command(lab, "status").stdout
    outage = [
        "  names and routes still lead to embassy; next:",
        *(f"    {each}" for each in following),
    ]
    assert "\n".join(["registers            home_active_unprotected  epoch 3", *outage, ""]) in shown
    asked = say(lab, DONE, "status", "--live")
    assert [(each["name"], each["next"]) for each in asked["groups"] if each["names_lead_to"]] == [
        (GROUP, following)
    ]
    refused = say(lab, REFUSED, *shlex.split(following[1])[1:], "--yes")
    assert "needs name-service, which is not at home" in refused["message"], "so what it needs comes first"
    for command in following:
        assert "at home already" not in labs.command(lab, *shlex.split(command)[1:], "--dry-run").stdout
        type_it(lab, command, "--yes", "--by", "Tester")
    assert group(lab)["names_lead_to"] is None


def without_power_fence(lab: Lab) -> None:
    document = yaml.safe_load(lab.estate.read_text(encoding="utf-8"))
    document["fences"]["home"] = [f for f in document["fences"]["home"] if f["proves"] != "power-off"]
    lab.estate.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")


@pytest.mark.parametrize("lab", ["local"], indirect=True)
def test_home_is_kept_under_a_new_epoch_and_serves_again(lab: Lab) -> None:
    without_power_fence(lab)
    faults.break_it(lab, "link-cut")
    held = say(lab, HELD, "failover", "--yes", "--by", "Tester")
    name = held["run"]["run"] if "run" in held and isinstance(held["run"], dict) else held["run"]
    say(lab, DONE, "declare", "site-lost", name, "--site", "home", *SIGNED)
    say(lab, DONE, "resume", name, "--yes", "--accept-loss", "unknown")
    faults.heal(lab, "link-cut")
    assert (group(lab)["active_site"], group(lab)["epoch"]) == ("embassy", 2)
    assert rights(lab, "home") == {(1, "home")}
    for number in range(ROWS_AT_HOME):
        write(lab, "home", f"at-home-{number}")
    write(lab, "embassy", "abroad")
    say(lab, DONE, "status", "--live")
    assert group(lab)["conflict"] == "split_brain"

    both_are_shown(lab)
    keep = ("resolve", GROUP, "--keep", "home", *SIGNED, "--yes")
    refused = say(lab, REFUSED, *keep)
    assert "two sites would write" in refused["message"]
    close = f"continuity resolve {GROUP} --keep home --close --by NAME --reason TEXT"
    assert refused["instead"] == labs.offered(lab, close)
    assert rights(lab, "embassy") == {(2, "embassy")}
    assert rights(lab, "home") == {(1, "home")}

    failback = say(lab, REFUSED, "failback", "--yes")
    assert f"{GROUP} is split_brain" in failback["message"]
    changed_meanwhile(lab)
    for point in (
        "keep reserved",
        "keep stopped",
        "keep closed",
        f"keep row {min(DATABASES)}",
        "keep granted",
    ):
        done = labs.run(lab, sys.executable, "-c", DIES, str(lab.estate), GROUP, point)
        assert done.returncode == KILLED, f"{point}: {done.stderr}"
        assert group(lab)["conflict"] == "split_brain"
    resolved = type_it(lab, refused["instead"][0], "--yes")
    reserved = [event for event in history(lab) if event.KIND == "group.keep-reserved"]
    assert [event.epoch for event in reserved] == [3], "the reservation was taken up every time"
    assert (resolved["group"]["active_site"], resolved["group"]["epoch"]) == ("home", 3)
    assert rights(lab, "home") == {(3, "home")}
    assert resolved["next"] == labs.offered(
        lab,
        "continuity failback --service name-service --service state-gazette",
        "continuity failover --to home --service population-register",
        "continuity reprotect --service population-register",
    )
    outage_is_told_and_ended(lab, resolved["next"])
    assert rights(lab, "home") == rights(lab, "embassy") == {(4, "home")}
    assert group(lab)["label"] == "home_active_protected"
    serves(lab, "home")
    with postgres.connect(lab, "embassy", "population") as session:
        found = session.execute("SELECT id FROM public.persons WHERE id LIKE 'a%%' ORDER BY id").fetchall()
    assert [row[0] for row in found if "home" in row[0]] == [f"at-home-{n}" for n in range(ROWS_AT_HOME)]
    assert "abroad" not in [row[0] for row in found]
    evidence = lab.site("embassy").path / "postgresql" / "evidence"
    assert list(evidence.glob("*/data/PG_VERSION")), "the history that was not kept lies there whole"

    say(lab, DONE, "switchover", "--yes", "--by", "Tester")
    assert (group(lab)["active_site"], group(lab)["epoch"]) == ("embassy", 5)
    serves(lab, "embassy")
    assert breaks_of(GROUP, history(lab)) == []


@pytest.mark.parametrize("lab", ["local"], indirect=True)
def test_what_the_lost_side_takes_after_people_decided_is_said_and_listed(lab: Lab) -> None:
    faults.break_it(lab, "home-crash")
    told = labs.command(lab, "status").stdout
    assert "home_active_protected" in told
    assert "by the log; `continuity status --live` asks the sites" in told
    say(lab, DONE, "failover", "--yes", "--by", "Tester", "--accept-loss", "unknown")
    faults.break_it(lab, "home-returns")
    say(lab, DONE, "status", "--live")
    resolved = say(lab, DONE, "resolve", GROUP, "--keep", "embassy", *SIGNED, "--yes")
    with postgres.connect(lab, "home", "population") as session:
        session.execute("CREATE TABLE public.late (id int PRIMARY KEY)")
        session.execute("INSERT INTO public.late VALUES (7)")
        session.execute("CREATE TABLE public.bare (id int)")
    told = labs.command(lab, "status", "--live").stdout
    assert f"resolved (keep embassy); home still takes writes; next: {resolved['next'][-1]}" in told
    assert "SPLIT BRAIN" not in told
    type_it(lab, resolved["next"][-1], "--yes", "--by", "Tester")
    record = say(lab, DONE, "report")
    (listed,) = [each for each in record["came_back"] if each["step"] == "registers-db/list-h1"]
    late = [each["key"] for each in listed["diverged"] if each["table"] == "population/public.late"]
    assert [json.loads(key) for key in late] == [{"id": 7}]
    assert "not compared: registers-db/population/public.bare@home" in listed["because"]
    told = labs.command(lab, "status", "--live").stdout
    assert "still takes writes" not in told


@pytest.mark.parametrize("lab", ["local"], indirect=True)
def test_the_side_that_lost_is_closed_where_people_keep_the_holder(lab: Lab) -> None:
    faults.break_it(lab, "home-crash")
    say(lab, DONE, "failover", "--yes", "--by", "Tester", "--accept-loss", "unknown")
    faults.break_it(lab, "home-returns")
    say(lab, DONE, "status", "--live")
    say(lab, DONE, "resolve", GROUP, "--keep", "embassy", "--close", *SIGNED, "--yes")
    assert list(history(lab)[-1].evidence["closed"]) == ["h1"]
    told = labs.command(lab, "status", "--live")
    assert "registers-db at home: does not answer" in told.stdout
    assert "resolved (keep embassy); it committed" in told.stdout


@pytest.mark.parametrize("lab", ["remote"], indirect=True)
def test_a_kept_home_waits_for_nobody_any_more(lab: Lab) -> None:
    """Its commits waited for the embassy: what came back by itself took nothing, and takes writes once it is kept."""
    faults.break_it(lab, "home-crash")
    say(lab, DONE, "failover", "--yes", "--by", "Tester")
    faults.break_it(lab, "home-returns")
    say(lab, DONE, "status", "--live")
    assert group(lab)["conflict"] == "split_brain"
    faults.break_it(lab, "home-crash", "embassy")
    keep = ("resolve", GROUP, "--keep", "home", *SIGNED, "--yes")
    refused = say(lab, REFUSED, *keep)
    ways = labs.offered(lab, *(
        f"continuity resolve {GROUP} --keep home {how} --by NAME --reason TEXT" for how in ("--close", "--site-lost")
    ))  # fmt: skip
    assert refused["instead"] == ways
    assert "cannot be told" in refused["message"]
    refused_after(
        lab, lambda: faults.break_it(lab, "home-returns", "embassy"), "two sites would write", is_lost=True
    )
    assert rights(lab, "home") == {(1, "home")}
    faults.break_it(lab, "home-crash", "embassy")
    resolved = type_it(lab, ways[1], "--yes")
    assert (resolved["group"]["active_site"], resolved["group"]["epoch"]) == ("home", 3)
    write(lab, "home", "alone")
    assert rights(lab, "home") == {(3, "home")}
    (last,) = (event for event in history(lab) if event.KIND == "group.resolved")
    assert last.evidence["closed"] == {"declared_lost": ["embassy"]}
