"""Broadcasting arithmetic: sums that are missing, signs, swapped and dropped terms."""

import numpy as np
from corpus.model import FULL, operation


@operation(lambda d: (d.normal(3, 4), d.normal(4)))
class add_bias:
    def forward(xp, x, b):
        return x + b

    def backward(xp, g, x, b):
        return g, g.sum(axis=0)


@add_bias.fault("apache/tvm#2465", "missing sum", shape=True)
def unsummed(xp, g, x, b):
    return g, g


@add_bias.fault("a batch mean where the sum belongs", "mean for sum|factor")
def averaged(xp, g, x, b):
    return g, g.mean(axis=0)


@add_bias.fault("karpathy/nn-zero-to-hero#52", "detached")
def bias_forgotten(xp, g, x, b):
    return g, 0 * b


@operation(lambda d: (d.normal(4, 4), d.normal(4)))
class add_bias_square:
    def forward(xp, x, b):
        return x + b

    def backward(xp, g, x, b):
        return g, g.sum(axis=0)


@add_bias_square.fault("HomericIntelligence/Odyssey#2080", "transposed")
def summed_over_the_other_axis(xp, g, x, b):
    return g, g.sum(axis=1)


@operation(lambda d: (d.normal(3, 4), d.normal(1, 4)))
class add_row:
    def forward(xp, x, b):
        return x + b

    def backward(xp, g, x, b):
        return g, g.sum(axis=0, keepdims=True)


@add_row.fault("deeplearning4j/nd4j#2424", "missing sum", shape=True)
def row_not_reduced(xp, g, x, b):
    return g, g


@add_row.fault("pytorch#1813", "shape", shape=True)
def axis_dropped(xp, g, x, b):
    return g, g.sum(axis=0)


@operation(lambda d: (d.normal(2, 3, 5), d.positive(2, 3, 1)))
class multiply_mask:
    def forward(xp, x, m):
        return x * m

    def backward(xp, g, x, m):
        return g * m, (g * x).sum(axis=-1, keepdims=True)


@multiply_mask.fault("tenstorrent/tt-metal#40008", "missing sum", shape=True)
def mask_not_reduced(xp, g, x, m):
    return g * m, g * x


@multiply_mask.fault("the product rule without its other factor", "upstream passed")
def mask_dropped(xp, g, x, m):
    return g, (g * x).sum(axis=-1, keepdims=True)


@multiply_mask.fault("a sum that runs over the batch too", shape=True)
def summed_too_far(xp, g, x, m):
    return g * m, (g * x).sum(axis=(1, 2), keepdims=True)


@operation(lambda d: (d.normal(3, 4), d.normal(3, 4)))
class multiply:
    def forward(xp, x, y):
        return x * y

    def backward(xp, g, x, y):
        return g * y, g * x


@multiply.fault("chainer e67538082c", "swapped")
def factors_swapped(xp, g, x, y):
    return g * x, g * y


@multiply.fault("QuantumBFS/Yao.jl#349", "upstream ignored")
def upstream_as_ones(xp, g, x, y):
    return y + 0 * g, x + 0 * g


@operation(lambda d: (d.normal(5),))
class square_by_reuse:
    def forward(xp, x):
        return x * x

    def backward(xp, g, x):
        return g * x + g * x


@square_by_reuse.fault("karpathy/nn-zero-to-hero#52", "factor")
def set_instead_of_added(xp, g, x):
    return g * x


@square_by_reuse.fault("textgrad#200", "factor")
def added_twice(xp, g, x):
    return 2 * (g * x + g * x)


@operation(lambda d: (d.normal(4),))
class cube_by_reuse:
    def forward(xp, x):
        return x * x * x

    def backward(xp, g, x):
        return 3 * g * x * x


@cube_by_reuse.fault("sony/nnabla#532", "factor")
def one_use_lost(xp, g, x):
    return 2 * g * x * x


@operation(lambda d: (d.normal(4, 3), d.normal(4, 3)))
class subtract:
    def forward(xp, x, y):
        return x - y

    def backward(xp, g, x, y):
        return g, -g


@subtract.fault("jax#3213", "sign")
def minus_lost(xp, g, x, y):
    return g, g


@operation(lambda d: (d.normal(3, 4), d.positive(3, 4)))
class divide:
    def forward(xp, x, y):
        return x / y

    def backward(xp, g, x, y):
        return g / y, -g * (x / y) / y  # XLA makes x / (y * y) of x / y / y, which may overflow


@divide.fault("jax#3213", "sign")
def divisor_sign(xp, g, x, y):
    return g / y, g * x / y / y


@divide.fault("jax 48f47c36c4")
def one_division_short(xp, g, x, y):
    return g / y, -g * x / y


@operation(lambda d: (d.unit(4), d.unit(4)))
class sine_times:
    def forward(xp, x, y):
        return xp.sin(x) * y

    def backward(xp, g, x, y):
        return g * xp.cos(x) * y, g * xp.sin(x)


@sine_times.fault("jax#3213", "sign")
def sine_negated(xp, g, x, y):
    return g * xp.cos(x) * y, -g * xp.sin(x)


@sine_times.fault("jax 7c90023ddb", "sign")
def cosine_negated(xp, g, x, y):
    return -g * xp.cos(x) * y, g * xp.sin(x)


@operation(
    lambda d: (abs(d.unit(5)) + 0.5, d.unit(5)),
    special=(lambda d: (abs(d.unit(5)) + 0.5, 0 * d.unit(5)),),
)
class power:
    def forward(xp, x, y):
        return x**y

    def backward(xp, g, x, y):
        return g * y * x ** (y - 1), g * xp.log(x) * x**y


def _zero_exponent(d):
    return abs(d.unit(5)) + 0.5, d.unit(5) * [0.0, 1.0, 0.0, 1.0, 1.0]


@power.fault("jax 0a89fc83cb", "condition", inputs=_zero_exponent)
def zero_exponent_passes_upstream(xp, g, x, y):
    return xp.where(y == 0, g, g * y * x ** (y - 1)), g * xp.log(x) * x**y


@power.fault("jax 6fe573147e")
def exponent_factor_lost(xp, g, x, y):
    return g * x ** (y - 1), g * xp.log(x) * x**y


@power.fault("a logarithm to the wrong base", "factor")
def binary_logarithm(xp, g, x, y):
    return g * y * x ** (y - 1), g * xp.log2(x) * x**y


def _mixed_signs(d):
    return d.unit(6) + np.array([5.0, -5, 7, -7, 5, -5]), abs(d.unit(6)) + 1.5


@operation(_mixed_signs, dtypes=FULL)
class remainder:
    def forward(xp, x, y):
        return xp.fmod(x, y)

    def backward(xp, g, x, y):
        return g, -g * xp.trunc(x / y)


@remainder.fault("jax#11469", "condition")
def floor_for_trunc(xp, g, x, y):
    return g, -g * xp.floor(x / y)


@operation(lambda d: (d.normal(3, 4), d.normal(3, 4), d.integers(0, 2, 3, 4) > 0))
class where:
    def forward(xp, x, y, c):
        return xp.where(c, x, y)

    def backward(xp, g, x, y, c):
        return xp.where(c, g, 0 * g), xp.where(c, 0 * g, g), None


@where.fault("chainer e67538082c", "swapped")
def branches_swapped(xp, g, x, y, c):
    return xp.where(c, 0 * g, g), xp.where(c, g, 0 * g), None


@where.fault("chainer e67538082c", "upstream passed|condition")
def both_branches(xp, g, x, y, c):
    return g, g, None


@operation(lambda d: (d.normal(6),), special=(lambda d: (0 * d.normal(6),),))
class ldexp:
    def forward(xp, x):
        return x * 8

    def backward(xp, g, x):
        return g * 8


def _some_zeros(d):
    return (d.normal(6) * [1, 0, 1, 0, 1, 1],)


@ldexp.fault("jax#37992", "condition", inputs=_some_zeros)
def one_at_zero(xp, g, x):
    return xp.where(x == 0, g, g * 8)


@ldexp.fault("binary exponent taken for a natural one", "factor")
def natural_exponent(xp, g, x):
    return g * 20.085536923187668


@operation(lambda d: (d.normal(2, 3), d.normal(2, 3)))
class cross_product:
    def forward(xp, a, b):
        return xp.cross(a, b)

    def backward(xp, g, a, b):
        return xp.cross(b, g), xp.cross(g, a)


@cross_product.fault("jax#3213", "sign")
def order_reversed(xp, g, a, b):
    return xp.cross(g, b), xp.cross(g, a)


@operation(lambda d: (d.normal(7),))
class scale_by_constant:
    def forward(xp, x):
        return 3 * x

    def backward(xp, g, x):
        return 3 * g


@scale_by_constant.fault("ChainRulesTestUtils.jl#181", "not linear")
def clipped(xp, g, x):
    return 3 * xp.clip(g, -0.1, 0.1)


@scale_by_constant.fault("a rectified upstream", "not linear")
def absolute(xp, g, x):
    return 3 * abs(g)


@scale_by_constant.fault("an upstream multiplied in twice", "not linear")
def squared(xp, g, x):
    return 3 * g * g


@scale_by_constant.fault("gradient reversal", "factor|sign")
def reversed_(xp, g, x):
    return -3 * g


@scale_by_constant.fault("QuantumBFS/Yao.jl#349", "factor|upstream passed")
def constant_dropped(xp, g, x):
    return g
