"""The one book of primitives: a record for each, found by name."""

from typing import Any

from gradlab.primitives import (
    algebra,
    calls,
    contractions,
    elementwise,
    indexing,
    movement,
    reductions,
    windows,
)
from gradlab.primitives.record import Primitive

_FAMILIES: tuple[Any, ...] = (elementwise, movement, indexing, reductions, contractions, windows)
_FAMILIES += (algebra, calls)
_BOOK: dict[str, Primitive] = {r.name: r for family in _FAMILIES for r in family.RECORDS}


def lookup(name: str) -> Primitive:
    """Return the record of a primitive; of one that is not in the book, the safe answers."""
    return _BOOK.get(name) or Primitive(name=name)


def names() -> tuple[str, ...]:
    """Return the names of all primitives in the book."""
    return tuple(_BOOK)
