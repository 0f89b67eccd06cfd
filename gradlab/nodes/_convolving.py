"""The three products of a convolution, and what its parameters and shapes must be.

A convolution with stride and dilation is a sum over the taps k of its kernel. With W_k the matrix
of tap k, and x_k the entries of the padded input that lie under it at the window's places:

    y = sum W_k x_k        gather    the convolution
    dx_k = W_k^T u         spread    its transpose: all dx_k are added where x_k was taken
    dW_k = u x_k^T         pair      the gradient of the kernel

No tap needs more than the size of y: the matrix of all windows (im2col) is never formed.
"""

from dataclasses import dataclass
from typing import ClassVar

from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.nodes._arrays import Array, Shape, namespace
from gradlab.nodes._base import Node
from gradlab.nodes._windows import Padding, PerAxis, Windows
from gradlab.operators import Convolution, Operator

__all__ = ["Walking", "gather", "pair", "spread"]


def gather(walk: Windows, w: Array, x: Array) -> Array:
    """Return the sum of W_k x_k: w (groups, o, c, *window), x (n, groups * c, *size)."""
    n, groups, rows = x.shape[0], w.shape[0], w.shape[2]
    x = walk.pad(x)
    y = sum(
        w[(None, ..., *tap)] @ x[where].reshape(n, groups, rows, walk.spots)
        for tap, where in walk.steps()
    )
    return y.reshape(n, groups * w.shape[1], *walk.places).astype(x.dtype)


def spread(walk: Windows, w: Array, u: Array) -> Array:
    """Return W_k^T u, added up: w (groups, o, c, *window), u (n, groups * o, *places)."""
    n, (groups, rows, columns) = u.shape[0], w.shape[:3]
    u = u.reshape(n, groups, rows, walk.spots)
    lead = (n, groups * columns)
    parts = (
        (where, (w[(None, ..., *tap)].swapaxes(-1, -2) @ u).reshape(*lead, *walk.places))
        for tap, where in walk.steps()
    )
    return walk.total(lead, u, parts)


def pair(walk: Windows, u: Array, x: Array, groups: int) -> Array:
    """Return u x_k^T, summed over the batch: (groups, o, c, *window)."""
    n, rows, columns = u.shape[0], u.shape[1] // groups, x.shape[1] // groups
    xp, x = namespace(x), walk.pad(x)
    turned = u.reshape(n, groups, rows, walk.spots).swapaxes(-1, -2)
    taps = [
        (x[where].reshape(n, groups, columns, walk.spots) @ turned).sum(axis=0)
        for _, where in walk.steps()
    ]
    kernel = xp.stack(taps, axis=-1).swapaxes(1, 2).astype(x.dtype)
    return kernel.reshape(groups, rows, columns, *walk.window)


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
