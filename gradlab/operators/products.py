"""Sums of products with fixed arrays: the local gradients of matrix products and running sums.

What an einsum does to one of its operands, the others held fixed, is linear. Its transpose is the
einsum with output and operand exchanged.
"""

from collections.abc import Iterable, Sequence

from gradlab.common.arrays import (
    Array,
    DTypeLike,
    Shape,
    as_shape,
    einsum,
    matmul,
    namespace,
    normal_axes,
    result_type,
    scalar,
)
from gradlab.errors import InputError
from gradlab.operators.core import Number, Operator, merges_sum
from gradlab.operators.moves import Reshape
from gradlab.patterns import Pattern, maps


class Contraction(Operator):
    """An einsum of fixed arrays and x: `y = einsum(subscripts, *arrays, x)`.

    Args:
        subscripts: As in einsum, with x last: `"bmk,bkn->bmn"`. Letters only; none occurs twice in
            x or in the output, and each letter of x or the output occurs elsewhere too.
        arrays: The fixed arrays, at least one.
        input_shape: The shape of x.

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
        operands = ",".join([*self.letters, self.output_letters])
        return Contraction(
            f"{operands}->{self.input_letters}", *self.arrays, input_shape=self.output_shape
        )

    @property
    def pattern(self) -> Pattern:
        equal = [
            (self.output_letters.index(letter), ~axis)
            for axis, letter in enumerate(self.input_letters)
            if letter in self.output_letters
        ]
        return Pattern.from_axes(self.output_shape, self.input_shape, equal)

    def scaled_by(self, factor: Number) -> "Contraction":
        first, *rest = self.arrays
        first = scalar(factor, first) * first
        return Contraction(self.subscripts, first, *rest, input_shape=self.input_shape)


@merges_sum(Contraction, Contraction)
def _contraction_and_contraction(a: Contraction, b: Contraction) -> Operator | None:
    if a.subscripts != b.subscripts or len(a.arrays) > 1:
        return None
    return Contraction(a.subscripts, a.arrays[0] + b.arrays[0], input_shape=a.input_shape)


def left_multiplication(a: Array, b_shape: Sequence[int]) -> Operator:
    """Return the map `b -> a @ b`, by all of matmul's rules: vectors, batches, broadcasting.

    Example:
        >>> import numpy as np
        >>> left_multiplication(np.ones((5, 1, 2, 3)), (7, 3, 4)).output_shape
        (5, 7, 2, 4)
    """
    fixed, moving, output = _matmul_letters(tuple(a.shape), as_shape(b_shape))
    return _multiplication(a, fixed, b_shape, moving, output)


def right_multiplication(b: Array, a_shape: Sequence[int]) -> Operator:
    """Return the map `a -> a @ b`, by all of matmul's rules: vectors, batches, broadcasting.

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


class CumulativeSum(Operator):
    """The cumulative sum along an axis.

    Example:
        >>> import numpy as np
        >>> running = CumulativeSum((3,), np.float64)
        >>> running.apply(np.array([1.0, 2.0, 3.0])), np.array([1.0, 2.0, 3.0]) @ running
        (array([1., 3., 6.]), array([6., 5., 3.]))
    """

    def __init__(
        self, shape: Sequence[int], dtype: DTypeLike, axis: int = -1, reverse: bool = False
    ) -> None:
        super().__init__(shape, shape, dtype)
        (self.axis,) = normal_axes(axis, self.input_shape, "CumulativeSum")
        self.reverse = reverse

    def _apply(self, x: Array) -> Array:
        xp, axis = namespace(x), self.axis
        if self.reverse:
            return xp.flip(xp.cumulative_sum(xp.flip(x, axis=axis), axis=axis), axis=axis)
        return xp.cumulative_sum(x, axis=axis)

    @property
    def T(self) -> "CumulativeSum":
        return CumulativeSum(self.input_shape, self.dtype, self.axis, not self.reverse)

    @property
    def pattern(self) -> Pattern:
        return maps.cumulative(self.input_shape, self.axis, self.reverse)


class LowerTriangular(Operator):
    """A causal map along an axis: `y[i] = sum over j <= i of entries[i, j] x[j]`.

    Args:
        entries: `(n, n)`, or `(*other axes, n, n)` with a matrix for each place of the other
            axes; what lies above the diagonal is not read.
        shape: The shape of input and output.
        axis: The axis of size n; negative ones count from the end.

    Example:
        >>> import numpy as np
        >>> LowerTriangular(np.array([[1.0, 9.0], [2.0, 3.0]]), (2,)).to_dense()
        array([[1., 0.],
               [2., 3.]])
    """

    transposed_name = "UpperTriangular"

    def __init__(self, entries: Array, shape: Sequence[int], axis: int = -1) -> None:
        shape = as_shape(shape)
        (self.axis,) = normal_axes(axis, shape, "LowerTriangular")
        size = shape[self.axis]
        batch = (*shape[: self.axis], *shape[self.axis + 1 :])
        if tuple(entries.shape) not in ((size, size), (*batch, size, size)):
            raise InputError(
                f"LowerTriangular: along axis {self.axis} of shape {shape}, expected entries of "
                f"shape {(size, size)} or {(*batch, size, size)}; got {tuple(entries.shape)}"
            )
        self.entries = namespace(entries).tril(entries)
        super().__init__(shape, shape, entries.dtype, (self.entries,))

    def _apply(self, x: Array) -> Array:
        return self._along(self.entries, x)

    def _apply_transposed(self, y: Array) -> Array:
        return self._along(namespace(self.entries).matrix_transpose(self.entries), y)

    def _along(self, entries: Array, x: Array) -> Array:
        xp = namespace(entries, x)
        rows = xp.moveaxis(x, self.axis, -1)
        return xp.moveaxis(matmul(entries, rows[..., None])[..., 0], -1, self.axis)

    @property
    def pattern(self) -> Pattern:
        return maps.cumulative(self.input_shape, self.axis)

    def scaled_by(self, factor: Number) -> "LowerTriangular":
        entries = scalar(factor, self.entries) * self.entries
        return LowerTriangular(entries, self.input_shape, self.axis)
