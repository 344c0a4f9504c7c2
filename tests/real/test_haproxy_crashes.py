"""The one command on a proxy's host dies between its steps (kill -9), at a real HAProxy: what is left is safe."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.actions.haproxy import Route
from orchestrator.core.outcomes import Failed, FindingKind, Succeeded
from orchestrator.drivers import haproxy
from tests.action_context import context
from tests.real.proxied import BACKEND, Lab, proxied

pytestmark = pytest.mark.real

ROOT = Path(__file__).resolve().parents[2]
ANSWER_SECONDS_MAX = 10.0
ROUTE = """
import json, sys
from orchestrator.drivers import haproxy_host
print(json.dumps(haproxy_host.route(json.loads(sys.argv[1]))))
"""
LOOK, CHANGE, SAVE, READ_BACK = range(4)  # what the command says to the proxy, in this order

Say = Callable[[bytes], bytes]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with proxied(tmp_path) as made:
        assert isinstance(made.execute(True, 1, "run-1"), Succeeded)
        yield made


def argv(lab: Lab, path: str) -> list[str]:
    """The command that routes to the embassy at epoch 2, over a socket of this path."""
    given = haproxy.arguments(
        replace(lab.proxy, socket=path), BACKEND, here=False, site="embassy", epoch=2, run="run-2"
    )
    return [sys.executable, "-c", ROUTE, json.dumps({**given, "timeout_ms": int(ANSWER_SECONDS_MAX * 1000)})]


def said_to_the_proxy(lab: Lab, line: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(ANSWER_SECONDS_MAX)
        stream.connect(lab.proxy.socket)
        stream.sendall(line)
        return b"".join(iter(lambda: stream.recv(65536), b""))


def route(lab: Lab, says: Callable[[int, bytes, Say], bytes | None]) -> None:
    """Run the command with every line it sends to the proxy in ``says``'s hands; None kills it there."""
    path = str(Path(lab.proxy.socket).with_name("r"))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.settimeout(ANSWER_SECONDS_MAX)
        listening.bind(path)
        listening.listen()
        child = subprocess.Popen(argv(lab, path), cwd=ROOT, stdout=subprocess.PIPE)
        try:
            for number in (LOOK, CHANGE, SAVE, READ_BACK):
                with listening.accept()[0] as client:
                    line = client.makefile("rb").readline()
                    answer = says(number, line, lambda sent: said_to_the_proxy(lab, sent))
                    if answer is None:
                        child.kill()
                        return
                    client.sendall(answer)
            assert json.loads(child.communicate(timeout=ANSWER_SECONDS_MAX)[0])["result"] == "done"
        finally:
            child.kill()
            child.communicate()
            Path(path).unlink()


@pytest.mark.parametrize(
    ("dies_at", "is_said", "routed", "saved", "found"),
    [
        (CHANGE, False, "home", "home", FindingKind.NOT_DONE),
        (CHANGE, True, "embassy", "home", FindingKind.NOT_DONE),
        (SAVE, True, "embassy", "home", FindingKind.NOT_DONE),
        (READ_BACK, False, "embassy", "embassy", FindingKind.DONE),
    ],
)
def test_whatever_a_kill_leaves_serves_keeps_its_claim_and_is_taken_up(
    lab: Lab, dies_at: int, is_said: bool, routed: str, saved: str, found: FindingKind
) -> None:
    def says(number: int, line: bytes, say: Say) -> bytes | None:
        if number < dies_at:
            return say(line)
        if is_said:
            say(line)
        return None

    route(lab, says)
    assert lab.ask() == (200, routed)
    assert lab.check(False, 2, "run-2") is found, "what is not saved is not done"
    stale = lab.execute(True, 1, "run-1")
    assert isinstance(stale, Failed), "the claim stands before the change does"
    assert "epoch 1 is stale: epoch 2 (site embassy)" in stale.message
    lab.reload()
    assert lab.ask() == (200, saved)
    assert isinstance(lab.execute(False, 2, "run-2"), Succeeded)
    assert lab.ask() == (200, "embassy")
    assert lab.check(False, 2, "run-2") is FindingKind.DONE
    undone = Route().undo(context(lab.params(False, 2), lab.parts, run="run-2"))
    assert isinstance(undone, Succeeded), undone
    assert lab.ask() == (200, "home"), "what stood before the attempt that died"


def test_the_new_side_opens_before_the_old_one_closes(lab: Lab) -> None:
    """The commands of the one line, a request after each: at no moment does the proxy have nowhere to send it."""
    sites = []

    def says(number: int, line: bytes, say: Say) -> bytes | None:
        if number != CHANGE:
            return say(line)
        answer = b""
        for command in line.strip().split(b"; "):
            answer += say(command + b"\n").strip()
            sites.append(lab.ask())
        return answer

    route(lab, says)
    assert [status for status, _ in sites] == [200, 200]
    assert sites[-1] == (200, "embassy")


def test_an_epoch_that_cannot_be_written_changes_nothing(lab: Lab) -> None:
    Path(f"{lab.proxy.epoch_file}.new").mkdir()
    assert not isinstance(lab.execute(False, 2, "run-2"), Succeeded)
    assert lab.ask() == (200, "home")
    Path(f"{lab.proxy.epoch_file}.new").rmdir()
    assert isinstance(lab.execute(False, 2, "run-2"), Succeeded)


def test_a_state_that_cannot_be_saved_is_not_done(lab: Lab) -> None:
    Path(f"{lab.proxy.state_file}.new").mkdir()
    assert not isinstance(lab.execute(False, 2, "run-2"), Succeeded)
    assert lab.check(False, 2, "run-2") is FindingKind.NOT_DONE
    assert isinstance(lab.execute(True, 1, "run-1"), Failed)
    Path(f"{lab.proxy.state_file}.new").rmdir()
    assert isinstance(lab.execute(False, 2, "run-2"), Succeeded)


def test_the_epoch_is_on_the_disk_before_the_state_that_it_guards(lab: Lab, tmp_path: Path) -> None:
    """After a power cut the proxy may route by the new state only where the new epoch is known, too."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed on this machine")
    told = tmp_path / "calls"
    watched = [strace, "-f", "-y", "-o", str(told), "-e", "trace=fsync,rename,renameat,renameat2"]
    done = subprocess.run([*watched, *argv(lab, lab.proxy.socket)], cwd=ROOT, capture_output=True, timeout=60)
    assert json.loads(done.stdout)["result"] == "done", done.stderr
    pattern = re.compile(r'(fsync|rename)\w*\((?:\d+<([^>]+)>|[^\n]*"([^"]+)"\))')
    calls = [f"{found[1]} {found[2] or found[3]}" for found in pattern.finditer(told.read_text())]
    epoch, state, folder = lab.proxy.epoch_file, lab.proxy.state_file, str(tmp_path)
    known = [f"rename {epoch}", f"fsync {epoch}", f"fsync {folder}"]
    assert calls == [*known, f"fsync {state}.new", f"rename {state}", f"fsync {folder}"]
