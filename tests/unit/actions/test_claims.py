"""continuity.claims on real folders: what stands against the log is said once, and how often it stands there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.actions.claims import REASON_CHARACTERS_MAX, Asked, Claims, ClaimsParams
from orchestrator.actions.files import Publish, PublishParams
from orchestrator.core.claims import CONTRADICTIONS
from orchestrator.core.model import Host
from orchestrator.core.outcomes import Failed, Succeeded
from orchestrator.core.plan import Parts
from tests.action_context import context

PARTS = Parts(
    hosts={"e1": Host("e1", "embassy", "127.0.0.1"), "h1": Host("h1", "home", "127.0.0.1")},
)


def published(folder: Path, count: int, epoch: int, site: str) -> tuple[Asked, ...]:
    """That many publications, each with a claim beside it."""
    (folder / "documents").mkdir(exist_ok=True)
    asked = []
    for number in range(count):
        link = str(folder / f"{site}-{epoch}-{number}")
        params = PublishParams("e1", str(folder / "documents"), link, "full", epoch, site)
        assert isinstance(Publish().execute(context(params, PARTS)), Succeeded)
        asked.append(Asked("files", "e1", link))
    return tuple(asked)


def compared(*asked: Asked) -> Any:
    params = ClaimsParams("g", asked, target="embassy", expect_site="home", expect_epoch=1)
    return Claims().execute(context(params, PARTS))


def test_what_agrees_is_evidence(tmp_path: Path) -> None:
    outcome = compared(*published(tmp_path, 2, 1, "home"))
    assert isinstance(outcome, Succeeded)
    assert len(outcome.evidence["claims"]) == 2


def test_one_sentence_for_each_right_that_stands_against_the_log(tmp_path: Path) -> None:
    outcome = compared(*published(tmp_path, 8, 2, "embassy"), *published(tmp_path, 1, 3, "home"))
    assert isinstance(outcome, Failed)
    assert outcome.message.count("epoch 2 of embassy") == 1
    assert outcome.message.count("and 5 more places") == 1
    assert outcome.message.count(";") == 1
    assert len(outcome.evidence[CONTRADICTIONS]) == 2
    assert len(outcome.evidence["claims"]) == 9, "the evidence keeps every place"


def test_places_that_cannot_be_read_are_told_in_a_few_words(tmp_path: Path) -> None:
    links = [tmp_path / f"broken-{number}" for number in range(7)]
    for link in links:
        link.with_name(link.name + ".epoch").write_text("torn")
    outcome = compared(*(Asked("files", "e1", str(link)) for link in links))
    assert isinstance(outcome, Failed)
    assert outcome.retryable
    assert len(outcome.message) < 4 * (REASON_CHARACTERS_MAX + 300)
    assert "4 more reasons" in outcome.message
    assert len(outcome.evidence["silent"]) == 7
    assert CONTRADICTIONS not in outcome.evidence, "silence stands against nothing"
