"""Convolution, as a sum over the taps of the kernel.

Each tap takes a strided slice of the padded input and mixes its channels by one matrix; transposed,
it mixes back and adds into that slice. Nothing of the size of the matrix, or of all windows, is
formed.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from gradlab.common.arrays import Array, Shape, as_shape, einsum, namespace, scalar
from gradlab.common.windows import Windows, paddings, per_axis
from gradlab.errors import InputError
from gradlab.operators.core import Number, Operator
from gradlab.patterns import Pattern, maps


class Convolution(Operator):
    """Cross-correlation with a kernel, as deep learning's convolution layers have it.

    Args:
        kernel: `(channels out, channels in / groups, *window)`.
        input_shape: `(batch, channels in, *spatial)`, any number of spatial axes.
        strides: The step of the window; one number or one per spatial axis.
        padding: Zeros on both sides; one number, or per spatial axis one or a pair (low, high).
        dilation: The step between the taps of the kernel; one number or one per spatial axis.
        groups: Into how many groups both kinds of channels are split; a group sees itself alone.

    Raises:
        InputError: If kernel, input and groups do not fit, or a step is not positive.

    Example:
        >>> import numpy as np
        >>> kernel = np.ones((16, 3, 3, 3), np.float32)
        >>> Convolution(kernel, (8, 3, 32, 32), padding=1)
        Convolution(8x16x32x32 <- 8x3x32x32, 1.7 kB; dense would be 12.0 GiB)
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

    def _taps(self) -> Iterator[tuple[Array, tuple[slice, ...]]]:
        """Yield each tap's matrices, `(groups, out, in)`, and the index of the padded input."""
        out = self.output_shape[1] // self.groups
        kernel = self.kernel.reshape((self.groups, out, *self.kernel.shape[1:]))
        for tap, where in self.windows.steps():
            yield kernel[(..., *tap)], where

    def _apply(self, x: Array) -> Array:
        xp, windows = namespace(self.kernel, x), self.windows
        x = windows.pad(xp.asarray(x)).reshape(self._grouped(self.input_shape[1], windows.padded))
        dtype = xp.result_type(x.dtype, self.dtype)
        total = xp.zeros(self._grouped(self.output_shape[1], windows.places), dtype=dtype)
        for matrices, where in self._taps():
            total = total + einsum("goi,bgi...->bgo...", matrices, x[where])
        return total.reshape(self.output_shape)

    def _apply_transposed(self, y: Array) -> Array:
        xp, windows = namespace(self.kernel, y), self.windows
        y = y.reshape(self._grouped(self.output_shape[1], windows.places))
        lead = self._grouped(self.input_shape[1], ())
        like = xp.zeros((), dtype=xp.result_type(y.dtype, self.dtype))
        parts = ((at, einsum("goi,bgo...->bgi...", taps, y)) for taps, at in self._taps())
        return windows.total(lead, like, parts).reshape(self.input_shape)

    def _grouped(self, channels: int, spatial: Shape) -> Shape:
        return (self.input_shape[0], self.groups, channels // self.groups, *spatial)

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
