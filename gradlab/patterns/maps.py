"""Patterns of operations on arrays, to be composed on the output side: `maps.reshape(...) @ p`.

Most operations act on each axis by itself, so that their pattern is the `product` of patterns of
one axis. Those that only move indices (reshape, slice, pad, tile, reverse) are equalities between
digits. All of this depends on shapes alone and is remembered by its arguments.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, wraps
from itertools import pairwise
from math import prod
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.patterns import dbm
from gradlab.patterns.compose import refine, refined
from gradlab.patterns.layout import Axis, frame, plain
from gradlab.patterns.pattern import Pattern
from gradlab.patterns.pieces import Run, pieces
from gradlab.patterns.size import has_number
from gradlab.patterns.zone import Bound, Shape, Zone, full, place, row_major

_P = ParamSpec("_P")
_R = TypeVar("_R")


def remembered(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Remember results by arguments; lists of integers are taken for tuples."""
    cached: Callable[..., _R] = lru_cache(maxsize=4096)(function)

    def frozen(value: Any) -> Any:
        return tuple(map(frozen, value)) if isinstance(value, list | tuple) else value

    @wraps(function)
    def remembering(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        return cached(*map(frozen, args), **{k: frozen(v) for k, v in kwargs.items()})

    return remembering


_LONG = 1 << 10
"""Indices from which on an array is read in pieces; a shorter one is a relation."""


@remembered
def reshape(input_shape: Shape, output_shape: Shape) -> Pattern:
    """Return a reshape in row-major order: equal digits on both sides.

    Axes are taken in the smallest groups whose products agree. Where strides of a group do not
    divide each other (4 x 6 read as 6 x 4), the digits between are tied by an explicit permutation,
    or by nothing if it had more than 2^22 entries.
    """
    if prod(input_shape) != prod(output_shape):
        raise InputError(
            f"reshape: {shape_text(input_shape)} has {prod(input_shape)} entries, "
            f"{shape_text(output_shape)} has {prod(output_shape)}; they must be equal"
        )
    zones, notes = row_major(input_shape, output_shape)
    return Pattern(output_shape, input_shape, zones, notes)


@remembered
def affine(output_size: int, input_size: int, step: int, start: int) -> Pattern:
    """Return one axis with `out = start + step * in`, wherever that is an index of the output."""
    first = max(0, -(start // step))
    last = min(input_size - 1, (output_size - 1 - start) // step)
    if last < first or not output_size:
        return Pattern.zero((output_size,), (input_size,))
    if step == 1 or last == first or output_size <= step:
        ends = (start + step * first, start + step * last)
        bounds: list[Bound] = [(~0, None, first, last), (0, None, *ends)]
        if last > first:
            bounds.append((0, ~0, start, start))
        return Pattern.from_axes((output_size,), (input_size,), bounds)
    f = frame((Axis(output_size, (step, 1)),), (plain(input_size),))
    shift, low = divmod(start, step)
    d = f.free.copy()
    d[2, 0], d[0, 2] = low, -low
    d[3, 0], d[0, 3] = last, -first
    d[1, 3], d[3, 1] = shift, -shift
    closed = dbm.close(d)
    zones = () if closed is None else (Zone(f, closed),)
    return Pattern((output_size,), (input_size,), zones)


def copies(size: int, times: int) -> Pattern:
    """Return one axis beside itself, several times."""
    if size <= 1 or times <= 1:
        bounds = [(0, ~0)] if times == 1 else []
        return Pattern.from_axes((size * times,), (size,), bounds)
    f = frame((Axis(size * times, (size, 1)),), (plain(size),))
    d = f.free.copy()
    d[2, 3] = d[3, 2] = 0
    closed = dbm.close(d)
    zones = () if closed is None else (Zone(f, closed),)
    return Pattern((size * times,), (size,), zones)


@remembered
def window(
    size: int,
    output_size: int,
    kernel: int,
    stride: int = 1,
    low: int = 0,
    dilation: int = 1,
    base_dilation: int = 1,
) -> Pattern:
    """Return one axis under a sliding window (convolution, pooling).

    Output o reads the base-dilated input at `stride * o - low + dilation * k` for k below `kernel`.

    Args:
        size: the size of the input axis.
        output_size: the size of the output axis.
        kernel: the number of entries of the window.
        stride: how far the window moves.
        low: the padding before the first entry.
        dilation: the distance between the entries of the window.
        base_dilation: the distance of the input's entries once dilated (transposed convolution).
    """
    if not size or not output_size or not kernel:
        return Pattern.zero((output_size,), (size,))
    dilated = (size - 1) * base_dilation + 1
    reached = stride * (output_size - 1) + 1
    place_of = affine(reached, output_size, stride, 0).T
    read = affine(dilated, size, base_dilation, 0)
    if dilation == 1:
        # the window's entry w = u - low + k, hence u - w lies in low - (kernel - 1) .. low
        band = Pattern.from_axes((reached,), (dilated,), [(0, ~0, low - kernel + 1, low)])
        return place_of @ band @ read
    return place_of @ _dilated(reached, dilated, kernel, low, dilation) @ read


def _dilated(outputs: int, inputs: int, kernel: int, low: int, dilation: int) -> Pattern:
    """Return u <- w with u - w = low - dilation * k: a band between digits of radix `dilation`."""
    shape = ((outputs,), (inputs,))
    if not (has_number(outputs) and has_number(inputs)) or min(outputs, inputs) <= dilation:
        taps = (low - dilation * k for k in range(kernel))
        return Pattern.union([Pattern.from_axes(*shape, [(0, ~0, t, t)]) for t in taps])
    split = refined(refine(full(*shape), 0, (dilation, 1)) or (), 1, (dilation, 1)) or ()
    shift, rest = divmod(low, dilation)
    zones = []
    for piece in split:
        for carry in (0, 1) if rest else (0,):
            d = piece.bounds.copy()
            apart = rest - carry * dilation
            for x, y, c in (
                (1, 3, shift + carry),
                (3, 1, kernel - 1 - shift - carry),
                (2, 4, apart),
                (4, 2, -apart),
            ):
                d[x, y] = min(d[x, y], c)
            if (closed := dbm.close(d)) is not None:
                zones.append(piece.with_bounds(closed))
    return Pattern.of_zones(*shape, zones)


def product(*patterns: Pattern) -> Pattern:
    """Return the Kronecker product: all output axes in order, all input axes in order."""
    whole = Pattern.dense((), ())
    for pattern in patterns:
        zones = [_times(a, b) for a in whole.zones for b in pattern.zones]
        whole = Pattern.of_zones(
            whole.output_shape + pattern.output_shape,
            whole.input_shape + pattern.input_shape,
            zones,
            (*whole.widened, *pattern.widened),
        )
    return whole


def _times(a: Zone, b: Zone) -> Zone:
    f = frame(a.frame.output + b.frame.output, a.frame.input + b.frame.input)
    o, p, n = a.frame.outputs, b.frame.outputs, len(a.frame.sizes)
    of_a = {v: v if v <= o else v + p for v in range(1, n + 1)}
    of_b = {v: v + (o if v <= p else n) for v in range(1, len(b.frame.sizes) + 1)}
    d = f.free.copy()
    place(d, list(of_a.values()), a.bounds)
    place(d, list(of_b.values()), b.bounds)
    flipped = frozenset([of_a[v] for v in a.flipped] + [of_b[v] for v in b.flipped])
    relations = [r.moved(of_a) for r in a.relations] + [r.moved(of_b) for r in b.relations]
    return Zone(f, d, flipped, tuple(relations))


@remembered
def broadcast_in_dim(input_shape: Shape, output_shape: Shape, dimensions: Shape) -> Pattern:
    """Return lax.broadcast_in_dim: input axis k becomes output axis dimensions[k]."""
    equal = [(d, ~k) for k, (d, n) in enumerate(zip(dimensions, input_shape)) if n != 1]
    return Pattern.from_axes(output_shape, input_shape, equal)


@remembered
def transpose(input_shape: Shape, permutation: Shape) -> Pattern:
    """Return a transposition: output axis k is input axis permutation[k]."""
    shape = tuple(input_shape[k] for k in permutation)
    return Pattern.from_axes(shape, input_shape, [(k, ~i) for k, i in enumerate(permutation)])


@remembered
def reduce(input_shape: Shape, axes: Shape) -> Pattern:
    """Return a reduction that drops axes: a sum, a maximum, a product."""
    kept = [k for k in range(len(input_shape)) if k not in axes]
    shape = tuple(input_shape[k] for k in kept)
    return Pattern.from_axes(shape, input_shape, [(n, ~k) for n, k in enumerate(kept)])


@remembered
def dense_along(shape: Shape, axes: Shape) -> Pattern:
    """Return what is full along some axes, entry by entry along the others: a sort, a softmax."""
    return Pattern.from_axes(shape, shape, [(k, ~k) for k in range(len(shape)) if k not in axes])


@remembered
def cumulative(shape: Shape, axis: int, reverse: bool = False) -> Pattern:
    """Return a cumulative operation along an axis, such as cumsum."""
    order = (None, 0) if reverse else (0, None)
    bounds = [(k, ~k, *(order if k == axis else (0, 0))) for k in range(len(shape))]
    return Pattern.from_axes(shape, shape, bounds)


@remembered
def contraction(
    output_shape: Shape, input_shape: Shape, pairs: tuple[tuple[int, int], ...]
) -> Pattern:
    """Return what a contraction reads of one operand: paired axes are equal, all others free."""
    return Pattern.from_axes(output_shape, input_shape, [(k, ~i) for k, i in pairs])


@remembered
def dot_general(
    lhs_shape: Shape,
    rhs_shape: Shape,
    dimension_numbers: tuple[tuple[Shape, Shape], tuple[Shape, Shape]],
) -> tuple[Pattern, Pattern]:
    """Return what lax.dot_general reads of its left and of its right operand.

    The output has the batch axes first, then the free axes of the left, then of the right operand.
    """
    (lhs_contracted, rhs_contracted), (lhs_batch, rhs_batch) = dimension_numbers
    lhs_free = [k for k in range(len(lhs_shape)) if k not in (*lhs_contracted, *lhs_batch)]
    rhs_free = [k for k in range(len(rhs_shape)) if k not in (*rhs_contracted, *rhs_batch)]
    shape = (
        *(lhs_shape[k] for k in lhs_batch),
        *(lhs_shape[k] for k in lhs_free),
        *(rhs_shape[k] for k in rhs_free),
    )
    left = tuple(enumerate((*lhs_batch, *lhs_free)))
    after = len(lhs_batch) + len(lhs_free)
    right = tuple(enumerate(rhs_batch)) + tuple(enumerate(rhs_free, after))
    return contraction(shape, lhs_shape, left), contraction(shape, rhs_shape, right)


@remembered
def slice(input_shape: Shape, start: Shape, limit: Shape, strides: Shape | None = None) -> Pattern:
    """Return lax.slice: output index o reads start + stride * o on each axis."""
    steps = strides or (1,) * len(input_shape)
    sizes = [max(0, -(-(b - a) // s)) for a, b, s in zip(start, limit, steps)]
    return product(*(affine(n, o, s, a).T for n, o, s, a in zip(input_shape, sizes, steps, start)))


@remembered
def pad(input_shape: Shape, low: Shape, high: Shape, interior: Shape | None = None) -> Pattern:
    """Return lax.pad: `interior` between entries, `low` before, `high` after, or fewer."""
    gaps = interior or (0,) * len(input_shape)
    parts = []
    for n, a, b, gap in zip(input_shape, low, high, gaps):
        size = max(0, a + b + n + gap * max(n - 1, 0))
        parts.append(affine(size, n, gap + 1, a))
    return product(*parts)


@remembered
def concatenate(shapes: tuple[Shape, ...], axis: int) -> tuple[Pattern, ...]:
    """Return what a concatenation reads of each operand."""
    total = sum(shape[axis] for shape in shapes)
    result, before = [], 0
    for shape in shapes:
        low = tuple(before if k == axis else 0 for k in range(len(shape)))
        after = total - before - shape[axis]
        result.append(pad(shape, low, tuple(after if k == axis else 0 for k in range(len(shape)))))
        before += shape[axis]
    return tuple(result)


@remembered
def reverse(shape: Shape, axes: Shape) -> Pattern:
    """Return the reversal of axes."""
    same = Pattern.identity(shape)
    flipped = frozenset(
        v for zone in same.zones for k in axes for v in zone.frame.digits(len(shape) + k)
    )
    return Pattern(shape, shape, tuple(Zone(z.frame, z.bounds, flipped) for z in same.zones))


@remembered
def roll(shape: Shape, shift: int, axis: int) -> Pattern:
    """Return a circular shift along an axis: two zones, each limited to its range."""
    n = shape[axis]
    if not n:
        return Pattern.zero(shape, shape)
    others = [(k, ~k, 0, 0) for k in range(len(shape)) if k != axis]
    parts = [
        Pattern.from_axes(shape, shape, [*others, (axis, ~axis, s, s)])
        for s in (shift % n, shift % n - n)
    ]
    return Pattern.union(parts)


@remembered
def tile(input_shape: Shape, repeats: Shape) -> Pattern:
    """Return the array beside itself, `repeats[k]` times along axis k."""
    return product(*(copies(n, r) for n, r in zip(input_shape, repeats)))


@remembered
def grouped(output_size: int, input_size: int, groups: int) -> Pattern:
    """Return one axis in groups: each run of outputs reads the run of inputs of its number."""
    if output_size % groups or input_size % groups:
        raise InputError(
            f"grouped: {output_size} outputs, {input_size} inputs do not fall into {groups} groups"
        )
    inside = Pattern.dense((output_size // groups,), (input_size // groups,))
    split = product(Pattern.identity((groups,)), inside)
    out = reshape(split.output_shape, (output_size,))
    return out @ split @ reshape((input_size,), split.input_shape)


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
    """
    flat = np.asarray(indices).astype(np.int64).reshape(-1)
    shape = (prod(output_shape[k] for k in output_axes), prod(input_shape[k] for k in input_axes))
    if flat.size != shape[0] or (flat >= shape[1]).any():
        raise InputError(
            f"gather: {flat.size} indices up to {flat.max(initial=-1)} for {shape[0]} places that "
            f"read one of {shape[1]} entries each"
        )
    if flat.size > _LONG and (even := _in_pieces(flat, shape[1])) is not None:
        return _between(output_shape, input_shape, output_axes, input_axes, even, equal)
    rows = np.flatnonzero(flat >= 0)
    ones = np.ones(len(rows), np.bool_)
    import scipy.sparse as sp  # a fifth of a second, for explicit entries alone

    matrix = sp.coo_array((ones, (rows, flat[rows])), shape=shape)
    axes = output_axes, input_axes
    return Pattern.explicit(matrix, output_shape, input_shape, axes, equal)


def _between(
    output_shape: Sequence[int],
    input_shape: Sequence[int],
    output_axes: Sequence[int],
    input_axes: Sequence[int],
    flat: Pattern,
    equal: Sequence[tuple[int, int]],
) -> Pattern:
    """Return a pattern of flattened axes between these axes, beside equalities of others."""
    groups = tuple(output_shape[k] for k in output_axes), tuple(input_shape[k] for k in input_axes)
    here = reshape((prod(groups[0]),), groups[0]) @ flat @ reshape(groups[1], (prod(groups[1]),))
    sides = ((tuple(output_shape), output_axes), (tuple(input_shape), input_axes))
    orders = [(*axes, *(k for k in range(len(shape)) if k not in axes)) for shape, axes in sides]
    made, given = (
        tuple(shape[k] for k in order[len(axes) :]) for (shape, axes), order in zip(sides, orders)
    )
    places = [{k: n for n, k in enumerate(order)} for order in orders]
    pairs = [(places[0][k] - len(output_axes), ~(places[1][i] - len(input_axes))) for k, i in equal]
    joined = product(here, Pattern.from_axes(made, given, pairs))
    back = transpose(joined.output_shape, tuple(int(k) for k in np.argsort(orders[0])))
    return back @ joined @ transpose(tuple(input_shape), orders[1])


def take(input_shape: Sequence[int], indices: Any, axis: int) -> Pattern:
    """Return `x.take(indices, axis)`; negative indices count from the end, others read nothing."""
    index = np.asarray(indices).astype(np.int64)
    n = input_shape[axis]
    wrapped = np.where(index < 0, index + n, index)
    wrapped = np.where((wrapped < 0) | (wrapped >= n), -1, wrapped)
    shape = (*input_shape[:axis], *index.shape, *input_shape[axis + 1 :])
    after = index.ndim - 1
    equal = [(k if k < axis else k + after, k) for k in range(len(input_shape)) if k != axis]
    places = range(axis, axis + index.ndim)
    return gather(shape, input_shape, tuple(places), (axis,), wrapped, equal)


def _in_pieces(flat: npt.NDArray[np.int64], size: int) -> Pattern | None:
    """Return `out[k] <- in[flat[k]]` as zones over digits, where they are few."""
    found = pieces(flat)
    if found is None:
        return None
    sizes, parts = found
    patterns = []
    for runs in parts:
        piece = _piece(sizes, runs, size)
        if piece is None:
            return None
        patterns.append(piece)
    return reshape(sizes, (len(flat),)) @ Pattern.union(patterns)


def _piece(sizes: tuple[int, ...], runs: tuple[Run, ...], size: int) -> Pattern | None:
    """Return one piece, from the array that is read to the digits that read.

    The index that is read is written in digits of the runs' steps, each of which follows one run.
    None where the steps do not divide each other, or a digit would carry.
    """
    moving = [k for k, run in enumerate(runs) if run.length > 1 and run.step]
    moving.sort(key=lambda k: -abs(runs[k].step))
    steps = [abs(runs[k].step) for k in moving]
    if any(high % low for high, low in pairwise(steps)):
        return None
    whole = -(-size // steps[0]) * steps[0] if steps else size
    radices = (*(high // low for high, low in pairwise([whole, *steps])), *steps[-1:])
    radices = radices or (size,)
    bounds: list[Bound] = [(k, None, r.first, r.first + r.length - 1) for k, r in enumerate(runs)]
    rest = sum(run.start + min(0, run.step * (run.length - 1)) for run in runs)
    backwards = []
    for digit, k in enumerate(moving):
        low, rest = divmod(rest, steps[digit])
        run, radix = runs[k], radices[digit]
        if low + run.length > radix:
            return None
        if run.step < 0:
            low = radix - low - run.length
            backwards.append(digit)
        bounds.append((k, ~digit, run.first - low, run.first - low))
    bounds.append((~len(moving), None, rest, rest))
    digits = Pattern.from_axes(sizes, radices, bounds) @ reverse(radices, tuple(backwards))
    return digits @ reshape((whole,), radices) @ pad((size,), (0,), (whole - size,))
