"""LocalHosts: real child processes on this machine; no network but one loopback listener."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.model import Host
from orchestrator.drivers.hosts import OUTPUT_BYTES_MAX, LocalHosts
from orchestrator.errors import PermanentError, TransientError
from orchestrator.ports import HostConnection
from tests.waiting import until


@pytest.fixture
def host(tmp_path: Path) -> HostConnection:
    return LocalHosts().connect(Host("h1", "home", "127.0.0.1", run_directory=str(tmp_path / "run")))


def python(text: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(text)]


def test_output_exit_code_and_stdin(host: HostConnection) -> None:
    done = host.run(
        python("import sys; print(sys.stdin.read().upper()); print('e', file=sys.stderr); sys.exit(7)"),
        timeout_seconds=10,
        stdin=b"abc",
    )
    assert (done.exit_code, done.stdout.strip(), done.stderr.strip()) == (7, "ABC", "e")


def test_a_signal_is_a_negative_exit_code(host: HostConnection) -> None:
    assert host.run(python("import os; os.kill(os.getpid(), 9)"), timeout_seconds=10).exit_code == -9


def test_the_environment_holds_nothing_of_ours(host: HostConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_DRIVER", "x")
    text = host.run(["env"], timeout_seconds=10, environment={"GIVEN": "1"}).stdout
    names = {line.partition("=")[0] for line in text.splitlines()}
    assert names <= {"PATH", "HOME", "LC_ALL", "GIVEN"}
    assert {"PATH", "GIVEN"} <= names


def test_no_shell_sees_the_arguments(host: HostConnection) -> None:
    assert host.run(["echo", "$HOME; id"], timeout_seconds=10).stdout == "$HOME; id\n"


def test_a_missing_program_is_permanent(host: HostConnection) -> None:
    with pytest.raises(PermanentError, match="cannot be started"):
        host.run(["/nonexistent/program"], timeout_seconds=10)


def test_long_output_is_bounded_to_its_end(host: HostConnection) -> None:
    done = host.run(python("print('x' * 3_000_000); print('the end')"), timeout_seconds=20)
    assert done.stdout.endswith("the end\n")
    assert done.stdout.startswith("[")
    assert len(done.stdout) < OUTPUT_BYTES_MAX + 100


def test_a_daemon_that_keeps_the_pipe_does_not_hold_us(host: HostConnection, tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    begin = time.monotonic()
    host.run(
        python(f"""
            import subprocess, sys
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
            open({str(mark)!r}, "w").write(str(child.pid))
            """),
        timeout_seconds=30,
    )
    assert time.monotonic() - begin < 20
    os.kill(int(mark.read_text()), signal.SIGKILL)


def test_a_time_out_ends_the_whole_group(host: HostConnection, tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    with pytest.raises(TimeoutError, match="unknown"):
        host.run(
            python(f"""
                import signal, subprocess, sys
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                child = subprocess.Popen(["sleep", "60"])
                open({str(mark)!r}, "w").write(str(child.pid))
                child.wait()
                """),
            timeout_seconds=1.0,
        )
    pid = int(mark.read_text())
    until(lambda: not alive(pid), "the grandchild is gone")


def test_cancel_ends_it_and_says_unknown(host: HostConnection) -> None:
    cancelled = threading.Event()
    threading.Timer(0.1, cancelled.set).start()
    begin = time.monotonic()
    with pytest.raises(TimeoutError, match="cancelled"):
        host.run(["sleep", "60"], timeout_seconds=60, cancelled=cancelled)
    assert time.monotonic() - begin < 5


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_lock_is_held_only_while_the_command_lives(host: HostConnection) -> None:
    seen: list[bool] = []
    worker = threading.Thread(target=lambda: host.run(["sleep", "0.5"], timeout_seconds=10, lock="run-1/a/b"))
    worker.start()
    until(lambda: host.is_running("run-1/a/b"), "the lock is seen")
    with pytest.raises(TransientError, match="still running"):
        host.run(["true"], timeout_seconds=10, lock="run-1/a/b")
    seen.append(host.is_running("run-1/a/other"))
    worker.join()
    assert seen == [False]
    assert not host.is_running("run-1/a/b")
    assert host.run(["true"], timeout_seconds=10, lock="run-1/a/b").exit_code == 0


def opened_by_a_reader(gate: Path) -> int | None:
    """The writing end of a fifo, once somebody reads it: until then nobody but the driver holds its lock."""
    with contextlib.suppress(OSError):
        return os.open(gate, os.O_WRONLY | os.O_NONBLOCK)
    return None


def test_the_lock_outlives_a_killed_driver(host: HostConnection, tmp_path: Path) -> None:
    """core.md 3.2: what a killed driver started is seen as running until it really ends."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    driver = subprocess.Popen(
        python(f"""
            from orchestrator.core.model import Host
            from orchestrator.drivers.hosts import LocalHosts
            host = LocalHosts().connect(Host("h1", "home", "127.0.0.1", run_directory={str(tmp_path / "run")!r}))
            host.run(["cat", {str(gate)!r}], timeout_seconds=60, lock="run-1/step")
            """),
        cwd=Path(__file__).parents[3],
    )
    held_open = until(lambda: opened_by_a_reader(gate), "the command has started")
    driver.kill()
    driver.wait()
    assert host.is_running("run-1/step")
    os.close(held_open)  # the command reads to the end, and ends
    until(lambda: not host.is_running("run-1/step"), "the command has ended")


def test_reach_of_a_stopped_server_is_transient(tmp_path: Path) -> None:
    """A SIGSTOPped process accepts TCP by its backlog but never answers: only an answer counts."""
    server = subprocess.Popen(
        python("""
            import http.server
            server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
            print(server.server_address[1], flush=True)
            server.serve_forever()
            """),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=tmp_path,
    )
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        host = LocalHosts(reach_timeout_seconds=0.3).connect(
            Host("h1", "home", "127.0.0.1", reach=f"http://127.0.0.1:{port}/", run_directory=str(tmp_path))
        )
        assert host.run(["true"], timeout_seconds=5).exit_code == 0
        server.send_signal(signal.SIGSTOP)
        socket.create_connection(("127.0.0.1", port), timeout=1).close()  # it does accept
        begin = time.monotonic()
        for order in (
            lambda: host.run(["touch", str(tmp_path / "ran")], timeout_seconds=5),
            lambda: host.is_running("x"),
            lambda: host.call(lambda arguments: arguments, {}, timeout_seconds=5),
        ):
            with pytest.raises(TransientError, match="does not answer"):
                order()
        assert time.monotonic() - begin < 3
        assert not (tmp_path / "ran").exists()
        server.send_signal(signal.SIGCONT)
        assert host.run(["true"], timeout_seconds=5).exit_code == 0
    finally:
        server.kill()
        server.wait()
        assert server.stdout is not None
        server.stdout.close()
    with pytest.raises(TransientError, match="not reachable"):
        host.run(["true"], timeout_seconds=5)


def test_call_passes_json_and_its_bound(host: HostConnection) -> None:
    def script(arguments: Mapping[str, Any], /) -> Mapping[str, Any]:
        return {"got": arguments["a"], "bound": arguments["timeout_ms"]}

    assert host.call(script, {"a": (1, 2)}, timeout_seconds=1.5) == {"got": [1, 2], "bound": 1500}


def test_a_script_that_raises_is_named(host: HostConnection) -> None:
    def broken(arguments: Mapping[str, Any], /) -> Mapping[str, Any]:
        raise KeyError("x")

    with pytest.raises(PermanentError, match="h1: broken: KeyError"):
        host.call(broken, {}, timeout_seconds=1)
