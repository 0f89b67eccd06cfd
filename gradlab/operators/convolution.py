"""Convolution and its transpose, as a sum over the taps of the kernel.

Each tap takes a strided slice of the padded input and mixes its channels by one matrix; transposed,
it mixes back and adds into that slice. Nothing of the size of the matrix, or of all windows, is
formed. The arithmetic of sizes is that of Dumoulin and Visin, "A guide to convolution arithmetic
for deep learning" (arXiv:1603.07285, 2016).
"""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, TypeAlias

from gradlab.errors import InputError
from gradlab.operators._arrays import Array, Shape, add_at, as_shape, einsum, namespace, scalar
from gradlab.operators.base import Operator

__all__ = ["Convolution", "TransposedConvolution"]

PerAxis: TypeAlias = int | Sequence[int]


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
    """

    def __init__(
        self,
        kernel: Array,
        input_shape: Sequence[int],
        strides: PerAxis = 1,
        padding: int | Sequence[int | tuple[int, int]] = 0,
        dilation: PerAxis = 1,
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
        ndim = len(shape) - 2
        self.kernel, self.groups, self.window = kernel, groups, shape[2:]
        self.strides = _per_axis(strides, ndim, "strides")
        self.dilation = _per_axis(dilation, ndim, "dilation")
        self.padding = _pairs(padding, ndim)
        self._padded: Shape = tuple(
            size + low + high for size, (low, high) in zip(input_shape[2:], self.padding)
        )
        places = [
            max(0, (size - step * (taps - 1) - 1) // stride + 1)
            for size, taps, stride, step in zip(
                self._padded, self.window, self.strides, self.dilation
            )
        ]
        output_shape = (input_shape[0], shape[0], *places)
        super().__init__(output_shape, input_shape, kernel.dtype, (kernel,))

    def _taps(self) -> Iterator[tuple[Array, tuple[slice, ...]]]:
        """Yield each tap's matrices, `(groups, out, in)`, and the slice of the padded input."""
        places = self.output_shape[2:]
        kernel = self.kernel.reshape(
            (self.groups, self.output_shape[1] // self.groups, *self.kernel.shape[1:])
        )
        for offset in product(*map(range, self.window)):
            starts = [i * step for i, step in zip(offset, self.dilation)]
            spatial = [
                slice(start, start + stride * count, stride)
                for start, stride, count in zip(starts, self.strides, places)
            ]
            yield kernel[(..., *offset)], (slice(None), slice(None), slice(None), *spatial)

    def _apply(self, x: Array) -> Array:
        xp = namespace(self.kernel, x)
        x = xp.pad(x, ((0, 0), (0, 0), *self.padding))
        x = x.reshape(self._grouped(self.input_shape[1], self._padded))
        places = self.output_shape[2:]
        dtype = xp.result_type(x.dtype, self.dtype)
        total = xp.zeros(self._grouped(self.output_shape[1], places), dtype=dtype)
        for matrices, where in self._taps():
            total = total + einsum("goi,bgi...->bgo...", matrices, x[where])
        return total.reshape(self.output_shape)

    def _apply_transposed(self, y: Array) -> Array:
        xp = namespace(self.kernel, y)
        y = y.reshape(self._grouped(self.output_shape[1], self.output_shape[2:]))
        dtype = xp.result_type(y.dtype, self.dtype)
        total = xp.zeros(self._grouped(self.input_shape[1], self._padded), dtype=dtype)
        for matrices, where in self._taps():
            total = add_at(total, where, einsum("goi,bgo...->bgi...", matrices, y))
        total = total.reshape((*self.input_shape[:2], *self._padded))
        inside = [
            slice(low, low + size) for size, (low, _) in zip(self.input_shape[2:], self.padding)
        ]
        return total[(slice(None), slice(None), *inside)]

    def _grouped(self, channels: int, spatial: Shape) -> Shape:
        return (self.input_shape[0], self.groups, channels // self.groups, *spatial)

    @property
    def T(self) -> "TransposedConvolution":
        """The transposed convolution, which adds each output back into its window."""
        return TransposedConvolution(self)

    def _scale(self, factor: Any) -> "Convolution":
        kernel = scalar(factor, self.kernel) * self.kernel
        return Convolution(
            kernel, self.input_shape, self.strides, self.padding, self.dilation, self.groups
        )


class TransposedConvolution(Operator):
    """The transpose of a convolution: the gradient with respect to its input.

    Args:
        convolution: The convolution that is transposed.

    Example:
        >>> import numpy as np
        >>> convolution = Convolution(np.array([[[1.0, 2.0, 3.0]]]), (1, 1, 4))
        >>> TransposedConvolution(convolution).apply(np.array([[[1.0, 10.0]]]))
        array([[[ 1., 12., 23., 30.]]])
    """

    def __init__(self, convolution: Convolution) -> None:
        super().__init__(
            convolution.input_shape,
            convolution.output_shape,
            convolution.dtype,
            convolution.arrays,
        )
        self.convolution = convolution

    def _apply(self, x: Array) -> Array:
        return self.convolution._apply_transposed(x)

    @property
    def T(self) -> Convolution:
        """The convolution itself."""
        return self.convolution

    def _scale(self, factor: Any) -> "TransposedConvolution":
        return TransposedConvolution(self.convolution._scale(factor))


def _per_axis(value: PerAxis, ndim: int, argument: str) -> tuple[int, ...]:
    steps = (value,) * ndim if isinstance(value, int) else tuple(value)
    if len(steps) != ndim or any(step < 1 for step in steps):
        raise InputError(
            f"Convolution: {argument} must be one positive number or one for each of the {ndim} "
            f"spatial axes; got {value}"
        )
    return steps


def _pairs(padding: Any, ndim: int) -> tuple[tuple[int, int], ...]:
    sides = (padding,) * ndim if isinstance(padding, int) else padding
    pairs = tuple((side, side) if isinstance(side, int) else tuple(side) for side in sides)
    if len(pairs) != ndim or any(len(pair) != 2 or min(pair) < 0 for pair in pairs):
        raise InputError(
            "Convolution: padding must be one number, or one number or pair (low, high) for each "
            f"of the {ndim} spatial axes, none negative; got {padding}"
        )
    return pairs
