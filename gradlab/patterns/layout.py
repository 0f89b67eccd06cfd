"""Axes as digits of mixed radix: how an index is written so that reshapes become renamings.

The index of an axis is `sum(stride * digit)`, the strides falling to 1 and each a multiple of the
next; the leading digit has `ceil(size / stride)` values, another the ratio to the stride before it.
An axis of 12 read as 3 x 4 has strides (4, 1). An axis of one entry needs no digit. Where the
leading stride does not divide the size, some digits stand for no index; zones then carry the bounds
that exclude them.

A frame is the list of the digits of all axes of a pattern: the variables of its bounds, numbered
from 1, outputs first. Frames are interned: equal frames are the same object.
"""

from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from gradlab.patterns.dbm import Bounds, free
from gradlab.patterns.size import divides


class Axis(NamedTuple):
    """An axis and how its index is written."""

    size: int
    strides: tuple[int, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of values of each digit."""
        if not self.strides:
            return ()
        lead = -(-self.size // self.strides[0])
        return (lead, *(high // low for high, low in pairwise(self.strides)))


class Frame:
    """The digits of all axes; build it with `frame` only."""

    def __init__(self, output: tuple[Axis, ...], input: tuple[Axis, ...]) -> None:
        self.output, self.input = output, input
        self.axes = output + input
        self.sizes = tuple(size for axis in self.axes for size in axis.sizes)
        self.strides = tuple(stride for axis in self.axes for stride in axis.strides)
        self.axis_of = tuple(k for k, axis in enumerate(self.axes) for _ in axis.strides)
        self.outputs = sum(len(axis.strides) for axis in output)
        self.inputs = len(self.sizes) - self.outputs
        self.is_plain = all(len(axis.strides) <= 1 for axis in self.axes)
        self.free: Bounds = free(self.sizes)
        self.free.setflags(write=False)
        starts, n = [], 1
        for axis in self.axes:
            starts.append(n)
            n += len(axis.strides)
        self.starts = tuple(starts)

    def __reduce__(self) -> tuple[Any, ...]:
        return frame, (self.output, self.input)  # equal frames stay one object

    def digits(self, axis: int) -> list[int]:
        """Return the variables of one axis (outputs first, then inputs), the leading one first."""
        start = self.starts[axis]
        return list(range(start, start + len(self.axes[axis].strides)))

    def flat_strides(self) -> list[int]:
        """Return what one step of each variable adds to the flat output or input index."""
        steps = []
        for axes in (self.output, self.input):
            sizes = [axis.size for axis in axes]
            for k, axis in enumerate(axes):
                steps += [stride * prod(sizes[k + 1 :]) for stride in axis.strides]
        return steps

    def replaced(self, axes: dict[int, Axis]) -> "Frame":
        """Return the frame with some axes written otherwise."""
        new = tuple(axes.get(k, axis) for k, axis in enumerate(self.axes))
        return frame(new[: len(self.output)], new[len(self.output) :])


_FRAMES: WeakValueDictionary[tuple[tuple[Axis, ...], tuple[Axis, ...]], Frame] = (
    WeakValueDictionary()
)


@lru_cache(maxsize=1024)
def frame(output: tuple[Axis, ...], input: tuple[Axis, ...]) -> Frame:
    """Return the one frame with these axes: one as long as anybody holds it."""
    found = _FRAMES.get((output, input))
    if found is None:
        found = _FRAMES[output, input] = Frame(output, input)
    return found


def plain(size: int) -> Axis:
    """Return an axis written as one digit."""
    return Axis(size, (1,) if size > 1 else ())


def chain(strides: Iterable[int]) -> tuple[int, ...] | None:
    """Return distinct strides in falling order, or None if one does not divide the next."""
    ordered = sorted(set(strides), reverse=True)
    return tuple(ordered) if all(divides(low, high) for high, low in pairwise(ordered)) else None
