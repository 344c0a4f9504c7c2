"""Decides how many values are kept by name so that replacing a few copies a few; must never change in place.

A plain dict copied for every event of a run of thousands of units made a fold grow with their square.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

V = TypeVar("V")
SHELF_SIZE = 64


@dataclass(frozen=True, slots=True)
class Shelves(Mapping[str, V]):
    """A mapping in the order in which it was made. ``places``: name → its shelf; never changes."""

    places: Mapping[str, int]
    shelves: tuple[Mapping[str, V], ...]

    def __getitem__(self, name: str) -> V:
        return self.shelves[self.places[name]][name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    def replaced(self, changes: Mapping[str, V]) -> Shelves[V]:
        """The same with other values for some of its names. KeyError for a name that it does not have."""
        shelves = list(self.shelves)
        copied: dict[int, dict[str, V]] = {}
        for name, value in changes.items():
            place = self.places[name]
            if place not in copied:
                shelves[place] = copied[place] = dict(shelves[place])
            copied[place][name] = value
        return Shelves(self.places, tuple(shelves))


def shelved(values: Mapping[str, V]) -> Shelves[V]:
    """The same mapping, kept in shelves."""
    names = list(values)
    chunks = [names[first : first + SHELF_SIZE] for first in range(0, len(names), SHELF_SIZE)]
    places = {name: place for place, chunk in enumerate(chunks) for name in chunk}
    return Shelves(places, tuple({name: values[name] for name in chunk} for chunk in chunks))


@dataclass(frozen=True, slots=True)
class Names(Collection[str]):
    """A set of names of a shelved mapping, in no order; adding or taking one away copies one shelf."""

    places: Mapping[str, int]
    shelves: tuple[frozenset[str], ...]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self.places and name in self.shelves[self.places[name]]

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(self.shelves)

    def __len__(self) -> int:
        return sum(map(len, self.shelves))

    def changed(self, name: str, *, is_in: bool) -> Names:
        """The same with a name in it, or without. KeyError for a name that the mapping does not have."""
        shelves, place = list(self.shelves), self.places[name]
        shelves[place] = shelves[place] | {name} if is_in else shelves[place] - {name}
        return Names(self.places, tuple(shelves))


def names_in(values: Shelves[V], wanted: Callable[[V], bool]) -> Names:
    """The names of the values that are wanted."""
    shelves = tuple(frozenset(n for n, value in shelf.items() if wanted(value)) for shelf in values.shelves)
    return Names(values.places, shelves)
