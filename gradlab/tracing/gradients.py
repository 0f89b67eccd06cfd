"""Is a program the gradient of a scalar function? Then its Jacobian, a Hessian, is symmetric."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp
from jax.interpreters import partial_eval

from gradlab.common.arrays import Array, Function, Tree
from gradlab.tracing.dependence import call_jaxpr
from gradlab.tracing.identity import identity
from gradlab.tracing.jaxprs import Atom, ClosedJaxpr, Jaxpr, Literal, bind, body
from gradlab.tracing.program import Program, trace
from gradlab.tracing.rules import custom_rules
from gradlab.tracing.walking import walk

_EQUATIONS = 2000
_TRIED = 6
_CALLS = ("pjit", "jit", "closed_call", "core_call", "remat", "remat2", "checkpoint")

_BEYOND_AUTODIFF = ("linear_call", "custom_linear_solve", "ffi_call")


def wraps_primal(
    function: Function, inputs: Sequence[Array], program: Program, positions: Sequence[int]
) -> bool:
    """Return whether a function wraps another, as `jax.grad` does, whose gradient is its program.

    A derivative of the user's making, inside of that one, need not be the derivative of anything.
    """
    wrapped = getattr(function, "__wrapped__", None)
    if not callable(wrapped) or program.identity is None:
        return False
    try:
        gradient, scalar = (
            trace(jax.grad(wrapped, tuple(positions)), *inputs),
            trace(wrapped, *inputs),
        )
    except Exception:  # whatever it wraps, it is no scalar function of these inputs
        return False
    beyond = any(equation.primitive.name in _BEYOND_AUTODIFF for equation, _ in walk(scalar))
    made = beyond or any(rule.user for rule in custom_rules(scalar))
    return gradient.identity == program.identity and not made


def gradients_of(
    program: Program, sources: Sequence[int], outputs: Sequence[int]
) -> tuple[int, ...]:
    """Return for each output the source by which it is JAX's gradient of one and the same number.

    The program of a gradient computes the function first, and traces keep what is not used. So
    each scalar that the program holds may be that function: it is, if its gradient is this very
    program, equation by equation. Jit, lambdas and `functools.partial` do not matter then.

    Returns:
        Places in `sources`, each once; nothing where the outputs are no such gradients.
    """
    if len(body(program.jaxpr).equations) > _EQUATIONS:
        return ()
    try:
        with jax.enable_x64(program.x64):
            return _of_one_primal(program, tuple(sources), outputs)
    except Exception:  # what cannot be differentiated again is no such function
        return ()


def _of_one_primal(
    program: Program, sources: tuple[int, ...], outputs: Sequence[int]
) -> tuple[int, ...]:
    avals = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in program.in_avals]  # type: ignore[no-untyped-call]  # it has no types

    def opened(*values: Tree) -> Any:
        scalars: list[Any] = []
        made = _opened(program.jaxpr, values, scalars)
        return [made[k] for k in outputs], scalars

    whole = jax.make_jaxpr(opened)(*avals)
    scalars = range(len(whole.out_avals) - 1, len(outputs) - 1, -1)
    targets = [identity(_live(whole, place)) for place in range(len(outputs))]
    used = {id(v) for e in body(whole).equations for v in e.invars}
    ends = body(whole).outvars
    order = sorted(scalars, key=lambda k: id(ends[k]) in used)
    for place in order[:_TRIED]:
        primal = _live(whole, place)
        if any(e.primitive.name in _BEYOND_AUTODIFF for e in body(primal).equations):
            continue
        if any(call_jaxpr(e) is not None for e in body(primal).equations):  # a rule of its own
            continue

        def scalar(*values: Tree, primal: Any = primal) -> Any:
            return jex.jaxpr_as_fun(primal)(*values)[0]

        for differentiate in (jax.grad, jax.jacrev):
            gradient = jax.make_jaxpr(differentiate(scalar, sources))(*avals)
            found = [identity(_live(gradient, k)) for k in range(len(sources))]
            if None not in found and set(found) == set(targets):
                return tuple(map(found.index, targets))
    return ()


def _opened(jaxpr: Jaxpr, values: Sequence[Array], scalars: list[Any]) -> list[Any]:
    """Evaluate a jaxpr with its calls opened, and collect the real numbers that it makes."""
    parts = body(jaxpr)
    known = dict(zip(parts.constvars, parts.constants))
    known.update(zip(parts.invars, values, strict=True))

    def read(atom: Atom) -> Any:
        return atom.val if isinstance(atom, Literal) else known[atom]

    for equation in parts.equations:
        given = [read(atom) for atom in equation.invars]
        inner = call_jaxpr(equation) if equation.primitive.name in _CALLS else None
        made = bind(equation, given) if inner is None else _opened(inner, given, scalars)
        scalars += [
            value
            for value in made
            if jnp.shape(value) == () and jnp.issubdtype(jnp.result_type(value), jnp.floating)
        ]
        known.update(zip(equation.outvars, made))
    return [read(atom) for atom in parts.outvars]


def _live(jaxpr: Jaxpr, place: int) -> Any:
    """Return the part of a program that one of its outputs needs; every input stays."""
    opened: Jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    wanted = [k == place for k in range(len(opened.outvars))]
    live, _ = partial_eval.dce_jaxpr(opened, wanted, instantiate=True)
    return live if getattr(live, "consts", None) else ClosedJaxpr(live, jaxpr.consts)
