"""Random numbers for rounding noise, cut from one pool so that a program stays small."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jax import lax

__all__ = ["POOL", "Noise", "fill_pool"]

_LARGEST = 1 << 15  # entries that one cut may have; larger arrays multiply two cuts
_OFFSETS = 4093  # a prime number of places at which a cut may begin
_PER_LOOP = 1021  # places by which an iteration may shift the pool
_DEPTH = 4  # loops inside loops that shift
POOL = _LARGEST + _OFFSETS + _DEPTH * _PER_LOOP


def fill_pool(generator: np.random.Generator) -> np.ndarray[Any, Any]:
    """Return a pool of numbers uniform in [-1, 1]."""
    return generator.uniform(-1.0, 1.0, POOL)


class Noise:
    """Cuts of a pool, each another one; inside a loop every iteration gets its own."""

    def __init__(self, pool: Any, cuts: int = 0) -> None:
        self._pool = pool
        self._cuts = cuts

    def __call__(self, shape: Sequence[int]) -> Any:
        """Return noise of a shape: mean 0, entries uncorrelated."""
        size = math.prod(shape)
        if size <= _LARGEST:
            return self._cut(size).reshape(shape)
        columns = math.isqrt(size - 1) + 1 if size < _LARGEST**2 else _LARGEST
        rows = -(-size // columns)
        signs = lax.sign(self._cut(rows))
        product = lax.mul(
            lax.broadcast_in_dim(signs, (rows, columns), (0,)),
            lax.broadcast_in_dim(self._cut(columns), (rows, columns), (1,)),
        )
        return lax.slice(product.reshape(-1), (0,), (size,)).reshape(shape)

    def shifted(self, iteration: Any) -> "Noise":
        """Return the noise of one iteration of a loop; None: the same in every iteration."""
        self._cuts += 1
        length = self._pool.shape[0] - _PER_LOOP
        if iteration is None or length < _LARGEST + _OFFSETS:
            return Noise(self._pool, self._cuts * 101)
        start = lax.rem(iteration * np.int32(389), np.int32(_PER_LOOP))
        return Noise(lax.dynamic_slice(self._pool, (start,), (length,)), self._cuts * 101)

    def _cut(self, size: int) -> Any:
        self._cuts += 1
        start = self._cuts * 1571 % _OFFSETS
        return lax.slice(self._pool, (start,), (start + size,))
