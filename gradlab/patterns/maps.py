"""Patterns of operations on arrays, to be composed on the output side: `maps.reshape(...) @ p`.

Most operations act on each axis by itself, so that their pattern is the `product` of patterns of
one axis. Those that only move indices (reshape, slice, pad, tile, reverse) are equalities between
digits. All of this depends on shapes alone and is remembered by its arguments.
"""

from gradlab.errors import InputError
from gradlab.patterns.axes import affine, copies, window
from gradlab.patterns.building import Shape
from gradlab.patterns.digits import frame
from gradlab.patterns.indexing import explicit, gather, take
from gradlab.patterns.pattern import Pattern
from gradlab.patterns.remembering import remembered
from gradlab.patterns.reshaping import reshape
from gradlab.patterns.zone import Zone, place

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


@remembered
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


@remembered
def broadcast_in_dim(input_shape: Shape, output_shape: Shape, dimensions: Shape) -> Pattern:
    """Return lax.broadcast_in_dim: input axis k becomes output axis dimensions[k], 1 stretches.

    Example:
        >>> broadcast_in_dim((4,), (4, 3), (0,)).notation
        'out[b, :] <- in[b]'
    """
    equal = [(d, ~k) for k, (d, n) in enumerate(zip(dimensions, input_shape)) if n != 1]
    return Pattern.from_axes(output_shape, input_shape, equal)


@remembered
def transpose(input_shape: Shape, permutation: Shape) -> Pattern:
    """Return a transposition: output axis k is input axis permutation[k].

    Example:
        >>> transpose((3, 4), (1, 0)).notation
        'out[i, j] <- in[j, i]'
    """
    shape = tuple(input_shape[k] for k in permutation)
    return Pattern.from_axes(shape, input_shape, [(k, ~i) for k, i in enumerate(permutation)])


@remembered
def reduce(input_shape: Shape, axes: Shape) -> Pattern:
    """Return a reduction that drops axes: a sum, a maximum, a product.

    Example:
        >>> reduce((3, 4), (1,)).notation
        'out[b] <- in[b, :]'
    """
    kept = [k for k in range(len(input_shape)) if k not in axes]
    shape = tuple(input_shape[k] for k in kept)
    return Pattern.from_axes(shape, input_shape, [(n, ~k) for n, k in enumerate(kept)])


@remembered
def dense_along(shape: Shape, axes: Shape) -> Pattern:
    """Return what is full along some axes and entry by entry along the others (sort, fft, softmax).

    Example:
        >>> dense_along((100, 512), (1,)).structure
        'block-diagonal'
    """
    return Pattern.from_axes(shape, shape, [(k, ~k) for k in range(len(shape)) if k not in axes])


@remembered
def cumulative(shape: Shape, axis: int, reverse: bool = False) -> Pattern:
    """Return a cumulative operation along an axis, such as cumsum.

    Example:
        >>> cumulative((8, 3), 0).notation
        'out[t, i] <- in[<=t, i]'
    """
    order = (None, 0) if reverse else (0, None)
    bounds = [(k, ~k, *(order if k == axis else (0, 0))) for k in range(len(shape))]
    return Pattern.from_axes(shape, shape, bounds)


@remembered
def contraction(
    output_shape: Shape, input_shape: Shape, pairs: tuple[tuple[int, int], ...]
) -> Pattern:
    """Return what a contraction reads of one operand: paired axes are equal, all others free.

    Example:
        >>> contraction((100, 10), (100, 20), ((0, 0),)).notation
        'out[b, :] <- in[b, :]'
    """
    return Pattern.from_axes(output_shape, input_shape, [(k, ~i) for k, i in pairs])


@remembered
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


@remembered
def slice(input_shape: Shape, start: Shape, limit: Shape, strides: Shape | None = None) -> Pattern:
    """Return lax.slice: output index o reads start + stride * o on each axis.

    Example:
        >>> slice((10,), (1,), (10,), (3,)).notation
        'out[i] <- in[3*i+1]'
    """
    steps = strides or (1,) * len(input_shape)
    sizes = [max(0, -(-(b - a) // s)) for a, b, s in zip(start, limit, steps)]
    return product(*(affine(n, o, s, a).T for n, o, s, a in zip(input_shape, sizes, steps, start)))


@remembered
def pad(input_shape: Shape, low: Shape, high: Shape, interior: Shape | None = None) -> Pattern:
    """Return lax.pad: `interior` between entries, `low` before, `high` after; both may be negative.

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


@remembered
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


@remembered
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


@remembered
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
        for s in (shift % n, shift % n - n)
    ]
    return Pattern.union(parts)


@remembered
def tile(input_shape: Shape, repeats: Shape) -> Pattern:
    """Return the array beside itself, `repeats[k]` times along axis k.

    Example:
        >>> tile((4,), (3,)).notation
        'out[4*(:)+i] <- in[i]'
    """
    return product(*(copies(n, r, whole=True) for n, r in zip(input_shape, repeats)))


@remembered
def repeat(input_shape: Shape, repeats: int, axis: int) -> Pattern:
    """Return each entry `repeats` times in a row along an axis.

    Example:
        >>> repeat((4,), 3, 0).notation
        'out[3*i+(:)] <- in[i]'
    """
    parts = [copies(n, repeats if k == axis else 1, whole=False) for k, n in enumerate(input_shape)]
    return product(*parts)


@remembered
def grouped(output_size: int, input_size: int, groups: int) -> Pattern:
    """Return one axis in groups: each run of outputs reads the run of inputs of its number.

    Example:
        >>> grouped(6, 4, 2).notation
        'out[3*i+(:)] <- in[2*i+(:)]'
    """
    if output_size % groups or input_size % groups:
        raise InputError(
            f"grouped: {output_size} outputs, {input_size} inputs do not fall into {groups} groups"
        )
    inside = Pattern.dense((output_size // groups,), (input_size // groups,))
    split = product(Pattern.identity((groups,)), inside)
    out = reshape(split.output_shape, (output_size,))
    return out @ split @ reshape((input_size,), split.input_shape)
