"""A program as a graph: its equations as things to call, its variables as numbered wires.

What the graphs of `Graph.from_jax` are made of; no jaxpr leaves this room with them.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gradlab.common.arrays import DTypeLike
from gradlab.primitives import lookup
from gradlab.tracing.jaxprs import (
    Atom,
    Equation,
    Jaxpr,
    Literal,
    bind,
    body,
    dtype_of,
    inner_jaxprs,
    shape_of,
    source,
)
from gradlab.tracing.program import Program


@dataclass(frozen=True, eq=False)
class WiredEquation:
    """One equation between its wires."""

    primitive: str  # the name of the primitive
    # the name of the function that a call or a custom rule is about, else the primitive's
    name: str
    # from a list of input arrays to a list of output arrays; JAX can differentiate it
    evaluate: Callable[[Sequence[Any]], list[Any]] = field(repr=False)
    inputs: tuple[int, ...]  # the wires that enter
    outputs: tuple[int, ...]  # the wires that leave
    shapes: tuple[tuple[int, ...], ...]  # the shape of each input
    dtypes: tuple[DTypeLike, ...]  # the dtype of each input
    parameters: dict[str, Any] = field(repr=False)  # what the equation was traced with
    line: str  # the user's line, as `layer.py:12`
    repeats: int | None = None  # how often a loop runs, where that is known
    # the equations of a call, which can be opened; None for everything else
    inside: "Wiring | None" = None


@dataclass(frozen=True, eq=False)
class Wiring:
    """The equations of a program in order; `constants` are wires with a fixed value."""

    size: int
    inputs: tuple[int, ...]
    constants: dict[int, Any]
    equations: tuple[WiredEquation, ...]
    outputs: tuple[int, ...]


def wiring(program: Program) -> Wiring:
    """Return a program's equations as a graph, without those that lead to no output."""
    return _wiring(program.jaxpr)


def _wiring(jaxpr: Jaxpr) -> Wiring:
    parts = body(jaxpr)
    places: dict[Any, int] = {}
    constants: dict[int, Any] = {}
    count = 0

    def new() -> int:
        nonlocal count
        count += 1
        return count - 1

    def place(atom: Atom) -> int:
        if isinstance(atom, Literal):
            constants[wire := new()] = np.asarray(atom.val, dtype_of(atom))
            return wire
        return places[atom]

    for variable in parts.invars:
        places[variable] = new()
    for variable, value in zip(parts.constvars, parts.constants):
        places[variable] = new()
        constants[places[variable]] = value
    equations = []
    for equation in _live(parts):
        inputs = tuple(place(atom) for atom in equation.invars)
        for variable in equation.outvars:
            places[variable] = new()
        outputs = tuple(places[variable] for variable in equation.outvars)
        equations.append(_wired(equation, inputs, outputs))
    ends = tuple(place(atom) for atom in parts.outvars)
    inputs = tuple(places[variable] for variable in parts.invars)
    return Wiring(count, inputs, constants, tuple(equations), ends)


def _live(parts: Any) -> list[Any]:
    """Return the equations on which an output depends."""
    wanted = {atom for atom in parts.outvars if not isinstance(atom, Literal)}
    kept = []
    for equation in reversed(parts.equations):
        if wanted.isdisjoint(equation.outvars):
            continue
        kept.append(equation)
        wanted.update(atom for atom in equation.invars if not isinstance(atom, Literal))
    return kept[::-1]


def _wired(equation: Equation, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> WiredEquation:
    primitive = equation.primitive.name
    inside = None
    record = lookup(primitive)
    if record.plain or record.words == "checkpoint":
        inside = next((_wiring(inner) for _, inner in inner_jaxprs(equation)), None)
    name = equation.params.get("name")
    return WiredEquation(
        primitive,
        name if isinstance(name, str) else _rule_name(equation) or primitive,
        functools.partial(bind, equation),
        inputs,
        outputs,
        tuple(tuple(shape_of(atom)) for atom in equation.invars),
        tuple(dtype_of(atom) for atom in equation.invars),
        dict(equation.params),
        source(equation),
        equation.params.get("length") if primitive == "scan" else None,
        inside,
    )


def _rule_name(equation: Equation) -> str:
    """Return the name of the function that a custom rule is about."""
    if not equation.primitive.name.startswith("custom_"):
        return ""
    for _, inner in inner_jaxprs(equation):
        info = getattr(getattr(inner, "jaxpr", inner), "debug_info", None)
        return str(getattr(info, "func_name", "") or "")
    return ""
