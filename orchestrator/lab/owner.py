"""Decides when a lab has outlived the process it belongs to, and ends it then; must never end an owned one.

It waits inside the lab's power controller, outside both sites: whatever happened to the owner, SIGKILL
included, nothing of the lab is left shortly after. While a lab comes up it belongs to whoever brings it up.
"""

from __future__ import annotations

import os
import select
import sys
from pathlib import Path

from orchestrator.errors import RefusedError
from orchestrator.lab import claims, layout, processes


def watch(folder: Path) -> None:
    """Return when the lab belongs to nobody; end the lab and this process when its owner is gone."""
    while True:
        lab = layout.load(folder)
        if lab.owner_pid == 0:
            return
        wait_for_the_end_of(lab.owner_pid, lab.owner_started)
        with claims.locked():
            if layout.load(folder).owner_pid != lab.owner_pid:
                continue  # it was handed on: it is up, and belongs to nobody
            try:
                claims.remove(lab)
            except (RefusedError, TimeoutError) as error:
                sys.stderr.write(f"the owner is gone and the lab cannot be ended: {error}\n")
                return
        os._exit(0)


def wait_for_the_end_of(pid: int, started: int) -> None:
    """Return when this very process has ended; at once when it has already."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if processes.is_alive(pid, started):
            waiting = select.poll()
            waiting.register(descriptor, select.POLLIN)
            waiting.poll()
    finally:
        os.close(descriptor)
