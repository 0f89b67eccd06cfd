"""A window's columns as a structured map."""

import math
from typing import Any

from gradlab.common.arrays import Shape
from gradlab.common.windows import Padding, PerAxis, Windows, paddings, per_axis, windows
from gradlab.operators import Operator, Reshape, Selection, embedding

__all__ = [
    "Padding",
    "PerAxis",
    "Windows",
    "paddings",
    "per_axis",
    "take_operator",
    "windows",
]


def take_operator(walk: Windows, shape: Shape, dtype: Any) -> Operator:
    """Return `walk.take` as a map from (batch, channels, *size) to (batch, channels, taps, places).

    It reads each window's entries: a selection, after zeros are set around the input.
    """
    lead, rows = shape[:2], math.prod(walk.padded)
    entries = Windows(
        walk.padded, walk.window, walk.stride, ((0, 0),) * len(walk.size), walk.dilation
    )
    indices = entries.entries.reshape(walk.taps, -1)
    return (
        Selection(indices, (*lead, rows), dtype, axis=2)
        @ Reshape((*lead, *walk.padded), (*lead, rows), dtype)
        @ embedding((slice(None), slice(None), *walk.inside[1:]), (*lead, *walk.padded), dtype)
    )
