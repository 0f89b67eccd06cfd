"""Arrays out of nothing, and random bits: nothing is rounded, and no derivative passes."""

from dataclasses import replace

from gradlab.primitives import positions
from gradlab.primitives.record import Primitive, each
from gradlab.primitives.rounding import EXACT

_MADE = Primitive(name="", rounds=EXACT, underflows="never")

RECORDS = (
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
