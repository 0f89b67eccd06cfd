"""What is known of a function's Jacobian: its pattern by axis, why, and its entries on request."""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from gradlab.errors import InputError
from gradlab.files import write_whole
from gradlab.patterns import Colouring, Pattern, symmetric_colours
from gradlab.report import Report
from gradlab.structure.entries import Entries, Pair, Side, only, refuse_dense
from gradlab.structure.evaluate import Differential, compress, probe
from gradlab.structure.lanes import lanes_for
from gradlab.structure.observed import Property, observe
from gradlab.structure.proof import Proof, accuse, prove

__all__ = ["JacobianReport"]

_LOOKED_AT = 1 << 22


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
        modes: what AD can run: "jvp", "vjp" or both.
        entries: what `observe` evaluated; else None.
        observed: for each block, what its entries show; filled by `observe`.
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
    entries: Entries | None = field(default=None, repr=False)
    observed: Mapping[Pair, tuple[Property, ...]] = field(default_factory=dict)
    _at: Differential | None = field(default=None, repr=False)
    _is_gradient: Callable[[], bool] = field(default=lambda: False, repr=False)

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
        pattern: Pattern = only(self.patterns, "pattern", "patterns")
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
    def rung(self) -> str:
        """How closely the axes were followed: "symbolic", "explicit", "widened" or "unknown".

        Symbolic: as bounds between axes. Explicit: index arrays are listed on some axes, all others
        symbolic. Widened: some axes count as dense, or wider than they are; `notes` say at which
        equation. Unknown: a primitive without a rule counts as dense on all axes.
        """
        if self.unknown:
            return "unknown"
        if self.notes:
            return "widened"
        listed = any(zone.explicit for p in self.patterns.values() for zone in p.zones)
        return "explicit" if listed else "symbolic"

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
        """The cheapest colouring of each block, among the modes that AD can run.

        A Hessian, `jacobian(jax.grad(f), x)`, is symmetric: its columns may stand for rows.
        """
        found = {}
        for pair, pattern in self.patterns.items():
            options = [pattern.colours(mode) for mode in self.modes]
            found[pair] = min(options, key=lambda colouring: colouring.count)
            square = pattern.input_shape == pattern.output_shape
            if found[pair].count > 2 and square and self._is_gradient():
                symmetric = symmetric_colours(pattern) or found[pair]
                found[pair] = min(found[pair], symmetric, key=lambda colouring: colouring.count)
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
            probes: hold each block against a derivative in a random direction, the first time that
                it is evaluated.
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
        return self._entries(self._at, max_bytes, probes, timeout)

    def observe(self, max_bytes: int = 2**30) -> "JacobianReport":
        """Evaluate the entries here and at two other points, and say what they show.

        What is observed (a linear map, symmetric, orthogonal, ...) is true of these numbers; it is
        no proof. Blocks of more than 2^22 entries are not looked at.

        Args:
            max_bytes: as for `evaluate`.

        Returns:
            This report with its `entries` and what was `observed` of them, block by block.

        Raises:
            InputError: as for `evaluate`.

        Example:
            >>> import jax.numpy as jnp, numpy as np, gradlab
            >>> report = gradlab.jacobian(jnp.cumsum, np.ones(4)).observe()
            >>> [fact.name for fact in report.observed["output", "a"]]
            ['constant', 'toeplitz']
        """
        here = self.evaluate(max_bytes)
        assert self._at is not None
        small = {pair for pair, pattern in self.patterns.items() if pattern.nnz <= _LOOKED_AT}
        points = self._at.elsewhere(2) if small else []
        others = [self._entries(at, max_bytes, False, 120.0) for at in points]
        observed = {
            pair: observe(
                block.to_scipy(), block.eps, [entries.blocks[pair].to_scipy() for entries in others]
            )
            for pair, block in here.blocks.items()
            if pair in small
        }
        return replace(self, entries=here, observed=observed)

    def _entries(self, at: Differential, max_bytes: int, probes: bool, timeout: float) -> Entries:
        lanes = lanes_for(at.values or (), timeout)
        blocks = {}
        for o, out in enumerate(self.outputs):
            for i, given in enumerate(self.inputs):
                pair = out.path, given.path
                block = compress(
                    at, o, i, self.patterns[pair], self.colourings[pair], self._dtype(out),
                    max_bytes, lanes,
                )  # fmt: skip
                if probes and (o, i) not in at.confirmed:
                    side = given if block.colouring.mode == "jvp" else out
                    probe(at, o, i, block, self._dtype(side))
                    at.confirmed.add((o, i))
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
        refuse_dense(self.outputs, self.inputs, max_bytes)
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
            "rung": self.rung,
            "notes": list(self.notes),
            "unknown": list(self.unknown),
            "blocks": blocks,
            "observed": [
                {"output": out, "input": given, **fact._asdict()}
                for (out, given), facts in self.observed.items()
                for fact in facts
            ],
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
