"""What should this value have been? A backward is linear in most of what it computes.

Move one value in the source by each unit, and see how the gradients move: that is the matrix from
the value to the gradients. A change that mends them solves a linear system, so that thousands of
texts are held against it without being run, and a product that is lacking is found by fitting:
the logarithm of a product is a sum.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from gradlab.common.arrays import NumPyArray as Array
from gradlab.repair.edits import Material

_ENTRIES = 96
_NEAR = 1e-6
_POOL = 32


class Need(NamedTuple):
    """How gradients depend on a value, and how they must change.

    `value` is the value as it is, `exact` what it must be, None where several would do; `probe` is
    one row of the system, mixed of all, which nearly every wrong value misses.
    """

    value: Array
    matrix: Array
    lacking: Array
    exact: Array | None
    probe: Array

    def met(self, new: Any) -> bool:
        """Whether a new value would make the gradients right."""
        try:
            array = np.broadcast_to(np.asarray(new), self.value.shape)
        except ValueError:
            return False
        if array.dtype.kind not in "fiub":
            return False
        if not self.close(array[None]).size:
            return False
        off = self.matrix @ (array - self.value).ravel() - self.lacking
        return off.size > 0 and bool(np.abs(off).max() <= _NEAR * np.abs(self.lacking).max())

    def close(self, candidates: Array) -> Array:
        """Return which of many new values, along axis 0, one row of the system lets pass."""
        moved = (candidates - self.value).reshape(len(candidates), -1)
        off = np.abs(moved @ self.probe[:-1] - self.probe[-1])
        return np.flatnonzero(off <= 1e-4 * abs(self.probe[-1]))


def needs(
    value: Array, move: Callable[[Array], Array | None], goal: Array, chosen: Sequence[Array]
) -> list[Need] | None:
    """Return what a value must be for gradients to be right: none where no value does it.

    None where that is not known, since the gradients are not linear in the value.

    Args:
        value: the value as it is, of any shape.
        move: gives all gradients, flat, after the value was moved; None where that fails.
        goal: the gradients that are right, flat; NaN where they are not known.
        chosen: sets of entries that must be right, the most wanted first.
    """
    here = move(np.zeros(value.shape))
    size = float(np.std(value)) + 1e-3 * float(np.max(np.abs(value), initial=1.0))
    delta = size * np.cos(1.0 + np.arange(value.size)).reshape(value.shape)
    one, two = move(delta), move(2 * delta)
    if here is None or one is None or two is None or value.size > _ENTRIES:
        return None
    finite = np.isfinite(goal) & np.isfinite(here) & np.isfinite(one)
    first, second = one - here, two - here
    scale = float(np.max(np.abs(second[finite]), initial=0.0))
    if not np.max(np.abs(second - 2 * first)[finite], initial=0.0) <= 1e-7 * scale:
        return None
    wrong = finite & ~(np.abs(goal - here) <= _NEAR * np.abs(goal))
    if not np.max(np.abs(first[wrong]), initial=0.0) > 0:
        return []
    columns = []
    for unit in np.eye(value.size):
        moved = move(size * unit.reshape(value.shape))
        if moved is None:
            return None
        columns.append((moved - here) / size)
    whole = np.stack(columns, axis=1)
    finite &= np.isfinite(whole).all(axis=1)
    for rows in chosen:
        matrix, lacking = whole[rows & finite], (goal - here)[rows & finite]
        if not np.any(lacking):
            continue
        solution, _, rank, _ = np.linalg.lstsq(matrix, lacking, rcond=1e-9)
        off = np.max(np.abs(matrix @ solution - lacking), initial=0.0)
        if off <= _NEAR * np.max(np.abs(lacking), initial=0.0):
            exact = None
            if rank == value.size:
                exact = np.array(value + solution.reshape(value.shape))
                noise = 1e-10 * np.max(np.abs(goal[finite]))
                noise = noise * np.linalg.norm(np.linalg.pinv(matrix), axis=1)
                exact[noise.reshape(value.shape) > 1e-7 * np.abs(exact - value)] = np.nan
            mixed = np.cos(1.0 + 2.0 * np.arange(lacking.size))
            probe = np.append(mixed @ matrix, mixed @ lacking)
            return [Need(value, matrix, lacking, exact, probe)]
    return []


def one_sign(array: Array) -> bool:
    """Whether all entries have one sign: nobody divides by what passes through zero."""
    return bool(np.all(array > 0) or np.all(array < 0))


def fitted(pool: Sequence[Material], wanted: Array) -> Iterator[str]:
    """Yield the text of the product of powers of values that equals what is wanted, with its sign.

    Exponents are halves, and at most four values take part.
    """
    known: list[tuple[Material, Array]] = []
    rows: list[Array] = []
    with np.errstate(all="ignore"):
        logs = np.log(np.abs(wanted)).ravel()
    use = np.isfinite(logs) & (logs > -25)
    if use.sum() < 3:
        return
    goal = logs[use] - logs[use].mean()
    if np.ptp(goal) <= 1e-6:
        yield from _product([], np.ones(0), wanted)
        return
    for each in pool:
        try:
            wide = np.broadcast_to(np.asarray(each.values[0], float), wanted.shape)
        except (TypeError, ValueError):
            continue
        logs = np.log(np.abs(wide)).ravel()[use]
        if np.isfinite(logs).all() and np.ptp(logs) > 1e-9 and len(rows) < _POOL:
            rows.append(logs - logs.mean())
            known.append((each, wide))
    if not rows:
        return
    matrix, total = np.stack(rows), float(goal @ goal)
    gram, moment = matrix @ matrix.T, matrix @ goal
    for count in range(1, min(4, len(rows), int(use.sum()) - 2) + 1):
        subsets = np.array(list(itertools.combinations(range(len(rows)), count)))
        grams = gram[subsets[:, :, None], subsets[:, None, :]]
        grams = grams + 1e-11 * np.trace(gram) / len(rows) * np.eye(count)
        powers = np.linalg.solve(grams, moment[subsets][..., None])[..., 0]
        lost = total - np.sum(powers * moment[subsets], axis=1)
        halves = np.abs(2 * powers - np.round(2 * powers)).max(axis=1)
        good = (np.abs(lost) <= 1e-6 * total + 1e-12) & (halves < 2e-3)
        found = False
        for k in np.flatnonzero(good & (np.abs(powers).max(axis=1) < 5))[:6]:
            exponents = np.round(2 * powers[k]) / 2
            if any(e < 0 and not one_sign(known[i][1]) for i, e in zip(subsets[k], exponents)):
                continue
            for text in _product([known[i] for i in subsets[k]], exponents, wanted):
                found = True
                yield text
        if found:
            return


def _product(
    factors: Sequence[tuple[Material, Array]], exponents: Array, wanted: Array
) -> Iterator[str]:
    made = np.ones(wanted.shape)
    for (_, wide), exponent in zip(factors, exponents):
        made = made * np.abs(wide) ** exponent
    signs = [np.sign(w) for (_, w), e in zip(factors, exponents) if e % 2 == 1]
    made = made * np.prod(signs, axis=0) if signs else made
    known = np.isfinite(wanted) & (made != 0)
    constant = float(np.median((wanted / made)[known]))
    if not np.allclose(constant * made[known], wanted[known], rtol=1e-6, atol=1e-9):
        return
    short = f"{abs(constant):.2g}"  # a constant that someone would write
    if abs(float(short) - abs(constant)) > 1e-6 * abs(constant):
        return
    above = [] if float(short) == 1 else [short]
    below: list[str] = []
    for (each, _), exponent in zip(factors, exponents):
        inner = each.text if each.binds >= 16 else f"({each.text})"
        power = f"{abs(exponent):g}"
        (above if exponent > 0 else below).append(inner if power == "1" else f"{inner}**{power}")
    text = " / ".join([" * ".join(above) or "1", *below])
    if exponents.all():
        yield f"-{text}" if constant < 0 else text
