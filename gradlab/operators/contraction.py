"""Contraction with fixed arrays: the local gradients of matrix products, of any einsum.

What an einsum does to one of its operands, the others held fixed, is linear; its transpose is the
einsum with output and operand exchanged.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from gradlab.errors import InputError
from gradlab.operators._arrays import Array, Shape, as_shape, einsum, result_type, scalar
from gradlab.operators.base import Operator
from gradlab.operators.reshape import Reshape

__all__ = ["Contraction", "left_multiplication", "right_multiplication"]


class Contraction(Operator):
    """An einsum of fixed arrays and x: `y = einsum(subscripts, *arrays, x)`.

    Args:
        subscripts: As in einsum, with x last: `"bmk,bkn->bmn"`. Letters only; none occurs twice in
            x or in the output, and each letter of x or the output occurs elsewhere too.
        arrays: The fixed arrays, at least one.
        input_shape: The shape of x.

    Raises:
        InputError: If the subscripts and the shapes do not belong together.

    Example:
        >>> import numpy as np
        >>> weights = np.ones((64, 10), np.float32)
        >>> Contraction("kn,bk->bn", weights, input_shape=(32, 64))
        Contraction(32x10 <- 32x64, 2.6 kB; dense would be 2.6 MB)
    """

    def __init__(self, subscripts: str, *arrays: Array, input_shape: Iterable[int]) -> None:
        input_shape = as_shape(input_shape)
        operands, _, output = subscripts.replace(" ", "").partition("->")
        *fixed, x = operands.split(",")
        self.letters, self.output_letters, self.input_letters = tuple(fixed), output, x
        sizes = self._sizes(subscripts, arrays, input_shape)
        super().__init__(
            [sizes[letter] for letter in output],
            input_shape,
            result_type(*(array.dtype for array in arrays)),
            arrays,
        )
        self.subscripts = f"{operands}->{output}"

    def _sizes(
        self, subscripts: str, arrays: tuple[Array, ...], input_shape: Shape
    ) -> dict[str, int]:
        """Return the size of each letter."""
        shapes = [*(tuple(array.shape) for array in arrays), input_shape]
        terms = [*self.letters, self.input_letters]
        where = f"Contraction({subscripts!r})"
        if len(terms) != len(shapes) or not arrays:
            raise InputError(f"{where}: {len(terms)} operands named, {len(shapes)} given")
        sizes: dict[str, int] = {}
        for term, shape in zip(terms, shapes):
            if len(term) != len(shape):
                raise InputError(f"{where}: '{term}' does not fit an array of shape {shape}")
            for letter, size in zip(term, shape):
                if sizes.setdefault(letter, size) != size:
                    raise InputError(
                        f"{where}: '{letter}' is {sizes[letter]} and {size}; shapes "
                        + ", ".join(map(str, shapes))
                    )
        known = set("".join(self.letters))
        pair = self.input_letters, self.output_letters
        for term, other in (pair, pair[::-1]):
            if len(set(term)) < len(term) or not set(term) <= known | set(other):
                raise InputError(
                    f"{where}: each letter of '{term}' must occur in it once, and elsewhere too"
                )
        return sizes

    def _apply(self, x: Array) -> Array:
        return einsum(self.subscripts, *self.arrays, x)

    @property
    def T(self) -> "Contraction":
        """The einsum with output and x exchanged."""
        operands = ",".join([*self.letters, self.output_letters])
        return Contraction(
            f"{operands}->{self.input_letters}", *self.arrays, input_shape=self.output_shape
        )

    def _scale(self, factor: Any) -> "Contraction":
        first, *rest = self.arrays
        first = scalar(factor, first) * first
        return Contraction(self.subscripts, first, *rest, input_shape=self.input_shape)


def left_multiplication(a: Array, b_shape: Sequence[int]) -> Operator:
    """Return the map `b -> a @ b`, by all of matmul's rules: vectors, batches, broadcasting.

    Args:
        a: The fixed left factor, `(*batch, m, k)` or `(k,)`.
        b_shape: The shape of b, `(*batch, k, n)` or `(k,)`.

    Raises:
        InputError: If `a @ b` is not defined for these shapes.

    Example:
        >>> import numpy as np
        >>> left_multiplication(np.ones((5, 1, 2, 3)), (7, 3, 4)).output_shape
        (5, 7, 2, 4)
    """
    fixed, moving, output = _matmul_letters(tuple(a.shape), as_shape(b_shape))
    return _multiplication(a, fixed, b_shape, moving, output)


def right_multiplication(b: Array, a_shape: Sequence[int]) -> Operator:
    """Return the map `a -> a @ b`, by all of matmul's rules: vectors, batches, broadcasting.

    Args:
        b: The fixed right factor, `(*batch, k, n)` or `(k,)`.
        a_shape: The shape of a, `(*batch, m, k)` or `(k,)`.

    Raises:
        InputError: If `a @ b` is not defined for these shapes.

    Example:
        >>> import numpy as np
        >>> right_multiplication(np.ones((64, 10), np.float32), (32, 64))
        Contraction(32x10 <- 32x64, 2.6 kB; dense would be 2.6 MB)
    """
    moving, fixed, output = _matmul_letters(as_shape(a_shape), tuple(b.shape))
    return _multiplication(b, fixed, a_shape, moving, output)


_BATCH = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _matmul_letters(a: Shape, b: Shape) -> tuple[str, str, str]:
    """Return the letters of both factors and of their product; `.` where an axis is repeated."""
    if not a or not b or a[-1] != b[-2:][0]:
        raise InputError(f"matmul: shapes {a} and {b} do not multiply: {a} @ {b}")
    batches = a[:-2], b[:-2]
    ndim = max(map(len, batches))
    names = _BATCH[:ndim]
    padded = [(1,) * (ndim - len(batch)) + batch for batch in batches]
    for one, other in zip(*padded):
        if one != other and 1 not in (one, other):
            raise InputError(f"matmul: batches of shapes {a} and {b} do not broadcast")
    sides = []
    for batch, other, own in (
        (padded[0], padded[1], len(batches[0])),
        (padded[1], padded[0], len(batches[1])),
    ):
        letters = [
            "." if size == 1 and many != 1 else name
            for name, size, many in zip(names, batch, other)
        ]
        sides.append("".join(letters[ndim - own :]))
    left = sides[0] + "mk"[-len(a) :]
    right = sides[1] + "kn"[: len(b)]
    return left, right, names + "m" * (len(a) > 1) + "n" * (len(b) > 1)


def _multiplication(
    fixed: Array, fixed_letters: str, shape: Sequence[int], letters: str, output: str
) -> Operator:
    """Return the contraction, after dropping the axes of size one that it repeats."""
    keep = [size for size, letter in zip(shape, letters) if letter != "."]
    array = fixed.reshape(
        [size for size, letter in zip(fixed.shape, fixed_letters) if letter != "."]
    )
    subscripts = f"{fixed_letters},{letters}->{output}".replace(".", "")
    contraction = Contraction(subscripts, array, input_shape=keep)
    return contraction @ Reshape(shape, keep, array.dtype)
