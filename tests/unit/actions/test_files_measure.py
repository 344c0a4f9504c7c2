"""Until when all documents of the other side are here: told by the replicator, read by a run, stated as a loss."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from orchestrator.actions.files_measure import BASIS, TRIES_MAX, WITHOUT, Measure, MeasureParams
from orchestrator.core.loss import state_loss
from orchestrator.core.model import Host
from orchestrator.core.outcomes import Succeeded
from orchestrator.core.plan import Parts
from orchestrator.errors import TransientError
from orchestrator.lab.gazette import Gazette
from orchestrator.lab.replicator import AS_OF, Replicator
from tests.action_context import context
from tests.builders import START_NS, at
from tests.unit.actions.test_files_keep import PARTS
from tests.unit.actions.test_files_names import Site, keys  # noqa: F401 - a fixture

SECOND_NS = 1_000_000_000


class Watched(Gazette):
    """Keeps when it was asked for its newest edition."""

    asked_ns: int = 0

    def state(self) -> dict[str, Any]:
        self.asked_ns = time.time_ns()
        return super().state()


class SilentHosts:
    asked = 0

    def connect(self, host: Host) -> Any:
        self.asked += 1
        raise TransientError(f"{host.name} does not answer")


def measured(path: Path, parts: Parts = PARTS) -> dict[str, Any]:
    done = Measure().execute(context(MeasureParams("e1", str(path)), parts))
    assert isinstance(done, Succeeded), done
    return dict(done.evidence)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-11-24T17:22:33.344Z\n", 33.344),
        ("2026-11-24T18:22:33+01:00", 33.0),
        ("2026-11-24T17:22:33.000001Z", 33.000001),
    ],
)
def test_the_moment_is_read_exactly(tmp_path: Path, text: str, seconds: float) -> None:
    (tmp_path / "as-of").write_text(text)
    minute_ns = int(datetime(2026, 11, 24, 17, 22, tzinfo=UTC).timestamp()) * SECOND_NS
    assert measured(tmp_path / "as-of")["last_commit_ns"] == minute_ns + round(seconds * 1e9)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, WITHOUT),
        ("", "is not a moment"),
        ("yesterday", "is not a moment"),
        ("2026-11-24T17:22:33", "names no offset from UTC"),
    ],
)
def test_where_nothing_is_said_the_loss_is_unknown_and_people_may_accept_it(
    tmp_path: Path, text: str | None, why: str
) -> None:
    if text is not None:
        (tmp_path / "as-of").write_text(text)
    stated = state_loss("s/docs", measured(tmp_path / "as-of"), START_NS, at(1))
    assert (stated.milliseconds, stated.rows_bound) == (None, None)
    assert why in stated.basis


def test_the_loss_reaches_from_the_last_look_to_the_proof_of_the_fence(tmp_path: Path) -> None:
    seen_ns = START_NS - 1_500 * 1_000_000
    text = datetime.fromtimestamp(seen_ns / 1e9, UTC).isoformat(timespec="milliseconds")
    (tmp_path / "as-of").write_text(text)
    evidence = measured(tmp_path / "as-of")
    stated = state_loss("s/docs", evidence, START_NS, at(1))
    assert (stated.milliseconds, stated.basis) == (1_500, BASIS)
    assert state_loss("s/docs", evidence, None, at(1)).milliseconds is None, "home may still take documents"


def test_looks_that_went_on_after_the_old_side_was_closed_leave_nothing_to_lose(tmp_path: Path) -> None:
    later_ns = START_NS + 13 * SECOND_NS
    text = datetime.fromtimestamp(later_ns / 1e9, UTC).isoformat(timespec="milliseconds")
    (tmp_path / "as-of").write_text(text)
    assert state_loss("s/docs", measured(tmp_path / "as-of"), START_NS, at(1)).milliseconds == 1


def test_a_host_that_does_not_answer_is_asked_again_and_leaves_the_loss_unknown(tmp_path: Path) -> None:
    made = replace(context(MeasureParams("e1", str(tmp_path / "as-of")), PARTS), hosts=SilentHosts())
    outcome = Measure().execute(made)
    assert isinstance(outcome, Succeeded), "a measurement that fails could be accepted by nobody"
    assert made.hosts.asked == TRIES_MAX  # type: ignore[attr-defined]
    stated = state_loss("s/docs", outcome.evidence, START_NS, at(1))
    assert stated.milliseconds is None
    assert "e1 does not answer" in stated.basis


def test_the_replicator_says_when_it_began_the_look_that_left_nothing_to_copy(
    tmp_path: Path,
    keys: tuple[str, str],  # noqa: F811
) -> None:
    private, public = keys
    home, embassy = Site(tmp_path / "home", "home", private), Site(tmp_path / "embassy", "embassy", private)
    (tmp_path / "key.pub").write_text(public)
    as_of = embassy.folder / AS_OF
    home.gazette = watched = Watched({"site": "home", "folder": home.folder, "key_file": home.folder / "key"})
    with home.served() as (host, port):
        replicator = replicator_at(embassy.gazette, f"http://{host}:{port}", tmp_path / "key.pub")
        home.gazette.publish_all({"a.txt": b"a"})
        began_ns = time.time_ns() // 1_000_000 * 1_000_000
        replicator.look()
        first_ns = measured(as_of)["last_commit_ns"]
        assert began_ns <= first_ns <= watched.asked_ns, "what is taken while it looks may be missing"
        assert (embassy.documents / "a.txt").read_bytes() == b"a"
        home.gazette.publish_all({"b.txt": b"b"})
        taken_ns = time.time_ns()
        edition = home.folder / "editions" / "0002"
        edition.rename(edition.with_name("gone"))
        with pytest.raises((ValueError, OSError)):
            replicator.look()
        assert measured(as_of)["last_commit_ns"] == first_ns < taken_ns, "what is not here is not said to be"
    (embassy.folder / "published").mkdir()
    (embassy.folder / "published.mode").write_text("full\n")
    replicator.look()
    assert measured(as_of)["last_commit_ns"] == first_ns, "who takes documents itself copies nothing"


def replicator_at(gazette: Gazette, source: str, public: Path) -> Replicator:
    return Replicator({"source": source, "folder": gazette.folder, "public_key_file": public})
