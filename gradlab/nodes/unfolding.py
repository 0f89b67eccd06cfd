"""Windows laid out as columns and added back: the two movements inside a convolution."""

import math
from dataclasses import dataclass
from typing import Any

from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.nodes._arrays import Array, Shape, as_inputs, as_upstream
from gradlab.nodes._base import Node
from gradlab.nodes._domain import Case, generic
from gradlab.nodes._lazy import jax, jnp
from gradlab.nodes._windows import Padding, PerAxis, Windows, paddings, take_operator, windows
from gradlab.operators import Reshape

__all__ = ["Col2im", "Im2col"]


@dataclass(frozen=True)
class Im2col(Node):
    """The windows of x as columns (im2col, unfold): y[n, (c, k), p] = x[n, c, place p, tap k].

    A convolution is then one matrix product: `kernel.reshape(channels out, -1) @ im2col(x)`.

    Shapes: x (batch, channels, *spatial), y (batch, channels * taps, places).

    Args:
        window: the window's sizes, one per spatial axis.
        stride: the step of the window; one number, or one per axis.
        padding: zeros on both sides; one number, or per axis a number or a pair (before, after).
        dilation: the step between taps; one number, or one per axis.

    Local gradient: a selection, of entries that may be read more than once.
    Backward: dx = the upstream's windows added where they stood (col2im).
    Source: Chellapilla et al., "High performance convolutional neural networks for document
    processing" (2006).
    """

    window: Shape = (2, 2)
    stride: PerAxis = 1
    padding: Padding = 0
    dilation: PerAxis = 1

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        (x,) = as_inputs(self, inputs)
        if len(x.shape) != len(self.window) + 2:
            raise InputError(
                f"{self!r}: x has shape {shape_text(x.shape)}; expected (batch, channels) and "
                f"{len(self.window)} spatial axes"
            )
        walk = windows(self, x.shape[2:], self.window, self.stride, self.padding, self.dilation)
        n, channels = x.shape[:2]
        y = walk.take(x).reshape(n, channels * walk.taps, math.prod(walk.places))
        return y, (x, y, walk)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        x, y, walk = residuals
        taken = take_operator(walk, x.shape, x.dtype)
        return (Reshape(taken.output_shape, y.shape, x.dtype) @ taken,)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        x, y, walk = residuals
        upstream = as_upstream(self, upstream, y)
        return (walk.add(upstream.reshape(*x.shape[:2], *walk.window, *walk.places)),)

    def reference(self, x: Array) -> Array:
        rank = len(self.window)
        stride, dilation = (
            v if isinstance(v, tuple) else (v,) * rank for v in (self.stride, self.dilation)
        )
        y = jax.lax.conv_general_dilated_patches(
            x, self.window, stride, paddings(self, self.padding, rank), rhs_dilation=dilation
        )
        return jnp.reshape(y, (*y.shape[:2], math.prod(y.shape[2:])))

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        uneven = cls((2, 3), stride=(1, 2), padding=((0, 1), 2), dilation=(2, 1))
        return (
            generic(cls(), (2, 2, 3, 3)),
            generic(uneven, (1, 1, 3, 4)),
            generic(cls((3,), stride=2), (2, 2, 6)),
            Case(cls((1, 1)), ((1, 1, 1, 1),), "size-1 axes"),
            Case(cls(), ((0, 2, 3, 3),), "zero size"),
        )


@dataclass(frozen=True)
class Col2im(Node):
    """Columns added back where their windows stand (col2im, fold): the transpose of im2col.

    y[n, c, i] = the sum of x[n, (c, k), p] over all taps k and places p that meet in i.

    Shapes: x (batch, channels * taps, places), y (batch, channels, *size).

    Args:
        size: the output's spatial sizes.
        window: the window's sizes, one per spatial axis.
        stride: the step of the window; one number, or one per axis.
        padding: what is cut off on both sides; one number, or per axis a number or a pair.
        dilation: the step between taps; one number, or one per axis.

    Local gradient: a scatter, the transpose of im2col's selection.
    Backward: dx = the windows of the upstream (im2col).
    """

    size: Shape = (3, 3)
    window: Shape = (2, 2)
    stride: PerAxis = 1
    padding: Padding = 0
    dilation: PerAxis = 1

    def _walk(self) -> Windows:
        return windows(self, self.size, self.window, self.stride, self.padding, self.dilation)

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        (x,) = as_inputs(self, inputs)
        walk = self._walk()
        places = math.prod(walk.places)
        if len(x.shape) != 3 or x.shape[1] % walk.taps or x.shape[2] != places:
            raise InputError(
                f"{self!r}: x has shape {shape_text(x.shape)}; expected (batch, channels * "
                f"{walk.taps} taps, {places} places)"
            )
        channels = x.shape[1] // walk.taps
        y = walk.add(x.reshape(x.shape[0], channels, *walk.window, *walk.places))
        return y, (x, y, walk)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        x, y, walk = residuals
        taken = take_operator(walk, y.shape, x.dtype)
        return (taken.T @ Reshape(x.shape, taken.output_shape, x.dtype),)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        x, y, walk = residuals
        return (walk.take(as_upstream(self, upstream, y)).reshape(x.shape),)

    def reference(self, x: Array) -> Array:
        walk = self._walk()
        y = jax.ShapeDtypeStruct((x.shape[0], x.shape[1] // walk.taps, *self.size), x.dtype)
        node = Im2col(self.window, self.stride, self.padding, self.dilation)
        return jax.linear_transpose(node.reference, y)(x)[0]

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        uneven = cls((3, 4), (2, 3), stride=(1, 2), padding=((0, 1), 2), dilation=(2, 1))
        return (
            generic(cls(), (2, 8, 4)),
            generic(uneven, (1, 6, 6)),
            generic(cls((6,), (3,), stride=2), (2, 6, 2)),
            Case(cls((1, 1), (1, 1)), ((1, 1, 1),), "size-1 axes"),
            Case(cls(), ((0, 8, 4),), "zero size"),
        )
