"""Where a node's inputs may lie.

A node says once what its inputs are; the verification, the Hypothesis strategies and the
documentation follow from it.
"""

import math
from dataclasses import dataclass

import numpy as np

from gradlab.common.arrays import Array, Shape

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

    def draw(self, rng: np.random.Generator, shape: Shape) -> Array:
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
NONZERO = Domain(kinks=(0.0,))
BOOLEANS = Domain(boolean=True)
