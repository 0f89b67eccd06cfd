"""Convolution: each output sees a window of the input, all windows through the same kernel.

As in deep learning the kernel is not flipped (cross-correlation). It is linear in the input and in
the kernel; the three products that this takes are in `_convolving`.

Source: Dumoulin and Visin, "A guide to convolution arithmetic for deep learning"
(arXiv:1603.07285, 2016).
"""

from dataclasses import dataclass
from typing import Any

from gradlab.nodes._arrays import Array, as_inputs, as_upstream
from gradlab.nodes._convolving import Walking, gather, pair, spread
from gradlab.nodes._domain import Case, generic
from gradlab.nodes._lazy import jax, jnp
from gradlab.nodes._windows import paddings, windows
from gradlab.operators import Broadcast, Contraction, Reshape

__all__ = [
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "DepthwiseConv2d",
]


@dataclass(frozen=True)
class _Convolution(Walking):
    """w * x + b."""

    def forward(self, x: Any, w: Any, b: Any) -> tuple[Array, Any]:
        x, w, b = as_inputs(self, (x, w, b))
        groups = self.checked_groups(x, w, b)
        walk = windows(self, x.shape[2:], w.shape[2:], self.stride, self.padding, self.dilation)
        kernel = w.reshape(groups, w.shape[0] // groups, *w.shape[1:])
        y = gather(walk, kernel, x) + b.reshape(1, -1, *(1,) * self.rank)
        return y, (x, w, b, kernel, y, walk)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        x, w, b, kernel, y, walk = residuals
        by_group = (*kernel.shape[:3], walk.taps)
        columns = walk.take(x).reshape(
            x.shape[0], kernel.shape[0], kernel.shape[2], walk.taps, walk.spots
        )
        of_kernel = Contraction("ngckp,gock->ngop", columns, input_shape=by_group)
        return (
            self.as_operator(w, x.shape, walk, kernel.shape[0]),
            Reshape(of_kernel.output_shape, y.shape, y.dtype)
            @ of_kernel
            @ Reshape(w.shape, by_group, y.dtype),
            Broadcast(b.shape, y.shape, y.dtype, axes=(0, *range(2, len(y.shape)))),
        )

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        return self.backward_to((True, True, True), upstream, residuals)

    def backward_to(
        self, wanted: tuple[bool, ...], upstream: Any, residuals: Any
    ) -> tuple[Any, ...]:
        x, w, _, kernel, y, walk = residuals
        u = as_upstream(self, upstream, y).astype(x.dtype)
        return (
            spread(walk, kernel, u) if wanted[0] else None,
            pair(walk, u, x, kernel.shape[0]).reshape(w.shape) if wanted[1] else None,
            u.sum(axis=(0, *range(2, u.ndim))) if wanted[2] else None,
        )

    def reference(self, x: Array, w: Array, b: Array) -> Array:
        rank = self.rank
        steps = [v if isinstance(v, tuple) else (v,) * rank for v in (self.stride, self.dilation)]
        y = jax.lax.conv_general_dilated(
            x,
            w,
            steps[0],
            paddings(self, self.padding, rank),
            rhs_dilation=steps[1],
            feature_group_count=self.group_count(x.shape[1]),
        )
        return y + jnp.broadcast_to(b.reshape(-1, *(1,) * rank), y.shape)


@dataclass(frozen=True)
class Conv1d(_Convolution):
    """The convolution of x with a kernel w, plus b, along one spatial axis.

    y[n, o, p] = b[o] + sum over c and k of w[o, c, k] x[n, c, stride p + dilation k - padding].

    Shapes: x (batch, channels in, length), w (channels out, channels in / groups, window),
    b (channels out,), y (batch, channels out, places).

    Args:
        stride: the step of the window.
        padding: zeros on both sides; a pair ((before, after),) where they differ.
        dilation: the step between taps of the kernel.
        groups: into how many groups, each by itself, both kinds of channels are split.

    Local gradients: in x a convolution (a banded Toeplitz matrix: dy[p]/dx[i] = w[k] where
    i = stride p + dilation k - padding, else 0); in w the windows of x; in b a broadcast.
    Backward: dx = w^T upstream, added where each window stood; dw = upstream X^T with X the windows
    of x; db = upstream, summed over batch and places.
    """

    groups: int = 1

    rank = 1

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (2, 2, 4), (2, 2, 2), (2,)),
            generic(cls(stride=2, padding=((2, 1),), dilation=3), (2, 1, 7), (3, 1, 3), (3,)),
            generic(cls(padding=1, groups=2), (1, 4, 4), (6, 2, 2), (6,)),
            Case(cls(), ((1, 1, 1), (1, 1, 1), (1,)), "size-1 axes"),
            Case(cls(), ((0, 2, 4), (3, 2, 2), (3,)), "zero size"),
        )


@dataclass(frozen=True)
class Conv2d(_Convolution):
    """The convolution of x with a kernel w, plus b, along two spatial axes: the layer of CNNs.

    y[n, o, p, q] = b[o] + sum of w[o, c, k, l] x[n, c, s p + d k - a, s' q + d' l - a'] over c, k
    and l, for the strides s, dilations d and paddings a of the two axes.

    Shapes: x (batch, channels in, height, width), w (channels out, channels in / groups, kernel
    height, kernel width), b (channels out,), y (batch, channels out, places, places).

    Args:
        stride: the step of the window; one number, or one per axis.
        padding: zeros on both sides; one number, or per axis a number or a pair (before, after).
        dilation: the step between taps of the kernel; one number, or one per axis.
        groups: into how many groups, each by itself, both kinds of channels are split.

    Local gradients: in x a convolution (Toeplitz blocks); in w the windows of x; in b a broadcast.
    Backward: dx = w^T upstream, added where each window stood; dw = upstream X^T with X the windows
    of x; db = upstream, summed over batch and places.
    Source: LeCun et al., "Gradient-based learning applied to document recognition" (1998).
    """

    groups: int = 1

    rank = 2

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        uneven = cls(stride=(1, 2), padding=((0, 1), 2), dilation=(2, 1))
        return (
            generic(cls(padding=1), (2, 1, 2, 3), (2, 1, 2, 2), (2,)),
            generic(uneven, (1, 2, 3, 4), (3, 2, 2, 3), (3,)),
            generic(cls(stride=(2, 1), groups=2), (1, 2, 3, 2), (4, 1, 2, 1), (4,)),
            Case(cls(stride=3), ((1, 1, 5, 4), (1, 1, 2, 2), (1,)), "entries under no window"),
            Case(cls(), ((1, 1, 1, 1), (2, 1, 1, 1), (2,)), "size-1 axes"),
            Case(cls(), ((0, 1, 3, 3), (2, 1, 2, 2), (2,)), "zero size"),
        )


@dataclass(frozen=True)
class Conv3d(_Convolution):
    """The convolution of x with a kernel w, plus b, along three spatial axes (video, volumes).

    y[n, o, p] = b[o] + sum of w[o, c, k] x[n, c, stride p + dilation k - padding] over c and k,
    with p and k standing for three indices each.

    Shapes: x (batch, channels in, depth, height, width), w (channels out, channels in / groups,
    three window axes), b (channels out,), y (batch, channels out, three axes of places).

    Args:
        stride: the step of the window; one number, or one per axis.
        padding: zeros on both sides; one number, or per axis a number or a pair (before, after).
        dilation: the step between taps of the kernel; one number, or one per axis.
        groups: into how many groups, each by itself, both kinds of channels are split.

    Local gradients: in x a convolution (Toeplitz blocks); in w the windows of x; in b a broadcast.
    Backward: dx = w^T upstream, added where each window stood; dw = upstream X^T with X the windows
    of x; db = upstream, summed over batch and places.
    """

    groups: int = 1

    rank = 3

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        uneven = cls(stride=(2, 1, 1), padding=(1, 0, (0, 2)), dilation=(1, 2, 1))
        return (
            generic(cls(), (1, 2, 2, 3, 1), (2, 2, 1, 2, 1), (2,)),
            generic(uneven, (1, 1, 2, 3, 2), (2, 1, 2, 2, 1), (2,)),
            generic(cls(groups=2), (2, 2, 1, 2, 3), (2, 1, 1, 2, 1), (2,)),
            Case(cls(), ((1, 1, 1, 1, 1), (1, 1, 1, 1, 1), (1,)), "size-1 axes"),
        )


@dataclass(frozen=True)
class DepthwiseConv2d(_Convolution):
    """A convolution of each channel by itself, along two spatial axes: groups = channels.

    y[n, c m + j, p, q] = b[c m + j] + sum of w[c m + j, 0, k, l] x[n, c, s p + d k - a, ...] over
    k and l: m outputs from each channel, none from two.

    Shapes: x (batch, channels, height, width), w (m * channels, 1, kernel height, kernel width),
    b (m * channels,), y (batch, m * channels, places, places).

    Args:
        stride: the step of the window; one number, or one per axis.
        padding: zeros on both sides; one number, or per axis a number or a pair (before, after).
        dilation: the step between taps of the kernel; one number, or one per axis.

    Local gradients: in x a convolution, block-diagonal over channels too; in w the windows of x;
    in b a broadcast. Backward: as for a convolution, channel by channel.
    Source: Howard et al., "MobileNets" (arXiv:1704.04861, 2017), section 3.1.
    """

    rank = 2

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        uneven = cls(stride=(1, 2), padding=(0, (2, 1)), dilation=(2, 1))
        return (
            generic(cls(padding=1), (2, 2, 2, 3), (2, 1, 2, 2), (2,)),
            generic(uneven, (1, 2, 4, 3), (4, 1, 2, 3), (4,)),
            generic(cls(stride=(2, 1)), (2, 3, 3, 2), (3, 1, 2, 2), (3,)),
            Case(cls(), ((1, 1, 1, 1), (1, 1, 1, 1), (1,)), "size-1 axes"),
        )
