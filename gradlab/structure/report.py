"""What is known of a function's Jacobian: its pattern by axis, why, and its entries on request."""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import scipy.sparse

from gradlab.errors import InputError
from gradlab.files import write_whole
from gradlab.formatting import size_text
from gradlab.patterns import Colouring, Pattern
from gradlab.report import Report
from gradlab.structure.evaluate import Compressed, Differential, compress, probe
from gradlab.structure.lanes import lanes_for
from gradlab.structure.proof import Proof, accuse, prove

__all__ = ["Entries", "JacobianReport", "Side"]

Pair = tuple[str, str]


@dataclass(frozen=True)
class Side:
    """One input or output leaf of the function."""

    path: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """The number of entries."""
        return math.prod(self.shape)

    @property
    def itemsize(self) -> int:
        """Bytes per entry."""
        return 2 if self.dtype == "bfloat16" else np.dtype(self.dtype).itemsize


@dataclass(frozen=True, eq=False)
class Entries:
    """The evaluated entries of a Jacobian, block by block, compressed by colours.

    Attributes:
        blocks: for each (output path, input path), the compressed block.
    """

    outputs: tuple[Side, ...]
    inputs: tuple[Side, ...]
    blocks: Mapping[Pair, Compressed]

    @property
    def block(self) -> Compressed:
        """The only block.

        Raises:
            InputError: there are several; look in `blocks`.
        """
        block: Compressed = _only(self.blocks, "block", "blocks")
        return block

    @property
    def nbytes(self) -> int:
        """The memory that the entries take."""
        return sum(block.values.nbytes for block in self.blocks.values())

    def to_scipy(self) -> Any:
        """Return the matrix (all outputs flattened, all inputs flattened) in SciPy's CSR format.

        Memory: three integers of 8 bytes and two numbers for each entry of the pattern.
        """
        rows = [
            [self.blocks[out.path, given.path].to_scipy() for given in self.inputs]
            for out in self.outputs
        ]
        return scipy.sparse.block_array(rows, format="csr")

    def to_dense(self, max_bytes: int = 2**30) -> np.ndarray[Any, Any]:
        """Return the matrix as a dense array of at most `max_bytes`.

        Raises:
            InputError: it takes more; nothing has been allocated then.
        """
        _refuse_dense(self.outputs, self.inputs, max_bytes)
        dense: np.ndarray[Any, Any] = self.to_scipy().toarray()
        return dense

    def to_bcoo(self) -> Any:
        """Return the matrix as a JAX BCOO array."""
        from jax.experimental.sparse import BCOO

        return BCOO.from_scipy_sparse(self.to_scipy())


@dataclass(frozen=True, eq=False)
class JacobianReport(Report):
    """The structure of a Jacobian, read from the program of its derivative.

    A zero of the pattern is a zero of the Jacobian at every input at which the values are finite;
    an entry of the pattern may or may not be zero at a given input.

    Attributes:
        name: the function's.
        inputs: the leaves differentiated by.
        outputs: the leaves of inexact dtype.
        patterns: for each (output path, input path), which entries may be nonzero.
        evidence: "proved".
        notes: the equations at which the pattern may be larger than the truth.
        unknown: primitives without a rule, taken as dense.
        proof: the equations behind `why`.
    """

    kind: ClassVar[str] = "jacobian"

    name: str
    inputs: tuple[Side, ...]
    outputs: tuple[Side, ...]
    patterns: Mapping[Pair, Pattern]
    evidence: str
    notes: tuple[str, ...]
    unknown: tuple[str, ...]
    proof: Proof = field(repr=False)
    modes: tuple[str, ...] = ("jvp", "vjp")
    _at: Differential | None = field(default=None, repr=False)

    @property
    def ok(self) -> bool:
        """A description cannot fail."""
        return True

    @property
    def pattern(self) -> Pattern:
        """The pattern, where there is one input and one output leaf.

        Raises:
            InputError: there are several; look in `patterns`.
        """
        pattern: Pattern = _only(self.patterns, "pattern", "patterns")
        return pattern

    @property
    def structure(self) -> str:
        """The name of the structure; of several blocks that agree theirs, else "blocks"."""
        names = {pattern.structure for pattern in self.patterns.values()}
        return names.pop() if len(names) == 1 else "blocks"

    @property
    def notation(self) -> str:
        """The pattern as people write it, one line for each block."""
        return "\n".join(
            pattern.describe(*self._labels(pair)) for pair, pattern in self.patterns.items()
        )

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of the matrix: entries of all outputs, entries of all inputs."""
        return sum(side.size for side in self.outputs), sum(side.size for side in self.inputs)

    @property
    def nnz(self) -> int:
        """The number of entries that may be nonzero; an upper bound where not `exact`."""
        return sum(pattern.nnz for pattern in self.patterns.values())

    @property
    def exact(self) -> bool:
        """Whether `nnz` counts the pattern as it follows from the rules, without widening."""
        return all(pattern.exact for pattern in self.patterns.values())

    @property
    def density(self) -> float:
        """The share of the matrix that may be nonzero."""
        m, n = self.shape
        return self.nnz / (m * n) if m * n else 0.0

    @property
    def dense_bytes(self) -> int:
        """The memory of the dense matrix."""
        return self._bytes({pair: math.prod(p.shape) for pair, p in self.patterns.items()})

    @property
    def stored_bytes(self) -> int:
        """The memory of the entries alone."""
        return self._bytes({pair: p.nnz for pair, p in self.patterns.items()})

    @property
    def passes(self) -> int:
        """How many JVPs or VJPs give every entry."""
        return sum(colouring.count for colouring in self.colourings.values())

    @functools.cached_property
    def colourings(self) -> Mapping[Pair, Colouring]:
        """The cheaper colouring of each block, among the modes that AD can run."""
        found = {}
        for pair, pattern in self.patterns.items():
            options = [pattern.colours(mode) for mode in self.modes]
            found[pair] = min(options, key=lambda colouring: colouring.count)
        return found

    def why(self, axis: int | tuple[int, int] | None = None) -> str:
        """Explain the structure: the proof, or which lines couple an axis.

        Args:
            axis: an input axis, or a pair (input axis, output axis); None for the whole proof.

        Raises:
            InputError: no input has such an axis.
        """
        return prove(self) if axis is None else accuse(self, axis)

    def evaluate(
        self, max_bytes: int = 2**30, probes: bool = True, timeout: float = 120.0
    ) -> Entries:
        """Evaluate every entry in `passes` JVPs or VJPs, chunk by chunk.

        Chunks are spread over `jax.devices()`, where there are several. In processes joined by
        `jax.distributed.initialize`, all call this with the same arrays, and each gets all entries.

        Args:
            max_bytes: the most memory that one block's seeds and results may take at once; what
                cannot fit is refused before anything is allocated.
            probes: hold each block against a derivative in a random direction.
            timeout: seconds to wait for other processes.

        Raises:
            InputError: the report was made from shapes alone, the entries take more memory, or
                processes have different arrays.
            ProcessLost: another process failed, or did not come in time.
            StructureMismatch: a probe disagrees.

        Example:
            >>> import jax.numpy as jnp, numpy as np, gradlab
            >>> report = gradlab.jacobian(jnp.sin, np.zeros((2, 3), np.float32))
            >>> report.evaluate().block.diagonal()
            array([[1., 1., 1.],
                   [1., 1., 1.]], dtype=float32)
        """
        if self._at is None or self._at.values is None:
            raise InputError(
                "evaluate: the report was made from shapes; call jacobian with arrays of values"
            )
        lanes = lanes_for(self._at.values, timeout)
        blocks = {}
        for o, out in enumerate(self.outputs):
            for i, given in enumerate(self.inputs):
                pair = out.path, given.path
                block = compress(
                    self._at, o, i, self.patterns[pair], self.colourings[pair], self._dtype(out),
                    max_bytes, lanes,
                )  # fmt: skip
                if probes:
                    side = given if block.colouring.mode == "jvp" else out
                    probe(self._at, o, i, block, self._dtype(side))
                blocks[pair] = block
        return Entries(self.outputs, self.inputs, blocks)

    def to_dense(self, max_bytes: int = 2**30) -> np.ndarray[Any, Any]:
        """Evaluate and return the dense matrix, shape `shape`, of at most `max_bytes`.

        Raises:
            InputError: it takes more; nothing has been evaluated then.

        Example:
            >>> import gradlab, jax.numpy as jnp
            >>> report = gradlab.jacobian(jnp.tanh, jnp.ones((100, 4096)))
            >>> try:
            ...     report.to_dense()
            ... except gradlab.GradlabError as error:
            ...     print(str(error)[:60])
            to_dense: the dense 409,600 x 409,600 matrix takes 625.0 GiB
        """
        _refuse_dense(self.outputs, self.inputs, max_bytes)
        return self.evaluate(max_bytes).to_dense(max_bytes)

    def to_scipy(self, max_bytes: int = 2**30) -> Any:
        """Evaluate and return a SciPy CSR matrix, shape `shape`; memory: as `Entries.to_scipy`."""
        return self.evaluate(max_bytes).to_scipy()

    def to_bcoo(self, max_bytes: int = 2**30) -> Any:
        """Evaluate and return a JAX BCOO array, shape `shape`; memory: as `Entries.to_scipy`."""
        return self.evaluate(max_bytes).to_bcoo()

    def plot(self, path: str | Path) -> None:
        """Write a picture of the pattern, block by block, as an SVG file.

        Raises:
            InputError: the path does not end in `.svg`.
        """
        target = Path(path)
        if target.suffix != ".svg":
            raise InputError(f"plot: path must end in .svg, got {target.name!r}")
        write_whole(str(target), self.render("svg"))

    def to_dict(self) -> dict[str, Any]:
        """Return this report as JSON-plain data."""
        blocks = [
            {
                "output": out,
                "input": given,
                "structure": pattern.structure,
                "notation": pattern.describe(*self._labels((out, given))),
                "nnz": pattern.nnz,
                "exact": pattern.exact,
                "shape": list(pattern.shape),
                "passes": self.colourings[out, given].count,
                "mode": self.colourings[out, given].mode,
                "widened": list(pattern.widened),
            }
            for (out, given), pattern in self.patterns.items()
        ]
        return {
            "schema": f"gradlab.{self.kind}/{self.version}",
            "ok": self.ok,
            "name": self.name,
            "inputs": [vars(side) | {"shape": list(side.shape)} for side in self.inputs],
            "outputs": [vars(side) | {"shape": list(side.shape)} for side in self.outputs],
            "structure": self.structure,
            "notation": self.notation.splitlines(),
            "shape": list(self.shape),
            "nnz": self.nnz,
            "exact": self.exact,
            "density": self.density,
            "dense_bytes": self.dense_bytes,
            "stored_bytes": self.stored_bytes,
            "passes": self.passes,
            "evidence": self.evidence,
            "notes": list(self.notes),
            "unknown": list(self.unknown),
            "blocks": blocks,
            "why": self.why(),
        }

    def _labels(self, pair: Pair) -> tuple[str, str]:
        """Return what an output and an input are called: out and in where there is one of each."""
        return (
            "out" if len(self.outputs) == 1 else pair[0],
            "in" if len(self.inputs) == 1 else pair[1],
        )

    def _bytes(self, entries: Mapping[Pair, int]) -> int:
        items = {side.path: side.itemsize for side in self.outputs}
        return sum(number * items[out] for (out, _), number in entries.items())

    def _dtype(self, side: Side) -> Any:
        assert self._at is not None
        program = self._at.program
        names = (*program.in_names, *program.out_names)
        return (*program.in_avals, *program.out_avals)[names.index(side.path)].dtype


def _refuse_dense(outputs: Sequence[Side], inputs: Sequence[Side], max_bytes: int) -> None:
    m, n = sum(side.size for side in outputs), sum(side.size for side in inputs)
    size = m * n * max((side.itemsize for side in outputs), default=1)
    if size > max_bytes:
        raise InputError(
            f"to_dense: the dense {m:,} x {n:,} matrix takes {size_text(size)}, more than "
            f"max_bytes={size_text(max_bytes)}; use evaluate() or to_scipy(), which keep only the "
            "entries of the pattern, or raise max_bytes"
        )


def _only(blocks: Mapping[Pair, Any], one: str, many: str) -> Any:
    if len(blocks) != 1:
        raise InputError(
            f"{one}: there are {len(blocks)} blocks, {', '.join(map(str, list(blocks)[:4]))}; "
            f"look in .{many}[output path, input path]"
        )
    return next(iter(blocks.values()))
