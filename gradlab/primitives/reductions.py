"""Reductions, running sums and their like, and sorting."""

import math
from dataclasses import replace

from gradlab.patterns import Pattern, maps
from gradlab.primitives import facts, positions
from gradlab.primitives.equation import Equation
from gradlab.primitives.record import Primitive, Site, each, zero_if
from gradlab.primitives.rounding import EXACT, Near, SumOf, root_of


def _reduction(site: Site, k: int) -> Pattern:
    """Kept axes are equal; reduced axes are read whole."""
    return maps.reduce(site.in_shapes[0], tuple(site.params["axes"]))


def _general_reduction(site: Site, k: int) -> tuple[Pattern, ...]:
    """A reduction by any function: each output reads each operand; initial values reach all."""
    operands = len(site.in_shapes) // 2
    if k >= operands:
        return site.dense(k)
    local = maps.reduce(site.in_shapes[k], tuple(site.params["dimensions"]))
    return (local,) * len(site.out_shapes)


def _zero_over_some(site: Site, output: int) -> bool:
    """Over no entry, a product is 1 and a maximum -inf."""
    return site.vanishes[0] and 0 not in site.in_shapes[0]


def _reduced(equation: Equation) -> int:
    return math.prod(equation.in_shapes[0][axis] for axis in equation.params["axes"])


_REDUCED = Primitive(
    name="", reads=_reduction, zero=_zero_over_some, rounds=EXACT, underflows="never"
)


def _cumulative(site: Site, k: int) -> Pattern:
    """An output entry reads the entries up to its own along the axis."""
    return maps.cumulative(site.in_shapes[0], site.params["axis"], bool(site.params["reverse"]))


def _sort(site: Site, k: int) -> tuple[Pattern | None, ...]:
    """The order along the axis depends on the keys: dense along it, equal elsewhere."""
    local = maps.dense_along(site.in_shapes[k], (site.params["dimension"],))
    moves_all = any(site.depends[: site.params["num_keys"]])
    return tuple(local if moves_all or j == k else None for j in range(len(site.out_shapes)))


def _top_k(site: Site, k: int) -> tuple[Pattern, ...]:
    """The largest entries along an axis."""
    given = site.in_shapes[0]
    axis = site.params.get("axis", site.params.get("reduction_dimension", -1)) % len(given)
    pairs = tuple((a, a) for a in range(len(given)) if a != axis)
    return tuple(maps.contraction(shape, given, pairs) for shape in site.out_shapes)


def _own_is_zero(site: Site, output: int) -> bool:
    return site.vanishes[output]


def _largest_is_zero(site: Site, output: int) -> bool:
    """The entries are zero where all are; their places are not."""
    return output == 0 and site.vanishes[0]


def _along(equation: Equation) -> int:
    axis: int = equation.params["axis"]
    return equation.in_shapes[0][axis]


_RUNNING = Primitive(name="", reads=_cumulative, zero=zero_if(0), rounds=EXACT, underflows="never")
_SORTED = replace(_RUNNING, reads=_top_k, zero=_largest_is_zero)

RECORDS = (
    replace(_REDUCED, name="reduce_sum", zero=zero_if(0), rounds=SumOf(_reduced), extremes="sum"),
    replace(_REDUCED, name="reduce_prod", rounds=root_of(_reduced), underflows="possible"),
    replace(_REDUCED, name="reduce_max", known=facts.of_largest, extremes="corners"),
    replace(_REDUCED, name="reduce_min", known=facts.of_smallest, extremes="corners"),
    replace(_REDUCED, name="reduce_and"),
    *each(replace(_REDUCED, zero=zero_if(0)), "reduce_or reduce_xor"),
    *each(replace(_REDUCED, affine=positions.found), "argmax argmin"),
    Primitive(name="reduce", reads=_general_reduction, combines="jaxpr"),
    replace(_RUNNING, name="cumsum", rounds=SumOf(_along), extremes="sum"),
    replace(_RUNNING, name="cumprod", rounds=root_of(_along), underflows="possible"),
    replace(_RUNNING, name="cummax", known=facts.of_largest),
    replace(_RUNNING, name="cummin", known=facts.of_smallest),
    replace(_RUNNING, name="cumlogsumexp", zero=None, rounds=Near(16.0)),
    replace(_SORTED, name="sort", reads=_sort, zero=_own_is_zero),
    *each(_SORTED, "top_k approx_top_k"),
)
