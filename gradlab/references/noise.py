"""Random numbers for rounding noise, cut from pools.

A result is perturbed by multiplying it with a cut of the pool of factors `1 + u * noise`. In a
compiled program the pools are arguments, so that it stays small, and hold one draw. Where NumPy
evaluates, they hold all draws at once, and the first of these is without noise.
"""

import abc
import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from jax import lax

from gradlab.common.arrays import Array, NumPyArray

Units: TypeAlias = Mapping[str, Mapping[str, float]]
"""Per dtype: `unit` and `tiny` of its results, `constant`, the unit of what stays narrow, and
`largest`, the number beyond which it overflows."""

Pools: TypeAlias = dict[str, dict[str, Any]]
"""Per dtype: `once` and `twice`, factors of one and two units; `constant`, likewise; `unit` and
`tiny`, amounts to add; and the number `largest`."""

_LARGEST = 1 << 14  # entries that one cut may have; larger arrays multiply two cuts
_OFFSETS = 4093  # a prime number of places at which a cut may begin
_PER_LOOP = 1021  # places by which an iteration may shift the pools
_DEPTH = 4  # loops inside loops that shift
_POOL = _LARGEST + _OFFSETS + _DEPTH * _PER_LOOP


def fill(units: Units, generator: np.random.Generator | None = None) -> Pools:
    """Return pools of noise uniform in [-1, 1] times the units; without a generator, no noise."""
    noise = np.zeros(_POOL) if generator is None else generator.uniform(-1.0, 1.0, _POOL)
    return {
        name: {
            "once": 1.0 + unit["unit"] * noise,
            "twice": 1.0 + 2.0 * unit["unit"] * noise,
            "unit": unit["unit"] * noise,
            "tiny": unit["tiny"] * noise,
            "constant": 1.0 + unit["constant"] * noise,
            "largest": np.float64(unit["largest"]),
        }
        for name, unit in units.items()
    }


class Noise(abc.ABC):
    """Random numbers, others at every call; inside a loop every turn gets its own."""

    def factors(self, dtype: str, kind: str, shape: Sequence[int]) -> Array:
        """Return factors close to 1: `once`, `twice` or `constant`."""
        return self._drawn(dtype, kind, 1.0, shape)

    def amounts(self, dtype: str, kind: str, shape: Sequence[int]) -> Array:
        """Return amounts close to 0, to be added (`tiny`) or to multiply a size (`unit`)."""
        return self._drawn(dtype, kind, 0.0, shape)

    @abc.abstractmethod
    def largest(self, dtype: str, rank: int) -> Array:
        """Return the number beyond which a dtype overflows, for arrays with so many axes."""

    @abc.abstractmethod
    def shifted(self, turn: Any) -> "Noise":
        """Return the noise of one turn of a loop; None: the same in every turn."""

    @abc.abstractmethod
    def _drawn(self, dtype: str, kind: str, middle: float, shape: Sequence[int]) -> Array: ...


class Draws(Noise):
    """Noise of many draws, in NumPy: the first axis of all that it returns.

    `rows`: the units of each draw; those without noise have none above zero.
    """

    def __init__(self, rows: Sequence[Units], largest: int, generator: np.random.Generator) -> None:
        self._rows = rows
        self._cut_at_most = min(largest, _LARGEST)
        length = self._cut_at_most + _OFFSETS
        self._noise = generator.uniform(-1.0, 1.0, (len(rows), length))
        self._scales: dict[tuple[str, str], NumPyArray] = {}
        self._cuts, self._shift = 0, 0

    def largest(self, dtype: str, rank: int) -> Array:
        """Return the number beyond which a dtype overflows, infinite without noise."""
        return self._units(dtype, "largest").reshape((-1,) + (1,) * (rank - 1))

    def shifted(self, turn: Any) -> "Draws":
        """Return the noise of one turn of a loop; None: the same in every turn."""
        self._cuts += 1
        inner = copy.copy(self)
        inner._cuts = self._cuts * 101
        inner._shift = self._shift + 389 * (turn or 0)
        return inner

    def _drawn(self, dtype: str, kind: str, middle: float, shape: Sequence[int]) -> Array:
        if math.prod(shape) > self._cut_at_most:
            return middle + self._large(dtype, kind, shape)
        cut = self._cut(dtype, kind, middle, math.prod(shape))
        return cut.reshape((len(self._rows), *shape))

    def _cut(self, dtype: str, kind: str, middle: float, size: int) -> Array:
        if (dtype, kind) not in self._scales:
            name = "unit" if kind in ("once", "twice") else kind
            times = 2.0 if kind == "twice" else 1.0
            self._scales[dtype, kind] = times * self._units(dtype, name)[:, None]
        self._cuts += 1
        start = (self._cuts * 1571 + self._shift) % _OFFSETS
        return middle + self._scales[dtype, kind] * self._noise[:, start : start + size]

    def _large(self, dtype: str, kind: str, shape: Sequence[int]) -> Array:
        """Return random signs times a cut: still uncorrelated, from two small cuts."""
        size = math.prod(shape)
        columns = min(math.isqrt(size - 1) + 1, self._cut_at_most)
        rows = -(-size // columns)
        some = np.sign(self._cut(dtype, kind, 0.0, min(rows, self._cut_at_most)))
        signs = some[:, np.arange(rows) % some.shape[1]]
        flat = signs[:, :, None] * self._cut(dtype, kind, 0.0, columns)[:, None]
        return flat.reshape(len(self._rows), rows * columns)[:, :size].reshape(
            (len(self._rows), *shape)
        )

    def _units(self, dtype: str, name: str) -> NumPyArray:
        return np.array([row[dtype][name] for row in self._rows])


class PooledNoise(Noise):
    """Cuts of pools, each another one; inside a loop every iteration gets its own."""

    def __init__(self, pools: Pools, cuts: int = 0) -> None:
        self._pools = pools
        self._cuts = cuts

    def _drawn(self, dtype: str, kind: str, middle: float, shape: Sequence[int]) -> Array:
        pool = self._pools[dtype][kind]
        if math.prod(shape) <= _LARGEST:
            return lax.reshape(self._cut(pool, math.prod(shape)), shape)
        return self._large(pool - middle, shape) + middle

    def largest(self, dtype: str, rank: int) -> Array:
        """Return the number beyond which a dtype overflows, infinite without noise."""
        return self._pools[dtype]["largest"]

    def shifted(self, turn: Any) -> "PooledNoise":
        """Return the noise of one turn of a loop; None: the same in every turn."""
        self._cuts += 1
        some = next(iter(self._pools.values()))["unit"]
        length = some.shape[0] - _PER_LOOP
        if turn is None or length < _LARGEST + _OFFSETS:
            return PooledNoise(self._pools, self._cuts * 101)
        start = lax.rem(turn * np.int32(389), np.int32(_PER_LOOP))
        pools = {
            name: {
                kind: lax.dynamic_slice(pool, (start,), (length,)) if np.ndim(pool) else pool
                for kind, pool in kinds.items()
            }
            for name, kinds in self._pools.items()
        }
        return PooledNoise(pools, self._cuts * 101)

    def _large(self, pool: Array, shape: Sequence[int]) -> Array:
        """Return random signs times a cut: still uncorrelated, from two small cuts."""
        size = math.prod(shape)
        columns = math.isqrt(size - 1) + 1 if size < _LARGEST**2 else _LARGEST
        rows = -(-size // columns)
        signs = lax.broadcast_in_dim(lax.sign(self._cut(pool, rows)), (rows, columns), (0,))
        entries = lax.broadcast_in_dim(self._cut(pool, columns), (rows, columns), (1,))
        flat = lax.reshape(signs * entries, (rows * columns,))
        return lax.reshape(lax.slice(flat, (0,), (size,)), shape)

    def _cut(self, pool: Array, size: int) -> Array:
        self._cuts += 1
        start = self._cuts * 1571 % _OFFSETS
        return lax.slice(pool, (start,), (start + size,))
