"""Small plans and runs for tests of the core: no catalog, no component, no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from orchestrator.core.events import RunCreated
from orchestrator.core.inputs import At, Authorise, DriverStarted
from orchestrator.core.model import Host, Operation, ProofKind, Site, Stage
from orchestrator.core.plan import (
    MANUAL,
    Bound,
    Gate,
    GroupMove,
    Parts,
    Plan,
    PlanLimits,
    Retry,
    Role,
    Step,
    Undo,
)

SECOND_NS = 1_000_000_000
START_NS = 1_800_000_000 * SECOND_NS
BOOT_NS = 1_000 * SECOND_NS

AUTHORISED = (Gate.AUTHORISED,)
FENCED = (*AUTHORISED, Gate.FENCED)
PROMOTES = (*FENCED, Gate.VERIFIED, Gate.LOSS_ACCEPTED)
OPENS = (*AUTHORISED, Gate.GRANTED)


def at(seconds: float, boot_ns: int = BOOT_NS) -> At:
    """A moment ``seconds`` after the tests' beginning of time, on both clocks."""
    ns = int(seconds * SECOND_NS)
    return At(START_NS + ns, boot_ns + ns)


def a_step(
    step_id: str,
    role: Role = Role.ORDINARY,
    *,
    stage: Stage = Stage.START,
    needs: Sequence[str] = (),
    gates: Sequence[Gate] = AUTHORISED,
    group: str = "g",
    mutates: bool = True,
    idempotent: bool = False,
    undo: Undo = Undo.NONE_NEEDED,
    best_effort: bool = False,
    attempts: int = 1,
    fences: Sequence[str] = (),
    proves: ProofKind | None = None,
    kind: str = "fake.act",
) -> Step:
    bound = Bound(kind, 1, {}, (f"do {step_id}",), (), undo, (), idempotent, mutates)
    unit = step_id.rsplit("/", 1)[0]
    return Step(
        step_id, unit, group, "", stage, role, step_id, "because", bound, 10_000, tuple(needs),
        tuple(gates), False, best_effort, Retry(attempts), tuple(fences), proves,
    )  # fmt: skip


def a_plan(
    *steps: Step,
    fence_hosts: Mapping[str, Sequence[str]] | None = None,
    operation: Operation = Operation.FAILOVER,
    source: str = "home",
    target: str = "embassy",
    parallel_steps: int = 32,
) -> Plan:
    """``fence_hosts``: unit → the old side's members. A group has the units of its own steps."""
    hosts = {unit: tuple(names) for unit, names in (fence_hosts or {}).items()}
    groups = {}
    for name in dict.fromkeys(step.group for step in steps):
        units = {step.unit for step in steps if step.group == name}
        mine = {unit: names for unit, names in hosts.items() if unit in units}
        groups[name] = GroupMove(name, (), source, 1, 2, tuple(mine), mine)
    parts = Parts(
        sites={"home": Site("home", "home"), "embassy": Site("embassy", "embassy")},
        hosts={h: Host(h, source, "127.0.0.1") for names in hosts.values() for h in names},
    )
    limits = PlanLimits(parallel_steps=parallel_steps)
    return Plan(operation, source, target, groups, {}, {s.id: s for s in steps}, parts, limits, "d" * 64)


def inspect(unit: str, group: str = "g") -> Step:
    return a_step(f"{unit}/inspect", Role.EVIDENCE, stage=Stage.PREFLIGHT, gates=(), mutates=False,
                  idempotent=True, group=group, attempts=2)  # fmt: skip


def stop(unit: str, host: str, group: str = "g", needs: Sequence[str] = ()) -> Step:
    return a_step(f"{unit}/stop", Role.FENCE, stage=Stage.FENCE, idempotent=True, undo=Undo.UNDO, needs=needs,
                  fences=(host,), proves=ProofKind.DEMOTED, group=group)  # fmt: skip


def power(hosts: Sequence[str], group: str = "g", *, undo: Undo = Undo.POINT_OF_NO_RETURN) -> Step:
    return a_step("site/power", Role.FENCE, stage=Stage.FENCE, idempotent=True, fences=hosts, undo=undo,
                  proves=ProofKind.POWER_OFF, group=group)  # fmt: skip


def promotion(
    unit: str, group: str = "g", *, after: Sequence[str] = (), with_loss: bool = True
) -> list[Step]:
    """Close, verify, measure, promote, epoch, open of one cluster."""
    needs = [f"{unit}/close", f"{unit}/verify", *([f"{unit}/measure"] if with_loss else [])]
    gates = PROMOTES if with_loss else PROMOTES[:-1]
    measure = a_step(f"{unit}/measure", Role.LOSS, stage=Stage.VERIFY_DATA, mutates=False, idempotent=True,
                     gates=FENCED, group=group)  # fmt: skip
    return [
        a_step(f"{unit}/close", Role.CLOSE, stage=Stage.FENCE, idempotent=True, undo=Undo.UNDO, group=group),
        a_step(f"{unit}/verify", Role.VERIFY, stage=Stage.VERIFY_DATA, mutates=False, idempotent=True, group=group),
        *([measure] if with_loss else []),
        a_step(f"{unit}/promote", Role.PROMOTE, stage=Stage.PROMOTE, undo=Undo.POINT_OF_NO_RETURN,
               needs=(*needs, *after), gates=gates, group=group),
        a_step(f"{unit}/epoch", Role.EPOCH, stage=Stage.PROMOTE, needs=(f"{unit}/promote",), idempotent=True,
               undo=Undo.POINT_OF_NO_RETURN, group=group),
        a_step(f"{unit}/open", Role.OPEN, stage=Stage.PROMOTE, needs=(f"{unit}/epoch",), idempotent=True,
               undo=Undo.POINT_OF_NO_RETURN, gates=OPENS, group=group),
    ]  # fmt: skip


def route(name: str, needs: Sequence[str], group: str = "g", *, best_effort: bool = False) -> Step:
    return a_step(name, Role.ROUTE, stage=Stage.CUTOVER, needs=needs, idempotent=True, gates=OPENS, attempts=3,
                  group=group, best_effort=best_effort)  # fmt: skip


def a_failover() -> Plan:
    """One database, two ways to fence it, one route: the shape of the main job."""
    return a_plan(
        inspect("db"),
        stop("db", "h1"),
        power(("h1",)),
        *promotion("db"),
        route("svc/front/route", ("db/open",)),
        fence_hosts={"db": ("h1",)},
    )


def a_patient_failover() -> Plan:
    """The same; the database's own fence is tried again by itself."""
    plan = a_failover()
    fence = plan.steps["db/stop"]
    return replace(plan, steps={**plan.steps, fence.id: replace(fence, retry=Retry(3))})


def a_mixed_failover() -> Plan:
    """A database and documents in one group: nothing of the documents is published before both losses are accepted."""
    plan = a_failover()
    return a_plan(
        *plan.steps.values(),
        a_step("docs/stop", Role.FENCE, stage=Stage.FENCE, idempotent=True, undo=Undo.UNDO, fences=("h2",),
               proves=ProofKind.DEMOTED),
        a_step("docs/verify", Role.VERIFY, stage=Stage.VERIFY_DATA, mutates=False, idempotent=True),
        a_step("docs/measure", Role.LOSS, stage=Stage.VERIFY_DATA, mutates=False, idempotent=True, gates=FENCED),
        a_step("docs/publish", Role.OPEN, stage=Stage.PROMOTE, needs=("docs/verify", "docs/measure"),
               gates=(*AUTHORISED, Gate.VERIFIED, Gate.GRANTED), undo=Undo.POINT_OF_NO_RETURN),
        fence_hosts={"db": ("h1",), "docs": ("h2",)},
    )  # fmt: skip


def a_wide_failover() -> Plan:
    """Two groups on two machines of one site with a fence of the site that both share, beside a freeze, a
    group of documents (nothing is promoted: its epoch decides), people's own step, and debts."""
    freeze = a_step(
        "db1/freeze", Role.FREEZE, stage=Stage.FREEZE, undo=Undo.UNDO, best_effort=True, group="g1"
    )
    documents = "docs/files"
    return a_plan(
        inspect("db1", "g1"),
        freeze,
        stop("db1", "h1", "g1"),
        stop("db2", "h2", "g2"),
        power(("h1", "h2"), "g1", undo=Undo.UNDO),
        *promotion("db1", "g1"),
        *promotion("db2", "g2"),
        a_step(f"{documents}/stop", Role.FENCE, stage=Stage.FENCE, idempotent=True, undo=Undo.UNDO, fences=("h2",),
               proves=ProofKind.DEMOTED, group="g3"),
        a_step(f"{documents}/verify", Role.VERIFY, stage=Stage.VERIFY_DATA, mutates=False, group="g3"),
        a_step(f"{documents}/epoch", Role.EPOCH, stage=Stage.PROMOTE, needs=(f"{documents}/verify",),
               gates=PROMOTES[:-1], mutates=False, idempotent=True, group="g3"),
        a_step(f"{documents}/publish", Role.OPEN, stage=Stage.PROMOTE, needs=(f"{documents}/epoch",), gates=OPENS,
               undo=Undo.POINT_OF_NO_RETURN, group="g3"),
        route("front/embassy", ("db1/open",), "g1"),
        route("front/home", ("db1/open",), "g1", best_effort=True),
        a_step("svc/call", kind=MANUAL, needs=("db2/open",), gates=OPENS, group="g2"),
        a_step("svc/own", needs=("svc/call",), gates=OPENS, undo=Undo.POINT_OF_NO_RETURN, group="g2"),
        a_step("db1/checkpoint", stage=Stage.COMMIT, needs=("db1/open",), gates=OPENS, group="g1"),
        fence_hosts={"db1": ("h1",), "db2": ("h2",), documents: ("h2",)},
    )  # fmt: skip


def a_failback() -> Plan:
    """Home follows the embassy first, people say when, then a planned switch and the old side follows."""
    return a_plan(
        inspect("db"),
        a_step("db/rejoin", Role.REJOIN, stage=Stage.AUTHORISE, undo=Undo.POINT_OF_NO_RETURN),
        a_step("db/reprotect", Role.PROTECT, stage=Stage.AUTHORISE, needs=("db/rejoin",), idempotent=True),
        a_step("g/go-home", kind=MANUAL, stage=Stage.AUTHORISE, needs=("db/reprotect",)),
        a_step("db/freeze", Role.FREEZE, stage=Stage.FREEZE, needs=("g/go-home",), undo=Undo.UNDO),
        stop("db", "e1", needs=("db/freeze",)),
        *promotion("db", after=("db/freeze",), with_loss=False),
        a_step("db/follow", Role.REJOIN, stage=Stage.COMMIT, needs=("db/open",), gates=OPENS, idempotent=True),
        a_step("db/protect", Role.PROTECT, stage=Stage.COMMIT, needs=("db/follow",), idempotent=True),
        a_step("svc/stop-old", stage=Stage.COMMIT, needs=("db/open",), best_effort=True),
        operation=Operation.FAILBACK, source="embassy", target="home", fence_hosts={"db": ("e1",)},
    )  # fmt: skip


def four_services() -> Plan:
    """A step each, with an undo, that may be tried again by itself."""
    return a_plan(
        *(
            a_step(f"{name}/start", idempotent=True, undo=Undo.UNDO, attempts=3)
            for name in ("a", "b", "c", "d")
        )
    )


def a_big_failover(services: int) -> Plan:
    """Twenty steps for each of many services, every one a group of its own."""
    steps: list[Step] = []
    hosts: dict[str, tuple[str, ...]] = {}
    for number in range(services):
        group = f"g{number:04}"
        unit, host = f"{group}/db", f"h{number:04}"
        hosts[unit] = (host,)
        steps += [inspect(unit, group), stop(unit, host, group), *promotion(unit, group)]
        last = f"{unit}/open"
        for place in range(12):
            last = f"{group}/part-{place // 4}/{place}"
            steps.append(route(last, (steps[-1].id,), group))
    return a_plan(*steps, fence_hosts=hosts)


def created(run: str = "r1") -> RunCreated:
    return RunCreated(at(0), run, "failover", "d" * 64, "ann", "laptop", "test")


def driver(seconds: float, incarnation: str = "i1", boot_ns: int = BOOT_NS) -> DriverStarted:
    return DriverStarted(at(seconds, boot_ns), incarnation, 1, "boot", "laptop", "0")


def authorise(seconds: float, accepted_ms: int = 1_000) -> Authorise:
    return Authorise(at(seconds), "ann", "d" * 64, accepted_ms)
