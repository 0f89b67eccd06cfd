"""Which hand-written node does what an equation of JAX does."""

from collections.abc import Callable
from typing import Any, TypeAlias

from gradlab.common.arrays import is_inexact
from gradlab.nodes import Node, registry
from gradlab.tracing.wiring import WiredEquation

# Primitives entry by entry whose node has the same arguments and the same gradient.
_SAME = {
    "add": "add",
    "add_any": "add",
    "sub": "subtract",
    "mul": "multiply",
    "div": "divide",
    "neg": "negate",
    "max": "maximum",
    "min": "minimum",
    "pow": "power",
    "logistic": "sigmoid",
    "asin": "arcsin",
    "acos": "arccos",
    "atan": "arctan",
} | {
    name: name
    for name in (
        *("abs", "exp", "exp2", "expm1", "log", "log1p", "sqrt", "rsqrt", "square", "tanh"),
        *("sin", "cos", "tan", "sinh", "cosh", "erf"),
    )
}

Parameters: TypeAlias = dict[str, Any]
# Others: the node and its parameters from those of the primitive.
_SHAPED: dict[str, tuple[str, Callable[[Parameters], Parameters]]] = {
    "reduce_sum": ("sum", lambda p: {"axis": tuple(p["axes"])}),
    "reduce_max": ("max", lambda p: {"axis": tuple(p["axes"])}),
    "reduce_min": ("min", lambda p: {"axis": tuple(p["axes"])}),
    "transpose": ("transpose", lambda p: {"axes": tuple(p["permutation"])}),
    "reshape": ("reshape", lambda p: {"shape": tuple(p["new_sizes"])}),
    "squeeze": ("squeeze", lambda p: {"axis": tuple(p["dimensions"])}),
    "concatenate": ("concatenate", lambda p: {"axis": p["dimension"]}),
}


def node_for(equation: WiredEquation) -> Node | None:
    """Return the hand-written node that does the same, or None where there is none.

    The node has to mean the same for these inputs: real floats of one dtype, plain parameters.
    """
    if not equation.dtypes or not is_inexact(equation.dtypes[0]):
        return None
    dtype, *others = map(str, equation.dtypes)
    if dtype.startswith("complex") or {*others} - {dtype}:
        return None
    primitive, parameters = equation.primitive, equation.parameters
    if primitive in _SHAPED:
        name, translated = _SHAPED[primitive]
        return registry()[name](**translated(parameters))
    if primitive == "integer_pow":
        found = {2: "square", -1: "reciprocal"}.get(parameters["y"])
    elif primitive == "dot_general":
        found = "matmul" if _is_matmul(equation) else None
    elif (
        primitive == "custom_jvp_call"
    ):  # jax.nn.relu has a rule of its own, which the node has too
        found = "relu" if equation.name == "relu" else None
    elif dict.fromkeys(parameters.values()).keys() - {None, False}:
        found = None  # a parameter such as an accuracy that the node does not have
    else:
        found = _SAME.get(primitive)
    return registry()[found]() if found else None


def _is_matmul(equation: WiredEquation) -> bool:
    """Return whether a product is `a @ b` of matrices and vectors, in the inputs' own dtype."""
    (contracted, batched) = equation.parameters["dimension_numbers"]
    left, right = equation.shapes
    wanted = equation.parameters.get("preferred_element_type")
    same = wanted is None or wanted == equation.dtypes[0]
    plain = contracted == ((len(left) - 1,), (0,)) or contracted == ([len(left) - 1], [0])
    return same and plain and not any(batched) and 1 <= len(left) <= 2 and 1 <= len(right) <= 2
