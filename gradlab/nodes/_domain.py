"""Where a node's inputs may lie, and the inputs on which it is verified.

A node says once what its inputs are; the verification, the Hypothesis strategies and the
documentation follow from it.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gradlab.nodes._arrays import Shape

if TYPE_CHECKING:
    from gradlab.nodes._base import Node

__all__ = ["BOOLEANS", "POSITIVE", "REALS", "Case", "Domain", "generic", "special"]

_CLEARANCE = 1 / 16  # how far drawn entries stay from a kink or the edge of a domain


@dataclass(frozen=True)
class Domain:
    """Where the entries of one input may lie.

    Args:
        low: the open lower end.
        high: the open upper end.
        kinks: values at which the node is not differentiable.
        distinct: ties between entries are kinks too (max, sort).
        integer: the input holds indices or labels and has no gradient.
        boolean: the input is a mask and has no gradient.
    """

    low: float = -math.inf
    high: float = math.inf
    kinks: tuple[float, ...] = ()
    distinct: bool = False
    integer: bool = False
    boolean: bool = False

    @property
    def differentiable(self) -> bool:
        """Whether an input of this domain has a gradient."""
        return not (self.integer or self.boolean)

    def draw(self, rng: np.random.Generator, shape: Shape) -> Any:
        """Return entries of this domain, clear of its edges and kinks, in float64 or int64."""
        if self.boolean:
            return rng.random(shape) < 0.5
        if self.integer:
            return rng.integers(int(self.low), int(self.high), shape)
        x = np.asarray(rng.standard_normal(shape))
        if math.isfinite(self.low) and math.isfinite(self.high):
            width = self.high - self.low
            x = self.low + width * (_CLEARANCE + (1 - 2 * _CLEARANCE) * rng.random(shape))
        elif math.isfinite(self.low):
            x = self.low + _CLEARANCE + np.abs(x)
        elif math.isfinite(self.high):
            x = self.high - _CLEARANCE - np.abs(x)
        for kink in self.kinks:
            x = np.where(np.abs(x - kink) < _CLEARANCE, kink + _CLEARANCE + np.abs(x - kink), x)
        return x


REALS = Domain()
POSITIVE = Domain(low=0.0)
BOOLEANS = Domain(boolean=True)


@dataclass(frozen=True, eq=False)
class Case:
    """One set of inputs on which a node is verified.

    Args:
        node: the node, with its parameters.
        inputs: for each input a shape, to be filled from its domain, or the array itself.
        note: what this case is for: "generic", "ties", "zero size", ...
    """

    node: "Node"
    inputs: tuple[Any, ...]
    note: str = "generic"

    @property
    def generic(self) -> bool:
        """Whether all inputs are drawn at random, none made on purpose."""
        return self.note == "generic"

    def draw(self, seed: int, dtype: Any = np.float64) -> tuple[Any, ...]:
        """Return the inputs: float ones in `dtype`, index ones as they are."""
        rng = np.random.default_rng(seed)
        drawn = []
        for position, spec in enumerate(self.inputs):
            domain = self.node.domain(position)
            x = domain.draw(rng, spec) if isinstance(spec, tuple) else np.asarray(spec)
            drawn.append(np.asarray(x, dtype if domain.differentiable else None))
        return tuple(drawn)


def generic(node: "Node", *shapes: Shape) -> Case:
    """Return the case in which every input is drawn from its domain at these shapes."""
    return Case(node, shapes)


def special(node: "Node", note: str, *inputs: Any) -> Case:
    """Return a case made on purpose; lists become arrays, tuples stay shapes to be drawn."""
    return Case(node, tuple(x if isinstance(x, tuple) else np.asarray(x) for x in inputs), note)
