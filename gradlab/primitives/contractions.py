"""Products that sum over axes: dot_general and its ragged form."""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from gradlab.common.arrays import NumPyArray
from gradlab.patterns import Pattern, maps
from gradlab.primitives.equation import Equation, Shape
from gradlab.primitives.known import Known
from gradlab.primitives.record import Primitive, Site
from gradlab.primitives.rounding import SumOf, last_axis


def _dot_general(site: Site, k: int) -> Pattern:
    """Batch and free axes are equal; contracted axes are read where the other factor may be."""
    dimensions = _hashable(site.params["dimension_numbers"])
    region = None if site.depends[1 - k] else site.nonzero(1 - k)
    if region is None:
        lhs, rhs = site.in_shapes
        return maps.dot_general(lhs, rhs, dimensions)[k]
    return _masked(site, k, region)


def _masked(site: Site, k: int, region: Pattern) -> Pattern:
    """Read operand `k` through the nonzero region of the other operand.

    The sum runs over the space of all axes, output axes first, then contracted ones: lift the
    operand into it, restrict it, and sum the contracted axes away.
    """
    (contracted, batch) = _hashable(site.params["dimension_numbers"])
    rank = len(site.shape)
    places = []
    free = len(batch[0])
    for shape, reduced, shared in zip(site.in_shapes, contracted, batch):
        place = {axis: n for n, axis in enumerate(shared)}
        place |= {axis: rank + n for n, axis in enumerate(reduced)}
        for axis in range(len(shape)):
            if axis not in place:
                place[axis] = free
                free += 1
        places.append(tuple(place[axis] for axis in range(len(shape))))
    space = site.shape + tuple(site.in_shapes[0][axis] for axis in contracted[0])
    lifted = maps.broadcast_in_dim(site.in_shapes[k], space, places[k])
    other = maps.broadcast_in_dim(site.in_shapes[1 - k], space, places[1 - k]) @ region
    return maps.reduce(space, tuple(range(rank, len(space)))) @ lifted.where(other)


def _ragged_dot_general(site: Site, k: int) -> Pattern:
    """Rows in groups: each row reads the matrix of its group, or of any where sizes are unknown."""
    if k > 1 or [len(s) for s in site.in_shapes[:2]] != [2, 3] or len(site.shape) != 2:
        return site.dense(k)[0]
    given, sizes = site.in_shapes[k], site.value(2)
    pair = (0, 0) if k == 0 else (1, 2)
    if site.shape[pair[0]] != given[pair[1]]:
        return site.dense(k)[0]
    if sizes is None or sizes.ndim != 1:
        return maps.contraction(site.shape, given, (pair,))
    ends = np.cumsum(sizes)
    rows = np.arange(site.shape[0])[:, None]
    mine = (rows < ends) & (rows >= ends - sizes)  # which rows a group has
    if k == 0:
        used = Pattern.explicit(mine.any(1, keepdims=True), site.shape[:1], ())
        return maps.contraction(site.shape, given, (pair,)).where(used, (0,))
    return Pattern.explicit(mine, site.shape, given, ((0,), (0,)), (pair,))


def _sparse_product(site: Site, k: int) -> Pattern:
    """A matrix whose entries lie at places that are known, times an array, as `dot_general`.

    Operands are the entries, their places (or columns and where rows begin), and the array.
    """
    shape = tuple(site.params["lhs_spinfo"].shape)
    last = len(site.in_shapes) - 1
    places = _places(site, shape)
    if k not in (0, last) or places is None:
        return site.dense(k)[0]
    everywhere = tuple(range(len(shape)))
    spread = maps.gather(site.in_shapes[0], shape, (0,), everywhere, places).T
    dense = replace(
        site,
        in_shapes=(shape, site.in_shapes[last]),
        depends=(False, site.depends[last]),
        known=(Known(support=spread.rows()), site.known[last]),
    )
    return _dot_general(dense, 1) if k == last else _dot_general(dense, 0) @ spread


def _places(site: Site, shape: Shape) -> NumPyArray | None:
    """Return the flat place of each entry of a sparse matrix, -1 for none, if they are known."""
    index = site.value(1)
    if index is None or len(site.in_shapes[0]) != 1:  # batches, or blocks that are dense
        return None
    if len(site.in_shapes) == 4:
        begins = site.value(2)
        if begins is None:
            return None
        rows = np.searchsorted(begins, np.arange(len(index)), side="right") - 1
        index = np.stack([rows, index], axis=1)
    if index.shape[-1] != len(shape):
        return None
    inside = (index < shape).all(axis=1)
    return np.where(
        inside, np.ravel_multi_index(np.minimum(index, np.array(shape) - 1).T, shape), -1
    )


def _hashable(
    dimensions: Any,
) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], tuple[tuple[int, ...], tuple[int, ...]]]:
    (lc, rc), (lb, rb) = dimensions
    return (tuple(lc), tuple(rc)), (tuple(lb), tuple(rb))


def _a_factor_is_zero(site: Site, output: int) -> bool:
    return site.vanishes[0] or site.vanishes[1]


def _a_sparse_factor_is_zero(site: Site, output: int) -> bool:
    return site.vanishes[0] or site.vanishes[-1]


def _contracted(equation: Equation) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    return math.prod(equation.in_shapes[0][axis] for axis in contracted)


_PRODUCT = Primitive(name="", settles=True, zero=_a_factor_is_zero, underflows="never")

RECORDS = (
    replace(
        _PRODUCT,
        name="dot_general",
        reads=_dot_general,
        rounds=SumOf(_contracted, of_products=True),
    ),
    replace(
        _PRODUCT,
        name="ragged_dot_general",
        reads=_ragged_dot_general,
        rounds=SumOf(last_axis, of_products=True),
    ),
    replace(
        _PRODUCT, name="bcoo_dot_general", reads=_sparse_product, zero=_a_sparse_factor_is_zero
    ),
    replace(
        _PRODUCT, name="bcsr_dot_general", reads=_sparse_product, zero=_a_sparse_factor_is_zero
    ),
)
