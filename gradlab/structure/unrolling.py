"""Short loops step by step, where a counter says which entry each step reads or writes.

Closed under one step, a loop that reads `x[i]` may read any entry in any step. Unrolled, the
counter is a number, and each step's index is known.
"""

from typing import Any

from gradlab.patterns import Pattern, maps
from gradlab.primitives.known import Known
from gradlab.structure.infer import Traced, Walk, union
from gradlab.tracing.jaxprs import body, loop_parts

__all__ = ["unrolled", "worth_unrolling"]

_EQUATIONS = 2048


def worth_unrolling(equation: Any) -> bool:
    """Return whether a scan is short enough to be followed step by step."""
    inside = len(body(equation.params["jaxpr"]).equations)
    return bool(0 < equation.params["length"] * inside <= _EQUATIONS)


def unrolled(walk: Walk, equation: Any, operands: list[Traced]) -> list[Traced]:
    """Return what a scan makes, from one run of its body for each step."""
    constants, carried = loop_parts(equation)
    length = equation.params["length"]
    carry = operands[constants : constants + carried]
    stacked: list[list[tuple[int, Traced]]] = [[] for _ in equation.outvars[carried:]]
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
    return [*carry, *(_stack(walk, equation, found, length) for found in stacked)]


def _at(value: Traced, step: int, shape: tuple[int, ...]) -> Traced:
    """Return one step's part of a stacked input."""
    array = None if value.known is None else value.known.value()
    if array is not None and array.dtype == object:  # keys
        array = None
    part = _place(step, shape[1:], shape[0]).T
    known = None if array is None else Known(array=array[step])
    if known is None and value.is_zero:
        known = Known(support=Pattern.zero(shape[1:], ()))
    reads = {seed: part @ pattern for seed, pattern in value.reads.items()}
    return Traced(reads, known, value.offset)


def _stack(walk: Walk, equation: Any, found: list[tuple[int, Traced]], length: int) -> Traced:
    parts: dict[int, list[Pattern]] = {}
    for step, value in found:
        for seed, pattern in value.reads.items():
            place = _place(step, pattern.output_shape, length)
            parts.setdefault(seed, []).append(place @ pattern)
    values = [value for _, value in found]
    vanishes = all(value.vanishes for value in values)
    return Traced(union(parts), None, None if vanishes else walk.offset(equation, values))


def _place(step: int, shape: tuple[int, ...], length: int) -> Pattern:
    """Return how one step's array lies in the stack of all."""
    when = Pattern.from_axes((length,), (), [(0, None, step, step)])
    return maps.product(when, Pattern.identity(shape))
