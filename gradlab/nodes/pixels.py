"""Channels turned into pixels and back: a permutation of all entries."""

from abc import abstractmethod
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.nodes._arrays import Array, Shape, as_inputs, as_upstream, namespace
from gradlab.nodes._base import Node
from gradlab.nodes._domain import Case, generic
from gradlab.operators import Permutation, Reshape

__all__ = ["PixelShuffle", "PixelUnshuffle"]


@dataclass(frozen=True)
class _Rearrangement(Node):
    """Axes of images, (images, channels, height, width), split, permuted and merged.

    Args:
        factor: by how much each side of an image grows or shrinks.
    """

    factor: int = 2

    @abstractmethod
    def plan(self, shape: Shape) -> tuple[Shape, Shape, Shape]:
        """Return the shape with split axes, their new order, and the output's shape."""

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        """Return x rearranged."""
        (x,) = as_inputs(self, inputs)
        if len(x.shape) != 4 or prod(self.plan(x.shape)[0]) != x.size:
            raise InputError(
                f"{self!r}: shape {shape_text(x.shape)} came; expected images of shape "
                f"(images, channels, height, width), divisible by the factor {self.factor}"
            )
        split, order, out = self.plan(x.shape)
        y = namespace(x).permute_dims(x.reshape(split), order).reshape(out)
        return y, (x, y)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        """Return the permutation between two reshapes."""
        x, _ = residuals
        split, order, out = self.plan(x.shape)
        permute = Permutation(order, split, x.dtype)
        merge = Reshape(permute.output_shape, out, x.dtype)
        return (merge @ permute @ Reshape(x.shape, split, x.dtype),)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        """Return the upstream, arranged as x was."""
        x, y = residuals
        split, order, _ = self.plan(x.shape)
        upstream = as_upstream(self, upstream, y).reshape(tuple(split[i] for i in order))
        inverse = tuple(order.index(i) for i in range(len(order)))
        return (namespace(y).permute_dims(upstream, inverse).reshape(x.shape).astype(x.dtype),)


class PixelShuffle(_Rearrangement):
    """Channels turned into pixels: y[n, c, h r + i, w r + j] = x[n, c r^2 + i r + j, h, w].

    x has shape (images, channels r^2, height, width), y (images, channels, height r, width r).

    Local gradient: a permutation. Backward: dx = the upstream, permuted back.
    Source: Shi et al. 2016, "Real-time single image and video super-resolution".
    """

    def plan(self, shape: Shape) -> tuple[Shape, Shape, Shape]:
        r, (n, c, h, w) = self.factor, shape
        channels = c // (r * r)
        return (n, channels, r, r, h, w), (0, 1, 4, 2, 5, 3), (n, channels, h * r, w * r)

    def reference(self, x: Array) -> Array:
        r, (_, c, h, w) = self.factor, x.shape
        channel, row, column = np.ix_(*map(np.arange, (c // (r * r), h * r, w * r)))
        return x[:, channel * r * r + row % r * r + column % r, row // r, column // r]

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (1, 4, 2, 3)),
            generic(cls(), (2, 8, 1, 2)),
            generic(cls(3), (1, 9, 2, 1)),
            Case(cls(1), ((1, 2, 3, 1),), "factor 1"),
            Case(cls(), ((0, 4, 2, 2),), "zero size"),
        )


class PixelUnshuffle(_Rearrangement):
    """Pixels turned into channels: y[n, c r^2 + i r + j, h, w] = x[n, c, h r + i, w r + j].

    x has shape (images, channels, height r, width r), y (images, channels r^2, height, width).

    Local gradient: a permutation. Backward: dx = the upstream, permuted back.
    """

    def plan(self, shape: Shape) -> tuple[Shape, Shape, Shape]:
        r, (n, c, h, w) = (
            self.factor,
            (*shape[:2], shape[2] // self.factor, shape[3] // self.factor),
        )
        return (n, c, h, r, w, r), (0, 1, 3, 5, 2, 4), (n, c * r * r, h, w)

    def reference(self, x: Array) -> Array:
        r, (_, c, h, w) = self.factor, x.shape
        channel, row, column = np.ix_(*map(np.arange, (c * r * r, h // r, w // r)))
        return x[:, channel // (r * r), row * r + channel // r % r, column * r + channel % r]

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (1, 2, 4, 6)),
            generic(cls(), (2, 1, 2, 2)),
            generic(cls(3), (1, 1, 3, 6)),
            Case(cls(1), ((1, 2, 3, 1),), "factor 1"),
            Case(cls(), ((0, 4, 2, 2),), "zero size"),
        )
