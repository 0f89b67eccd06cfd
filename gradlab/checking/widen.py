"""Numbers in float64: exact for every narrower dtype, bfloat16 included."""

from typing import Any

import numpy as np

from gradlab.tracing.leaves import is_inexact


def widen(value: Any) -> Any:
    """Return an inexact array in float64 or complex128; keys, integers and booleans as they are."""
    dtype = getattr(value, "dtype", None)
    if dtype is None:
        value = np.asarray(value)
        dtype = value.dtype
    if not is_inexact(dtype):
        return value
    array = np.asarray(value)
    return array.astype(np.complex128 if np.iscomplexobj(array) else np.float64)
