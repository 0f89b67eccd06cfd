"""What computes nothing by itself: calls, cells, collectives, arrays out of nothing, random bits.

Calls are read by the programs inside. A primitive that is no call here stays closed, whatever
programs it holds. Collectives are as one device's part of the arrays sees them: an array reads the
arrays of the other devices at the places that are said here; which devices, the mesh says.
"""

from dataclasses import replace

from gradlab.patterns import Pattern, maps
from gradlab.primitives import positions
from gradlab.primitives.record import Primitive, Site, each, zero_if
from gradlab.primitives.rounding import EXACT, UNKNOWN


def _same_place(site: Site, k: int) -> tuple[Pattern | None, ...]:
    """The entries at the same place."""
    return tuple(
        Pattern.identity(shape) if j == k and shape == site.in_shapes[k] else None
        for j, shape in enumerate(site.out_shapes)
    )


def _other_places(site: Site, k: int) -> tuple[Pattern, ...]:
    """Parts of arrays change places: axes of unchanged size stay equal, if no axis is new."""
    given, made = site.in_shapes[k], site.shape
    named = {site.params.get(key) for key in ("split_axis", "concat_axis")}
    if len(given) != len(made) or site.name == "ragged_all_to_all":
        return site.dense(k)
    pairs = [(a, a) for a, (m, n) in enumerate(zip(made, given)) if m == n and a not in named]
    return (maps.contraction(made, given, tuple(pairs)),)


_CALL = Primitive(name="", calls="")
_PLAIN = replace(_CALL, plain=True)
_CHECKPOINT = replace(_CALL, words="checkpoint")
_CELL = Primitive(name="", stateful=True)
_ALONE = Primitive(
    name="", reads=_same_place, zero=zero_if(), rounds=EXACT, underflows="never", placed=True
)
_TOGETHER = replace(_ALONE, talks=True)
_MOVED = replace(_TOGETHER, reads=_other_places)
_MADE = Primitive(name="", rounds=EXACT, underflows="never")

RECORDS = (
    *each(_PLAIN, "jit pjit call closed_call core_call core_closed_call xla_call"),
    *each(_CHECKPOINT, "checkpoint remat remat2"),
    replace(_CHECKPOINT, name="remat_opt", calls="fwd_jaxpr"),
    *each(_CALL, "custom_jvp_call custom_jvp_call_jaxpr custom_vjp_call custom_vjp_call_jaxpr"),
    replace(_CALL, name="custom_vmap_call", calls="call"),
    replace(_CALL, name="linear_call"),
    replace(_CALL, name="composite", calls="jaxpr"),
    replace(_PLAIN, name="eval_jaxpr"),
    *each(
        _CELL, "new_ref empty_ref get swap addupdate freeze free_ref run_state accum_grad_in_ref"
    ),
    *each(
        _ALONE, "reduced_vary_cast reduced_vary_cast_p vary_unreduced_cast vary_unreduced_cast_p"
    ),
    *each(replace(_TOGETHER, rounds=UNKNOWN), "psum psum_invariant unreduced_psum"),
    *each(_TOGETHER, "pmax pmin ppermute pbroadcast pbroadcast_dynamic preduced"),
    *each(
        _MOVED, "all_gather all_gather_invariant all_gather_reduced all_to_all ragged_all_to_all"
    ),
    *each(replace(_MOVED, rounds=UNKNOWN), "reduce_scatter unreduced_reduce_scatter"),
    replace(_MADE, name="iota", affine=positions.counted),
    replace(_MADE, name="dim_as_value", affine=positions.dimension),
    *each(_MADE, "empty empty2"),
    replace(_MADE, name="axis_index", placed=True),
    *each(
        _MADE,
        "random_bits random_fold_in random_seed random_split random_wrap random_unwrap "
        "rng_bit_generator threefry2x32 random_clone",
    ),
)
