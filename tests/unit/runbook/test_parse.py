"""A good estate becomes the values it says, its files are digested, and a thousand services load fast."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from pathlib import Path

import pytest

from orchestrator.core.model import (
    Credentials,
    DoneHttp,
    DoneRefuses,
    DoneWrites,
    Fence,
    Limits,
    Objectives,
    OwnStep,
    Policies,
    ProofKind,
    Site,
    Stage,
)
from orchestrator.errors import InputError
from orchestrator.runbook import loader, shape
from orchestrator.runbook.lint import lint
from orchestrator.runbook.parse import Loaded, load_estate
from orchestrator.runbook.problems import Problems
from orchestrator.runbook.schema import KINDS, schema_documents

GOOD = Path(__file__).parents[2] / "cases" / "runbook_errors" / "good"
SERVICES = 1000
LOAD_SECONDS_MAX = 15.0
"""Ten times what it takes here: a bound against an accident of growth, not a benchmark."""


@pytest.fixture
def estate(tmp_path: Path) -> Path:
    shutil.copytree(GOOD, tmp_path / "estate")
    return tmp_path / "estate" / "estate.yaml"


@pytest.fixture
def loaded(estate: Path) -> Loaded:
    return load_estate(estate)


def test_the_estate_says_what_stands_in_the_file(loaded: Loaded) -> None:
    found = loaded.estate
    assert found.name == "Republic of Example"
    assert found.sites["embassy"] == Site("embassy", "embassy", "LU", ("10.2.0.0/16",), "Agreement of 2017")
    assert found.sites["home"].role == "home"
    assert found.fences["home"][1] == Fence(
        ProofKind.POWER_OFF,
        "command.run",
        "e1",
        {
            "argv": ["bmc", "off", "${host.name}"],
            "check": {"argv": ["bmc", "state", "${host.name}"], "expect": "off"},
        },
    )
    cluster = found.clusters["registers-db"]
    assert (cluster.name, cluster.port, cluster.durability) == ("registers-db", 5432, "remote")
    assert dict(cluster.members) == {"home": ("h1",), "embassy": ("e1",)}
    assert cluster.roles["control"] == Credentials("continuity", "secret://file/pg-control")
    assert cluster.limits == Limits(10_000, 64 * 1024 * 1024)
    assert found.policies == Policies(5_000, 5_000, 32)


def test_a_runbook_says_what_stands_in_the_file(loaded: Loaded) -> None:
    runbook = loaded.runbooks["population-register"]
    assert runbook.objectives == Objectives(900_000, 30_000, 14_400_000)
    assert runbook.client_timeout_ms == 10_000
    assert list(runbook.components) == ["database", "application", "front-door", "name"]
    assert runbook.components["application"].name == "application"
    assert runbook.components["application"].needs == ("database",)
    assert shape.component_type(runbook.components["front-door"]) == "haproxy"
    assert runbook.steps == (
        OwnStep(
            name="warm up the cache",
            action="http.request",
            timeout_ms=30_000,
            undo="none-needed",
            with_={"method": "POST", "url": "http://${to.application.address}:8201/warm"},
            after=Stage.START,
        ),
    )
    assert runbook.done_when.http == (
        DoneHttp("http://population.example/persons/1", 200, {"site": "${to.name}"}, ("vantage",)),
    )
    assert runbook.done_when.writes == (DoneWrites("database", "continuity.canary", 5_000),)
    assert runbook.done_when.refuses_writes == (DoneRefuses("${from.name}"),)


def test_loading_twice_gives_equal_values(estate: Path, loaded: Loaded) -> None:
    assert load_estate(estate) == loaded


def test_files_beside_the_estate_are_made_absolute_and_digested(estate: Path) -> None:
    (estate.parent / "ca.pem").write_text("certificate\n")
    (estate.parent / "bin").mkdir()
    (estate.parent.parent / "pe.sock").write_text("data of a host")
    estate.write_text(estate.read_text().replace("socket: /run/pe.sock", "socket: ./../pe.sock"))
    found = load_estate(estate)
    assert found.estate.clusters["registers-db"].tls.ca == str(estate.parent.resolve() / "ca.pem")
    assert found.estate.clusters["registers-db"].bin_directory == str(estate.parent.resolve() / "bin")
    assert found.files == {"./ca.pem": hashlib.sha256(b"certificate\n").hexdigest()}
    assert found.estate.proxies["pe"].socket == str(estate.parent.resolve().parent / "pe.sock")
    assert found.warnings == ()
    assert set(found.sources) == {
        "estate.yaml",
        "runbooks/land-register.yaml",
        "runbooks/population-register.yaml",
    }
    assert found.sources["estate.yaml"] == hashlib.sha256(estate.read_bytes()).hexdigest()


def test_what_people_should_know_is_a_warning(estate: Path) -> None:
    folder = estate.parent / "runbooks"
    (folder / "land-register.yaml").rename(folder / "parcels.yaml")
    (folder / "old.yml").write_text("kind: Runbook\n")
    warnings = "\n".join(load_estate(estate).warnings)
    assert "./ca.pem does not exist here" in warnings
    assert "old.yml" in warnings
    assert "land-register.yaml" in warnings


def _alone(estate: Path) -> Path:
    """The estate without groups, so that it stands without runbooks."""
    text = estate.read_text()
    start, end = text.index("groups:"), text.index("hosts:")
    estate.write_text(text[:start] + text[end:])
    return estate


def test_runbooks_can_be_named(estate: Path) -> None:
    only = estate.parent / "runbooks" / "population-register.yaml"
    with pytest.raises(InputError) as caught:
        load_estate(estate, [only])
    assert [problem.path for problem in caught.value.problems] == ["groups.registers.services[1]"]
    assert set(load_estate(_alone(estate), [only]).runbooks) == {"population-register"}


def test_an_estate_without_runbooks_says_so(estate: Path) -> None:
    shutil.rmtree(estate.parent / "runbooks")
    assert any("matches nothing" in warning for warning in load_estate(_alone(estate)).warnings)


def test_runbooks_alone_are_checked_each_for_itself(tmp_path: Path) -> None:
    good = GOOD / "runbooks" / "land-register.yaml"
    assert lint(None, [good]).problems == ()
    bad = tmp_path / "land-register.yaml"
    bad.write_text(good.read_text().replace("needs: [database]", "needs: [databse]"))
    assert [problem.path for problem in lint(None, [bad]).problems] == ["components.application.needs[0]"]


LOADS = """\
global
  server-state-base /etc
  server-state-file ph.state
defaults
  load-server-state-from-file global
backend population-register
  server here 10.1.0.11:8201 disabled
  server there 10.2.0.11:8201 disabled
backend land-register
  server here 10.1.0.11:8202 disabled
  server there 10.2.0.11:8202 disabled
"""


@pytest.fixture
def proxied(estate: Path) -> Path:
    """The good estate, its home proxy's configuration beside it and both services routed there."""
    estate.write_text(estate.read_text().replace("config: /etc/ph.cfg", "config: ./ph.cfg"))
    land = estate.parent / "runbooks" / "land-register.yaml"
    door = "  door: {type: haproxy, proxies: {home: [ph], embassy: [pe]}, backend: land-register}\n"
    land.write_text(land.read_text().replace("done-when:", f"{door}done-when:"))
    return estate


def test_lint_reads_what_a_proxy_loads(proxied: Path) -> None:
    (proxied.parent / "ph.cfg").write_text(LOADS)
    assert lint(proxied).problems == ()


@pytest.mark.parametrize(
    ("before", "after", "problems"),
    [
        ("  server-state-file ph.state\n", "  # ph.state\n", ("no `server-state-file /etc/ph.state`",)),
        ("ph.state", "ph.state.old", ("no `server-state-file /etc/ph.state`",)),
        ("  load-server-state-from-file global\n", "", ("backend land-register loads", "population-register loads")),
        ("from-file global", "from-file local", ("backend land-register loads", "population-register loads")),
        ("backend land", "defaults\nbackend land", ("backend land-register loads no saved state",)),
        ("backend land-register", "backend parcels", ("there is no backend land-register",)),
        ("server there 10.2.0.11:8201", "server abroad 10.2.0.11:8201", ("population-register needs the servers",)),
    ],
)  # fmt: skip
def test_lint_refuses_a_proxy_that_forgets(
    proxied: Path, before: str, after: str, problems: tuple[str, ...]
) -> None:
    assert before in LOADS
    (proxied.parent / "ph.cfg").write_text(LOADS.replace(before, after))
    findings = lint(proxied)
    assert {(p.file, p.line, p.path) for p in findings.problems} == {("estate.yaml", 27, "proxies.ph.config")}
    for found, expected in zip(findings.problems, problems, strict=True):
        assert expected in found.message
        assert "load-server-state-from-file global" in found.hint


def test_lint_warns_of_a_proxy_that_it_cannot_look_at(proxied: Path) -> None:
    findings = lint(proxied)
    assert findings.problems == ()
    said = [warning for warning in findings.warnings if "cannot be read here" in warning]
    assert len(said) == 2
    assert said[1].startswith("estate.yaml:27: proxies.ph.config: ./ph.cfg cannot be read here (No such file")


def test_a_missing_c_loader_is_said_once() -> None:
    assert loader.warnings(has_c_loader=False) == [loader.SLOW_LOADER_WARNING]
    assert loader.warnings(has_c_loader=True) == []


def test_schemas_know_every_key_that_the_loader_knows() -> None:
    for kind, cls in KINDS.items():
        document = json.loads(schema_documents()[f"{kind.lower()}.schema.json"])
        keys = {key.key for key in shape.keys_of(cls)}
        assert set(document["properties"]) == keys | {"apiVersion", "kind"}
        assert document["additionalProperties"] is False
        assert {"apiVersion", "kind"} <= set(document["required"])
    definitions = json.loads(schema_documents()["runbook.schema.json"])["$defs"]
    for kind, cls in shape.component_classes().items():
        definition = definitions[cls.__name__]
        assert {key.key for key in shape.keys_of(cls)} | {"type"} == set(definition["properties"])
        assert definition["properties"]["type"]["const"] == kind


def test_a_thousand_services_load_in_time(estate: Path) -> None:
    folder = estate.parent
    text = (folder / "runbooks" / "population-register.yaml").read_text()
    names = [f"s{index:04}" for index in range(SERVICES)]
    for name in names:
        (folder / "runbooks" / f"{name}.yaml").write_text(
            text.replace("name: population-register\n", f"name: {name}\n").replace(
                "name: population.example.", f"name: {name}.example."
            )
        )
    listed = ", ".join(["population-register", "land-register", *names])
    estate.write_text(estate.read_text().replace("population-register, land-register", listed))
    begin = time.perf_counter()
    loaded = load_estate(estate)
    seconds = time.perf_counter() - begin
    begin = time.perf_counter()
    for path in (folder / "runbooks").glob("s*.yaml"):
        loader.parse_text(path.read_text(), path, path.name, Problems())
    reading = time.perf_counter() - begin
    print(f"{SERVICES} runbooks: {seconds:.2f} s, of that reading YAML {reading:.2f} s")
    assert len(loaded.runbooks) == SERVICES + 2
    assert seconds < LOAD_SECONDS_MAX


def test_keys_that_are_stages_become_stages(estate: Path) -> None:
    runbook = estate.parent / "runbooks" / "land-register.yaml"
    runbook.write_text(
        runbook.read_text().replace(
            "done-when:",
            '  people:\n    type: manual\n    prompts: {start: "Call the Land Board"}\ndone-when:',
        )
    )
    people = load_estate(estate).runbooks["land-register"].components["people"]
    assert getattr(people, "prompts") == {Stage.START: "Call the Land Board"}  # noqa: B009
