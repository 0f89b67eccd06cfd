"""Is a program the gradient of a scalar function? Then its Jacobian, a Hessian, is symmetric."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from gradlab.tracing.program import Program, trace
from gradlab.tracing.rules import custom_rules
from gradlab.tracing.walking import walk

__all__ = ["is_gradient"]

_BEYOND_AUTODIFF = ("linear_call", "custom_linear_solve", "ffi_call")


def is_gradient(
    function: Callable[..., Any], inputs: Sequence[Any], program: Program, position: int
) -> bool:
    """Return whether a program is JAX's own gradient of a scalar function, by one input.

    So it is where the function wraps another (as what `jax.grad` returns does) whose gradient,
    taken here, is the same program; and where nothing in that function has a derivative of the
    user's making, which need not be the derivative of anything.

    Args:
        function: what was traced.
        inputs: its positional inputs, of any shapes and dtypes.
        program: its trace.
        position: of the positional input.

    Example:
        >>> import jax.numpy as jnp
        >>> gradient = jax.grad(lambda x: jnp.sin(x).sum())
        >>> is_gradient(gradient, [jnp.ones(3)], trace(gradient, jnp.ones(3)), 0)
        True
    """
    wrapped = getattr(function, "__wrapped__", None)
    if not callable(wrapped) or program.identity is None:
        return False
    try:
        gradient = trace(jax.grad(wrapped, position), *inputs)
        if gradient.identity != program.identity:
            return False
        scalar = trace(wrapped, *inputs)
    except Exception:  # whatever it wraps, it is no scalar function of these inputs
        return False
    return not any(rule.user for rule in custom_rules(scalar)) and not any(
        equation.primitive.name in _BEYOND_AUTODIFF for equation, _ in walk(scalar)
    )
