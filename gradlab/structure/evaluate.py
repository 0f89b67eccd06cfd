"""The entries of a Jacobian from few derivative passes, once its pattern is known.

Columns that share no row are seeded together: one JVP gives them all (Curtis, Powell and Reid,
On the estimation of sparse Jacobian matrices, 1974); likewise rows and VJPs. A diagonal takes one
JVP with ones. What was computed is held against a JVP in a random direction.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradlab.errors import InputError, StructureMismatch
from gradlab.formatting import count, size_text
from gradlab.patterns import Colouring, Pattern
from gradlab.tracing.program import Program

__all__ = ["Compressed", "Differential", "compress"]

Array = np.ndarray[Any, Any]

_PROBED = 1 << 26


@dataclass(frozen=True, eq=False)
class Differential:
    """A function at a point, ready to push tangents forward and pull upstreams back."""

    program: Program = field(repr=False)
    values: tuple[Any, ...] | None = field(repr=False)
    wrt: tuple[int, ...]
    outputs: tuple[int, ...]

    def push(self, output: int, source: int, seeds: Array) -> Array:
        """Return the tangents of one output for a batch of tangents of one input."""
        return self._run("jvp", output, source, seeds)

    def pull(self, output: int, source: int, seeds: Array) -> Array:
        """Return the gradients of one input for a batch of upstreams of one output."""
        return self._run("vjp", output, source, seeds)

    def _run(self, mode: str, output: int, source: int, seeds: Array) -> Array:
        with jax.enable_x64(self.program.x64):
            result = self._compiled(mode, output, source)(self.values, _spread(seeds))
            return np.asarray(result)

    @functools.cached_property
    def _cache(self) -> dict[tuple[str, int, int], Callable[..., Any]]:
        return {}

    def _compiled(self, mode: str, output: int, source: int) -> Callable[..., Any]:
        key = mode, output, source
        if key not in self._cache:
            place, result = self.wrt[source], self.outputs[output]

            def along(values: Sequence[Any], seeds: Any) -> Any:
                def chosen(x: Any) -> Any:
                    return self.program.flat(*values[:place], x, *values[place + 1 :])[result]

                if mode == "jvp":
                    return jax.vmap(lambda v: jax.jvp(chosen, (values[place],), (v,))[1])(seeds)
                return jax.vmap(jax.vjp(chosen, values[place])[1])(seeds)[0]

            self._cache[key] = jax.jit(along)
        return self._cache[key]


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
        if self.colouring.mode == "jvp":
            data = flat[colours[columns], rows]
        else:
            data = flat[colours[rows], columns]
        return type(matrix)((data, columns, matrix.indptr), shape=matrix.shape)

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
    dtypes: tuple[Any, Any],
    max_bytes: int,
) -> Compressed:
    """Evaluate one block in as many passes as its colouring has colours, a chunk at a time.

    Args:
        at: the function and its point.
        output: which output.
        source: which input.
        pattern: the block's pattern.
        colouring: of its columns (JVPs) or rows (VJPs).
        dtypes: of the output and of the input.
        max_bytes: the most that seeds and results may hold at once.

    Raises:
        InputError: the entries alone take more than `max_bytes`.
        StructureMismatch: a JVP in a random direction disagrees with the entries.
    """
    forward = colouring.mode == "jvp"
    m, n = math.prod(pattern.output_shape), math.prod(pattern.input_shape)
    made, given = (m, n) if forward else (n, m)
    item = np.dtype(dtypes[0]).itemsize
    total = colouring.count * made * item
    if total > max_bytes:
        raise InputError(
            f"evaluate: {count(colouring.count, colouring.mode.upper())} make {size_text(total)}, "
            f"more than max_bytes={size_text(max_bytes)}; raise max_bytes, or use operators"
        )
    step = max(1, (max_bytes - total) // max(1, 4 * (made + given) * item))
    seed_shape = pattern.input_shape if forward else pattern.output_shape
    seed_dtype = dtypes[1] if forward else dtypes[0]
    run = at.push if forward else at.pull
    step = min(step, max(colouring.count, 1))
    parts = []
    for first in range(0, colouring.count, step):
        chunk = range(first, min(first + step, colouring.count))
        seeds = np.stack([colouring.seed(c) for c in chunk]).astype(seed_dtype)
        parts.append(run(output, source, seeds.reshape(len(chunk), *seed_shape)))
    shape = pattern.output_shape if forward else pattern.input_shape
    values = np.concatenate(parts) if parts else np.zeros((0, *shape), dtypes[0])
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
    draw = random.standard_normal(shape)
    if np.issubdtype(dtype, np.complexfloating):
        draw = draw + 1j * random.standard_normal(shape)
    draw = draw.astype(dtype)
    run = at.push if forward else at.pull
    result = run(output, source, draw[None])[0]
    unit = float(jnp.finfo(result.dtype).eps)  # type: ignore[no-untyped-call]
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
    wrong = usable & (np.abs(truth - product) > math.sqrt(unit) * (size + np.abs(truth)))
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


def _spread(seeds: Array) -> Any:
    """Lay a batch of seeds out over the devices, if there are several and they divide it."""
    devices = jax.devices()
    if len(devices) == 1 or len(seeds) % len(devices):
        return seeds
    mesh = jax.sharding.Mesh(np.array(devices), ("seed",))
    layout = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("seed"))  # type: ignore[no-untyped-call]
    return jax.device_put(seeds, layout)
