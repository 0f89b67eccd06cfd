"""The base of all structured linear maps, and what `@`, `+`, `*` and `.T` make of them.

A local gradient is the Jacobian of one output with respect to one input. Both are arrays, so it is
thought of as a matrix over their entries in C order, but it is stored by its structure: backward is
`upstream @ gradient` and needs no matrix.

Two neighbours in a product, or two terms of a sum, are merged as long as a rule applies. Each
family registers the rules for its classes, with `merges_product` and `merges_sum`. A rule takes
both operators and returns the one that equals them, or None where keeping both is cheaper. A rule
for `a @ b` also serves `b.T @ a.T`, so no rule is written twice.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from functools import reduce
from typing import Any, ClassVar, TypeAlias, TypeVar, overload

import numpy as np

from gradlab.common.arrays import (
    Array,
    DType,
    DTypeLike,
    Shape,
    as_shape,
    map_columns,
    matmul,
    namespace,
    result_type,
    scalar,
)
from gradlab.errors import InputError, InputTypeError
from gradlab.formatting import shape_text, size_text
from gradlab.patterns import Pattern

Number: TypeAlias = Any  # an int, a float, a complex number, or an array of shape ()


class Operator(ABC):
    """A linear map from arrays of `input_shape` to arrays of `output_shape`.

    A class defines `_apply`, and either its own `T` or `_apply_transposed`.

    Attributes:
        output_shape: The shape of what it returns.
        input_shape: The shape of what it takes.
        dtype: The dtype of the matrix that it stands for.
        arrays: The arrays that it stores; NumPy's, JAX's, or tracers of JAX.

    Example:
        >>> import numpy as np
        >>> from gradlab.operators import Diagonal
        >>> tanh_gradient = Diagonal(1 - np.tanh(np.zeros((100, 4096), np.float32)) ** 2)
        >>> tanh_gradient
        Diagonal(100x4096, 1.6 MB; dense would be 625 GiB)
        >>> upstream = np.ones((100, 4096), np.float32)
        >>> (upstream @ tanh_gradient).shape
        (100, 4096)
    """

    # NumPy then leaves `array @ operator` and `number * operator` to the operator.
    __array_ufunc__ = None

    transposed_name: ClassVar[str] = ""
    """The name of the transpose's structure, if that is a view of this class."""

    def __init__(
        self,
        output_shape: Iterable[int],
        input_shape: Iterable[int],
        dtype: DTypeLike,
        arrays: tuple[Array, ...] = (),
    ) -> None:
        self.output_shape: Shape = as_shape(output_shape)
        self.input_shape: Shape = as_shape(input_shape)
        self.dtype: DType = np.dtype(dtype)
        self.arrays = arrays

    @abstractmethod
    def _apply(self, x: Array) -> Array:
        """Return the image of an array that has the right shape."""

    def _apply_transposed(self, y: Array) -> Array:
        """Return the image under the transpose of an array that has the right shape."""
        raise NotImplementedError(f"{self.name} has a transpose of its own")

    @property
    def T(self) -> "Operator":
        """The transpose: it maps an upstream back to the input."""
        return Transposed(self)

    @property
    def pattern(self) -> Pattern:
        """Which output entries may depend on which input entries.

        It is read from the structure alone: a stored number that happens to be zero counts.
        """
        return Pattern.dense(self.output_shape, self.input_shape)

    def scaled_by(self, factor: Number) -> "Operator":
        """Return `factor * self`, with the number taken into the arrays where there are any."""
        return Scaled(factor, self)

    @property
    def name(self) -> str:
        """The name of its structure, as a person reads it."""
        return type(self).__name__

    @property
    def is_identity(self) -> bool:
        """Whether it is known to return every array as it came."""
        return False

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of its matrix: output entries by input entries."""
        return math.prod(self.output_shape), math.prod(self.input_shape)

    @property
    def stored_bytes(self) -> int:
        """The bytes of the arrays that it holds."""
        return sum(math.prod(array.shape) * array.dtype.itemsize for array in self.arrays)

    @property
    def dense_bytes(self) -> int:
        """The bytes that its matrix would take."""
        return math.prod(self.shape) * self.dtype.itemsize

    def apply(self, x: Array) -> Array:
        """Return the image of an array; of a tangent, this is the pushforward.

        Example:
            >>> import numpy as np
            >>> from gradlab.operators import sum_over
            >>> sum_over((2, 3), 1, np.float64).apply(np.ones((2, 3)))
            array([3., 3.])
        """
        if not hasattr(x, "shape"):
            raise InputTypeError(
                f"{self.name}.apply: expected an array of shape {self.input_shape}; "
                f"got {type(x).__name__}; wrap it in numpy.asarray"
            )
        if tuple(x.shape) != self.input_shape:
            raise InputError(
                f"{self.name}.apply: expected an array of shape {self.input_shape}; "
                f"got one of shape {tuple(x.shape)}"
            )
        return self._apply(x)

    def to_dense(self, max_bytes: int = 2**30) -> Array:
        """Return the matrix, of shape `.shape`, in the namespace of the operator's arrays.

        Args:
            max_bytes: The most that the matrix may take.

        Raises:
            InputError: If it takes more; nothing has been allocated then.

        Example:
            >>> import numpy as np
            >>> from gradlab.operators import Permutation
            >>> Permutation((1, 0), (2, 2), np.float64).to_dense().astype(int)
            array([[1, 0, 0, 0],
                   [0, 0, 1, 0],
                   [0, 1, 0, 0],
                   [0, 0, 0, 1]])
        """
        rows, columns = self.shape
        if self.dense_bytes > max_bytes:
            raise InputError(
                f"to_dense: the dense {rows:,} x {columns:,} matrix takes "
                f"{size_text(self.dense_bytes)}, more than max_bytes={size_text(max_bytes)}; the "
                f"operator holds {size_text(self.stored_bytes)}: use apply, @ and .T, or raise "
                "max_bytes"
            )
        return self._dense()

    def _dense(self) -> Array:
        xp = namespace(*self.arrays)
        rows, columns = self.shape
        if rows * columns == 0:
            return xp.zeros((rows, columns), dtype=self.dtype)
        basis = xp.eye(columns, dtype=self.dtype)
        return map_columns(self._apply, basis, self.input_shape)

    @overload
    def __matmul__(self, other: "Operator") -> "Operator": ...
    @overload
    def __matmul__(self, other: Array) -> Array: ...
    def __matmul__(self, other: "Operator | Array") -> "Operator | Array":
        return product(self, other) if isinstance(other, Operator) else self.apply(other)

    def __rmatmul__(self, upstream: Array) -> Array:
        return self.T.apply(upstream)

    def __add__(self, other: object) -> "Operator":
        return add(self, other) if isinstance(other, Operator) else NotImplemented

    def __sub__(self, other: object) -> "Operator":
        return self + (-other) if isinstance(other, Operator) else NotImplemented

    def __mul__(self, factor: Number) -> "Operator":
        if isinstance(factor, Operator):
            raise InputTypeError(
                f"{self.name} * {factor.name}: only a number multiplies an operator; "
                "write a @ b for the composition"
            )
        if getattr(factor, "shape", ()) != ():
            raise InputError(
                f"number * {self.name}: expected a number; got an array of shape {factor.shape}; "
                "write Diagonal(array) @ operator to multiply entry by entry"
            )
        if isinstance(factor, int | float) and factor == 1:
            return self
        return self.scaled_by(float(factor) if isinstance(factor, np.float64) else factor)

    __rmul__ = __mul__

    def __neg__(self) -> "Operator":
        return self.scaled_by(-1)

    def __repr__(self) -> str:
        shapes = shape_text(self.output_shape)
        if self.output_shape != self.input_shape:
            shapes += f" <- {shape_text(self.input_shape)}"
        size = size_text(self.stored_bytes)
        if self.stored_bytes != self.dense_bytes:
            size += f"; dense would be {size_text(self.dense_bytes)}"
        return f"{self.name}({shapes}, {size})"


class Transposed(Operator):
    """The transpose of an operator, as a view: it stores what the operator stores.

    Example:
        >>> import numpy as np
        >>> from gradlab.operators import Broadcast
        >>> Transposed(Broadcast((3,), (2, 3), np.float64))
        Sum(3 <- 2x3, 0 B; dense would be 144 B)
    """

    def __init__(self, operator: Operator) -> None:
        super().__init__(
            operator.input_shape, operator.output_shape, operator.dtype, operator.arrays
        )
        self.operator = operator

    def _apply(self, x: Array) -> Array:
        return self.operator._apply_transposed(x)

    @property
    def T(self) -> Operator:
        return self.operator

    @property
    def pattern(self) -> Pattern:
        return self.operator.pattern.T

    @property
    def is_identity(self) -> bool:
        return self.operator.is_identity

    @property
    def name(self) -> str:
        return self.operator.transposed_name

    def scaled_by(self, factor: Number) -> Operator:
        return self.operator.scaled_by(factor).T


class Zero(Operator):
    """The map to zero: the output does not depend on the input."""

    def _apply(self, x: Array) -> Array:
        return namespace(x).zeros(self.output_shape, dtype=x.dtype)

    @property
    def T(self) -> "Zero":
        return Zero(self.input_shape, self.output_shape, self.dtype)

    @property
    def pattern(self) -> Pattern:
        return Pattern.zero(self.output_shape, self.input_shape)

    def scaled_by(self, factor: Number) -> "Zero":
        return self


class Identity(Operator):
    """The map that returns its input.

    Example:
        >>> import numpy as np
        >>> Identity((100, 4096), np.float32)
        Identity(100x4096, 0 B; dense would be 625 GiB)
    """

    def __init__(self, shape: Iterable[int], dtype: DTypeLike) -> None:
        shape = tuple(shape)
        super().__init__(shape, shape, dtype)

    def _apply(self, x: Array) -> Array:
        return x

    @property
    def T(self) -> "Identity":
        return self

    @property
    def pattern(self) -> Pattern:
        return Pattern.identity(self.input_shape)

    @property
    def is_identity(self) -> bool:
        return True


class Dense(Operator):
    """The map without structure: a matrix over the flat entries of output and input.

    Example:
        >>> import numpy as np
        >>> Dense(np.ones((10, 64), np.float32), (10,), (64,))
        Dense(10 <- 64, 2.6 kB)
    """

    def __init__(
        self, matrix: Array, output_shape: Iterable[int], input_shape: Iterable[int]
    ) -> None:
        super().__init__(output_shape, input_shape, matrix.dtype, (matrix,))
        if tuple(matrix.shape) != self.shape:
            raise InputError(
                f"Dense: a map from {self.input_shape} to {self.output_shape} has a matrix of "
                f"shape {self.shape}; got {tuple(matrix.shape)}"
            )
        self.matrix = matrix

    def _apply(self, x: Array) -> Array:
        flat = matmul(self.matrix, x.reshape(-1))
        return flat.reshape(self.output_shape)

    @property
    def T(self) -> "Dense":
        return Dense(self.matrix.T, self.input_shape, self.output_shape)

    def to_dense(self, max_bytes: int = 2**30) -> Array:
        return self.matrix

    def scaled_by(self, factor: Number) -> "Dense":
        matrix = scalar(factor, self.matrix) * self.matrix
        return Dense(matrix, self.output_shape, self.input_shape)


class Product(Operator):
    """The composition of operators that nothing simpler equals: the last is applied first.

    Example:
        >>> import numpy as np
        >>> from gradlab.operators import Broadcast, Diagonal
        >>> Diagonal(np.ones((32, 10), np.float32)) @ Broadcast((10,), (32, 10), np.float32)
        Diagonal @ Broadcast(32x10 <- 10, 1.3 kB; dense would be 12.8 kB)
    """

    def __init__(self, *factors: Operator) -> None:
        super().__init__(
            factors[0].output_shape,
            factors[-1].input_shape,
            common_dtype(*factors),
            tuple(array for factor in factors for array in factor.arrays),
        )
        self.factors = factors

    def _apply(self, x: Array) -> Array:
        for factor in reversed(self.factors):
            x = factor._apply(x)
        return x

    @property
    def T(self) -> "Product":
        return Product(*(factor.T for factor in reversed(self.factors)))

    @property
    def pattern(self) -> Pattern:
        return reduce(lambda after, before: after @ before, (f.pattern for f in self.factors))

    def scaled_by(self, factor: Number) -> Operator:
        for i, one in enumerate(self.factors):
            scaled = one.scaled_by(factor)
            if not isinstance(scaled, Scaled):
                return Product(*self.factors[:i], scaled, *self.factors[i + 1 :])
        return Scaled(factor, self)

    @property
    def name(self) -> str:
        return " @ ".join(_in_parentheses(factor) for factor in self.factors)


class OperatorSum(Operator):
    """The sum of operators of the same shapes that nothing simpler equals.

    Example:
        >>> import numpy as np
        >>> from gradlab.operators import Diagonal, Permutation
        >>> Diagonal(np.ones((3, 3))) + Permutation((1, 0), (3, 3), np.float64)
        Diagonal + Permutation(3x3, 72 B; dense would be 648 B)
    """

    def __init__(self, *terms: Operator) -> None:
        super().__init__(
            terms[0].output_shape,
            terms[0].input_shape,
            common_dtype(*terms),
            tuple(array for term in terms for array in term.arrays),
        )
        self.terms = terms

    def _apply(self, x: Array) -> Array:
        first, *rest = self.terms
        total = first._apply(x)
        for term in rest:
            total = total + term._apply(x)
        return total

    @property
    def T(self) -> "OperatorSum":
        return OperatorSum(*(term.T for term in self.terms))

    @property
    def pattern(self) -> Pattern:
        return Pattern.union([term.pattern for term in self.terms])

    def scaled_by(self, factor: Number) -> Operator:
        return OperatorSum(*(term.scaled_by(factor) for term in self.terms))

    @property
    def name(self) -> str:
        return " + ".join(term.name for term in self.terms)


class Scaled(Operator):
    """A number times an operator that has no array to take the number in.

    Example:
        >>> import numpy as np
        >>> from gradlab.operators import sum_over
        >>> mean = 0.25 * sum_over((4,), None, np.float64)
        >>> float(mean.apply(np.array([1.0, 2.0, 3.0, 6.0])))
        3.0
    """

    def __init__(self, factor: Number, operator: Operator) -> None:
        arrays = (factor,) if hasattr(factor, "dtype") else ()
        least = np.complex64 if isinstance(factor, complex) else operator.dtype
        super().__init__(
            operator.output_shape,
            operator.input_shape,
            result_type(operator.dtype, least, *(array.dtype for array in arrays)),
            (*arrays, *operator.arrays),
        )
        self.factor, self.operator = factor, operator

    def _apply(self, x: Array) -> Array:
        image = self.operator._apply(x)
        return scalar(self.factor, image) * image

    @property
    def T(self) -> "Scaled":
        return Scaled(self.factor, self.operator.T)

    @property
    def pattern(self) -> Pattern:
        return self.operator.pattern

    def scaled_by(self, factor: Number) -> Operator:
        return self.operator.scaled_by(factor * self.factor)

    @property
    def name(self) -> str:
        known = isinstance(self.factor, int | float)
        number = "-" if known and self.factor == -1 else f"{self.factor:g} * " if known else "c * "
        return f"{number}{_in_parentheses(self.operator)}"


def _in_parentheses(operator: Operator) -> str:
    """Return an operator's name as a factor: a sum in parentheses."""
    compound = isinstance(operator, OperatorSum | Scaled)
    return f"({operator.name})" if compound else operator.name


def common_dtype(*operators: Operator) -> DType:
    """Return the dtype that holds the entries of all the operators."""
    return result_type(*(operator.dtype for operator in operators))


Kinds: TypeAlias = tuple[type[Operator], type[Operator]]
Rule: TypeAlias = Callable[[Any, Any], Operator | None]
R = TypeVar("R", bound=Rule)
PRODUCTS: dict[Kinds, Rule] = {}
SUMS: dict[Kinds, Rule] = {}


def merges_product(left: type[Operator], right: type[Operator]) -> Callable[[R], R]:
    """Register a rule for `left @ right`; the right one is applied first."""
    return lambda rule: PRODUCTS.setdefault((left, right), rule)  # type: ignore[return-value]


def merges_sum(first: type[Operator], second: type[Operator]) -> Callable[[R], R]:
    """Register a rule for `first + second`; it holds for both orders of its two terms."""
    return lambda rule: SUMS.setdefault((first, second), rule)  # type: ignore[return-value]


def product(left: Operator, right: Operator) -> Operator:
    """Return `left @ right`, right applied first, as simple as the rules make it."""
    if left.input_shape != right.output_shape:
        raise InputError(
            f"{left.name} @ {right.name}: the left takes arrays of shape {left.input_shape}; "
            f"the right returns shape {right.output_shape}"
        )
    if isinstance(left, Scaled):
        return product(left.operator, right).scaled_by(left.factor)
    if isinstance(right, Scaled):
        return product(left, right.operator).scaled_by(right.factor)
    if isinstance(left, Zero) or isinstance(right, Zero):
        return Zero(left.output_shape, right.input_shape, common_dtype(left, right))
    *before, last = left.factors if isinstance(left, Product) else (left,)
    first, *after = right.factors if isinstance(right, Product) else (right,)
    merged = _merged(last, first)
    if merged is None:
        return Product(*before, last, first, *after)
    # What two neighbours became may now merge with theirs; there is one factor less each time.
    return reduce(product, [*before, merged, *after])


def _merged(left: Operator, right: Operator) -> Operator | None:
    """Return the one operator that two neighbours become, or None."""
    if right.is_identity:
        return left
    if left.is_identity:
        return right
    rule = PRODUCTS.get((type(left), type(right)))
    if rule is not None:
        return rule(left, right)
    rule = PRODUCTS.get((_kind_of_transpose(right), _kind_of_transpose(left)))
    if rule is not None:
        merged = rule(right.T, left.T)
    elif isinstance(left, Dense):
        return _absorb(left, right)
    else:
        merged = _absorb(right.T, left.T) if isinstance(right, Dense) else None
    return None if merged is None else merged.T


def _kind_of_transpose(operator: Operator) -> type[Operator]:
    """Return the class of an operator's transpose, without forming it."""
    if isinstance(operator, Transposed):
        return type(operator.operator)
    return Transposed if operator.transposed_name else type(operator)


def _absorb(dense: Dense, right: Operator) -> Operator | None:
    """Return `dense @ right` as one matrix, where that is no larger than the two kept apart."""
    rows, columns = dense.shape[0], right.shape[1]
    if rows * columns > rows * dense.shape[1] + right.stored_bytes // right.dtype.itemsize:
        return None
    if rows * columns == 0:
        return Zero(dense.output_shape, right.input_shape, common_dtype(dense, right))
    matrix = map_columns(right.T.apply, dense.matrix.T, right.output_shape).T
    return Dense(matrix, dense.output_shape, right.input_shape)


def add(first: Operator, second: Operator) -> Operator:
    """Return `first + second`, as simple as the rules make it."""
    shapes = [(term.output_shape, term.input_shape) for term in (first, second)]
    if shapes[0] != shapes[1]:
        (out, into), (other_out, other_into) = shapes
        raise InputError(
            f"{first.name} + {second.name}: the first maps shape {into} to {out}; "
            f"the second maps {other_into} to {other_out}"
        )
    terms: list[Operator] = []
    for operator in (first, second):
        for term in operator.terms if isinstance(operator, OperatorSum) else (operator,):
            _collect(terms, term)
    return terms[0] if len(terms) == 1 else OperatorSum(*terms)


def _collect(terms: list[Operator], term: Operator) -> None:
    """Add a term, merged with those that are there as long as a rule applies."""
    if term.is_identity:
        term = Identity(term.input_shape, term.dtype)
    for i, other in enumerate(terms):
        merged = _merged_terms(other, term)
        if merged is not None:
            del terms[i]
            _collect(terms, merged)
            return
    terms.append(term)


def _merged_terms(one: Operator, other: Operator) -> Operator | None:
    """Return the one operator that two terms become, or None."""
    for first, second in (one, other), (other, one):
        if isinstance(first, Zero):
            return second
        if isinstance(first, Dense):
            total = first.matrix + second.to_dense(second.dense_bytes)
            return Dense(total, one.output_shape, one.input_shape)
        rule = SUMS.get((type(first), type(second)))
        if rule is not None:
            return rule(first, second)
    return None


@merges_sum(Identity, Identity)
def _twice(a: Identity, b: Identity) -> Operator:
    return 2 * a
