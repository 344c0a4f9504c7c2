"""Decides what a preflight says beside its plan: what stands against the log of groups that the plan leaves out, and
a log that is not what was written.

A group that "is there already" has no step that would ask its sites: where the log is old, it is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from orchestrator.core.claims import Claimed, contradictions
from orchestrator.core.groups import GroupState, adopt_command
from orchestrator.reports.chain import SEE_ALL, chain_of

if TYPE_CHECKING:
    from orchestrator.bootstrap.app import App
    from orchestrator.bootstrap.observe import Looked

Finding = tuple[str, str]
"""(text, mend)"""


def findings(
    app: App, planned: Collection[str], look: Callable[[App], Iterable[Looked]] | None = None
) -> list[Finding]:
    """All of it. The sites are asked only where a group that the log knows is left out of the plan."""
    from orchestrator.bootstrap.adoption import groups_of
    from orchestrator.bootstrap.observe import evidence_now

    if not app.has_log:
        return []
    chain = chain_of(app.journal.store)
    found: list[Finding] = [] if chain.is_whole else [(chain.text(), SEE_ALL)]
    states = app.journal.groups()
    left = {
        name: states[name]
        for name in groups_of(app)
        if name not in planned and name in states and states[name].adopted and not states[name].claim
    }
    seen = list((look or evidence_now)(app)) if left else []
    return [*found, *_against(left, seen)]


def _against(states: Mapping[str, GroupState], seen: Iterable[Looked]) -> Iterator[Finding]:
    rights: dict[str, list[Claimed]] = {name: [] for name in states}
    for looked in seen:
        if looked.group in rights:
            rights[looked.group] += [*_of_rows(looked), *_of_claims(looked)]
    for name, state in states.items():
        for text in contradictions(rights[name], state.epoch, state.active, state.taken_back):
            yield f"{name}: THE LOG IS BEHIND: {text}", adopt_command(name)


def _of_rows(looked: Looked) -> Iterator[Claimed]:
    sites: Mapping[str, Any] = looked.evidence.get("sites") or {}
    for site, there in sites.items():
        for database, row in (there.get("writers") or {}).items():
            where = f"{database} of {looked.unit} at {site}"
            yield Claimed(where, site, row["epoch"], row["site"], row.get("run", ""))


def _of_claims(looked: Looked) -> Iterator[Claimed]:
    for found in looked.evidence.get("claims") or ():
        yield Claimed(found["where"], found["at"], found["epoch"], found["site"], found["run"])
