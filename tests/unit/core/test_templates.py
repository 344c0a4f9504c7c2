"""What ``${…}`` becomes: a closed set of values, and nothing is left in the text."""

from __future__ import annotations

import pytest

from orchestrator.core.model import Host
from orchestrator.core.templates import host_values, resolve, resolve_json
from orchestrator.errors import InputError

VALUES = {"to.name": "embassy", "host.address": "127.0.0.1"}


def test_every_name_is_replaced_and_the_rest_is_left_alone() -> None:
    assert resolve("http://${host.address}/${to.name}/$x", VALUES) == "http://127.0.0.1/embassy/$x"
    assert resolve("no name at all", {}) == "no name at all"


def test_an_unknown_name_is_met_with_the_known_ones() -> None:
    with pytest.raises(
        InputError, match=r"unknown \$\{from\.name\}; known: \$\{host\.address\}, \$\{to\.name\}"
    ):
        resolve("${from.name}", VALUES)
    with pytest.raises(InputError, match="known: none here"):
        resolve("${x}", {})


@pytest.mark.parametrize("text", ["${to.name", "a ${ b", "${to.name} and ${to"])
def test_a_name_that_is_not_closed_is_an_error(text: str) -> None:
    with pytest.raises(InputError, match="not closed"):
        resolve(text, VALUES)


def test_a_value_that_looks_like_a_name_is_not_resolved_again() -> None:
    assert resolve("${a}", {"a": "${b}", "b": "no"}) == "${b}"


def test_texts_inside_json_are_resolved_and_keys_are_not() -> None:
    value = {"${to.name}": ["${to.name}", 1, None, {"x": "${host.address}"}]}
    assert resolve_json(value, VALUES) == {"${to.name}": ["embassy", 1, None, {"x": "127.0.0.1"}]}


def test_what_a_host_offers() -> None:
    values = host_values(Host("h1", "home", "10.0.0.1"))
    assert values == {"host.name": "h1", "host.address": "10.0.0.1", "host.site": "home", "site.name": "home"}
