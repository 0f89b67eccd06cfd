"""An array at a glance: what a person wants to know of it in half a line."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from gradlab.nodes._arrays import is_inexact

__all__ = ["Glance", "glance"]

_SMALL = 6  # arrays of so many entries are shown whole


@dataclass(frozen=True)
class Glance:
    """An array at a glance: small ones whole, others by what their entries are like.

    `low`, `mean` and `high` are those of the finite entries; of their sizes, if they are complex.
    """

    shape: tuple[int, ...]
    dtype: str
    entries: Any = None
    low: float | None = None
    mean: float | None = None
    high: float | None = None
    zeros: int = 0
    nans: int = 0
    infinities: int = 0

    @property
    def size(self) -> float:
        """The size of the largest finite entry."""
        return max(abs(self.low or 0.0), abs(self.high or 0.0))

    @property
    def finite(self) -> bool:
        """Whether there is neither a NaN nor an infinity."""
        return not (self.nans or self.infinities)


def glance(array: Any) -> Glance:
    """Return an array at a glance.

    Example:
        >>> glance(np.array([[1.0, 0.0], [-1.0, 4.0]])).entries
        [[1.0, 0.0], [-1.0, 4.0]]
        >>> picture = glance(np.arange(12.0))
        >>> picture.low, picture.mean, picture.high, picture.zeros
        (0.0, 5.5, 11.0, 1)
    """
    if not isinstance(array, np.ndarray | np.generic) and not _is_plain(array):
        return Glance(tuple(array.shape), str(array.dtype))  # random keys, tracers
    array = np.asarray(array)
    inexact = is_inexact(array.dtype)
    if not inexact and array.dtype.kind not in "iub":
        return Glance(tuple(array.shape), str(array.dtype))
    nans = int(np.isnan(array).sum()) if inexact else 0
    finite = array[np.isfinite(array)] if inexact else array
    wide = np.abs(finite) if array.dtype.kind == "c" else finite.astype(float)
    return Glance(
        tuple(array.shape),
        str(array.dtype),
        entries=array.tolist() if array.size <= _SMALL and array.dtype.kind != "c" else None,
        low=float(wide.min()) if wide.size else None,
        mean=float(wide.mean()) if wide.size else None,
        high=float(wide.max()) if wide.size else None,
        zeros=int(array.size - np.count_nonzero(array)),
        nans=nans,
        infinities=array.size - finite.size - nans,
    )


def _is_plain(array: Any) -> bool:
    """Return whether NumPy can read an array: a number, or what lies in memory."""
    if isinstance(array, int | float | complex):
        return True
    try:
        np.asarray(array)
    except Exception:
        return False
    return True
