"""Open kernels: what a `pallas_call` computes, in operations that JAX differentiates."""

from typing import Any

from gradlab.tracing.evaluate import Evaluator, Value
from gradlab.tracing.jaxprs import contains, inner_jaxprs
from gradlab.tracing.kernels import kernel_jaxpr
from gradlab.tracing.program import Program, derive

__all__ = ["open_kernels"]


def open_kernels(program: Program) -> Program:
    """Return the program with its kernels opened; those stay that Pallas cannot interpret.

    JAX does not differentiate a kernel backwards. What it computes, block after block, it does.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jax.experimental import pallas as pl
        >>> from gradlab.tracing import trace
        >>> def kernel(x_ref, y_ref):
        ...     y_ref[...] = x_ref[...] ** 2
        >>> square = pl.pallas_call(kernel, jax.ShapeDtypeStruct((3,), jnp.float32))
        >>> opened = open_kernels(trace(square, jnp.arange(3.0)))
        >>> jax.grad(lambda x: opened.flat(x)[0].sum())(jnp.arange(3.0))
        Array([0., 2., 4.], dtype=float32)
    """
    if not contains(program.jaxpr, _is_kernel):
        return program

    def flat_function(*arrays: Any) -> list[Any]:
        outputs = _Opener()(program.jaxpr, [Value(array, True) for array in arrays])
        return [value.array for value in outputs]

    def wide() -> Program | None:
        return open_kernels(program.wide) if program.wide is not None else None

    names = program.in_names, program.out_names
    return derive(program, flat_function, program.in_avals, *names, wide)


class _Opener(Evaluator):
    """Evaluates as traced, but for kernels; calls without one stay calls."""

    def keeps(self, equation: Any) -> bool:
        inner = [jaxpr for _, jaxpr in inner_jaxprs(equation)]
        return not _is_kernel(equation) and not any(contains(each, _is_kernel) for each in inner)


def _is_kernel(equation: Any) -> bool:
    return equation.primitive.name == "pallas_call" and kernel_jaxpr(equation) is not None
