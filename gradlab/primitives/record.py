"""The record of a primitive: all that gradlab knows of it, each fact once.

A record can only add knowledge. A field that is left out means the safe answer: what an output
reads is every entry, zero need not stay zero, nothing is only moved.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np

from gradlab.patterns import Pattern
from gradlab.patterns.size import small
from gradlab.primitives.equation import Equation
from gradlab.primitives.known import Known
from gradlab.primitives.ranges import Kind, Need
from gradlab.primitives.rounding import UNKNOWN, Rounding, Underflow

_LISTED = 1 << 22

Local = Pattern | tuple[Pattern | None, ...]
"""What an output may read of one operand; a tuple where there are several outputs."""


@dataclass(frozen=True, kw_only=True)
class Primitive:
    """What is known of one primitive."""

    name: str  # as JAX calls it
    # for one operand, which of its entries each output entry may read with a coefficient that is
    # not zero. None: every entry, and the report names the primitive
    reads: "Reads | None" = None
    zero: "Zero | None" = None  # whether an output is zero, given which operands are
    # what holds of the result whatever the inputs are: where it is 0, -inf, True. None: what
    # follows from `zero` and `moves`
    known: "Facts | None" = None
    affine: "Facts | None" = None  # the result as a function of the index, where the operands are
    triangular: int | None = None  # which result is zero below the diagonal
    # the operands whose entries the outputs are made of, unchanged. None: none is known
    moves: slice | None = None
    # whether an output entry is computed from the operands' entries at its own index
    entrywise: bool = False
    commutes: bool = False  # whether its two operands may change places
    rounds: Rounding = UNKNOWN  # how far its results are from those of exact arithmetic
    # whether its results may be too small for a dtype that holds its operands
    underflows: Underflow = "possible"
    placed: bool = False  # whether it means something on a mesh of devices only
    talks: bool = False  # whether devices read one another's arrays
    # the parameter that holds the program which an equation stands for; "" for the only one that
    # there is. None: it is no call
    calls: str | None = None
    plain: bool = False  # whether it is a call that says nothing but that: a function under `jit`
    stateful: bool = False  # whether it reads or writes a mutable array
    words: str = ""  # what people call it; "" for its name
    combines: str = ""  # the parameter that holds the program which joins entries, two at a time
    bounded: tuple[float, float] | None = None  # between which numbers its results lie
    # where its extremes lie while its operands lie between bounds: at the corners of these. "sum":
    # there, and it rounds by the sizes of what it adds. "": nobody knows
    extremes: Literal["", "corners", "sum"] = ""
    settles: bool = False  # whether results of masked values are ordinary values again
    flat: bool = False  # whether its derivative is zero, though its results are no integers

    @property
    def is_identity(self) -> bool:
        """Whether each result is the operand of its place, as it is."""
        return self.entrywise and self.moves in (slice(0, 1), slice(None))


class Grants(Protocol):
    """What whoever asks for a pattern lets a rule assume at one equation."""

    def need(self, kind: Kind, operand: int, level: float, besides: Pattern | None) -> Need:
        """Name a condition on an operand.

        Nonempty: a row that keeps an entry has a maximum above `level`; `besides` is left out.
        """

    def granted(self, needs: frozenset[Need], bound: float) -> bool:
        """Return whether these hold, and with them values that masks are laid over <= bound."""

    def unclear(self) -> None:
        """Note a mask about which nothing is known here."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Site(Equation):
    """An equation, with what is known of its operands: what a rule is asked about."""

    primitive: Primitive  # the record of its primitive
    depends: tuple[bool, ...]  # for each operand, whether it carries seeds (tangents or upstreams)
    known: tuple[Known | None, ...]  # for each operand, what is known of its value at every input
    vanishes: tuple[bool, ...]  # for each operand, whether it is zero wherever all seeds are
    # what the rule wants the report to say, such as "index arrays are not known"
    notes: list[str] = field(default_factory=list)
    grants: "Grants | None" = None  # what may be assumed of operands; None: nothing
    found: dict[int, tuple[Pattern | None, ...]] = field(default_factory=dict, init=False)

    def value(self, k: int) -> np.ndarray[Any, Any] | None:
        """The value of operand `k`, where it is the same at every input."""
        known = self.known[k]
        return None if known is None or self.depends[k] else known.value()

    def number(self, k: int) -> Any:
        """The number that operand `k` is at every input, if it is one: an integer or a size."""
        known = self.known[k]
        return None if known is None or self.depends[k] else known.entry(0)

    def nonzero(self, k: int) -> Pattern | None:
        """The region outside which operand `k` is zero, if there is such a region."""
        known = self.known[k]
        return None if known is None else known.nonzero

    def dense(self, k: int) -> tuple[Pattern, ...]:
        """Every entry of operand `k` may reach every entry of every output."""
        return tuple(Pattern.dense(shape, self.in_shapes[k]) for shape in self.out_shapes)

    def reads(self, k: int) -> tuple[Pattern | None, ...]:
        """What each output may read of operand `k`; None: nothing."""
        if k not in self.found:
            self.found[k] = self._reads(k)
        return self.found[k]

    def _reads(self, k: int) -> tuple[Pattern | None, ...]:
        if self.primitive.reads is None:
            return self.dense(k)
        local = self.primitive.reads(self, k)
        steps = local if isinstance(local, tuple) else (local,)
        if len(steps) != len(self.out_shapes):  # a form of the primitive that its rule ignores
            self.notes.append("several outputs: dense on all axes")
            return self.dense(k)
        return steps

    def is_zero(self, output: int) -> bool:
        """Whether an output is proved zero wherever all seeds are."""
        rule = self.primitive.zero
        return rule is not None and rule(self, output)


Reads = Callable[[Site, int], Local]
Zero = Callable[[Site, int], bool]
Facts = Callable[[Site], Known | None]


def stays_zero(site: Site, output: int) -> bool:
    """Zero if any operand is: a product, or a function of one operand with f(0) = 0."""
    return any(site.vanishes)


def each(record: Primitive, names: str) -> tuple[Primitive, ...]:
    """Return a record under each of several names, with blanks between them."""
    return tuple(replace(record, name=name) for name in names.split())


def zero_if(*operands: int, start: int = 0) -> Zero:
    """Zero if all of these operands are, whatever the others hold: a sum, or a choice.

    Without any, all operands from `start` on.
    """

    def rule(site: Site, output: int) -> bool:
        return all(site.vanishes[k] for k in operands or range(start, len(site.vanishes)))

    return rule


def complement(region: Pattern) -> Pattern:
    """Return the indices that are not in a region, or all where the region may be too large."""
    everywhere = Pattern.region(region.output_shape)
    if region.widened:
        return everywhere
    rest = everywhere - region
    if rest.widened and small(rest.shape[0], _LISTED):
        return Pattern.explicit(~region.to_dense(), region.output_shape, ())
    return rest
