"""A lab comes up whole and leaves nothing: no process, no port, no folder, no memory segment."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.errors import RefusedError
from orchestrator.lab import claims, layout, postgres, processes, sites
from orchestrator.lab.layout import SITES, Lab
from tests import labs
from tests.waiting import until

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-c", "import sys; from orchestrator.cli import lab; sys.exit(lab.app())"]


def shared_memory(lab: Lab) -> set[str]:
    """The memory segments of a lab's two servers, as they say themselves (key and id stand in postmaster.pid)."""
    files = [lab.site(site).data / "postmaster.pid" for site in SITES]
    return {file.read_text(encoding="utf-8").splitlines()[6].split()[1] for file in files}


def all_shared_memory() -> set[str]:
    lines = Path("/proc/sysvipc/shm").read_text(encoding="ascii").splitlines()[1:]
    return {line.split()[1] for line in lines}


@contextlib.contextmanager
def a_bystander_that_mentions(lab: Lab) -> Iterator[subprocess.Popen[bytes]]:
    """Somebody else's process with the lab's folder and its programs' names on its command line."""
    code = "import sys; sys.stdin.read()"
    bystander = subprocess.Popen(
        [sys.executable, "-c", code, str(lab.path), "postgres", "haproxy"], stdin=subprocess.PIPE
    )
    try:
        yield bystander
    finally:
        bystander.communicate()


def home_told_that_commits_wait(lab: Lab) -> bool:
    """What a failover needs in order to state that nothing is lost, should home be lost right now."""
    told = []
    for database in postgres.APPLICATION_ROLES:
        with postgres.connect(lab, "embassy", database) as session:
            told.append(session.execute("SELECT waits FROM continuity.heartbeat").fetchone())
    return told == [(True,), (True,)]


def test_up_status_down_leave_nothing() -> None:
    with labs.own_home() as home:
        started = time.monotonic()
        lab = sites.up(sites.Wanted())
        print(f"lab up: {time.monotonic() - started:.1f} s")
        found = sites.status(lab)
        assert found["link"]["link"] == "up"
        assert {site["state"] for site in found["sites"].values()} == {"running"}
        assert found["sites"]["home"]["services"]["population-register"]["writes"] is True
        assert found["sites"]["embassy"]["services"]["population-register"]["writes"] is False
        assert found["sites"]["embassy"]["services"]["land-register"] is None, "cold abroad"
        assert found["sites"]["embassy"]["names"]["population.example"] == [lab.address("home")]
        assert sites.active_site(lab) == "home"
        assert home_told_that_commits_wait(lab)
        assert len(labs.members(lab)) > 20
        before = labs.listening(lab)
        assert set(before.values()) > {lab.address("home"), lab.address("embassy")}
        segments = shared_memory(lab)
        assert segments <= all_shared_memory()
        with a_bystander_that_mentions(lab) as bystander:
            assert sites.down(lab) > 20
            found = processes.look(bystander.pid)
            assert found is not None, "a process that only names the lab was ended"
            assert found.state not in "ZTt"
        assert labs.members(lab) == []
        assert labs.left_of(before, lab) == []
        assert not lab.path.exists()
        assert claims.labs() == []
        assert not segments & all_shared_memory()
        assert [path for path in home.rglob("*") if path.is_file() and path.name != ".lock"] == []


def test_two_labs_at_the_same_time_do_not_meet() -> None:
    with labs.own_home():
        one, two = sites.up(sites.Wanted(owned=True)), sites.up(sites.Wanted(durability="local"))
        assert one.number != two.number
        with claims.locked():
            assert claims.clean_left_overs() == [], "a lab whose owner lives is no left-over"
        with pytest.raises(RefusedError, match="several labs"):
            claims.find(None)
        with pytest.raises(RefusedError, match=f"lab {one.number} exists"):
            sites.up(sites.Wanted(number=one.number))
        sites.down(one)
        assert sites.active_site(two) == "home"
        assert sites.status(two)["sites"]["home"]["state"] == "running"
        assert claims.find(None).number == two.number


def kill_a_maker(words: str, *, with_its_controller: bool = False) -> tuple[Lab, dict[str, str]]:
    """Begin a lab in a process of its own and kill that process when it has said these words: (lab, its sockets)."""
    with subprocess.Popen(
        [*COMMAND, "up"], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as maker:
        assert maker.stderr is not None
        assert any(words in line for line in iter(maker.stderr.readline, ""))
        (first,) = claims.labs()
        if with_its_controller:
            maker.send_signal(signal.SIGSTOP)  # or it would clean up after itself
            outside = processes.of_part(first.mark("outside"), first.path / "outside")
            for process in outside.values():
                if process.parent not in outside:  # the link and the controller, not what the latter started
                    processes.send(process, signal.SIGKILL)
        before = labs.listening(first)
        maker.send_signal(signal.SIGKILL)
    assert first.state == "starting"
    assert before, "nobody holds the lab's number"
    return first, before


LISTEN = """
import socket, sys
with socket.create_server((sys.argv[1], int(sys.argv[2]))):
    print("listens", flush=True)
    sys.stdin.read()
"""


def test_a_lab_whose_number_another_takes_at_once_goes_all_the_same() -> None:
    with labs.own_home():
        lab = sites.up(sites.Wanted())
        processes.kill_all(lambda: processes.of_part(lab.mark(""), lab.path))
        argv = [sys.executable, "-c", LISTEN, f"127.{lab.number}.3.1", str(layout.CLAIM_PORT)]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdout
            assert other.stdout.readline() == b"listens\n"
            sites.down(lab)
            assert not lab.path.exists()
            assert other.poll() is None


@pytest.mark.parametrize("words", ["home: a new database", "a base backup", "until every service answers"])
def test_a_lab_whose_maker_was_killed_goes_by_itself(words: str) -> None:
    with labs.own_home():
        lab, before = kill_a_maker(words)
        until(lambda: claims.labs() == [] and not lab.path.exists(), "the lab is gone")
        until(lambda: labs.members(lab) == [], "its processes are gone")
        assert labs.left_of(before, lab) == []


def test_a_lab_whose_maker_and_controller_were_killed_is_cleaned_by_the_next() -> None:
    with labs.own_home():
        first, _ = kill_a_maker("a base backup", with_its_controller=True)
        assert len(labs.members(first)) > 3, "there was nothing to clean"
        said: list[str] = []
        second = sites.up(sites.Wanted(), said.append)
        assert f"cleaned up what was left of lab {first.number}" in said
        assert second.number == first.number
        assert sites.active_site(second) == "home"
        sites.down(second)
        assert labs.members(first) == []


def test_a_lab_goes_with_its_owner_and_one_without_an_owner_stays() -> None:
    with labs.own_home():
        code = "from orchestrator.lab import sites; import os; sites.up(sites.Wanted(owned={})); os._exit(0)"
        for owned in (True, False):
            subprocess.run([sys.executable, "-c", code.format(owned)], cwd=ROOT, check=True, timeout=90)
            if owned:
                until(lambda: claims.labs() == [], "the owned lab is gone")
        (lab,) = claims.labs()
        assert sites.status(lab)["sites"]["home"]["state"] == "running"
        assert lab.owner_pid == 0
        with claims.locked():
            assert claims.clean_left_overs() == []


def test_a_lab_that_cannot_come_up_leaves_nothing(tmp_path: Path) -> None:
    def refuse(estate: Path) -> None:
        raise RefusedError("not adopted")

    with labs.own_home():
        with pytest.raises(RefusedError, match="not adopted"):
            sites.up(sites.Wanted(), adopt=refuse)
        assert claims.labs() == []
        assert not [
            pid for pid in os.listdir("/proc") if pid.isdigit() and _is_of(Path(f"/proc/{pid}/environ"))
        ]


def _is_of(environment: Path) -> bool:
    try:
        return f"={os.environ['CONTINUITY_HOME']}/lab/".encode() in environment.read_bytes()
    except OSError:
        return False


def test_a_normal_user_can_use_all_of_it() -> None:
    with labs.own_home() as home:
        script = (
            "from orchestrator.lab import claims, faults, sites, traffic\n"
            "import json, os\n"
            "assert os.getuid() != 0\n"
            "lab = sites.up(sites.Wanted(owned=True))\n"
            "done = traffic.wait(traffic.start(lab, traffic.Load(seconds=1.0)))\n"
            "report = traffic.check(lab, 'home')\n"
            "faults.break_it(lab, 'home-crash')\n"
            "gone = sites.status(lab)['sites']['home']['state']\n"
            "faults.heal(lab)\n"
            "active = sites.active_site(lab)\n"
            "ended = sites.down(lab)\n"
            "print(json.dumps([done['acked'], report['verified'], gone, active, ended, len(claims.labs())]))\n"
        )
        prefix, python = labs.normal_user(home)
        print("as a normal user:", *prefix, python)
        done = subprocess.run(
            [*prefix, python, "-c", script],
            cwd=ROOT,
            env={**os.environ, "HOME": str(home)},
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        acked, verified, gone, active, ended, left = json.loads(done.stdout)
        assert acked > 50
        assert (verified, gone, active, left) == (True, "gone", "home", 0)
        assert ended > 20
