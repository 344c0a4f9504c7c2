"""A line of a configuration ends by a newline and nothing else: its own program reads it so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orchestrator.core.model import Proxy
from orchestrator.drivers import haproxy, postgresql_host

ENDS = "\u2028\x85\x0b\x0c\x1e"  # for str.splitlines
PROXY = Proxy("p", "h", "/run/s", "/etc/haproxy.cfg", "/var/state", "/var/epoch")


@pytest.mark.parametrize("end", ENDS)
def test_a_setting_that_holds_one_is_still_one_setting(tmp_path: Path, end: str) -> None:
    kept = f"cluster_name = 'one{end}work_mem = two'"
    automatic = tmp_path / "postgresql.auto.conf"
    automatic.write_text(f"# Do not edit\nprimary_conninfo = 'host=a{end}b'\n{kept}\n", encoding="utf-8")
    said = postgresql_host.become_standby_files({"data_directory": str(tmp_path)})
    assert said["kept"] == [kept]
    assert automatic.read_text(encoding="utf-8") == f"# Do not edit\n{kept}\n"


@pytest.mark.parametrize("end", ENDS)
def test_what_stands_in_a_comment_is_no_server(end: str) -> None:
    whole = haproxy.required_configuration(PROXY, "b")
    assert haproxy.configuration_problems(whole, PROXY, "b") == ()
    commented = whole.replace("  server there", f"  # was:{end}server there")
    assert haproxy.configuration_problems(commented, PROXY, "b") == (
        "backend b needs the servers here and there",
    )


@pytest.mark.parametrize(
    ("sections", "loads"),
    [
        ("defaults\n  load-server-state-from-file global\nbackend b\n", True),
        ("defaults\n  load-server-state-from-file global\ndefaults\n  mode http\nbackend b\n", False),
        ("defaults d\n  load-server-state-from-file global\ndefaults\n  mode http\nbackend b from d\n", True),
        ("defaults d\n  load-server-state-from-file global\ndefaults e from d\nbackend b\n", True),
        ("backend b\n  load-server-state-from-file global\n", True),
        ("backend a\n  load-server-state-from-file global\nbackend b\n", False),
        ("backend b\ndefaults\n  load-server-state-from-file global\nbackend a\n", False),
    ],
)
def test_which_backend_loads_the_saved_state(sections: str, loads: bool) -> None:
    text = f"global\n  server-state-file {PROXY.state_file}\n{sections}"
    text = re.sub(r"(?m)^backend b.*$", "\\g<0>\n  server here 10.1.0.1:80\n  server there 10.2.0.1:80", text)
    assert bool(haproxy.configuration_problems(text, PROXY, "b")) is not loads
