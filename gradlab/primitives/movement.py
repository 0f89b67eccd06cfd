"""Primitives that move entries about without touching their values."""

from dataclasses import replace

from gradlab.patterns import Pattern, maps
from gradlab.primitives import positions
from gradlab.primitives.known import Known
from gradlab.primitives.record import Primitive, Site, complement, each, zero_if
from gradlab.primitives.rounding import EXACT


def _broadcast_in_dim(site: Site, k: int) -> Pattern:
    """Output axis `broadcast_dimensions[a]` is input axis a."""
    if k > 0:  # a dynamic shape
        return site.dense(k)[0]
    dimensions = tuple(site.params["broadcast_dimensions"])
    return maps.broadcast_in_dim(site.in_shapes[0], site.shape, dimensions)


def _reshape(site: Site, k: int) -> Pattern:
    """Entries keep their row-major place, after a transposition if `dimensions` asks for one."""
    if k > 0:  # a dynamic shape
        return site.dense(k)[0]
    given = site.in_shapes[0]
    order = site.params.get("dimensions") if site.name == "reshape" else None
    if order is None:
        return maps.reshape(given, site.shape)
    turned = tuple(given[axis] for axis in order)
    return maps.reshape(turned, site.shape) @ maps.transpose(given, tuple(order))


def _transpose(site: Site, k: int) -> Pattern:
    """Output axis a is input axis `permutation[a]`."""
    return maps.transpose(site.in_shapes[0], tuple(site.params["permutation"]))


def _reverse(site: Site, k: int) -> Pattern:
    """The entries of some axes in reverse order."""
    return maps.reverse(site.in_shapes[0], tuple(site.params["dimensions"]))


def _slice(site: Site, k: int) -> Pattern:
    """A static slice, possibly with strides."""
    strides = site.params["strides"]
    return maps.slice(
        site.in_shapes[0],
        tuple(site.params["start_indices"]),
        tuple(site.params["limit_indices"]),
        None if strides is None else tuple(strides),
    )


def _pad(site: Site, k: int) -> Pattern:
    """Entries move apart and outwards; the padding value goes everywhere else."""
    low, high, interior = zip(*site.params["padding_config"]) if site.shape else ((), (), ())
    moved = maps.pad(site.in_shapes[0], low, high, interior)
    if k == 0:
        return moved
    return complement(moved.rows()) @ Pattern.dense((), site.in_shapes[1])


def _concatenate(site: Site, k: int) -> Pattern:
    """The operands one after the other along an axis."""
    return maps.concatenate(site.in_shapes, site.params["dimension"])[k]


def _beside(site: Site) -> Known | None:
    """Columns beside each other, as the coordinates of an index array are, some of them known."""
    last = len(site.shape) - 1
    indices = site.out_dtypes[0].kind in "iu" and site.params["dimension"] == last
    if not indices or any(shape[-1] != 1 for shape in site.in_shapes):
        return None
    columns = [None if carries else known for carries, known in zip(site.depends, site.known)]
    return Known(columns=tuple(columns)) if any(columns) else None


def _split(site: Site, k: int) -> tuple[Pattern, ...]:
    """The inverse of concatenate."""
    parts = maps.concatenate(site.out_shapes, site.params["axis"])
    return tuple(part.T for part in parts)


def _stack(site: Site, k: int) -> Pattern:
    """The operands side by side along a new axis."""
    axis = site.params["axis"]
    return _slot(site.in_shapes[k], axis, k, len(site.in_shapes))


def _unstack(site: Site, k: int) -> tuple[Pattern, ...]:
    """The inverse of stack."""
    axis, count = site.params["axis"], len(site.out_shapes)
    return tuple(_slot(shape, axis, j, count).T for j, shape in enumerate(site.out_shapes))


def _tile(site: Site, k: int) -> Pattern:
    """The operand repeated along its axes."""
    return maps.tile(site.in_shapes[0], tuple(site.params["reps"]))


def _bitcast(site: Site, k: int) -> Pattern:
    """The same bits; a change of width splits or joins the last axis."""
    given, made = site.in_shapes[0], site.shape
    if given == made:
        return Pattern.identity(made)
    return maps.contraction(made, given, tuple((a, a) for a in range(min(len(given), len(made)))))


def _bits_of_integers(site: Site, output: int) -> bool:
    """A zero that is an integer has no bit set; the float -0.0 has one."""
    return site.vanishes[0] and site.in_dtypes[0].kind in "biu"


def _slot(shape: tuple[int, ...], axis: int, k: int, count: int) -> Pattern:
    """Return how an array enters slot `k` of a new axis."""
    unit = (*shape[:axis], 1, *shape[axis:])
    low = tuple(k if a == axis else 0 for a in range(len(unit)))
    high = tuple(count - 1 - k if a == axis else 0 for a in range(len(unit)))
    return maps.pad(unit, low, high) @ maps.reshape(shape, unit)


_MOVED = Primitive(name="", zero=zero_if(0), moves=slice(0, 1), rounds=EXACT, underflows="never")
_JOINED = replace(_MOVED, zero=zero_if(), moves=slice(None))

RECORDS = (
    replace(_MOVED, name="broadcast_in_dim", affine=positions.broadcast, reads=_broadcast_in_dim),
    *each(replace(_MOVED, affine=positions.reshape, reads=_reshape), "reshape squeeze expand_dims"),
    replace(_MOVED, name="transpose", affine=positions.transpose, reads=_transpose),
    replace(_MOVED, name="rev", affine=positions.reverse, reads=_reverse),
    replace(_MOVED, name="slice", affine=positions.part, reads=_slice),
    replace(_MOVED, name="split", reads=_split),
    replace(_MOVED, name="unstack", reads=_unstack),
    replace(_MOVED, name="tile", reads=_tile),
    replace(_JOINED, name="pad", reads=_pad),
    replace(_JOINED, name="concatenate", reads=_concatenate, known=_beside),
    replace(_JOINED, name="stack", reads=_stack),
    replace(
        _MOVED, name="bitcast_convert_type", reads=_bitcast, zero=_bits_of_integers, moves=None
    ),
)
