"""The linear program that AD really runs: tangents in, tangents out, or upstreams to gradients.

Structure is read from this program, not from the function itself, so that custom rules, casts and
`stop_gradient` mean what they mean to AD. Forward mode is tried first; where a `custom_vjp` forbids
it, the backward program is traced instead, and the reader transposes what it finds.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
from jax.interpreters import partial_eval

from gradlab.common.arrays import Array, Function, Tree
from gradlab.primitives import lookup
from gradlab.tracing.dependence import call_jaxpr
from gradlab.tracing.implementing import implementation
from gradlab.tracing.jaxprs import (
    JAX_FOLDER,
    ClosedJaxpr,
    Equation,
    Jaxpr,
    body,
    contains,
    inner_jaxprs,
)
from gradlab.tracing.program import Program

CELLS = frozenset({"get", "swap", "addupdate", "new_ref", "empty_ref", "free_ref", "freeze"})
"""What is read exactly at the top of a program, and nowhere else."""


@dataclass(frozen=True, eq=False)
class Linearised:
    """The linear program of a function at any point."""

    # "jvp": seeds are tangents of the inputs and outputs are tangents of the outputs; "vjp":
    # seeds are upstreams of the outputs and outputs are gradients of the inputs
    mode: Literal["jvp", "vjp"]
    jaxpr: Jaxpr  # the program. Its inputs are the function's inputs followed by the seeds
    seeds: int  # how many of its last inputs are seeds


def linearise(program: Program, wrt: Sequence[int], outputs: Sequence[int]) -> Linearised:
    """Trace the derivative of a program and remove what does not reach its result."""
    at = [_aval(a) for a in program.in_avals]
    tangents = [at[k] for k in wrt]
    upstreams = [_aval(program.out_avals[k]) for k in outputs]

    def restricted(flat: Sequence[Array]) -> Callable[..., list[Any]]:
        def function(*chosen: Any) -> list[Any]:
            full = list(flat)
            for k, value in zip(wrt, chosen, strict=True):
                full[k] = value
            results = program.flat(*full)
            return [results[k] for k in outputs]

        return function

    def pushforward(flat: Sequence[Array], seeds: Sequence[Any]) -> Any:
        return jax.jvp(restricted(flat), [flat[k] for k in wrt], list(seeds))[1]

    def pullback(flat: Sequence[Array], seeds: Sequence[Any]) -> Any:
        return jax.vjp(restricted(flat), *[flat[k] for k in wrt])[1](list(seeds))

    with jax.enable_x64(program.x64):
        try:
            forward = _live(pushforward, at, tangents)
        except Exception as forward_error:
            try:
                return Linearised("vjp", _live(pullback, at, upstreams), len(upstreams))
            except Exception:
                raise forward_error from None
        if contains(forward, forbids_forward_mode):
            return Linearised("vjp", _live(pullback, at, upstreams), len(upstreams))
        return Linearised("jvp", forward, len(tangents))


def call_body(equation: Equation) -> Any | None:
    """Return the jaxpr that an equation merely calls (jit, remat, custom rules), if it does."""
    inner = call_jaxpr(equation)
    if inner is None and not lookup(equation.primitive.name).reads:
        inner = implementation(equation)
    matches = inner is not None and len(body(inner).invars) == len(equation.invars)
    return inner if matches else None


def part_of_jax(jaxpr: Jaxpr) -> bool:
    """Return whether a called function belongs to JAX itself, as `jnp.where` does.

    JAX traces such a function once and keeps it: the lines that its equations remember are those
    of the first caller, so the call's own line is what a reader wants.
    """
    described = getattr(getattr(jaxpr, "jaxpr", jaxpr), "debug_info", None)
    return JAX_FOLDER in getattr(described, "func_src_info", "")


def stateful(jaxpr: Jaxpr) -> str:
    """Return the name of a primitive that changes an array inside a loop, a branch or a call.

    An empty string, where mutable arrays occur at the top only, or not at all.
    """

    def inside(equation: Equation) -> Iterator[str]:
        kernel = call_jaxpr(equation) if equation.primitive.name == "pallas_call" else None
        programs = [inner for _, inner in inner_jaxprs(equation)] if kernel is None else [kernel]
        for each in (each for program in programs for each in body(program).equations):
            yield each.primitive.name
            yield from inside(each)

    for equation in body(jaxpr).equations:
        name = equation.primitive.name
        names = (() if name in CELLS else (name,), inside(equation))
        found = next((n for each in names for n in each if lookup(n).stateful), "")
        if found:
            return found
    return ""


def forbids_forward_mode(equation: Equation) -> bool:
    """Whether an equation is what jvp leaves of a rule for reverse mode alone."""
    return equation.primitive.name in ("custom_lin", "call_hi_primitive_linearized")


def reverse_alone(equation: Equation) -> bool:
    """Whether an equation calls a rule of which jvp leaves such an equation."""
    return bool(equation.primitive.name == "custom_vjp_call")


def _aval(value: Tree) -> jax.ShapeDtypeStruct:
    weak = bool(getattr(value, "weak_type", False))
    return jax.ShapeDtypeStruct(  # type: ignore[no-untyped-call]  # it has no types
        value.shape, value.dtype, weak_type=weak
    )


def _live(function: Function, at: list[Any], seeds: list[Any]) -> Any:
    """Trace and remove dead code; keep every input."""
    traced = jax.make_jaxpr(function)(at, seeds)
    opened: Any = getattr(traced, "jaxpr", traced)
    live, _ = partial_eval.dce_jaxpr(opened, [True] * len(opened.outvars), instantiate=True)
    return live if getattr(live, "consts", None) else ClosedJaxpr(live, traced.consts)
