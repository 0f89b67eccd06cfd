"""How far each primitive rounds, and with how many digits a device multiplies."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradlab.primitives import lookup
from gradlab.primitives.rounding import Exact, Rounding, SumOf, Units, Unknown
from gradlab.references.precision import name_with_bits, real_name, unit_roundoff
from gradlab.tracing.jaxprs import Jaxpr, body, dtype_of, inner_jaxprs, once, view
from gradlab.tracing.leaves import digits, is_inexact
from gradlab.tracing.settings import default_device
from gradlab.tracing.walking import jaxprs


def rounding_of(equation: Any) -> Rounding:
    """Return how an equation's primitive rounds."""
    return lookup(equation.primitive.name).rounds


def is_exact(equation: Any) -> bool:
    """Return whether an equation's results need no rounding, once its inputs are rounded."""
    if equation.primitive.name != "convert_element_type":
        return isinstance(rounding_of(equation), Exact)
    before, after = dtype_of(equation.invars[0]), dtype_of(equation.outvars[0])
    if not is_inexact(after):
        return True
    if is_inexact(before):
        return bool(digits(after) >= digits(before))
    return bool(before == jnp.bool_ or digits(after) >= 23)  # counts and labels fit into float32


def units_of_result(equation: Any) -> float:
    """Return the error bound of a result in units roundoff of itself."""
    rounding = rounding_of(equation)
    if isinstance(rounding, Units):
        return rounding.of(view(equation))
    return 2.0 * math.sqrt(_longest(equation)) if isinstance(rounding, Unknown) else 2.0


def multiplies_matrices(equation: Any) -> bool:
    """Return whether an equation sums products of factors that a device may cut short."""
    rounding = rounding_of(equation)
    return isinstance(rounding, SumOf) and rounding.of_products


def terms(equation: Any) -> int:
    """Return how many terms each entry of a sum has, at most; 1 for what is no sum."""
    rounding = rounding_of(equation)
    return rounding.terms(view(equation)) if isinstance(rounding, SumOf) else 1


def _longest(equation: Any) -> int:
    shapes = [getattr(variable.aval, "shape", ()) for variable in equation.invars]
    return max((int(axis) for shape in shapes for axis in shape), default=1)


def terms_inside(equation: Any) -> int:
    """Return how many terms a sum may have inside an equation that is not opened, at most.

    A kernel may add up what its blocks and iterations give; of what has no program inside, such as
    a callback, no more is known than that it sums along an axis of its inputs.
    """
    longest = _longest(equation)
    if "window_dimensions" in equation.params:
        return math.prod(equation.params["window_dimensions"])
    programs = [inner for _, inner in inner_jaxprs(equation)]
    if not programs:
        return longest
    blocks = getattr(equation.params.get("grid_mapping"), "grid", ())
    steps = math.prod(size if isinstance(size, int) else longest for size in blocks)
    return steps * max(_terms_of(program, longest) for program in programs)


def _terms_of(jaxpr: Jaxpr, unknown: int) -> int:
    """Return the terms of the longest sum in a program, whose `while` loops run `unknown` times."""
    longest = 1
    for equation in body(jaxpr).equations:
        longest = max(longest, terms(equation))
        times = {"scan": equation.params.get("length", 1), "while": unknown}
        for _, inner in inner_jaxprs(equation):
            within = times.get(equation.primitive.name, 1) * _terms_of(inner, unknown)
            longest = max(longest, within)
    return longest


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


@once
def digits_of(program: Any, device: Any) -> frozenset[str]:
    """Return the names of the real dtypes to which a program rounds where it runs.

    A `device` may keep fewer digits of float32 factors: that counts as a dtype too.
    """
    names: set[str] = set()
    for jaxpr in jaxprs(program):
        parts = body(jaxpr)
        atoms = [*parts.constvars, *parts.invars]
        for equation in parts.equations:
            atoms += [*equation.invars, *equation.outvars]
            if equation.primitive.name == "reduce_precision":
                names.add(name_with_bits(equation.params["mantissa_bits"]))
            names.add(cut_to(equation, device) or "")
        names |= {real_name(dtype) for dtype in map(dtype_of, atoms) if is_inexact(dtype)}
    return frozenset(names - {""})
