"""Primitives of libraries, as the programs that their authors wrote for them in JAX.

A product with a sparse matrix is one primitive, and so is a library's select. What it does is
written in Python as its implementation, which JAX traces like any other function.
"""

import functools
from typing import Any

import jax

from gradlab.common.arrays import Array
from gradlab.tracing.jaxprs import (
    Abstract,
    ByIdentity,
    Equation,
    contains,
    dtype_of,
    inner_jaxprs,
    shape_of,
)
from gradlab.tracing.leaves import is_inexact

_NUMBERS = "biufcV"


def implementation(equation: Equation) -> Any:
    """Return the jaxpr of a primitive that a library implements in JAX; None where there is none.

    JAX's own primitives have none that can be traced, and an effect is not traced twice.
    """
    function = getattr(equation.primitive, "impl", None)
    module = getattr(getattr(function, "func", function), "__module__", "") or ""
    own = module.startswith(("jax._src", "jaxlib", "jax.core", "jax.extend"))
    if function is None or own or equation.effects or any(True for _ in inner_jaxprs(equation)):
        return None
    dtypes = [dtype_of(atom) for atom in equation.invars]
    if any(getattr(dtype, "kind", "O") not in _NUMBERS for dtype in dtypes):
        return None
    return _traced(ByIdentity(equation), function)


@functools.lru_cache(maxsize=256)
def _traced(key: ByIdentity[Any], function: Any) -> Any:
    equation = key.thing
    avals = [Abstract(shape_of(v), dtype_of(v)) for v in equation.invars]
    wide = any(str(dtype_of(v)) in ("float64", "complex128", "int64") for v in equation.invars)
    name = equation.primitive.name
    try:
        with jax.enable_x64(wide):
            jaxpr = jax.make_jaxpr(functools.partial(function, **equation.params))(*avals)
    except Exception:  # whatever a library's function raises for values that are not there
        return None
    fits = len(jaxpr.out_avals) == len(equation.outvars)
    itself = contains(jaxpr, lambda inner: inner.primitive.name == name)
    return jaxpr if fits and not itself else None


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
