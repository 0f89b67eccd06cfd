"""The pattern of every operator: which output entries may depend on which input entries.

Read from the structure alone, never from the numbers: a factor that happens to be zero counts.
"""

import math
from functools import reduce, singledispatch

import numpy as np

from gradlab.operators.base import Operator
from gradlab.operators.block import BlockDiagonal
from gradlab.operators.broadcast import Broadcast, Sum
from gradlab.operators.compose import Product, Scaled, SumOfOperators
from gradlab.operators.contraction import Contraction
from gradlab.operators.convolution import Convolution, TransposedConvolution
from gradlab.operators.dense import Dense
from gradlab.operators.diagonal import Diagonal
from gradlab.operators.kronecker import Kronecker
from gradlab.operators.low_rank import DiagonalPlusLowRank
from gradlab.operators.reshape import Permutation, Reshape
from gradlab.operators.selection import Scatter, Selection
from gradlab.operators.slicing import Embedding, Slice
from gradlab.operators.triangular import CumulativeSum, LowerTriangular, UpperTriangular
from gradlab.operators.trivial import Identity, Zero
from gradlab.patterns import Pattern, maps

__all__ = ["pattern_of"]


@singledispatch
def pattern_of(operator: Operator) -> Pattern:
    """Return the pattern of an operator; of a class that is not known here, the dense one.

    Example:
        >>> import numpy as np
        >>> pattern_of(BlockDiagonal(np.ones((4, 2, 3)))).notation
        'out[b, :] <- in[b, :]'
    """
    return Pattern.dense(operator.output_shape, operator.input_shape)


@pattern_of.register
def _zero(operator: Zero) -> Pattern:
    return Pattern.zero(operator.output_shape, operator.input_shape)


@pattern_of.register(Identity)
@pattern_of.register(Diagonal)
def _identity(operator: Operator) -> Pattern:
    return Pattern.identity(operator.input_shape)


@pattern_of.register
def _reshape(operator: Reshape) -> Pattern:
    return maps.reshape(operator.input_shape, operator.output_shape)


@pattern_of.register
def _permutation(operator: Permutation) -> Pattern:
    return maps.transpose(operator.input_shape, operator.axes)


@pattern_of.register
def _broadcast(operator: Broadcast) -> Pattern:
    repeated = Pattern.broadcast(operator.kept_shape, operator.output_shape)
    return repeated @ maps.reshape(operator.input_shape, operator.kept_shape)


@pattern_of.register
def _slice(operator: Slice) -> Pattern:
    flipped = tuple(i for i, indices in enumerate(operator.ranges) if indices.step < 0)
    forward = [indices[::-1] if indices.step < 0 else indices for indices in operator.ranges]
    taken = maps.slice(
        operator.input_shape,
        tuple(indices.start for indices in forward),
        tuple(indices.start if not indices else indices[-1] + 1 for indices in forward),
        tuple(indices.step for indices in forward),
    )
    return maps.reverse(operator.output_shape, flipped) @ taken if flipped else taken


@pattern_of.register
def _selection(operator: Selection) -> Pattern:
    if not operator.is_static:
        return Pattern.dense(operator.output_shape, operator.input_shape)
    indices = np.asarray(operator.indices)
    if operator.axis is not None:
        return maps.take(operator.input_shape, indices, operator.axis)
    size = math.prod(operator.input_shape)
    flat = maps.take((size,), indices, 0)
    return flat @ maps.reshape(operator.input_shape, (size,))


@pattern_of.register(Sum)
@pattern_of.register(Scatter)
@pattern_of.register(Embedding)
@pattern_of.register(TransposedConvolution)
def _transposed(operator: Operator) -> Pattern:
    return pattern_of(operator.T).T


@pattern_of.register(BlockDiagonal)
@pattern_of.register(DiagonalPlusLowRank)
def _rows(operator: Operator) -> Pattern:
    batch = range(len(operator.input_shape) - 1)
    equal = [(axis, ~axis) for axis in batch]
    return Pattern.from_axes(operator.output_shape, operator.input_shape, equal)


@pattern_of.register
def _contraction(operator: Contraction) -> Pattern:
    equal = [
        (operator.output_letters.index(letter), ~axis)
        for axis, letter in enumerate(operator.input_letters)
        if letter in operator.output_letters
    ]
    return Pattern.from_axes(operator.output_shape, operator.input_shape, equal)


@pattern_of.register
def _cumulative_sum(operator: CumulativeSum) -> Pattern:
    return maps.cumulative(operator.input_shape, operator.axis, operator.reverse)


@pattern_of.register(LowerTriangular)
@pattern_of.register(UpperTriangular)
def _triangular(operator: LowerTriangular | UpperTriangular) -> Pattern:
    reverse = isinstance(operator, UpperTriangular)
    return maps.cumulative(operator.input_shape, operator.axis, reverse)


@pattern_of.register
def _convolution(operator: Convolution) -> Pattern:
    batch, channels, *spatial = operator.input_shape
    windows = [
        maps.window(size, places, taps, stride, low, dilation)
        for size, places, taps, stride, (low, _), dilation in zip(
            spatial,
            operator.output_shape[2:],
            operator.window,
            operator.strides,
            operator.padding,
            operator.dilation,
        )
    ]
    grouped = maps.grouped(operator.output_shape[1], channels, operator.groups)
    return maps.product(Pattern.identity((batch,)), grouped, *windows)


@pattern_of.register(Dense)
@pattern_of.register(Kronecker)
def _dense(operator: Operator) -> Pattern:
    return Pattern.dense(operator.output_shape, operator.input_shape)


@pattern_of.register
def _product(operator: Product) -> Pattern:
    return reduce(lambda after, before: after @ before, map(pattern_of, operator.factors))


@pattern_of.register
def _sum(operator: SumOfOperators) -> Pattern:
    return Pattern.union([pattern_of(term) for term in operator.terms])


@pattern_of.register
def _scaled(operator: Scaled) -> Pattern:
    return pattern_of(operator.operator)
