"""What the lab's services promise: who takes writes where, 503 only for what was surely not done, 500 for unknown."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from orchestrator.lab import layout, postgres, traffic
from orchestrator.lab.layout import SERVICE_HOSTS, SERVICE_PORTS, Lab, SiteName
from tests import labs
from tests.waiting import until

pytestmark = [pytest.mark.real, pytest.mark.timeout(90)]

ANSWER_SECONDS_MAX = 8.0
PAUSE_SECONDS = 0.3


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with labs.a_lab() as made:
        yield made


def ask(
    lab: Lab, site: SiteName, service: str, method: str, path: str, body: str = "", *, front: bool = False
) -> tuple[int, Any]:
    """One request to a service itself, or through the site's front door."""
    port = layout.FRONT_PORT if front else SERVICE_PORTS[service]
    connection = http.client.HTTPConnection(lab.address(site), port, timeout=ANSWER_SECONDS_MAX)
    try:
        connection.request(method, path, body=body.encode() or None, headers={"Host": SERVICE_HOSTS[service]})
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text.startswith(b"{") else text
    finally:
        connection.close()


def test_home_takes_writes_and_the_warm_embassy_refuses_them_and_answers_reads(lab: Lab) -> None:
    status, said = ask(lab, "home", "population-register", "PUT", "/persons/a", "x", front=True)
    assert (status, said["site"], said["epoch"]) == (200, "home", 1)
    assert said["lsn"]
    status, _ = ask(lab, "embassy", "population-register", "PUT", "/persons/b", "x")
    assert status == 503
    assert ask(lab, "home", "population-register", "GET", "/persons/b")[0] == 404
    postgres.wait_streaming(lab, "home")
    status, said = ask(lab, "embassy", "population-register", "GET", "/persons/a")
    assert (status, said["value"], said["site"]) == (200, "x", "embassy")


def test_the_embassys_front_door_leads_home_until_it_is_told_otherwise(lab: Lab) -> None:
    status, said = ask(lab, "embassy", "population-register", "PUT", "/persons/c", "x", front=True)
    assert (status, said["site"]) == (200, "home")


def test_a_parcel_needs_an_owner_whom_the_population_register_knows(lab: Lab) -> None:
    known = json.dumps({"owner": "1", "parcel": "meadow"})
    unknown = json.dumps({"owner": "nobody", "parcel": "meadow"})
    assert ask(lab, "home", "land-register", "PUT", "/parcels/p1", known)[0] == 200
    assert ask(lab, "home", "land-register", "PUT", "/parcels/p2", unknown)[0] == 422
    assert ask(lab, "home", "land-register", "PUT", "/parcels/p3", "no JSON")[0] == 422
    assert ask(lab, "home", "land-register", "GET", "/parcels/p1")[1]["owner"] == "1"
    with pytest.raises(ConnectionRefusedError):
        ask(lab, "embassy", "land-register", "GET", "/readyz")  # cold abroad


def test_the_gazette_shows_what_is_published_and_takes_documents_only_where_it_is_full(lab: Lab) -> None:
    status, said = ask(lab, "home", "state-gazette", "GET", "/editions/latest")
    assert (status, said["mode"]) == (200, "full")
    assert ask(lab, "home", "state-gazette", "PUT", "/documents/2026/003.txt", "Act on Nothing\n")[0] == 200
    status, text = ask(lab, "home", "state-gazette", "GET", "/documents/2026/003.txt", front=True)
    assert (status, text) == (200, b"Act on Nothing\n")
    assert ask(lab, "embassy", "state-gazette", "PUT", "/documents/2026/004.txt", "x")[0] == 503
    assert ask(lab, "embassy", "state-gazette", "GET", "/documents/2026/003.txt")[0] == 404
    edition = said["edition"] + 1
    until(
        lambda: ask(lab, "embassy", "state-gazette", "GET", "/editions/latest")[1]["edition"] == edition,
        "the new edition is replicated",
    )


def test_a_write_whose_outcome_nobody_knows_is_answered_500_and_never_sent_again(lab: Lab) -> None:
    """A backend is ended while it waits for a lock: neither the register nor its proxy can know."""
    answers: list[tuple[int, Any]] = []

    def write() -> None:
        answers.append(ask(lab, "home", "population-register", "PUT", "/persons/1", "mine", front=True))

    with postgres.connect(lab, "home", "population") as session, session.transaction():
        session.execute("UPDATE persons SET value = 'locked' WHERE id = '1'")
        writing = threading.Thread(target=write)
        writing.start()
        waiting = (
            "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%%persons%%'"
        )
        until(lambda: session.execute(waiting).fetchone() is not None, "the write waits")
        session.execute(f"SELECT pg_terminate_backend(pid) FROM ({waiting}) AS those")
        writing.join(ANSWER_SECONDS_MAX)
        (answer,) = answers
        assert answer[0] == 500
        assert session.execute(waiting).fetchone() is None, "it was sent a second time"
    assert ask(lab, "home", "population-register", "GET", "/persons/1")[1]["value"] == "locked"


def test_a_register_that_is_closed_for_a_moment_costs_clients_a_pause_and_no_request(lab: Lab) -> None:
    """The proxy tries again what was surely not done; nobody sees more than a slow request."""
    load = traffic.start(lab, traffic.Load(seconds=2.0))
    until(lambda: load.ledger.exists() and load.ledger.stat().st_size > 20_000, "writes flow")
    with postgres.connect(lab, "home", "postgres") as session:
        session.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        session.execute("SELECT pg_reload_conf()")
        closed = time.monotonic()
        until(lambda: time.monotonic() - closed >= PAUSE_SECONDS, "it was closed long enough")
        session.execute("SET default_transaction_read_only = off")
        session.execute("ALTER SYSTEM RESET default_transaction_read_only")
        session.execute("SELECT pg_reload_conf()")
    summary = traffic.wait(load)
    assert summary["failed_requests"] == 0
    report = traffic.check(lab, "home", [load.ledger])
    assert report["verified"] is True
    assert report["longest_pause_ns"]["persons"] >= PAUSE_SECONDS * 1e9 * 0.8, "it was never closed"


def test_a_site_whose_epoch_row_names_another_takes_no_write(lab: Lab) -> None:
    """Compared in the writing statement itself: no session, cache or order of events gets past it."""
    with postgres.connect(lab, "home", "population") as session:
        session.execute("UPDATE continuity.writer SET site = 'embassy', epoch = 2")
        try:
            assert ask(lab, "home", "population-register", "PUT", "/persons/late", "x")[0] == 503
            assert ask(lab, "home", "population-register", "GET", "/readyz")[1]["writes"] is False
        finally:
            session.execute("UPDATE continuity.writer SET site = 'home', epoch = 1")
    until(
        lambda: ask(lab, "home", "population-register", "PUT", "/persons/after", "x")[0] == 200,
        "it is open again",
    )
    assert ask(lab, "home", "population-register", "GET", "/persons/late")[0] == 404
