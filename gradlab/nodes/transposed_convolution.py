"""Transposed convolution: each input entry is spread over a window of the output.

It is the backward of a convolution, used forward; its own backward is that convolution.

Source: Dumoulin and Visin, "A guide to convolution arithmetic for deep learning"
(arXiv:1603.07285, 2016), chapter 4.
"""

from dataclasses import dataclass
from typing import Any

from gradlab.errors import InputError
from gradlab.nodes._arrays import Array, Shape, as_inputs, as_upstream
from gradlab.nodes._convolving import Walking, gather, pair, spread
from gradlab.nodes._domain import Case, generic
from gradlab.nodes._lazy import jax, jnp
from gradlab.nodes._windows import PerAxis, Windows, paddings, per_axis, take_operator
from gradlab.operators import Broadcast, Contraction, Reshape

__all__ = ["ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"]


@dataclass(frozen=True)
class _TransposedConvolution(Walking):
    """w *^T x + b."""

    groups: int = 1
    output_padding: PerAxis = 0

    def _walk(self, places: Shape, window: Shape) -> Windows:
        """Return the windows of the convolution whose transpose this is."""
        rank = self.rank
        extra = self.output_padding
        extras = (extra,) * rank if isinstance(extra, int) else extra
        stride = per_axis(self, "stride", self.stride, rank)
        dilation = per_axis(self, "dilation", self.dilation, rank)
        padding = paddings(self, self.padding, rank)
        size = tuple(
            (n - 1) * s - low - high + d * (k - 1) + 1 + more
            for n, s, (low, high), d, k, more in zip(
                places, stride, padding, dilation, window, extras
            )
        )
        if len(extras) != rank or any(not 0 <= e < s for e, s in zip(extras, stride)):
            raise InputError(
                f"{self!r}: output_padding is {extra}; expected numbers from 0 to stride - 1, one "
                f"for each of the {rank} spatial axes"
            )
        if min(size) < 1:
            raise InputError(
                f"{self!r}: padding {self.padding} leaves nothing: the output's spatial axes would "
                f"be {size}"
            )
        return Windows(size, window, stride, padding, dilation)

    def forward(self, x: Any, w: Any, b: Any) -> tuple[Array, Any]:
        x, w, b = as_inputs(self, (x, w, b))
        groups = self.checked_groups(x, w, b, transposed=True)
        walk = self._walk(x.shape[2:], w.shape[2:])
        kernel = w.reshape(groups, w.shape[0] // groups, *w.shape[1:])
        y = spread(walk, kernel, x) + b.reshape(1, -1, *(1,) * self.rank)
        return y, (x, w, b, kernel, y, walk)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        x, w, b, kernel, y, walk = residuals
        by_group = (*kernel.shape[:3], walk.taps)
        rows = x.reshape(x.shape[0], *kernel.shape[:2], walk.spots)
        of_kernel = Contraction("ngcp,gcok->ngokp", rows, input_shape=by_group)
        taken = take_operator(walk, y.shape, y.dtype)
        return (
            self.as_operator(w, y.shape, walk, kernel.shape[0]).T,
            taken.T
            @ Reshape(of_kernel.output_shape, taken.output_shape, y.dtype)
            @ of_kernel
            @ Reshape(w.shape, by_group, y.dtype),
            Broadcast(b.shape, y.shape, y.dtype, axes=(0, *range(2, len(y.shape)))),
        )

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        x, w, _, kernel, y, walk = residuals
        u = as_upstream(self, upstream, y).astype(x.dtype)
        return (
            gather(walk, kernel, u),
            pair(walk, x, u, kernel.shape[0]).reshape(w.shape),
            u.sum(axis=(0, *range(2, u.ndim))),
        )

    def reference(self, x: Array, w: Array, b: Array) -> Array:
        walk = self._walk(x.shape[2:], w.shape[2:])
        y_shape = (x.shape[0], b.shape[0], *walk.size)

        def convolution(y: Array) -> Array:
            return jax.lax.conv_general_dilated(
                y,
                w,
                walk.stride,
                walk.padding,
                rhs_dilation=walk.dilation,
                feature_group_count=self.groups,
            )

        (y,) = jax.linear_transpose(convolution, jnp.zeros(y_shape, x.dtype))(x)
        return y + jnp.broadcast_to(b.reshape(-1, *(1,) * self.rank), y.shape)


@dataclass(frozen=True)
class ConvTranspose1d(_TransposedConvolution):
    """The transpose of a one-dimensional convolution, plus b: it widens where that one narrows.

    y[n, o, i] = b[o] + sum of w[c, o, k] x[n, c, p] over c and all p, k with
    stride p + dilation k - padding = i.

    Shapes: x (batch, channels in, places), w (channels in, channels out / groups, window),
    b (channels out,), y (batch, channels out, length) with length = (places - 1) stride
    - 2 padding + dilation (window - 1) + 1 + output_padding.

    Args:
        stride: the step of the window, on the output's side.
        padding: what is cut off on both sides of the output.
        dilation: the step between taps of the kernel.
        groups: into how many groups, each by itself, both kinds of channels are split.
        output_padding: by how much longer the output is made; of the lengths that a convolution
            takes to the same number of places, it picks one.

    Local gradients: in x a transposed convolution; in w the entries of x, spread to their windows;
    in b a broadcast. Backward: dx = w U and dw = x U^T with U the windows of the upstream; db =
    upstream, summed over batch and places.
    """

    rank = 1

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        uneven = cls(stride=3, padding=((2, 1),), dilation=2, output_padding=1)
        return (
            generic(cls(), (2, 3, 4), (3, 2, 3), (2,)),
            generic(uneven, (2, 1, 3), (1, 3, 3), (3,)),
            generic(cls(padding=1, groups=2), (1, 4, 4), (4, 3, 2), (6,)),
            Case(cls(), ((1, 1, 1), (1, 1, 1), (1,)), "size-1 axes"),
        )


@dataclass(frozen=True)
class ConvTranspose2d(_TransposedConvolution):
    """The transpose of a two-dimensional convolution, plus b: the layer that widens images.

    y[n, o, i, j] = b[o] + sum of w[c, o, k, l] x[n, c, p, q] over c and all places and taps that
    meet in i and j.

    Shapes: x (batch, channels in, places, places), w (channels in, channels out / groups, kernel
    height, kernel width), b (channels out,), y (batch, channels out, height, width).

    Args:
        stride: the step of the window, on the output's side; one number, or one per axis.
        padding: what is cut off on both sides; one number, or per axis a number or a pair.
        dilation: the step between taps of the kernel; one number, or one per axis.
        groups: into how many groups, each by itself, both kinds of channels are split.
        output_padding: by how much longer the output is made; one number, or one per axis.

    Local gradients: in x a transposed convolution; in w the entries of x, spread to their windows;
    in b a broadcast. Backward: dx = w U and dw = x U^T with U the windows of the upstream; db =
    upstream, summed over batch and places.
    Source: Zeiler et al., "Deconvolutional networks" (CVPR 2010).
    """

    rank = 2

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        uneven = cls(stride=(2, 1), padding=((0, 1), 1), dilation=(1, 2), output_padding=(1, 0))
        return (
            generic(cls(stride=2), (2, 2, 1, 2), (2, 1, 2, 1), (1,)),
            generic(uneven, (1, 1, 2, 3), (1, 2, 3, 2), (2,)),
            generic(cls(groups=2), (1, 2, 2, 2), (2, 2, 2, 1), (4,)),
            Case(cls(), ((1, 1, 1, 1), (1, 1, 1, 1), (1,)), "size-1 axes"),
        )


@dataclass(frozen=True)
class ConvTranspose3d(_TransposedConvolution):
    """The transpose of a three-dimensional convolution, plus b.

    y[n, o, i] = b[o] + sum of w[c, o, k] x[n, c, p] over c and all p, k with
    stride p + dilation k - padding = i, where i, p and k stand for three indices each.

    Shapes: x (batch, channels in, three axes of places), w (channels in, channels out / groups,
    three window axes), b (channels out,), y (batch, channels out, depth, height, width).

    Args:
        stride: the step of the window, on the output's side; one number, or one per axis.
        padding: what is cut off on both sides; one number, or per axis a number or a pair.
        dilation: the step between taps of the kernel; one number, or one per axis.
        groups: into how many groups, each by itself, both kinds of channels are split.
        output_padding: by how much longer the output is made; one number, or one per axis.

    Local gradients: in x a transposed convolution; in w the entries of x, spread to their windows;
    in b a broadcast. Backward: dx = w U and dw = x U^T with U the windows of the upstream; db =
    upstream, summed over batch and places.
    """

    rank = 3

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        uneven = cls(stride=(1, 2, 1), padding=(0, 1, (1, 0)), output_padding=(0, 1, 0))
        return (
            generic(cls(), (1, 2, 1, 2, 2), (2, 1, 2, 2, 1), (1,)),
            generic(uneven, (1, 1, 2, 2, 2), (1, 2, 1, 2, 2), (2,)),
            generic(cls(dilation=(1, 1, 2), groups=2), (1, 2, 1, 1, 2), (2, 1, 1, 2, 2), (2,)),
            Case(cls(), ((1, 1, 1, 1, 1), (1, 1, 1, 1, 1), (1,)), "size-1 axes"),
        )
