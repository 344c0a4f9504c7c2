"""The strict YAML reader: the C and the plain composer agree, and nothing ambiguous passes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.runbook import loader
from orchestrator.runbook.problems import Problems, path_text, suggest

AMBIGUOUS = [
    *("yes", "No", "ON", "off", "y", "N"),
    *(
        "017",
        "0o17",
        "0x1F",
        "0b11",
        "1_000",
        "12:30",
        "190:20:30.15",
        "1.5",
        ".5",
        "1e3",
        "-1.0",
        "+.inf",
        ".nan",
    ),
    *("2017-06-20", "2001-12-14t21:59:43.10-05:00", "2001-12-14 21:59:43"),
]
TEXTS = [
    "10.1.0.11",
    "v1",
    "30s",
    "64MiB",
    "12:30:xx",
    "1.2.3",
    "-",
    "a:b",
    "0s",
    "01-x",
    "true-ish",
    "-5s",
    "..",
    "1-2",
]


def load(text: str, *, fast: bool = loader.HAS_C_LOADER) -> tuple[object, list[str]]:
    problems = Problems()
    document = loader.parse_text(text, Path("x.yaml"), "x.yaml", problems, fast=fast)
    return (document.data if document else None), [str(problem) for problem in problems.ordered()]


@pytest.mark.parametrize("written", AMBIGUOUS)
def test_an_ambiguous_scalar_is_refused_bare_and_taken_quoted(written: str) -> None:
    _, found = load(f"key: {written}\n")
    assert len(found) == 1
    assert "x.yaml:1: key:" in found[0]
    assert "hint:" in found[0]
    assert load(f'key: "{written}"\n') == ({"key": written}, [])


@pytest.mark.parametrize("written", TEXTS)
def test_plain_text_stays_text(written: str) -> None:
    assert load(f"key: [{written}]\n") == ({"key": [written]}, [])


def test_the_core_schema() -> None:
    text = "a: true\nb: False\nc: 12\nd: -3\ne: 0\nf: ~\ng:\nh: null\ni: |\n  block\nj: 'true'\n"
    expected = {"a": True, "b": False, "c": 12, "d": -3, "e": 0, "f": None, "g": None, "h": None}
    assert load(text) == ({**expected, "i": "block\n", "j": "true"}, [])


def test_keys_are_text_even_where_yaml_has_other_ideas() -> None:
    assert load("on: h1\nyes: 1\n8080: x\n") == ({"on": "h1", "yes": 1, "8080": "x"}, [])


def test_a_duplicate_key_is_named_with_both_lines() -> None:
    data, found = load("a: 1\nb:\n  c: 1\n  c: 2\na: 3\n")
    assert data == {"a": 1, "b": {"c": 1}}
    assert [line for line in "\n".join(found).splitlines() if "stands twice" in line] == [
        "x.yaml:4: b.c: key `c` stands twice, first in line 3",
        "x.yaml:5: a: key `a` stands twice, first in line 1",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "a: &x 1\nb: *x\n",
        "a: &x {b: 1}\nc: {<<: *x}\n",
        "a: !!python/object/apply:os.system [ls]\n",
        "a: !mine b\n",
        "? [a]\n: b\n",
        "a: *none\n",
        "a: 1\n---\nb: 2\n",
        "a: [1\n",
        "a: b: c\n",
        "\ta: 1\n",
        "- a\n",
        "",
        "a\n",
        '"": 1\n',
        "a: &x [*x]\n",
        "a: " + "[" * 60 + "]" * 60 + "\n",
        "a: 1234567890123456789012\n",
    ],
)
@pytest.mark.parametrize("fast", [True, False])
def test_what_is_refused_never_raises(text: str, fast: bool) -> None:
    if fast and not loader.HAS_C_LOADER:
        pytest.skip("PyYAML without libyaml")
    _, found = load(text, fast=fast)
    assert found
    assert all("hint: " in problem for problem in found)


_words = st.text(alphabet="abcxyz-019.:", min_size=1, max_size=8)
_values = st.recursive(
    st.one_of(_words, st.integers(-99, 99), st.booleans(), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_words, inner, max_size=4)),
    max_leaves=12,
)


@given(st.dictionaries(_words, _values, min_size=1, max_size=4))
def test_what_json_writes_is_read_back_by_both_composers(value: dict[str, object]) -> None:
    import json

    text = json.dumps(value)
    assert load(text, fast=False) == (value, [])
    if loader.HAS_C_LOADER:
        assert load(text, fast=True) == (value, [])


def test_a_pruned_document_keeps_lines_and_paths() -> None:
    problems = Problems()
    document = loader.parse_text("a:\n  - x\n  - y\n  - z\nb: 1\n", Path("x"), "x", problems)
    assert document is not None
    assert document.prune(("a", 0))
    assert document.data["a"] == ["y", "z"]
    assert document.place(("a", 1)) == (4, "a[2]")
    assert document.place(("a", 0)) == (3, "a[1]")
    assert document.was_cut(("a",)) is False
    assert document.prune(("a", 7)) is False
    assert document.prune(("b",))
    assert document.place(("b",)) == (1, "b")


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    problems = Problems()
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"a: 1\nb: \xe9\n")
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (loader.FILE_BYTES_MAX + 1))
    for path in (tmp_path / "absent.yaml", latin, large):
        assert loader.read(path, path.name, problems) is None
    texts = [str(problem).splitlines()[0] for problem in problems.ordered()]
    assert texts[0] == "absent.yaml: (top): cannot be read: No such file or directory"
    assert texts[1:] == [
        "large.yaml: (top): is larger than 4194304 bytes",
        "latin.yaml:2: (top): is not UTF-8 text",
    ]


def test_paths_and_suggestions() -> None:
    assert path_text(("steps", 0, "with", "a b")) == 'steps[0].with["a b"]'
    assert suggest("registers-dc", ["registers-db", "x"]) == "did you mean `registers-db`?"
    assert suggest("q", []) == "none is declared"
    assert suggest("zzz", [f"n{i}" for i in range(20)]).endswith(" and 8 more")
