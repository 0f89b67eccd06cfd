"""Mutable arrays: a cell holds what was last written, and what was written to parts of it before.

Reads and writes of a whole array are exact; of a part, they count as reaching all of it.
"""

from typing import Any

from gradlab.patterns import Pattern
from gradlab.structure.infer import CELLS, Dependence, Value, Walk, union

__all__: list[str] = []


def _access(walk: Walk, equation: Any, operands: list[Value]) -> tuple[list[Value], Value]:
    """Return what an equation on a cell makes, and what the cell holds afterwards."""
    name = equation.primitive.name
    held: Dependence = operands[0][0] if operands else {}
    if name in ("new_ref", "freeze", "free_ref", "empty_ref"):
        return [(held, None) for _ in equation.outvars], (held, None)
    shape = _shape(equation.invars[0])
    part = _shape(equation.outvars[0] if name == "get" else equation.invars[1])
    whole = part == shape
    if not whole:
        walk.note(equation, "a part of a mutable array counts as all of it")
    read = Pattern.identity(shape) if whole else Pattern.dense(part, shape)
    seen = union({seed: [walk.compose(read, p)] for seed, p in held.items()})
    if name == "get":
        return [(seen, None)], (held, None)
    written = {seed: [walk.compose(read.T, p)] for seed, p in operands[1][0].items()}
    if name == "addupdate" or not whole:
        for seed, pattern in held.items():
            written.setdefault(seed, []).append(pattern)
    made: list[Value] = [(seen, None)] if name == "swap" else []
    return made, (union(written), None)


def _shape(atom: Any) -> tuple[int, ...]:
    return tuple(atom.aval.shape)


for _name in ("new_ref", "empty_ref", "get", "swap", "addupdate", "freeze", "free_ref"):
    CELLS[_name] = _access
