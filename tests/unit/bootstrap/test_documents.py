"""What people are told of documents before they decide: what differs, and what could not be compared."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

from orchestrator.bootstrap.app import App
from orchestrator.bootstrap.documents import list_documents
from orchestrator.lab import editions
from orchestrator.settings import Settings
from tests.unit.planning import estates

GROUP, UNIT = "state-gazette", "state-gazette/documents"
STRANGE = "a\u2028b"


def edition(folder: Path, site: str, *lines: str) -> None:
    text = "".join(f"{line}\n" for line in lines)
    editions.add(folder / site / "gazette", 1, {"x": b"x"}, text, "signed")


def test_a_line_that_cannot_be_read_is_told_and_the_rest_is_listed(tmp_path: Path) -> None:
    one, two = "1" * 64, "2" * 64
    app = App(Settings(estates.write_lab(tmp_path)))
    edition(tmp_path, "home", f"{one}  a", f"\\{one}  c\\nd", f"{two}  {STRANGE}")
    edition(tmp_path, "embassy", f"{one}  a")
    with app.context("observe", "documents", 5.0) as made:
        hosts = {name: replace(host, reach="") for name, host in made.parts.hosts.items()}
        context = replace(made, parts=replace(made.parts, hosts=hosts))
        written = io.StringIO()
        lines, counts, unseen = list_documents(context, app, GROUP, "embassy", written)
    (row,) = [json.loads(line) for line in written.getvalue().split("\n") if line]
    assert (row["document"], row["lost"], row["site"]) == (STRANGE, two, "home")
    assert counts == {f"{UNIT}@home": {"only": 1, "differ": 0}}
    assert unseen == [{"documents": UNIT, "site": "home"}]
    assert f"{UNIT} at home: line 2 of the manifest cannot be read: what it names is not compared" in lines
