"""Patterns of static index arrays: gather, take, scatter (the transpose of a gather)."""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.patterns.composing import with_relation
from gradlab.patterns.pattern import Pattern

__all__ = ["explicit", "gather", "take"]


def explicit(
    output_shape: Sequence[int],
    input_shape: Sequence[int],
    output_axes: Sequence[int],
    input_axes: Sequence[int],
    matrix: Any,
    equal: Sequence[tuple[int, int]] = (),
) -> Pattern:
    """Return a boolean matrix between groups of axes, equalities between others, the rest free.

    Args:
        output_shape: the shape of the output.
        input_shape: the shape of the input.
        output_axes: the output axes whose flattened indices, the first leading, number the rows.
        input_axes: the input axes whose flattened indices number the columns.
        matrix: dense or sparse; what is nonzero is an entry.
        equal: pairs (output axis, input axis) of other axes that are equal.

    Example:
        >>> lower = np.tri(4, dtype=bool)
        >>> explicit((2, 4), (2, 4), (1,), (1,), lower, [(0, 0)]).notation
        'out[b, t] <- in[b, <=t]'
    """
    base = Pattern.from_axes(output_shape, input_shape, [(k, ~i) for k, i in equal])
    groups = ([output_shape[k] for k in output_axes], [input_shape[k] for k in input_axes])
    if tuple(matrix.shape) != (prod(groups[0]), prod(groups[1])):
        raise InputError(
            f"explicit: a matrix of shape {shape_text(matrix.shape)} for axes of sizes "
            f"{tuple(groups[0])} and {tuple(groups[1])}; expected "
            f"{prod(groups[0])}x{prod(groups[1])}"
        )
    if not base.zones:
        return base
    zone = base.zones[0]
    columns: dict[int, npt.NDArray[np.int64]] = {}
    places = (output_axes, [len(output_shape) + k for k in input_axes])
    for flat, sizes, axes in zip(matrix.nonzero(), groups, places, strict=True):
        index = np.unravel_index(np.asarray(flat, np.int64), sizes) if sizes else ()
        for part, axis in zip(index, axes, strict=True):
            for v in zone.frame.digits(axis):
                columns[v] = part
    count = len(matrix.nonzero()[0])
    order = sorted(columns)
    values = (
        np.stack([columns[v] for v in order], axis=1) if order else np.zeros((count, 0), np.int64)
    )
    rows = [v for v in order if v <= zone.frame.outputs]
    zones = with_relation(zone, rows, order[len(rows) :], values[: None if order else 1])
    return Pattern.of_zones(output_shape, input_shape, zones)


def gather(
    output_shape: Sequence[int],
    input_shape: Sequence[int],
    output_axes: Sequence[int],
    input_axes: Sequence[int],
    indices: Any,
    equal: Sequence[tuple[int, int]] = (),
) -> Pattern:
    """Return a gather by a static index array; that of a scatter is its transpose.

    Args:
        output_shape: the shape of the output.
        input_shape: the shape of the input.
        output_axes: the output axes that the index array runs over.
        input_axes: the input axes that it points into.
        indices: integers, one for each index of `output_axes`: the flat index into `input_axes`,
            the first of them leading. A negative one reads nothing.
        equal: pairs (output axis, input axis) of other axes that are equal.

    Example:
        >>> gather((3, 8), (5, 8), (0,), (0,), np.array([4, 0, 4]), [(1, 1)]).notation
        'out[i, j] <- in[index(i), j]'
    """
    flat = np.asarray(indices).astype(np.int64).reshape(-1)
    shape = (prod(output_shape[k] for k in output_axes), prod(input_shape[k] for k in input_axes))
    if flat.size != shape[0] or (flat >= shape[1]).any():
        raise InputError(
            f"gather: {flat.size} indices up to {flat.max(initial=-1)} for {shape[0]} places that "
            f"read one of {shape[1]} entries each"
        )
    rows = np.flatnonzero(flat >= 0)
    ones = np.ones(len(rows), np.bool_)
    import scipy.sparse as sp  # a fifth of a second, for explicit entries alone

    matrix = sp.coo_array((ones, (rows, flat[rows])), shape=shape)
    return explicit(output_shape, input_shape, output_axes, input_axes, matrix, equal)


def take(input_shape: Sequence[int], indices: Any, axis: int) -> Pattern:
    """Return `x.take(indices, axis)`; negative indices count from the end, others read nothing.

    Example:
        >>> take((5, 8), np.arange(1, 4), 0).notation
        'out[i, j] <- in[i+1, j]'
    """
    index = np.asarray(indices).astype(np.int64)
    n = input_shape[axis]
    wrapped = np.where(index < 0, index + n, index)
    wrapped = np.where((wrapped < 0) | (wrapped >= n), -1, wrapped)
    shape = (*input_shape[:axis], *index.shape, *input_shape[axis + 1 :])
    after = index.ndim - 1
    equal = [(k if k < axis else k + after, k) for k in range(len(input_shape)) if k != axis]
    places = range(axis, axis + index.ndim)
    return gather(shape, input_shape, tuple(places), (axis,), wrapped, equal)
