"""Kernels: a `pallas_call` as the program that it stands for, to be lifted and differentiated.

JAX interprets a kernel where its accelerator is not: it reads and writes slices of arrays, one
block after another. That interpretation is a program like any other. Its loop over the grid runs a
known number of times, which makes it a `scan`, that can be differentiated backwards.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from gradlab.common.arrays import Array
from gradlab.tracing.jaxprs import (
    Abstract,
    Atom,
    ByIdentity,
    Equation,
    Jaxpr,
    Literal,
    bind,
    body,
    dtype_of,
    shape_of,
)


def kernel_jaxpr(equation: Equation) -> Any:
    """Return a closed jaxpr of a `pallas_call` equation's inputs; None where JAX has none."""
    return _opened(ByIdentity(equation))


@functools.lru_cache(maxsize=256)
def _opened(key: ByIdentity) -> Any:
    equation = key.equation
    params = {name: value for name, value in equation.params.items() if name != "interpret"}
    avals = [Abstract(shape_of(v), dtype_of(v)) for v in equation.invars]
    wide = any(str(dtype_of(v)) in ("float64", "complex128") for v in equation.invars)
    try:
        # not documented, as is much of Pallas; kernels stay closed where it is missing or fails
        from jax._src.pallas.hlo_interpreter import pallas_call_hlo_interpret

        with jax.enable_x64(wide):
            whole = jax.make_jaxpr(lambda *arrays: pallas_call_hlo_interpret(*arrays, **params))
            interpreted = whole(*avals)
            blocks = params["grid_mapping"].grid
            if not all(isinstance(size, int) for size in blocks):
                return interpreted
            return jax.make_jaxpr(_counted(interpreted, math.prod(blocks)))(*avals)
    except Exception:  # whatever Pallas' interpreter raises: what it does not know
        return None


def _counted(interpreted: Any, steps: int) -> Any:
    """Return the interpretation as a function whose loop over the grid is counted."""

    def loop(equation: Equation, inputs: Sequence[Array]) -> list[Any]:
        skipped, constants = equation.params["cond_nconsts"], equation.params["body_nconsts"]
        fixed, start = inputs[skipped : skipped + constants], inputs[skipped + constants :]

        def step(carry: Sequence[Any]) -> list[Any]:
            return _evaluated(equation.params["body_jaxpr"], [*fixed, *carry], {})

        if steps == 1:
            return step(start)
        last: list[Any] = jax.lax.fori_loop(0, steps, lambda _, carry: step(carry), list(start))
        return last

    return lambda *arrays: _evaluated(interpreted, arrays, {"while": loop})


def _evaluated(jaxpr: Jaxpr, arrays: Sequence[Array], special: Mapping[str, Any]) -> list[Any]:
    """Evaluate a jaxpr, in which a block that is the whole array is the array itself."""
    parts = body(jaxpr)
    env = dict(zip(parts.constvars, parts.constants)) | dict(zip(parts.invars, arrays))

    def read(atom: Atom) -> Any:
        return atom.val if isinstance(atom, Literal) else env[atom]

    for equation in parts.equations:
        inputs, name = [read(atom) for atom in equation.invars], equation.primitive.name
        made = shape_of(equation.outvars[0]) if equation.outvars else None
        if name in special:
            outputs = special[name](equation, inputs)
        elif name == "dynamic_slice" and made == shape_of(equation.invars[0]):
            outputs = inputs[:1]
        elif name == "dynamic_update_slice" and made == shape_of(equation.invars[1]):
            outputs = inputs[1:2]
        else:
            outputs = bind(equation, inputs)
        env.update(zip(equation.outvars, outputs))
    return [read(atom) for atom in parts.outvars]
