"""A line of a configuration ends by a newline and nothing else: its own program reads it so."""

from __future__ import annotations

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
