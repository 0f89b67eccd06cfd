"""What is known of a function's Jacobian, as plain data: its pattern by axis, and why it is so."""

import functools
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from gradlab.patterns import Pattern
from gradlab.patterns.drawing import Level, levels
from gradlab.report import Report
from gradlab.structure.colouring import Plan, plan_for
from gradlab.structure.conditions import Condition
from gradlab.structure.entries import Pair, Side, only
from gradlab.structure.explanation import Coupling, Line, accuse, prove


@dataclass(frozen=True)
class BlockView:
    """One block of a Jacobian, as plain data.

    Attributes:
        output: the block's output.
        input: the block's input.
        structure: its structure.
        notation: its pattern by axis.
        nnz: entries that may be nonzero.
        exact: whether nnz is no mere upper bound.
        shape: rows and columns.
        widened: where its pattern may be larger than the truth.
        levels: the block seen from far, then closer.
        operator: its structured operator as a formula, if it was asked for.
        operator_bytes: what that holds.
    """

    output: str
    input: str
    structure: str
    notation: str
    nnz: int
    exact: bool
    shape: tuple[int, int]
    widened: tuple[str, ...]
    levels: tuple[Level, ...]
    operator: str = ""
    operator_bytes: int = 0


@dataclass(frozen=True)
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
        steps: the function's own equations that the inputs reach, calls entered.
        couplings: the equations that join what an axis kept apart until there.
        formulas: for each input path, the entries in a formula, where the function is one product.
        modes: what AD can run: "jvp", "vjp" or both.
        read_in: the program that was read, "jvp" or "vjp".
        mirrors: where the function is the gradient of a scalar one: for each output the number of
            its input.
        conditions: those that the pattern rests on (accepted), and those that would make it
            smaller.
        sizes: for each name of a size its number, or the numbers for which the pattern is proved.
        least: for each name of a size without a number, from where on, in what divides it.
        unseen: through what, without a derivative, inputs reach outputs outside of the pattern.
        corner: the first rows and columns of the matrix, where its entries were evaluated.
        operators: the formula and the bytes of the blocks' operators, where they were asked for.
        refuted: what was asserted of the structure and is wrong, or not proved, and why.
    """

    kind: ClassVar[str] = "jacobian"
    version: ClassVar[int] = 2
    hidden: ClassVar[tuple[str, ...]] = ("patterns", "mirrors", "least", "operators")
    derived: ClassVar[tuple[str, ...]] = (
        *("structure", "notation", "shape", "nnz", "exact", "density", "dense_bytes"),
        *("stored_bytes", "passes", "jvps", "vjps", "rung", "blocks", "symmetric"),
    )

    name: str
    inputs: tuple[Side, ...]
    outputs: tuple[Side, ...]
    patterns: Mapping[Pair, Pattern]
    evidence: str
    notes: tuple[str, ...]
    unknown: tuple[str, ...]
    steps: tuple[Line, ...] = field(default=(), repr=False)
    couplings: tuple[Coupling, ...] = field(default=(), repr=False)
    formulas: Mapping[str, str] = field(default_factory=dict, repr=False)
    modes: tuple[str, ...] = ("jvp", "vjp")
    read_in: str = "jvp"
    mirrors: tuple[int, ...] = ()
    conditions: tuple[Condition, ...] = ()
    sizes: Mapping[str, str] = field(default_factory=dict)
    least: Mapping[str, int] = field(default_factory=dict, repr=False)
    unseen: str = ""
    corner: tuple[tuple[float, ...], ...] = field(default=(), repr=False)
    operators: Mapping[Pair, tuple[str, int]] = field(default_factory=dict, repr=False)
    refuted: str = ""

    def __getstate__(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def __hash__(self) -> int:
        return hash((self.name, self.inputs, self.outputs, self.notes))

    @property
    def ok(self) -> bool:
        """Whether all that was asserted is proved; a description alone cannot fail."""
        return not self.refuted

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
            pattern.describe(*self.labels(pair)) for pair, pattern in self.patterns.items()
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
        if self.least:
            return math.nan
        return self.nnz / (m * n) if m * n else 0.0

    @property
    def dense_bytes(self) -> int:
        """The memory of the dense matrix."""
        return self.bytes_of({pair: math.prod(p.shape) for pair, p in self.patterns.items()})

    @property
    def stored_bytes(self) -> int:
        """The memory of the entries alone."""
        return self.bytes_of({pair: p.nnz for pair, p in self.patterns.items()})

    @property
    def symmetric(self) -> bool:
        """Whether the matrix is symmetric: a Hessian, its outputs in the order of its inputs."""
        return bool(self.mirrors) and list(self.mirrors) == sorted(self.mirrors)

    @functools.cached_property
    def plan(self) -> Plan:
        """The passes that give every entry, of all inputs and outputs together."""
        return plan_for(*self.grid, self.modes, self.mirrors)

    @property
    def grid(self) -> tuple[dict[tuple[int, int], Pattern], list[int], list[int]]:
        """The patterns by the numbers of output and input, and how many entries these have."""
        made, given = ([side.size for side in sides] for sides in (self.outputs, self.inputs))
        places = itertools.product(range(len(made)), range(len(given)))
        return dict(zip(places, self.patterns.values(), strict=True)), made, given

    @property
    def passes(self) -> int:
        """How many JVPs or VJPs give every entry."""
        return self.plan.count

    def why(self, axis: int | tuple[int, int] | None = None) -> str:
        """Explain the structure: the proof, or which lines couple an axis.

        Args:
            axis: an input axis, or a pair (input axis, output axis); None for the whole proof.

        Raises:
            InputError: no input has such an axis.
        """
        return prove(self) if axis is None else accuse(self, axis)

    @property
    def jvps(self) -> int:
        """How many of the passes are JVPs."""
        return self.plan.jvps

    @property
    def vjps(self) -> int:
        """How many of the passes are VJPs."""
        return self.plan.vjps

    @property
    def blocks(self) -> tuple[BlockView, ...]:
        """One for each output and input."""
        return tuple(
            BlockView(
                *pair,
                pattern.structure,
                pattern.describe(*self.labels(pair)),
                pattern.nnz,
                pattern.exact,
                pattern.shape,
                pattern.widened,
                tuple(levels(pattern)),
                *self.operators.get(pair, ("", 0)),
            )
            for pair, pattern in self.patterns.items()
        )

    def labels(self, pair: Pair) -> tuple[str, str]:
        """Return what an output and an input are called: the one output is `out`."""
        return "out" if len(self.outputs) == 1 else pair[0], pair[1]

    def bytes_of(self, entries: Mapping[Pair, int]) -> int:
        """Return the memory of so many entries of each block."""
        items = {side.path: side.itemsize for side in self.outputs}
        return sum(number * items[out] for (out, _), number in entries.items())
