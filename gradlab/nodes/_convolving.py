"""What convolutions and transposed convolutions share: their parameters, shapes and operator."""

from dataclasses import dataclass
from typing import ClassVar

from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.nodes._arrays import Array, Shape
from gradlab.nodes._base import Node
from gradlab.nodes._windows import Padding, PerAxis, Windows
from gradlab.operators import Convolution, Operator

__all__ = ["Walking", "product", "turned"]


def product(a: Array, b: Array) -> Array:
    """Return a @ b in the dtype of b (NumPy would widen bfloat16)."""
    y = a @ b
    return y if y.dtype == b.dtype else y.astype(b.dtype)


def turned(a: Array) -> Array:
    """Return each matrix transposed."""
    return a.swapaxes(-1, -2)


@dataclass(frozen=True)
class Walking(Node):
    """A node whose kernel walks over the spatial axes."""

    stride: PerAxis = 1
    padding: Padding = 0
    dilation: PerAxis = 1

    rank: ClassVar[int]

    def group_count(self, channels: int) -> int:
        groups = getattr(self, "groups", channels)
        return int(groups)

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
        kernel = (
            "channels in, channels out / groups"
            if transposed
            else ("channels out, channels in / groups")
        )
        raise InputError(
            f"{self!r}: x has shape {shape_text(x.shape)}, w {shape_text(w.shape)} and b "
            f"{shape_text(b.shape)}; expected x (batch, channels in, {self.rank} spatial axes), "
            f"w ({kernel}, {self.rank} window axes) and b (channels out,)"
        )

    def as_operator(self, w: Array, x_shape: Shape, walk: Windows, groups: int) -> Operator:
        return Convolution(w, x_shape, walk.stride, walk.padding, walk.dilation, groups)
