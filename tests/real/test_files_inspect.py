"""What a look before the order sees of documents, against a real supervisor and whole runs in the lab."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from orchestrator.actions import files_inspect
from orchestrator.actions.files_inspect import Inspect, InspectParams
from orchestrator.core.model import Host, Operation
from orchestrator.core.outcomes import Failed, FindingKind, Succeeded
from orchestrator.core.plan import Parts
from orchestrator.drivers import sshsig, supervisor
from orchestrator.lab import adoption, sites
from orchestrator.lab.layout import Lab as TwoSites
from tests import labs
from tests.action_context import context
from tests.labs import answer, document
from tests.real.supervised import Lab, Passwords, a_supervisor, free_port

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

UNIT = "quick"
DONE, REFUSED, HELD = 0, 3, 4
AT_TARGET = "state-gazette/documents/inspect-e1"
ALONE = ("--service", "state-gazette", "--leave", "name-service=its servers answer at both sites")
PEOPLE = ("--yes", "--by", "Tester")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with a_supervisor(tmp_path_factory.mktemp("supervisor")) as made:
        yield made


@dataclass
class Documents:
    """Signed documents that wait at the embassy, and the unit that brings them."""

    lab: Lab
    folder: Path
    key: ed25519.Ed25519PrivateKey

    @property
    def params(self) -> InspectParams:
        public = self.key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        place = (str(self.folder / "documents"), "../MANIFEST", public, str(self.folder / "published"))
        return InspectParams("e1", *place, UNIT, str(self.folder / "as-of"))

    def sign(self) -> None:
        private = self.key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
        base = self.folder / "documents"
        names = sorted(path.relative_to(base).as_posix() for path in base.rglob("*") if path.is_file())
        text = "".join(
            f"{hashlib.sha256((base / name).read_bytes()).hexdigest()}  {name}\n" for name in names
        )
        (self.folder / "MANIFEST").write_text(text)
        (self.folder / "MANIFEST.sig").write_text(sshsig.sign(private, text.encode()))

    def looked_ago(self, seconds: float) -> None:
        moment = datetime.now(UTC) - timedelta(seconds=seconds)
        (self.folder / "as-of").write_text(moment.isoformat().replace("+00:00", "Z") + "\n")

    def look(
        self, params: InspectParams | None = None, port: int = 0, operation: Operation = Operation.FAILOVER
    ) -> Any:
        manager = replace(self.lab.manager, url=f"http://127.0.0.1:{port}") if port else self.lab.manager
        parts = Parts(hosts={"e1": Host("e1", "embassy", "127.0.0.1", manager=manager)})
        secrets = {"secret://env/GOOD": "right"}
        asked = context(params or self.params, parts, secrets=secrets, operation=operation)
        outcome, finding = Inspect().execute(asked), Inspect().check(asked)
        assert (finding.kind is FindingKind.DONE) is isinstance(outcome, Succeeded)
        return outcome

    def findings(self, params: InspectParams | None = None, port: int = 0) -> list[str]:
        """What is noteworthy and holds nothing, with what mends it."""
        outcome = self.look(params, port)
        assert isinstance(outcome, Succeeded), outcome
        return [f"{each['text']} | {each['mend']}" for each in outcome.evidence["findings"]]

    def problem(self, params: InspectParams | None = None) -> str:
        """What would hold the run."""
        outcome = self.look(params)
        assert isinstance(outcome, Failed), outcome
        assert all(each["mend"] for each in outcome.evidence["findings"])
        return outcome.message


@pytest.fixture
def waiting(lab: Lab, tmp_path: Path) -> Documents:
    supervisor.start(lab.manager, UNIT, Passwords(), 5)
    made = Documents(lab, tmp_path, ed25519.Ed25519PrivateKey.generate())
    (tmp_path / "documents" / "2026").mkdir(parents=True)
    (tmp_path / "documents" / "2026" / "001.txt").write_text("Act on Data Embassies")
    made.sign()
    made.looked_ago(1)
    return made


def test_whole_signed_and_fresh_documents_have_no_finding(waiting: Documents) -> None:
    assert waiting.findings() == []
    assert waiting.findings(replace(waiting.params, as_of="")) == []
    (waiting.folder / "documents" / "2026" / "001.txt").write_text("other content")
    assert waiting.findings() == [], "no document is opened: its content is for the verification to judge"


HOLDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "foreign file": (lambda at: (at / "documents/stray.txt").write_text("x"), "stray.txt: is not in the manifest"),
    "foreign link": (lambda at: os.symlink("/etc/passwd", at / "documents/l"), "l: is not in the manifest"),
    "missing": (lambda at: (at / "documents/2026/001.txt").unlink(), "2026/001.txt: is missing"),
    "no folder": (lambda at: (at / "documents").rename(at / "gone"), "there is no such directory"),
    "no manifest": (lambda at: (at / "MANIFEST").unlink(), "there is no manifest ../MANIFEST"),
    "no signature": (lambda at: (at / "MANIFEST.sig").unlink(), "signature: "),
    "other manifest": (lambda at: (at / "MANIFEST").write_text("x\n"), "signature: "),
    "no link": (lambda at: (at / "published").write_text("x"), "is not a link"),
    "odd claim": (lambda at: (at / "published.epoch").write_text("x"), "cannot be understood"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOLDS)
def test_what_would_hold_the_run_fails_the_gate(waiting: Documents, case: str) -> None:
    spoil, text = HOLDS[case]
    spoil(waiting.folder)
    assert text in waiting.problem()


def test_a_link_in_place_of_a_document_is_a_document_that_is_missing(waiting: Documents) -> None:
    there = waiting.folder / "documents" / "2026" / "001.txt"
    there.rename(waiting.folder / "elsewhere.txt")
    there.symlink_to(waiting.folder / "elsewhere.txt")
    assert "2026/001.txt: is missing" in waiting.problem()


def test_a_unit_that_the_manager_does_not_know_fails_the_gate(waiting: Documents) -> None:
    assert "knows no unit of that name" in waiting.problem(replace(waiting.params, unit="quikc"))


def test_a_copy_that_is_just_being_made_is_waited_for(waiting: Documents) -> None:
    """The document comes first, its manifest a moment later."""
    (waiting.folder / "documents" / "002.txt").write_text("Act on Waiting")
    later = threading.Timer(files_inspect.SETTLE_SECONDS_MAX / 5, waiting.sign)
    later.start()
    assert waiting.findings() == []
    later.join()


def test_a_replicator_that_does_not_run_or_does_not_look_is_a_finding(waiting: Documents) -> None:
    waiting.looked_ago(600)
    (stale,) = waiting.findings()
    assert "all documents were last here 10m ago" in stale
    (waiting.folder / "as-of").unlink()
    (never,) = waiting.findings()
    assert "never said that all documents were here" in never
    waiting.looked_ago(1)
    supervisor.stop(waiting.lab.manager, UNIT, Passwords(), 5)
    (stopped,) = waiting.findings()
    assert stopped.endswith(f"supervisorctl -s {waiting.lab.manager.url} -u continuity start {UNIT}")
    for planned in (Operation.SWITCHOVER, Operation.FAILBACK):
        failed = waiting.look(operation=planned)
        assert isinstance(failed, Failed), "it would close publication and wait for what nobody brings"
        assert f"{UNIT} on e1 is stopped: new documents do not come" in failed.message
        assert failed.evidence["findings"][0]["mend"] == stopped.partition(" | ")[2]
    (unknown,) = waiting.findings(port=free_port())
    assert "is not known" in unknown


def test_the_side_that_serves_needs_its_place_and_not_its_names(waiting: Documents) -> None:
    serves = replace(waiting.params, serves=True, as_of="", unit="none-there")
    (waiting.folder / "documents" / "new.txt").write_text("being taken")
    assert waiting.findings(serves) == []
    assert waiting.look(serves).evidence["takes"] is False, "nothing is published"
    os.symlink(waiting.folder / "documents", waiting.folder / "published")
    for mode in ("read-only", "full"):
        (waiting.folder / "published.mode").write_text(f"{mode}\n")
        assert waiting.look(serves).evidence["takes"] is (mode == "full")
    elsewhere = replace(serves, published=str(waiting.folder / "nowhere" / "published"))
    assert "nothing was ever published here" in waiting.problem(elsewhere)
    (waiting.folder / "documents").rename(waiting.folder / "gone")
    assert "no such directory" in waiting.problem(serves)


# --- in the lab ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_sites() -> Iterator[TwoSites]:
    with labs.own_home():
        yield sites.up(sites.Wanted(owned=True), adopt=adoption.adopt)


def gate(said: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(gate for gate in said["gates"] if gate["step"] == AT_TARGET)
    return found


def test_preflight_says_what_a_foreign_file_would_do_and_a_planned_move_does_not_begin(
    two_sites: TwoSites,
) -> None:
    assert gate(document(two_sites, DONE, "preflight", "switchover"))["findings"] == []
    stray = two_sites.site("embassy").gazette / "current" / "documents" / "stray.txt"
    stray.write_text("nobody signed this\n")
    try:
        for operation in ("failover", "switchover"):
            failed = gate(document(two_sites, REFUSED, "preflight", operation))
            assert failed["result"] == "failed"
            assert "stray.txt: is not in the manifest" in failed["message"]
            assert "move out of" in failed["findings"][0]["mend"]
        held = document(two_sites, HELD, "switchover", *ALONE, *PEOPLE)
        assert "stray.txt" in " ".join(held["held"]["causes"])
        assert {step["state"] for step in held["steps"] if "/documents/stop" in step["id"]} == {"pending"}
        mode = (two_sites.site("home").gazette / "published.mode").read_text()
        assert mode.strip() == "full", "nothing was frozen or fenced for it"
        answer(two_sites, "abort", "--reason", "to be tidied first", "--by", "Tester")
    finally:
        stray.unlink()


def test_an_unplanned_move_is_told_and_does_not_wait(two_sites: TwoSites) -> None:
    """Its gate holds nothing, and once the file is gone nothing is owed for it."""
    stray = two_sites.site("embassy").gazette / "current" / "documents" / "stray.txt"
    stray.write_text("nobody signed this\n")
    try:
        held = document(two_sites, HELD, "failover", "--even-if-healthy", *PEOPLE)
    finally:
        stray.unlink()
    states = {step["id"]: step["state"] for step in held["steps"]}
    assert (states[AT_TARGET], states["registers-db/open"]) == ("failed", "succeeded")
    assert states["state-gazette/documents/verify"] == "failed"
    document(two_sites, DONE, "retry", held["run"], "state-gazette/documents/verify")
    ended = document(two_sites, DONE, "resume", held["run"], *PEOPLE, "--accept-loss", "5m")
    assert AT_TARGET not in ended["debts"], "nothing is owed for a look"
