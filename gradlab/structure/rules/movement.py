"""Primitives that move entries about without touching their values."""

from gradlab.patterns import Pattern, maps
from gradlab.structure.sites import Site, outside, rule

__all__: list[str] = []


@rule("broadcast_in_dim")
def broadcast_in_dim(site: Site, k: int) -> Pattern:
    """Output axis `broadcast_dimensions[a]` is input axis a."""
    if k > 0:  # a dynamic shape
        return site.dense(k)[0]
    dimensions = tuple(site.params["broadcast_dimensions"])
    return maps.broadcast_in_dim(site.in_shapes[0], site.shape, dimensions)


@rule("reshape", "squeeze", "expand_dims")
def reshape(site: Site, k: int) -> Pattern:
    """Entries keep their row-major place, after a transposition if `dimensions` asks for one."""
    if k > 0:  # a dynamic shape
        return site.dense(k)[0]
    given = site.in_shapes[0]
    order = site.params.get("dimensions") if site.name == "reshape" else None
    if order is None:
        return maps.reshape(given, site.shape)
    turned = tuple(given[axis] for axis in order)
    return maps.reshape(turned, site.shape) @ maps.transpose(given, tuple(order))


@rule("transpose")
def transpose(site: Site, k: int) -> Pattern:
    """Output axis a is input axis `permutation[a]`."""
    return maps.transpose(site.in_shapes[0], tuple(site.params["permutation"]))


@rule("rev")
def reverse(site: Site, k: int) -> Pattern:
    """The entries of some axes in reverse order."""
    return maps.reverse(site.in_shapes[0], tuple(site.params["dimensions"]))


@rule("slice")
def slice_(site: Site, k: int) -> Pattern:
    """A static slice, possibly with strides."""
    strides = site.params["strides"]
    return maps.slice(
        site.in_shapes[0],
        tuple(site.params["start_indices"]),
        tuple(site.params["limit_indices"]),
        None if strides is None else tuple(strides),
    )


@rule("pad")
def pad(site: Site, k: int) -> Pattern:
    """Entries move apart and outwards; the padding value goes everywhere else."""
    low, high, interior = zip(*site.params["padding_config"]) if site.shape else ((), (), ())
    moved = maps.pad(site.in_shapes[0], low, high, interior)
    if k == 0:
        return moved
    return outside(moved.rows()) @ Pattern.dense((), site.in_shapes[1])


@rule("concatenate")
def concatenate(site: Site, k: int) -> Pattern:
    """The operands one after the other along an axis."""
    return maps.concatenate(site.in_shapes, site.params["dimension"])[k]


@rule("split")
def split(site: Site, k: int) -> tuple[Pattern, ...]:
    """The inverse of concatenate."""
    parts = maps.concatenate(site.out_shapes, site.params["axis"])
    return tuple(part.T for part in parts)


@rule("stack")
def stack(site: Site, k: int) -> Pattern:
    """The operands side by side along a new axis."""
    axis = site.params["axis"]
    return _slot(site.in_shapes[k], axis, k, len(site.in_shapes))


@rule("unstack")
def unstack(site: Site, k: int) -> tuple[Pattern, ...]:
    """The inverse of stack."""
    axis, count = site.params["axis"], len(site.out_shapes)
    return tuple(_slot(shape, axis, j, count).T for j, shape in enumerate(site.out_shapes))


@rule("tile")
def tile(site: Site, k: int) -> Pattern:
    """The operand repeated along its axes."""
    return maps.tile(site.in_shapes[0], tuple(site.params["reps"]))


@rule("bitcast_convert_type")
def bitcast(site: Site, k: int) -> Pattern:
    """The same bits; a change of width splits or joins the last axis."""
    given, made = site.in_shapes[0], site.shape
    if given == made:
        return Pattern.identity(made)
    return maps.contraction(made, given, tuple((a, a) for a in range(min(len(given), len(made)))))


def _slot(shape: tuple[int, ...], axis: int, k: int, count: int) -> Pattern:
    """Return how an array enters slot `k` of a new axis."""
    unit = (*shape[:axis], 1, *shape[axis:])
    low = tuple(k if a == axis else 0 for a in range(len(unit)))
    high = tuple(count - 1 - k if a == axis else 0 for a in range(len(unit)))
    return maps.pad(unit, low, high) @ maps.reshape(shape, unit)
