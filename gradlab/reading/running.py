"""Running a reading: in NumPy, without compiling; beside the function itself, to be checked."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from gradlab.common.arrays import Function
from gradlab.errors import NotReadable
from gradlab.reading.memory import Array
from gradlab.tracing import Program, without_checks
from gradlab.tracing.program import attributes_kept
from gradlab.tracing.running import AtOnce

_REACHES = (3e-2, -1e-2, 1e-3, -1e-4, 1e-6)  # relative moves that are tried
_MOVED = 2  # of them that must agree


def evaluate(program: Program, *inputs: Any) -> list[Array]:
    """Evaluate a program's flat outputs, equation by equation."""
    return evaluate_flat(program, program.flatten(inputs))


def evaluate_flat(program: Program, values: Sequence[Any]) -> list[Array]:
    """Evaluate a program on its traced inputs alone."""
    arrays = [np.array(value, aval.dtype) for value, aval in zip(values, program.in_avals)]
    with without_checks(), np.errstate(all="ignore"):
        return [np.asarray(output) for output in AtOnce()(program.jaxpr, arrays)]


def require_same(
    program: Program,
    holds: Callable[..., bool],
    function: Function,
    inputs: Sequence[Any],
    rewind: Callable[[], None],
) -> None:
    """Compare a reading with the function, at its inputs and at others where it decides alike.

    A difference elsewhere is a dependence that was lost.
    """
    _compare(program, function, inputs, rewind, "where it was read")
    left, rng = _MOVED, np.random.default_rng(0)
    for reach in _REACHES:
        moved = _elsewhere(program, inputs, reach, rng)
        if left and holds(*moved):
            left -= _compare(program, function, moved, rewind, "at other inputs")


def _compare(
    program: Program, function: Any, inputs: Sequence[Any], rewind: Any, where: str
) -> bool:
    rewind()
    try:
        with np.errstate(all="ignore"), attributes_kept(function):
            output = function(*copy.deepcopy(tuple(inputs)))
    except Exception:  # a domain may end between here and there
        return False
    finally:
        rewind()
    eps = _unit(program)
    sizes = [np.max(np.abs(leaf), initial=1.0) for leaf in program.flatten(inputs)]
    for path, mine, other in zip(
        program.out_names, evaluate(program, *inputs), jax.tree_util.tree_leaves(output)
    ):
        other = np.asarray(other)
        if mine.shape != other.shape or mine.dtype != other.dtype:
            raise NotReadable(f"{where}, {path} is {mine.dtype}{list(mine.shape)} as it was read")
        if not _close(mine, other, max(sizes, default=1.0), eps):
            raise NotReadable(f"{where}, {path} is not what NumPy computes")
    return True


def _unit(program: Program) -> float:
    """Return the unit of the narrowest dtype in which something is computed."""
    computed = [v.aval.dtype for e in program.jaxpr.eqns for v in e.outvars]
    dtypes = {*computed, *(aval.dtype for aval in (*program.in_avals, *program.out_avals))}
    return max((float(np.finfo(d).eps) for d in dtypes if d.kind in "fc"), default=0.0)


def _close(mine: Array, other: Array, size: float, eps: float) -> bool:
    if mine.dtype.kind not in "fc":
        return bool(np.array_equal(mine, other))
    known = np.isfinite(other)
    if not np.array_equal(np.isfinite(mine), known):
        return False
    largest = np.max(np.abs(other[known]), initial=0.0)
    slack = eps ** (2 / 3) * largest + 1e3 * eps * size
    return bool(np.all(np.abs(mine[known] - other[known]) <= slack))


def _elsewhere(
    program: Program, inputs: Sequence[Any], reach: float, rng: np.random.Generator
) -> tuple[Any, ...]:
    values, tree = jax.tree_util.tree_flatten(tuple(inputs), is_leaf=lambda x: x is None)
    moved = [
        _moved(value, reach, rng) if leaf.differentiable else value
        for value, leaf in zip(values, program.leaves)
    ]
    return tuple(jax.tree_util.tree_unflatten(tree, moved))


def _moved(leaf: Any, reach: float, rng: np.random.Generator) -> Any:
    array = np.asarray(leaf)
    moved = array * (1 + reach * rng.uniform(0.5, 1.0, array.shape)) + reach * 1e-2
    return float(moved) if isinstance(leaf, float) else moved.astype(array.dtype)
