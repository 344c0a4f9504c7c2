"""What each type of component contributes to each operation, asked of the class itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from orchestrator.components.dns import Dns, Record
from orchestrator.components.files import DRAIN_MS, REPLICATE_MS, Files, FilesAt, joined
from orchestrator.components.haproxy import HAProxy
from orchestrator.components.manual import Manual
from orchestrator.components.service import Expect, Ready, ReadyDns, Service
from orchestrator.core.model import Component, Objectives, Operation, Runbook, Stage
from orchestrator.core.move import Contribution, Move, Placed, as_moving
from orchestrator.core.plan import Draft, Gate, Role, Undo
from orchestrator.errors import InputError
from tests.unit.planning.estates import AT, synthetic

ESTATE = synthetic().estate
SECRET = "secret://file/key"
DOORS = HAProxy("doors", {"home": ("pa1", "pa2"), "embassy": ("pb1",)}, "back")


def move(operation: Operation = Operation.FAILOVER, *, reprotects: bool = False) -> Move:
    source, target = ("embassy", "home") if operation in _HOMEWARD else ("home", "embassy")
    moves, planned = operation is not Operation.REPROTECT, operation is not Operation.FAILOVER
    return Move(operation, ESTATE, "g", source, target, 4, 5 if moves else 4, planned, reprotects, moves)


_HOMEWARD = (Operation.FAILBACK, Operation.REPROTECT)


def placed(*components: Component, at: Move | None = None, modes: Sequence[str] = ("full",)) -> Placed:
    book = Runbook("svc", "o", "l", 1, Objectives(1, 1, 1), {c.name: c for c in components})
    return Placed(at or move(), replace(book, modes=tuple(modes)))  # type: ignore[arg-type]


def given(
    component: Component, *others: Component, at: Move | None = None, modes: Sequence[str] = ("full",)
) -> Contribution:
    return as_moving(component).contribute(placed(component, *others, at=at, modes=modes))


def by_key(made: Contribution) -> dict[str, Draft]:
    return {draft.key: draft for draft in made.drafts}


# --- haproxy ----------------------------------------------------------------------------------


def test_every_proxy_is_routed_and_only_those_of_the_target_must_be() -> None:
    drafts = by_key(given(DOORS))
    assert set(drafts) == {"route-embassy", "route-home-pa1", "route-home-pa2"}
    target, old = drafts["route-embassy"], drafts["route-home-pa1"]
    assert (target.up, target.best_effort, target.arguments["here"]) == (True, False, True)
    assert (old.up, old.best_effort, old.arguments["here"]) == (False, True, False)
    assert all(d.role is Role.ROUTE and Gate.GRANTED in d.gates for d in drafts.values())
    assert all((d.arguments["site"], d.arguments["epoch"]) == ("embassy", 5) for d in drafts.values())


def test_sessions_are_ended_only_where_the_old_side_may_be_dead() -> None:
    assert all(d.arguments["end_sessions"] for d in given(DOORS).drafts)
    assert not any(d.arguments["end_sessions"] for d in given(DOORS, at=move(Operation.SWITCHOVER)).drafts)


def test_a_door_that_the_target_lacks_is_named() -> None:
    with pytest.raises(InputError, match="svc/doors: nothing is declared at embassy"):
        given(replace(DOORS, proxies={"home": ("pa1",)}))


# --- dns --------------------------------------------------------------------------------------


def names(*records: Record) -> Dns:
    return Dns("name", {"home": "na", "embassy": "nb"}, SECRET, records)


def test_a_name_takes_the_front_address_of_its_proxy_at_the_target() -> None:
    drafts = by_key(given(names(Record("svc.example.", 5_000, proxy="doors")), DOORS))
    assert set(drafts) == {"update-embassy", "update-home"}
    for site, draft in (("embassy", drafts["update-embassy"]), ("home", drafts["update-home"])):
        assert draft.arguments["value"] == "10.2.0.101", "both servers send people to the target"
        assert draft.arguments["server"] == {"embassy": "nb", "home": "na"}[site]
        assert draft.best_effort is (site == "home")
        assert draft.up is (site == "embassy")
        assert (draft.arguments["expect_site"], draft.arguments["expect_epoch"]) == ("home", 4)
        assert (draft.arguments["site"], draft.arguments["epoch"], draft.arguments["zone"]) == (
            "embassy", 5, "example.",
        )  # fmt: skip


def test_names_with_one_first_label_are_steps_of_their_own() -> None:
    record = Record(
        "www.a.example.", 5_000, at={"home": ("192.0.2.1",), "embassy": ("192.0.2.2", "192.0.2.3")}
    )
    made = given(names(record, replace(record, name="www.b.example."), replace(record, type="AAAA")))
    assert len(made.drafts) == len(by_key(made)) == 6
    assert by_key(made)["update-embassy-www.b.example-a"].arguments["value"] == "192.0.2.2 192.0.2.3"


def test_a_name_without_a_value_at_the_target_is_named() -> None:
    with pytest.raises(InputError, match=r"svc/name: a.example. has no value at embassy"):
        given(names(Record("a.example.", 1, at={"home": ("192.0.2.1",)})))


# --- service ----------------------------------------------------------------------------------

HTTP = Ready("http://${host.address}:80/${to.name}", Expect(200, {"site": "${to.name}"}), within_ms=9_000)
WARM = Service("app", "unit", AT, "warm", HTTP)
COLD = replace(WARM, standby="cold")


def keys(component: Component, at: Move) -> list[str]:
    return [draft.key for draft in given(component, at=at).drafts]


def test_a_warm_program_is_waited_for_and_a_cold_one_started() -> None:
    assert keys(WARM, move()) == [
        *("inspect-b1", "start-b1", "ready-b1"),
        *("inspect-b2", "start-b2", "ready-b2"),
    ]
    warm = by_key(given(WARM))
    assert warm["start-b1"].best_effort, "a manager that is silent stops nobody whose program is ready"
    assert not warm["ready-b1"].needs, "one that runs is not waited for twice"
    assert not by_key(given(WARM, at=move(Operation.SWITCHOVER)))["start-b1"].best_effort
    assert keys(COLD, move()) == [
        *("inspect-b1", "start-b1", "ready-b1"),
        *("inspect-b2", "start-b2", "ready-b2"),
    ]
    drafts = by_key(given(COLD))
    assert Gate.GRANTED in drafts["start-b1"].gates, "it must not run here while another site serves"
    assert drafts["ready-b1"].needs == ("start-b1",)
    assert drafts["ready-b1"].up
    assert not drafts["start-b1"].up


def test_a_cold_program_is_stopped_where_it_no_longer_serves() -> None:
    assert keys(COLD, move(Operation.SWITCHOVER))[-2:] == ["stop-a1", "stop-a2"]
    assert keys(COLD, move(Operation.REPROTECT)) == ["stop-a1", "stop-a2"]
    assert "stop-a1" not in keys(COLD, move()), "what is lost is not waited for"


def test_a_warm_program_waits_again_where_the_group_was_left() -> None:
    assert keys(WARM, move(Operation.REPROTECT)) == ["start-a1", "start-a2"]
    for reprotects in (True, False):
        found = keys(WARM, move(Operation.FAILBACK, reprotects=reprotects))
        moves = [key for key in found if not key.startswith("inspect-")]
        assert moves == ["start-a1", "ready-a1", "start-a2", "ready-a2"], (
            "a planned move makes sure that it runs while the other side still serves"
        )
        assert ("inspect-a1" in found) is not reprotects, "what was left behind need not run there yet"


def test_a_warm_program_is_looked_at_before_the_order_and_stops_nobody() -> None:
    draft = by_key(given(WARM))["inspect-b1"]
    assert (draft.action, draft.stage, draft.gates, draft.needs) == (
        "service.inspect",
        Stage.PREFLIGHT,
        (),
        (),
    )
    assert "standby" not in draft.arguments


def test_of_a_cold_program_the_manager_is_asked_before_the_order_whether_it_knows_it() -> None:
    draft = by_key(given(COLD))["inspect-b1"]
    assert (draft.action, draft.stage, draft.gates, draft.needs) == (
        "service.inspect",
        Stage.PREFLIGHT,
        (),
        (),
    )
    assert draft.arguments["standby"] == "cold"
    assert "inspect-a1" not in keys(COLD, move(Operation.REPROTECT)), "nothing is started there"


def test_readiness_is_asked_of_each_host_with_its_own_values() -> None:
    draft = by_key(given(WARM))["ready-b2"]
    assert draft.arguments["url"] == "http://10.2.0.2:80/embassy"
    assert draft.arguments["json"] == {"site": "embassy"}
    assert draft.timeout_ms > draft.arguments["within_ms"] == 9_000, (
        "the action itself says that it was too slow"
    )


def test_a_program_without_readiness_says_nothing_when_warm_and_is_up_once_started_when_cold() -> None:
    starts = [d for d in given(replace(WARM, ready=None)).drafts if d.stage is not Stage.PREFLIGHT]
    assert [(d.key, d.up) for d in starts] == [("start-b1", False), ("start-b2", False)]
    starts = [d for d in given(replace(COLD, ready=None)).drafts if d.stage is not Stage.PREFLIGHT]
    assert [(d.key, d.up) for d in starts] == [("start-b1", True), ("start-b2", True)]


def test_a_name_server_answers_for_itself() -> None:
    asked = Ready(dns=ReadyDns("example.", "ns.example.", {"home": "na", "embassy": "nb"}, "NS"))
    first = by_key(given(replace(WARM, ready=asked)))["answers-b1"]
    assert (first.action, first.arguments["servers"], first.up) == ("dns.query-check", ["nb"], True)


# --- manual -----------------------------------------------------------------------------------


def test_people_are_asked_in_the_order_of_stages() -> None:
    prompts = {Stage.CUTOVER: "tell ${to.name}", Stage.FREEZE: "stop", Stage.START: "go"}
    made = given(Manual("desk", prompts))
    assert [draft.key for draft in made.drafts] == ["confirm-freeze", "confirm-start", "confirm-cutover"]
    freeze, start, cutover = made.drafts
    assert (freeze.needs, start.needs, cutover.needs) == ((), ("confirm-freeze",), ("confirm-start",))
    assert cutover.title == "tell embassy"
    assert Gate.GRANTED not in freeze.gates
    assert Gate.GRANTED in cutover.gates
    assert [draft.up for draft in made.drafts] == [False, True, True]
    assert not given(Manual("desk", prompts), at=move(Operation.REPROTECT)).drafts


def test_nobody_is_asked_in_preflight() -> None:
    with pytest.raises(InputError, match="svc/desk: nobody is asked in preflight"):
        given(Manual("desk", {Stage.PREFLIGHT: "ready?"}))


# --- files ------------------------------------------------------------------------------------

FILES = Files(
    "docs",
    {
        site: FilesAt(hosts[0], "/srv/${site.name}/docs", "/srv/published", "copier")
        for site, hosts in AT.items()
    },
    "/etc/key.pub",
    manifest="../MANIFEST",
)


def test_documents_are_published_only_when_both_replicators_are_stopped_and_all_is_verified() -> None:
    made = given(FILES)
    drafts = by_key(made)
    looks = ["inspect-b1", "inspect-a1"]
    assert list(drafts) == [*looks, "stop-home", "stop-embassy", "verify", "epoch", "publish"]
    assert made.is_stateful
    assert made.fence_hosts == ("a1",)
    assert drafts["stop-home"].fences == ("a1",)
    closes = {name: drafts["stop-home"].arguments.get(name) for name in ("published", "epoch", "site")}
    assert closes == {"published": "/srv/published", "epoch": 5, "site": "embassy"}, "no new documents there"
    assert "published" not in drafts["stop-embassy"].arguments, "what is shown at the target stays as it is"
    assert drafts["verify"].needs == ("stop-embassy",)
    assert drafts["epoch"].needs == ("verify",)
    for key in ("epoch", "publish"):
        assert {Gate.FENCED, Gate.VERIFIED} <= set(drafts[key].gates)
    assert Gate.GRANTED in drafts["publish"].gates
    assert drafts["publish"].up
    assert drafts["verify"].arguments["directory"] == "/srv/embassy/docs"


MEASURED = replace(FILES, at={site: replace(place, as_of="/srv/as-of") for site, place in FILES.at.items()})


def test_a_loss_of_documents_is_measured_after_the_fence_and_accepted_before_their_epoch() -> None:
    drafts = by_key(given(MEASURED))
    measure = drafts["measure"]
    assert (measure.role, measure.action) == (Role.LOSS, "files.measure")
    assert measure.arguments == {"host": "b1", "as_of": "/srv/as-of"}
    assert Gate.FENCED in measure.gates
    assert drafts["epoch"].needs == ("verify", "measure")
    assert Gate.LOSS_ACCEPTED in drafts["epoch"].gates
    planned = by_key(given(MEASURED, at=replace(move(), is_planned=True)))
    assert "measure" not in planned, "both sites had an equal manifest: nothing is lost"
    with_database = by_key(given(MEASURED, at=replace(move(), databases={"main": ("d",)})))
    assert with_database["publish"].needs == ("verify", "measure")
    assert not any(Gate.LOSS_ACCEPTED in draft.gates for draft in with_database.values())


def test_in_a_group_with_a_database_the_epoch_is_the_clusters() -> None:
    at = replace(move(), databases={"main": ("d",)})
    drafts = by_key(given(FILES, at=at))
    assert "epoch" not in drafts
    assert drafts["publish"].needs == ("verify",)


def test_read_only_comes_first_where_the_owner_says_so() -> None:
    drafts = by_key(given(FILES, modes=("read-only", "full")))
    assert (drafts["publish"].arguments["mode"], drafts["widen"].arguments["mode"]) == ("read-only", "full")
    assert drafts["widen"].stage is Stage.WIDEN
    alone = by_key(given(FILES, modes=("read-only",)))
    assert "widen" not in alone, "read-only alone is a legal outcome"
    assert alone["publish"].arguments["mode"] == "read-only"


def test_a_planned_move_drains_first_and_replicates_back_after() -> None:
    drafts = by_key(given(FILES, at=move(Operation.SWITCHOVER)))
    assert list(drafts) == [
        "inspect-b1",
        "inspect-a1",
        "freeze",
        "drain",
        "stop-home",
        "stop-embassy",
        "verify",
        "epoch",
        "publish",
        "protect",
    ]
    assert drafts["drain"].needs == ("freeze",)
    assert drafts["stop-home"].needs == drafts["stop-embassy"].needs == ("drain",)
    assert (drafts["drain"].arguments["host"], drafts["drain"].arguments["source_host"]) == ("b1", "a1")
    assert (drafts["protect"].arguments["host"], drafts["protect"].arguments["source_host"]) == ("a1", "b1")
    assert drafts["drain"].arguments["manifest"] == "/srv/embassy/MANIFEST"
    assert drafts["drain"].timeout_ms == drafts["drain"].arguments["within_ms"] == DRAIN_MS
    assert drafts["protect"].timeout_ms == drafts["protect"].arguments["within_ms"] == REPLICATE_MS


def test_a_reprotect_closes_lists_and_then_replicates_the_other_way_and_moves_nothing() -> None:
    made = given(FILES, at=move(Operation.REPROTECT, reprotects=True))
    drafts = by_key(made)
    assert list(drafts) == ["close-home", "hold-embassy", "keep", "reprotect"]
    close, hold, keep, draft = drafts.values()
    assert (close.role, hold.role, keep.role, draft.role) == (
        Role.CLOSE, Role.CLOSE, Role.REJOIN, Role.PROTECT,
    )  # fmt: skip
    assert (keep.needs, draft.needs) == (("close-home", "hold-embassy"), ("keep",))
    closed = {name: close.arguments[name] for name in ("host", "epoch", "site", "follows")}
    assert closed == {"host": "a1", "epoch": 4, "site": "embassy", "follows": True}
    assert {d.undo for d in (close, hold)} == {Undo.NONE_NEEDED}, "it has no right to publish, whatever comes"
    assert (keep.arguments["host"], keep.arguments["source_host"]) == ("a1", "b1")
    assert "resolved" not in keep.arguments
    assert (draft.arguments["host"], draft.arguments["source_host"]) == ("a1", "b1")
    assert made.fence_hosts == ()


def test_what_people_resolved_is_kept_aside_and_not_refused_again() -> None:
    resolved = replace(move(Operation.REPROTECT, reprotects=True), is_resolved=True)
    assert by_key(given(FILES, at=resolved))["keep"].arguments["resolved"] is True


@pytest.mark.parametrize(
    ("directory", "name", "path"),
    [
        ("/a/b", "M", "/a/b/M"),
        ("/a/b/", "../M", "/a/M"),
        ("/a", "/x/M", "/x/M"),
        ("/a/b", "./c/../M", "/a/b/M"),
    ],
)
def test_a_manifest_may_stand_beside_the_directory(directory: str, name: str, path: str) -> None:
    assert joined(directory, name) == path


def test_documents_must_stand_at_both_sides() -> None:
    with pytest.raises(InputError, match="svc/docs: nothing is declared at home"):
        given(replace(FILES, at={"embassy": FILES.at["embassy"]}))
