"""Reshapes: equal digits on both sides, wherever the strides divide each other."""

from itertools import pairwise
from math import prod

import numpy as np

from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.patterns import bounds as dbm
from gradlab.patterns.building import Shape
from gradlab.patterns.digits import Axis, frame, plain
from gradlab.patterns.pattern import Pattern
from gradlab.patterns.points import LIMIT
from gradlab.patterns.remembering import remembered
from gradlab.patterns.zone import Relation, Zone

__all__ = ["reshape"]


@remembered
def reshape(input_shape: Shape, output_shape: Shape) -> Pattern:
    """Return a reshape in row-major order: equal digits on both sides.

    Axes are taken in the smallest groups whose products agree. Where strides of a group do not
    divide each other (4 x 6 read as 6 x 4), the digits between are tied by an explicit permutation,
    or by nothing if it had more than 2^22 entries.

    Example:
        >>> reshape((12,), (3, 4)).notation
        'out[i, j] <- in[4*i+j]'
    """
    if prod(input_shape) != prod(output_shape):
        raise InputError(
            f"reshape: {shape_text(input_shape)} has {prod(input_shape)} entries, "
            f"{shape_text(output_shape)} has {prod(output_shape)}; they must be equal"
        )
    if not prod(input_shape):
        return Pattern.zero(output_shape, input_shape)
    flat = [_flat_strides(shape) for shape in (output_shape, input_shape)]
    breaks = {s for side in flat for s in side} | {1, prod(input_shape)}
    common = sorted(b for b in breaks if all(b % c == 0 or c % b == 0 for c in breaks))
    axes: list[list[Axis]] = []
    strides: list[list[int]] = []
    for shape, side in zip((output_shape, input_shape), flat):
        axes.append([])
        strides.append([])
        for n, s in zip(shape, side):
            inner = sorted({s, *(b for b in common if s < b < s * n and b % s == 0)}, reverse=True)
            axes[-1].append(Axis(n, tuple(b // s for b in inner)) if n > 1 else plain(1))
            strides[-1] += inner if n > 1 else []
    f = frame(tuple(axes[0]), tuple(axes[1]))
    d = f.free.copy()
    relations = []
    notes = []
    for low, high in pairwise(common):
        rows = [v for v, s in enumerate(strides[0], 1) if low <= s < high]
        columns = [v for v, s in enumerate(strides[1], f.outputs + 1) if low <= s < high]
        if len(rows) == len(columns) == 1:
            d[rows[0], columns[0]] = d[columns[0], rows[0]] = 0
        elif (size := high // low) <= LIMIT:
            import scipy.sparse as sp  # a fifth of a second, for explicit entries alone

            same = sp.eye_array(size, dtype=np.bool_, format="csr")
            relations.append(Relation(tuple(rows), tuple(columns), same))
        else:
            notes.append(
                f"reshape {shape_text(input_shape)} to {shape_text(output_shape)}: "
                "strides that do not divide each other"
            )
    closed = dbm.close(d)
    zones = () if closed is None else (Zone(f, closed, frozenset(), tuple(relations)),)
    return Pattern(output_shape, input_shape, zones, tuple(notes))


def _flat_strides(shape: Shape) -> list[int]:
    """Return the step of each axis in the flat index."""
    return [prod(shape[k + 1 :]) for k in range(len(shape))]
