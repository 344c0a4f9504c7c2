"""A secret that is not there is said as what it is: no site is called silent for it, no order is in doubt."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

from orchestrator.actions.http import Request, RequestParams
from orchestrator.actions.postgresql_inspect import Inspect, InspectParams
from orchestrator.core.model import Cluster, Credentials, Host, Operation
from orchestrator.core.outcomes import Failed, FindingKind
from orchestrator.core.plan import Parts
from orchestrator.errors import InputError
from tests.action_context import context

REFERENCE = "secret://file/pg-control"
SOMEONE = Credentials("someone", REFERENCE)
PARTS = Parts(
    hosts={"h1": Host("h1", "home", "127.0.0.1"), "e1": Host("e1", "embassy", "127.0.0.1")},
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
