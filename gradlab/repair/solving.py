"""What should this value have been? A backward is linear in most of what it computes.

Move one value in the source by each unit, and see how the gradients move: that is the matrix from
the value to the gradients. A change that mends them solves a linear system, so that thousands of
texts are held against it without being run, and a product that is lacking is found by fitting:
the logarithm of a product is a sum.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from gradlab.common.arrays import NumPyArray as Array
from gradlab.repair.edits import Material
from gradlab.repair.source import ATOM

_ENTRIES = 160
_NEAR = 1e-6
_POOL, _TRIED = 32, 400
_FIT = 15  # candidates, in whose time a product is fitted
_POWERS = (1.0, -1.0, 2.0, -2.0, 3.0, -3.0, 0.5, -0.5)
_USUAL = ("1", "2", "3", "4", "0.5", "0.25", "1.5")  # numbers that hide no size


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
    if value.size > _ENTRIES:
        return None
    here = move(np.zeros(value.shape))
    size = float(np.std(value)) + 1e-3 * float(np.max(np.abs(value), initial=1.0))
    delta = size * np.cos(1.0 + np.arange(value.size)).reshape(value.shape)
    one, two = move(delta), move(2 * delta)
    if here is None or one is None or two is None:
        return None
    here, one, two = (each + 0.0 for each in (here, one, two))  # some edits give booleans
    finite = np.isfinite(goal) & np.isfinite(here) & np.isfinite(one)
    first, second = one - here, two - here
    scale = float(np.max(np.abs(second[finite]), initial=0.0))
    if not np.max(np.abs(second - 2 * first)[finite], initial=0.0) <= 1e-7 * scale:
        return None
    wrong = finite & ~(np.abs(goal - here) <= _NEAR * np.abs(goal))
    still = wrong & (first == 0)  # a move of all of it does not reach these
    if all(np.any(still & rows) for rows in chosen) or not np.any(first[wrong]):
        return []
    columns = []
    for unit in np.eye(value.size):
        moved = move(size * unit.reshape(value.shape))
        if moved is None:
            return None
        columns.append((moved - here) / size)
    whole = np.stack(columns, axis=1)
    finite &= np.isfinite(whole).all(axis=1)
    reached = np.any(whole != 0, axis=1)
    found = []
    for rows in chosen:
        matrix, lacking = whole[rows & finite], (goal - here)[rows & finite]
        if not np.any(lacking) or np.any(wrong & rows & finite & ~reached):
            continue
        solution, spread = _solved(matrix, lacking)
        off = np.max(np.abs(matrix @ solution - lacking), initial=0.0)
        if off <= _NEAR * np.max(np.abs(lacking), initial=0.0):
            exact = None
            if spread is not None:
                exact = np.array(value + solution.reshape(value.shape))
                noise = 1e-12 * np.max(np.abs(goal[finite])) * spread
                exact[noise.reshape(value.shape) > 1e-7 * np.abs(exact - value)] = np.nan
            mixed = np.cos(1.0 + 2.0 * np.arange(lacking.size))
            probe = np.append(mixed @ matrix, mixed @ lacking)
            found.append(Need(value, matrix, lacking, exact, probe))
            if rows.all():
                break
    return found


def _solved(matrix: Array, right: Array) -> tuple[Array, Array | None]:
    """Return the least squares solution, and how errors spread in it; None where it is not one."""
    if len(matrix) >= matrix.shape[1]:
        q, r = np.linalg.qr(matrix)
        sizes = np.abs(np.diag(r))
        if sizes.min() > 1e-9 * sizes.max():
            inverse = np.linalg.inv(r)  # importing SciPy for a triangle takes longer
            return inverse @ (q.conj().T @ right), np.sqrt((np.abs(inverse) ** 2).sum(axis=1))
    return np.linalg.lstsq(matrix, right, rcond=1e-9)[0], None


def wider(shape: tuple[int, ...], narrow: tuple[int, ...]) -> bool:
    """Whether an array of the second shape fills one of the first."""
    pairs = zip(reversed(shape), reversed(narrow))
    return len(narrow) <= len(shape) and all(n in (1, length) for length, n in pairs)


def one_sign(array: Array) -> bool:
    """Whether all entries have one sign: nobody divides by what passes through zero."""
    return bool(np.all(array > 0) or np.all(array < 0))


class Fitter:
    """Finds products of powers of values: their logarithms are sums.

    A sum of four is two sums of two, so that sorted pairs are all that is searched.
    """

    def __init__(self, pool: Sequence[Material]) -> None:
        self.pool = pool
        self._found: dict[tuple[tuple[int, ...], bytes], list[str]] = {}
        self._made: dict[tuple[tuple[int, ...], bytes], _Table] = {}  # by the entries that are used
        self._wide: dict[tuple[int, ...], tuple[list[Material], Array]] = {}

    def wide(self, shape: tuple[int, ...]) -> tuple[list[Material], Array]:
        """Return what fits a shape, and its values in that shape."""
        if shape not in self._wide:
            fitting = [m for m in self.pool if wider(shape, m.shape) and m.value.dtype.kind != "c"]
            arrays = [np.broadcast_to(np.asarray(m.value, float), shape) for m in fitting]
            self._wide[shape] = fitting, np.array(arrays).reshape(-1, *shape)
        return self._wide[shape]

    def products(self, wanted: Array, most: int, spend: Callable[[float], None]) -> list[str]:
        """Return the texts of products that equal what is wanted, with their signs.

        At most so many arrays take part, and two numbers.

        Args:
            wanted: an array; NaN where it is not known.
            most: 3 or 4; three take a tenth of the time.
            spend: is told what a search takes, in candidates.
        """
        with np.errstate(all="ignore"):
            rounded = np.round(wanted / np.nanmax(np.abs(wanted)), 6)
            key = wanted.shape, rounded.tobytes()
            if key not in self._found:
                spend(_FIT if most > 3 else _FIT / 4)
                self._found[key] = list(self._products(wanted, most))
        return self._found[key]

    def _products(self, wanted: Array, most: int) -> Iterator[str]:
        logs = np.log(np.abs(wanted)).ravel()
        use = np.isfinite(logs) & (logs > -25)
        if not use.any():
            return
        used = wanted.shape, use.tobytes()
        if used not in self._made:
            self._made[used] = _Table(self.pool, wanted.shape, use)
        made = self._made[used]
        goal = logs[use] - logs[use].mean()
        if np.ptp(goal) <= 1e-6:
            yield from _product([], wanted, made)
            return
        found = 0
        mixed = float(goal @ made.mixed)
        sums = itertools.chain(made.twos(mixed), made.sums(mixed, most)) if goal.size >= 3 else ()
        for some in sums:
            if 0 < found < len(some):
                return
            left = goal - sum((e * made.rows[k] for k, e in some), start=np.zeros(goal.size))
            if np.abs(left).max() <= 1e-6 * np.abs(goal).max():
                for text in _product([(*made.known[k], e) for k, e in some], wanted, made):
                    found = len(some)
                    yield text


class _Table:
    """The logarithms of a pool's values, and the sorted sums of two of their multiples."""

    def __init__(self, pool: Sequence[Material], shape: tuple[int, ...], use: Array) -> None:
        self.known: list[tuple[str, Array]] = []
        self.numbers: list[tuple[str, float]] = []
        self.rows: list[Array] = []
        self.mixed = np.cos(1.0 + 2.0 * np.arange(np.count_nonzero(use)))
        for each in pool:
            try:
                wide = np.broadcast_to(np.asarray(each.value, float), shape)
            except (TypeError, ValueError):
                continue
            text = each.text if each.binds >= ATOM else f"({each.text})"
            logs = np.log(np.abs(wide)).ravel()[use]
            if not np.isfinite(logs).all():
                continue
            if np.ptp(logs) <= 1e-9:
                if abs(logs[0]) > _NEAR:  # one changes nothing
                    self.numbers.append((text, float(wide.ravel()[use][0])))
            elif len(self.rows) >= _POOL or not self._is_power(logs - logs.mean()):
                self.rows.append(logs - logs.mean())
                self.known.append((text, wide))
        mixed = [float(row @ self.mixed) for row in self.rows]
        self.sums, self.twos = _sums(mixed, _POWERS), _twos(mixed)

    @functools.cached_property
    def constants(self) -> Callable[[float, int], Iterator[list[tuple[int, float]]]]:
        """What yields the products of powers of its numbers that equal a constant."""
        return _sums([math.log(abs(each)) for _, each in self.numbers], _POWERS[:6])

    def _is_power(self, row: Array) -> bool:
        """Whether a value is a power of one that is known."""
        powers = ((other, float(row @ other) / float(other @ other)) for other in self.rows)
        plain = ((other, round(2 * power) / 2) for other, power in powers)
        return any(np.abs(row - power * other).max() < _NEAR for other, power in plain if power)


def _sums(
    logs: Sequence[float], powers: Sequence[float]
) -> Callable[[float, int], Iterator[list[tuple[int, float]]]]:
    """Return what yields the multiples of at most so many logarithms that sum to a goal.

    Of those after the first `_POOL`, one takes part, once.
    """
    terms = [(-1, 0.0), *((k, e) for k in range(len(logs[:_POOL])) for e in powers)]
    count = len(terms)
    terms += [(k, e) for k in range(_POOL, len(logs)) for e in powers[:2]]
    sizes = np.array([0.0, *(e * logs[k] for k, e in terms[1:])])
    pairs = np.stack(np.triu_indices(count), axis=1)
    others = np.array([(k, 0) for k in range(count, len(terms))], int).reshape(-1, 2)
    pairs = pairs[np.argsort(sizes[pairs].sum(axis=1))]
    table, none = sizes[pairs].sum(axis=1), pairs == 0

    def found(goal: float, most: int) -> Iterator[list[tuple[int, float]]]:
        near, tried = _NEAR * abs(goal), 0
        few = np.concatenate([pairs[none.any(axis=1)], others])
        for lefts in (pairs[none.all(axis=1)], few, pairs)[: most - 1]:
            rest = goal - sizes[lefts].sum(axis=1)
            low, high = (np.searchsorted(table, rest + shift) for shift in (-near, near))
            for k in np.flatnonzero(high > low):
                for pair in pairs[low[k] : high[k]]:
                    some = [terms[t] for t in (*lefts[k], *pair) if t]
                    tried += 1
                    if len({i for i, _ in some}) == len(some):
                        yield sorted(some)
                    if tried >= _TRIED:
                        return

    return found


def _twos(logs: Sequence[float]) -> Callable[[float], Iterator[list[tuple[int, float]]]]:
    """Return what yields two logarithms, each added or taken away, that sum to a goal."""
    sizes = np.array([*logs, *(-each for each in logs)])
    order = np.argsort(sizes)
    table = sizes[order]

    def found(goal: float) -> Iterator[list[tuple[int, float]]]:
        near = _NEAR * abs(goal)
        low, high = (np.searchsorted(table, goal - sizes + shift) for shift in (-near, near))
        for left in np.flatnonzero(high > low):
            for right in order[low[left] : high[left]]:
                if left < right and (left - right) % len(logs):
                    both = (int(left), int(right))
                    yield [(k % len(logs), 1.0 if k < len(logs) else -1.0) for k in both]

    return found


def _product(
    factors: Sequence[tuple[str, Array, float]], wanted: Array, table: _Table
) -> Iterator[str]:
    made = np.ones(wanted.shape)
    for _, wide, exponent in factors:
        if exponent < 0 and not one_sign(wide):
            return
        made = made * np.abs(wide) ** exponent * (np.sign(wide) if exponent % 2 == 1 else 1.0)
    known = np.isfinite(wanted) & (made != 0)
    constant = float(np.median((wanted / made)[known]))
    if not np.allclose(constant * made[known], wanted[known], rtol=1e-6, atol=1e-9):
        return
    size, numbers = abs(constant), table.numbers
    short = f"{size:.2g}"  # a constant that someone would write
    plain = abs(float(short) - size) <= 1e-9 * size
    same = (t for t, each in numbers if abs(each - size) <= 1e-9 * size)
    names = [text for text in same if text.replace(".", "").isidentifier()]  # before numbers
    ways: list[list[tuple[str, float]]] = [[(name, 1.0)] for name in names[:1]]
    if not plain or (short not in _USUAL and not names):  # a fifth may be 1 / (n - 1)
        some = table.constants(math.log(size), 2)
        few = [[(numbers[k][0], e) for k, e in each] for each in some]
        few.sort(key=lambda way: (len(way), sum(len(text) for text, _ in way)))
        ways += few[: 1 if plain else 2]
    ways += [[] if short == "1" else [(short, 1.0)]] * plain
    negative = {text for text, each in numbers if each < 0}
    for way in ways:
        powers = [*way, *((text, e) for text, _, e in factors)]
        above, below = (
            [t if abs(e) == 1 else f"{t}**{abs(e):g}" for t, e in powers if side * e > 0]
            for side in (1, -1)
        )
        text = " / ".join([" * ".join(above) or "1", *below])
        turned = sum(t in negative and e % 2 == 1 for t, e in way) % 2
        yield f"-{text}" if (constant < 0) != turned else text
