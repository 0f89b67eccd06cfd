"""Operators made of operators: products, sums and multiples that nothing simpler equals.

They are built by `@`, `+` and `*`, which simplify first.
"""

from typing import Any

import numpy as np

from gradlab.operators._arrays import Array, result_type, scalar
from gradlab.operators.base import Operator

__all__ = ["Product", "Scaled", "SumOfOperators"]


class Product(Operator):
    """The composition of operators: the last is applied first.

    Args:
        factors: At least one, each one's `input_shape` being the next one's `output_shape`.

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
            result_type(*(factor.dtype for factor in factors)),
            tuple(array for factor in factors for array in factor.arrays),
        )
        self.factors = factors

    def _apply(self, x: Array) -> Array:
        for factor in reversed(self.factors):
            x = factor._apply(x)
        return x

    @property
    def T(self) -> "Product":
        """The transposes in reverse order."""
        return Product(*(factor.T for factor in reversed(self.factors)))

    def _scale(self, factor: Any) -> Operator:
        for i, one in enumerate(self.factors):
            scaled = one._scale(factor)
            if not isinstance(scaled, Scaled):
                return Product(*self.factors[:i], scaled, *self.factors[i + 1 :])
        return Scaled(factor, self)

    @property
    def name(self) -> str:
        """The factors' names."""
        return " @ ".join(_grouped(factor) for factor in self.factors)


class SumOfOperators(Operator):
    """The sum of operators of the same shapes.

    Args:
        terms: At least one.

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
            result_type(*(term.dtype for term in terms)),
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
    def T(self) -> "SumOfOperators":
        """The sum of the transposes."""
        return SumOfOperators(*(term.T for term in self.terms))

    def _scale(self, factor: Any) -> Operator:
        return SumOfOperators(*(term._scale(factor) for term in self.terms))

    @property
    def name(self) -> str:
        """The terms' names."""
        return " + ".join(term.name for term in self.terms)


class Scaled(Operator):
    """A number times an operator that has no array to take the number in.

    Args:
        factor: A number, or an array of shape `()`.
        operator: The operator that is multiplied.

    Example:
        >>> import numpy as np
        >>> from gradlab.operators import Sum
        >>> mean = 0.25 * Sum.over((4,), None, np.float64)
        >>> float(mean.apply(np.array([1.0, 2.0, 3.0, 6.0])))
        3.0
    """

    def __init__(self, factor: Any, operator: Operator) -> None:
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
        """The multiple of the transpose."""
        return Scaled(self.factor, self.operator.T)

    def _scale(self, factor: Any) -> Operator:
        return self.operator._scale(factor * self.factor)

    @property
    def name(self) -> str:
        """The operator's name after the number, if that is known."""
        known = isinstance(self.factor, int | float)
        number = "-" if known and self.factor == -1 else f"{self.factor:g} * " if known else "c * "
        return f"{number}{_grouped(self.operator)}"


def _grouped(operator: Operator) -> str:
    """Return an operator's name as a factor: a sum in parentheses."""
    compound = isinstance(operator, SumOfOperators | Scaled)
    return f"({operator.name})" if compound else operator.name
