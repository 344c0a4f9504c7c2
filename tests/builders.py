"""Small plans and runs for tests of the core: no catalog, no component, no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.core.events import RunCreated
from orchestrator.core.inputs import At, Authorise, DriverStarted
from orchestrator.core.model import Host, Operation, ProofKind, Site, Stage
from orchestrator.core.plan import (
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


def at(seconds: float) -> At:
    """A moment ``seconds`` after the tests' beginning of time, on both clocks."""
    ns = int(seconds * SECOND_NS)
    return At(START_NS + ns, 1_000 * SECOND_NS + ns)


def a_step(
    step_id: str,
    role: Role = Role.ORDINARY,
    *,
    stage: Stage = Stage.START,
    needs: Sequence[str] = (),
    gates: Sequence[Gate] = (Gate.AUTHORISED,),
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


def a_plan(*steps: Step, fence_hosts: Mapping[str, Sequence[str]] | None = None) -> Plan:
    groups: dict[str, GroupMove] = {}
    hosts = {unit: tuple(names) for unit, names in (fence_hosts or {}).items()}
    for step in steps:
        groups.setdefault(step.group, GroupMove(step.group, (), "home", 1, 2, tuple(hosts), hosts))
    parts = Parts(
        sites={"home": Site("home", "home"), "embassy": Site("embassy", "embassy")},
        hosts={h: Host(h, "home", "127.0.0.1") for names in hosts.values() for h in names},
    )
    return Plan(
        Operation.FAILOVER, "home", "embassy", groups, {}, {s.id: s for s in steps}, parts,
        PlanLimits(), "d" * 64,
    )  # fmt: skip


def a_failover() -> Plan:
    """One database, two ways to fence it, one route: the shape of the main job."""
    db = "db"
    return a_plan(
        a_step("db/inspect", Role.EVIDENCE, stage=Stage.PREFLIGHT, gates=(), mutates=False, idempotent=True),
        a_step("db/stop", Role.FENCE, stage=Stage.FENCE, idempotent=True, undo=Undo.UNDO, fences=("h1",),
               proves=ProofKind.DEMOTED),
        a_step("site/power", Role.FENCE, stage=Stage.FENCE, idempotent=True, fences=("h1",),
               undo=Undo.POINT_OF_NO_RETURN, proves=ProofKind.POWER_OFF),
        a_step("db/close", Role.CLOSE, stage=Stage.FENCE, idempotent=True, undo=Undo.UNDO),
        a_step("db/verify", Role.VERIFY, stage=Stage.VERIFY_DATA, mutates=False, idempotent=True),
        a_step("db/measure", Role.LOSS, stage=Stage.VERIFY_DATA, mutates=False, idempotent=True,
               gates=(Gate.AUTHORISED, Gate.FENCED)),
        a_step("db/promote", Role.PROMOTE, stage=Stage.PROMOTE, undo=Undo.POINT_OF_NO_RETURN,
               needs=("db/close", "db/verify", "db/measure"),
               gates=(Gate.AUTHORISED, Gate.FENCED, Gate.VERIFIED, Gate.LOSS_ACCEPTED)),
        a_step("db/epoch", Role.EPOCH, stage=Stage.PROMOTE, needs=("db/promote",), idempotent=True,
               undo=Undo.POINT_OF_NO_RETURN),
        a_step("db/open", Role.OPEN, stage=Stage.PROMOTE, needs=("db/epoch",), idempotent=True,
               gates=(Gate.AUTHORISED, Gate.GRANTED)),
        a_step("svc/front/route", Role.ROUTE, stage=Stage.CUTOVER, needs=("db/open",), idempotent=True,
               gates=(Gate.AUTHORISED, Gate.GRANTED), attempts=3),
        fence_hosts={db: ("h1",)},
    )  # fmt: skip


def created(run: str = "r1") -> RunCreated:
    return RunCreated(at(0), run, "failover", "d" * 64, "ann", "laptop", "test")


def driver(seconds: float, incarnation: str = "i1") -> DriverStarted:
    return DriverStarted(at(seconds), incarnation, 1, "boot", "laptop", "0")


def authorise(seconds: float, accepted_ms: int = 1_000) -> Authorise:
    return Authorise(at(seconds), "ann", "d" * 64, accepted_ms)
