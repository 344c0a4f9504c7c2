"""Decides which transactions a stopped server's log holds, read on its own host; must never change it.

HostScripts: standard library only, nothing of orchestrator, JSON in and out. The log is read line by
line by PostgreSQL's own tool, so memory does not grow with it.
"""

from __future__ import annotations

import calendar
import os
import re
import subprocess
import threading
import time
from collections.abc import Mapping
from typing import Any

_COMMIT = re.compile(r"lsn: (\S+), .*desc: COMMIT\S* .*?(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)\.(\d{6}) UTC")
SAID_CHARACTERS = 300


def commits(arguments: Mapping[str, Any], /) -> Mapping[str, Any]:
    """The commits of one timeline from ``start`` on that are later than ``after_ns``.

    Arguments: tool (path of pg_waldump), log_directory, timeline, start (LSN), after_ns (UTC).
    {seen (commits read at all), later, first_ns, last_ns, last_lsn, problem}: ``problem`` says why nothing
    could be read. That the tool ends with an error is ordinary: so ends the log of a crash.
    """
    argv = [arguments["tool"], "--path", arguments["log_directory"], "--rmgr", "Transaction"]
    argv += ["--timeline", str(arguments["timeline"]), "--start", arguments["start"]]
    environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C", "TZ": "UTC"}
    found: dict[str, Any] = {
        "seen": 0, "later": 0, "first_ns": None, "last_ns": None, "last_lsn": "", "problem": "",
    }  # fmt: skip
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd="/"
    ) as child:
        seconds = int(arguments["timeout_ms"]) / 1000
        bound = threading.Timer(seconds, child.kill)
        bound.start()
        begun = False
        try:
            assert child.stdout is not None
            assert child.stderr is not None
            for line in child.stdout:
                begun = True
                _count(line, int(arguments["after_ns"]), found)
            said = child.stderr.read()
        finally:
            bound.cancel()
    if child.returncode < 0:
        raise TimeoutError(f"pg_waldump did not end within {seconds:g} s")
    if child.returncode and not begun and not _is_the_end(said):
        found["problem"] = " ".join(said.split())[:SAID_CHARACTERS]
    return found


def _is_the_end(said: str) -> bool:
    """Nothing follows the start, in a log that is there: that is no problem."""
    return "could not find file" not in said and (
        "invalid" in said or "could not find a valid record" in said
    )


def _count(line: str, after_ns: int, found: dict[str, Any]) -> None:
    told = _COMMIT.search(line)
    if told is None:
        return
    found["seen"] += 1
    seconds = calendar.timegm(time.strptime(told[2], "%Y-%m-%d %H:%M:%S"))
    at_ns = seconds * 1_000_000_000 + int(told[3]) * 1_000
    if at_ns <= after_ns:
        return
    found["later"] += 1
    found["first_ns"] = at_ns if found["first_ns"] is None else min(at_ns, found["first_ns"])
    if found["last_ns"] is None or at_ns >= found["last_ns"]:
        found["last_ns"], found["last_lsn"] = at_ns, told[1]
