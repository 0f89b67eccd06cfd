"""The derivative of a program as a program again: its VJP, its JVP, at the dtypes of the trace."""

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from gradlab.common.arrays import Array, Tree
from gradlab.tracing import ClosesOverTrace, Program, derive
from gradlab.tracing.jaxprs import Abstract, holds
from gradlab.tracing.kinds import is_renewed
from gradlab.tracing.leaves import is_inexact

Run: TypeAlias = Callable[..., list[Any]]


def upstream_names(program: Program) -> list[str]:
    """Return the names of the upstreams, one per inexact output."""
    return [
        name.replace("output", "upstream", 1)
        for name, aval in zip(program.out_names, program.out_avals)
        if is_inexact(aval.dtype)
    ]


def vjp_program(program: Program, wrt: Sequence[int] | None = None, apart: bool = False) -> Program:
    """Return the program that computes the outputs and, from upstreams, the gradients.

    Its inputs are the program's, then one upstream per inexact output; its outputs are the
    program's, then one gradient per differentiable input.
    """
    chosen = program.differentiable if wrt is None else tuple(wrt)
    count = len(program.in_names)
    inexact = [is_inexact(aval.dtype) for aval in program.out_avals]

    def flat_function(run: Run, *arrays: Array) -> list[Any]:
        inputs, gradients = arrays[:count], []
        for group in [(i,) for i in chosen] if apart else [chosen]:
            outputs, backward = jax.vjp(_part(run, inputs, group), *(inputs[i] for i in group))
            upstreams = iter(arrays[count:])
            seeds = [
                next(upstreams) if flag else np.zeros(output.shape, jax.dtypes.float0)
                for output, flag in zip(outputs, inexact)
            ]
            gradients += backward(seeds)
        return [*outputs, *gradients]

    def one_by_one(program: Program, wrt: Sequence[int]) -> Program:
        return vjp_program(program, wrt, apart=True)

    return _gradients(program, flat_function, chosen, one_by_one if apart else vjp_program)


def _gradients(
    program: Program,
    flat_function: Callable[..., list[Any]],
    chosen: tuple[int, ...],
    again: Callable[[Program, tuple[int, ...]], Program],
) -> Program:
    upstream_avals = [aval for aval in program.out_avals if is_inexact(aval.dtype)]
    return _derive(
        program,
        flat_function,
        [*program.in_avals, *map(_strong, upstream_avals)],
        [*program.in_names, *upstream_names(program)],
        [*program.out_names, *(f"gradient {program.in_names[i]}" for i in chosen)],
        lambda: None if program.wide is None else again(program.wide, chosen),
        label="gradient of ",
        how=(again.__name__, chosen),
    )


def forward_gradient_program(program: Program, wrt: Sequence[int]) -> Program:
    """Return what `vjp_program` does, in forward mode: one pushforward for each input entry.

    It is for rules that JAX cannot transpose, such as those of `custom_vmap`.
    """
    chosen, count = tuple(wrt), len(program.in_names)
    inexact = [is_inexact(aval.dtype) for aval in program.out_avals]

    def flat_function(run: Run, *arrays: Array) -> list[Any]:
        inputs, given = arrays[:count], arrays[count:]
        part, points = _part(run, inputs, chosen), [inputs[i] for i in chosen]

        def along(k: int, unit: Array) -> Any:
            still = [jnp.zeros_like(x) for x in points]
            still[k] = unit.reshape(points[k].shape)
            _, moved = jax.jvp(part, points, still)
            terms = [jnp.sum(u * t) for u, t in zip(given, _kept(moved, inexact))]
            return functools.reduce(jnp.add, terms).astype(points[k].dtype)

        gradients = []
        for k, x in enumerate(points):
            unit, each = np.eye(x.size, dtype=x.dtype), functools.partial(along, k)
            by_turns = holds(program.jaxpr, _batches_itself)
            gradients.append(jax.lax.map(each, unit) if by_turns else jax.vmap(each)(unit))
        return [*run(*inputs), *(g.reshape(x.shape) for g, x in zip(gradients, points))]

    return _gradients(program, flat_function, chosen, forward_gradient_program)


def _batches_itself(equation: Any) -> bool:
    return str(equation.primitive).startswith("custom_vmap")


def _kept(values: Sequence[Array], flags: Sequence[bool]) -> list[Any]:
    return [value for value, flag in zip(values, flags) if flag]


def jvp_program(program: Program, wrt: Sequence[int] | None = None) -> Program:
    """Return the program that computes the outputs and, from tangents, the pushforward.

    Its inputs are the program's, then one tangent per differentiable input; its outputs are the
    program's, then one pushforward per inexact output.
    """
    chosen = program.differentiable if wrt is None else tuple(wrt)
    count = len(program.in_names)
    inexact = [is_inexact(aval.dtype) for aval in program.out_avals]

    def flat_function(run: Run, *arrays: Array) -> list[Any]:
        inputs, tangents = arrays[:count], arrays[count:]
        at = tuple(inputs[i] for i in chosen)
        outputs, pushed = jax.jvp(_part(run, inputs, chosen), at, tuple(tangents))
        return [*outputs, *(tangent for tangent, flag in zip(pushed, inexact) if flag)]

    pushed_names = [name for name, flag in zip(program.out_names, inexact) if flag]
    return _derive(
        program,
        flat_function,
        [*program.in_avals, *(program.in_avals[i] for i in chosen)],
        [*program.in_names, *(f"tangent {program.in_names[i]}" for i in chosen)],
        [*program.out_names, *(f"pushforward {name}" for name in pushed_names)],
        lambda: None if program.wide is None else jvp_program(program.wide, chosen),
        label="pushforward of ",
        how=("jvp_program", chosen),
    )


def jacrev_program(program: Program, output: int, wrt: Sequence[int]) -> Program:
    """Return the program of `jacrev`: the Jacobians of one output by some inputs, row by row."""

    def flat_function(run: Run, *arrays: Array) -> list[Any]:
        return list(jax.jacrev(lambda *given: run(*given)[output], tuple(wrt))(*arrays))

    return _derive(
        program,
        flat_function,
        program.in_avals,
        program.in_names,
        [f"jacobian {program.in_names[i]}" for i in wrt],
        lambda: None if program.wide is None else jacrev_program(program.wide, output, wrt),
        label="jacobian of ",
        how=("jacrev_program", output, tuple(wrt)),
    )


def _derive(
    program: Program,
    flat_function: Callable[..., list[Any]],
    avals: Sequence[Any],
    in_names: Sequence[str],
    out_names: Sequence[str],
    trace_wide: Callable[[], Program | None],
    label: str,
    how: Hashable,
) -> Program:
    """Derive from what JAX staged, or from the user's function where a rule closes over its trace.

    A custom rule that holds values of the trace in which it was made can run in no other.
    """
    rest = avals, in_names, out_names, trace_wide, label
    renewed = holds(program.jaxpr, is_renewed)
    key = None if renewed or program.identity is None else (how, program.identity)
    try:
        return derive(program, functools.partial(flat_function, program.flat), *rest, key)
    except ClosesOverTrace:
        if program.live is None:
            raise
        return derive(program, functools.partial(flat_function, program.live), *rest)


def _part(run: Run, inputs: Sequence[Array], chosen: Sequence[int]) -> Any:
    """Return a program as a function of the chosen inputs alone."""

    def function(*values: Tree) -> list[Any]:
        full = list(inputs)
        for position, value in zip(chosen, values):
            full[position] = value
        return run(*full)

    return function


def _strong(aval: Any) -> Any:
    return Abstract(aval.shape, aval.dtype)
