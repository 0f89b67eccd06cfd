"""Windows that walk over spatial axes: convolution, pooling, resampling, columns.

As in deep learning a convolution's kernel is not flipped (cross-correlation). With stride and
dilation it is a sum over the taps k of its kernel. Let W_k be the matrix of tap k, and x_k the
entries of the padded input that lie under it at the window's places:

    y = sum W_k x_k        correlate          the convolution
    dx_k = W_k^T u         correlate_back     its transpose: all dx_k are added where x_k was taken
    dW_k = u x_k^T         kernel_gradient    the gradient of the kernel

Source: Dumoulin and Visin, "A guide to convolution arithmetic for deep learning"
(arXiv:1603.07285, 2016).
"""

import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from functools import reduce
from itertools import product
from string import ascii_lowercase
from typing import ClassVar

import numpy as np

from gradlab import operators as ops
from gradlab.common.arrays import Array, DTypeLike, Function, Shape, einsum, namespace
from gradlab.common.windows import Padding, PerAxis, Windows, paddings, per_axis, windows
from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.nodes._base import Applied, Gradients, Kept, Like, Linear, Namespace, Node, Pulled
from gradlab.nodes._domain import REALS, Domain
from gradlab.nodes._lazy import jax, jnp
from gradlab.operators import Operator
from gradlab.operators.convolution import by_group, correlate, correlate_back


def kernel_gradient(walk: Windows, u: Array, x: Array, groups: int) -> Array:
    """Return u x_k^T, summed over the batch: (groups, o, c, *window)."""
    n, rows, columns = u.shape[0], u.shape[1] // groups, x.shape[1] // groups
    xp, x, spots = namespace(x), walk.pad(x), walk.spots
    transposed = u.reshape(n, groups, rows, spots).swapaxes(-1, -2)
    taps = [
        (x[where].reshape(n, groups, columns, spots) @ transposed).sum(axis=0)
        for _, where in walk.steps()
    ]
    kernel = xp.stack(taps, axis=-1).swapaxes(1, 2).astype(x.dtype)
    return kernel.reshape(groups, rows, columns, *walk.window)


def take_operator(walk: Windows, shape: Shape, dtype: DTypeLike) -> Operator:
    """Return `walk.take` as a map from (batch, channels, *size) to (batch, channels, taps, places).

    It reads each window's entries: a selection, after zeros are set around the input.
    """
    lead, rows = shape[:2], math.prod(walk.padded)
    entries = Windows(
        walk.padded, walk.window, walk.stride, ((0, 0),) * len(walk.size), walk.dilation
    )
    indices = entries.entries.reshape(walk.taps, -1)
    return (
        ops.Selection(indices, (*lead, rows), dtype, axis=2)
        @ ops.Reshape((*lead, *walk.padded), (*lead, rows), dtype)
        @ ops.embedding((slice(None), slice(None), *walk.inside[1:]), (*lead, *walk.padded), dtype)
    )


class _Walking(Node):
    """A node whose kernel walks over the spatial axes.

    Args:
        stride: the step of the window; one number, or one per axis.
        padding: zeros on both sides (of a transposed convolution: what is cut off); one number, or
            per axis a number or a pair (before, after).
        dilation: the step between taps of the kernel; one number, or one per axis.
        groups: into how many groups, each by itself, both kinds of channels are split.
    """

    stride: PerAxis = 1
    padding: Padding = 0
    dilation: PerAxis = 1
    rank: ClassVar[int]

    def group_count(self, channels: int) -> int:
        """Return the number of groups; as many as channels where the node has no parameter."""
        return int(getattr(self, "groups", channels))

    def checked_groups(self, x: Array, w: Array, b: Array, transposed: bool = False) -> int:
        """Return the number of groups.

        Raises:
            InputError: the shapes of input, kernel and bias do not belong together.
        """
        if len(x.shape) == len(w.shape) == self.rank + 2:
            groups = self.group_count(x.shape[1])
            inner = w.shape[0] if transposed else groups * w.shape[1]
            outer = groups * w.shape[1] if transposed else w.shape[0]
            if x.shape[1] == inner and w.shape[0] % groups == 0 and b.shape == (outer,):
                return groups
        first, second = ("in", "out") if transposed else ("out", "in")
        raise InputError(
            f"{self!r}: x has shape {shape_text(x.shape)}, w {shape_text(w.shape)} and b "
            f"{shape_text(b.shape)}; expected x (batch, channels in, {self.rank} spatial axes), "
            f"w (channels {first}, channels {second} / groups, {self.rank} window axes) and "
            "b (channels out,)"
        )


def _as_operator(w: Array, x_shape: Shape, walk: Windows, groups: int) -> Operator:
    return ops.Convolution(w, x_shape, walk.stride, walk.padding, walk.dilation, groups)


def _bias(channels: int, y: Shape, dtype: DTypeLike) -> Operator:
    return ops.Broadcast((channels,), y, dtype, axes=(0, *range(2, len(y))))


class _Convolution(_Walking):
    """w * x + b."""

    _kind = (
        "Local gradients: in x a convolution (Toeplitz blocks), in w the windows X of x, in b a "
        "broadcast. Backward: dx = w^T upstream, added where each window stood; dw = upstream "
        "X^T; db = upstream, summed over batch and places."
    )

    def apply(self, xp: Namespace, x: Array, w: Array, b: Array) -> Applied:
        groups = self.checked_groups(x, w, b)
        walk = windows(self, x.shape[2:], w.shape[2:], self.stride, self.padding, self.dilation)
        y = correlate(walk, by_group(w, groups), x).astype(x.dtype) + b.reshape(
            1, -1, *(1,) * self.rank
        )
        return y, (x, w, groups, walk)

    def gradients(self, xp: Namespace, x: Array, w: Array, groups: int, walk: Windows) -> Gradients:
        """Return a convolution in x, the windows of x in w, and a broadcast in b."""
        y, kernel = (x.shape[0], w.shape[0], *walk.places), by_group(w, groups)
        grouped = (*kernel.shape[:3], walk.taps)
        columns = walk.take(x).reshape(x.shape[0], groups, kernel.shape[2], walk.taps, walk.spots)
        of_kernel = ops.Contraction("ngckp,gock->ngop", columns, input_shape=grouped)
        return (
            _as_operator(w, x.shape, walk, groups),
            ops.Reshape(of_kernel.output_shape, y, x.dtype)
            @ of_kernel
            @ ops.Reshape(w.shape, grouped, x.dtype),
            _bias(w.shape[0], y, x.dtype),
        )

    def pull(self, xp: Namespace, u: Array, *kept: Kept) -> Pulled:
        return self.pull_wanted(xp, (True, True, True), u, *kept)

    def pull_wanted(
        self,
        xp: Namespace,
        wanted: tuple[bool, ...],
        u: Array,
        x: Array,
        w: Array,
        groups: int,
        walk: Windows,
    ) -> Pulled:
        u = u.astype(x.dtype)
        return (
            correlate_back(walk, by_group(w, groups), u) if wanted[0] else None,
            kernel_gradient(walk, u, x, groups).reshape(w.shape) if wanted[1] else None,
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


class Conv2d(_Convolution):
    """The convolution of x with a kernel w, plus b, along two spatial axes: the layer of CNNs.

    y[n, o, p, q] = b[o] + sum of w[o, c, k, l] x[n, c, s p + d k - a, s' q + d' l - a'] over c, k
    and l, for the strides s, dilations d and paddings a of the two axes.

    Shapes: x (batch, channels in, height, width), w (channels out, channels in / groups, kernel
    height, kernel width), b (channels out,), y (batch, channels out, places, places).

    Source: LeCun et al., "Gradient-based learning applied to document recognition" (1998).
    """

    groups: int = 1
    rank = 2
    drawn = (
        "2x1x2x3 2x1x2x2 2 padding=1; "
        "1x2x3x4 3x2x2x3 3 stride=(1,2) padding=((0,1),2) dilation=(2,1); "
        "1x2x3x2 4x1x2x1 4 stride=(2,1) groups=2; "
        "entries under no window: 1x1x5x4 1x1x2x2 1 stride=3; "
        "size-1 axes: 1x1x1x1 2x1x1x1 2; zero size: 0x1x3x3 2x1x2x2 2"
    )


class Conv1d(_Convolution):
    """The convolution of x with a kernel w, plus b, along one spatial axis.

    y[n, o, p] = b[o] + sum over c and k of w[o, c, k] x[n, c, stride p + dilation k - padding].
    Shapes and parameters are those of `Conv2d`, with one spatial axis.
    """

    groups: int = 1
    rank = 1
    drawn = (
        "2x2x4 2x2x2 2; 2x1x7 3x1x3 3 stride=2 padding=((2,1),) dilation=3; "
        "1x4x4 6x2x2 6 padding=1 groups=2; size-1 axes: 1x1x1 1x1x1 1; zero size: 0x2x4 3x2x2 3"
    )


class Conv3d(_Convolution):
    """The convolution of x with a kernel w, plus b, along three spatial axes (video, volumes).

    y[n, o, p] = b[o] + sum of w[o, c, k] x[n, c, stride p + dilation k - padding] over c and k,
    with p and k standing for three indices each. Shapes and parameters are those of `Conv2d`, with
    three spatial axes.
    """

    groups: int = 1
    rank = 3
    drawn = (
        "1x2x2x3x1 2x2x1x2x1 2; "
        "1x1x2x3x2 2x1x2x2x1 2 stride=(2,1,1) padding=(1,0,(0,2)) dilation=(1,2,1); "
        "2x2x1x2x3 2x1x1x2x1 2 groups=2; size-1 axes: 1x1x1x1x1 1x1x1x1x1 1"
    )


class DepthwiseConv2d(_Convolution):
    """A convolution of each channel by itself, along two spatial axes: groups = channels.

    y[n, c m + j, p, q] = b[c m + j] + sum of w[c m + j, 0, k, l] x[n, c, s p + d k - a, ...] over
    k and l: m outputs from each channel, none from two. w has shape (m * channels, 1, kernel
    height, kernel width); the parameters are those of `Conv2d`, without groups.

    Source: Howard et al., "MobileNets" (arXiv:1704.04861, 2017), section 3.1.
    """

    rank = 2
    drawn = (
        "2x2x2x3 2x1x2x2 2 padding=1; "
        "1x2x4x3 4x1x2x3 4 stride=(1,2) padding=(0,(2,1)) dilation=(2,1); "
        "2x3x3x2 3x1x2x2 3 stride=(2,1); size-1 axes: 1x1x1x1 1x1x1x1 1"
    )


class _TransposedConvolution(_Walking):
    """w *^T x + b.

    Args:
        output_padding: by how much longer the output is made; one number, or one per axis. Of the
            sizes that a convolution takes to the same number of places, it picks one.
    """

    _kind = (
        "Local gradients: in x a transposed convolution, in w the entries of x, spread to their "
        "windows, in b a broadcast. Backward: dx = w U and dw = x U^T with U the windows of the "
        "upstream; db = upstream, summed over batch and places."
    )

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
        fits = len(extras) == rank and all(0 <= e < s for e, s in zip(extras, stride))
        self.require(fits, "expected output_padding from 0 to stride - 1, one number for each axis")
        self.require(min(size) > 0, f"the padding leaves nothing: the spatial axes would be {size}")
        return Windows(size, window, stride, padding, dilation)

    def apply(self, xp: Namespace, x: Array, w: Array, b: Array) -> Applied:
        groups = self.checked_groups(x, w, b, transposed=True)
        walk = self._walk(x.shape[2:], w.shape[2:])
        y = correlate_back(walk, by_group(w, groups), x) + b.reshape(1, -1, *(1,) * self.rank)
        return y, (x, w, groups, walk)

    def gradients(self, xp: Namespace, x: Array, w: Array, groups: int, walk: Windows) -> Gradients:
        """Return a transposed convolution in x, spread windows in w, and a broadcast in b."""
        channels, kernel = groups * w.shape[1], by_group(w, groups)
        y = (x.shape[0], channels, *walk.size)
        grouped = (*kernel.shape[:3], walk.taps)
        rows = x.reshape(x.shape[0], *kernel.shape[:2], walk.spots)
        of_kernel = ops.Contraction("ngcp,gcok->ngokp", rows, input_shape=grouped)
        taken = take_operator(walk, y, x.dtype)
        return (
            _as_operator(w, y, walk, groups).T,
            taken.T
            @ ops.Reshape(of_kernel.output_shape, taken.output_shape, x.dtype)
            @ of_kernel
            @ ops.Reshape(w.shape, grouped, x.dtype),
            _bias(channels, y, x.dtype),
        )

    def pull(
        self, xp: Namespace, u: Array, x: Array, w: Array, groups: int, walk: Windows
    ) -> Pulled:
        u = u.astype(x.dtype)
        return (
            correlate(walk, by_group(w, groups), u),
            kernel_gradient(walk, x, u, groups).reshape(w.shape),
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


class ConvTranspose2d(_TransposedConvolution):
    """The transpose of a two-dimensional convolution, plus b: the layer that widens images.

    y[n, o, i, j] = b[o] + sum of w[c, o, k, l] x[n, c, p, q] over c and all places and taps that
    meet in i and j. It is the backward of a convolution, used forward.

    Shapes: x (batch, channels in, places, places), w (channels in, channels out / groups, kernel
    height, kernel width), b (channels out,), y (batch, channels out, height, width). Each spatial
    axis has (places - 1) stride - 2 padding + dilation (window - 1) + 1 + output_padding entries.

    Source: Zeiler et al., "Deconvolutional networks" (CVPR 2010).
    """

    rank = 2
    drawn = (
        "2x2x1x2 2x1x2x1 1 stride=2; 1x1x2x3 1x2x3x2 2 "
        "stride=(2,1) padding=((0,1),1) dilation=(1,2) output_padding=(1,0); "
        "1x2x2x2 2x2x2x1 4 groups=2; size-1 axes: 1x1x1x1 1x1x1x1 1"
    )


class ConvTranspose1d(_TransposedConvolution):
    """The transpose of a one-dimensional convolution, plus b: it widens where that one narrows.

    y[n, o, i] = b[o] + sum of w[c, o, k] x[n, c, p] over c and all p, k with
    stride p + dilation k - padding = i. Shapes and parameters are those of `ConvTranspose2d`, with
    one spatial axis.
    """

    rank = 1
    drawn = (
        "2x3x4 3x2x3 2; 2x1x3 1x3x3 3 stride=3 padding=((2,1),) dilation=2 output_padding=1; "
        "1x4x4 4x3x2 6 padding=1 groups=2; size-1 axes: 1x1x1 1x1x1 1"
    )


class ConvTranspose3d(_TransposedConvolution):
    """The transpose of a three-dimensional convolution, plus b.

    y[n, o, i] = b[o] + sum of w[c, o, k] x[n, c, p] over c and all p, k with
    stride p + dilation k - padding = i, where i, p and k stand for three indices each. Shapes and
    parameters are those of `ConvTranspose2d`, with three spatial axes.
    """

    rank = 3
    drawn = (
        "1x2x1x2x2 2x1x2x2x1 1; "
        "1x1x2x2x2 1x2x1x2x2 2 stride=(1,2,1) padding=(0,1,(1,0)) output_padding=(0,1,0); "
        "1x2x1x1x2 2x1x1x2x2 2 dilation=(1,1,2) groups=2; size-1 axes: 1x1x1x1x1 1x1x1x1x1 1"
    )


class _Pool(Node):
    """A node that makes one number of each window.

    Args:
        window: the window's sizes; it walks over as many last axes.
        stride: the step of the window; None: the window's own size, so that none overlap.
        padding: how far the window may hang over the edges, where it sees nothing, or zeros; one
            number, or per axis a number or a pair (before, after).
        ceil_mode: whether a last window may hang over the end where it does not fit whole; what
            it sees there is never counted.
    """

    window: Shape = (2, 2)
    stride: PerAxis | None = None
    padding: Padding = 0
    ceil_mode: bool = False

    def _walk(self, shape: Shape) -> Windows:
        rank = len(self.window)
        self.require(len(shape) >= rank, "expected an axis for each size of the window", x=shape)
        stride = self.window if self.stride is None else self.stride
        size = shape[len(shape) - rank :]
        walk = windows(self, size, self.window, stride, self.padding, 1, self.ceil_mode)
        seen = walk.covers.any(axis=tuple(range(rank))).all()
        self.require(
            seen,
            "a window lies wholly in the padding, which must be smaller than the window",
            x=shape,
        )
        return walk

    def _reduced(self, x: Array, start: float, fold: Function, walk: Windows) -> Array:
        """Return what `jax.lax.reduce_window` makes of x."""
        ones = (1,) * (x.ndim - len(self.window))
        return jax.lax.reduce_window(
            x,
            np.asarray(start, x.dtype),
            fold,
            (*ones, *self.window),
            (*ones, *walk.stride),
            (*((0, 0) for _ in ones), *walk.padding),
        )


class MaxPool(_Pool):
    """The greatest entry of each window: y[p] = max over taps k of x[stride p + k - padding].

    Shapes: x (..., *spatial), y (..., *places).

    Local gradient: a selection: dy[p]/dx[i] = 1 for the greatest entry under p, 0 for the others.
    Backward: dx[i] = the upstream of all windows whose greatest entry is i, added. Where entries
    tie, the first one (in C order) takes all, as in JAX's `reduce_window` and in PyTorch.
    """

    domains = (Domain(distinct=True),)
    drawn = (
        "2x2x4x4; 2x4x3 window=(3,2) stride=(2,1) padding=((1,0),1); "
        "3x7 window=(2,) stride=3 ceil_mode=True; three axes: 1x2x2x3 window=(2,2,1); "
        "zero size: 0x2x4x4"
    )
    points = {
        "ties": ({"window": (2,), "stride": 1}, [[1.0, 1.0, 0.0, 1.0, 1.0]]),
        "infinities": ({"window": (2,)}, [[-math.inf, -math.inf, 1.0, -math.inf]]),
    }

    def apply(self, xp: Namespace, x: Array) -> Applied:
        walk = self._walk(x.shape)
        lead, places = x.shape[: x.ndim - len(walk.size)], walk.places
        seen = walk.take(x, -math.inf).reshape(*lead, walk.taps, walk.spots)
        y = xp.max(seen, axis=-2)
        # A tap in the padding never counts as greatest, not even where all entries are -inf.
        inside = xp.asarray(walk.covers.reshape(walk.taps, walk.spots))
        greatest = (seen == y[..., None, :]) & xp.broadcast_to(inside, seen.shape)
        tap = xp.argmax(greatest, axis=-2)
        entries = xp.asarray(walk.entries.reshape(walk.taps, walk.spots))
        spatial = entries[tap, xp.broadcast_to(xp.arange(walk.spots), tap.shape)]
        size = math.prod(walk.size)
        first = np.arange(math.prod(lead)).reshape(*lead, 1) * size
        index = (spatial + xp.broadcast_to(xp.asarray(first), tap.shape)).reshape(*lead, *places)
        return y.reshape(*lead, *places), (Like.of(x), index)

    def gradients(self, xp: Namespace, x: Like, index: Array) -> Gradients:
        return ops.Selection(index, x.shape, x.dtype)

    def reference(self, x: Array) -> Array:
        return self._reduced(x, -math.inf, jax.lax.max, self._walk(x.shape))


class AveragePool(_Pool, Linear):
    """The mean of each window: y[p] = sum over taps k of x[stride p + k - padding] / count[p].

    Shapes: x (..., *spatial), y (..., *places).

    Args:
        count_padding: whether the padding's zeros count as entries; if not, count[p] is the
            number of the window's taps that lie inside.

    Local gradient: a convolution of each plane with ones, divided by the counts:
    dy[p]/dx[i] = 1 / count[p] where i lies under p, else 0.
    Backward: dx[i] = the sum of upstream[p] / count[p] over the windows p above i.
    """

    count_padding: bool = True
    drawn = (
        "2x2x2x4 padding=1; "
        "2x4x3 window=(3,2) stride=(2,1) padding=((1,0),1) count_padding=False; "
        "3x6 window=(3,) stride=2 padding=1 ceil_mode=True; three axes: 1x2x2x3 window=(1,2,2); "
        "zero size: 0x2x4x4"
    )

    def _counts(self, walk: Windows) -> Array:
        """Return the number of entries that each place counts."""
        counted = walk
        if self.count_padding:
            padded = replace(walk, padding=paddings(self, self.padding, len(walk.size))).padded
            overhang = tuple((0, n - m) for n, m in zip(walk.padded, padded))
            counted = replace(walk, size=padded, padding=overhang)
        return counted.covers.sum(axis=tuple(range(len(walk.size))))

    def operator(self, x: Like) -> Operator:
        walk = self._walk(x.shape)
        lead = x.shape[: len(x.shape) - len(walk.size)]
        ones = np.ones((1, 1, *walk.window), dtype=x.dtype)
        sums = ops.Convolution(ones, (math.prod(lead), 1, *walk.size), walk.stride, walk.padding)
        weights = (1.0 / self._counts(walk)).astype(x.dtype)
        planes = ops.Reshape(sums.output_shape, (*lead, *walk.places), x.dtype) @ sums
        share = ops.Diagonal(np.broadcast_to(weights, planes.output_shape))
        return share @ planes @ ops.Reshape(x.shape, sums.input_shape, x.dtype)

    def reference(self, x: Array) -> Array:
        walk = self._walk(x.shape)
        total = self._reduced(x, 0.0, jax.lax.add, walk)
        return total / jnp.broadcast_to(jnp.asarray(self._counts(walk), x.dtype), total.shape)


class GlobalAveragePool(Linear):
    """The mean of each plane: y[n, c] = mean over all spatial axes of x[n, c].

    Local gradient: a sum over the plane's n entries, divided by n. Backward: dx = upstream / n.

    Source: Lin et al., "Network in network" (arXiv:1312.4400, 2013), section 3.2.
    """

    shapes = "x (batch, channels, length, *more) -> (batch, channels)"
    drawn = "2x3x2x4; 3x2x5; 1x2x2x3x2; size-1 axes: 1x1x1x1; zero size: 0x3x2"

    def operator(self, x: Like) -> Operator:
        self.require(0 not in x.shape[2:], "a plane has no entry", x=x.shape)
        total = ops.sum_over(x.shape, tuple(range(2, len(x.shape))), x.dtype)
        return (1.0 / math.prod(x.shape[2:])) * total

    def reference(self, x: Array) -> Array:
        return jnp.mean(x, axis=tuple(range(2, x.ndim)))


class Im2col(Linear):
    """The windows of x as columns (im2col, unfold): y[n, (c, k), p] = x[n, c, place p, tap k].

    A convolution is then one matrix product: `kernel.reshape(channels out, -1) @ im2col(x)`.

    Shapes: x (batch, channels, *spatial), y (batch, channels * taps, places).

    Args:
        window: the window's sizes, one per spatial axis.
        stride: the step of the window; one number, or one per axis.
        padding: zeros on both sides; one number, or per axis a number or a pair (before, after).
        dilation: the step between taps; one number, or one per axis.

    Source: Chellapilla et al., "High performance convolutional neural networks for document
    processing" (2006).
    """

    window: Shape = (2, 2)
    stride: PerAxis = 1
    padding: Padding = 0
    dilation: PerAxis = 1
    drawn = (
        "2x2x3x3; 1x1x3x4 window=(2,3) stride=(1,2) padding=((0,1),2) dilation=(2,1); "
        "2x2x6 window=(3,) stride=2; size-1 axes: 1x1x1x1 window=(1,1); zero size: 0x2x3x3"
    )

    def _walk(self, shape: Shape) -> Windows:
        rank = len(self.window)
        self.require(
            len(shape) == rank + 2, f"expected {rank} axes after batch and channels", x=shape
        )
        return windows(self, shape[2:], self.window, self.stride, self.padding, self.dilation)

    def operator(self, x: Like) -> Operator:
        walk, (n, channels) = self._walk(x.shape), x.shape[:2]
        taken = take_operator(walk, x.shape, x.dtype)
        y_shape = (n, channels * walk.taps, math.prod(walk.places))
        return ops.Reshape(taken.output_shape, y_shape, x.dtype) @ taken

    def apply(self, xp: Namespace, x: Array) -> Applied:
        walk, (n, channels) = self._walk(x.shape), x.shape[:2]
        columns = walk.take(x).reshape(n, channels * walk.taps, math.prod(walk.places))
        return columns, (Like.of(x),)

    def pull(self, xp: Namespace, upstream: Array, x: Like) -> Pulled:
        walk = self._walk(x.shape)
        return walk.add(upstream.reshape(*x.shape[:2], *walk.window, *walk.places))

    def reference(self, x: Array) -> Array:
        rank = len(self.window)
        stride, dilation = (
            v if isinstance(v, tuple) else (v,) * rank for v in (self.stride, self.dilation)
        )
        y = jax.lax.conv_general_dilated_patches(
            x, self.window, stride, paddings(self, self.padding, rank), rhs_dilation=dilation
        )
        return jnp.reshape(y, (*y.shape[:2], math.prod(y.shape[2:])))


class Col2im(Linear):
    """Columns added back where their windows stand (col2im, fold): the transpose of im2col.

    y[n, c, i] = the sum of x[n, (c, k), p] over all taps k and places p that meet in i.

    Shapes: x (batch, channels * taps, places), y (batch, channels, *size).

    Args:
        size: the output's spatial sizes.
        window: the window's sizes, one per spatial axis.
        stride: the step of the window; one number, or one per axis.
        padding: what is cut off on both sides; one number, or per axis a number or a pair.
        dilation: the step between taps; one number, or one per axis.
    """

    size: Shape = (3, 3)
    window: Shape = (2, 2)
    stride: PerAxis = 1
    padding: Padding = 0
    dilation: PerAxis = 1
    drawn = (
        "2x8x4; 1x6x6 size=(3,4) window=(2,3) stride=(1,2) padding=((0,1),2) dilation=(2,1); "
        "2x6x2 size=(6,) window=(3,) stride=2; size-1 axes: 1x1x1 size=(1,1) window=(1,1); "
        "zero size: 0x8x4"
    )

    def _walk(self) -> Windows:
        return windows(self, self.size, self.window, self.stride, self.padding, self.dilation)

    def _channels(self, shape: Shape) -> int:
        walk = self._walk()
        places = math.prod(walk.places)
        fits = len(shape) == 3 and shape[1] % walk.taps == 0 and shape[2] == places
        self.require(fits, f"expected (batch, channels * {walk.taps}, {places})", x=shape)
        return shape[1] // walk.taps

    def operator(self, x: Like) -> Operator:
        y_shape = (x.shape[0], self._channels(x.shape), *self.size)
        taken = take_operator(self._walk(), y_shape, x.dtype)
        return taken.T @ ops.Reshape(x.shape, taken.output_shape, x.dtype)

    def apply(self, xp: Namespace, x: Array) -> Applied:
        walk, channels = self._walk(), self._channels(x.shape)
        y = walk.add(x.reshape(x.shape[0], channels, *walk.window, *walk.places))
        return y, (Like.of(x),)

    def pull(self, xp: Namespace, upstream: Array, x: Like) -> Pulled:
        return self._walk().take(upstream).reshape(x.shape)

    def reference(self, x: Array) -> Array:
        walk = self._walk()
        y = jax.ShapeDtypeStruct((x.shape[0], x.shape[1] // walk.taps, *self.size), x.dtype)
        node = Im2col(self.window, self.stride, self.padding, self.dilation)
        return jax.linear_transpose(node.reference, y)(x)[0]


class _Separable(Linear):
    """A node that maps each of the last axes by a fixed matrix."""

    size: Shape = (2, 2)

    @abstractmethod
    def matrix(self, entries: int, places: int) -> Array:
        """Return the matrix (places, entries) of one axis."""

    def operator(self, x: Like) -> Operator:
        """Return the product of one contraction for each axis."""
        rank, ndim = len(self.size), len(x.shape)
        fits = ndim >= rank and 0 not in x.shape[ndim - rank :] and min(self.size) > 0
        self.require(fits, "expected an axis for each entry of size, none empty", x=x.shape)
        whole: Operator = ops.Identity(x.shape, x.dtype)
        letters = ascii_lowercase[:ndim]
        for axis, places in zip(range(ndim - rank, ndim), self.size):
            rows, letter = self.matrix(x.shape[axis], places).astype(x.dtype), letters[axis]
            subscripts = f"Z{letter},{letters}->{letters.replace(letter, 'Z')}"
            whole = ops.Contraction(subscripts, rows, input_shape=whole.output_shape) @ whole
        return whole


class AdaptiveAveragePool(_Separable):
    """The means of as many bins as asked for: y[p] = mean of x[floor(p n / m) : ceil((p+1) n / m)].

    Shapes: x (..., *spatial), y (..., *size); n entries of an axis become m, in overlapping bins
    where m does not divide n.

    Args:
        size: how many bins each of the last axes gets.

    Local gradient: one matrix per axis, A[p, i] = 1 / bin's length where i lies in bin p, the same
    for each plane. Backward: dx = A_1^T upstream A_2.
    """

    drawn = (
        "2x2x3x4; 2x5x3 size=(3,2); 3x6 size=(4,); size-1 axes: 1x1x1 size=(3,3); "
        "zero size: 0x2x3x4"
    )

    def matrix(self, entries: int, places: int) -> Array:
        p, i = np.arange(places)[:, None], np.arange(entries)
        bins = (i >= p * entries // places) & (i < -(-(p + 1) * entries // places))
        return bins / bins.sum(axis=1, keepdims=True)

    def reference(self, x: Array) -> Array:
        for axis, m in zip(range(-len(self.size), 0), self.size):
            n = x.shape[axis]
            edges = [(p * n // m, math.ceil((p + 1) * n / m)) for p in range(m)]
            means = [jax.lax.slice_in_dim(x, *ends, axis=axis).mean(axis) for ends in edges]
            x = jnp.stack(means, axis)
        return x


class UpsampleBilinear(_Separable):
    """Linear interpolation along each of the last axes (bilinear along two) to a larger size.

    Entry p of m lies at (p + 1/2) n / m - 1/2 among the n entries, clamped to the first and the
    last: pixels are squares, and their corners are aligned (half-pixel centres, PyTorch's
    align_corners=False). y[p] = (1 - t) x[i] + t x[i + 1] for the place i + t.

    Shapes: x (..., *spatial), y (..., *size), no axis shorter than before.

    Args:
        size: the new sizes of the last axes.

    Local gradient: one matrix per axis with two entries in a row, 1 - t and t, the same for each
    plane. Backward: dx = A_1^T upstream A_2.
    """

    size: Shape = (4, 4)
    drawn = (
        "2x2x2x2; 2x2x3 size=(5,3); 3x4 size=(7,); size-1 axes: 1x1x1 size=(3,2); "
        "zero size: 0x2x2x2"
    )

    def matrix(self, entries: int, places: int) -> Array:
        self.require(
            places >= entries, f"{places} of {entries}: to shrink, use AdaptiveAveragePool"
        )
        at = self._steps(entries, places)[:, None]
        return np.maximum(0, 2 * places - np.abs(at - 2 * places * np.arange(entries))) / (
            2 * places
        )

    def _steps(self, entries: int, places: int) -> Array:
        """Return where each place lies, in steps of 1 / (2 places): integers, hence exact."""
        steps = (2 * np.arange(places) + 1) * entries - places
        return np.clip(steps, 0, 2 * places * (entries - 1))

    def reference(self, x: Array) -> Array:
        for axis, m in zip(range(-len(self.size), 0), self.size):
            rows, whole = jnp.moveaxis(x, axis, -1), 2 * m
            first, rest = np.divmod(self._steps(rows.shape[-1], m), whole)
            after = np.minimum(first + 1, rows.shape[-1] - 1)
            ends = ((first, (whole - rest) / whole), (after, rest / whole))
            parts = (
                jnp.einsum("...p,p->...p", rows[..., i], jnp.asarray(t, x.dtype)) for i, t in ends
            )
            x = jnp.moveaxis(sum(parts), -1, axis)
        return x


class UpsampleNearest(Linear):
    """Each entry repeated along the last axes: y[p] = x[p // scale].

    Shapes: x (..., *spatial), y (..., *(spatial * scale)).

    Args:
        scale: how often an entry is repeated, one number for each of the last axes.
    """

    scale: Shape = (2, 2)
    drawn = "2x1x2x3; 2x2x3 scale=(1,3); 3x4 scale=(2,); size-1 axes: 1x1x1; zero size: 0x2x2"

    def operator(self, x: Like) -> Operator:
        lead = len(x.shape) - len(self.scale)
        fits = lead >= 0 and min(self.scale, default=1) > 0
        self.require(fits, "expected an axis for each scale, all positive", x=x.shape)
        batch, pairs = x.shape[:lead], list(zip(x.shape[lead:], self.scale))
        narrow = batch + tuple(m for n, _ in pairs for m in (n, 1))
        wide = batch + tuple(m for pair in pairs for m in pair)
        y_shape, repeated = batch + tuple(n * s for n, s in pairs), range(lead + 1, len(wide), 2)
        return (
            ops.Reshape(wide, y_shape, x.dtype)
            @ ops.Broadcast(narrow, wide, x.dtype, axes=tuple(repeated))
            @ ops.Reshape(x.shape, narrow, x.dtype)
        )

    def reference(self, x: Array) -> Array:
        axes = zip(range(-len(self.scale), 0), self.scale)
        return reduce(lambda y, pair: jnp.repeat(y, pair[1], axis=pair[0]), axes, x)


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
    shapes = "x (batch, channels, height, width), grid (batch, rows, columns, 2)"
    drawn = (
        "1x2x3x4 [[[[-0.9,0.1],[0.3,-0.55]],[[0.85,0.95],[-0.2,0.4]]]]; "
        "1x2x4x3 [[[[-0.9,0.1],[0.3,-0.55]],[[0.85,0.95],[-0.2,0.4]]]] align_corners=False; "
        "2x1x2x3 2x1x3x2; outside: "
        "1x2x3x4 [[[[-1.3,0.1],[0.3,1.45]],[[5.0,-7.0],[1.1,1.1]]]] align_corners=False; "
        "all at one place: 1x1x3x3 [[[[0.3,0.3],[0.3,0.3],[0.3,0.3]]]]"
    )

    def apply(self, xp: Namespace, x: Array, grid: Array) -> Applied:
        self.require(0 not in x.shape[2:], "an image has no entry", x=x.shape)
        y = xp.zeros((), dtype=x.dtype)
        for index, weight, _ in self._corners(xp, x, grid):
            y = y + weight[:, None] * xp.reshape(x, (-1,))[index]
        return y.astype(x.dtype), (x, grid)

    def _corners(
        self, xp: Namespace, x: Array, grid: Array
    ) -> Iterator[tuple[Array, Array, Array]]:
        """Yield, for each pixel around a place, where it lies in x, its weight and the slopes.

        The index has y's shape; weights (batch, places, places); slopes the same and 2.
        """
        n, channels, height, width = x.shape
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

    def gradients(self, xp: Namespace, x: Array, grid: Array) -> Gradients:
        shape = (*x.shape[:2], *grid.shape[1:3])
        terms: list[Operator] = []
        blocks: Array = 0.0
        for index, weight, slope in self._corners(xp, x, grid):
            each = ops.Diagonal(xp.broadcast_to(weight[:, None], shape))
            terms.append(each @ ops.Selection(index, x.shape, x.dtype))
            values = xp.reshape(x, (-1,))[index]
            blocks = blocks + einsum("ncpq,npqd->npqcd", values, slope)
        n, channels, rows, columns = shape
        channels_first = ops.Permutation((0, 3, 1, 2), (n, rows, columns, channels), x.dtype)
        return sum(terms[1:], start=terms[0]), channels_first @ ops.BlockDiagonal(blocks)

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
