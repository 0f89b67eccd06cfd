"""What a dtype can hold: unit roundoff, smallest numbers.

"tensorfloat32" is no dtype of arrays: it is what tensor cores keep of float32 factors.
"""

import functools
from typing import Any

import jax.numpy as jnp

from gradlab.common.arrays import DTypeLike

TENSORFLOAT32 = "tensorfloat32"


@functools.cache
def real_name(dtype: DTypeLike) -> str:
    """Return the name of a dtype's real part: complex64 is made of float32."""
    if dtype == TENSORFLOAT32:
        return TENSORFLOAT32
    name: str = jnp.dtype(dtype).name
    return {"complex64": "float32", "complex128": "float64"}.get(name, name)


def name_with_bits(mantissa_bits: int) -> str:
    """Return the dtype that keeps about as many digits as `reduce_precision` was asked to."""
    known = (("bfloat16", 7), ("float16", 10), ("float32", 23))
    return next((name for name, bits in known if mantissa_bits <= bits), "float64")


@functools.cache
def unit_roundoff(dtype: DTypeLike) -> float:
    """Return u, the largest relative error of rounding to nearest: half the spacing at 1."""
    if dtype == TENSORFLOAT32:
        return 2.0**-11
    return 0.5 * float(_info(dtype).eps)


@functools.cache
def smallest_normal(dtype: DTypeLike) -> float:
    """Return the smallest number that keeps all its digits."""
    return float(_info(dtype).smallest_normal)


@functools.cache
def underflow(dtype: DTypeLike) -> float:
    """Return the absolute error that underflow may cause.

    XLA flushes subnormal numbers to zero on the CPU, except float16's, which are float32's normal.
    """
    info = _info(dtype)
    small = info.smallest_subnormal if real_name(dtype) == "float16" else info.smallest_normal
    return float(small)


@functools.cache
def largest(dtype: DTypeLike) -> float:
    """Return the largest finite number."""
    return float(_info(dtype).max)


def _info(dtype: DTypeLike) -> Any:
    finfo: Any = jnp.finfo
    return finfo("float32" if dtype == TENSORFLOAT32 else real_name(dtype))
