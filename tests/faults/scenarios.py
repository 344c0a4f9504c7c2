"""What can befall home in a round, and what people do about it."""

from __future__ import annotations

from dataclasses import dataclass

PLANTED_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """``fault``: the lab's name for it. ``fences``: what the estate has against home beside asking it to stop:
    power, nothing (people must declare it lost), or a lie (the proof looks at the wrong machine).
    ``accepts``: the loss accepted with the order; "" is what --yes accepts, the RPO. ``returns``: home is back, unasked,
    while the embassy serves. ``planted``: replication stood still so long before the fault."""

    name: str
    fault: str
    fences: str = "power"
    returns: bool = False
    planted_seconds: float = 0.0
    accepts: str = ""


CRASH = Scenario("home crash", "home-crash")
HANG = Scenario("home hang", "home-hang")
CUT = Scenario("link cut", "link-cut")
DECLARED = Scenario("link cut, declared lost", "link-cut", fences="nothing", returns=True)
RETURNS = Scenario("home crash, returns", "home-crash", returns=True)
PLANTED = Scenario("3 s not replicated, crash", "home-crash", planted_seconds=PLANTED_SECONDS)
LITTLE = Scenario(
    "3 s not replicated, a slow proof, 5 s accepted",
    "home-crash",
    planted_seconds=PLANTED_SECONDS,
    accepts="5s",
)
LIE = Scenario("link cut, fence is a lie", "link-cut", fences="lie", returns=True)
