"""Primitives that say themselves what they stand for, as newer JAX writes `searchsorted`."""

import functools
from typing import Any

import jax

from gradlab.common.arrays import Array
from gradlab.tracing.jaxprs import Abstract, Equation, dtype_of, shape_of
from gradlab.tracing.leaves import is_inexact

HIGHER = "call_hi_primitive"
"""The name of every such primitive; which one it is, a parameter says."""


def expanded(equation: Equation) -> Any:
    """Return a closed jaxpr of the inputs of such an equation; None if it is to stay closed.

    One with a real result may have derivatives of its own, which its expansion does not show.
    """
    if any(is_inexact(dtype_of(variable)) for variable in equation.outvars):
        return None
    return expansion(equation)


def expansion(equation: Equation) -> Any:
    """Return a closed jaxpr of the inputs of such an equation: what it computes."""
    avals = tuple((shape_of(v), dtype_of(v)) for v in equation.invars)
    wide = any(dtype_of(v).itemsize == 8 for v in (*equation.invars, *equation.outvars))
    return _expanded(equation.params["_prim"], avals, wide)


@functools.lru_cache(maxsize=256)
def _expanded(primitive: Any, avals: tuple[tuple[tuple[int, ...], Any], ...], wide: bool) -> Any:
    def flat(*arrays: Array) -> Array:
        found = primitive.expand(*primitive.in_tree.unflatten(arrays))
        return jax.tree.leaves(found)

    with jax.enable_x64(wide):
        return jax.make_jaxpr(flat)(*(Abstract(shape, dtype) for shape, dtype in avals))
