"""Functions that several nodes are made of, written so that no finite answer overflows.

Each takes and returns arrays of any namespace and keeps their dtype.
"""

import math

import numpy as np

from gradlab.common.arrays import Array, Axis, Shape, namespace


def logistic(x: Array) -> Array:
    """Return 1 / (1 + exp(-x)); written in exp(-|x|), it keeps its digits in both tails."""
    xp = namespace(x)
    e = xp.exp(-xp.abs(x))
    return xp.where(x >= 0, xp.ones_like(e), e) / (1.0 + e)


def logistic_slope(x: Array) -> Array:
    """Return the derivative of `logistic`, s (1 - s), without the cancellation in 1 - s."""
    xp = namespace(x)
    e = xp.exp(-xp.abs(x))
    return e / ((1.0 + e) * (1.0 + e))


def softplus(x: Array) -> Array:
    """Return log(1 + exp(x)) as max(x, 0) + log1p(exp(-|x|))."""
    xp = namespace(x)
    return xp.maximum(x, xp.zeros_like(x)) + xp.log1p(xp.exp(-xp.abs(x)))


def normal_cdf(x: Array) -> Array:
    """Return the standard normal distribution function, through erfc so that its tail is exact."""
    z = x * -math.sqrt(0.5)
    if namespace(x) is np:
        from scipy.special import erfc as scipy_erfc

        wide = z if z.dtype.kind == "f" and z.dtype.itemsize >= 4 else z.astype(np.float32)
        return (0.5 * scipy_erfc(wide)).astype(x.dtype)
    from jax.scipy.special import erfc as jax_erfc

    return 0.5 * jax_erfc(z)


def normal_pdf(x: Array) -> Array:
    """Return the standard normal density."""
    x = namespace(x).clip(x, -40.0, 40.0)  # there the density is 0, and x^2 stays finite
    return math.sqrt(0.5 / math.pi) * namespace(x).exp(-0.5 * x * x)


def gelu_gate(x: Array, approximate: bool) -> tuple[Array, Array]:
    """Return the gate g of GELU, y = x g(x), and its derivative.

    Either the normal distribution function, or its approximation (1 + tanh(u)) / 2, which is the
    logistic function of 2 u, with u = sqrt(2 / pi) (x + 0.044715 x^3).
    """
    if not approximate:
        return normal_cdf(x), normal_pdf(x)
    xp, c = namespace(x), math.sqrt(8 / math.pi)
    x = xp.clip(x, -32.0, 32.0)  # there the gate is 0 or 1 in any dtype, and x^3 stays finite
    u = c * (x + 0.044715 * x * x * x)
    return logistic(u), logistic_slope(u) * c * (1.0 + 3 * 0.044715 * x * x)


def safe_divide(a: Array, b: Array) -> Array:
    """Return a / b, and a where b = 0."""
    xp = namespace(a, b)
    return a / xp.where(b == 0, xp.ones_like(b), b)


def softmax(x: Array, axis: Axis) -> Array:
    """Return exp(x) / sum exp(x) over axes; zeros where all are -inf."""
    e, _ = _shifted_exp(x, axis)
    return safe_divide(e, e.sum(axis=axis, keepdims=True))


def logsumexp(x: Array, axis: Axis) -> Array:
    """Return log(sum(exp(x))) over axes, which stay with size 1; -inf where there is nothing."""
    e, top = _shifted_exp(x, axis)
    return top + namespace(x).log(e.sum(axis=axis, keepdims=True))


def log_softmax(x: Array, axis: Axis) -> Array:
    """Return x - logsumexp(x); the maximum is subtracted first, so that large x keep digits."""
    e, top = _shifted_exp(x, axis)
    return (x - top) - namespace(x).log(e.sum(axis=axis, keepdims=True))


def _shifted_exp(x: Array, axis: Axis) -> tuple[Array, Array]:
    """Return exp(x - top) and top, the greatest entry over axes, or 0 where that is infinite."""
    xp = namespace(x)
    top = xp.max(x, axis=axis, keepdims=True, initial=-math.inf)
    top = xp.where(xp.isfinite(top), top, xp.zeros_like(top))
    return xp.exp(x - top), top


def flat_index(indices: Array, axis: int, shape: Shape) -> Array:
    """Return indices along an axis as indices into the flattened array of this shape."""
    xp, rank = namespace(indices), len(shape)
    stride, total = 1, 0
    for i in reversed(range(rank)):
        view = (1,) * i + (-1,) + (1,) * (rank - 1 - i)
        place = indices if i == axis else xp.arange(indices.shape[i]).reshape(view)
        total, stride = total + stride * place, stride * shape[i]
    return total


def ones_where(condition: Array, x: Array) -> Array:
    """Return 1 where a condition holds and 0 elsewhere, in the shape and dtype of x."""
    xp = namespace(x)
    return xp.where(condition, xp.ones_like(x), xp.zeros_like(x))


def strictly_between(x: Array, low: float, high: float) -> Array:
    """Return 1 where low < x < high, and 0 elsewhere, both edges included."""
    return ones_where((x > low) & (x < high), x)


def sign(x: Array) -> Array:
    """Return 1 where x >= 0 and -1 elsewhere: the slope of |x| as in JAX, 1 at the kink."""
    one = namespace(x).ones_like(x)
    return namespace(x).where(x >= 0, one, -one)


def norm(x: Array, axis: Axis) -> Array:
    """Return sqrt(sum(x^2)) over axes, which stay; divided by the greatest entry on the way."""
    xp = namespace(x)
    top = xp.max(xp.abs(x), axis=axis, keepdims=True, initial=0.0)
    ratio = x / xp.where(top == 0, xp.ones_like(top), top)
    return top * xp.sqrt((ratio * ratio).sum(axis=axis, keepdims=True))


def over_rows(a: Array, b: Array) -> Array:
    """Return a^T b over all rows of a batch."""
    return a.reshape(-1, a.shape[-1]).T @ b.reshape(-1, b.shape[-1])
