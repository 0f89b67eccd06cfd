"""Plain tables; on a terminal as wide as it is, else as wide as a file may be."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from itertools import zip_longest
from textwrap import wrap

_WIDTH, _GAP = 100, 2
_WORD = 12  # a column of words may become as narrow as this, or as its longest word
_NUMBER = re.compile(r"[-+]?\d")
_detailed: ContextVar[bool] = ContextVar("gradlab_detailed", default=False)
_columns: ContextVar[int | None] = ContextVar("gradlab_columns", default=None)


@contextlib.contextmanager
def fitted(columns: int | None) -> Iterator[None]:
    """Draw the tables inside for a terminal of so many columns; None: for a file.

    Numbers are never cut: where a terminal is too narrow for them, lines are longer than it.
    """
    token = _columns.set(columns)
    try:
        yield
    finally:
        _columns.reset(token)


@contextlib.contextmanager
def detailed(chosen: bool = True) -> Iterator[None]:
    """Tell inside all that a report knows: every law, in floors."""
    token = _detailed.set(chosen)
    try:
        yield
    finally:
        _detailed.reset(token)


def is_detailed() -> bool:
    """Return whether all that a report knows is told."""
    return _detailed.get()


def width_now() -> int:
    """Return the columns of the terminal, or as many as a file may have."""
    return _columns.get() or _WIDTH


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table without frames; columns that hold numbers are aligned to the right."""
    columns = [[header, *(row[i] for row in rows)] for i, header in enumerate(headers)]
    numeric = [bool(rows) and all(map(_NUMBER.match, cells[1:])) for cells in columns]
    widths = _widths(columns, numeric, width_now())
    lines = []
    for row in (headers, *rows):
        folded = (wrap(cell, width) for cell, width in zip(row, widths))
        for cells in zip_longest(*folded, fillvalue=""):
            sides = zip(cells, widths, numeric)
            padded = (f"{c:>{w}}" if right else f"{c:<{w}}" for c, w, right in sides)
            lines.append((" " * _GAP).join(padded).rstrip())
    return "\n".join(lines)


def _widths(columns: list[list[str]], numeric: list[bool], limit: int) -> list[int]:
    """Return the columns' widths: the widest columns of words give way until all fit."""
    widths = [max(map(len, cells)) for cells in columns]
    least = [
        width if fixed else min(width, max([_WORD, *(len(w) for c in cells for w in c.split())]))
        for width, fixed, cells in zip(widths, numeric, columns)
    ]
    while sum(widths) + _GAP * (len(widths) - 1) > limit:
        slack = [width - low for width, low in zip(widths, least)]
        if not any(slack):
            break
        widest = max((width, i) for i, width in enumerate(widths) if slack[i])[1]
        widths[widest] -= 1
    return widths
