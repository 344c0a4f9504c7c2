"""A fence's order proves nothing by itself: only what is read back afterwards does."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from orchestrator.actions import ACTIONS
from orchestrator.core.plan import Parts
from orchestrator.core.values import Json
from orchestrator.errors import InputError
from orchestrator.planning.bind import TableCatalog

ORDER: Mapping[str, Json] = {"method": "GET", "url": "http://192.0.2.9/Systems/home"}
COMMAND: Mapping[str, Json] = {"argv": ["true"]}
LOOK: Mapping[str, Json] = {"url": "http://192.0.2.9/Systems/home"}
PROOFS = ("power-off", "network-cut", "lease-expired")


def bind(action: str, arguments: Mapping[str, Json]) -> None:
    TableCatalog(ACTIONS).bind(action, arguments, Parts())


@pytest.mark.parametrize("proof", PROOFS)
@pytest.mark.parametrize(
    ("action", "arguments"),
    [
        ("http.request", ORDER),
        ("http.request", {**ORDER, "check": dict(LOOK)}),
        ("command.run", COMMAND),
        ("command.run", {**COMMAND, "check": {"argv": ["true"]}}),
    ],
)
def test_an_order_without_a_read_back_is_no_proof(
    action: str, arguments: Mapping[str, Json], proof: str
) -> None:
    bind(action, arguments)  # as an ordinary step it is allowed
    with pytest.raises(InputError, match=f"{action}: it proves {proof} only by a read-back"):
        bind(action, {**arguments, "proves": proof})


def test_a_read_back_that_expects_something_is_a_proof() -> None:
    bind("http.request", {**ORDER, "proves": "power-off", "check": {**LOOK, "json": {"PowerState": "Off"}}})
    bind(
        "command.run",
        {**COMMAND, "proves": "power-off", "check": {"argv": ["bmc", "state"], "expect": "off"}},
    )
