"""Block matrices of patterns: how several carried values of a loop read one another.

A loop's body is one step R from carried values to carried values. Powers of R are found by
squaring, so that a loop of a hundred thousand steps costs seventeen compositions.
"""

from collections.abc import Iterable, Mapping, Sequence

from gradlab.patterns import Pattern

__all__ = ["Matrix", "closure", "covers", "identity", "join", "power", "times"]

Matrix = Mapping[tuple[int, int], Pattern]
"""Patterns by (row, column); a missing block is zero."""

Shape = tuple[int, ...]

_ROUNDS = 64


def identity(shapes: Mapping[int, Shape] | Sequence[Shape]) -> Matrix:
    """Return the matrix in which every value reads itself."""
    items = shapes.items() if isinstance(shapes, Mapping) else enumerate(shapes)
    return {(k, k): Pattern.identity(shape) for k, shape in items}


def join(*matrices: Matrix) -> Matrix:
    """Return the union, block by block."""
    parts: dict[tuple[int, int], list[Pattern]] = {}
    for matrix in matrices:
        for place, pattern in matrix.items():
            parts.setdefault(place, []).append(pattern)
    return {place: _union(patterns) for place, patterns in parts.items()}


def times(a: Matrix, b: Matrix) -> Matrix:
    """Return what rows of `a` read through columns that are rows of `b`."""
    parts: dict[tuple[int, int], list[Pattern]] = {}
    for (row, middle), left in a.items():
        for (middle_, column), right in b.items():
            if middle == middle_:
                product = left @ right
                if not product.is_zero:
                    parts.setdefault((row, column), []).append(product)
    return {place: _union(patterns) for place, patterns in parts.items()}


def covers(a: Matrix, b: Matrix) -> bool:
    """Return whether `b` is proved to lie inside `a`."""
    return all(place in a and a[place].covers(pattern) for place, pattern in b.items())


def power(step: Matrix, exponent: int, shapes: Mapping[int, Shape]) -> Matrix:
    """Return what is read through exactly `exponent` steps."""
    result = identity(shapes)
    square = step
    while exponent:
        if exponent & 1:
            result = times(result, square)
        exponent >>= 1
        if exponent:
            following = times(square, square)
            if covers(square, following) and covers(following, square):
                return times(result, square)  # idempotent: every further power is the same
            square = following
    return result


def closure(step: Matrix, shapes: Mapping[int, Shape]) -> Matrix:
    """Return what is read through any number of steps, none included."""
    reached = join(identity(shapes), step)
    for _ in range(_ROUNDS):
        further = times(reached, reached)
        if covers(reached, further):
            return reached
        reached = join(reached, further)
    return {
        (row, column): Pattern.dense(shapes[row], shapes[column])
        for row in shapes
        for column in shapes
    }


def _union(patterns: Iterable[Pattern]) -> Pattern:
    first, *others = patterns
    return Pattern.union([first, *others]) if others else first
