"""dns.update and dns.query-check against real authoritative servers (semantics 2.4).

bind9 and knot come from the system (CI installs both): a machine without one skips it, by name.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.actions.dns import QueryCheck, QueryParams, Update, UpdateParams
from orchestrator.core.model import NameServer
from orchestrator.core.outcomes import Failed, FindingKind, Succeeded, Unknown
from orchestrator.core.plan import Parts
from orchestrator.drivers import dns
from orchestrator.errors import TransientError
from tests.action_context import context

pytestmark = pytest.mark.real

START_SECONDS_MAX = 15.0
NAME = "population.example."
ZONE = """$TTL 5
@ SOA ns.example. hostmaster.example. 1 5 5 5 5
@ NS ns.example.
ns A 127.0.0.1
population A 192.0.2.10
_continuity.population TXT "epoch=1 site=home run=adopt"
land A 192.0.2.20
"""
REFERENCE = "secret://file/tsig"


PORT_TRIES_MAX = 50


def free_port() -> int:
    """A port that is free for both TCP and UDP: the kernel picks one for TCP, and it may be taken in UDP."""
    for _ in range(PORT_TRIES_MAX):
        with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            port = int(tcp.getsockname()[1])
            try:
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError(f"no port free for TCP and UDP in {PORT_TRIES_MAX} tries")


def bind9(folder: Path, port: int, secret: str) -> list[str]:
    (folder / "example.zone").write_text(ZONE)
    (folder / "named.conf").write_text(f"""
key "upd" {{ algorithm hmac-sha256; secret "{secret}"; }};
options {{
  directory "{folder}"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
  pid-file none; session-keyfile none; recursion no; dnssec-validation no; notify no;
}};
controls {{ }};
zone "example" {{ type master; file "example.zone"; update-policy {{ grant upd zonesub ANY; }}; }};
""")
    return ["named", "-g", "-c", str(folder / "named.conf"), "-p", str(port)]


def knot(folder: Path, port: int, secret: str) -> list[str]:
    (folder / "example.zone").write_text(ZONE)
    (folder / "db").mkdir()
    (folder / "knot.conf").write_text(f"""
server:
  rundir: "{folder}"
  listen: 127.0.0.1@{port}
database:
  storage: "{folder}/db"
key:
  - id: upd
    algorithm: hmac-sha256
    secret: {secret}
acl:
  - id: updates
    key: upd
    action: update
zone:
  - domain: example.
    storage: "{folder}"
    file: example.zone
    zonefile-sync: -1
    acl: updates
""")
    return ["knotd", "-c", str(folder / "knot.conf")]


def own(folder: Path, port: int, secret: str) -> list[str]:
    (folder / "initial.zone").write_text(ZONE)
    (folder / "key").write_text(secret)
    (folder / "nameserver.json").write_text(
        json.dumps(
            {
                "zone": "example.",
                "zone_file": str(folder / "zone"),
                "initial_file": str(folder / "initial.zone"),
                "refuse_file": str(folder / "refuse"),
                "key_name": "upd",
                "key_algorithm": "hmac-sha256",
                "key_file": str(folder / "key"),
                "address": "127.0.0.1",
                "port": port,
            }
        )
    )
    return [sys.executable, "-m", "orchestrator.lab.nameserver", str(folder / "nameserver.json")]


SERVERS: dict[str, tuple[str, Callable[[Path, int, str], list[str]]]] = {
    "own": (sys.executable, own),
    "bind9": ("named", bind9),
    "knot": ("knotd", knot),
}


@dataclass
class Lab:
    server: NameServer
    secret: str
    process: subprocess.Popen[bytes]

    @property
    def parts(self) -> Parts:
        return Parts(name_servers={"ns": self.server})

    @property
    def key(self) -> dns.Key:
        return dns.Key("upd", "hmac-sha256", self.secret)

    def params(self, epoch: int, site: str, value: str) -> UpdateParams:
        other = "embassy" if site == "home" else "home"
        return UpdateParams(
            server="ns",
            zone="example.",
            name=NAME,
            type="A",
            ttl_ms=5000,
            value=value,
            key_name="upd",
            key_algorithm="hmac-sha256",
            key=REFERENCE,
            site=site,
            epoch=epoch,
            expect_site=other,
            expect_epoch=epoch - 1,
        )

    def context(self, params: Any, run: str, **more: Any) -> Any:
        return context(params, self.parts, run=run, secrets={REFERENCE: self.secret}, **more)

    def execute(self, params: UpdateParams, run: str) -> Any:
        return Update().execute(self.context(params, run))

    def check(self, params: UpdateParams, run: str) -> FindingKind:
        return Update().check(self.context(params, run)).kind

    def look(self, kind: str = "A", name: str = NAME, seconds: float = 2) -> tuple[str, ...]:
        return dns.query(self.server, name, kind, timeout_seconds=seconds).values


@pytest.fixture(params=SERVERS)
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    program, configure = SERVERS[request.param]
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
    if path is None:
        pytest.skip(f"{request.param} ({program}) is not installed on this machine")
    tmp_path.chmod(0o755)
    port, secret = free_port(), base64.b64encode(secrets.token_bytes(32)).decode()
    argv = configure(tmp_path, port, secret)
    process = subprocess.Popen(
        [path, *argv[1:]],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    lab = Lab(NameServer("ns", "embassy", "127.0.0.1", port), secret, process)
    deadline = time.monotonic() + START_SECONDS_MAX
    try:
        while True:
            try:
                if lab.look(seconds=0.2):
                    break
            except TransientError:
                assert process.poll() is None, f"{program} ended"
            assert time.monotonic() < deadline, f"{program} does not answer"
            time.sleep(0.02)
        yield lab
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(10)
        finally:
            process.kill()
            process.wait()


def test_an_update_changes_name_and_claim_in_one(lab: Lab) -> None:
    params = lab.params(2, "embassy", "198.51.100.10")
    assert lab.check(params, "run-2") is FindingKind.NOT_DONE
    begin = time.monotonic()
    outcome = lab.execute(params, "run-2")
    print(f"dns.update: {(time.monotonic() - begin) * 1000:.1f} ms")
    assert isinstance(outcome, Succeeded), outcome
    assert outcome.evidence["before"] == ["192.0.2.10"]
    assert lab.look() == ("198.51.100.10",)
    assert lab.look("TXT", dns.claim_name(NAME)) == ('"epoch=2 site=embassy run=run-2"',)
    assert lab.check(params, "run-2") is FindingKind.DONE
    assert lab.check(params, "run-3") is FindingKind.NOT_DONE
    assert lab.look(name="land.example.") == ("192.0.2.20",)


def test_the_server_refuses_a_stale_update(lab: Lab) -> None:
    """The message itself is stale: nothing on our side compares, the server's prerequisite decides."""
    assert isinstance(lab.execute(lab.params(2, "embassy", "198.51.100.10"), "run-2"), Succeeded)
    for before in (dns.claim(1, "home", "adopt"), dns.claim(2, "embassy", "run-other"), None):
        with pytest.raises(dns.RefusedByServerError) as caught:
            dns.update(
                lab.server,
                zone="example.",
                name=NAME,
                kind="A",
                ttl_seconds=5,
                values=("203.0.113.66",),
                key=lab.key,
                before=before,
                after=dns.claim(3, "home", "run-stale"),
                timeout_seconds=3,
            )
        assert caught.value.code in ("NXRRSET", "YXRRSET"), before
        assert lab.look() == ("198.51.100.10",)
    assert lab.look("TXT", dns.claim_name(NAME)) == ('"epoch=2 site=embassy run=run-2"',)


def test_an_unsigned_or_wrongly_signed_update_is_refused(lab: Lab) -> None:
    wrong = base64.b64encode(secrets.token_bytes(32)).decode()
    for key in (replace(lab.key, secret=wrong), replace(lab.key, name="nobody")):
        with pytest.raises((dns.RefusedByServerError, dns.NoReplyError)):  # an unsigned "no" proves nothing
            dns.update(
                lab.server,
                zone="example.",
                name=NAME,
                kind="A",
                ttl_seconds=5,
                values=("203.0.113.66",),
                key=key,
                before=dns.claim(1, "home", "adopt"),
                after=dns.claim(2, "embassy", "run-x"),
                timeout_seconds=3,
            )
        assert lab.look() == ("192.0.2.10",)


@pytest.mark.parametrize(
    ("epoch", "run", "expect_site", "expect_epoch", "text"),
    [
        (4, "run-old", "home", 3, "stale"),
        (5, "run-other", "home", 4, "another run"),
        (6, "run-6", "home", 5, "found epoch=5 site=embassy"),
        (9, "run-9", "home", 4, "expected epoch 4"),
    ],
)
def test_a_run_that_may_not_is_refused(
    lab: Lab, epoch: int, run: str, expect_site: str, expect_epoch: int, text: str
) -> None:
    first = replace(lab.params(5, "embassy", "198.51.100.10"), expect_epoch=4)
    outcome = lab.execute(first, "run-5")
    assert isinstance(outcome, Succeeded)
    assert outcome.evidence["was_behind"] is True, "it still had epoch 1"
    later = replace(
        lab.params(epoch, "home", "203.0.113.1"), expect_site=expect_site, expect_epoch=expect_epoch
    )
    refused = lab.execute(later, run)
    assert isinstance(refused, Failed)
    assert text in refused.message
    assert lab.look() == ("198.51.100.10",)
    assert isinstance(lab.execute(first, "run-5"), Succeeded), "its own run may again"


def test_a_name_without_a_claim_is_nobodys(lab: Lab) -> None:
    params = replace(lab.params(2, "embassy", "198.51.100.20"), name="land.example.")
    refused = lab.execute(params, "run-2")
    assert isinstance(refused, Failed)
    assert "missing" in refused.message
    assert isinstance(lab.execute(replace(params, epoch=1, expect_epoch=0), "adopt"), Succeeded)
    assert lab.look(name="land.example.") == ("198.51.100.20",)


def test_undo_gives_the_value_back_only_while_it_is_ours(lab: Lab) -> None:
    params = lab.params(2, "embassy", "198.51.100.10")
    done = lab.execute(params, "run-2")
    assert isinstance(done, Succeeded)
    evidence = {"s/step": done.evidence}
    undone = Update().undo(lab.context(params, "run-2", evidence=evidence))
    assert isinstance(undone, Succeeded), undone
    assert lab.look() == ("192.0.2.10",)
    assert isinstance(
        lab.execute(replace(lab.params(3, "home", "192.0.2.30"), expect_epoch=2), "run-3"), Succeeded
    )
    assert isinstance(Update().undo(lab.context(params, "run-2", evidence=evidence)), Failed)
    assert lab.look() == ("192.0.2.30",)


def test_a_server_that_hangs_leaves_the_outcome_unknown(lab: Lab) -> None:
    params = lab.params(2, "embassy", "198.51.100.10")
    before = dns.read_claim(lab.server, NAME, timeout_seconds=2)
    lab.process.send_signal(signal.SIGSTOP)
    begin = time.monotonic()
    outcome = Update()._send(
        lab.context(params, "run-2", seconds=0.5),
        before,
        dns.claim(2, "embassy", "run-2"),
        ("198.51.100.10",),
    )
    assert isinstance(outcome, Unknown)
    assert Update().check(lab.context(params, "run-2", seconds=0.3)).kind is FindingKind.CANNOT_TELL
    assert isinstance(Update().execute(lab.context(params, "run-2", seconds=0.3)), Failed), (
        "it was not even asked"
    )
    assert time.monotonic() - begin < 4
    lab.process.send_signal(signal.SIGCONT)
    assert isinstance(lab.execute(params, "run-2"), Succeeded), "again, whether the first came through or not"
    assert lab.check(params, "run-2") is FindingKind.DONE
    lab.process.terminate()
    lab.process.wait(10)
    gone = lab.execute(params, "run-2")
    assert isinstance(gone, Failed)
    assert gone.retryable


def test_query_check_waits_for_the_value(lab: Lab) -> None:
    params = QueryParams(NAME, ("ns",), "198.51.100.10", within_ms=300)
    assert isinstance(QueryCheck().execute(lab.context(params, "run-2")), Failed)
    assert QueryCheck().check(lab.context(params, "run-2")).kind is FindingKind.NOT_DONE
    assert isinstance(lab.execute(lab.params(2, "embassy", "198.51.100.10"), "run-2"), Succeeded)
    assert isinstance(QueryCheck().execute(lab.context(params, "run-2")), Succeeded)


def test_the_resolver_asks_the_next_server_when_the_first_is_gone(lab: Lab) -> None:
    gone = NameServer("gone", "home", "127.0.0.1", free_port())
    resolve = dns.resolver((gone, lab.server), timeout_seconds=0.3)
    assert tuple(resolve("population.example")) == ("192.0.2.10",)
    assert tuple(resolve("127.0.0.1")) == ("127.0.0.1",)
    with pytest.raises(TransientError, match="NXDOMAIN"):
        resolve("absent.example")


def test_a_machine_without_a_server_says_so_and_is_not_waited_for(lab: Lab) -> None:
    gone = NameServer("gone", "home", "127.0.0.1", free_port())
    with pytest.raises(dns.NoReplyError, match="refused"):
        dns.query(gone, NAME, "A", timeout_seconds=5)
    for text in ("2001:db8::1", "not an address"):
        with pytest.raises(dns.NoReplyError):
            dns.query(NameServer("off", "home", text, 53), NAME, "A", timeout_seconds=0.1)


def test_the_secret_is_in_no_text(lab: Lab) -> None:
    said = Update().describe(lab.params(2, "embassy", "198.51.100.10"), lab.parts)
    assert lab.secret not in repr(said)
    assert REFERENCE in repr(said)
    assert lab.secret not in repr(lab.key)
