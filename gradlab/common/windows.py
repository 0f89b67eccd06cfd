"""Windows that walk over spatial axes: what convolution and pooling share.

`take` lays out what every window covers (im2col). `add` is its transpose (col2im): it adds each
entry once for every window that covers it. The arithmetic of sizes is that of Dumoulin and
Visin, "A guide to convolution arithmetic for deep learning" (arXiv:1603.07285, 2016).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import TypeAlias

import numpy as np
from numpy.lib.stride_tricks import as_strided

from gradlab.common.arrays import Array, Index, Shape, namespace
from gradlab.errors import InputError
from gradlab.formatting import shape_text

PerAxis: TypeAlias = int | tuple[int, ...]
Padding: TypeAlias = int | tuple[int | tuple[int, int], ...]


@dataclass(frozen=True)
class Windows:
    """A window, where it stands and what it covers, on each spatial axis.

    `padding`: what is added before and after each axis. `dilation`: the step between taps.
    """

    size: Shape
    window: Shape
    stride: Shape
    padding: tuple[tuple[int, int], ...]
    dilation: Shape

    @property
    def padded(self) -> Shape:
        """The spatial sizes with their padding."""
        return tuple(n + low + high for n, (low, high) in zip(self.size, self.padding))

    @property
    def places(self) -> Shape:
        """The number of places of the window: the output's spatial sizes."""
        return tuple(
            max(0, (n - d * (k - 1) - 1) // s + 1)
            for n, k, s, d in zip(self.padded, self.window, self.stride, self.dilation)
        )

    @property
    def taps(self) -> int:
        """The number of entries under one window."""
        return math.prod(self.window)

    @property
    def spots(self) -> int:
        """The number of all places."""
        return math.prod(self.places)

    @property
    def inside(self) -> Index:
        """The index that takes the padding off the last axes."""
        return (..., *(slice(low, low + n) for n, (low, _) in zip(self.size, self.padding)))

    def steps(self) -> Iterator[tuple[tuple[int, ...], Index]]:
        """Yield each tap, and the index of all entries of the padded axes that lie under it."""
        places = self.places
        for tap in product(*map(range, self.window)):
            starts = (d * k for d, k in zip(self.dilation, tap))
            steps = zip(starts, self.stride, places)
            yield tap, (..., *(slice(start, start + s * n, s) for start, s, n in steps))

    def pad(self, x: Array, fill: float = 0.0) -> Array:
        """Return x with its padding: (..., *size) -> (..., *padded)."""
        if self.padded == self.size:
            return x
        lead = ((0, 0),) * (len(x.shape) - len(self.size))
        return namespace(x).pad(x, lead + self.padding, constant_values=fill)

    def take(self, x: Array, fill: float = 0.0) -> Array:
        """Return what each window covers: (..., *size) -> (..., *window, *places)."""
        x = self.pad(x, fill)
        xp, lead = namespace(x), len(x.shape) - len(self.size)
        if xp is np:
            steps = x.strides[lead:]
            within = tuple(d * step for d, step in zip(self.dilation, steps))
            between = tuple(s * step for s, step in zip(self.stride, steps))
            shape = x.shape[:lead] + self.window + self.places
            return as_strided(x, shape, x.strides[:lead] + within + between, writeable=False)
        for i, (k, n) in enumerate(zip(self.window, self.places)):
            index = self.dilation[i] * np.arange(k)[:, None] + self.stride[i] * np.arange(n)
            x = x[(slice(None),) * (lead + 2 * i) + (index,)]
        return xp.permute_dims(
            x, (*range(lead), *range(lead, x.ndim, 2), *range(lead + 1, x.ndim, 2))
        )

    def add(self, windows: Array) -> Array:
        """Return the windows added where they stand: (..., *window, *places) -> (..., *size)."""
        rank = len(self.size)
        lead, every = windows.shape[: -2 * rank], (slice(None),) * rank
        parts = ((where, windows[(..., *tap, *every)]) for tap, where in self.steps())
        return self.total(lead, windows, parts)

    def total(self, lead: Shape, like: Array, parts: Iterator[tuple[Index, Array]]) -> Array:
        """Return the sum of parts, each set into zeros at its index: `(*lead, *size)`.

        `lead`: the sizes of the axes before the spatial ones. No index names a place twice.
        """
        xp = namespace(like)
        total = xp.zeros((*lead, *self.padded), dtype=like.dtype)
        for where, values in parts:
            if xp is np:
                total[where] += values
            else:
                total = total.at[where].add(values)
        return total[self.inside]

    @property
    def covers(self) -> Array:
        """Whether a tap lies inside, not in the padding: booleans (*window, *places)."""
        return self.take(np.ones(self.size)) > 0

    @property
    def entries(self) -> Array:
        """The flat spatial index that a tap reads, 0 in the padding: (*window, *places)."""
        return self.take(np.arange(math.prod(self.size)).reshape(self.size))


def per_axis(caller: object, argument: str, value: PerAxis, rank: int) -> Shape:
    """Return one positive number for each spatial axis."""
    numbers = (value,) * rank if isinstance(value, int) else tuple(value)
    if len(numbers) != rank or any(n < 1 for n in numbers):
        raise InputError(
            f"{caller}: {argument} is {value}; expected a positive number, or one for each of the "
            f"{rank} spatial axes"
        )
    return numbers


def paddings(caller: object, padding: Padding, rank: int) -> tuple[tuple[int, int], ...]:
    """Return a pair (before, after) for each spatial axis."""
    sides = (padding,) * rank if isinstance(padding, int) else tuple(padding)
    pairs = tuple((side, side) if isinstance(side, int) else tuple(side) for side in sides)
    if len(pairs) != rank or any(len(pair) != 2 or min(pair) < 0 for pair in pairs):
        raise InputError(
            f"{caller}: padding is {padding}; expected a number, or for each of the {rank} spatial "
            "axes a number or a pair (before, after), none negative"
        )
    return tuple((low, high) for low, high in pairs)


def windows(
    caller: object,
    size: Shape,
    window: Shape,
    stride: PerAxis,
    padding: Padding,
    dilation: PerAxis,
    ceil: bool = False,
) -> Windows:
    """Return the windows that these arguments describe, checked.

    `ceil`: a last window may hang over the end, if it begins before it.
    """
    rank = len(size)
    strides = per_axis(caller, "stride", stride, rank)
    dilations = per_axis(caller, "dilation", dilation, rank)
    pairs = paddings(caller, padding, rank)
    if ceil:
        pairs = tuple(
            (low, high + _overhang(n, n + low + high, low, d * (k - 1) + 1, s))
            for n, (low, high), k, s, d in zip(size, pairs, window, strides, dilations)
        )
    walk = Windows(size, window, strides, pairs, dilations)
    if any(n < 1 for n in walk.places):
        raise InputError(
            f"{caller}: a window of {shape_text(window)}, dilated by {dilation}, is larger than "
            f"the padded spatial axes, {shape_text(walk.padded)}; pad more or take a smaller window"
        )
    return walk


def _overhang(size: int, padded: int, low: int, span: int, stride: int) -> int:
    """Return by how much the last window hangs over the end, or 0 if it would begin behind it."""
    rest = (padded - span) % stride
    start = padded - span - rest + stride
    return stride - rest if rest and start < size + low else 0
