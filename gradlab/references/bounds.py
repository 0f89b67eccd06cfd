"""How much each primitive rounds: exact, once, like a sum, like a stable factorisation.

What is not named here counts as a transcendental function, rounded within two units.
"""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax

from gradlab.tracing.jaxprs import body, dtype_of, inner_jaxprs
from gradlab.tracing.leaves import digits, is_inexact

__all__ = [
    "BACKWARD_STABLE",
    "HARD",
    "MATRIX_PRODUCTS",
    "PRODUCTS",
    "STEEP",
    "SUMS",
    "UNDERFLOWING",
    "VANISHING",
    "is_exact",
    "terms",
    "terms_inside",
    "units_of_result",
]

_EXACT = frozenset(
    [
        *("abs", "ceil", "clamp", "complex", "conj", "copy", "copy_p", "device_put", "floor"),
        *("imag", "is_finite", "max", "min", "name", "neg", "nextafter", "real", "rem", "round"),
        *("select_n", "sign", "stop_gradient", "optimization_barrier"),
        *("broadcast_in_dim", "concatenate", "expand_dims", "iota", "pad", "reshape", "rev"),
        *("slice", "split", "squeeze", "stack", "tile", "transpose", "unstack"),
        *("dynamic_slice", "dynamic_update_slice", "gather", "sort", "top_k"),
        *("scatter", "scatter-max", "scatter-min", "select_and_gather_add"),
        *("argmax", "argmin", "cummax", "cummin", "reduce_max", "reduce_min"),
        *("reduce_window_max", "reduce_window_min"),
        *("layout_constraint", "mesh_cast", "pcast", "pvary", "reshard", "sharding_constraint"),
    ]
)
_ONCE = frozenset(
    ["add", "add_any", "div", "mul", "reduce_precision", "sqrt", "square", "sub", "scatter-mul"]
)

UNDERFLOWING = frozenset(
    [
        *("mul", "div", "exp", "exp2", "integer_pow", "logistic", "pow", "square", "erfc"),
        *("convert_element_type", "reduce_precision", "reduce_prod", "cumprod", "scatter-mul"),
    ]
)
"""Primitives whose result may be smaller than the smallest number, whatever their inputs."""

VANISHING = frozenset(["exp", "exp2", "erfc", "logistic"])
"""Primitives that underflow on everyday inputs, whatever the range of the dtype."""

MATRIX_PRODUCTS = frozenset(["dot_general", "conv_general_dilated", "ragged_dot_general"])
SUMS = MATRIX_PRODUCTS | {
    *("reduce_sum", "cumsum", "reduce_window_sum"),
    *("scatter-add", "scatter-sub", "select_and_scatter_add"),
}
PRODUCTS = frozenset(["cumprod", "reduce_prod", "reduce_window_prod"])

_COARSE = {"log1p": 64.0, "atanh": 64.0, "erfc": 4.0}
"""What XLA itself gets wrong in float64: log1p by up to 240 units between -0.5 and -0.1."""

STEEP = frozenset(["cosh", "exp2", "sinh"])
"""Functions computed through exp: rounding the argument x costs |x| units of the result."""

HARD = {
    **dict.fromkeys(("digamma", "lgamma", "polygamma", "zeta", "random_gamma_grad"), 16.0),
    **dict.fromkeys(("igamma", "igammac", "igamma_grad_a"), 16.0),
    **dict.fromkeys(("regularized_incomplete_beta", "erf_inv"), 16.0),
}
"""Special functions, whose error is not relative near their zeros: units of 1 + |result|."""


def _largest(matrix: Any) -> Any:
    return jnp.broadcast_to(jnp.max(jnp.abs(matrix), (-2, -1), keepdims=True), matrix.shape)


def _diagonal(matrix: Any) -> Any:
    root = jnp.sqrt(jnp.abs(jnp.diagonal(matrix, axis1=-2, axis2=-1)))
    return root[..., :, None] * root[..., None, :]


BACKWARD_STABLE: dict[str, Callable[[Any], Any]] = {
    "cholesky": _diagonal,  # |dA| <= gamma |R'||R| <= gamma sqrt(a_ii a_jj)
    "triangular_solve": lax.abs,  # |dT| <= gamma |T|
    "tridiagonal_solve": lax.abs,
    **dict.fromkeys(("lu", "qr", "geqrf", "householder_product"), _largest),
    **dict.fromkeys(("eig", "eigh", "svd", "schur", "hessenberg", "tridiagonal"), _largest),
}
"""The exact result for a matrix nearby: how near per entry, in units times the root of its size."""


def is_exact(equation: Any) -> bool:
    """Return whether an equation's results need no rounding, once its inputs are rounded."""
    if equation.primitive.name != "convert_element_type":
        return equation.primitive.name in _EXACT
    before, after = dtype_of(equation.invars[0]), dtype_of(equation.outvars[0])
    if not is_inexact(after):
        return True
    if is_inexact(before):
        return bool(digits(after) >= digits(before))
    return bool(before == jnp.bool_ or digits(after) >= 23)  # counts and labels fit into float32


def units_of_result(equation: Any) -> float:
    """Return the error bound of a result in units roundoff of itself."""
    name = equation.primitive.name
    if name == "integer_pow":
        return max(1.0, math.log2(max(abs(equation.params["y"]), 1)))
    if name in PRODUCTS:
        return math.sqrt(terms(equation))
    return 1.0 if name in _ONCE or name == "convert_element_type" else _COARSE.get(name, 2.0)


def terms(equation: Any) -> int:
    """Return how many terms each entry of a sum or product has, at most."""
    name, params = equation.primitive.name, equation.params
    shape: tuple[int, ...] = equation.invars[0].aval.shape
    if name in ("reduce_sum", "reduce_prod"):
        return int(math.prod(shape[axis] for axis in params["axes"]))
    if name in ("cumsum", "cumprod"):
        return int(shape[params["axis"]])
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        return int(math.prod(shape[axis] for axis in contracted))
    if name == "conv_general_dilated":
        kernel: tuple[int, ...] = equation.invars[1].aval.shape
        return int(math.prod(kernel) // max(kernel[params["dimension_numbers"].rhs_spec[0]], 1))
    if "window_dimensions" in params:
        return int(math.prod(params["window_dimensions"]))
    if name.startswith("scatter"):
        return max(2, int(math.prod(equation.invars[1].aval.shape[:-1])))
    return int(shape[-1]) if shape else 1


def terms_inside(equation: Any) -> int:
    """Return how many terms a sum may have inside an equation that is not opened, at most.

    A kernel may add up what its blocks and iterations give; of what has no program inside, such as
    a callback, no more is known than that it sums along an axis of its inputs.
    """
    shapes = [getattr(variable.aval, "shape", ()) for variable in equation.invars]
    longest = max((int(axis) for shape in shapes for axis in shape), default=1)
    if "window_dimensions" in equation.params:
        return terms(equation)
    programs = [inner for _, inner in inner_jaxprs(equation)]
    if not programs:
        return longest
    blocks = getattr(equation.params.get("grid_mapping"), "grid", ())
    steps = math.prod(size if isinstance(size, int) else longest for size in blocks)
    return steps * max(_terms_of(program, longest) for program in programs)


def _terms_of(jaxpr: Any, unknown: int) -> int:
    """Return the terms of the longest sum in a program, whose `while` loops run `unknown` times."""
    longest = 1
    for equation in body(jaxpr).equations:
        if equation.primitive.name in SUMS:
            longest = max(longest, terms(equation))
        times = {"scan": equation.params.get("length", 1), "while": unknown}
        for _, inner in inner_jaxprs(equation):
            within = times.get(equation.primitive.name, 1) * _terms_of(inner, unknown)
            longest = max(longest, within)
    return longest
