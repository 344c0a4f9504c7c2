"""Which rows differ, of two sides that are read in the order of their keys."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.drivers.postgresql_rows import Row, Table, differences, parse_table, read_text

SIDES = st.dictionaries(st.binary(max_size=3), st.sampled_from(["1", "2"]), max_size=12)


def side(values: dict[bytes, str]) -> Iterator[Row]:
    return iter([Row((key,), values[key]) for key in sorted(values)])


@given(SIDES, SIDES)
def test_what_one_side_alone_holds(lost: dict[bytes, str], kept: dict[bytes, str]) -> None:
    found = list(differences(side(lost), side(kept)))
    assert [row.lost.key[0] for row in found] == sorted(key for key in lost if lost[key] != kept.get(key))
    for row in found:
        key = bytes(row.lost.key[0])  # type: ignore[arg-type]
        assert row.lost.text == lost[key]
        assert (row.kept.text if row.kept else None) == kept.get(key)


def test_names_are_quoted_and_integers_keep_their_order() -> None:
    text = read_text(Table("My schema", 'a"b', (("id", "int4"), ("Name", "text"))))
    assert text == (
        'SELECT "id"::bigint, pg_catalog.convert_to("Name"::text, \'UTF8\'),'
        ' pg_catalog.row_to_json(whole.*)::text FROM "My schema"."a""b" AS whole'
        ' ORDER BY "id"::bigint, pg_catalog.convert_to("Name"::text, \'UTF8\')'
    )


@pytest.mark.parametrize(("text", "wanted"), [("rows", ("public", "rows")), ("a.rows", ("a", "rows"))])
def test_declared_tables(text: str, wanted: tuple[str, str]) -> None:
    assert parse_table(text) == wanted
