"""Mutable arrays: a cell holds what was last written, and what was written to parts of it before.

Reads and writes of a whole array are exact; of a part, they count as reaching all of it.
"""

from collections.abc import Sequence
from typing import Any

from gradlab.patterns import Pattern
from gradlab.primitives.known import Known
from gradlab.structure.infer import CELLS, Traced, Walk, union

__all__: list[str] = []


def _access(walk: Walk, equation: Any, operands: list[Traced]) -> tuple[list[Traced], Traced]:
    """Return what an equation on a cell makes, and what the cell holds afterwards."""
    name = equation.primitive.name
    held = operands[0] if operands else Traced()
    if name in ("new_ref", "freeze", "free_ref", "empty_ref"):
        return [held for _ in equation.outvars], held
    shape = _shape(equation.invars[0])
    part = _shape(equation.outvars[0] if name == "get" else equation.invars[1])
    whole = part == shape
    if not whole:
        walk.note(equation, "a part of a mutable array counts as all of it")
    read = Pattern.identity(shape) if whole else Pattern.dense(part, shape)
    seen = _through(walk, equation, [(read, held)], part)
    if name == "get":
        return [seen], held
    parts = [(read.T, operands[1])]
    if name == "addupdate" or not whole:
        parts.append((Pattern.identity(shape), held))
    made = [seen] if name == "swap" else []
    return made, _through(walk, equation, parts, shape)


def _through(
    walk: Walk, equation: Any, parts: Sequence[tuple[Pattern, Traced]], shape: tuple[int, ...]
) -> Traced:
    """Return what is made of several values, each read through a pattern."""
    found: dict[int, list[Pattern]] = {}
    for local, value in parts:
        for seed, pattern in value.reads.items():
            found.setdefault(seed, []).append(walk.compose(local, pattern))
    values = [value for _, value in parts]
    known = Known(support=Pattern.zero(shape, ())) if all(v.is_zero for v in values) else None
    vanishes = all(value.vanishes for value in values)
    return Traced(union(found), known, None if vanishes else walk.offset(equation, values))


def _shape(atom: Any) -> tuple[int, ...]:
    return tuple(atom.aval.shape)


for _name in ("new_ref", "empty_ref", "get", "swap", "addupdate", "freeze", "free_ref"):
    CELLS[_name] = _access
