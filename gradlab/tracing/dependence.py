"""Which values of a program depend on its inputs: a static walk, exact through calls and loops.

A mask drawn from a key, a table of positions, a loop counter do not depend on what is
differentiated. Such values keep the dtype of their trace when a program is lifted.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from gradlab.primitives import lookup
from gradlab.tracing.implementing import HIGHER, expanded, implementation
from gradlab.tracing.jaxprs import (
    Atom,
    Equation,
    Jaxpr,
    Literal,
    body,
    inner_jaxprs,
    loop_parts,
    once,
)
from gradlab.tracing.kernels import kernel_jaxpr

Seer: TypeAlias = Callable[[Any, Sequence[bool]], None]


def call_jaxpr(equation: Equation) -> Any:
    """Return the jaxpr that a call (jit, a custom rule's primal, a kernel) stands for, or None.

    It takes the equation's inputs and returns its outputs. What the book does not know as a call is
    none, whatever programs it holds.
    """
    if equation.primitive.name == "pallas_call":
        return kernel_jaxpr(equation)
    if equation.primitive.name == HIGHER:
        return expanded(equation)
    named = lookup(equation.primitive.name).calls
    if named is None:
        return None
    found = [jaxpr for name, jaxpr in inner_jaxprs(equation) if named in ("", name)]
    if len(found) != 1:
        return None
    parts = body(found[0])
    fits = len(parts.invars) == len(equation.invars) and len(parts.outvars) == len(equation.outvars)
    return found[0] if fits else None


def flow(jaxpr: Jaxpr, flags: Sequence[bool], see: Seer | None = None) -> list[bool]:
    """Return which outputs depend on the inputs that are flagged.

    `see` is called with every equation that has a dependent input, and those inputs' flags.
    """
    return list(_known(jaxpr, tuple(flags)) if see is None else _seen(jaxpr, flags, see))


def _seen(jaxpr: Jaxpr, flags: Sequence[bool], see: Seer | None = None) -> list[bool]:
    parts = body(jaxpr)
    env: dict[Any, bool] = dict.fromkeys(parts.constvars, False)
    env.update(zip(parts.invars, flags))

    def read(atom: Atom) -> bool:
        return not isinstance(atom, Literal) and env[atom]

    for equation in parts.equations:
        outputs = through(equation, [read(atom) for atom in equation.invars], see)
        env.update(zip(equation.outvars, outputs))
    return [read(atom) for atom in parts.outvars]


_known = once(_seen)  # it reads no constants, and is asked at every evaluation


def carried(equation: Equation, flags: Sequence[bool]) -> list[bool]:
    """Return which carried values of a `scan` or `while` depend on flagged operands."""
    if equation.primitive.name == "scan":
        constants, carry = loop_parts(equation)
        jaxpr = equation.params["jaxpr"]
        before, after = list(flags[:constants]), list(flags[constants + carry :])
        state = list(flags[constants : constants + carry])
    else:
        skipped = equation.params["cond_nconsts"]
        constants = equation.params["body_nconsts"]
        jaxpr = equation.params["body_jaxpr"]
        before, after = list(flags[skipped : skipped + constants]), []
        state = list(flags[skipped + constants :])
        condition = equation.params["cond_jaxpr"]
    while True:
        following = flow(jaxpr, [*before, *state, *after])[: len(state)]
        if equation.primitive.name == "while" and any(flow(condition, [*flags[:skipped], *state])):
            following = [True] * len(state)  # how often the body runs depends on the inputs
        joined = [a or b for a, b in zip(state, following)]
        if joined == state:
            return state
        state = joined


def through(equation: Equation, flags: Sequence[bool], see: Seer | None = None) -> list[bool]:
    """Return which outputs of one equation depend on its flagged inputs; `see` as for `flow`."""
    if not any(flags):
        return [False] * len(equation.outvars)
    if see is not None:
        see(equation, flags)
    inner = call_jaxpr(equation)
    if inner is not None:
        return flow(inner, flags, see)
    name = equation.primitive.name
    if name == "while":
        state = carried(equation, flags)
        skipped, constants = equation.params["cond_nconsts"], equation.params["body_nconsts"]
        fixed = flags[skipped : skipped + constants]
        flow(equation.params["body_jaxpr"], [*fixed, *state], see)
        return state
    if name == "scan":
        constants, carry = loop_parts(equation)
        state = carried(equation, flags)
        inside = [*flags[:constants], *state, *flags[constants + carry :]]
        return state + flow(equation.params["jaxpr"], inside, see)[carry:]
    if name == "custom_linear_solve":
        lengths, solve = equation.params["const_lengths"], equation.params["jaxprs"].solve
        before = lengths.matvec + lengths.vecmat
        constants = flags[before : before + lengths.solve]
        return flow(solve, [*constants, *flags[sum(lengths) :]], see)
    if name == "cond":
        branches = [flow(branch, flags[1:], see) for branch in equation.params["branches"]]
        return [flags[0] or any(column) for column in zip(*branches)]
    inner = None if see is None else implementation(equation)
    if inner is not None:  # a library's primitive
        flow(inner, flags, see)
    return [True] * len(equation.outvars)
