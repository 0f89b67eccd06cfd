"""An array at a glance: what a person wants to know of it in half a line."""

from dataclasses import dataclass

import numpy as np

from gradlab.common.arrays import Array, Tree, is_inexact

_SMALL = 6  # arrays of so many entries are shown whole
_CELLS = 24  # of a heat map, along each side


@dataclass(frozen=True)
class Glance:
    """An array at a glance: small ones whole, others by what their entries are like.

    Attributes:
        shape: its shape.
        dtype: its dtype.
        entries: all entries, nested, where there are few; else None.
        low: the least finite entry; the least size, if they are complex.
        mean: the mean of the finite entries, or of their sizes.
        high: the greatest finite entry, or size.
        zeros: how many entries are 0.
        nans: how many entries are NaN.
        infinities: how many entries are infinite.
        heat: the array seen from far, where that was asked for: rows run over all axes but the
            last, and a cell holds the largest entry of a block, by size, with its sign.
    """

    shape: tuple[int, ...]
    dtype: str
    entries: Tree = None
    low: float | None = None
    mean: float | None = None
    high: float | None = None
    zeros: int = 0
    nans: int = 0
    infinities: int = 0
    heat: tuple[tuple[float, ...], ...] = ()

    @property
    def size(self) -> float:
        """The size of the largest finite entry."""
        return max(abs(self.low or 0.0), abs(self.high or 0.0))

    @property
    def finite(self) -> bool:
        """Whether there is neither a NaN nor an infinity."""
        return not (self.nans or self.infinities)


def glance(array: Array, heat: bool = False) -> Glance:
    """Return an array at a glance."""
    if not isinstance(array, np.ndarray | np.generic) and not _is_plain(array):
        return Glance(tuple(array.shape), str(array.dtype))  # random keys, tracers
    array = np.asarray(array)
    inexact = is_inexact(array.dtype)
    if not inexact and array.dtype.kind not in "iub":
        return Glance(tuple(array.shape), str(array.dtype))
    nans = int(np.isnan(array).sum()) if inexact else 0
    finite = array[np.isfinite(array)] if inexact else array
    wide = np.abs(finite) if array.dtype.kind == "c" else finite.astype(float)
    seen = heat and array.size > _SMALL and array.dtype.kind != "c"
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
        heat=_from_far(array.astype(float)) if seen else (),
    )


def _from_far(array: Array) -> tuple[tuple[float, ...], ...]:
    """Return a grid of at most 24 x 24 cells: in each the entry of its block that is largest.

    A NaN is larger than anything, so that none is overlooked.
    """
    matrix = array.reshape(-1, array.shape[-1])
    for axis in (0, 1):
        edges = _edges(matrix.shape[axis])
        most = np.maximum.reduceat(matrix, edges, axis)
        least = np.minimum.reduceat(matrix, edges, axis)
        matrix = np.where(np.abs(least) > np.abs(most), least, most)
    return tuple(map(tuple, matrix.tolist()))


def _edges(size: int) -> Array:
    """Return where the blocks begin when an axis is divided into at most 24."""
    return np.arange(min(size, _CELLS)) * size // min(size, _CELLS)


def _is_plain(array: Array) -> bool:
    """Return whether NumPy can read an array: a number, or what lies in memory."""
    if isinstance(array, int | float | complex):
        return True
    try:
        np.asarray(array)
    except Exception:
        return False
    return True
