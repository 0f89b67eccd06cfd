"""How much work a program is, read from its equations and their shapes alone."""

import math
from typing import Any, NamedTuple

from gradlab.tracing.dependence import call_jaxpr
from gradlab.tracing.jaxprs import Atom, Equation, Jaxpr, body, inner_jaxprs, needed, once, shape_of

STEP, ENTRY = 15e-6, 3e-9  # seconds of one equation in NumPy, and of one entry more
_TURNS = 30  # of a `while`, whose number of turns the program does not say
_PER_PRODUCT = 16  # products of a matrix product that take the time of another entry
_PRODUCTS = ("dot_general", "conv_general_dilated")
_DECOMPOSITIONS = {  # how often they pass over the matrix; those that iterate more often
    **dict.fromkeys(("eig", "eigh", "schur", "svd"), 16),
    **dict.fromkeys(("cholesky", "geqrf", "lu", "triangular_solve"), 4),
}
VIEWS = frozenset(
    [
        *("broadcast_in_dim", "reshape", "squeeze", "expand_dims", "transpose", "slice", "rev"),
        *("copy", "stop_gradient", "split"),
    ]
)


class Work(NamedTuple):
    """What one evaluation of a program takes."""

    equations: int  # how many there are, those inside loops counted once
    steps: int  # how many are evaluated, those inside loops once for each turn
    entries: int  # how many numbers all steps compute; of a matrix product more, as it takes longer
    held: int  # how many numbers the results of the equations have together
    largest: int  # how many the largest of them has
    counted: bool = True  # whether the program says how often all of its loops turn
    decomposed: int = 0  # how many products the decompositions of matrices take

    @property
    def seconds(self) -> float:
        """About how long NumPy takes for one evaluation: the same number on every machine."""
        return STEP * self.steps + ENTRY * self.entries


@once
def work(jaxpr: Jaxpr) -> Work:
    """Return how much work a jaxpr is; counted once."""
    parts = body(jaxpr)
    equations = steps = entries = held = decomposed = 0
    counted = True
    largest = max((_size(v) for v in (*parts.invars, *parts.constvars)), default=1)
    for equation in needed(parts.equations, parts.outvars):
        outputs = [_size(variable) for variable in equation.outvars]
        largest = max(largest, *outputs, 0)
        held += sum(outputs)
        equations += 1
        steps += 1
        call = call_jaxpr(equation)
        inner = [call] if call is not None else _inside(equation)
        turns = {"scan": equation.params.get("length", 1), "while": _TURNS}
        times = turns.get(equation.primitive.name, 1)
        counted = counted and equation.primitive.name != "while"
        for each in map(work, inner):
            equations += each.equations
            steps += times * each.steps
            entries += times * each.entries
            held += each.held
            decomposed += times * each.decomposed
            largest, counted = max(largest, each.largest), counted and each.counted
        if equation.primitive.name in _DECOMPOSITIONS:
            shape = shape_of(equation.invars[0])
            passes = _DECOMPOSITIONS[equation.primitive.name]
            decomposed += passes * math.prod(shape) * min(shape[-2:])
        if not inner and equation.primitive.name not in VIEWS:
            entries += sum(outputs) * max(1, _terms(equation) // _PER_PRODUCT)
    return Work(equations, steps, entries, held, largest, counted, decomposed)


def _inside(equation: Equation) -> list[Any]:
    if equation.primitive.name == "custom_linear_solve":
        return [equation.params["jaxprs"].solve]
    opened = ("scan", "while", "cond")
    named = inner_jaxprs(equation)
    return [jaxpr for _, jaxpr in named] if equation.primitive.name in opened else []


def _terms(equation: Equation) -> int:
    """Return how many products each entry of a result sums."""
    if equation.primitive.name not in _PRODUCTS:
        return 1
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        shape = shape_of(equation.invars[0])
        return int(math.prod(shape[axis] for axis in contracted))
    kernel = shape_of(equation.invars[1])
    outputs = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
    return int(math.prod(kernel) // max(outputs, 1))


def _size(atom: Atom) -> int:
    return math.prod(getattr(atom.aval, "shape", ()))
