"""How much each equation rounds, as the book of primitives says it."""

import math
from typing import Any

import jax.numpy as jnp

from gradlab.primitives import lookup
from gradlab.primitives.rounding import Exact, Rounding, SumOf, Units, Unknown
from gradlab.tracing.jaxprs import Jaxpr, body, dtype_of, inner_jaxprs, view
from gradlab.tracing.leaves import digits, is_inexact


def rounding_of(equation: Any) -> Rounding:
    """Return how an equation's primitive rounds."""
    return lookup(equation.primitive.name).rounds


def is_exact(equation: Any) -> bool:
    """Return whether an equation's results need no rounding, once its inputs are rounded."""
    if equation.primitive.name != "convert_element_type":
        return isinstance(rounding_of(equation), Exact)
    before, after = dtype_of(equation.invars[0]), dtype_of(equation.outvars[0])
    if not is_inexact(after):
        return True
    if is_inexact(before):
        return bool(digits(after) >= digits(before))
    return bool(before == jnp.bool_ or digits(after) >= 23)  # counts and labels fit into float32


def units_of_result(equation: Any) -> float:
    """Return the error bound of a result in units roundoff of itself."""
    rounding = rounding_of(equation)
    if isinstance(rounding, Units):
        return rounding.of(view(equation))
    return 2.0 * math.sqrt(_longest(equation)) if isinstance(rounding, Unknown) else 2.0


def multiplies_matrices(equation: Any) -> bool:
    """Return whether an equation sums products of factors that a device may cut short."""
    rounding = rounding_of(equation)
    return isinstance(rounding, SumOf) and rounding.of_products


def terms(equation: Any) -> int:
    """Return how many terms each entry of a sum has, at most; 1 for what is no sum."""
    rounding = rounding_of(equation)
    return rounding.terms(view(equation)) if isinstance(rounding, SumOf) else 1


def _longest(equation: Any) -> int:
    shapes = [getattr(variable.aval, "shape", ()) for variable in equation.invars]
    return max((int(axis) for shape in shapes for axis in shape), default=1)


def terms_inside(equation: Any) -> int:
    """Return how many terms a sum may have inside an equation that is not opened, at most.

    A kernel may add up what its blocks and iterations give; of what has no program inside, such as
    a callback, no more is known than that it sums along an axis of its inputs.
    """
    longest = _longest(equation)
    if "window_dimensions" in equation.params:
        return math.prod(equation.params["window_dimensions"])
    programs = [inner for _, inner in inner_jaxprs(equation)]
    if not programs:
        return longest
    blocks = getattr(equation.params.get("grid_mapping"), "grid", ())
    steps = math.prod(size if isinstance(size, int) else longest for size in blocks)
    return steps * max(_terms_of(program, longest) for program in programs)


def _terms_of(jaxpr: Jaxpr, unknown: int) -> int:
    """Return the terms of the longest sum in a program, whose `while` loops run `unknown` times."""
    longest = 1
    for equation in body(jaxpr).equations:
        longest = max(longest, terms(equation))
        times = {"scan": equation.params.get("length", 1), "while": unknown}
        for _, inner in inner_jaxprs(equation):
            within = times.get(equation.primitive.name, 1) * _terms_of(inner, unknown)
            longest = max(longest, within)
    return longest
