"""Products that sum over axes: dot_general and its ragged form."""

import math
from dataclasses import replace
from typing import Any

from gradlab.patterns import Pattern, maps
from gradlab.primitives.equation import Equation
from gradlab.primitives.record import Primitive, Site
from gradlab.primitives.rounding import SumOf, last_axis

__all__ = ["RECORDS"]


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
    """Rows grouped by sizes that are not known: each keeps its free axis, groups are read whole."""
    if k > 1 or [len(s) for s in site.in_shapes[:2]] != [2, 3] or len(site.shape) != 2:
        return site.dense(k)[0]
    given = site.in_shapes[k]
    pair = (0, 0) if k == 0 else (1, 2)
    if site.shape[pair[0]] != given[pair[1]]:
        return site.dense(k)[0]
    return maps.contraction(site.shape, given, (pair,))


def _hashable(
    dimensions: Any,
) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], tuple[tuple[int, ...], tuple[int, ...]]]:
    (lc, rc), (lb, rb) = dimensions
    return (tuple(lc), tuple(rc)), (tuple(lb), tuple(rb))


def _a_factor_is_zero(site: Site, output: int) -> bool:
    return site.vanishes[0] or site.vanishes[1]


def _contracted(equation: Equation) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    return math.prod(equation.in_shapes[0][axis] for axis in contracted)


_PRODUCT = Primitive(name="", zero=_a_factor_is_zero, underflows="never")

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
)
