"""Arrays at a glance, in a few words."""

from typing import TYPE_CHECKING, Any

from gradlab.formatting import shape_text

if TYPE_CHECKING:
    from gradlab.graph.report import Glance

__all__ = ["glance_text", "number"]


def number(x: Any, digits: int = 4) -> str:
    """Return a number in few digits.

    Example:
        >>> number(-12.0), number(0.7310585), number(1e-9), number(float("nan")), number(7)
        ('-12', '0.7311', '1e-09', 'nan', '7')
    """
    return str(x) if isinstance(x, int) else f"{x:.{digits}g}"


def glance_text(glance: "Glance | None", digits: int = 4) -> str:
    """Return an array in a line: its entries if they are few, else shape, mean and range.

    Example:
        >>> from gradlab.graph.report import glance
        >>> import numpy as np
        >>> glance_text(glance(np.array([0.22, 0.26])))
        '[0.22 0.26]'
        >>> glance_text(glance(np.arange(12.0)))
        '12: mean 5.5 in [0, 11], 1 zero'
    """
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
