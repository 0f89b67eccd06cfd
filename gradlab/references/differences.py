"""Finite differences that know their own error: an independent witness of a gradient.

The noise of the function is measured (ECNoise; More and Wild, "Estimating computational noise",
2011), the step is chosen entry by entry where truncation (from Richardson extrapolation) and noise
together are least, and one-sided slopes are compared, because exactly on a kink a central
difference looks perfect and is half wrong.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np

from gradlab.common.arrays import NumPyArray

Array: TypeAlias = NumPyArray

_COARSEST, _STEPS = 2.0**-2, 18  # steps from a quarter of the scale down, halving
_POINTS = 9  # for the noise
_CLOSE = 2.0**-20  # how far these are apart
_WIDER = (2.0**-14, 2.0**-8)  # for functions computed in fewer digits
_UNIT = 2.0**-53
_QUOTIENT = 4.0 * _UNIT  # by how much a quotient is rounded, of a function without noise, too
_SAFETY = 4.0
_LEVELS = 3  # of a step function, over all steps
_LOUD = 64.0  # roundings; a jump is larger
_FINEST = 6  # steps: as few as the coarsest search takes
_STEADY, _STILL = 0.98, 0.97  # by which the changes of a quotient, and the moves of a jump, last
_JUMP = 2.0**-18  # of the largest move; less may be the grain of a function of few digits


@dataclass(frozen=True, eq=False)
class Slope:
    """The derivative of an array along one direction, with an estimate of its error.

    On a kink, `left` and `right` differ, `value` lies halfway and `error` covers both. Where the
    tangent is vertical, they are infinite. Where the function is not finite nearby, or jumps,
    `error` is infinite or large, never 0; where it ends, the slope is that of the other side.
    """

    value: Array
    error: Array
    left: Array
    right: Array
    kink: Array
    noise: Array

    @classmethod
    def joined(cls, slopes: "Sequence[Slope]") -> "Slope":
        """Return the slopes of several one-dimensional arrays as those of one."""
        names = [each.name for each in fields(cls)]
        return cls(**{n: np.concatenate([getattr(slope, n) for slope in slopes]) for n in names})


def finite_differences(
    function: Callable[[Sequence[float]], Sequence[Sequence[Any]]],
    scale: float = 1.0,
    steps: int = _STEPS,
    points: int = _POINTS,
    least: Callable[[], float] = lambda: 0.0,
) -> list[Slope]:
    """Return the derivatives at 0 of several arrays, from the same evaluations.

    `function` takes several steps and returns a list of arrays for each. It is given
    `2 * steps + points`, and up to twice `points` more where it has fewer digits than float64.
    `least`: the noise that it has at least, asked once it has run.
    """
    sizes = [scale * _COARSEST * 2.0**-k for k in range(steps)]
    close = [k * _CLOSE * scale for k in range(points)]
    rows = function([*close, *sizes, *(-h for h in sizes)])
    nearby, rest = _columns(rows[:points]), rows[points:]
    ahead, behind = _columns(rest[:steps]), _columns(rest[steps:])
    with np.errstate(all="ignore"):
        noises = [np.fmax(n, least()) for n in _noises(function, scale, nearby, ahead)]
        here = [column[0] for column in nearby]
        return [_slope(sizes, *each) for each in zip(here, ahead, behind, noises, strict=True)]


def _slope(sizes: list[float], here: Array, ahead: Array, behind: Array, noise: Array) -> Slope:
    steps = np.array(sizes).reshape(-1, *[1] * here.ndim)
    start, given = np.concatenate([ahead, behind]), (ahead, behind)
    unmoved = (ahead == here) & (behind == here)  # says nothing, unless the function is constant
    ahead = np.where(unmoved & ~unmoved.all(0), np.nan, ahead)
    central = _extrapolated((ahead - behind) / (2 * steps), 2)
    noise = np.fmax(noise, _grain(here, ahead, behind))
    noise = np.fmax(noise, np.fmax.reduce(np.abs(np.diff(central, axis=0)[-4:]) * steps[-4:]) / 2)
    right, left = (ahead - here) / steps, (here - behind) / steps
    value, error = _best(central, steps, noise)
    right_value, right_error = _best(_extrapolated(right, 1), steps, 2 * noise)
    left_value, left_error = _best(_extrapolated(left, 1), steps, 2 * noise)
    jump, jump_error = _best(_extrapolated(right - left, 1), steps, 4 * noise)
    rounding = _QUOTIENT * np.fmax(np.abs(right_value), np.abs(left_value))
    kink = np.abs(jump) > _SAFETY * np.fmax(jump_error, rounding)
    middle = (left_value + right_value) / 2
    half = np.abs(right_value - left_value) / 2 + left_error + right_error
    value, error = np.where(kink, middle, value), np.where(kink, half, error)
    stairs = unmoved[-1] & (_stairs(ahead - here) | _stairs(here - behind))
    error = np.where(stairs, np.maximum(error, np.abs(value)), error)
    known = np.isfinite(value) & np.isfinite(error)
    grain = np.fmax(_UNIT * np.fmax.reduce(np.abs(ahead)), _grain(here, ahead, behind))
    for moves in (ahead - here, here - behind):
        known &= ~(_jumps(moves) & (np.abs(moves[-1]) > _LOUD * grain))
    still = (np.abs(start - here) <= _LOUD * grain).all(0)  # it moves by its rounding alone
    still |= _flat(here, *given)
    value, known = np.where(still, 0.0, value), known | still
    error = np.where(still, np.fmax(_LOUD * grain, _SAFETY * noise) / steps[0], error)
    if np.isrealobj(here):
        others = ((left_value, left_error), (right_value, right_error))
        for side, (other, sure) in zip(given, others):
            ended = np.isnan(side[-_FINEST:]).all(0) & np.isfinite(here) & np.isfinite(sure)
            value, error = np.where(ended, other, value), np.where(ended, sure, error)
            known |= ended
        right_value = _vertical(right, right_value, steps, grain)
        left_value = _vertical(left, left_value, steps, grain)
        known &= ~(np.isinf(right_value) | np.isinf(left_value))
    return Slope(
        value=value,
        error=np.where(known, np.fmax(error, _QUOTIENT * np.abs(value)), np.inf),
        left=left_value,
        right=right_value,
        kink=kink & np.isfinite(left_value) & np.isfinite(right_value),
        noise=noise,
    )


def _flat(here: Array, ahead: Array, behind: Array) -> Array:
    """Return where the function is constant on both sides, and far away takes few other values.

    A function of few digits, or a staircase seen from afar, takes many.
    """
    fine = np.concatenate([ahead[-_FINEST:], behind[-_FINEST:]])
    levels = np.sort(np.concatenate([here[None], ahead, behind]), axis=0)
    flat: Array = (fine == here).all(0) & ((np.diff(levels, axis=0) != 0).sum(0) < _LEVELS)
    return flat


def _vertical(quotients: Array, value: Array, steps: Array, noise: Array) -> Array:
    """Return a one-sided slope, infinite where its quotient grows without bound, but not by a jump.

    The changes of a quotient that converges shrink from step to step; those of x log(x) stay.
    """
    changes = np.diff(quotients[-_FINEST:], axis=0)
    sizes, told = np.abs(changes), 8 * noise / steps[-_FINEST:][1:]
    grows = (sizes[1:] >= _STEADY * sizes[:-1]).all(0) & (sizes > told).all(0)
    grows &= (np.sign(changes) == np.sign(quotients[-1])).all(0)
    grows &= ~_jumps(quotients * steps)
    return np.where(grows, np.copysign(np.inf, quotients[-1]), value)


def _columns(rows: Sequence[Sequence[Any]]) -> list[Array]:
    return [np.array(column) for column in zip(*rows)]


def _jumps(moves: Array) -> Array:
    """Return where the function moves by as much however small the step is."""
    sizes = np.abs(moves)
    last = sizes[-_FINEST:]
    large: Array = last[-1] > _JUMP * np.fmax.reduce(sizes)
    still: Array = last[-1] > _STILL ** (len(last) - 1) * last[0]
    return large & still & (last[1:] > 0.75 * last[:-1]).all(axis=0)


def _stairs(moves: Array) -> Array:
    """Return where the smallest move is too large to be the grain of a function of few digits."""
    sizes = np.abs(moves)
    smallest = np.fmin.reduce(np.where(sizes > 0, sizes, np.nan))
    stairs: Array = smallest > _JUMP * np.fmax.reduce(sizes)
    return stairs


def _extrapolated(slopes: Array, order: int) -> Array:
    """Return Richardson's extrapolation of slopes whose error starts with the given power."""
    factor = 2.0**order
    return (factor * slopes[1:] - slopes[:-1]) / (factor - 1)


def _best(slopes: Array, steps: Array, noise: Array) -> tuple[Array, Array]:
    """Return, entry by entry, the slope whose neighbours agree with it best, and its error."""
    changes = np.abs(np.diff(slopes, axis=0))
    errors = np.maximum(changes[1:], changes[:-1]) + _SAFETY * noise / steps[2:-1]
    errors = np.where(np.isfinite(errors), errors, np.inf)
    best = np.argmin(errors, axis=0)[None]
    value = np.take_along_axis(slopes[1:-1], best, 0)[0]
    error = np.take_along_axis(errors, best, 0)[0]
    # coarse steps may agree with each other on a slope that finer ones refute
    finer = np.arange(len(errors)).reshape(steps[2:-1].shape) > best
    refuted = np.where(finer, np.abs(slopes[1:-1] - value) - errors, 0.0)
    return value, np.fmax(error, np.fmax.reduce(refuted, axis=0))


def _noises(
    function: Callable[[Sequence[float]], Sequence[Sequence[Any]]],
    scale: float,
    nearby: Sequence[Array],
    ahead: Sequence[Array],
) -> list[Array]:
    """Return the noise of each array, from the closest points that differ."""
    noises = [_noise(column) for column in nearby]
    flat = [_still(column) & (a != a[-1]).any(0) for column, a in zip(nearby, ahead)]
    for spacing in _WIDER:
        if not any(np.any(f) for f in flat):
            break
        columns = _columns(function([k * spacing * scale for k in range(len(nearby[0]))]))
        noises = [np.where(f, _noise(c), n) for f, c, n in zip(flat, columns, noises)]
        flat = [f & _still(column) for f, column in zip(flat, columns)]
    return noises


def _grain(here: Array, ahead: Array, behind: Array) -> Any:
    """Return half a unit of float32 where all values are float32 numbers, else 0.

    Rounded values may lie on a straight line by chance, and then show no noise at all.
    """
    values = np.concatenate([here[None], ahead, behind])
    narrow = np.complex64 if np.iscomplexobj(values) else np.float32
    fits = np.all(np.isnan(values) | (values == values.astype(narrow)), axis=0)
    varies = np.any(values != here, axis=0)
    return np.where(fits & varies, 2.0**-24 * np.abs(here), 0.0)


def _still(nearby: Array) -> Any:
    """Return which entries take few values: the points are closer than the function's digits."""
    return np.mean(np.diff(nearby, axis=0) == 0, axis=0) >= 0.4


def _noise(nearby: Array) -> Array:
    """Return the noise of a function from a table of differences, at least one rounding."""
    table, levels = nearby, []
    for order in range(1, len(nearby) - 1):
        table = np.diff(table, axis=0)
        factor = math.factorial(order) ** 2 / math.factorial(2 * order)
        levels.append(np.sqrt(factor * np.mean(np.abs(table) ** 2, axis=0)))
    measured = np.max(levels[3:6], axis=0)
    noise: Array = np.fmax(measured, _UNIT * np.abs(nearby[0]))
    return noise
