"""Which backend loads the saved state is what HAProxy itself makes of its sections, not what stands somewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.core.outcomes import Succeeded
from orchestrator.drivers import haproxy, haproxy_host
from tests.real.proxied import BACKEND, proxied

pytestmark = pytest.mark.real

LOADS = "  load-server-state-from-file global\n"
TIMES = "  mode http\n  timeout connect 50ms\n  timeout client 10s\n  timeout server 10s\n"
PLAIN = f"defaults\n{TIMES}"
NAMED = f"defaults kept\n{TIMES}{LOADS}"
LOOK_MS = 2_000


@pytest.mark.parametrize(
    ("defaults", "head", "loads"),
    [
        (PLAIN + LOADS, "", True),
        (PLAIN + LOADS + PLAIN, "", False),
        (NAMED + PLAIN, "", False),
        (NAMED + PLAIN, " from kept", True),
        (f"{NAMED}defaults taken from kept\n", "", True),
        (PLAIN, f"\n{LOADS}", True),
        (PLAIN, "", False),
    ],
    ids=["one", "a-second-one", "named", "from-named", "taken-over", "own", "none"],
)
def test_haproxy_and_who_reads_its_configuration_agree(
    tmp_path: Path, defaults: str, head: str, loads: bool
) -> None:
    with proxied(tmp_path) as lab:
        assert isinstance(lab.execute(True, 1, "run-1"), Succeeded)
        config = Path(lab.proxy.config)
        text = config.read_text(encoding="utf-8")
        begin, end = text.index("defaults\n"), text.index("frontend ")
        text = text[:begin] + defaults + text[end:]
        text = text.replace(f"\nbackend {BACKEND}\n", f"\nbackend {BACKEND}{head}\n")
        lab.stop()
        config.write_text(text, encoding="utf-8")
        lab.start()
        arguments = haproxy.arguments(lab.proxy, BACKEND, here=True, site="", epoch=0, run="")
        seen = haproxy_host.look({**arguments, "timeout_ms": LOOK_MS})
        assert (seen["runtime"]["here"] == "ready") is loads, seen
        assert (haproxy.configuration_problems(text, lab.proxy, BACKEND) == ()) is loads
        assert (seen["lacks"] == []) is loads
