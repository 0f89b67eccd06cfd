"""The entries of a Jacobian from few derivative passes, once its pattern is known.

A pass is one JVP or one VJP of the traced function. Its seed is made where it is used, by comparing
the colours of the entries with the number of the pass, so that no large array of passes x entries
is held. What came is held against one JVP in a random direction.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from gradlab.common.arrays import Function
from gradlab.common.arrays import NumPyArray as Array
from gradlab.errors import GradlabError, InputError, StructureMismatch
from gradlab.formatting import count, size_text
from gradlab.progress import tracked
from gradlab.structure.colouring import Plan
from gradlab.structure.entries import Listing
from gradlab.structure.lanes import Lanes
from gradlab.tracing.compiling import quickest
from gradlab.tracing.jaxprs import body, inner_jaxprs
from gradlab.tracing.leaves import is_inexact
from gradlab.tracing.program import Program
from gradlab.tracing.settings import platform_here

Mode = Literal["jvp", "vjp"]

PROBED = 1 << 26
_CHUNK = 1 << 25  # bytes of seeds and results that a device takes at a time: what caches hold
TOGETHER = 64
"""Passes in one batch. jaxlib 0.10.2 on the CPU compiles larger batches of VJPs wrongly, for
functions as plain as a norm."""
_SPLITS = 6


@dataclass(frozen=True, eq=False)
class Derivative:
    """A traced function, ready to push tangents forward and pull upstreams back at any point.

    Its methods are pure and take the flat traced values of the inputs: JAX can trace, compile and
    differentiate them.

    Attributes:
        program: the function.
        wrt: the flat inputs to differentiate by.
        outputs: the flat outputs to differentiate.
        again: the function itself, of its flat traced inputs.
        compiled: what was compiled for it.
    """

    program: Program = field(repr=False)
    wrt: tuple[int, ...]
    outputs: tuple[int, ...]
    again: Function = field(repr=False)
    compiled: dict[tuple[Any, ...], Function] = field(default_factory=dict, repr=False)

    @property
    def modes(self) -> dict[str, tuple[list[Any], list[Any]]]:
        """What a pass of each mode takes and gives: shapes and dtypes."""
        given = [self.program.in_avals[k] for k in self.wrt]
        made = [self.program.out_avals[k] for k in self.outputs]
        return {"jvp": (given, made), "vjp": (made, given)}

    def dtype(self, mode: str) -> Any:
        """Return the dtype of what a pass gives, over all leaves."""
        with jax.enable_x64(True):
            return jnp.result_type(*{aval.dtype for aval in self.modes[mode][1]})

    def rounding(self, mode: str) -> float:
        """Return the spacing at 1 of the coarsest dtype that a pass is computed in."""
        eps: Any = jnp.finfo(self.dtype(mode)).eps  # type: ignore[no-untyped-call]  # it has no types
        return max(float(eps), _coarsest(self.program.jaxpr))

    def chosen(self, values: Sequence[Any]) -> tuple[Function, list[Any]]:
        """Return the function of the inputs in `wrt` alone, and their values.

        It returns the outputs to differentiate, and all outputs.
        """
        axes = _varying(values)  # a program that was traced elsewhere does not know them
        run = self.again if axes else self.program.flat
        values = [_spread(value, axes) for value in values]

        def function(*moved: Any) -> tuple[list[Any], list[Any]]:
            full = list(values)
            for k, value in zip(self.wrt, moved, strict=True):
                full[k] = value
            results = run(*full)
            return [results[k] for k in self.outputs], results

        return function, [values[k] for k in self.wrt]

    def along(self, mode: str, values: Sequence[Any], seed: Any) -> Any:
        """Return the flattened result of one pass for one flattened seed."""
        function, moved = self.chosen(values)
        if mode == "jvp":
            made = jax.jvp(function, moved, self._parts(mode, seed), has_aux=True)[1]
        else:
            made = jax.vjp(function, *moved, has_aux=True)[1](self._parts(mode, seed))
        return self._flat(mode, made)

    def coloured(
        self, mode: str, values: Sequence[Any], colours: Any, assigned: Any, whole: bool = False
    ) -> Any:
        """Return one row for each colour: the pass whose seed is that colour's entries.

        Args:
            mode: "jvp" or "vjp".
            values: the flat traced inputs.
            colours: which colours, a vector.
            assigned: the colour of each entry of what is seeded.
            whole: whether to return all outputs of the function too, from the same linearisation.
        """
        function, moved = self.chosen(values)
        results: list[Any] = []
        if mode == "vjp":
            _, pull, results = jax.vjp(function, *moved, has_aux=True)

            def run(seed: Any) -> Any:
                return pull(self._parts(mode, seed))
        elif whole:
            _, push, results = jax.linearize(function, *moved, has_aux=True)

            def run(seed: Any) -> Any:
                return push(*self._parts(mode, seed))
        else:

            def run(seed: Any) -> Any:
                return jax.jvp(function, moved, self._parts(mode, seed), has_aux=True)[1]

        axes = _varying(values)
        seeds = jnp.asarray(colours[:, None] == assigned)

        def row(seed: Any) -> Any:
            return self._flat(mode, run(_spread(seed, axes)))

        try:
            rows = jax.vmap(row)(seeds)
        except NotImplementedError:  # a primitive that JAX does not batch
            rows = jax.lax.map(row, seeds)
        return (results, rows) if whole else rows

    def _parts(self, mode: str, seed: Any) -> list[Any]:
        """Cut a flattened seed into arrays of the leaves' shapes and dtypes."""
        parts, start = [], 0
        for aval in self.modes[mode][0]:
            size = math.prod(aval.shape)
            parts.append(seed[start : start + size].astype(aval.dtype).reshape(aval.shape))
            start += size
        return parts

    def _flat(self, mode: str, made: Sequence[Any]) -> Any:
        dtype = self.dtype(mode)
        flat = [leaf.astype(dtype).reshape(-1) for leaf in made]
        return flat[0] if len(flat) == 1 else jnp.concatenate(flat)

    def jitted(self, function: Function, *key: Any, soon: bool = False) -> Function:
        """Return a function compiled once for this derivative.

        Args:
            function: to compile.
            *key: what tells it from others.
            soon: compile fast, since only a few calls follow.
        """
        if key not in self.compiled:
            options = dict(quickest()) if soon and platform_here() == "cpu" else None
            self.compiled[key] = jax.jit(function, compiler_options=options)
        return self.compiled[key]

    def passed(self, mode: str, values: Sequence[Any], seed: Array) -> Array:
        """Return the flattened result of one pass, compiled apart from the passes of a plan."""
        run = self.jitted(functools.partial(self.along, mode), "along", mode, soon=True)
        with jax.enable_x64(self.program.x64):
            return np.asarray(run(list(values), seed))


def _varying(values: Sequence[Any]) -> tuple[Any, ...]:
    """Return the axes of a mesh along which values differ between devices, inside `shard_map`."""
    return tuple({axis for value in values for axis in _axes_of(value)})


def _axes_of(value: Any) -> frozenset[Any]:
    aval: Any = jax.typeof(value)
    kind = getattr(aval, "manual_axis_type", aval)  # so called since JAX 0.10
    axes: frozenset[Any] = getattr(kind, "varying", getattr(kind, "vma", frozenset()))
    return axes


def _spread(value: Any, axes: tuple[Any, ...]) -> Any:
    """Say that a value differs along all of these axes; some may be said of it already."""
    missing = tuple(set(axes) - _axes_of(value))
    return jax.lax.pcast(value, missing, to="varying") if missing else value


def is_traced(values: Sequence[Any]) -> bool:
    """Return whether some value has no numbers yet: it belongs to a trace of JAX."""
    return any(isinstance(value, jax.core.Tracer) for value in values)


def compress(
    at: Derivative,
    values: Sequence[Any],
    plan: Plan,
    max_bytes: int,
    lanes: Lanes | None = None,
) -> Array:
    """Run all passes of a plan, a chunk at a time, and return what they give, flattened.

    Each device takes a chunk; how large it is does not depend on how many there are, unless memory
    is short, so that one device and several give the same bits.

    Args:
        at: the function.
        values: its flat traced inputs.
        plan: the passes.
        max_bytes: the most that seeds and results may hold at once.
        lanes: the devices to spread the passes over; None: JAX's default device.

    Raises:
        InputError: the entries and one pass take more than `max_bytes`.
    """
    sizes = {"jvp": (plan.jvps, *plan.shape), "vjp": (plan.vjps, *plan.shape[::-1])}
    items = {mode: np.dtype(at.dtype(mode)).itemsize for mode in sizes}
    total = sum(number * made * items[mode] for mode, (number, made, _) in sizes.items())
    parts = []
    for mode, (number, made, given) in sizes.items():
        one = (4 if number > 1 else number) * (made + given) * items[mode]
        if one > max_bytes - total:
            raise InputError(
                f"evaluate: {count(plan.count, _modes(plan))} make {size_text(total)}, and each "
                f"takes {size_text(one)}, more than max_bytes={size_text(max_bytes)}; raise "
                "max_bytes, or use the pattern alone, or operators"
            )
        if number:
            colours = plan.columns if mode == "jvp" else plan.rows
            parts.append(
                _rows(at, mode, values, number, colours, max_bytes - total, max(1, one), lanes)
            )
    if not parts:
        return np.zeros(0, at.dtype("jvp"))
    flat = [part.reshape(-1) for part in parts]
    return flat[0] if len(flat) == 1 else np.concatenate(flat)


def _modes(plan: Plan) -> str:
    return " or ".join(m for m, n in (("JVP", plan.jvps), ("VJP", plan.vjps)) if n)


def _rows(
    at: Derivative,
    mode: str,
    values: Sequence[Any],
    number: int,
    assigned: Any,
    room: int,
    one: int,
    lanes: Lanes | None,
) -> Array:
    """Return the rows of all colours of one mode."""
    if lanes is not None and room < len(lanes) * one:
        lanes = None
    beside = len(lanes) if lanes else 1
    chunk = max(1, min(number, min(room // beside, _CHUNK) // one, TOGETHER))
    if number <= chunk:
        lanes, beside = None, 1

    def run(values: Sequence[Any], colours: Any, assigned: Any) -> Any:
        return at.coloured(mode, values, colours, assigned)

    assigned = np.asarray(assigned, np.int32)
    step, rows = chunk * beside, []
    with jax.enable_x64(at.program.x64):
        if number == 1:  # jaxlib 0.10.2 on the CPU writes over a lone seed that it makes itself
            one_pass = at.jitted(functools.partial(at.along, mode), "one", mode)
            seed = (assigned == 0).astype(at.dtype("vjp" if mode == "jvp" else "jvp"))
            return np.asarray(one_pass(list(values), seed))[None]
        call = at.jitted(run, mode)
        if lanes is not None:
            key = mode, lanes, chunk
            if key not in at.compiled:
                several = np.arange(step, dtype=np.int32)
                try:
                    at.compiled[key] = lanes.compile(
                        run, at.program.x64, list(values), several, assigned
                    )
                except GradlabError:  # another process is lost, or has other inputs
                    raise
                except Exception:  # a program with a mesh of its own: JAX spreads it itself
                    at.compiled[key] = call
            call = at.compiled[key]
        for first in tracked(range(0, number, step), lambda k: f"{k:,} of {number:,} {mode}s"):
            colours = np.arange(first, first + step, dtype=np.int32)  # those that nobody has give 0
            rows.append(np.asarray(call(list(values), colours, assigned)))
    return rows[0] if len(rows) == 1 and len(rows[0]) == number else np.concatenate(rows)[:number]


def _one_off(value: Any, random: np.random.Generator) -> Any:
    """Return an input with each of its numbers moved by about a unit of its last digit."""
    array = np.asarray(value)
    if not is_inexact(array.dtype):
        return value
    signs = random.choice([-1, 1], array.shape)
    unit = float(jnp.finfo(array.dtype).eps)  # type: ignore[no-untyped-call]  # it has no types
    return (array * (1 + signs * unit)).astype(array.dtype)


def confirm(
    at: Derivative, values: Sequence[Any], mode: str, blocks: Sequence[tuple[Listing, Any]]
) -> None:
    """Hold entries against one pass in a random direction.

    Where they differ, the direction is cut in two at random, several times: rounding inside of the
    function, in whatever precision it computes, shows as a sum that depends on the cut. The inputs
    are moved by a unit of their last digit, too: programs that are compiled apart round apart. A
    missed entry changes with neither.

    Args:
        at: the function.
        values: its flat traced inputs.
        mode: of the pass, "jvp" or "vjp".
        blocks: which entries each block has, and their values.

    Raises:
        InputError: the function is complex and not holomorphic.
        StructureMismatch: an entry outside the pattern was missed.
    """
    if sum(len(listing.rows) for listing, _ in blocks) > PROBED:
        return
    given, made = at.modes[mode]
    kinds = at.dtype("vjp" if mode == "jvp" else "jvp")
    random = np.random.default_rng(0)
    size, length = (sum(math.prod(a.shape) for a in avals) for avals in (given, made))
    if not size or not length:
        return

    def drawn() -> Array:
        draw: Array = random.random(size, np.float32) - np.float32(0.5)
        if jnp.issubdtype(kinds, np.complexfloating):
            draw = draw + 1j * (random.random(size, np.float32) - np.float32(0.5))
        return _wide(draw.astype(np.float16 if kinds == np.float16 else kinds))

    def passed(seed: Array, where: Sequence[Any] = values) -> Array:
        return _wide(at.passed(mode, where, seed))

    draw = drawn()
    truth = passed(draw)
    product, terms = np.zeros(truth.shape, truth.dtype), np.zeros(truth.shape, np.float64)
    for listing, data in blocks:
        rows, columns = listing.rows + listing.corner[0], listing.cols + listing.corner[1]
        to, source = (rows, columns) if mode == "jvp" else (columns, rows)
        pieces = _wide(np.asarray(data)) * draw[source]
        sums = np.bincount(to, pieces.real, length)
        if np.iscomplexobj(pieces):
            sums = sums + 1j * np.bincount(to, pieces.imag, length)
        with np.errstate(over="ignore"):
            product = product + sums.astype(product.dtype)
        terms += np.bincount(to, np.abs(pieces), length)
    usable = np.isfinite(truth) & np.isfinite(product)
    slack = math.sqrt(at.rounding(mode)) * (terms + np.abs(truth))

    def differs(allowed: Array) -> Array:
        with np.errstate(invalid="ignore"):  # of what is not usable
            wrong: Array = usable & (np.abs(truth - product) > allowed)
        return wrong

    wrong = differs(slack)
    if not wrong.any():
        return
    if np.iscomplexobj(draw):
        raise InputError(
            "evaluate: the function is not holomorphic, so it has no complex Jacobian; "
            "differentiate by the real and the imaginary part"
        )
    scatter = np.zeros(truth.shape, np.float64)
    for _ in range(_SPLITS):
        part = drawn()
        with np.errstate(invalid="ignore", over="ignore"):
            scatter = np.fmax(scatter, np.abs(passed(part) + passed(draw - part) - truth))
            near = [_one_off(value, random) for value in values]
            scatter = np.fmax(scatter, np.abs(passed(draw, near) - truth))
    wrong = differs(slack + 16 * scatter.max(initial=0.0, where=np.isfinite(scatter)))
    if wrong.any():
        raise StructureMismatch(
            f"evaluate: a random probe disagrees at entry {int(np.argmax(wrong))} of the flattened "
            f"{'output' if mode == 'jvp' else 'input'}: the pattern has missed an entry, or JAX "
            "compiles these passes wrongly; please report the function to gradlab"
        )


def _coarsest(jaxpr: Any) -> float:
    """Return the largest spacing at 1 of the dtypes that a program computes in."""
    found = 0.0
    for equation in body(jaxpr).equations:
        for variable in (*equation.invars, *equation.outvars):
            dtype = getattr(variable.aval, "dtype", None)
            if dtype is not None and is_inexact(dtype):
                found = max(found, float(jnp.finfo(dtype).eps))  # type: ignore[no-untyped-call]  # it has no types
        found = max([found, *(_coarsest(inner) for _, inner in inner_jaxprs(equation))])
    return found


def _wide(values: Array) -> Array:
    """Return half-precision numbers, which SciPy does not know, as float32."""
    return values.astype(np.float32) if values.dtype.itemsize < 4 else values
