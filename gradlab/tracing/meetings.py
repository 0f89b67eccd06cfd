"""The inputs at which a program meets its custom rules, so that each can be audited there.

One compiled run returns them all. A loop's body is met in its first iteration, and both branches of
a conditional are met, whichever is taken.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from gradlab.primitives import lookup
from gradlab.tracing.dependence import call_jaxpr, through
from gradlab.tracing.evaluate import Evaluator, Value
from gradlab.tracing.interpreter import Step
from gradlab.tracing.jaxprs import bind, contains, dtype_of, inner_jaxprs, loop_parts
from gradlab.tracing.leaves import is_inexact
from gradlab.tracing.program import Program, derive
from gradlab.tracing.rules import CustomRule, is_rule, rule_of

__all__ = ["Meeting", "rule_inputs"]


@dataclass(frozen=True, eq=False)
class Meeting:
    """A custom rule where a program meets it.

    `program` is the decorated function alone. Its inputs are only those that depend on the inputs
    of the whole; what the rule closes over is constant in it. `inputs` are their values.
    """

    rule: CustomRule
    program: Program
    inputs: tuple[Any, ...]


def rule_inputs(program: Program, inputs: Sequence[Any]) -> list[Meeting]:
    """Return every custom rule of a program with the inputs that it meets, innermost first.

    Args:
        program: a traced program.
        inputs: its flat inputs, as `program.flatten` returns them.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from gradlab.tracing import trace
        >>> x = jnp.array([-1.0, 2.0])
        >>> met = rule_inputs(trace(lambda x: jax.nn.relu(2.0 * x), x), [x])
        >>> met[0].rule.name, met[0].inputs[0].tolist()
        ('relu', [-2.0, 4.0])
    """
    meeter = _Meeter()

    def run(*arrays: Any) -> list[list[Any]]:
        meeter.met.clear()
        values = [Value(a, is_inexact(dtype_of(a))) for a in arrays]
        meeter(program.jaxpr, values)
        return [[value.array for value in values] for _, _, values in meeter.met]

    with jax.enable_x64(program.x64):
        arrays = jax.jit(run)(*inputs)
        return [
            _meeting(program, equation, rule, [v.depends for v in values], found)
            for (equation, rule, values), found in zip(meeter.met, arrays)
        ]


class _Meeter(Evaluator):
    """Evaluates as traced, and notes the inputs of every rule on the way."""

    def __init__(self) -> None:
        self.met: list[tuple[Any, CustomRule, Sequence[Value]]] = []
        self._open_now: list[Any] = []

    def keeps(self, equation: Any) -> bool:
        opened = call_jaxpr(equation) is not None and not is_rule(equation)
        return not opened or not _holds_rules(equation)

    def _open(self, step: Step, inputs: list[Value]) -> list[Value]:
        self._open_now.append(step.equation)
        outputs = super()._open(step, inputs)
        self._open_now.pop()
        return outputs

    def equation(self, equation: Any, inputs: Sequence[Value]) -> list[Value]:
        if _holds_rules(equation):
            self._look_into(equation, inputs)
        if is_rule(equation):
            inside = tuple(filter(None, map(_place, self._open_now[:-1])))
            self.met.append((equation, replace(rule_of(equation), inside=inside), inputs))
        flags = through(equation, [value.depends for value in inputs])
        outputs = bind(equation, [value.array for value in inputs])
        return [Value(array, flag) for array, flag in zip(outputs, flags)]

    def _look_into(self, equation: Any, inputs: Sequence[Value]) -> None:
        name, params = equation.primitive.name, equation.params
        if is_rule(equation):
            self(call_jaxpr(equation), inputs)
        elif name == "scan":
            constants, carry = loop_parts(equation)
            first = -1 if params["reverse"] else 0
            rows = [v._replace(array=v.array[first]) for v in inputs[constants + carry :]]
            if params["length"]:
                self(params["jaxpr"], [*inputs[: constants + carry], *rows])
        elif name == "while":
            self(params["body_jaxpr"], inputs[params["cond_nconsts"] :])
        elif name == "cond":
            for branch in params["branches"]:
                self(branch, inputs[1:])


def _place(equation: Any) -> str:
    """Return what encloses a rule in words: a rule by its name; a plain call is no place."""
    if is_rule(equation):
        return rule_of(equation).name
    name: str = equation.primitive.name
    record = lookup(name)
    return "" if record.plain else record.words or name


def _holds_rules(equation: Any) -> bool:
    return any(contains(jaxpr, is_rule) for _, jaxpr in inner_jaxprs(equation))


def _meeting(
    program: Program, equation: Any, rule: CustomRule, depends: list[bool], arrays: list[Any]
) -> Meeting:
    chosen = [i for i, flag in enumerate(depends) if flag and is_inexact(dtype_of(arrays[i]))]

    def flat_function(*values: Any) -> list[Any]:
        full = list(arrays)
        for position, value in zip(chosen, values):
            full[position] = value
        return bind(equation, full)

    names = [f"argument {i}" for i in range(len(chosen))]
    outputs = [f"output[{i}]" for i in range(len(equation.outvars))]
    alone = derive(
        program,
        flat_function,
        [equation.invars[i].aval for i in chosen],
        names,
        outputs if len(outputs) > 1 else ["output"],
        lambda: None,
    )
    return Meeting(rule, alone, tuple(np.asarray(arrays[i]) for i in chosen))
