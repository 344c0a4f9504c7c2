"""What help offers can be copied, and whoever asked for JSON gets a document whatever happens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from orchestrator.bootstrap.app import App
from orchestrator.cli import _commands, _help, _offered, status
from orchestrator.cli._acceptance import ONLY_OF_FAILOVER
from orchestrator.cli._output import Output
from orchestrator.errors import InputError
from orchestrator.settings import Settings
from tests.unit.cli.logs import HELD_FOR_LOSS, PROMOTED, RUN, continuity, told

BUG, INPUT, NOT_DRIVEN = 1, 2, 7
GONE_SECONDS = 0.2
NEVER = 3_600.0


def every_command(app: typer.Typer, above: str = "continuity") -> Iterator[tuple[str, str]]:
    """(name with what stands before it, help) of every command."""
    for command in app.registered_commands:
        yield f"{above} {command.name or command.callback.__name__.strip('_')}", command.help or ""  # type: ignore[union-attr]
    for group in app.registered_groups:
        assert group.typer_instance is not None
        yield from every_command(group.typer_instance, f"{above} {group.name}")


def test_every_command_has_an_example_on_a_line_of_its_own() -> None:
    found = dict(every_command(_commands.build()))
    assert len(found) > 30
    for name, text in found.items():
        lines = [line for line in text.splitlines() if line.startswith(f"  {name}")]
        assert lines, f"{name}: no example"
        paragraphs = text.split("\n\n")
        assert all(p.startswith("\b\n") for p in paragraphs if "\n  continuity " in p), name


def test_a_paragraph_is_kept_as_it_stands_only_where_it_is_indented() -> None:
    text = "Says\nmuch.\n\nExamples:\n\n  one\n  two\n\nExample: continuity accept loss\n--limit 10m"
    assert _help.kept(text) == (
        "Says\nmuch.\n\nExamples:\n\n\b\n  one\n  two\n\nExample:\n\n\b\n  continuity accept loss --limit 10m"
    )


def test_help_shows_the_examples_line_by_line(tmp_path: Path) -> None:
    said = continuity(tmp_path, "plan", "--help").stdout
    assert "\n    continuity plan failover\n    continuity plan switchover --service" in said
    assert "drill" not in said


@pytest.mark.parametrize("words", [("plan", "drill"), ("nothing",), ("accept",), ("history", "--last", "x")])
def test_words_that_are_no_command_are_told_in_a_document_too(words: tuple[str, ...]) -> None:
    with pytest.raises(InputError):
        _commands.run(words, as_document=True)


def test_a_usage_error_and_a_bug_print_a_document(tmp_path: Path) -> None:
    done = continuity(tmp_path, "pause", "--nonsense", "--output", "json")
    assert done.returncode == INPUT
    document = json.loads(done.stdout)
    assert (document["schema"], document["exit_code"]) == ("continuity/error/v1", INPUT)
    assert "--nonsense" in document["message"]

    told(tmp_path, HELD_FOR_LOSS)
    broken = "from orchestrator.reports import state\ndel state.run_document"
    bug = continuity(tmp_path, "status", "--output", "json", before=broken)
    assert bug.returncode == BUG
    assert json.loads(bug.stdout)["error"] == "bug"
    assert "Traceback" in bug.stderr


@pytest.mark.parametrize(
    ("transcript", "says"),
    [
        (HELD_FOR_LOSS, f"{RUN} is held; what you can do: continuity status {RUN}"),
        (f"{PROMOTED}pause\n", f"{RUN} is paused; what you can do: continuity status {RUN}"),
    ],
)
def test_watching_ends_and_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], transcript: str, says: str
) -> None:
    story = told(tmp_path, transcript)
    status.follow(App(Settings(tmp_path / "estate.yaml")), RUN, Output.JSON, NEVER)
    shown = capsys.readouterr()
    assert shown.err == says + "\n"
    lines = [json.loads(line) for line in shown.out.splitlines()]
    assert len(lines) == len(story.store.read(f"run:{RUN}"))
    assert {line["schema"] for line in lines} == {"continuity/event/v1"}


def test_watching_a_run_that_nobody_drives_ends_with_a_code_of_its_own(tmp_path: Path) -> None:
    told(tmp_path, PROMOTED)
    soon = f"from orchestrator.cli import status\nstatus.follow.__defaults__ = ({GONE_SECONDS},)"
    done = continuity(tmp_path, "watch", "--output", "json", before=soon)
    assert done.returncode == NOT_DRIVEN, done.stderr
    assert f"{RUN} is running, but no process drives it" in done.stderr
    document = json.loads(done.stdout.splitlines()[-1])
    assert (document["error"], document["exit_code"]) == ("not driven", NOT_DRIVEN)
    assert document["instead"][0] == f"continuity resume {RUN}"


@pytest.mark.parametrize(
    ("typed", "options", "left"),
    [
        ("failover --yes", "--accept-loss 6m", "failover --yes"),
        ("failover --accept-loss 5s --yes", "--accept-loss 6m", "failover --yes"),
        ("failover --accept-loss=5s --yes", "--accept-loss 6m", "failover --yes"),
        ("failover -s a --service=b --service c", "--service a --service b", "failover"),
        ("failover -o json", "--even-if-healthy", "failover -o json"),
    ],
)
def test_an_offered_command_says_nothing_twice(typed: str, options: str, left: str) -> None:
    assert _offered.reworded(typed.split(), options.split()) == left.split()


@pytest.mark.parametrize(
    ("typed", "left"),
    [
        ("--service a --leave b=c --estate E --yes", "--service a --leave b=c --estate E --yes"),
        ("--accept-loss 5s -s a --even-if-healthy", "-s a"),
        ("--accept-loss=5s --to home", "--to home"),
    ],
)
def test_a_planned_move_is_offered_of_what_was_ordered_and_nothing_wider(typed: str, left: str) -> None:
    assert _offered.left_of(typed.split(), ONLY_OF_FAILOVER) == left.split()
    root = typer.main.get_command(_commands.build())
    commands = root.commands  # type: ignore[attr-defined]
    of = {
        verb: {
            option: not each.is_flag for each in commands[verb].params for option in getattr(each, "opts", ())
        }
        for verb in ("failover", "switchover")
    }
    assert {o: v for o, v in of["failover"].items() if o not in of["switchover"]} == ONLY_OF_FAILOVER


def test_an_offered_command_is_that_of_another_verb(tmp_path: Path) -> None:
    before = f"import sys\nfrom orchestrator.cli import _acceptance, _offered\nprint({AS_PLANNED})\n"
    words = "failover --service a --leave b=c --accept-loss 5s --estate".split()
    said = continuity(
        tmp_path, *words, "x y", before=f"import sys\nsys.argv[1:] = {[*words, 'x y']}\n{before}"
    )
    assert said.stdout == "continuity switchover --service a --leave b=c --estate 'x y'\n", said.stderr


AS_PLANNED = "_offered.again_as('switchover', without=_acceptance.ONLY_OF_FAILOVER)"
