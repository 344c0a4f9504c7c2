"""A single-threaded parent that has imported everything, and makes each driver by one fork.

Run as a program: ``python -m tests.interrupt.nursery FOLDER``. Orders come as JSON lines on stdin, answers
go as JSON lines to stdout; what drivers print goes to ``FOLDER/drivers.log``. Orphans of dead drivers become
children of this process, which names them when asked.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

PR_SET_CHILD_SUBREAPER = 36
DRIVER_SECONDS_MAX = 60.0
POLL_SECONDS = 0.002
BUG = 1
NO_DRIVER_NEEDS = ("orchestrator.__main__", "orchestrator.lab", "orchestrator.sim")


def imported() -> None:
    """Import all that a driver will need, before the first fork; what is there is never looked at again for garbage,
    so that a driver need not copy it."""
    import gc
    import importlib
    import pkgutil

    import psycopg

    import orchestrator

    for module in pkgutil.walk_packages(orchestrator.__path__, "orchestrator."):
        if not module.name.startswith(NO_DRIVER_NEEDS):
            importlib.import_module(module.name)
    assert psycopg.pq.version()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    gc.collect()
    gc.freeze()


# --- the child: one driver --------------------------------------------------------------------


def drive(order: dict[str, Any]) -> int:
    """Begin the ordered run, or take up the one that an earlier driver began. The command's exit code."""
    from orchestrator.bootstrap.app import App
    from orchestrator.bootstrap.operations import Wish, plan_operation
    from orchestrator.cli import _exits, operate
    from orchestrator.cli._conduct import Flags
    from orchestrator.cli._output import Output
    from orchestrator.core.model import Operation
    from orchestrator.settings import Settings
    from tests.interrupt.points import Killer

    memory = Path(order["memory"]) if order.get("memory") else None
    killer = Killer(order["operation"], memory, order.get("spared", ()), order.get("stop_at", ""))
    app = App(Settings(Path(order["estate"])), at_point=killer.at, record=killer.record)
    flags = Flags(
        order["by"], is_confirmed=True, accept_loss=order.get("accept_loss"), even_if_healthy=True,
        output=Output.JSON,
    )  # fmt: skip
    begun = app.journal.runs()[order["runs_before"] :]
    if begun:
        tracked = app.journal.load(begun[0])
        killer.run = tracked.run.id
        if tracked.run.is_final:  # the driver before died when all was said
            return _exits.of_run(tracked.run.state)
        return operate.take_up(app, tracked, flags)
    wish = Wish(
        Operation(order["operation"]),
        tuple(order.get("services", ())),
        order.get("to"),
        order.get("leave", {}),
    )
    plan, _ = plan_operation(app, wish)
    app.listeners.append(lambda run, events: setattr(killer, "run", run.id))
    return operate.set_out(app, plan, flags, "a test")


def child(order: dict[str, Any], log: Path) -> None:
    """Never returns. ``os._exit``: threads of attempts that still wait must not hold this process."""
    from orchestrator.cli import _exits

    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (descriptor, 1), (descriptor, 2)):
        os.dup2(source, target)
    code = [BUG]

    def work() -> None:
        code[0] = drive(order)

    try:
        refused = _exits.guarded(work)
        code[0] = refused or code[0]
    except Exception:  # noqa: BLE001 - it is said in the log, and the exit code says that it happened
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code[0])


# --- the parent -------------------------------------------------------------------------------


class Nursery:
    def __init__(self, folder: Path) -> None:
        self._log = folder / "drivers.log"
        self._drivers: set[int] = set()

    def fork(self, order: dict[str, Any]) -> int:
        assert threading.active_count() == 1, "a process with threads must not fork drivers"
        pid = os.fork()
        if pid == 0:
            child(order, self._log)
        self._drivers.add(pid)
        return pid

    def end_of(self, pid: int) -> int:
        """The exit code of a driver, negative for a signal. One that hangs is killed, and that is said."""
        deadline = time.monotonic() + DRIVER_SECONDS_MAX
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                self._drivers.discard(pid)
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                raise TimeoutError(f"driver {pid} did not end within {DRIVER_SECONDS_MAX:g} s")
            time.sleep(POLL_SECONDS)

    def chain(self, order: dict[str, Any]) -> dict[str, Any]:
        """Driver after driver until one ends by itself."""
        started = time.monotonic()
        drivers = 0
        while True:
            drivers += 1
            code = self.end_of(self.fork(order))
            if code != -signal.SIGKILL:
                seconds = round(time.monotonic() - started, 3)
                return {"code": code, "drivers": drivers, "kills": drivers - 1, "seconds": seconds}

    def orphans(self) -> dict[str, Any]:
        """What dead drivers left running: children of this process that are no drivers."""
        found = {}
        for name in os.listdir("/proc"):
            if not name.isdigit() or int(name) in self._drivers:
                continue
            try:
                stat = Path(f"/proc/{name}/stat").read_bytes().rsplit(b")", 1)[1].split()
                command = Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if int(stat[1]) == os.getpid():
                if stat[0] == b"Z":
                    os.waitpid(int(name), 0)
                else:
                    found[name] = command.strip()
        return {"orphans": found}

    def end_all(self) -> None:
        """No driver outlives its parent, also when a test has failed."""
        for pid in self._drivers:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        match order["do"]:
            case "chain":
                return self.chain(order)
            case "start":
                return {"pid": self.fork(order)}
            case "end":
                return {"code": self.end_of(order["pid"])}
            case "orphans":
                return self.orphans()
        raise ValueError(order["do"])


def main(folder: str) -> None:
    imported()
    nursery = Nursery(Path(folder))
    print(json.dumps({"ready": os.getpid()}), flush=True)
    for line in sys.stdin:
        try:
            answer = nursery.obey(json.loads(line))
        except (OSError, ValueError, KeyError, AssertionError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)
    nursery.end_all()


if __name__ == "__main__":
    main(sys.argv[1])
