"""A program whose derivative is another function's: what the author of a rule means by it.

Straight-through, clipped and reversed gradients are no derivatives of the function that they
belong to. The value stays that of the primal; the derivative is that of what is intended.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax

from gradlab.arguments import name_of, users_fault
from gradlab.common.arrays import Array, Function, Tree
from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.tracing.evaluate import Evaluator, Value
from gradlab.tracing.jaxprs import Equation, closed, contains
from gradlab.tracing.kinds import expansion_of, is_rule
from gradlab.tracing.program import Program, derive, rewritten
from gradlab.tracing.rules import Chooser, CustomRule, NotStrippable, rule_of

Chosen = Callable[[CustomRule], Function | None]


def with_derivative_of(primal: Program, other: Program) -> Program:
    """Return the program with the values of one, and the derivatives of another."""

    def wide() -> Program | None:
        first, second = primal.wide, other.wide
        return None if first is None or second is None else with_derivative_of(first, second)

    def flat_function(*arrays: Array) -> list[Any]:
        return _joined(primal.flat, other.flat)(*arrays)

    names = primal.in_names, primal.out_names
    both = derive(primal, flat_function, primal.in_avals, *names, wide)
    trees = {"in_tree": primal.in_tree, "out_tree": primal.out_tree}
    return replace(both, leaves=primal.leaves, **trees)


def intend(program: Program, chosen: Chosen) -> Program:
    """Return the program with chosen rules replaced: their values, and what is meant by them.

    `chosen` returns for a rule the function of its operands that is meant, or None.
    """

    def goes(equation: Equation) -> bool:
        return is_rule(equation) and chosen(rule_of(equation)) is not None

    if not contains(program.jaxpr, goes):
        return program

    return rewritten(program, _Intender(goes, chosen), lambda twin: intend(twin, chosen))


class _Intender(Chooser):
    """Evaluates as traced, except that chosen rules differentiate as they are meant to."""

    def __init__(self, goes: Callable[[Any], bool], chosen: Chosen) -> None:
        super().__init__(goes)
        self._chosen = chosen

    def equation(self, equation: Equation, inputs: Sequence[Value]) -> list[Value]:
        if not self.goes(equation):
            return super().equation(equation, inputs)
        rule, primal = rule_of(equation), expansion_of(equation)
        if primal is None:
            raise NotStrippable(f"nothing says what {rule.name} ({rule.kind}) stands for")
        primal = closed(primal)
        function = self._chosen(rule)
        skipped = len(equation.invars) - _arguments(equation)

        def value(*arrays: Array) -> list[Tree]:
            values = _Stripped()(primal, [Value(array, True) for array in arrays])
            return [each.array for each in values]

        def meant(*arrays: Array) -> list[Any]:
            assert function is not None
            return _called(function, rule, arrays[skipped:], equation.outvars)

        arrays = [each.array for each in inputs]
        jax.eval_shape(meant, *arrays)  # what does not fit is said here, not when differentiating
        outputs = _joined(value, meant)(*arrays)
        return [Value(array, True) for array in outputs]


class _Stripped(Evaluator):
    """Evaluates a primal with every rule inside it taken out."""


def _arguments(equation: Equation) -> int:
    """Return how many of an equation's operands are arguments, and not closed over."""
    closed_over: int = equation.params.get("num_consts", 0)
    return len(equation.invars) - closed_over


def _joined(
    value: Callable[..., list[Tree]], meant: Callable[..., list[Any]]
) -> Callable[..., list[Any]]:
    """Return a function with the values of one function and the derivatives of another."""

    @jax.custom_jvp
    def joined(*arrays: Array) -> list[Any]:
        return value(*arrays)

    @joined.defjvp
    def _(primals: Sequence[Array], tangents: Sequence[Array]) -> tuple[list[Any], list[Any]]:
        outputs = value(*primals)
        _, pushed = jax.jvp(meant, tuple(primals), tuple(tangents))
        return outputs, pushed

    return joined


def _called(
    function: Function, rule: CustomRule, operands: Sequence[Array], outvars: Sequence[Any]
) -> list[Any]:
    try:
        found = function(*operands)
    except Exception as error:  # whatever the user's function raises
        raise users_fault(
            f"intended for {rule.name}", function, operands, error, "f(*operands of the rule)"
        ) from error
    leaves = jax.tree.leaves(found)
    shapes = [tuple(jax.numpy.shape(leaf)) for leaf in leaves]
    wanted = [tuple(variable.aval.shape) for variable in outvars]
    if shapes != wanted:
        ours, theirs = ("; ".join(map(shape_text, each)) for each in (shapes, wanted))
        raise InputError(
            f"intended: {name_of(function)} returns {ours}, but {rule.name} returns {theirs}"
        )
    return [jax.numpy.asarray(leaf, v.aval.dtype) for leaf, v in zip(leaves, outvars)]
