"""Convolution, as a sum over the taps k of the kernel; W_k is the matrix of one tap.

    y    = sum W_k x_k     correlate: x_k are the entries under tap k, a slice of the padded input
    dx_k = W_k^T u         correlate_back: its transpose adds all dx_k where x_k was taken

Nothing of the size of the matrix, or of all windows (im2col), is formed.
"""

from collections.abc import Sequence
from typing import Any

from gradlab.common.arrays import Array, as_shape, matmul, namespace, result_type, scalar
from gradlab.common.windows import Windows, paddings, per_axis
from gradlab.errors import InputError
from gradlab.operators.core import Number, Operator
from gradlab.patterns import Pattern, maps


def by_group(kernel: Array, groups: int) -> Array:
    """Return a kernel with an axis of groups in front: (groups, out / groups, in, *window)."""
    return kernel.reshape(groups, kernel.shape[0] // groups, *kernel.shape[1:])


def correlate(walk: Windows, w: Array, x: Array) -> Array:
    """Return the sum of W_k x_k: w (groups, o, c, *window), x (n, groups * c, *size)."""
    x = walk.pad(namespace(w, x).asarray(x))
    rows = (x.shape[0], w.shape[0], w.shape[2], walk.spots)
    terms = (matmul(w[(None, ..., *tap)], x[at].reshape(rows)) for tap, at in walk.steps())
    return sum(terms).reshape(x.shape[0], w.shape[0] * w.shape[1], *walk.places)


def correlate_back(walk: Windows, w: Array, u: Array) -> Array:
    """Return W_k^T u, added up: w (groups, o, c, *window), u (n, groups * o, *places)."""
    n, (groups, rows, columns), dtype = u.shape[0], w.shape[:3], result_type(w.dtype, u.dtype)
    u = namespace(w, u).asarray(u, dtype=dtype).reshape(n, groups, rows, walk.spots)
    lead = (n, groups * columns)
    parts = (
        (at, matmul(w[(None, ..., *tap)].swapaxes(-1, -2), u).reshape(*lead, *walk.places))
        for tap, at in walk.steps()
    )
    return walk.total(lead, u, parts)


class Convolution(Operator):
    """Cross-correlation with a kernel, as deep learning's convolution layers have it.

    Args:
        kernel: `(channels out, channels in / groups, *window)`.
        input_shape: `(batch, channels in, *spatial)`, any number of spatial axes.
        strides: The step of the window; one number or one per spatial axis.
        padding: Zeros on both sides; one number, or per spatial axis one or a pair (low, high).
        dilation: The step between the taps of the kernel; one number or one per spatial axis.
        groups: Into how many groups both kinds of channels are split; a group sees itself alone.

    Example:
        >>> import numpy as np
        >>> kernel = np.ones((16, 3, 3, 3), np.float32)
        >>> Convolution(kernel, (8, 3, 32, 32), padding=1)
        Convolution(8x16x32x32 <- 8x3x32x32, 1.7 kB; dense would be 12 GiB)
        >>> narrow = Convolution(np.array([[[1.0, 2.0, 3.0]]]), (1, 1, 4))
        >>> np.array([[[1.0, 10.0]]]) @ narrow
        array([[[ 1., 12., 23., 30.]]])
    """

    transposed_name = "TransposedConvolution"

    def __init__(
        self,
        kernel: Array,
        input_shape: Sequence[int],
        strides: int | Sequence[int] = 1,
        padding: int | Sequence[int | tuple[int, int]] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
    ) -> None:
        input_shape, shape = as_shape(input_shape), tuple(kernel.shape)
        if len(shape) < 3 or len(shape) != len(input_shape):
            raise InputError(
                "Convolution: expected input (batch, channels, *spatial) and kernel (channels out, "
                f"channels in / groups, *window); got shapes {input_shape} and {shape}"
            )
        if groups < 1 or input_shape[1] != groups * shape[1] or shape[0] % groups:
            raise InputError(
                f"Convolution: input {input_shape} and kernel {shape} do not fit {groups} groups: "
                "channels in must be groups times the kernel's second axis, and channels out "
                "a multiple of groups"
            )
        rank = len(shape) - 2
        self.kernel, self.groups = kernel, groups
        self.windows = Windows(
            input_shape[2:],
            shape[2:],
            per_axis("Convolution", "strides", _fixed(strides), rank),
            paddings("Convolution", _fixed(padding), rank),
            per_axis("Convolution", "dilation", _fixed(dilation), rank),
        )
        output_shape = (input_shape[0], shape[0], *self.windows.places)
        super().__init__(output_shape, input_shape, kernel.dtype, (kernel,))

    def _apply(self, x: Array) -> Array:
        return correlate(self.windows, self._by_group, x)

    def _apply_transposed(self, y: Array) -> Array:
        return correlate_back(self.windows, self._by_group, y)

    @property
    def _by_group(self) -> Array:
        return by_group(self.kernel, self.groups)

    @property
    def pattern(self) -> Pattern:
        w = self.windows
        spatial = [
            maps.window(size, places, taps, stride, low, dilation)
            for size, places, taps, stride, (low, _), dilation in zip(
                w.size, w.places, w.window, w.stride, w.padding, w.dilation
            )
        ]
        batch, channels, *_ = self.input_shape
        grouped = maps.grouped(self.output_shape[1], channels, self.groups)
        return maps.product(Pattern.identity((batch,)), grouped, *spatial)

    def scaled_by(self, factor: Number) -> "Convolution":
        kernel, w = scalar(factor, self.kernel) * self.kernel, self.windows
        return Convolution(kernel, self.input_shape, w.stride, w.padding, w.dilation, self.groups)


def _fixed(numbers: Any) -> Any:
    """Return a sequence of numbers as a tuple, and one number as it is."""
    return numbers if isinstance(numbers, int) else tuple(numbers)
