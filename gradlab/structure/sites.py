"""One equation as the rules see it: name, parameters, shapes, what is known of its operands."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from gradlab.patterns import Pattern
from gradlab.structure.known import Known

__all__ = ["Local", "Rule", "Site", "outside", "rule", "rule_for"]

Shape = tuple[int, ...]
Local = Pattern | tuple[Pattern | None, ...]
"""What an output may read of one operand; a tuple where there are several outputs."""


@dataclass(frozen=True, eq=False)
class Site:
    """An equation that a rule is asked about.

    Attributes:
        depends: for each operand, whether it carries seeds (tangents or upstreams).
        known: for each operand, what is known of its value at every input.
        notes: what the rule wants the report to say, such as "index arrays are not known".
    """

    name: str
    params: dict[str, Any]
    in_shapes: tuple[Shape, ...]
    out_shapes: tuple[Shape, ...]
    depends: tuple[bool, ...]
    known: tuple[Known | None, ...]
    notes: list[str] = field(default_factory=list)

    @property
    def shape(self) -> Shape:
        """The shape of the first output."""
        return self.out_shapes[0]

    def value(self, k: int) -> np.ndarray[Any, Any] | None:
        """The value of operand `k`, where it is the same at every input."""
        known = self.known[k]
        return None if known is None or self.depends[k] else known.value()

    def nonzero(self, k: int) -> Pattern | None:
        """The region outside which operand `k` is zero, if there is such a region."""
        known = self.known[k]
        return None if known is None else known.nonzero

    def dense(self, k: int) -> tuple[Pattern, ...]:
        """Every entry of operand `k` may reach every entry of every output."""
        return tuple(Pattern.dense(shape, self.in_shapes[k]) for shape in self.out_shapes)


def outside(region: Pattern) -> Pattern:
    """Return the indices that are not in a region, or all where the region may be too large."""
    everywhere = Pattern.region(region.output_shape)
    return everywhere if region.widened else everywhere - region


Rule = Callable[[Site, int], Local]
_R = TypeVar("_R", bound=Rule)

_RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[_R], _R]:
    """Register a rule for the primitives of these names.

    A rule answers, for one operand that carries seeds, which of its entries each output entry
    may read with a coefficient that is not zero.
    """

    def register(function: _R) -> _R:
        for name in names:
            _RULES[name] = function
        return function

    return register


def rule_for(name: str) -> Rule | None:
    """Return the rule of a primitive, or None where nothing is known of it."""
    return _RULES.get(name)
