"""Decides how the same failover is run as an Ansible playbook, cold and from a warm parent.

    python -m bench.playbook cold|warm LAB-FOLDER

Cold: ansible-runner as a script would call it; the order is the moment before. Warm: everything that Ansible
imports is loaded before the order, then one fork runs the playbook. Prints one JSON object as the last line.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from orchestrator.lab import layout, postgres, power, supervise
from orchestrator.lab.layout import Lab, SiteName, write_file

ROOT = Path(__file__).resolve().parents[1]
PLAYBOOK = ROOT / "playbooks" / "lab" / "failover.yml"
EPOCH = 2
WARM = (
    "ansible.executor.module_common",
    "ansible.executor.playbook_executor",
    "ansible.plugins.action.command",
    "ansible.plugins.action.uri",
    "ansible.plugins.callback.default",
    "ansible.plugins.connection.local",
    "ansible.plugins.shell.sh",
    "ansible.plugins.strategy.linear",
)
CONFIG = "[defaults]\nretry_files_enabled = False\nhost_key_checking = False\nnocows = True\n"


@dataclass(frozen=True, slots=True)
class Ansible:
    """A side whose failover is the playbook; it has no other moves."""

    how: str

    @property
    def name(self) -> str:
        return f"playbook, {self.how}"

    def argv(self, move: str, lab: Lab, target: SiteName, epoch: int) -> Sequence[str]:
        if (move, target, epoch) != ("failover", "embassy", EPOCH):
            raise ValueError(f"the playbook is a failover to the embassy at epoch {EPOCH}")
        return [sys.executable, "-m", "bench.playbook", self.how, lab.folder]


def inventory(lab: Lab) -> dict[str, Any]:
    """Where everything of the embassy is: what an inventory of it would say."""
    embassy = lab.site("embassy")
    said: dict[str, Any] = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "epoch": EPOCH,
        "root": str(ROOT),
        "address": lab.address("embassy"),
        "postgres_port": layout.POSTGRES_PORT,
        "dns_port": layout.DNS_PORT,
        "control_user": postgres.CONTROL,
        "pgpass": str(lab.path / "ansible" / "pgpass"),
        "ca": str(lab.ca),
        "postgres_bin": lab.postgres,
        "power": f"{lab.power_url}{power.SYSTEMS}/home",
        "haproxy": str(embassy.haproxy),
        "tsig": str(lab.secrets / "tsig"),
        "supervisorctl": str(lab.path / "ansible" / "supervisorctl.conf"),
        "gazette": str(embassy.gazette),
        "gazette_key": str(lab.estate.parent / "gazette-key.pub"),
    }
    return {"all": {"hosts": {"embassy": said}}}


def prepare(lab: Lab) -> Path:
    """Write inventory, configuration and the two files with secrets; returns the inventory's path."""
    folder = lab.path / "ansible"
    write_file(folder / "pgpass", f"*:*:*:{postgres.CONTROL}:{lab.secret('pg-control')}\n")
    url = f"http://{lab.address('embassy')}:{layout.SUPERVISOR_PORT}"
    write_file(
        folder / "supervisorctl.conf",
        f"[supervisorctl]\nserverurl={url}\nusername={supervise.USER}\npassword={lab.secret('supervisor')}\n",
    )
    write_file(folder / "ansible.cfg", CONFIG)
    write_file(folder / "inventory.json", json.dumps(inventory(lab), indent=1) + "\n")
    return folder / "inventory.json"


def run_cold(lab: Lab) -> dict[str, int]:
    hosts = prepare(lab)
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    moments = {"order": time.monotonic_ns()}
    import ansible_runner

    with tempfile.TemporaryDirectory() as private:
        done = ansible_runner.run(
            private_data_dir=private,
            playbook=str(PLAYBOOK),
            inventory=str(hosts),
            envvars={"ANSIBLE_CONFIG": str(hosts.parent / "ansible.cfg")},
            quiet=True,
        )
        moments["done"] = time.monotonic_ns()
        if done.status != "successful":
            raise RuntimeError(f"the playbook ended as {done.status}:\n{done.stdout.read()[-3000:]}")
    return moments


def run_warm(lab: Lab) -> dict[str, int]:
    hosts = prepare(lab)
    os.environ["ANSIBLE_CONFIG"] = str(hosts.parent / "ansible.cfg")
    os.environ["ANSIBLE_LOCAL_TEMP"] = str(hosts.parent / "tmp")
    warm_up(hosts)
    moments = {"order": time.monotonic_ns()}
    sys.stdout.flush()
    log = hosts.parent / "warm.log"
    child = os.fork()
    if child == 0:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        code = 1
        try:
            code = play(hosts)
        finally:
            sys.stdout.flush()
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    moments["done"] = time.monotonic_ns()
    if code:
        raise RuntimeError(f"the playbook ended with {code}:\n{log.read_text(encoding='utf-8')[-3000:]}")
    return moments


def warm_up(hosts: Path) -> None:
    """Import what a playbook of these modules needs, and give Ansible the command line it asks for."""
    for module in WARM:
        import_module(module)
    from ansible import context
    from ansible.module_utils.common.collections import ImmutableDict
    from ansible.plugins.loader import init_plugin_loader

    init_plugin_loader()
    context.CLIARGS = ImmutableDict(
        connection="local", forks=1, become=None, become_method=None, become_user=None, check=False,
        diff=False, verbosity=0, start_at_task=None, step=False, syntax=False, listhosts=None,
        listtasks=None, listtags=None, tags=("all",), skip_tags=(), extra_vars=(), inventory=(str(hosts),),
        flush_cache=False, private_key_file=None, remote_user=None, timeout=10, subset=None,
        module_path=None,
    )  # fmt: skip


def play(hosts: Path) -> int:
    from ansible.executor.playbook_executor import PlaybookExecutor
    from ansible.inventory.manager import InventoryManager
    from ansible.parsing.dataloader import DataLoader
    from ansible.vars.manager import VariableManager

    loader = DataLoader()
    known = InventoryManager(loader=loader, sources=str(hosts))
    variables = VariableManager(loader=loader, inventory=known)
    executor = PlaybookExecutor(
        playbooks=[str(PLAYBOOK)],
        inventory=known,
        variable_manager=variables,
        loader=loader,
        passwords={},
    )
    return int(executor.run())


if __name__ == "__main__":
    how, folder = sys.argv[1:]
    print(json.dumps({"cold": run_cold, "warm": run_warm}[how](layout.load(folder))))
