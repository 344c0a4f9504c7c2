"""One line tells an event: what is absent is left out, zero is not."""

from __future__ import annotations

import pytest

from orchestrator.core import events
from orchestrator.reports.history import event_text
from tests.builders import at


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (
            events.LossStated(at(1), "db", 0, 0, 0, "waited"),
            "loss.stated unit=db milliseconds=0 bytes=0 rows_bound=0 basis=waited",
        ),
        (
            events.LossStated(at(1), "db", None, None, None, "no heartbeat"),
            "loss.stated unit=db basis=no heartbeat",
        ),
        (
            events.RunAuthorised(at(1), "ann", "d" * 64, 0, "typed"),
            "run.authorised by=ann accepted_loss_ms=0 method=typed",
        ),
        (events.AbortAsked(at(1), "ann", "alarm", leave_closed=False), "run.abort-asked by=ann reason=alarm"),
        (events.RunHeld(at(1), ("why",), (), ("do",)), "run.held causes=[why] choices=[do]"),
        (
            events.StepFailed(at(1), "s/one", 1, "no", 0),
            "step.failed s/one attempt=1 message=no retry_in_ms=0",
        ),
        (events.RunCreated(at(1), "r1", "failover", "d" * 64, "ann", "laptop", "1"), None),
    ],
)
def test_an_event_on_one_line(event: events.Event, text: str | None) -> None:
    told = event_text(event)
    if text is None:
        assert "{}" not in told
    else:
        assert told == text
