"""Seeds that once failed, kept for ever; and the one that is being tried now, printed.

``tests/seeds.txt`` holds lines ``NAME SEED  # why``: NAME is the test's own name for what it seeds.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

SEEDS_FILE = Path(__file__).with_name("seeds.txt")


def kept(name: str, text: str | None = None) -> tuple[int, ...]:
    """Every seed kept for ``name``, in file order. A line that cannot be read is a ValueError."""
    lines = (SEEDS_FILE.read_text(encoding="utf-8") if text is None else text).splitlines()
    found = []
    for number, line in enumerate(lines, start=1):
        words = line.split("#", 1)[0].split()
        if not words:
            continue
        if len(words) != 2 or not words[1].isdecimal() or "#" not in line:
            raise ValueError(f"seeds.txt:{number}: expected 'NAME SEED  # why', found {line!r}")
        if words[0] == name:
            found.append(int(words[1]))
    return tuple(found)


def of_today(name: str) -> int:
    """A new seed, or that of CONTINUITY_SEED; printed, so that a failure can be played again."""
    chosen = int(os.environ.get("CONTINUITY_SEED", "") or random.SystemRandom().randrange(2**32))
    print(f"{name}: CONTINUITY_SEED={chosen}")
    return chosen
