"""Cumulative operations and sorting."""

from gradlab.patterns import Pattern, maps
from gradlab.structure.sites import Site, rule

__all__: list[str] = []


@rule("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp")
def cumulative(site: Site, k: int) -> Pattern:
    """An output entry reads the entries up to its own along the axis."""
    return maps.cumulative(site.in_shapes[0], site.params["axis"], bool(site.params["reverse"]))


@rule("sort")
def sort(site: Site, k: int) -> tuple[Pattern | None, ...]:
    """The order along the axis depends on the keys: dense along it, equal elsewhere."""
    local = maps.dense_along(site.in_shapes[k], (site.params["dimension"],))
    moves_all = any(site.depends[: site.params["num_keys"]])
    return tuple(local if moves_all or j == k else None for j in range(len(site.out_shapes)))


@rule("top_k", "approx_top_k")
def top_k(site: Site, k: int) -> tuple[Pattern, ...]:
    """The largest entries along an axis."""
    given = site.in_shapes[0]
    axis = site.params.get("axis", site.params.get("reduction_dimension", -1)) % len(given)
    pairs = tuple((a, a) for a in range(len(given)) if a != axis)
    return tuple(maps.contraction(shape, given, pairs) for shape in site.out_shapes)
