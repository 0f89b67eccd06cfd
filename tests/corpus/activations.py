"""Elementwise functions: their kinks, their saturated ends, their constants."""

import math

import numpy as np
from corpus.model import FULL, operation, special


@operation(lambda d: (d.normal(3, 5),), special=(lambda d: (np.array([0.0, 1.0, -1.0, 0.0]),),))
class relu:
    def forward(xp, x):
        return xp.maximum(x, 0)

    def backward(xp, g, x):
        return xp.where(x > 0, g, 0 * g)


@relu.fault("pytorch#114234", "condition|upstream passed")
def passes_everything(xp, g, x):
    return g


@relu.fault("a comparison turned round", "condition|input negated")
def negative_side(xp, g, x):
    return xp.where(x < 0, g, 0 * g)


@operation(lambda d: (d.normal(3, 5),))
class leaky_relu:
    def forward(xp, x):
        return xp.where(x > 0, x, 0.2 * x)

    def backward(xp, g, x):
        return xp.where(x > 0, g, 0.2 * g)


@leaky_relu.fault("a slope applied twice", "condition")
def slope_twice(xp, g, x):
    return xp.where(x > 0, g, 0.04 * g)


@leaky_relu.fault("a slope with its sign lost", "condition")
def slope_negated(xp, g, x):
    return xp.where(x > 0, g, -0.2 * g)


@operation(lambda d: (d.unit(2, 4),))
class tanh:
    def forward(xp, x):
        return xp.tanh(x)

    def backward(xp, g, x):
        y = xp.tanh(x)
        return g * (1 - y) * (1 + y)


@tanh.fault("pytorch#2421")
def one_minus_x_squared(xp, g, x):
    return g * (1 - x * x)


@tanh.fault("a square forgotten")
def square_forgotten(xp, g, x):
    return g * (1 - xp.tanh(x))


def _sigmoid(xp, x):
    return 1 / (1 + xp.exp(-x))


@operation(lambda d: (d.unit(2, 4),), dtypes=FULL)
class sigmoid:
    def forward(xp, x):
        return _sigmoid(xp, x)

    def backward(xp, g, x):
        return g * _sigmoid(xp, x) * _sigmoid(xp, -x)


@sigmoid.fault(
    "jax#40342",
    inputs=lambda d: (np.array([40.0, 38.5, 0.5]),),
    dtypes=("float64",),
    hidden="warned of: a right softmax loses as many digits where it is saturated",
)
def cancels_when_saturated(xp, g, x):
    y = _sigmoid(xp, x)
    return g * y * (1 - y)


@sigmoid.fault("y for y (1 - y)", "other function")
def factor_missing(xp, g, x):
    return g * _sigmoid(xp, x)


@operation(
    lambda d: (d.unit(2, 4),),
    special=(lambda d: (np.array([0.0, 1.0, -2.0]),),),
)
class softplus:
    def forward(xp, x):
        return xp.logaddexp(x, 0 * x)

    def backward(xp, g, x):
        return g * xp.exp(-xp.logaddexp(0 * x, -x))


@softplus.fault("jax#2107", "condition", inputs=lambda d: (np.array([0.0, 1.0, -2.0]),))
def zero_at_zero(xp, g, x):
    return xp.where(x == 0, 0 * g, g * xp.exp(-xp.logaddexp(0 * x, -x)))


@softplus.fault("jax#2140", "condition", inputs=lambda d: (np.array([0.0, 1.0, -2.0]),))
def one_at_zero(xp, g, x):
    return xp.where(x == 0, g, g * xp.exp(-xp.logaddexp(0 * x, -x)))


_ROOT = math.sqrt(2 / math.pi)


@operation(lambda d: (d.unit(3, 4),))
class gelu_erf:
    def forward(xp, x):
        return 0.5 * x * (1 + special(xp).erf(x / math.sqrt(2)))

    def backward(xp, g, x):
        phi = xp.exp(-x * x / 2) / math.sqrt(2 * math.pi)
        return g * (0.5 * (1 + special(xp).erf(x / math.sqrt(2))) + x * phi)


@gelu_erf.fault("one gelu for the other", "other function")
def of_the_tanh_gelu(xp, g, x):
    t = xp.tanh(_ROOT * (x + 0.044715 * x**3))
    return g * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * _ROOT * (1 + 3 * 0.044715 * x * x))


@gelu_erf.fault("GaussianMarkovRandomFields.jl#193", "term")
def density_term_lost(xp, g, x):
    return g * 0.5 * (1 + special(xp).erf(x / math.sqrt(2)))


@gelu_erf.fault("jax 48f47c36c4")
def density_without_its_root(xp, g, x):
    return g * (0.5 * (1 + special(xp).erf(x / math.sqrt(2))) + x * xp.exp(-x * x / 2) / 2)


@operation(lambda d: (d.unit(3, 4),))
class silu:
    def forward(xp, x):
        return x * _sigmoid(xp, x)

    def backward(xp, g, x):
        y = _sigmoid(xp, x)
        return g * y * (1 + x * _sigmoid(xp, -x))


@silu.fault("GaussianMarkovRandomFields.jl#193", "term")
def gate_held_constant(xp, g, x):
    return g * _sigmoid(xp, x)


@silu.fault("a product rule with one half", "term")
def value_held_constant(xp, g, x):
    y = _sigmoid(xp, x)
    return g * x * y * _sigmoid(xp, -x)


@operation(lambda d: (d.unit(5),))
class exp:
    def forward(xp, x):
        return xp.exp(x)

    def backward(xp, g, x):
        return g * xp.exp(x)


@exp.fault("karpathy/nn-zero-to-hero#52", "upstream passed")
def upstream_returned(xp, g, x):
    return g


@operation(lambda d: (d.unit(5),))
class exp2:
    def forward(xp, x):
        return xp.exp2(x)

    def backward(xp, g, x):
        return g * xp.exp2(x) * math.log(2)


@exp2.fault("jax 48f47c36c4", "factor")
def ln2_missing(xp, g, x):
    return g * xp.exp2(x)


@operation(lambda d: (d.positive(5),))
class log2:
    def forward(xp, x):
        return xp.log2(x)

    def backward(xp, g, x):
        return g / (x * math.log(2))


@log2.fault("jax 48f47c36c4", "factor")
def ln2_missing_in_log(xp, g, x):
    return g / x


@operation(lambda d: (np.array([-3.0, -1.5, 0.25, 1.0, 2.5]) + 0.01 * d.unit(5),))
class sinc:
    def forward(xp, x):
        return xp.sinc(x)

    def backward(xp, g, x):
        a = math.pi * x
        return g * (xp.cos(a) - xp.sin(a) / a) / x


@sinc.fault(
    "jax#5054",
    inputs=lambda d: (np.array([1e-6, -2e-6, 1.0]),),
    dtypes=("float64",),
    hidden="autodiff of sin(x) / x cancels as much, and differences of it see no more digits",
)
def cancels_near_zero(xp, g, x):
    a = math.pi * x
    return g * (xp.cos(a) - xp.sin(a) / a) / x


@sinc.fault("jax e6c01aeacd", "factor")
def pi_missing(xp, g, x):
    a = math.pi * x
    return g * (xp.cos(a) - xp.sin(a) / a) / a


@operation(lambda d: (d.normal(2, 5),))
class absolute:
    def forward(xp, x):
        return abs(x)

    def backward(xp, g, x):
        return g * xp.sign(x)


@absolute.fault("jax#11479", "condition|upstream passed")
def sign_lost(xp, g, x):
    return g


@operation(lambda d: (np.array([-2.0, -0.7, 0.1, 0.9, 3.0]) + 0.01 * d.unit(5),))
class clip:
    def forward(xp, x):
        return xp.clip(x, -1, 1)

    def backward(xp, g, x):
        return xp.where(abs(x) < 1, g, 0 * g)


@clip.fault("ChainRulesTestUtils.jl#181", "condition|upstream passed")
def straight_through(xp, g, x):
    return g


@clip.fault("one bound forgotten", "condition")
def lower_bound_forgotten(xp, g, x):
    return xp.where(x < 1, g, 0 * g)


@operation(lambda d: (d.positive(2, 3),), special=(lambda d: (np.array([[0.0, 4.0, -1.0]]),),))
class safe_sqrt:
    def forward(xp, x):
        return xp.where(x > 0, xp.sqrt(xp.where(x > 0, x, 1)), 0)

    def backward(xp, g, x):
        inside = xp.where(x > 0, x, 1)
        return xp.where(x > 0, g * 0.5 / xp.sqrt(inside), 0 * g)


@safe_sqrt.fault(
    "jax#347", "nonfinite", inputs=lambda d: (np.array([[0.0, 4.0, 1.0]]),), form="jax"
)
def nan_from_the_branch_not_taken(xp, g, x):
    return (x > 0) * g * 0.5 / xp.sqrt(x)


@safe_sqrt.fault("half forgotten", "factor")
def half_forgotten(xp, g, x):
    return g / xp.sqrt(x)


@operation(lambda d: (d.unit(4, 3) * 2,))
class quantise:
    """A forward that rounds: its gradient is zero; straight-through estimators say otherwise."""

    def forward(xp, x):
        return xp.round(x)

    def backward(xp, g, x):
        return 0 * g


@quantise.fault("a straight-through estimator", "upstream passed")
def straight_through_rounding(xp, g, x):
    return g
