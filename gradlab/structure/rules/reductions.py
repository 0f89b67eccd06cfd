"""Reductions: an output entry reads the reduced axes whole and the kept ones at its own index."""

from gradlab.patterns import Pattern, maps
from gradlab.structure.sites import Site, rule

__all__: list[str] = []


@rule(
    "reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or",
    "reduce_xor", "argmax", "argmin",
)  # fmt: skip
def reduction(site: Site, k: int) -> Pattern:
    """Kept axes are equal; reduced axes are read whole."""
    return maps.reduce(site.in_shapes[0], tuple(site.params["axes"]))


@rule("reduce")
def general_reduction(site: Site, k: int) -> tuple[Pattern, ...]:
    """A reduction by any function: each output reads each operand; initial values reach all."""
    operands = len(site.in_shapes) // 2
    if k >= operands:
        return site.dense(k)
    local = maps.reduce(site.in_shapes[k], tuple(site.params["dimensions"]))
    return (local,) * len(site.out_shapes)
