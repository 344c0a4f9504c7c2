"""A lab that cannot come up says what is missing and how to get it, and leaves nothing."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.errors import RefusedError
from orchestrator.lab import claims, layout, postgres_tools
from tests import labs

pytestmark = [pytest.mark.real, pytest.mark.timeout(60)]

REFUSED = 3


def continuity(home: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "orchestrator", *words],
        cwd=labs.ROOT,
        env={**os.environ, "CONTINUITY_HOME": str(home), **more},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )


def test_without_postgresql_the_lab_and_the_doctor_say_how_to_get_it(tmp_path: Path) -> None:
    missing = {postgres_tools.ENVIRONMENT_NAME: "/nowhere"}
    done = continuity(tmp_path, "lab", "up", **missing)
    assert done.returncode == REFUSED
    assert "/nowhere" in done.stderr
    assert "make setup" in done.stderr
    assert list((tmp_path / "labs").glob("*.json")) == []
    assert not (tmp_path / "lab").exists() or list((tmp_path / "lab").iterdir()) == []

    examined = continuity(tmp_path, "lab", "doctor", "--output", "json", **missing)
    assert examined.returncode == REFUSED
    findings = json.loads(examined.stdout)["findings"]
    assert [each["part"] for each in findings if not each["ok"]] == ["PostgreSQL"]

    whole = continuity(tmp_path, "lab", "doctor")
    assert whole.returncode == 0, whole.stdout


def installation(folder: Path, version: str, configure: str) -> tuple[str, str]:
    """A folder that looks like an installation of PostgreSQL."""
    folder.mkdir()
    for tool in (*postgres_tools.TOOLS, "pg_config"):
        said = configure if tool == "pg_config" else f"{tool} (PostgreSQL) {version}"
        (folder / tool).write_text(f'#!/bin/sh\necho "{said}"\n', encoding="ascii")
        (folder / tool).chmod(0o755)
    return str(folder), folder.name


def test_an_old_one_and_one_without_tls_are_passed_over_and_named(tmp_path: Path) -> None:
    old = installation(tmp_path / "old", "14.2", "--with-openssl")
    plain = installation(tmp_path / "plain", "18.6", "--without-readline")
    good = installation(tmp_path / "good", "16.4", "'--with-openssl'")
    found = postgres_tools.find(lambda: [old, plain, good])
    assert (found.source, found.version, found.major) == ("good", "16.4", 16)
    with pytest.raises(RefusedError, match=r"14\.2, older than 15") as refused:
        postgres_tools.find(lambda: [old, plain])
    assert "without TLS" in str(refused.value)
    with pytest.raises(RefusedError, match="none found"):
        postgres_tools.find(list)


def test_a_port_that_somebody_holds_is_named() -> None:
    with labs.own_home(), socket.create_server((f"127.{layout.NUMBER_MAX}.1.1", layout.LAND_PORT)):
        with claims.locked(), pytest.raises(RefusedError, match=f"port {layout.LAND_PORT} of 127"):
            claims.claim(layout.NUMBER_MAX)
        with claims.locked(), pytest.raises(RefusedError, match="no lab's number"):
            claims.claim(layout.NUMBER_MAX + 1)


def test_commands_without_a_lab_name_the_command_that_makes_one(tmp_path: Path) -> None:
    for words in (("load",), ("check",), ("break", "home-crash"), ("heal",), ("down",)):
        done = continuity(tmp_path, "lab", *words)
        assert done.returncode == REFUSED, words
        assert "continuity lab up" in done.stderr, words
    assert "no lab is up" in continuity(tmp_path, "lab", "status").stdout
