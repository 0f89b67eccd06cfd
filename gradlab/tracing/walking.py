"""Walk over every equation of a program, through calls, loops, branches and custom rules."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from gradlab.tracing.callbacks import leaves_program
from gradlab.tracing.dependence import carried, flow
from gradlab.tracing.jaxprs import (
    Equation,
    Jaxpr,
    body,
    dtype_of,
    holds,
    inner_jaxprs,
    loop_parts,
    once,
)
from gradlab.tracing.leaves import is_inexact
from gradlab.tracing.program import Program


def walk(program: Program) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """Yield each equation, with the primitives that it lies inside, outermost first."""
    return iter(_walked(program.jaxpr, ()))


@once
def _walked(jaxpr: Jaxpr, inside: tuple[str, ...]) -> list[tuple[Any, tuple[str, ...]]]:
    found = []
    for equation in body(jaxpr).equations:
        found.append((equation, inside))
        for _, inner in inner_jaxprs(equation):
            found += _walked(inner, (*inside, equation.primitive.name))
    return found


@once
def calls_outside(jaxpr: Jaxpr, turns: int = 1) -> tuple[int, ...]:
    """Return how often a run calls what is outside of the program, place after place.

    Of a `while`, one turn counts; of branches, all.
    """
    found: list[int] = []
    for equation in body(jaxpr).equations:
        again = turns * equation.params["length"] if equation.primitive.name == "scan" else turns
        found += [turns] if leaves_program(equation) else []
        for _, inner in inner_jaxprs(equation):
            found += calls_outside(inner, again)
    return tuple(found)


def jaxprs(jaxpr: Jaxpr) -> Iterator[Any]:
    """Yield a jaxpr and every jaxpr inside it."""
    yield jaxpr
    for equation in body(jaxpr).equations:
        for _, inner in inner_jaxprs(equation):
            yield from jaxprs(inner)


def iterates(program: Program) -> bool:
    """Return whether the program holds a loop that ends by its numbers: exact to convergence.

    One that counts, up to a bound that no float decides, is as exact as what it repeats.
    """
    return holds(program.jaxpr, _ends_by_numbers)


def _ends_by_numbers(equation: Equation) -> bool:
    if equation.primitive.name != "while":
        return False
    floats = [is_inexact(dtype_of(atom)) for atom in equation.invars]
    skipped = equation.params["cond_nconsts"]
    state = carried(equation, floats)
    return any(flow(equation.params["cond_jaxpr"], [*floats[:skipped], *state]))


def ends_by(program: Program, names: Collection[str]) -> bool:
    """Return whether a loop of a program ends by numbers that depend on some of its inputs."""
    found = []

    def see(equation: Equation, flags: Sequence[bool]) -> None:
        if equation.primitive.name == "while":
            tested = flags[: equation.params["cond_nconsts"]]
            state = [*tested, *carried(equation, flags)]
            found.append(any(flow(equation.params["cond_jaxpr"], state)))

    flow(program.jaxpr, [name in names for name in program.in_names], see)
    return any(found)


def repeats(program: Program) -> bool:
    """Return whether the program repeats a step some times over, each time in the same way.

    Its iterations read no further input and no counter: the loop goes towards a fixed point.
    """
    return holds(program.jaxpr, repeated)


def repeated(equation: Equation) -> bool:
    """Return whether an equation is a `scan` whose turns read no further input and no counter."""
    if equation.primitive.name != "scan" or equation.params["length"] < 2:
        return False
    consts, count = loop_parts(equation)
    if len(equation.invars) > consts + count or len(equation.outvars) > count:
        return False
    step = body(equation.params["jaxpr"])
    carried_in, carried_out = step.invars[consts : consts + count], step.outvars[:count]
    counters = [
        (start, end)
        for start, end in zip(carried_in, carried_out)
        if not is_inexact(dtype_of(start))
    ]
    for start, end in counters:
        readers = [e for e in step.equations if any(atom is start for atom in e.invars)]
        if any(not any(out is end for out in reader.outvars) for reader in readers):
            return False
    return any(is_inexact(dtype_of(atom)) for atom in carried_in)
