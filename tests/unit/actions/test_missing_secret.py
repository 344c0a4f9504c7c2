"""A secret that is not there is said as what it is: no site is called silent for it, no order is in doubt."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.actions.dns import Update, UpdateParams
from orchestrator.actions.files_replicator import (
    StartReplicator,
    StartReplicatorParams,
    StopReplicator,
    StopReplicatorParams,
)
from orchestrator.actions.http import Request, RequestParams
from orchestrator.actions.postgresql_canary import Canary, CanaryParams
from orchestrator.actions.postgresql_close import Close, CloseParams, Open, OpenParams
from orchestrator.actions.postgresql_follow import Follow, FollowParams
from orchestrator.actions.postgresql_freeze import Checkpoint, CheckpointParams, Freeze, FreezeParams
from orchestrator.actions.postgresql_hold_log import HoldLog, HoldLogParams
from orchestrator.actions.postgresql_inspect import Inspect, InspectParams
from orchestrator.actions.postgresql_promote import Epoch, EpochParams, Promote, PromoteParams
from orchestrator.actions.postgresql_protect import Protect, ProtectParams
from orchestrator.actions.postgresql_rejoin import Rejoin, RejoinParams
from orchestrator.actions.postgresql_stop import Stop, StopParams
from orchestrator.actions.service import Start, UnitParams
from orchestrator.core.model import Cluster, Credentials, Host, Manager, NameServer, Operation
from orchestrator.core.outcomes import Failed, FindingKind
from orchestrator.core.plan import Parts
from orchestrator.engine.dispatch import guarded
from orchestrator.errors import InputError
from tests.action_context import context

REFERENCE = "secret://file/pg-control"
SOMEONE = Credentials("someone", REFERENCE)
MANAGER = Manager(url="http://127.0.0.1:1", user="someone", password=REFERENCE)
PARTS = Parts(
    hosts={"h1": Host("h1", "home", "127.0.0.1", manager=MANAGER), "e1": Host("e1", "embassy", "127.0.0.1", manager=MANAGER)},
    name_servers={"ns": NameServer("ns", "embassy", "127.0.0.1", 1)},
    clusters={
        "main": Cluster(
            "main", {"home": ("h1",), "embassy": ("e1",)}, "/nonexistent/data", "/nonexistent/config",
            "/nonexistent/bin", "postgresql",
            {"control": SOMEONE, "replication": SOMEONE, "rewind": SOMEONE},
        )
    },
)  # fmt: skip


class NoSecrets:
    def value(self, reference: str) -> str:
        raise InputError(f"{reference}: No such file or directory")


def test_an_inspection_names_the_secret_and_calls_no_site_silent() -> None:
    broken: list[Any] = []
    before, threading.excepthook = threading.excepthook, broken.append
    try:
        asked = context(
            InspectParams("main", "e1", ("population",), "home", "embassy"),
            PARTS,
            operation=Operation.FAILBACK,
        )
        asked = replace(asked, secrets=NoSecrets())
        outcome, finding = Inspect().execute(asked), Inspect().check(asked)
    finally:
        threading.excepthook = before
    assert isinstance(outcome, Failed), outcome
    assert REFERENCE in outcome.message
    assert "no member" not in outcome.message
    assert not outcome.retryable
    assert (finding.kind, REFERENCE in finding.reason) == (FindingKind.NOT_DONE, True)
    assert not broken, "a traceback in a thread"


def test_a_request_without_its_password_was_surely_not_sent() -> None:
    params = RequestParams("POST", "http://127.0.0.1:1/off", user="fence", password=REFERENCE)
    outcome = Request().execute(replace(context(params, PARTS), secrets=NoSecrets()))
    assert isinstance(outcome, Failed), outcome
    assert REFERENCE in outcome.message


DATABASES = ("population",)
ORDERS: list[tuple[Any, Any]] = [
    (Update(), UpdateParams("ns", "a.", "www.a.", "A", 5, "127.0.0.1", "k", "hmac-sha256", REFERENCE, "embassy", 2, "home", 1)),
    (StopReplicator(), StopReplicatorParams("h1", "replicator")),
    (StartReplicator(), StartReplicatorParams("h1", "replicator", "e1")),
    (Canary(), CanaryParams("main", "e1", "population")),
    (Close(), CloseParams("main", "e1")),
    (Open(), OpenParams("main", "e1")),
    (Follow(), FollowParams("main", "h1", "e1")),
    (Checkpoint(), CheckpointParams("main", "e1")),
    (Freeze(), FreezeParams("main", "h1", DATABASES)),
    (HoldLog(), HoldLogParams("main", "e1")),
    (Promote(), PromoteParams("main", "e1", DATABASES, "home", 1)),
    (Epoch(), EpochParams("main", "e1", DATABASES, 2, "embassy", "home", 1)),
    (Protect(), ProtectParams("main", "e1", "h1", DATABASES)),
    (Rejoin(), RejoinParams("main", "h1", "e1", DATABASES)),
    (Stop(), StopParams("main", "h1")),
    (Start(), UnitParams("h1", "program")),
]  # fmt: skip


@pytest.mark.parametrize(("action", "params"), ORDERS, ids=[action.kind for action, _ in ORDERS])
def test_an_order_without_its_secret_was_surely_not_given(action: Any, params: Any) -> None:
    """Nothing was told, so nothing was sent: a failure with that very message, and no doubt about it."""
    told: list[str] = []
    asked = replace(context(params, PARTS, recorded=told), secrets=NoSecrets())
    outcome = guarded(lambda: action.execute(asked), True, lambda: bool(told))
    assert isinstance(outcome, Failed), outcome
    assert REFERENCE in outcome.message
    assert "InputError" not in outcome.message
    assert (told, outcome.retryable) == ([], False)
