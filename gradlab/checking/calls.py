"""Slopes of a forward that is called: one step to each side, at two calls a direction."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from gradlab.checking.differences import moves
from gradlab.checking.evidence import Evidence
from gradlab.checking.widen import widen
from gradlab.common.arrays import NumPyArray as Array
from gradlab.references import LIMIT, Slope

CLOSER = 2.0**-3
"""Of a step: how close is looked where the slopes to both sides differ."""

_FINEST, _COARSEST = 2.0**-17, 2.0**-5  # steps, as parts of an entry
_SURE = 4.0  # times the noise
_CURVED = 64.0  # by how many steps the slopes to both sides differ at most where there is no kink
_ROUNDINGS = 2.0**-48


def noise_of(evidence: Evidence) -> float:
    """Return the noise of <upstream, forward> as lines through the point have shown it, or NaN."""
    seen = (s.noise[0] for _, s in evidence.lines.values() if np.isfinite(s.error[0]))
    return float(max(seen, default=math.nan))


def noise_and_step(evidence: Evidence) -> tuple[float, float]:
    """Return the noise of <upstream, forward>, and a step at which it moves a slope but little."""
    noise, here = noise_of(evidence), moves(evidence, ()).here
    if math.isnan(noise):  # at a jump no noise is measured
        noise = _ROUNDINGS * here
    return noise, float(np.clip(np.cbrt(noise / here if here > 0 else 0.0), _FINEST, _COARSEST))


def slopes_by_calls(
    evidence: Evidence, direction: Callable[[int], dict[str, Any]], count: int, later: int
) -> tuple[Slope, Array]:
    """Return slopes along so many directions, and which of them lacked calls to be told.

    Slopes that differ at a kink differ as much closer by; `later` calls are left for others.
    """
    noise, step = noise_and_step(evidence)
    sides = to_both_sides(evidence, map(direction, range(count)), step, noise)
    bent = _apart(sides) > _CURVED * step * _steeper(sides) + 4 * LIMIT * sides[2]
    looked = np.flatnonzero(bent)
    looked = looked[: evidence.subject.calls.share(looked.size, 2, later)]
    kink, jump, steps = *np.zeros((2, count), bool), np.full(count, step)
    if looked.size:
        before, steps[looked] = sides[:, looked], CLOSER * step
        closer = to_both_sides(evidence, map(direction, looked.tolist()), CLOSER * step, noise)
        moved = np.abs(closer - before)[:2].sum(axis=0)
        differ = _apart(closer) > 0.5 * _apart(before)
        kink[looked] = differ & (moved <= 0.1 * _apart(before))
        jump[looked] = differ & ~kink[looked]
        sides[:, looked] = closer
    right, left, rounding, sizes = sides
    curved = steps * _apart(sides) + steps**2 * (_steeper(sides) + sizes)
    slope = Slope(
        value=(right + left) / 2,
        error=np.where(jump, np.inf, rounding + np.where(kink, _apart(sides) / 2, curved)),
        left=left,
        right=right,
        kink=kink,
        noise=rounding * steps,
    )
    bent[looked] = False
    return slope, bent


def to_both_sides(
    evidence: Evidence, directions: Iterable[dict[str, Any]], step: float, noise: float
) -> Array:
    """Take one step to each side along several directions.

    Return the right slopes, the left ones, how far noise moves them, and the sizes of the terms.
    """
    ways = (
        {name: sign * step * widen(way) for name, way in direction.items()}
        for direction in directions
        for sign in (1.0, -1.0)
    )
    found = moves(evidence, ways, step)
    ahead, behind = found.changes.reshape(-1, 2).T
    sizes, share = (each.reshape(-1, 2).max(axis=1) for each in (found.sizes, found.shares))
    return np.array([ahead / step, -behind / step, _SURE * noise * share / step, sizes])


def _apart(sides: Array) -> Array:
    return np.asarray(np.abs(sides[0] - sides[1]))


def _steeper(sides: Array) -> Array:
    return np.asarray(np.fmax(np.abs(sides[0]), np.abs(sides[1])))
