"""Since when a side is proven unable to write: the moment up to which a loss is counted."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.core import guards
from orchestrator.core.model import ProofKind
from orchestrator.core.plan import Role
from orchestrator.core.run import with_run
from tests.builders import a_plan, a_step, at, stop
from tests.unit.core.test_guards import GONE, PROMOTE, a_run, succeeded


def test_the_earliest_proof_of_a_host_and_the_latest_of_the_hosts_count() -> None:
    plan = a_plan(
        stop("db", "h1"),
        replace(stop("db", "h2"), id="db/stop-2"),
        a_step("site/power", Role.FENCE, fences=("h1", "h2"), proves=ProofKind.POWER_OFF),
        a_step(PROMOTE, Role.PROMOTE),
        fence_hosts={"db": ("h1", "h2")},
    )
    run = a_run({"db/stop": succeeded(5), "site/power": succeeded(7)}, plan)
    proven = guards.proven_since(run, "db", "g")
    assert proven is not None
    assert (proven.since, proven.grows) == (at(7), True)
    run = a_run({"db/stop": succeeded(5), "db/stop-2": succeeded(6), "site/power": succeeded(7)}, plan)
    proven = guards.proven_since(run, "db", "g")
    assert proven is not None
    assert (proven.since, proven.grows) == (at(6), False)


def test_a_word_counts_only_where_nothing_was_seen() -> None:
    """Whoever says that a site was lost at some moment may be wrong; what was closed later took writes until then."""
    said = with_run(a_run({}), lost_sites={"home": GONE})
    proven = guards.proven_since(said, "db", "g")
    assert proven is not None
    assert (proven.since.utc_ns, proven.word) == (GONE.lost_at_ns, GONE.by)
    seen = with_run(a_run({"db/stop": succeeded(50)}), lost_sites={"home": GONE})
    proven = guards.proven_since(seen, "db", "g")
    assert proven is not None
    assert GONE.lost_at_ns < proven.since.utc_ns
    assert (proven.since, proven.word) == (at(50), "")


def test_no_proof_of_one_host_is_no_proof() -> None:
    assert guards.proven_since(a_run({}), "db", "g") is None
    assert guards.proven_since(a_run({"db/stop": succeeded(5)}), "db", "no such group") is None
