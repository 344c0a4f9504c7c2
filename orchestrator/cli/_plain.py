"""Decides which words are answered at once: ``status`` as people type it at night.

The parser of the command line costs more than the answer (it loads and builds every option of a command).
Plain words need none of it. Whatever is not plain (help, an unknown word, a missing value) is left to the
parser, so that there is one place for what is wrong with a command.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence

from orchestrator.cli._print import Output

STATUS = "status"
ESTATE, OUTPUT, OUTPUT_SHORT = "--estate", "--output", "-o"
OUTPUTS = {str(output): output for output in Output}


def answered(words: Sequence[str]) -> bool:
    """Answer these words if they are plain; False: nothing was done. Raises what the command raises."""
    if words[:1] != [STATUS]:
        return False
    found = _options(words[1:])
    if found is None:
        return False
    gc.disable()  # the answer is there before a collection would have paid
    from orchestrator.cli._status import show

    show(found.get(""), found.get(ESTATE), OUTPUTS[found.get(OUTPUT, Output.TEXT)])
    return True


def _options(words: Sequence[str]) -> dict[str, str] | None:
    """Options with their values, the run under ""; None for anything that is not plain."""
    found: dict[str, str] = {}
    left = list(words)
    while left:
        word = left.pop(0)
        name, has_value, value = word.partition("=")
        if not word.startswith("-"):
            name, value = "", word
        elif name in (ESTATE, OUTPUT) and has_value:
            pass
        elif word in (ESTATE, OUTPUT, OUTPUT_SHORT) and left and not left[0].startswith("-"):
            name, value = word, left.pop(0)
        else:
            return None
        name = OUTPUT if name == OUTPUT_SHORT else name
        if name in found or not value or (name == OUTPUT and value not in OUTPUTS):
            return None
        found[name] = value
    return found
