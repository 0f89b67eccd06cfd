"""How many digits of its factors a device keeps where it multiplies matrices of float32.

Tensor cores take ten bits of each factor (tensorfloat32) or seven (bfloat16), unless the program
asks for more, and nothing in the program says so. It is measured, never assumed.
"""

import functools
from typing import Any

import jax
import numpy as np
from jax import lax

from gradlab.references.bounds import multiplies_matrices
from gradlab.references.precision import unit_roundoff
from gradlab.tracing.jaxprs import body, dtype_of, inner_jaxprs
from gradlab.tracing.settings import default_device
from gradlab.tracing.walking import jaxprs

_BITS = (("float32", 22), ("tensorfloat32", 9))
_SIZE = 128
_MANY = 16.0  # units times the root of the number of terms; a sum of float32 errs by less than 5


def device_here() -> Any:
    """Return the device on which JAX computes here what no device was named for."""
    chosen = default_device()
    if chosen is None or isinstance(chosen, str):
        return jax.local_devices(backend=chosen)[0]
    return chosen


def cut_to(equation: Any, device: Any) -> str | None:
    """Return the digits that a device keeps of float32 factors; None: all, or no such factors."""
    if device is None:
        return None
    if not multiplies_matrices(equation):
        programs = [each for _, inner in inner_jaxprs(equation) for each in jaxprs(inner)]
        inside = [each for program in programs for each in body(program).equations]
        cuts = [cut_to(each, device) for each in inside if multiplies_matrices(each)]
        return max(filter(None, cuts), key=unit_roundoff, default=None)
    if not {str(dtype_of(v)) for v in equation.invars[:2]} <= {"float32", "complex64"}:
        return None
    asked = equation.params["precision"]
    digits = product_digits(device, asked[0] if isinstance(asked, tuple) else asked)
    return None if digits == "float32" else digits


@functools.cache
def product_digits(device: Any, precision: Any = None) -> str:
    """Return "float32", "tensorfloat32" or "bfloat16": what survives of a factor in a product.

    A number with one far digit is multiplied, and seen whether the digit is still there. Some ways
    to multiply keep it in most factors, and lose it in others: they count as tensorfloat32.
    """
    exact = np.eye(_SIZE, dtype=np.float32)
    asked = lax.Precision.DEFAULT if precision is None else precision
    product = jax.jit(lambda a, b: lax.dot(a, b, precision=asked))
    a, b = np.random.default_rng(0).standard_normal((2, _SIZE, _SIZE)).astype(np.float32)
    with jax.default_device(device), jax.enable_x64(False):
        off = np.asarray(product(a, b), np.float64) - a.astype(np.float64) @ b
        rough = np.sqrt(np.mean(off**2) / _SIZE) > _MANY * unit_roundoff("float32")
        for name, bits in _BITS[int(rough) :]:
            row = np.full((_SIZE, _SIZE), 1 + 2.0**-bits, np.float32)
            if np.array_equal(product(row, exact), row):
                return name
    return "bfloat16"
