"""Questions are put side by side and within a bound, and whatever goes wrong is no verdict on the part."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.bootstrap import probing
from orchestrator.bootstrap.app import App
from orchestrator.bootstrap.probing import Ask
from orchestrator.bootstrap.secrets import FolderSecrets
from orchestrator.drivers.hosts import LocalHosts
from orchestrator.errors import InputError
from orchestrator.probes.http import HttpProbeParams
from orchestrator.probes.tcp import TcpProbeParams
from orchestrator.settings import Settings

GOOD = Path(__file__).parents[2] / "cases" / "runbook_errors" / "good"
ANSWER_SECONDS = 0.4
TOGETHER_SECONDS_MAX = 5.0


@pytest.fixture
def silent() -> Iterator[int]:
    """A port where connections are accepted and nobody answers, as at a stopped process."""
    with socket.create_server(("127.0.0.1", 0), backlog=200) as server:
        yield server.getsockname()[1]


def put(asks: list[Ask]) -> list[probing.Answer]:
    return probing.put(asks, ANSWER_SECONDS, LocalHosts(), FolderSecrets(Path("/nowhere")), time.monotonic)


def app(tmp_path: Path) -> App:
    shutil.copytree(GOOD, tmp_path, dirs_exist_ok=True)
    return App(Settings(tmp_path / "estate.yaml"))


def test_more_questions_than_fit_at_once_are_answered_side_by_side_in_their_order(silent: int) -> None:
    hung = Ask("http", "hung", HttpProbeParams(f"http://127.0.0.1:{silent}/"))
    there = Ask("tcp", "there", TcpProbeParams("127.0.0.1", silent))
    begun = time.monotonic()
    answers = put([*[hung] * probing.AT_ONCE_MAX, there, hung])
    assert time.monotonic() - begun < TOGETHER_SECONDS_MAX
    said = [(answer.ask.about, answer.report.verdict) for answer in answers]
    assert said == [*[("hung", "unknown")] * probing.AT_ONCE_MAX, ("there", "up"), ("hung", "unknown")]


def test_what_a_probe_raises_is_unknown_and_says_what() -> None:
    (answer,) = put([Ask("tcp", "no arguments at all")])
    assert answer.report.verdict == "unknown"
    assert "AttributeError" in answer.report.detail


def test_a_question_that_cannot_be_put_is_unknown_and_says_why() -> None:
    (answer,) = put([Ask("files", "documents", problem="gazette-key.pub: No such file")])
    assert (answer.report.verdict, answer.report.detail) == ("unknown", "gazette-key.pub: No such file")


def test_words_and_json_name_parts_of_the_estate(tmp_path: Path) -> None:
    made = app(tmp_path)
    asked = probing.ask_with(made, "command", ["host=h1", "argv=test -f '/etc/a b'", "expect-exit=1"]).params
    assert (asked.host.address, asked.argv, asked.expect_exit) == ("10.1.0.11", ("test", "-f", "/etc/a b"), 1)
    text = '{"url": "http://population.example/", "json": {"site": "home"}, "resolve_at": ["ne", "nh"]}'
    page = probing.ask_with(made, "http", [text, "slow-ms=200"]).params
    assert ([server.name for server in page.resolve_at], page.slow_ms) == (["ne", "nh"], 200)
    assert page.json == {"site": "home"}
    member = probing.ask_with(made, "postgresql", ["cluster=registers-db", "host=e1", "expect=standby"])
    assert (member.params.cluster.name, member.params.host.name) == ("registers-db", "e1")
    documents = probing.ask_with(
        made, "files", ["host=h1", "directory=/d", "manifest=M", "public_key=ssh-ed25519 A", "source=e1"]
    )
    assert documents.params.source.name == "e1"


@pytest.mark.parametrize(
    ("kind", "word", "says"),
    [
        ("tcp", "adress=1", "unknown argument adress; it takes: address, port"),
        ("tcp", "port=1", "address is missing"),
        ("tcp", "port", "write key=value"),
        ("tcp", '{"port": 1', "not a JSON object"),
        ("tcp", '{"address": "a", "port": "x"}', "'x' is not a whole number"),
        ("command", "host=h9", "the estate has no 'h9'; there are: h1, e1"),
        ("postgresql", '{"cluster": "registers-db", "host": "h1", "expect": "king"}', "is not one of"),
    ],
)
def test_a_wrong_word_is_named(tmp_path: Path, kind: str, word: str, says: str) -> None:
    with pytest.raises(InputError) as refused:
        probing.ask_with(app(tmp_path), kind, [word])
    assert says in str(refused.value)
