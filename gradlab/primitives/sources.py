"""Arrays out of nothing, and random bits: nothing is rounded, and no derivative passes."""

from dataclasses import replace

from gradlab.primitives import positions
from gradlab.primitives.record import Primitive
from gradlab.primitives.rounding import EXACT

__all__ = ["RECORDS"]

_MADE = Primitive(name="", rounds=EXACT, underflows="never")

RECORDS = (
    replace(_MADE, name="iota", affine=positions.counted),
    replace(_MADE, name="dim_as_value", affine=positions.dimension),
    replace(_MADE, name="empty"),
    replace(_MADE, name="empty2"),
    replace(_MADE, name="axis_index", placed=True),
    replace(_MADE, name="random_bits"),
    replace(_MADE, name="random_fold_in"),
    replace(_MADE, name="random_seed"),
    replace(_MADE, name="random_split"),
    replace(_MADE, name="random_wrap"),
    replace(_MADE, name="random_unwrap"),
    replace(_MADE, name="rng_bit_generator"),
    replace(_MADE, name="threefry2x32"),
    replace(_MADE, name="random_clone"),
)
