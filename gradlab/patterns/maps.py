"""Patterns of operations on arrays, to be composed on the output side: `maps.reshape(...) @ p`.

Most operations act on each axis by itself, so that their pattern is the `product` of patterns of one
axis. Those that only move indices (reshape, slice, pad, tile, reverse) are equalities between digits.
All of this depends on shapes alone and is remembered by its arguments.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, wraps
from math import prod
from typing import Any, ParamSpec, TypeVar

import numpy as np
import scipy.sparse as sp

from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.patterns import bounds as dbm
from gradlab.patterns.building import Shape
from gradlab.patterns.digits import Axis, frame, plain
from gradlab.patterns.indexing import explicit, gather, take
from gradlab.patterns.pattern import Pattern
from gradlab.patterns.points import LIMIT
from gradlab.patterns.splitting import refine
from gradlab.patterns.zone import Relation, Zone, full, place

__all__ = [
    "affine",
    "broadcast_in_dim",
    "concatenate",
    "contraction",
    "cumulative",
    "dense_along",
    "dot_general",
    "explicit",
    "gather",
    "grouped",
    "pad",
    "product",
    "reduce",
    "repeat",
    "reshape",
    "reverse",
    "roll",
    "slice",
    "take",
    "tile",
    "transpose",
    "window",
]

_P = ParamSpec("_P")
_R = TypeVar("_R")


def _remembered(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Remember results by arguments; lists of integers are taken for tuples."""
    cached: Callable[..., _R] = lru_cache(maxsize=4096)(function)

    def frozen(value: Any) -> Any:
        return tuple(map(frozen, value)) if isinstance(value, list | tuple) else value

    @wraps(function)
    def remembering(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        return cached(*map(frozen, args), **{k: frozen(v) for k, v in kwargs.items()})

    return remembering


@_remembered
def product(*patterns: Pattern) -> Pattern:
    """Return the Kronecker product: all output axes in order, all input axes in order.

    Example:
        >>> rows, columns = Pattern.identity((100,)), Pattern.dense((512,), (512,))
        >>> product(rows, columns).notation
        'out[b, :] <- in[b, :]'
    """
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


@_remembered
def broadcast_in_dim(input_shape: Shape, output_shape: Shape, dimensions: Shape) -> Pattern:
    """Return lax.broadcast_in_dim: input axis k becomes output axis dimensions[k], 1 stretches.

    Example:
        >>> broadcast_in_dim((4,), (4, 3), (0,)).notation
        'out[b, :] <- in[b]'
    """
    equal = [(d, ~k) for k, (d, n) in enumerate(zip(dimensions, input_shape)) if n != 1]
    return Pattern.from_axes(output_shape, input_shape, equal)


@_remembered
def transpose(input_shape: Shape, permutation: Shape) -> Pattern:
    """Return a transposition: output axis k is input axis permutation[k].

    Example:
        >>> transpose((3, 4), (1, 0)).notation
        'out[i, j] <- in[j, i]'
    """
    shape = tuple(input_shape[k] for k in permutation)
    return Pattern.from_axes(shape, input_shape, [(k, ~i) for k, i in enumerate(permutation)])


@_remembered
def reduce(input_shape: Shape, axes: Shape) -> Pattern:
    """Return a reduction that drops axes: a sum, a maximum, a product.

    Example:
        >>> reduce((3, 4), (1,)).notation
        'out[b] <- in[b, :]'
    """
    kept = [k for k in range(len(input_shape)) if k not in axes]
    shape = tuple(input_shape[k] for k in kept)
    return Pattern.from_axes(shape, input_shape, [(n, ~k) for n, k in enumerate(kept)])


@_remembered
def dense_along(shape: Shape, axes: Shape) -> Pattern:
    """Return what is full along some axes and entry by entry along the others (sort, fft, softmax).

    Example:
        >>> dense_along((100, 512), (1,)).structure
        'block-diagonal'
    """
    return Pattern.from_axes(shape, shape, [(k, ~k) for k in range(len(shape)) if k not in axes])


@_remembered
def cumulative(shape: Shape, axis: int, reverse: bool = False) -> Pattern:
    """Return a cumulative operation along an axis, such as cumsum.

    Example:
        >>> cumulative((8, 3), 0).notation
        'out[t, i] <- in[<=t, i]'
    """
    order = (None, 0) if reverse else (0, None)
    bounds = [(k, ~k, *(order if k == axis else (0, 0))) for k in range(len(shape))]
    return Pattern.from_axes(shape, shape, bounds)


@_remembered
def contraction(
    output_shape: Shape, input_shape: Shape, pairs: tuple[tuple[int, int], ...]
) -> Pattern:
    """Return what a contraction reads of one operand: paired axes are equal, all others free.

    Example:
        >>> contraction((100, 10), (100, 20), ((0, 0),)).notation
        'out[b, :] <- in[b, :]'
    """
    return Pattern.from_axes(output_shape, input_shape, [(k, ~i) for k, i in pairs])


@_remembered
def dot_general(
    lhs_shape: Shape,
    rhs_shape: Shape,
    dimension_numbers: tuple[tuple[Shape, Shape], tuple[Shape, Shape]],
) -> tuple[Pattern, Pattern]:
    """Return what lax.dot_general reads of its left and of its right operand.

    The output has the batch axes first, then the free axes of the left, then of the right operand.

    Example:
        >>> left, right = dot_general((8, 16), (16, 4), (((1,), (0,)), ((), ())))
        >>> left.notation, right.notation
        ('out[b, :] <- in[b, :]', 'out[:, i] <- in[:, i]')
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


@_remembered
def reshape(input_shape: Shape, output_shape: Shape) -> Pattern:
    """Return a reshape in row-major order: equal digits on both sides.

    Axes are taken in the smallest groups whose products agree. Where strides of a group do not divide each
    other (4 x 6 read as 6 x 4), the digits between are tied by an explicit permutation, or by nothing if
    it had more than 2^22 entries.

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
    for low, high in zip(common, common[1:]):
        rows = [v for v, s in enumerate(strides[0], 1) if low <= s < high]
        columns = [v for v, s in enumerate(strides[1], f.outputs + 1) if low <= s < high]
        if len(rows) == len(columns) == 1:
            d[rows[0], columns[0]] = d[columns[0], rows[0]] = 0
        elif (size := high // low) <= LIMIT:
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


@_remembered
def affine(output_size: int, input_size: int, step: int, start: int) -> Pattern:
    """Return one axis with `out = start + step * in`, wherever that is an index of the output.

    Example:
        >>> affine(10, 4, 3, 0).notation
        'out[3*i] <- in[i]'
    """
    first = max(0, -(start // step))
    last = min(input_size - 1, (output_size - 1 - start) // step)
    if last < first or not output_size:
        return Pattern.zero((output_size,), (input_size,))
    if step == 1 or last == first or output_size <= step:
        ends = (start + step * first, start + step * last)
        bounds = [(~0, None, first, last), (0, None, *ends)]
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


@_remembered
def slice(input_shape: Shape, start: Shape, limit: Shape, strides: Shape | None = None) -> Pattern:
    """Return lax.slice: output index o reads start + stride * o on each axis.

    Example:
        >>> slice((10,), (1,), (10,), (3,)).notation
        'out[i] <- in[3*i+1]'
    """
    steps = strides or (1,) * len(input_shape)
    sizes = [max(0, -(-(b - a) // s)) for a, b, s in zip(start, limit, steps)]
    return product(*(affine(n, o, s, a).T for n, o, s, a in zip(input_shape, sizes, steps, start)))


@_remembered
def pad(input_shape: Shape, low: Shape, high: Shape, interior: Shape | None = None) -> Pattern:
    """Return lax.pad: entries apart by `interior`, after `low` and before `high`; both may be negative.

    Example:
        >>> pad((3,), (1,), (2,)).notation
        'out[i] <- in[i-1]'
    """
    gaps = interior or (0,) * len(input_shape)
    parts = []
    for n, a, b, gap in zip(input_shape, low, high, gaps):
        size = max(0, a + b + n + gap * max(n - 1, 0))
        parts.append(affine(size, n, gap + 1, a))
    return product(*parts)


@_remembered
def concatenate(shapes: tuple[Shape, ...], axis: int) -> tuple[Pattern, ...]:
    """Return what a concatenation reads of each operand.

    Example:
        >>> [p.notation for p in concatenate(((2,), (3,)), 0)]
        ['out[i] <- in[i]', 'out[i] <- in[i-2]']
    """
    total = sum(shape[axis] for shape in shapes)
    result, before = [], 0
    for shape in shapes:
        low = tuple(before if k == axis else 0 for k in range(len(shape)))
        after = total - before - shape[axis]
        result.append(pad(shape, low, tuple(after if k == axis else 0 for k in range(len(shape)))))
        before += shape[axis]
    return tuple(result)


@_remembered
def reverse(shape: Shape, axes: Shape) -> Pattern:
    """Return the reversal of axes.

    Example:
        >>> reverse((8,), (0,)).notation
        'out[i] <- in[7-i]'
    """
    same = Pattern.identity(shape)
    flipped = frozenset(
        v for zone in same.zones for k in axes for v in zone.frame.digits(len(shape) + k)
    )
    return Pattern(shape, shape, tuple(Zone(z.frame, z.bounds, flipped) for z in same.zones))


@_remembered
def roll(shape: Shape, shift: int, axis: int) -> Pattern:
    """Return a circular shift along an axis: two zones, each limited to its range.

    Example:
        >>> roll((10,), 3, 0).nnz
        10
    """
    n = shape[axis]
    if not n:
        return Pattern.zero(shape, shape)
    others = [(k, ~k, 0, 0) for k in range(len(shape)) if k != axis]
    parts = [
        Pattern.from_axes(shape, shape, [*others, (axis, ~axis, s, s)])
        for s in {shift % n, shift % n - n}
    ]
    return Pattern.union(parts)


@_remembered
def tile(input_shape: Shape, repeats: Shape) -> Pattern:
    """Return the array beside itself, `repeats[k]` times along axis k.

    Example:
        >>> tile((4,), (3,)).notation
        'out[4*(:)+i] <- in[i]'
    """
    return product(*(_copies(n, r, whole=True) for n, r in zip(input_shape, repeats)))


@_remembered
def repeat(input_shape: Shape, repeats: int, axis: int) -> Pattern:
    """Return each entry `repeats` times in a row along an axis.

    Example:
        >>> repeat((4,), 3, 0).notation
        'out[3*i+(:)] <- in[i]'
    """
    parts = [
        _copies(n, repeats if k == axis else 1, whole=False) for k, n in enumerate(input_shape)
    ]
    return product(*parts)


def _copies(size: int, times: int, whole: bool) -> Pattern:
    """Return one axis copied: as a whole, or entry by entry."""
    if size <= 1 or times <= 1:
        bounds = [(0, ~0)] if times == 1 else []
        return Pattern.from_axes((size * times,), (size,), bounds)
    f = frame((Axis(size * times, ((size if whole else times), 1)),), (plain(size),))
    d = f.free.copy()
    d[2 if whole else 1, 3] = d[3, 2 if whole else 1] = 0
    closed = dbm.close(d)
    zones = () if closed is None else (Zone(f, closed),)
    return Pattern((size * times,), (size,), zones)


@_remembered
def grouped(output_size: int, input_size: int, groups: int) -> Pattern:
    """Return one axis in groups: each run of outputs reads the run of inputs of its number.

    Example:
        >>> grouped(6, 4, 2).notation
        'out[3*i+(:)] <- in[2*i+(:)]'
    """
    if output_size % groups or input_size % groups:
        raise InputError(
            f"grouped: {output_size} outputs and {input_size} inputs do not fall into {groups} groups"
        )
    inside = Pattern.dense((output_size // groups,), (input_size // groups,))
    split = product(Pattern.identity((groups,)), inside)
    out = reshape(split.output_shape, (output_size,))
    return out @ split @ reshape((input_size,), split.input_shape)


@_remembered
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

    Example:
        >>> window(9, 9, 3, low=1).notation
        'out[i] <- in[i-1..i+1]'
        >>> window(10, 5, 2, stride=2).notation
        'out[i] <- in[2*i+(:)]'
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
    if min(outputs, inputs) <= dilation:
        taps = (low - dilation * k for k in range(kernel))
        return Pattern.union([Pattern.from_axes(*shape, [(0, ~0, t, t)]) for t in taps])
    split = [
        piece
        for half in refine(full(*shape), 0, (dilation, 1)) or ()
        for piece in refine(half, 1, (dilation, 1)) or ()
    ]
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
