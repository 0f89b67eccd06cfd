"""Reductions: an output entry reads the reduced axes whole and the kept ones at its own index."""

import math
from dataclasses import replace

from gradlab.patterns import Pattern, maps
from gradlab.primitives import facts
from gradlab.primitives.equation import Equation
from gradlab.primitives.record import Primitive, Site, each, zero_if
from gradlab.primitives.rounding import EXACT, SumOf, root_of


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

RECORDS = (
    replace(_REDUCED, name="reduce_sum", zero=zero_if(0), rounds=SumOf(_reduced)),
    replace(_REDUCED, name="reduce_prod", rounds=root_of(_reduced), underflows="possible"),
    replace(_REDUCED, name="reduce_max", known=facts.of_largest),
    replace(_REDUCED, name="reduce_min", known=facts.of_smallest),
    replace(_REDUCED, name="reduce_and"),
    *each(replace(_REDUCED, zero=zero_if(0)), "reduce_or reduce_xor"),
    *each(_REDUCED, "argmax argmin"),
    Primitive(name="reduce", reads=_general_reduction, combines="jaxpr"),
)
