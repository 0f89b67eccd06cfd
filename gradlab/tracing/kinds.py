"""The kinds of rules that JAX lets one write, one row each.

A rule is anything that tells JAX a derivative, a transpose or a batch which JAX would otherwise
find itself. A row says how a kind is recognised, what to believe in its place, which functions
somebody wrote for it, and which parts of it are compared beyond the laws of an ordinary check.
"""

import functools
import inspect
from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import hijax

from gradlab.tracing.dependence import call_jaxpr
from gradlab.tracing.implementing import HIGHER, expansion, implementation
from gradlab.tracing.jaxprs import (
    JAX_FOLDER,
    Abstract,
    Equation,
    Jaxpr,
    as_flat,
    dtype_of,
    holds,
    shape_of,
)
from gradlab.tracing.leaves import is_inexact

_CLASSES = ("HiPrimitive", "VJPHiPrimitive", "HiPrim")
_DENSE = 64  # rows of a linear map that is solved as a matrix
_CALLED = ("implementation", "abstract evaluation", "forward derivative", "linearisation")
_DERIVED = ("reverse", "transpose", "batching", "rematerialisation")
NOT_JUDGED = ("custom_transpose_call", "custom_partitioning", "run_state")
"""Primitives that hold rules which nothing here judges; reports name them."""


class Kind(NamedTuple):
    """One way to write a rule."""

    name: str  # as reports print it
    recognises: Callable[[Any], bool]  # whether an equation is of this kind
    # a closed jaxpr of the equation's operands, to be believed; None: there is none
    expansion: Callable[[Any], Any]
    # the functions or jaxprs that somebody wrote; the first gives name and line
    written: Callable[[Any], Iterator[Any]]
    parts: tuple[str, ...] = ()  # what is compared, beside the ordinary laws
    shields: bool = True  # whether rules inside are hidden from differentiation
    exists: Callable[[], bool] = lambda: True  # whether this JAX has the kind


def is_rule(equation: Equation) -> bool:
    """Return whether an equation is a call of something with a rule of its own."""
    return kind_of(equation) is not None


def kind_of(equation: Equation) -> Kind | None:
    """Return the kind of rule that an equation calls, or None."""
    return next((kind for kind in KINDS if kind.recognises(equation)), None)


def lasting(equation: Equation) -> Hashable | None:
    """Return a key of a rule that JAX itself wrote, the same in every trace; None: there is none.

    What JAX stages of a rule is new in each trace, and hides the function that was written.
    """
    if equation.primitive.name != "custom_jvp_call":
        return None
    written = _innermost(equation.params["jvp_jaxpr_fun"])
    if written is None or len(written.transforms) != 1 or not _by_jax(written.f):
        return None
    _, given = written.transforms[0]
    return written.f, *(each for each in given if not callable(each))


def is_renewed(equation: Equation) -> bool:
    """Whether an equation calls a rule whose functions are new in each trace."""
    return is_rule(equation) and lasting(equation) is None


def _innermost(staged: Any) -> Any:
    """Return the function that JAX was given, beneath those that it staged; None: it took more."""
    cells = [cell for each in _functions(staged.f) for cell in each.__closure__ or ()]
    held = [cell.cell_contents for cell in cells]
    inside = next((value for value in held if hasattr(value, "transforms")), None)
    if inside is None:
        return staged
    takes_constants = any(type(value) is int and value for value in held)
    return None if takes_constants else _innermost(inside)


def _by_jax(thing: Any) -> bool:
    """Whether a function, and all that it closes over, is JAX's own and never changes."""
    if isinstance(thing, tuple | list):
        return all(map(_by_jax, thing))
    if isinstance(thing, jax.custom_jvp):
        return _by_jax(thing.fun)
    thing = inspect.unwrap(thing) if callable(thing) else thing
    if not inspect.isfunction(thing):
        return thing is None or isinstance(thing, str | bool | int | float)
    inside = (cell.cell_contents for cell in thing.__closure__ or ())
    return thing.__code__.co_filename.startswith(JAX_FOLDER) and all(map(_by_jax, inside))


def expansion_of(equation: Equation) -> Any:
    """Return a closed jaxpr of what to believe in place of a rule; None where there is none."""
    kind = kind_of(equation)
    return None if kind is None else kind.expansion(equation)


def only_forward(jaxpr: Jaxpr) -> bool:
    """Whether a program holds a rule that need not have a transpose."""
    return holds(jaxpr, _is_batched)


def _is_batched(equation: Equation) -> bool:
    kind = kind_of(equation)
    return kind is not None and "batching" in kind.parts


def missing_kinds() -> tuple[str, ...]:
    """Return the kinds that this version of JAX does not have."""
    known = {kind.name for kind in KINDS if not kind.exists()}
    known |= {name for name in _CLASSES if not hasattr(hijax, name)}
    if not hasattr(jax.custom_derivatives, "custom_transpose"):
        known.add("custom_transpose")
    return tuple(sorted(known))


def _named(name: str) -> Callable[[Any], bool]:
    return lambda equation: bool(equation.primitive.name == name)


def _higher(wanted: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda e: e.primitive.name == HIGHER and wanted(e.params["_prim"])


def _from(name: str) -> Callable[[Any], bool]:
    return lambda primitive: any(each.__name__ == name for each in type(primitive).__mro__)


def _flag(name: str) -> Callable[[], bool]:
    return lambda: hasattr(jax.config, name)


def _of_the_user(primitive: Any) -> bool:
    return not type(primitive).__module__.startswith("jax.")


def _is_foreign(equation: Equation) -> bool:
    """Whether a primitive is not JAX's own, and computes floats from floats."""
    floats = [is_inexact(dtype_of(atom)) for atom in equation.invars]
    results = [is_inexact(dtype_of(variable)) for variable in equation.outvars]
    return any(floats) and any(results) and _foreign(equation.primitive) is not None


@functools.lru_cache(maxsize=1024)
def _foreign(primitive: Any) -> Any:
    """Return a function of a primitive that is written outside of JAX; None: all of it is JAX's."""
    for name in ("impl", "abstract_eval", "to_lojax"):
        function = getattr(primitive, name, None)
        found = next((f for f in _functions(function) if _outside(f)), None)
        if found is not None:
            return found
    return None


def _outside(function: Any) -> bool:
    file = function.__code__.co_filename
    return not file.startswith(JAX_FOLDER) and file[:1] != "<" and "jaxlib" not in file


def _functions(function: Any, depth: int = 4) -> Iterator[Any]:
    """Yield the functions that a function is, or is wrapped around."""
    function = getattr(function, "__func__", function)
    if isinstance(function, functools.partial):
        yield from _functions(function.func, depth)
        function = None
    if not inspect.isfunction(function) or depth == 0:
        return
    yield function
    for cell in function.__closure__ or ():
        try:
            yield from _functions(cell.cell_contents, depth - 1)
        except ValueError:  # a name that was never bound
            continue


def _solves(equation: Equation) -> bool:
    """Whether somebody wrote the solver; JAX's own, of `jnp.linalg.solve` and `cg`, stay."""
    if equation.primitive.name != "custom_linear_solve":
        return False
    described = [getattr(each, "debug_info", None) for each in _of_the_solve(equation)]
    sources = [getattr(each, "func_src_info", None) or "" for each in described]
    return not all(JAX_FOLDER in text for text in sources)


def _solved(equation: Equation) -> Any:
    """Return a dense solve of the matrix of a `custom_linear_solve`; None where it is large."""
    lengths, matvec = equation.params["const_lengths"], equation.params["jaxprs"].matvec
    first = sum(lengths)
    avals = [Abstract(shape_of(v), dtype_of(v)) for v in equation.invars]
    parts = avals[first:]
    sizes = [int(np.prod(part.shape)) for part in parts]
    if sum(sizes) > _DENSE or len({part.dtype for part in parts}) > 1:
        return None

    def divided(vector: Any) -> list[Any]:
        pieces = jnp.split(vector, np.cumsum(sizes)[:-1])
        return [piece.reshape(part.shape) for piece, part in zip(pieces, parts)]

    def joined(arrays: Any) -> Any:
        return jnp.concatenate([jnp.ravel(array) for array in arrays])

    def solve(*operands: Any) -> list[Any]:
        def product(vector: Any) -> Any:
            return joined(as_flat(matvec)(*operands[: lengths.matvec], *divided(vector)))

        right = joined(operands[first:])
        columns = [product(row) for row in jnp.eye(len(right), dtype=right.dtype)]
        return divided(jnp.linalg.solve(jnp.stack(columns, axis=1), right))

    with jax.enable_x64(any(str(aval.dtype) in ("float64", "complex128") for aval in avals)):
        return jax.make_jaxpr(solve)(*avals)


def _lowered(equation: Equation) -> Any:
    """Return what an older hijax primitive says that it stands for, or a traced implementation."""
    lower = getattr(equation.primitive, "to_lojax", None)
    if lower is None or not _outside(getattr(lower, "__func__", lower)):
        return implementation(equation)
    avals = [Abstract(shape_of(v), dtype_of(v)) for v in equation.invars]
    return jax.make_jaxpr(lambda *arrays: lower(*arrays, **equation.params))(*avals)


def _writers(*names: str) -> Callable[[Any], Iterator[Any]]:
    return lambda equation: (
        equation.params[n] for n in names if equation.params.get(n) is not None
    )


def _of_the_solve(equation: Equation) -> Iterator[Any]:
    programs = equation.params["jaxprs"]
    return (each for each in (programs.solve, programs.transpose_solve) if each is not None)


def _of_the_batch(equation: Equation) -> Iterator[Any]:
    rule = equation.params["rule"]
    yield from (equation.params["call"], getattr(rule, "rule", rule))


def _of_the_class(equation: Equation) -> Iterator[Any]:
    yield equation.params["_prim"].expand


def _of_the_traced(equation: Equation) -> Iterator[Any]:
    primitive = equation.params["_prim"]
    yield primitive.traced.jaxpr
    yield getattr(primitive, "bwd", None) or getattr(primitive, "jvp_rule", None)


KINDS: tuple[Kind, ...] = (
    Kind("custom_vjp", _named("custom_vjp_call"), call_jaxpr, _writers("call_jaxpr", "bwd")),
    Kind(
        "custom_jvp", _named("custom_jvp_call"), call_jaxpr, _writers("call_jaxpr", "jvp_jaxpr_fun")
    ),
    Kind(
        "custom_vmap",
        _named("custom_vmap_call"),
        call_jaxpr,
        _of_the_batch,
        ("batching",),
        shields=False,
    ),
    Kind(
        "linear_call",
        _named("linear_call"),
        call_jaxpr,
        _writers("callee"),
        ("transpose", "batching"),
    ),
    Kind(
        "custom_linear_solve",
        _solves,
        _solved,
        _of_the_solve,
        ("solve", "transposed solve", "vecmat"),
        shields=False,
    ),
    Kind(
        "custom_vjp3",
        _higher(_from("CustomVJPTraced")),
        expansion,
        _of_the_traced,
        exists=_flag("jax_custom_vjp3"),
    ),
    Kind(
        "custom_jvp3",
        _higher(_from("CustomJVPTraced")),
        expansion,
        _of_the_traced,
        exists=_flag("jax_custom_jvp3"),
    ),
    Kind("custom_root", _higher(_from("CustomRoot")), lambda _: None, _of_the_class),
    Kind("hijax", _higher(_of_the_user), expansion, _of_the_class, (*_CALLED, *_DERIVED)),
    Kind(
        "primitive",
        _is_foreign,
        _lowered,
        lambda e: iter((_foreign(e.primitive),)),
        (*_CALLED, *_DERIVED),
    ),
)
