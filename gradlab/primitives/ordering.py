"""Cumulative operations and sorting."""

from dataclasses import replace

from gradlab.patterns import Pattern, maps
from gradlab.primitives import facts
from gradlab.primitives.equation import Equation
from gradlab.primitives.record import Primitive, Site, each, zero_if
from gradlab.primitives.rounding import EXACT, Near, SumOf, root_of


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
    replace(_RUNNING, name="cumsum", rounds=SumOf(_along)),
    replace(_RUNNING, name="cumprod", rounds=root_of(_along), underflows="possible"),
    replace(_RUNNING, name="cummax", known=facts.of_largest),
    replace(_RUNNING, name="cummin", known=facts.of_smallest),
    replace(_RUNNING, name="cumlogsumexp", zero=None, rounds=Near(16.0)),
    replace(_SORTED, name="sort", reads=_sort, zero=_own_is_zero),
    *each(_SORTED, "top_k approx_top_k"),
)
