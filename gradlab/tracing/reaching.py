"""What reaches a rule inside a program: upstreams at its outputs, tangents at its operands.

A rule may be right only for what occurs: a solver's statistics receive no upstream, and a start
value moves only together with the end. JAX itself tells, with symbolic zeros: the program is
differentiated by something added to each of the rule's outputs.
"""

from collections.abc import Collection, Sequence
from typing import Any

import jax
import numpy as np

from gradlab.common.arrays import Array
from gradlab.tracing.dependence import flow
from gradlab.tracing.evaluate import Evaluator, Value
from gradlab.tracing.jaxprs import Abstract, contains, dtype_of, inner_jaxprs
from gradlab.tracing.leaves import is_inexact
from gradlab.tracing.program import Program


def reached_outputs(program: Program, equations: Sequence[Any]) -> tuple[int, ...] | None:
    """Return the outputs of a rule to which autodiff of a program sends an upstream.

    None where JAX does not differentiate what follows the rule.
    """
    variables = equations[0].outvars
    floats = [k for k, each in enumerate(variables) if is_inexact(dtype_of(each))]
    ends = [k for k, aval in enumerate(program.out_avals) if is_inexact(aval.dtype)]
    added = [Abstract(variables[k].aval.shape, dtype_of(variables[k])) for k in floats]
    upstreams = [Abstract(program.out_avals[k].shape, program.out_avals[k].dtype) for k in ends]
    inputs = [Abstract(aval.shape, aval.dtype) for aval in program.in_avals]
    count = len(inputs)

    def following(arrays: Sequence[Array]) -> Any:
        def outputs(*more: Any) -> list[Any]:
            adder = _Adder(equations, dict(zip(floats, more)))
            found = adder(program.jaxpr, [Value(array, True) for array in arrays])
            if not adder.met:
                raise LookupError("the rule lies where nothing can be added to it")
            return [found[k].array for k in ends]

        return outputs

    def pulled(*arrays: Array) -> list[Array]:
        zeros = [np.zeros(each.shape, each.dtype) for each in added]
        back = jax.vjp(following(arrays[:count]), *zeros)[1]
        return list(back(list(arrays[count:])))

    def pushed(*arrays: Array) -> list[Any]:
        zeros = [np.zeros(each.shape, each.dtype) for each in added]
        return list(jax.jvp(following(arrays[:count]), zeros, list(arrays[count:]))[1])

    fixed = [False] * count
    with jax.enable_x64(program.x64):
        try:
            jaxpr = jax.make_jaxpr(pulled)(*inputs, *upstreams)
            reached = flow(jaxpr, fixed + [True] * len(ends))
        except Exception:  # JAX has many words for what it cannot transpose
            try:
                jaxpr = jax.make_jaxpr(pushed)(*inputs, *added)
            except Exception:  # nor differentiate forwards
                return None
            ones = np.eye(len(floats), dtype=bool).tolist()
            reached = [any(flow(jaxpr, fixed + one)) for one in ones]
    return tuple(k for k, reaches in zip(floats, reached) if reaches)


def moved_together(program: Program, equations: Sequence[Any]) -> set[frozenset[int]]:
    """Return which operands of a rule move together, for each input of a program that moves."""
    sets: set[frozenset[int]] = set()
    calls = {id(equation) for equation in equations}

    def see(equation: Any, flags: Sequence[bool]) -> None:
        if id(equation) in calls:
            sets.add(frozenset(i for i, flag in enumerate(flags) if flag))

    for position in program.differentiable:
        flow(program.jaxpr, [k == position for k in range(len(program.in_avals))], see)
    return sets


class _Adder(Evaluator):
    """Evaluates as traced, and adds something to the outputs of chosen equations."""

    def __init__(self, equations: Sequence[Any], added: dict[int, Any]) -> None:
        self.chosen: Collection[int] = {id(equation) for equation in equations}
        self.added, self.met = added, False

    def keeps(self, equation: Any) -> bool:
        if self._is_chosen(equation) or equation.primitive.name == "custom_linear_solve":
            return True
        return not any(contains(inner, self._is_chosen) for _, inner in inner_jaxprs(equation))

    def equation(self, equation: Any, inputs: Sequence[Value]) -> list[Value]:
        outputs = super().equation(equation, inputs)
        if not self._is_chosen(equation):
            return outputs
        self.met = True
        return [
            value._replace(array=value.array + self.added[k]) if k in self.added else value
            for k, value in enumerate(outputs)
        ]

    def _is_chosen(self, equation: Any) -> bool:
        return id(equation) in self.chosen
