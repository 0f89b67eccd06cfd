"""The verdict on one input's gradient, entry by entry."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gradlab.references import LIMIT, Verdict
from gradlab.tracing import Leaf

__all__ = ["Judged"]

Mask = np.ndarray[Any, Any]

_MANY = 1 << 20  # entries among which some are typical of all


@dataclass
class Judged:
    """Which entries of a gradient are right, wrong or undecided, and how far off, in floors."""

    target: Leaf
    actual: np.ndarray[Any, Any]
    expected: np.ndarray[Any, Any]
    right: Mask
    wrong: Mask
    inconclusive: Mask
    error: np.ndarray[Any, Any]
    resolution: np.ndarray[Any, Any]
    unstable: Mask
    instability: np.ndarray[Any, Any]
    forgiven: float = 0.0  # relative errors up to it are warned of, not failed
    kinks: list[Any] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @classmethod
    def empty(cls, target: Leaf, actual: np.ndarray[Any, Any]) -> "Judged":
        """Return a verdict that has not been reached."""
        shape = actual.shape
        return cls(
            target=target,
            actual=actual,
            expected=np.full(shape, np.nan, actual.dtype),
            right=np.zeros(shape, bool),
            wrong=np.zeros(shape, bool),
            inconclusive=np.ones(shape, bool),
            error=np.zeros(shape),
            resolution=np.full(shape, np.inf),
            unstable=np.zeros(shape, bool),
            instability=np.ones(shape),
        )

    @classmethod
    def of(cls, target: Leaf, actual: Any, expected: Any, verdict: Verdict) -> "Judged":
        """Return what the judge said; the verdict's own arrays are written to later."""
        unstable = verdict.unstable
        if unstable.any():
            unstable &= np.asarray(expected) != 0
        return cls(
            target=target,
            actual=np.asarray(actual),
            expected=np.asarray(expected),
            right=np.asarray(verdict.right),
            wrong=np.asarray(verdict.wrong),
            inconclusive=np.asarray(verdict.inconclusive),
            error=np.asarray(verdict.error),
            resolution=np.asarray(verdict.resolution),
            unstable=np.asarray(unstable),
            instability=np.asarray(verdict.instability),
        )

    @property
    def worst(self) -> tuple[int, ...] | None:
        """The index of the wrong entry with the largest error."""
        if not self.wrong.any():
            return None
        error = np.where(self.wrong, np.where(np.isnan(self.error), np.inf, self.error), -1.0)
        return tuple(int(i) for i in np.unravel_index(int(np.argmax(error)), error.shape))

    @property
    def typical_resolution(self) -> float:
        """The smallest relative error that would have failed in a typical entry."""
        some = slice(None, None, 1 + self.right.size // _MANY)
        resolution, right = self.resolution.ravel()[some], self.right.ravel()[some]
        seen = resolution[right & np.isfinite(resolution)]
        return max(float(np.median(seen)), self.forgiven) if seen.size else float("inf")

    def accept(self, mask: Mask) -> None:
        """Take entries for right after all: another witness confirmed them."""
        self.wrong &= ~mask
        self.inconclusive &= ~mask
        self.right |= mask

    def reject(self, mask: Mask) -> None:
        """Take entries for wrong: a witness refuted them."""
        self.right &= ~mask
        self.inconclusive &= ~mask
        self.wrong |= mask
        self.error[mask] = np.inf

    def doubt(self, mask: Mask) -> None:
        """Take entries for undecided."""
        self.wrong &= ~mask
        self.right &= ~mask
        self.inconclusive |= mask

    def mark(self, state: str, group: Any, error: float, steps: np.ndarray[Any, Any]) -> None:
        """Note what finite differences said of a group of entries."""
        if state in ("right", "kink"):
            self.right.reshape(-1)[group] = True
            sizes = np.abs(self.actual.ravel()[group] * steps)
            with np.errstate(divide="ignore", invalid="ignore"):
                known = (sizes > 0) & (state == "right")
                seen = np.where(known, LIMIT * error / sizes, np.inf)
            self.resolution.reshape(-1)[group] = seen
        elif state == "wrong":
            self.wrong.reshape(-1)[group] = True
            self.error.reshape(-1)[group] = np.inf

    def expect(self, entry: int, value: complex) -> None:
        """Note the value that finite differences give for one entry."""
        self.expected.reshape(-1)[entry] = value
