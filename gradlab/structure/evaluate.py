"""The entries of a Jacobian from few derivative passes, once its pattern is known.

Columns that share no row are seeded together: one JVP gives them all (Curtis, Powell and Reid,
On the estimation of sparse Jacobian matrices, 1974); likewise rows and VJPs. A diagonal takes one
JVP with ones. What was computed is held against a JVP in a random direction.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradlab.errors import GradlabError, InputError, StructureMismatch
from gradlab.formatting import count, size_text
from gradlab.patterns import Colouring, Pattern
from gradlab.progress import tracked
from gradlab.structure.lanes import Lanes
from gradlab.tracing.program import Program

__all__ = ["Compressed", "Differential", "compress"]

Array = np.ndarray[Any, Any]

_PROBED = 1 << 26
_CHUNK = 1 << 25  # bytes of seeds and results that a device takes at a time: what caches hold


@dataclass(frozen=True, eq=False)
class Differential:
    """A function at a point, ready to push tangents forward and pull upstreams back."""

    program: Program = field(repr=False)
    values: tuple[Any, ...] | None = field(repr=False)
    wrt: tuple[int, ...]
    outputs: tuple[int, ...]

    def along(self, mode: str, output: int, source: int, seeds: Array) -> Array:
        """Return one output's tangents (or one input's gradients) for a batch of seeds."""
        return self._run(mode, output, source, _batch, seeds)

    def coloured(
        self,
        mode: str,
        output: int,
        source: int,
        colours: range,
        assignment: Array,
        lanes: Lanes | None = None,
    ) -> Array:
        """Return the same for the seeds of some colours, which are made where they are used.

        Args:
            mode: "jvp" or "vjp".
            output: which output.
            source: which input.
            colours: which colours; as many as there are lanes, or a multiple.
            assignment: the colour of each entry.
            lanes: the devices to spread the colours over; None: JAX's default device.
        """
        return self._run(
            mode, output, source, _colours, np.asarray(colours), assignment, lanes=lanes
        )

    def ones(self, mode: str, output: int, source: int) -> Array:
        """Return the same for one seed of ones."""
        return self._run(mode, output, source, _ones)[None]

    def _run(
        self,
        mode: str,
        output: int,
        source: int,
        seeding: Callable[..., Any],
        *how: Any,
        lanes: Lanes | None = None,
    ) -> Array:
        key = mode, output, source, seeding, lanes
        x64 = self.program.x64
        with jax.enable_x64(x64):
            if key not in self._compiled:
                run = self._pass(mode, output, source, seeding)
                self._compiled[key] = jax.jit(run)
                if lanes is not None:
                    try:
                        self._compiled[key] = lanes.compile(run, x64, self._point, *how)
                    except GradlabError:  # another process is lost, or has other inputs
                        raise
                    except Exception:  # a program with a mesh of its own: JAX spreads it itself
                        pass
            return np.asarray(self._compiled[key](self._point, *how))

    @functools.cached_property
    def _point(self) -> list[Any]:
        return [jnp.asarray(value) for value in self.values or ()]

    def elsewhere(self, count: int) -> list["Differential"]:
        """Return the function at other points, of the same size but other signs and proportions."""
        draw = np.random.default_rng(0)
        found = []
        for _ in range(count):
            values = list(self.values or ())
            for k in self.wrt:
                here = np.asarray(values[k])
                factor = draw.choice([-1.0, 1.0], here.shape) * draw.uniform(0.5, 2.0, here.shape)
                values[k] = (here * factor + draw.uniform(-1, 1, here.shape)).astype(here.dtype)
            other = replace(self, values=tuple(values))
            other.__dict__["_compiled"] = self._compiled  # the same programs at other numbers
            found.append(other)
        return found

    @functools.cached_property
    def confirmed(self) -> set[tuple[int, int]]:
        """The blocks (output, input) whose entries here a probe has confirmed."""
        return set()

    @functools.cached_property
    def _compiled(self) -> dict[tuple[Any, ...], Callable[..., Any]]:
        return {}

    def _pass(
        self, mode: str, output: int, source: int, seeding: Callable[..., Any]
    ) -> Callable[..., Any]:
        place, result = self.wrt[source], self.outputs[output]

        def run(values: Sequence[Any], *how: Any) -> Any:
            def chosen(x: Any) -> Any:
                return self.program.flat(*values[:place], x, *values[place + 1 :])[result]

            if mode == "jvp":

                def push(seed: Any) -> Any:
                    return jax.jvp(chosen, (values[place],), (seed,))[1]

                return seeding(push, values[place], *how)
            made, pull = jax.vjp(chosen, values[place])
            return seeding(lambda seed: pull(seed)[0], made, *how)

        return run


def _batch(run: Callable[..., Any], like: Any, seeds: Any) -> Any:
    return jax.vmap(run)(seeds)


def _ones(run: Callable[..., Any], like: Any) -> Any:
    return run(jnp.ones_like(like))


def _colours(run: Callable[..., Any], like: Any, colours: Any, assignment: Any) -> Any:
    of = assignment.reshape(like.shape)
    return jax.vmap(lambda colour: run((of == colour).astype(like.dtype)))(colours)


@dataclass(frozen=True, eq=False)
class Compressed:
    """The entries of one Jacobian block, colour by colour.

    Attributes:
        values: for JVPs, shape (colours, *output shape): row c is the sum of the columns of colour
            c; for VJPs, shape (colours, *input shape).
    """

    pattern: Pattern
    colouring: Colouring
    values: Array

    def to_scipy(self) -> Any:
        """Return the block as a SciPy CSR matrix over the flattened output and input."""
        matrix = self.pattern.to_scipy().tocsr()
        if not matrix.nnz:
            return type(matrix)(matrix.shape, dtype=self.values.dtype)
        colours = self.colouring.assignment()
        flat = _wide(self.values).reshape(len(self.values), -1)
        rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
        columns = matrix.indices
        if heads := self.colouring.heads:
            across = (colours[rows] < heads) & (colours[columns] >= heads)
            source, place = np.where(across, rows, columns), np.where(across, columns, rows)
            data = flat[colours[source], place]
        elif self.colouring.mode == "jvp":
            data = flat[colours[columns], rows]
        else:
            data = flat[colours[rows], columns]
        return type(matrix)((data, columns, matrix.indptr), shape=matrix.shape)

    @property
    def eps(self) -> float:
        """The spacing of the entries' dtype at 1."""
        return float(jnp.finfo(self.values.dtype).eps)  # type: ignore[no-untyped-call]  # it has no types

    def diagonal(self) -> Array | None:
        """Return d where the block is diag(d), in the output's shape."""
        if self.pattern.is_diagonal and len(self.values) == 1:
            d: Array = self.values[0]
            return d
        return None


def compress(
    at: Differential,
    output: int,
    source: int,
    pattern: Pattern,
    colouring: Colouring,
    dtype: Any,
    max_bytes: int,
    lanes: Lanes | None = None,
) -> Compressed:
    """Evaluate one block in as many passes as its colouring has colours, a chunk at a time.

    Each device takes a chunk; how large it is does not depend on how many there are, unless memory
    is short, so that one device and several give the same bits.

    Args:
        at: the function and its point.
        output: which output.
        source: which input.
        pattern: the block's pattern.
        colouring: of its columns (JVPs) or rows (VJPs).
        dtype: of the entries.
        max_bytes: the most that seeds and results may hold at once.
        lanes: the devices to spread the passes over; None: JAX's default device.

    Raises:
        InputError: the entries and one pass take more than `max_bytes`.
    """
    forward = colouring.mode == "jvp"
    m, n = math.prod(pattern.output_shape), math.prod(pattern.input_shape)
    made, given = (m, n) if forward else (n, m)
    item = np.dtype(dtype).itemsize
    total = colouring.count * made * item
    one = (4 if colouring.count > 1 else colouring.count) * (made + given) * item
    room = max_bytes - total
    if one > room:
        raise InputError(
            f"evaluate: {count(colouring.count, colouring.mode.upper())} make {size_text(total)}, "
            f"and each takes {size_text(one)}, more than max_bytes={size_text(max_bytes)}; raise "
            "max_bytes, or use the pattern alone, or operators"
        )
    if colouring.count == 1:
        return Compressed(pattern, colouring, at.ones(colouring.mode, output, source))
    if lanes is not None and room < len(lanes) * one:
        lanes = None
    beside = len(lanes) if lanes else 1
    chunk = max(1, min(colouring.count, min(room // beside, _CHUNK) // max(1, one)))
    if colouring.count <= chunk:
        lanes, beside = None, 1
    shape = pattern.output_shape if forward else pattern.input_shape
    values = np.zeros((colouring.count, *shape), dtype)
    assignment = colouring.assignment()
    step = chunk * beside
    passes = range(0, colouring.count, step)
    for first in tracked(
        passes, lambda k: f"{colouring.mode.upper()} {k:,} of {colouring.count:,}"
    ):
        colours = range(first, first + step)  # those that nobody has are seeds of zeros
        found = at.coloured(colouring.mode, output, source, colours, assignment, lanes)
        values[first : first + step] = found[: colouring.count - first]
    return Compressed(pattern, colouring, values)


def probe(at: Differential, output: int, source: int, block: Compressed, dtype: Any) -> None:
    """Hold evaluated entries against one pass in a random direction.

    Raises:
        StructureMismatch: an entry outside the pattern was missed.
    """
    if block.pattern.nnz > _PROBED or not len(block.values):
        return
    forward = block.colouring.mode == "jvp"
    shape = block.pattern.input_shape if forward else block.pattern.output_shape
    random = np.random.default_rng(0)
    draw = random.random(shape, np.float32) - np.float32(0.5)
    if np.issubdtype(dtype, np.complexfloating):
        draw = draw + 1j * (random.random(shape, np.float32) - np.float32(0.5))
    draw = draw.astype(dtype)
    result = at.along(block.colouring.mode, output, source, draw[None])[0]
    truth, draw = _wide(result).ravel(), _wide(draw)
    d = block.diagonal()
    if d is not None:
        product = _wide(d).ravel() * draw.ravel()
        size = np.abs(product)
    else:
        matrix = block.to_scipy()
        matrix = matrix if forward else matrix.T
        product, size = matrix @ draw.ravel(), abs(matrix) @ np.abs(draw.ravel())
    usable = np.isfinite(truth) & np.isfinite(product)
    with np.errstate(invalid="ignore"):  # of what is not usable
        wrong = usable & (np.abs(truth - product) > math.sqrt(block.eps) * (size + np.abs(truth)))
    if wrong.any() and np.iscomplexobj(draw):
        raise InputError(
            "evaluate: the function is not holomorphic, so that it has no complex Jacobian; "
            "differentiate by the real and the imaginary part"
        )
    if wrong.any():
        place = np.unravel_index(
            int(np.argmax(wrong)), shape if not forward else block.pattern.output_shape
        )
        raise StructureMismatch(
            f"evaluate: a random probe disagrees at {tuple(map(int, place))}: the pattern has "
            "missed an entry, which is an error of gradlab; please report the function"
        )


def _wide(values: Array) -> Array:
    """Return half-precision numbers, which SciPy does not know, as float32."""
    return values.astype(np.float32) if values.dtype.itemsize < 4 else values
