"""The one book of primitives: a record for each, found by name."""

from gradlab.primitives import (
    algebra,
    calls,
    contractions,
    elementwise,
    indexing,
    movement,
    ordering,
    parallel,
    reductions,
    sources,
    windows,
)
from gradlab.primitives.record import Primitive

_FAMILIES = (
    elementwise.RECORDS,
    movement.RECORDS,
    indexing.RECORDS,
    reductions.RECORDS,
    ordering.RECORDS,
    contractions.RECORDS,
    windows.RECORDS,
    algebra.RECORDS,
    parallel.RECORDS,
    sources.RECORDS,
    calls.RECORDS,
)
_BOOK = {record.name: record for family in _FAMILIES for record in family}


def lookup(name: str) -> Primitive:
    """Return the record of a primitive; of one that is not in the book, the safe answers."""
    return _BOOK.get(name) or Primitive(name=name)


def names() -> tuple[str, ...]:
    """Return the names of all primitives in the book."""
    return tuple(_BOOK)
