"""Short loops step by step, where a counter says which entry each step reads or writes.

Closed under one step, a loop that reads `x[i]` may read any entry in any step. Unrolled, the
counter is a number, and each step's index is known.
"""

from typing import Any

from gradlab.patterns import Pattern, maps
from gradlab.structure.infer import Dependence, Value, Walk, union
from gradlab.structure.known import Known
from gradlab.tracing.jaxprs import body, loop_parts

__all__ = ["unrolled", "worth_unrolling"]

_EQUATIONS = 512


def worth_unrolling(equation: Any) -> bool:
    """Return whether a scan is short enough to be followed step by step."""
    inside = len(body(equation.params["jaxpr"]).equations)
    return bool(0 < equation.params["length"] * inside <= _EQUATIONS)


def unrolled(walk: Walk, equation: Any, operands: list[Value]) -> list[Value]:
    """Return what a scan makes, from one run of its body for each step."""
    constants, carried = loop_parts(equation)
    length = equation.params["length"]
    carry = operands[constants : constants + carried]
    stacked: list[list[tuple[int, Value]]] = [[] for _ in equation.outvars[carried:]]
    shapes = [tuple(v.aval.shape) for v in equation.invars[constants + carried :]]
    order = range(length)
    for step in reversed(order) if equation.params["reverse"] else order:
        inputs = [
            _at(value, step, shape)
            for value, shape in zip(operands[constants + carried :], shapes, strict=True)
        ]
        results = walk.run(equation.params["jaxpr"], [*operands[:constants], *carry, *inputs])
        carry = results[:carried]
        for found, value in zip(stacked, results[carried:], strict=True):
            found.append((step, value))
    outputs: list[Value] = [(_stack(found, length), None) for found in stacked]
    return [*carry, *outputs]


def _at(value: Value, step: int, shape: tuple[int, ...]) -> Value:
    """Return one step's part of a stacked input."""
    dependence, known = value
    array = None if known is None else known.value()
    part = _place(step, shape[1:], shape[0]).T
    return (
        {seed: part @ pattern for seed, pattern in dependence.items()},
        None if array is None else Known(array=array[step]),
    )


def _stack(found: list[tuple[int, Value]], length: int) -> Dependence:
    parts: dict[int, list[Pattern]] = {}
    for step, (dependence, _) in found:
        for seed, pattern in dependence.items():
            place = _place(step, pattern.output_shape, length)
            parts.setdefault(seed, []).append(place @ pattern)
    return union(parts)


def _place(step: int, shape: tuple[int, ...], length: int) -> Pattern:
    """Return how one step's array lies in the stack of all."""
    when = Pattern.from_axes((length,), (), [(0, None, step, step)])
    return maps.product(when, Pattern.identity(shape))
