"""Open kernels: what a `pallas_call` computes, in operations that JAX differentiates."""

from gradlab.tracing.evaluate import Evaluator
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
    held = _has_kernel(program.jaxpr)
    return rewritten(program, _Opener(), open_kernels) if held else program


def kernels(program: Program) -> list[str]:
    """Return the kernels that are opened, without repeats: "pallas_call at layer.py:12"."""
    found = [equation for equation, _ in walk(program) if _is_kernel(equation)]
    return list(dict.fromkeys(f"pallas_call at {source(each)}" for each in found))


class _Opener(Evaluator):
    """Evaluates as traced, but for kernels; calls without one, and custom rules, stay calls."""

    def keeps(self, equation: Equation) -> bool:
        return not _leads_to_kernel(equation)


def _has_kernel(jaxpr: Jaxpr) -> bool:
    return any(map(_leads_to_kernel, body(jaxpr).equations))


def _leads_to_kernel(equation: Equation) -> bool:
    if is_rule(equation):
        return False
    return _is_kernel(equation) or any(_has_kernel(inner) for _, inner in inner_jaxprs(equation))


def _is_kernel(equation: Equation) -> bool:
    return equation.primitive.name == "pallas_call" and kernel_jaxpr(equation) is not None
