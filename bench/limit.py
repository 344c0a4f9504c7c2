"""Decides how another hand-made script of the failover is run beside ours, where there is one.

``--limit FOLDER`` names a folder with ``sites.py`` and what it needs; ``@LAB@`` in its files stands for a
scratch folder. It prints ``order->first OK write med … [seconds, …]``. Nothing here needs it.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.figures import Figure, Limit

SCRIPT = "sites.py"
PLACE = "@LAB@"
RATIO_MAX = 1.25
SECONDS_PER_ROUND_MAX = 60
LINE = re.compile(r"^order->first OK write\s.*(\[.*\])$", re.MULTILINE)


def measure(folder: Path, by_hand: Sequence[float], rounds: int) -> Figure:
    """Our own moves by hand, beside those of the other script. RuntimeError when it does not run."""
    with tempfile.TemporaryDirectory(prefix="ctyl", dir="/tmp", ignore_cleanup_errors=True) as scratch:
        place = Path(scratch)
        place.chmod(0o755)  # its servers run as another user
        for path in folder.glob("*.py"):
            text = path.read_text(encoding="utf-8").replace(PLACE, scratch)
            (place / path.name).write_text(text, encoding="utf-8")
        for name in ("hx", "w", "e2e"):
            (place / name).mkdir(mode=0o777)
        (place / "v").symlink_to(Path(sys.prefix))
        theirs = _run(place, rounds)
        shutil.rmtree(place / "w", ignore_errors=True)
    return Figure(
        "limit",
        "our moves by hand: order → first verified write",
        "ms",
        tuple(by_hand),
        f"{folder.name}/{SCRIPT}",
        theirs,
        Limit(ratio_max=RATIO_MAX),
        "one register, no TLS, no process manager there",
    )


def _run(place: Path, rounds: int) -> tuple[float, ...]:
    done = subprocess.run(
        [str(place / "v" / "bin" / "python"), str(place / SCRIPT), str(rounds)],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=rounds * SECONDS_PER_ROUND_MAX,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    found = LINE.search(done.stdout)
    if done.returncode or found is None:
        raise RuntimeError(f"{SCRIPT}: exit {done.returncode}: {done.stderr.strip()[-800:]}")
    return tuple(float(seconds) * 1000 for seconds in ast.literal_eval(found[1]))
