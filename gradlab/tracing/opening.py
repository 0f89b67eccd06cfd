"""Open kernels: what a `pallas_call` computes, in operations that JAX differentiates.

Zeros below the diagonal of a result are written, too, since its derivative does not show them.
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp

from gradlab.primitives import lookup
from gradlab.tracing.evaluate import Evaluator, Value
from gradlab.tracing.jaxprs import Equation, Jaxpr, body, inner_jaxprs, source
from gradlab.tracing.kernels import kernel_jaxpr
from gradlab.tracing.kinds import is_rule
from gradlab.tracing.program import Program, rewritten
from gradlab.tracing.walking import walk


def open_kernels(program: Program) -> Program:
    """Return the program with its kernels opened; those stay that Pallas cannot interpret.

    JAX does not differentiate a kernel backwards. What it computes, block after block, it does. A
    kernel under a custom rule is left alone: it is the rule that JAX differentiates there.
    """
    held = _leads(program.jaxpr, _is_kernel)
    return rewritten(program, _Opener(), open_kernels) if held else program


def write_zeros(program: Program) -> Program:
    """Return the program with zeros below the diagonals that have them, such as that of R in QR.

    JAX's derivative computes these zeros as differences of equal numbers.
    """
    held = _leads(program.jaxpr, _is_triangular)
    return rewritten(program, _Zeros(), write_zeros) if held else program


def kernels(program: Program) -> list[str]:
    """Return the kernels that are opened, without repeats: "pallas_call at layer.py:12"."""
    found = [equation for equation, _ in walk(program) if _is_kernel(equation)]
    return list(dict.fromkeys(f"pallas_call at {source(each)}" for each in found))


class _Opener(Evaluator):
    """Evaluates as traced, but for kernels; calls without one, and custom rules, stay calls."""

    def keeps(self, equation: Equation) -> bool:
        return not _leads_to(equation, _is_kernel)


class _Zeros(Evaluator):
    """Evaluates as traced, and writes zeros below the diagonals that have them."""

    def keeps(self, equation: Equation) -> bool:
        return not _leads_to(equation, _is_triangular)

    def equation(self, equation: Equation, inputs: Sequence[Value]) -> list[Value]:
        """Evaluate one equation as traced."""
        outputs = super().equation(equation, inputs)
        k = lookup(equation.primitive.name).triangular
        if k is not None:
            outputs[k] = outputs[k]._replace(array=jnp.triu(outputs[k].array))
        return outputs


def _leads(jaxpr: Jaxpr, wanted: Callable[[Equation], bool]) -> bool:
    return any(_leads_to(equation, wanted) for equation in body(jaxpr).equations)


def _leads_to(equation: Equation, wanted: Callable[[Equation], bool]) -> bool:
    if is_rule(equation):
        return False
    return wanted(equation) or any(_leads(inner, wanted) for _, inner in inner_jaxprs(equation))


def _is_kernel(equation: Equation) -> bool:
    return equation.primitive.name == "pallas_call" and kernel_jaxpr(equation) is not None


def _is_triangular(equation: Equation) -> bool:
    return lookup(equation.primitive.name).triangular is not None
