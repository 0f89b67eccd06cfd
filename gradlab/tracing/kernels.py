"""Kernels: a `pallas_call` as the program that it stands for, to be lifted and differentiated.

JAX interprets a kernel where its accelerator is not: it reads and writes slices of arrays, one
block after another. That interpretation is a program like any other. Its loop over the grid runs a
known number of times, which makes it a `scan`, that can be differentiated backwards.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from gradlab.common.arrays import Array
from gradlab.tracing.jaxprs import (
    Abstract,
    Atom,
    Body,
    ByIdentity,
    Equation,
    Jaxpr,
    Literal,
    bind,
    body,
    dtype_of,
    shape_of,
)


def kernel_jaxpr(equation: Equation) -> Any:
    """Return a closed jaxpr of a `pallas_call` equation's inputs; None where JAX has none."""
    return _opened(ByIdentity(equation))


@functools.lru_cache(maxsize=256)
def _opened(key: ByIdentity[Any]) -> Any:
    equation = key.thing
    params = {name: value for name, value in equation.params.items() if name != "interpret"}
    avals = [Abstract(shape_of(v), dtype_of(v)) for v in equation.invars]
    wide = any(str(dtype_of(v)) in ("float64", "complex128") for v in equation.invars)
    try:
        # not documented, as is much of Pallas; kernels stay closed where it is missing or fails
        from jax._src.pallas.hlo_interpreter import pallas_call_hlo_interpret

        with jax.enable_x64(wide):
            whole = jax.make_jaxpr(lambda *arrays: pallas_call_hlo_interpret(*arrays, **params))
            interpreted = whole(*avals)
            blocks = params["grid_mapping"].grid
            if not all(isinstance(size, int) for size in blocks):
                return interpreted
            return jax.make_jaxpr(_counted(interpreted, blocks))(*avals)
    except Exception:  # whatever Pallas' interpreter raises: what it does not know
        return None


def _counted(interpreted: Any, grid: Sequence[int]) -> Any:
    """Return the interpretation as a function whose loop over the grid is counted.

    All blocks are computed at once, where the steps that write a block follow one another.
    """
    steps = math.prod(grid)

    def loop(equation: Equation, inputs: Sequence[Array]) -> list[Any]:
        skipped, constants = equation.params["cond_nconsts"], equation.params["body_nconsts"]
        fixed, start = inputs[skipped : skipped + constants], inputs[skipped + constants :]
        inside = equation.params["body_jaxpr"]

        def step(carry: Sequence[Any]) -> list[Any]:
            return _evaluated(inside, [*fixed, *carry], {})

        if steps == 1:
            return step(start)
        apart = _Blocks.of(inside, constants, grid)
        if apart is not None:
            return apart.run(fixed, start)
        last: list[Any] = jax.lax.fori_loop(0, steps, lambda _, carry: step(carry), list(start))
        return last

    return lambda *arrays: _evaluated(interpreted, arrays, {"while": loop})


@dataclass(frozen=True, eq=False)
class _Blocks:
    """A loop over a grid that reads blocks of arrays, and is done with one before the next."""

    jaxpr: Any  # of one step
    repeats: int  # how many steps write one block, each of which finds what the one before wrote
    # for some inputs of a step, by their place, the number at every step
    counters: Mapping[int, Any]
    # the equations that take or write a block of a carried array, and where
    windows: Mapping[int, tuple[Equation, Any]]
    # the same of those that write, for the inputs that are written
    writes: Mapping[int, tuple[Equation, Any]]

    @classmethod
    def of(cls, jaxpr: Any, constants: int, grid: Sequence[int]) -> "_Blocks | None":
        """Return a loop's blocks; None where steps may depend on one another."""
        parts, count = body(jaxpr), np.arange(math.prod(grid))
        indices = [count, *np.unravel_index(count, grid)]
        counters = {constants + n: index.astype(np.int32) for n, index in enumerate(indices)}
        carried = parts.invars[constants + len(counters) :]
        found: dict[Any, Equation] = {}
        for equation in parts.equations:
            given = [v for v in equation.invars if not isinstance(v, Literal)]
            used = [v for v in given if v in carried]
            if any(v in found and found[v].primitive.name == _PARTS[1] for v in given):
                return None  # an array is read after it was written
            if used:
                if equation.primitive.name not in _PARTS or used != [equation.invars[0]]:
                    return None
                found[equation.outvars[0]] = equation
        places = _places(parts, counters, list(found.values()))
        if places is None:
            return None
        windows = {id(each): (each, at) for each, at in zip(found.values(), places)}
        writes = {}
        for n, variable in enumerate(carried, constants + len(counters)):
            result = parts.outvars[n - constants]
            if result is variable:
                continue
            if isinstance(result, Literal) or result not in found:
                return None
            write, at = windows[id(found[result])]
            if write.primitive.name != _PARTS[1] or write.invars[0] is not variable:
                return None
            update = write.invars[1]
            read = None if isinstance(update, Literal) else found.get(update)
            if read and read.invars[0] is variable and np.array_equal(windows[id(read)][1], at):
                continue  # what was read is written back
            beside = [where for e, where in windows.values() if e.invars[0] is variable]
            if (at % shape_of(update)).any() or not all(np.array_equal(at, w) for w in beside):
                return None
            writes[n] = write, at
        moves = [(np.diff(at, axis=0) != 0).any(axis=1) for _, at in writes.values()]
        repeats = min((int(np.argmax(m)) + 1 for m in moves if m.any()), default=len(count))
        for _, at in writes.values():
            first = at[::repeats]
            apart = len(np.unique(first, axis=0)) == len(first)
            if len(at) % repeats or not apart or (np.repeat(first, repeats, axis=0) != at).any():
                return None
        return cls(jaxpr, repeats, counters, windows, writes)

    def run(self, fixed: Sequence[Array], start: Sequence[Array]) -> list[Any]:
        """Return the carried values after all steps."""
        values = [*fixed, *start]
        arrays = dict(zip(body(self.jaxpr).invars, values))

        def taken(variable: Any, at: Any, block: Any) -> Any:
            cut = jax.vmap(jax.lax.dynamic_slice, (None, 0, None))
            return cut(arrays[variable], at, shape_of(block))

        own = {write.invars[0]: k for k, (write, _) in enumerate(self.writes.values())}
        made = {
            n: taken(each.invars[0], at, each.outvars[0])
            for n, (each, at) in self.windows.items()
            if each.primitive.name == _PARTS[0] and each.invars[0] not in own
        }
        wanted = [write.invars[1] for write, _ in self.writes.values()]
        first = [
            taken(e.invars[0], at[:: self.repeats], e.invars[1]) for e, at in self.writes.values()
        ]

        def step(blocks: Sequence[Any], given: Any) -> tuple[list[Any], None]:
            counters, read = given
            inputs = [counters.get(n, value) for n, value in enumerate(values)]
            known = {
                n: blocks[own[each.invars[0]]] if each.invars[0] in own else read.get(n)
                for n, (each, _) in self.windows.items()
            }
            return _evaluated(self.jaxpr, inputs, {}, known, wanted), None

        def run(together: Any) -> list[Any]:
            blocks, given = together
            if self.repeats == 1:
                return step(blocks, jax.tree.map(lambda x: x[0], given))[0]
            last: list[Any] = jax.lax.scan(step, blocks, given)[0]
            return last

        names = {each.primitive.name for each in body(self.jaxpr).equations}
        given = jax.tree.map(
            lambda x: x.reshape(-1, self.repeats, *x.shape[1:]), (dict(self.counters), made)
        )
        together, apart = (first, given), "cond" in names  # vmap would compute both of its sides
        try:
            updates = (functools.partial(jax.lax.map, run) if apart else jax.vmap(run))(together)
        except NotImplementedError:  # what Triton adds cannot be batched
            updates = jax.lax.map(run, together)
        for (n, (_, at)), update in zip(self.writes.items(), updates):
            axes, at = tuple(range(at.shape[1])), at[:: self.repeats]
            numbers = jax.lax.ScatterDimensionNumbers(tuple(k + 1 for k in axes), (), axes)
            values[n] = jax.lax.scatter(values[n], at, update, numbers, unique_indices=True)
        return values[len(fixed) :]


_PARTS = ("dynamic_slice", "dynamic_update_slice")


def _places(parts: Body, counters: Mapping[int, Any], windows: Sequence[Equation]) -> Any:
    """Return where each window starts at every step, if the counters alone say that."""
    blocks = [e.outvars[0] if e.primitive.name == _PARTS[0] else e.invars[1] for e in windows]

    def starts(counters: Mapping[int, Any]) -> list[list[Any]]:
        known = {parts.invars[n]: number for n, number in counters.items()}
        for equation in parts.equations:
            inputs = [a.val if isinstance(a, Literal) else known.get(a) for a in equation.invars]
            if all(value is not None for value in inputs):
                known.update(zip(equation.outvars, _made(equation, inputs)))
        return [
            [a.val if isinstance(a, Literal) else known[a] for a in e.invars[-len(shape_of(b)) :]]
            for e, b in zip(windows, blocks)
        ]

    try:
        with jax.ensure_compile_time_eval():
            found = jax.jit(jax.vmap(starts))(dict(counters))
    except KeyError:
        return None
    room = [np.subtract(shape_of(e.invars[0]), shape_of(b)) for e, b in zip(windows, blocks)]
    return [np.clip(np.stack(at, 1), 0, most).astype(np.int32) for at, most in zip(found, room)]


def _evaluated(
    jaxpr: Jaxpr,
    arrays: Sequence[Array],
    special: Mapping[str, Any],
    known: Mapping[int, Any] = MappingProxyType({}),
    wanted: Sequence[Any] | None = None,
) -> list[Any]:
    """Evaluate a jaxpr.

    `special`: what is done instead, by the primitive's name; `known`: what an equation makes.
    """
    parts = body(jaxpr)
    env = dict(zip(parts.constvars, parts.constants)) | dict(zip(parts.invars, arrays))

    def read(atom: Atom) -> Any:
        return atom.val if isinstance(atom, Literal) else env[atom]

    for equation in parts.equations:
        inputs, name = [read(atom) for atom in equation.invars], equation.primitive.name
        if id(equation) in known:
            outputs = [known[id(equation)]]
        elif name in special:
            outputs = special[name](equation, inputs)
        else:
            outputs = _made(equation, inputs)
        env.update(zip(equation.outvars, outputs))
    return [read(atom) for atom in (parts.outvars if wanted is None else wanted)]


def _made(equation: Equation, inputs: Sequence[Any]) -> list[Any]:
    """Evaluate an equation; a block that is the whole array is the array itself."""
    shape = shape_of(equation.outvars[0]) if equation.outvars else None
    for n, name in enumerate(_PARTS):
        if equation.primitive.name == name and shape == shape_of(equation.invars[n]):
            return [inputs[n]]
    return bind(equation, inputs)
