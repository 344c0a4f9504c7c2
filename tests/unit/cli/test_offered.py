"""What is offered can be copied: it names the estate that was typed, and moves nothing that was not ordered."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer

from orchestrator.cli import _commands, _offered
from tests.unit.cli.logs import HELD_FOR_LOSS, RUN, continuity, told

REFUSED = 3
TYPED = ["status", "--estate", "/e s/estate.yaml"]
WITH = "--estate '/e s/estate.yaml'"


@pytest.mark.parametrize(
    ("typed", "text", "offered"),
    [
        (TYPED, "continuity status", f"continuity status {WITH}"),
        (["status", "--estate=/e"], "continuity epoch install x", "continuity epoch install x --estate /e"),
        (["status"], "continuity status", "continuity status"),
        (TYPED, f"continuity resume r1 {WITH}", f"continuity resume r1 {WITH}"),
        (TYPED, "continuity lab up", "continuity lab up"),
        (TYPED, "continuity runbook lint", f"continuity runbook lint {WITH}"),
        (TYPED, "continuity runbook schema", "continuity runbook schema"),
        (TYPED, "continuity probe, where time does not press", "continuity probe, where time does not press"),
        (TYPED, "--site home", "--site home"),
        (TYPED, "mv a b", "mv a b"),
    ],
)
def test_an_offered_command_names_the_estate_that_was_typed(
    typed: list[str], text: str, offered: str
) -> None:
    assert _offered.with_estate(text, typed) == offered


def test_a_relative_estate_is_offered_with_its_whole_path() -> None:
    offered = _offered.with_estate("continuity status", ["status", "--estate", "here/estate.yaml"])
    assert shlex.split(offered)[-1] == str(Path.cwd() / "here" / "estate.yaml")


def test_in_a_text_only_whole_commands_are_changed() -> None:
    text = "x; next: continuity status\n    continuity retry r a/b\nfirst: continuity abort, then wait\ncontinuity is"
    assert _offered.in_text(text, TYPED) == text.replace("status", f"status {WITH}").replace(
        "a/b", f"a/b {WITH}"
    )
    assert _offered.in_text(text, ["status"]) == text


def test_in_a_document_what_is_offered_is_changed_and_nothing_else() -> None:
    document: dict[str, Any] = {
        "held": {"choices": ["continuity status"]},
        "groups": [{"next": ["continuity status"]}],
        "findings": [{"text": "continuity status", "mend": "continuity status"}],
        "n": 1,
    }
    found = _offered.in_document(document, TYPED)
    assert found["held"]["choices"] == found["groups"][0]["next"] == [f"continuity status {WITH}"]
    assert found["findings"] == [{"text": "continuity status", "mend": f"continuity status {WITH}"}]
    assert found["n"] == 1


def test_the_commands_that_take_the_option_are_known() -> None:
    commands = typer.main.get_command(_commands.build()).commands  # type: ignore[attr-defined]
    take = {
        name
        for name, each in commands.items()
        if any(
            "--estate" in param.opts
            for below in (each, *getattr(each, "commands", {}).values())
            for param in below.params
        )
    }
    assert take - {"runbook"} == _offered.TAKE_ESTATE
    runbook = commands["runbook"].commands
    assert [
        ["runbook", name] for name in runbook if any("--estate" in p.opts for p in runbook[name].params)
    ] == list(_offered.RUNBOOKS)


def test_a_run_and_a_refusal_offer_the_estate_in_both_kinds_of_answer(tmp_path: Path) -> None:
    told(tmp_path, HELD_FOR_LOSS)
    estate = tmp_path / "estate.yaml"
    shown = continuity(tmp_path, "status", RUN, "--estate", estate.name)
    offers = [line for line in shown.stdout.splitlines() if line.startswith("    continuity ")]
    assert offers
    assert all(line.endswith(f" --estate {estate}") for line in offers), shown.stdout
    document = json.loads(continuity(tmp_path, "status", "--estate", estate.name, "-o", "json").stdout)
    assert all(each.endswith(f" --estate {estate}") for each in document["run"]["next"])
    refused = continuity(tmp_path, "accept", RUN, "db/close", "--by", "A", "--reason", "b", "--estate", str(estate), "-o", "json")  # fmt: skip
    assert refused.returncode == REFUSED, refused.stderr
    offered = json.loads(refused.stdout)["instead"]
    assert offered
    assert all(each.endswith(f" --estate {estate}") for each in offered)
    assert f"    {offered[0]}\n" in refused.stderr
    assert "--estate" not in continuity(tmp_path, "status", RUN).stdout, "found in the folder, not typed"


def test_a_run_that_was_taken_up_is_offered_anew_from_its_plan(tmp_path: Path) -> None:
    from orchestrator.cli._acceptance import _what_was_ordered

    run = told(tmp_path, HELD_FOR_LOSS).run
    run = replace(run, plan=replace(run.plan, leave={"name-service": "its servers"}))
    planned, as_ordered = (shlex.split(each) for each in _what_was_ordered(run))
    services = [word for name in run.plan.services for word in ("--service", name)]
    ordered = ["--to", run.plan.target, *services, "--leave", "name-service=its servers"]
    assert planned == ["continuity", "switchover", *ordered]
    assert as_ordered == ["continuity", "failover", *ordered, "--even-if-healthy"]
