"""Images read between their pixels."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.nodes._arrays import Array, as_inputs, as_upstream, namespace, scatter_add
from gradlab.nodes._base import Node
from gradlab.nodes._domain import REALS, Case, Domain, special
from gradlab.nodes._lazy import jax, jnp
from gradlab.operators import BlockDiagonal, Diagonal, Operator, Permutation, Selection

__all__ = ["GridSample"]


@dataclass(frozen=True)
class GridSample(Node):
    """x read at the places of a grid, by bilinear interpolation; 0 outside of the image.

    y[n, c, p, q] = sum over i and j of x[n, c, i, j] k(v - i) k(u - j), with the hat function
    k(t) = max(0, 1 - |t|), at the place (u, v) that grid[n, p, q] = (across, down) names: -1 and 1
    are the centres of the first and the last pixel (align_corners), or the image's edges.

    Shapes: x (batch, channels, height, width), grid (batch, places, places, 2), y (batch,
    channels, places, places).

    Args:
        align_corners: whether -1 and 1 are the centres of the outermost pixels, or their far edges.

    Local gradients: in x four selections, each weighted by its corner's hat functions; in the grid
    one block (channels, 2) for each place, the differences of the corners.
    Backward: dx = the upstream added to the four pixels around each place, by their weights; dgrid
    = the sum over channels of upstream times the slopes. The kinks are the pixels' centres; there
    the slope is the one to the right, and below.
    Source: Jaderberg et al., "Spatial transformer networks" (arXiv:1506.02025, 2015), section 3.3.
    """

    align_corners: bool = True

    domains = (REALS, Domain(low=-1.2, high=1.2))

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        x, grid = as_inputs(self, inputs)
        if (
            len(x.shape) != 4
            or len(grid.shape) != 4
            or grid.shape[::3] != (x.shape[0], 2)
            or 0 in x.shape[2:]
        ):
            raise InputError(
                f"{self!r}: x has shape {shape_text(x.shape)} and grid {shape_text(grid.shape)}; "
                "expected (batch, channels, height, width) and (batch, places, places, 2)"
            )
        xp, y = namespace(x), namespace(x).zeros((), dtype=x.dtype)
        for index, weight, _ in self._corners(x, grid):
            y = y + weight[:, None] * xp.reshape(x, (-1,))[index]
        y = y.astype(x.dtype)
        return y, (x, grid, y)

    def _corners(self, x: Array, grid: Array) -> Iterator[tuple[Array, Array, Array]]:
        """Yield, for each pixel around a place, where it lies in x, its weight and the slopes.

        The index has y's shape; weights (batch, places, places); slopes the same and 2.
        """
        xp, (n, channels, height, width) = namespace(x), x.shape
        size = xp.asarray([width, height], dtype=grid.dtype)
        size = xp.broadcast_to(size, grid.shape)
        span = size - 1.0 if self.align_corners else size
        place = 0.5 * (grid + 1.0) * span - (0.0 if self.align_corners else 0.5)
        first = xp.floor(place)
        t = place - first
        plane = xp.asarray(np.arange(n * channels).reshape(n, channels, 1, 1)) * (height * width)
        for right, down in product((0, 1), repeat=2):
            across, up = (t if right else 1.0 - t)[..., 0], (t if down else 1.0 - t)[..., 1]
            j, i = first[..., 0] + right, first[..., 1] + down
            inside = (i >= 0) & (i < height) & (j >= 0) & (j < width)
            flat = xp.where(inside, i * width + j, xp.zeros_like(i)).astype(int)
            seen = inside.astype(x.dtype)
            slopes = xp.stack([(2 * right - 1) * up, (2 * down - 1) * across], axis=-1)
            shape = (n, channels, *flat.shape[1:])
            index = xp.broadcast_to(plane, shape) + xp.broadcast_to(flat[:, None], shape)
            yield index, seen * across * up, 0.5 * span * slopes * seen[..., None]

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        x, grid, y = residuals
        xp = namespace(x)
        terms: list[Operator] = []
        blocks: Any = 0.0
        for index, weight, slope in self._corners(x, grid):
            each = Diagonal(xp.broadcast_to(weight[:, None], y.shape))
            terms.append(each @ Selection(index, x.shape, x.dtype))
            values = xp.reshape(x, (-1,))[index]
            blocks = blocks + xp.einsum("ncpq,npqd->npqcd", values, slope)
        n, channels, rows, columns = y.shape
        channels_first = Permutation((0, 3, 1, 2), (n, rows, columns, channels), x.dtype)
        return sum(terms[1:], start=terms[0]), channels_first @ BlockDiagonal(blocks)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        x, grid, y = residuals
        xp, u = namespace(x), as_upstream(self, upstream, y).astype(x.dtype)
        dx, dgrid = xp.zeros((x.size,), dtype=x.dtype), xp.zeros_like(grid)
        for index, weight, slope in self._corners(x, grid):
            spread = (weight[:, None] * u).reshape(-1)
            dx = dx + scatter_add((x.size,), (index.reshape(-1),), spread)
            along = (u * xp.reshape(x, (-1,))[index]).sum(axis=1)
            dgrid = dgrid + along[..., None] * slope
        return dx.reshape(x.shape).astype(x.dtype), dgrid.astype(grid.dtype)

    def reference(self, x: Array, grid: Array) -> Array:
        height, width = x.shape[2:]
        corners = jnp.asarray([width, height], x.dtype)
        if self.align_corners:
            place = (grid + 1) / 2 * (corners - 1)
        else:
            place = (grid + 1) / 2 * corners - 0.5

        def read(plane: Array, at: Array) -> Array:
            ends = (at[..., 1], at[..., 0])
            return jax.scipy.ndimage.map_coordinates(plane, ends, order=1, mode="constant")

        return jax.vmap(jax.vmap(read, (0, None)), (0, 0))(x, place)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        places = [[[[-0.9, 0.1], [0.3, -0.55]], [[0.85, 0.95], [-0.2, 0.4]]]]
        outside = [[[[-1.3, 0.1], [0.3, 1.45]], [[5.0, -7.0], [1.1, 1.1]]]]
        return (
            special(cls(), "generic", (1, 2, 3, 4), places),
            special(cls(False), "generic", (1, 2, 4, 3), places),
            special(cls(), "generic", (2, 1, 2, 3), (2, 1, 3, 2)),
            special(cls(False), "outside", (1, 2, 3, 4), outside),
            special(cls(), "all at one place", (1, 1, 3, 3), [[[[0.3, 0.3]] * 3]]),
        )
