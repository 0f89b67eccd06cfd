"""The entries of a Jacobian in a formula, where the function is one product.

For q = W x: `d q[k] / d W[i, j] = x[j] where k = i, else 0`, read off the axes of `dot_general`.
"""

from collections.abc import Sequence
from typing import Any

from gradlab.tracing.jaxprs import Literal, body
from gradlab.tracing.linearise import call_body

_LETTERS = "ijklmnpqrstuvw"


def formulas(jaxpr: Any, names: Sequence[str], output: str) -> dict[str, str]:
    """Return, for each input that is a factor, the derivative of the product by it.

    Args:
        jaxpr: the function's program.
        names: what its inputs are called.
        output: what its output is called.

    Returns:
        Nothing, where the function is more than one product.
    """
    parts = body(jaxpr)
    called = dict(zip(parts.invars, names))
    while len(parts.equations) == 1 and (inner := call_body(parts.equations[0])) is not None:
        outer = parts.equations[0].invars
        parts = body(inner)
        given = [None if isinstance(a, Literal) else called.get(a) for a in outer]
        called = {v: name for v, name in zip(parts.invars, given) if name}
    if [e.primitive.name for e in parts.equations] != ["dot_general"]:
        return {}
    equation = parts.equations[0]
    factors = [None if isinstance(a, Literal) else called.get(a) for a in equation.invars]
    letters = "".join(letter for letter in _LETTERS if letter not in {output, *names})
    return {
        factor: _formula(equation, k, factor, factors[1 - k] or "constant", output, letters)
        for k, factor in enumerate(factors)
        if factor and factors[0] != factors[1]
    }


def _formula(equation: Any, k: int, factor: str, other: str, output: str, alphabet: str) -> str:
    contracted, batch = equation.params["dimension_numbers"]
    ranks = [len(atom.aval.shape) for atom in equation.invars]
    letters = iter(alphabet)
    own = [next(letters) for _ in range(ranks[k])]
    made: list[str] = []
    equal: list[str] = []
    across: dict[int, str] = {theirs: own[mine] for mine, theirs in _pairs(contracted, k)}
    for mine, theirs in _pairs(batch, k):
        made.append(next(letters))
        equal.append(f"{made[-1]} = {own[mine]}")
        across[theirs] = own[mine]
    for operand in (0, 1):
        taken = {*contracted[operand], *batch[operand]}
        for axis in range(ranks[operand]):
            if axis in taken:
                continue
            made.append(next(letters))
            if operand == k:
                equal.append(f"{made[-1]} = {own[axis]}")
            else:
                across[axis] = made[-1]
    value = _indexed(other, [across[axis] for axis in range(ranks[1 - k])])
    condition = f" where {' and '.join(equal)}, else 0" if equal else ""
    return f"d {_indexed(output, made)} / d {_indexed(factor, own)} = {value}{condition}"


def _pairs(sides: Any, k: int) -> list[tuple[int, int]]:
    """Return pairs (axis of operand k, axis of the other)."""
    return list(zip(sides[k], sides[1 - k]))


def _indexed(name: str, index: Sequence[str]) -> str:
    return f"{name}[{', '.join(index)}]" if index else name
