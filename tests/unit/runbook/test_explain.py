"""``runbook explain`` on the project's own runbooks: every operation side by side, each step with its why."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.core.model import Operation
from orchestrator.runbook.explain import Explanation, as_json, as_text, compile_all
from orchestrator.runbook.parse import Loaded, load_estate
from tests.unit.planning.estates import CATALOG, ROOT, write_lab

SECONDS_MAX = 60
FOUR = {Operation.FAILOVER, Operation.SWITCHOVER, Operation.FAILBACK, Operation.REPROTECT}


@pytest.fixture(scope="module")
def estate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lab(tmp_path_factory.mktemp("explain") / "lab")


@pytest.fixture(scope="module")
def loaded(estate: Path) -> Loaded:
    return load_estate(estate, catalog=CATALOG)


@pytest.fixture(scope="module")
def explained(loaded: Loaded) -> Explanation:
    return compile_all(loaded, CATALOG)


def test_all_four_services_are_explained_for_all_four_operations(explained: Explanation) -> None:
    assert set(explained.plans) == FOUR
    assert not explained.refused
    for operation, plan in explained.plans.items():
        moved = {"population-register", "land-register", "state-gazette"}
        wanted = moved if operation is Operation.REPROTECT else moved | {"name-service"}
        assert set(plan.services) == wanted


def test_each_step_stands_once_with_its_why_and_its_place_in_each_operation(explained: Explanation) -> None:
    lines = as_text(explained).splitlines()
    assert [word for word in lines[0].split() if word != "step"] == [o.value for o in explained.plans]
    for operation, plan in explained.plans.items():
        column = 1 + list(explained.plans).index(operation)
        for number, step in enumerate(plan.steps.values(), start=1):
            places = [i for i, line in enumerate(lines) if line.split()[:1] == [step.id]]
            assert len(places) == 1, step.id
            assert lines[places[0]].split()[column] == str(number)
            end = next((i for i in range(places[0] + 1, len(lines)) if not lines[i].startswith("    ")), None)
            block = lines[places[0] + 1 : end]
            assert f"    why: {step.why}" in block
            told = [line for line in block if line.endswith(step.title)]
            assert told
            assert len(block) == 2 or any(operation.value in line for line in told)


def test_nobody_is_asked_to_bring_home_what_holds_no_state(explained: Explanation) -> None:
    gates = [step for step in explained.plans[Operation.FAILBACK].steps if step.endswith("/go-home")]
    assert gates == ["registers/go-home", "state-gazette/go-home"]


def test_one_services_group_can_be_explained_alone(loaded: Loaded) -> None:
    alone = compile_all(replace(loaded, runbooks=dict(loaded.runbooks)), CATALOG, ("name-service",))
    assert "stays behind and needs name-service" in alone.refused[Operation.FAILOVER]
    assert "already" in alone.refused[Operation.REPROTECT]


def test_the_document_carries_commands_gates_and_undo(explained: Explanation) -> None:
    document = json.loads(json.dumps(as_json(explained)))
    promote = next(
        step for step in document["operations"]["failover"]["steps"] if step["id"] == "registers-db/promote"
    )
    assert promote["undo"] == "point-of-no-return"
    assert {"fenced", "verified", "loss-accepted"} <= set(promote["gates"])
    assert any("pg_promote" in command for command in promote["commands"])


def test_lint_and_explain_accept_the_labs_estate(estate: Path, tmp_path: Path) -> None:
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path),
        "CONTINUITY_HOME": str(tmp_path),
    }
    for words in (("lint",), ("explain",)):
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator", "runbook", *words, "--estate", str(estate), "-o", "json"],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=SECONDS_MAX,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads(done.stdout)["schema"] == f"continuity/{words[0]}/v1"
