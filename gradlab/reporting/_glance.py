"""Arrays at a glance, in a few words."""

from typing import TYPE_CHECKING, Any

from gradlab.common.arrays import Array
from gradlab.formatting import shape_text

if TYPE_CHECKING:
    from gradlab.graph._glance import Glance


def number(x: Array, digits: int = 4) -> str:
    """Return a number in few digits."""
    return str(x) if isinstance(x, int) else f"{x:.{digits}g}"


def glance_text(glance: "Glance | None", digits: int = 4) -> str:
    """Return an array in a line: its entries if they are few, else shape, mean and range."""
    if glance is None:
        return ""
    if glance.entries is not None:
        return _entries_text(glance.entries, digits)
    parts = []
    if glance.low is not None and glance.mean is not None and glance.high is not None:
        low, mean, high = (number(x, digits) for x in (glance.low, glance.mean, glance.high))
        parts.append(f"mean {mean} in [{low}, {high}]")
    for amount, word in ((glance.zeros, "zero"), (glance.nans, "NaN"), (glance.infinities, "inf")):
        if amount:
            parts.append(f"{amount:,} {word}{'s' if amount > 1 and word == 'zero' else ''}")
    return f"{shape_text(glance.shape)}: {', '.join(parts)}"


def _entries_text(entries: Any, digits: int) -> str:
    if isinstance(entries, list):
        return f"[{' '.join(_entries_text(x, digits) for x in entries)}]"
    return number(entries, digits)


def label_lines(glance: "Glance | None", decimals: int) -> tuple[str, ...]:
    """Return an array in the lines that stand at its wire: a small matrix, or mean [range]."""
    if glance is None:
        return ()
    entries = glance.entries
    if isinstance(entries, list) and entries and isinstance(entries[0], list):
        if len(glance.shape) == 2 and entries[0]:
            return _matrix([[short(x, decimals) for x in row] for row in entries])
    elif isinstance(entries, list):
        return (f"[{' '.join(short(x, decimals) for x in entries)}]",)
    elif entries is not None:
        return (entries if isinstance(entries, str) else short(entries, decimals),)
    if glance.low is None or glance.mean is None or glance.high is None:
        bad = f"{glance.nans} NaN" if glance.nans else f"{glance.infinities} inf"
        return (bad if glance.nans or glance.infinities else "empty",)
    low, mean, high = (_brief(x) for x in (glance.low, glance.mean, glance.high))
    return (low if low == high else f"{mean} [{low}, {high}]",)


def short(x: Array, decimals: int) -> str:
    """Return a number with so many decimals, or in scientific notation where they would not do."""
    if isinstance(x, bool | int) or x != x or x in (float("inf"), float("-inf")):
        return str(x)
    if x and not 10.0**-decimals <= abs(x) < 10_000:
        mantissa, _, exponent = f"{x:.{min(decimals, 2)}e}".partition("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        return f"{mantissa}e{int(exponent)}"
    fixed = f"{x:.{decimals}f}"
    fixed = fixed.rstrip("0").rstrip(".") if "." in fixed else fixed
    return "0" if fixed == "-0" else fixed


def _brief(x: float) -> str:
    """Return a number in three digits or so: what a summary needs."""
    size = abs(x)
    return short(x, 2 if 0.01 <= size < 10 else 0 if 100 <= size < 10_000 else 1)


def _matrix(rows: list[list[str]]) -> tuple[str, ...]:
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [" ".join(f"{cell:>{width}}" for cell, width in zip(row, widths)) for row in rows]
    if len(lines) == 1:
        return (f"[{lines[0]}]",)
    left = ["⎡", *"⎢" * (len(lines) - 2), "⎣"]
    right = ["⎤", *"⎥" * (len(lines) - 2), "⎦"]
    return tuple(f"{a}{line}{b}" for a, line, b in zip(left, lines, right))
