# ruff: noqa: NPY002, B008
"""Functions as people write them in NumPy, one idiom each, with inputs at which they run."""

import collections
import copy
import functools
import itertools
import math
import operator
import types
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import scipy.special
from numpy import exp, zeros
from numpy.linalg import norm as length

TABLE = np.arange(12.0).reshape(3, 4) / 7
PLAIN = np.linspace(0.5, 2.0, 4)
NESTED = {"scale": np.array([2.0, 3.0, 4.0, 5.0]), "steps": [np.array([1.0]), 2.0]}
half = np.vectorize(lambda v: v / 2 if v > 0 else v * 0.25)


@np.vectorize
def cubed(v):
    return v**3


class Pair(NamedTuple):
    first: object
    second: object


@dataclass
class Cache:
    x: object
    y: object = None


def rows(x):
    return next(row.sum() for row in x) * x


def in_place_slices(x):
    y = x.copy()
    y[1:] += y[:-1]
    y[:, ::2] *= 3
    y[::-1, 1] -= 1
    return y


def in_place_input(x):
    x[0] = 2 * x[1]
    x -= 1
    return x * x


def alias(x):
    y = x
    y += 1
    return x * y


def scalar_is_no_view(x):
    a = x[0, 0]
    a += 1
    return x * a


def view_of_view(x):
    flat = x.reshape(-1)
    flat[3:6] = 0.5
    flat.reshape(2, -1)[1, ::2] *= 2
    return x.T @ x


def transposed_write(x):
    y = np.zeros((4, 3))
    y.T[...] = x
    y.T[0] += 1
    return y


def row_sums(x):
    out = np.empty(3)
    for i, row in enumerate(x):
        out[i] = np.dot(row, PLAIN)
    return out


def recursion(x):
    def power(k):
        return x if k == 1 else x * power(k - 1)

    return power(4)


def while_loop(x):
    y, k = x, 0
    while np.abs(y).max() > 0.1:
        y, k = y / 2, k + 1
    return y * k


def lists(x):
    parts = []
    for i in range(3):
        y = np.tanh(x[i])
        parts.append(y * i)
    return np.array(parts), np.stack(parts, axis=1), np.concatenate(parts)


def nested_list(x):
    return np.array([[x[0, 0], 1.0], [x[1, 1] * x[0, 1], x[2, 2]]])


def dictionary(x):
    cache = {"x": x, "mean": x.mean(0)}
    cache["mean"] += 1
    return {"y": cache["x"] - cache["mean"], "m": cache["mean"]}


def data_class(x):
    cache = Cache(x)
    cache.y = cache.x * 2
    return cache.y + cache.x


def stable_sigmoid(x):
    pos, neg = x >= 0, x < 0
    z = np.zeros_like(x)
    z[pos] = np.exp(-x[pos])
    z[neg] = np.exp(x[neg])
    top = np.ones_like(x)
    top[neg] = z[neg]
    return top / (1 + z)


def masked_in_place(x):
    y = x.copy()
    y[y < 0] *= 0.1
    y[x > 1] = 1
    y[~(x > 0)] -= 0.5
    return y


def masked_log(x):
    out = np.zeros_like(x)
    good = x > 0
    out[good] = np.log(x[good]) * np.sqrt(x[good])
    return out


def masked_sum(x):
    return x[x > 0].sum(), x[x > 0].mean(), x[x < 0].max(), x[x < 0].min()


def mask_rows(x):
    y = x.copy()
    keep = x[:, 0] > -10
    y[keep] *= 2
    y[keep] += PLAIN
    return y


def mask_of_known_places(x):
    keep = np.array([True, False, True])
    return x[keep], x[:, np.array([True, True, False, True])]


def seeded_dropout(x):
    rng = np.random.default_rng(3)
    mask = (rng.random(x.shape) < 0.5) / 0.5
    return x * mask


def legacy_random(x):
    np.random.seed(1)
    noise = np.random.randn(*x.shape)
    np.random.shuffle(noise)
    return x * noise + np.random.uniform(size=4)


def embedding_gradient(x):
    grad = np.zeros((5, 4))
    np.add.at(grad, np.array([0, 2, 2]), x)
    np.subtract.at(grad, (np.array([0, 0]), np.array([1, 1])), x[0, :2])
    return grad


def im2col(x):
    padded = np.pad(x, 1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
    return windows.reshape(12, 9) @ np.arange(9.0)


def strided(x):
    s = x.strides
    w = np.lib.stride_tricks.as_strided(x, (2, 3, 2, 2), (s[0], s[1], s[0], s[1]))
    return np.einsum("ijkl,kl->ij", w, np.ones((2, 2)))


def one_hot(x):
    hot = np.eye(4)[np.array([1, 3, 0])]
    hot2 = np.zeros((3, 4))
    hot2[np.arange(3), [0, 1, 2]] = 1
    return (x * hot).sum(1), x * hot2


def max_pool(x):
    out = np.zeros((1, 2))
    grad = np.zeros_like(x)
    for j in range(2):
        window = x[0:2, 2 * j : 2 * j + 2]
        out[0, j] = np.max(window)
        grad[0:2, 2 * j : 2 * j + 2] += window == np.max(window)
        i, k = np.unravel_index(np.argmax(window), window.shape)
        grad[i, 2 * j + k] += 0.5
    return out, grad


def traced_argmax(x):
    best = x.argmax(axis=1)
    rows = np.arange(3)
    y = x.copy()
    y[rows, best] = 0
    return x[rows, best], y, np.take_along_axis(x, best[:, None], 1)


def sorting(x):
    order = np.argsort(x, axis=1)
    y = x.copy()
    y.sort(axis=0)
    return np.sort(x), np.take_along_axis(x, order, axis=1), y, x[:, 0][np.argsort(x[:, 0])]


def put_along(x):
    y = np.zeros_like(x)
    np.put_along_axis(y, np.argmax(x, axis=1)[:, None], 7.0, axis=1)
    z = x @ x.T
    np.fill_diagonal(z, 1.0)
    return y, z


def out_arguments(x):
    y = np.empty_like(x)
    np.multiply(x, 2, out=y)
    np.add(y, x, y)
    np.exp(y[0], out=y[1])
    np.dot(x, x.T, out=(z := np.empty((3, 3), x.dtype)))
    np.maximum(x, 0, out=x)
    return y, z, x


def where_arguments(x):
    y = np.divide(1.0, x, out=np.zeros_like(x), where=x > 0)
    z = np.log(x, where=x > 0, out=np.full_like(x, -1.0))
    np.copyto(y, x, where=x < -1)
    np.putmask(z, x > 1, 9.0)
    return y, z, np.sum(x, where=x > 0)


def reductions(x):
    return (
        np.add.reduce(x, axis=1),
        np.multiply.reduce(x),
        np.logaddexp.reduce(x, axis=1),
        np.maximum.accumulate(x, axis=1),
        np.add.outer(x[0], x[1]),
        np.subtract.outer(x[0], PLAIN),
        np.add.reduceat(x, [0, 2], axis=1),
    )


def flat_writes(x):
    y = np.zeros((3, 4))
    y.flat[::5] = 2.0
    y.T.flat[1:3] = x[0, :2]
    x.flat[3] = 5
    return y, x, np.array(list(x.flat))


def python_numbers(x):
    total = 0.0
    for row in x:
        for v in row:
            total += math.exp(float(v)) * math.tanh(v) + math.sqrt(abs(v)) + max(0, v)
    return total


def loop_of_index(x):
    out = 0.0
    it = np.ndindex(x.shape)
    for place in it:
        out = out + x[place] * (place[0] + 1)
    for place, v in np.ndenumerate(x):
        out = out * 0.5 + v * place[1]
    return out


def casts(x):
    return (
        x.astype(np.float32) * 2,
        x.astype(int),
        np.float32(2) * x,
        x.astype(np.float32).astype(np.float64),
        np.float64(x[0, 0]) * 2,
        x.astype("float32").sum(dtype=float),
        np.asarray(x, dtype=float),
    )


def comparisons(x):
    return (x > 0) * 1.0, np.isfinite(x).all(), (x > 0).sum(axis=0), np.sign(x), x.any()


def complex_numbers(x):
    z = x + 1j * x[::-1]
    w = np.fft.fft(z, axis=1)
    z.real += 1
    z.imag[0] = x[1]
    return w.real, np.abs(z), np.conj(z) * w, np.angle(z)


def spectra(x):
    return np.fft.irfft(np.fft.rfft(x) * 2), np.fft.fftshift(x), np.fft.fft2(x).imag


def algebra(x):
    a = x @ x.T + 5 * np.eye(3)
    return (
        np.linalg.inv(a),
        np.linalg.solve(a, x),
        np.linalg.cholesky(a),
        np.linalg.det(a),
        np.linalg.slogdet(a)[1],
        np.linalg.norm(x, axis=1, keepdims=True),
        length(x),
        np.linalg.eigvalsh(a),
        np.trace(a),
        np.linalg.svd(x, compute_uv=False),
        np.linalg.matrix_power(a, 3),
        np.linalg.multi_dot([a, a, x]),
    )


def products(x):
    return (
        np.tensordot(x, x, axes=([0], [0])),
        np.einsum("ij,kj->ik", x, x, optimize=True),
        np.outer(x[0], x[1]),
        np.inner(x, x),
        np.vdot(x, x),
        np.kron(x[:1], x[:, :1]),
        np.cross(x[:, :3], x[:, 1:]),
        np.matmul(x, x.T),
        x.dot(x.T).dot(x),
        PLAIN.dot(x.T),
        np.convolve(x[0], PLAIN),
    )


def statistics(x):
    return (
        x.mean(),
        x.var(axis=0, ddof=1),
        np.std(x, axis=1, keepdims=True),
        np.median(x, axis=1),
        np.percentile(x, 30),
        np.average(x, axis=0, weights=[1.0, 2.0, 3.0]),
        np.cov(x),
        np.ptp(x, axis=0),
        np.cumsum(x, axis=1),
        np.cumprod(x),
        np.diff(x, axis=1),
        np.gradient(x[0]),
        np.trapezoid(x, axis=1),
        np.nanmean(x),
        np.corrcoef(x),
    )


def shapes(x):
    return (
        x[:, None, ::-1],
        np.expand_dims(x, 0),
        x.reshape(2, 6).T.ravel(),
        x.transpose(1, 0).copy(),
        np.swapaxes(x, 0, 1),
        np.moveaxis(x[None], 0, -1),
        np.squeeze(x[:1]),
        np.broadcast_to(x[0], (2, 4)) * 1,
        np.rot90(x),
        np.flip(x, 1),
        np.atleast_3d(x),
        np.rollaxis(x[None], 2),
        x.T.reshape(-1),
        x.swapaxes(0, 1).flatten(),
        x.ravel(order="F"),
    )


def joins(x):
    a, b = np.split(x, 2, axis=1)
    c = np.hsplit(x, 4)
    return (
        np.concatenate([b, a], axis=1),
        np.vstack([x, x[0]]),
        np.hstack([a, b, c[0]]),
        np.dstack([x, x]),
        np.column_stack((x, x[:, 0])),
        np.tile(x, (2, 1)),
        np.repeat(x, 2, axis=0),
        np.repeat(x, [1, 0, 2], axis=0),
        np.roll(x, 1, axis=1),
        np.append(x, x[:1], axis=0),
        np.insert(x, 1, 0.0, axis=0),
        np.delete(x, 1, axis=0),
        np.block([[x, x], [x, x]]),
        np.resize(x, (2, 3)),
        np.concatenate((x[0], x[1])),
        sum(np.array_split(x, 3)),
    )


def pads(x):
    return (
        np.pad(x, ((1, 0), (0, 2))),
        np.pad(x, 1, mode="edge"),
        np.pad(x, 1, "reflect"),
        np.pad(x, ((1, 1), (0, 0)), mode="constant", constant_values=3),
    )


def choices(x):
    return (
        np.where(x > 0, x, 0.1 * x),
        np.clip(x, -1, 1),
        x.clip(0),
        np.clip(x, a_min=0.1, a_max=None),
        np.select([x > 1, x < -1], [x, -x], default=0.0),
        np.piecewise(x, [x < 0, x >= 0], [lambda v: np.exp(v), lambda v: v + 1]),
        np.maximum(0, x),
        np.fmin(x, 0.3),
        np.minimum.reduce([x, x * 2]),
        np.nan_to_num(x),
        np.choose([0, 1, 0, 1], [x[0], x[1]]),
        np.take(x, [2, 0], axis=0),
        x.take([1, 1, 2]),
        np.tril(x),
        np.triu(x @ x.T, 1),
        np.diag(x @ x.T),
        np.diag(x[0]),
        x[np.ix_([0, 2], [1, 3])],
        x[[0, 2], 1:],
        x[..., -1],
        x[-1, [-1, 0]],
    )


def elementary(x):
    p = np.abs(x) + 0.1
    return (
        np.exp(x), np.expm1(x), np.exp2(x), np.log(p), np.log2(p), np.log10(p), np.log1p(p),
        np.sqrt(p), np.cbrt(p), np.square(x), np.reciprocal(p), x**2, x**3, x**-1, p**0.5, p**x,
        2.0**x, np.power(x, 4), np.sin(x), np.cos(x), np.tan(x), np.arctan(x), np.arcsin(x / 9),
        np.arccos(x / 9), np.sinh(x), np.cosh(x), np.tanh(x), np.arcsinh(x), np.arctanh(x / 9),
        np.arctan2(x, p), np.hypot(x, p), np.logaddexp(x, p), np.float_power(p, 2),
        np.copysign(p, x), np.sinc(x), np.floor(x), np.ceil(x), np.rint(x), np.round(x, 1),
        np.trunc(x), x // 0.3, x % 0.3, np.fmod(x, 0.3), np.mod(x, p), np.deg2rad(x), -x, +x,
        abs(x), np.heaviside(x, 0.5), np.interp(x[0], [-2.0, 0.0, 2.0], [0.0, 1.0, 4.0]),
        np.polyval([1.0, 2.0, 3.0], x), np.modf(x)[0], divmod(x, 0.3)[1], np.i0(x),
    )  # fmt: skip


def special(x):
    return (
        scipy.special.erf(x),
        scipy.special.expit(x),
        scipy.special.gammaln(np.abs(x) + 1),
        scipy.special.logsumexp(x, axis=1),
        scipy.special.softmax(x, axis=1),
        scipy.special.xlogy(np.abs(x), np.abs(x)),
    )


def vectorised(x):
    return half(x), cubed(x), np.vectorize(lambda a, b: a * b + 1)(x, x[0])


def along_axis(x):
    return np.apply_along_axis(lambda row: row / row.sum(), 1, x), np.apply_along_axis(np.max, 0, x)


def names_of_other_kinds(x):
    import numpy
    import numpy.linalg as LA
    from numpy import ones as uns

    return exp(x) + zeros(4) + numpy.ones(4) * LA.norm(x) + uns((3, 4)), isinstance(x, np.ndarray)


def settings(x, w={"w": np.arange(4.0)}, *, k=PLAIN):  # noqa: B006
    return NESTED["scale"] * x + NESTED["steps"][0] * w["w"] + k + TABLE * (x.dtype == np.float64)


def grad_descent(x):
    v = np.zeros_like(x)
    theta = x
    for t in range(1, 4):
        g = 2 * theta
        v = 0.9 * v + 0.1 * g
        theta = theta - 0.1 * (v / (1 - 0.9**t))
    return theta


def printing(x):
    text = f"{x.mean():.3f} {x} {x[0, 0]!r}"
    return x * len([text])


def named(x):
    pair = Pair(x, x.sum())
    return Pair(pair.first * 2, pair.second)


def meshes(x):
    a, b = np.meshgrid(x[0], x[1])
    i, j = np.indices((3, 4))
    return a * b, x * i - j, np.linspace(0, 1, 4) * x, np.arange(4) * x, np.full((3, 4), x[0, 0])


def booleans(x):
    a = np.logical_and(x > -1, x < 1)
    return a | (x > 2), ~a, a.mean(), np.count_nonzero(a), np.any(a, axis=0), np.where(a)[0].size


def bins(x):
    k = np.digitize(x[0], [-1.0, 0.0, 1.0])
    return np.bincount(np.array([0, 1, 1, 3]), weights=x[0]), np.searchsorted(PLAIN, x[0]), k


def counted(x):
    order = np.argsort(x[0])
    sums = np.bincount(order, x[1], minlength=6), np.bincount([1, 1, 0, 2], weights=x[2])
    return *sums, np.bincount(order) * x[0]


def folds(x):
    several = np.logaddexp.reduce(x, axis=(0, 1)), np.hypot.reduce(x, axis=1)
    return np.logaddexp.reduce(x, axis=-1, keepdims=True), *several, np.subtract.reduce(x, axis=1)


def ranges(x):
    y = x.copy()
    y[range(3), [0, 1, 1]] -= 1
    return y, x[(0, 1), :][range(2), range(2)]


def fits(x):
    y, rest, _, _ = np.linalg.lstsq(x.T, x[0] ** 2, rcond=None)
    return y, rest, np.linalg.lstsq(x, x[:, 0] ** 2)[1], np.linalg.lstsq(x.T, x.T[:, :2] ** 2)[1]


def refused_and_caught(x):
    try:
        return x @ x
    except ValueError:
        return x @ x.T


def namesakes_elsewhere(x):
    several = np.poly1d([1.0, 2.0])(x), np.polynomial.polynomial.polyval(x, [1.0, 2.0, 3.0])
    return *several, scipy.special.log_softmax(x), scipy.special.softmax(x, 1)


def lists_among_arrays(x):
    row = np.concatenate([x[0], [x[1, 1], 1.0], [2 * x[0, 0]]])
    return row, np.hstack([x, [[x[0, 0]], [1.0], [2.0]]]), np.block([[x, x], [x, x]])


def partials(x):
    return partial(np.sum, axis=1)(x) + partial(lambda a, b: a[0, 0] * b.sum(), b=TABLE)(x)


@functools.cache
def weights(n):
    return np.arange(n) / n


@dataclass(frozen=True)
class Frozen:
    x: object
    kept: object


def caches(x):
    z = weights(4).copy()
    z[0] = x[0, 0]
    return z * x + weights(8)[:4]


def copies(x):
    y, z = copy.deepcopy(x), copy.copy(x)
    y += 1
    z[0] *= 2
    frozen = Frozen(x, {"y": y})
    return frozen.x * frozen.kept["y"] + z


def standard_library(x):
    rows, by_name = collections.deque(), collections.defaultdict(list)
    for row in x:
        rows.append(row)
        by_name["twice"].append(row * 2)
    space = types.SimpleNamespace(x=x)
    space.y = functools.reduce(operator.mul, [space.x, x + 1])
    folded = np.array(list(itertools.accumulate(x, lambda a, b: a * 0.5 + b)))
    return np.stack(list(rows)) + np.vstack(by_name["twice"]), space.y, folded


def sums_of_python(x):
    several = math.fsum(x[0]) + math.prod(x[1]) + sum(x[2])
    return several + math.hypot(x[0, 0], 1.0) + math.erf(x[0, 1]), sum(x)


def between_brackets(x):
    i, j = np.mgrid[0:3, 0:4]
    return np.c_[x, x[:, 0]], np.r_[x[0], x[1]], x * i + j * np.ogrid[0:4], np.r_[1.0, 2, 3, 4] * x


def keywords_of_old(x):
    total = np.sum(x, axis=0, keepdims=np._NoValue)
    return total + np.array(x, subok=True).max() + np.zeros_like(x, subok=True)


def views_as_results(x):
    z = np.zeros((3, 4), x.dtype)
    np.add(x[:2], 1, out=z[1:])
    x.sum(axis=0, out=z[0])
    return z


def special_names(x):
    p = np.abs(x) + 1
    return (
        scipy.special.digamma(p), scipy.special.logit(scipy.special.expit(x)),
        scipy.special.log_softmax(x, axis=-1), scipy.special.ndtr(x), scipy.special.beta(p, 2.0),
    )  # fmt: skip


def draws_in_place(x):
    order = np.random.RandomState(0).permutation(3)
    chosen = np.random.default_rng(1).choice(4, 2, replace=False)
    y = x[order]
    y[[0, 1]] = y[[1, 0]]
    return y[:, chosen]


FUNCTIONS = [
    value
    for value in list(globals().values())
    if callable(value) and getattr(value, "__module__", "") == __name__
    and type(value).__name__ == "function"
]  # fmt: skip


def inputs(function, seed=0):
    """Return inputs at which a function's decisions are what they are at any seed near by."""
    return (np.random.default_rng(seed).normal(size=(3, 4)) * 1.3,)
