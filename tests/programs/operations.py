"""Operations of which random JAX programs are made, each built for a shape or refused."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name

SHAPES = [(6,), (2, 3), (3, 3), (4,), (2, 2, 3)]
RESHAPED = [*SHAPES, (12,), (3, 2), (4, 3), (3, 4), (9,)]


class Op(NamedTuple):
    name: str
    build: Callable[[np.random.Generator, tuple[int, ...]], Callable[..., Any] | None]
    operands: int = 1


def _axis(rng: np.random.Generator, shape: tuple[int, ...]) -> int:
    return int(rng.integers(len(shape)))


def unary(name: str, function: Callable[..., Any]) -> Op:
    return Op(name, lambda rng, shape: function)


def ranked(name: str, build: Callable[..., Any], least: int = 1) -> Op:
    return Op(name, lambda rng, shape: build(rng, shape) if len(shape) >= least else None)


@jax.custom_jvp
def straight_through(x):
    return jnp.round(x)


straight_through.defjvp(lambda primals, tangents: (jnp.round(primals[0]), tangents[0]))


@jax.custom_vjp
def reverses(x):
    return jnp.sin(x)


reverses.defvjp(
    lambda x: (jnp.sin(x), x), lambda x, g: (jnp.flip(g, tuple(range(g.ndim))) * jnp.cos(x),)
)


@jax.custom_vjp
def clips(x):
    return x * x


clips.defvjp(lambda x: (x * x, x), lambda x, g: (jnp.clip(g * x, -1, 1),))


def _double(x):
    return 2 * x


def _mix(x):
    return x + jnp.flip(x, 0)


def _shift(x):
    return jnp.roll(x, 1, -1) * 0.5 + x


def _carry(c, x):
    c = jnp.tanh(c + x)
    return c, c * x


def _register(c, x):
    c = jnp.concatenate([x[None], c[:-1]])
    return c, c[-1] + c[0]


def build_scan(rng, shape):
    if rng.random() < 0.5:
        reverse = bool(rng.random() < 0.5)
        return lambda x: lax.scan(_carry, jnp.zeros(x.shape[1:]), x, reverse=reverse)[1]
    return lambda x: lax.scan(_register, jnp.zeros((2, *x.shape[1:])), x)[1]


def build_loop(rng, shape):
    steps = int(rng.integers(1, 4))
    body = [_mix, _shift, _double, jnp.sin][rng.integers(4)]
    return lambda x: lax.fori_loop(0, steps, lambda _, y: body(y), x)


def build_last_carry(rng, shape):
    return lambda x: lax.scan(_carry, x[0] * 0 + 1, x)[0]


def build_while(rng, shape):
    return lambda x: lax.while_loop(
        lambda state: state[0] < 2, lambda state: (state[0] + 1, _shift(state[1])), (0, x)
    )[1]


def build_cond(rng, shape):
    return lambda x: lax.cond(jnp.sum(x) > 0, _mix, _double, x)


def build_reshape(rng, shape):
    size = int(np.prod(shape))
    options = [s for s in RESHAPED if int(np.prod(s)) == size]
    if not options:
        return None
    target = options[rng.integers(len(options))]
    return lambda x: x.reshape(target)


def build_strided(rng, shape):
    axis, step = _axis(rng, shape), int(rng.integers(1, 3))
    start = int(rng.integers(0, 2)) if shape[axis] > 1 else 0
    index = tuple(slice(start, None, step) if a == axis else slice(None) for a in range(len(shape)))
    return lambda x: x[index]


def build_pad(rng, shape):
    axis = _axis(rng, shape)
    config = [(0, 0, 0)] * len(shape)
    config[axis] = tuple(int(v) for v in rng.integers([-1, 0, 0], [2, 2, 2]))
    if shape[axis] < 2:
        return None
    return lambda x: lax.pad(x, jnp.zeros((), x.dtype), config)


def build_take(rng, shape):
    axis = _axis(rng, shape)
    index = rng.integers(0, shape[axis], size=int(rng.integers(2, 4)))
    return lambda x: jnp.take(x, index, axis=axis)


def build_grid(rng, shape):
    rows, columns = rng.integers(0, shape[0], (2, 2)), rng.integers(0, shape[1], (2, 2))
    return lambda x: x[rows, columns]


def build_chosen(rng, shape):
    axis = _axis(rng, shape)
    return lambda x: jnp.take_along_axis(x, jnp.argsort(x, axis=axis), axis=axis)


def build_scattered(rng, shape):
    index = rng.integers(0, shape[0], size=2)
    kind = rng.integers(3)
    if kind == 0:
        return lambda x: x.at[index].add(2 * x[:2]) if x.shape[0] >= 2 else x
    if kind == 1:
        return lambda x: x.at[int(index[0])].set(0.5 * x[-1])
    return lambda x: jax.ops.segment_sum(x, jnp.arange(x.shape[0]) // 2, num_segments=3)


def build_window(rng, shape):
    axis = _axis(rng, shape)
    size, stride = int(rng.integers(1, 4)), int(rng.integers(1, 3))
    dimensions = tuple(size if a == axis else 1 for a in range(len(shape)))
    strides = tuple(stride if a == axis else 1 for a in range(len(shape)))
    mode = ["VALID", "SAME"][rng.integers(2)]
    if mode == "VALID" and size > shape[axis]:
        return None
    if rng.random() < 0.5:
        return lambda x: lax.reduce_window(x, 0.0, lax.add, dimensions, strides, mode)
    return lambda x: lax.reduce_window(x, -jnp.inf, lax.max, dimensions, strides, mode)


def build_conv(rng, shape):
    width, stride, dilation = (
        int(rng.integers(1, 4)),
        int(rng.integers(1, 3)),
        int(rng.integers(1, 3)),
    )
    base, low, high = int(rng.integers(1, 3)), int(rng.integers(0, 2)), int(rng.integers(0, 2))
    kernel = rng.standard_normal((width, 2, 1)).astype(np.float32)
    kernel *= rng.random(kernel.shape) < 0.8
    reach = (shape[-1] - 1) * base + 1 + low + high
    if (width - 1) * dilation + 1 > reach:
        return None

    def apply(x):
        flat = x.reshape(1, x.size // x.shape[-1], x.shape[-1]).transpose(1, 0, 2)
        return lax.conv_general_dilated(
            flat,
            jnp.asarray(kernel.transpose(1, 2, 0)),
            (stride,),
            [(low, high)],
            (base,),
            (dilation,),
        )

    return apply


def _grouped(rng, shape):
    kernel = rng.standard_normal((4, 1, 2)).astype(np.float32)
    return lambda x: (
        lax.conv_general_dilated(x.reshape(1, 2, -1), kernel, (1,), "SAME", feature_group_count=2)
        if x.size % 2 == 0
        else None
    )


def build_matmul(rng, shape):
    weights = rng.standard_normal((shape[-1], 3)).astype(np.float32)
    weights *= rng.random(weights.shape) < 0.7
    return lambda x: x @ weights


def build_masked(rng, shape):
    offset = int(rng.integers(-1, 2))
    return lambda x: jnp.tril(x, offset) if offset < 1 else jnp.triu(x, offset - 1)


def build_attention(rng, shape):
    def apply(x):
        n = x.shape[-2]
        scores = x @ jnp.swapaxes(x, -1, -2)
        mask = lax.broadcasted_iota(jnp.int32, (n, n), 0) >= lax.broadcasted_iota(
            jnp.int32, (n, n), 1
        )
        return jax.nn.softmax(jnp.where(mask, scores, -jnp.inf), axis=-1) @ x

    return apply


def build_reduced(rng, shape):
    axis = _axis(rng, shape)
    function = [jnp.sum, jnp.max, jnp.mean, jnp.prod, jax.nn.logsumexp][rng.integers(5)]
    keep = bool(rng.random() < 0.5)
    return lambda x: function(x, axis=axis, keepdims=keep)


def build_along(rng, shape):
    axis = _axis(rng, shape)
    function = [jnp.cumsum, jnp.sort, jax.nn.softmax, jnp.flip, lax.cumlogsumexp, lax.cummax][
        rng.integers(6)
    ]
    return lambda x: function(x, axis=axis)


def build_dynamic(rng, shape):
    def apply(x):
        at = jnp.argmax(x.ravel()) % x.shape[0]
        sizes = (1, *x.shape[1:])
        piece = lax.dynamic_slice(x, (at, *([0] * (x.ndim - 1))), sizes)
        return lax.dynamic_update_slice(x * x, piece, (1, *([0] * (x.ndim - 1))))

    return apply if shape[0] > 1 else None


def build_solve(rng, shape):
    def apply(x):
        matrix = x.reshape(x.shape[0], -1)
        gram = matrix @ matrix.T + 3 * jnp.eye(x.shape[0])
        return jnp.linalg.solve(gram, matrix)

    return apply


def build_triangular(rng, shape):
    lower, left = bool(rng.random() < 0.5), bool(rng.random() < 0.5)

    def apply(x):
        n = x.shape[-2] if left else x.shape[-1]
        factor = jnp.ones((n, n)) + 2 * jnp.eye(n)
        batch = jnp.broadcast_to(factor, (*x.shape[:-2], n, n))
        return lax.linalg.triangular_solve(batch, x, left_side=left, lower=lower)

    return apply


def build_cholesky(rng, shape):
    def apply(x):
        matrix = x.reshape(x.shape[0], -1)
        return jnp.linalg.cholesky(matrix @ matrix.T + 3 * jnp.eye(x.shape[0]))

    return apply


def build_transposed(rng, shape):
    order = tuple(int(a) for a in rng.permutation(len(shape)))
    return lambda x: x.transpose(order)


def build_selected(rng, shape):
    mask = rng.random(shape) < 0.5
    return lambda x: jnp.where(mask, x, 2 * jnp.flip(x))


SMOOTH = [
    "abs", "acos", "asin", "asinh", "atan", "atanh", "bessel_i0e", "bessel_i1e", "cbrt", "ceil",
    "cos", "cosh", "digamma", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "lgamma",
    "log", "log1p", "logistic", "neg", "round", "rsqrt", "sign", "sin", "sinh", "sqrt", "square",
    "tan",
]  # fmt: skip
BINARY = ["atan2", "div", "igamma", "igammac", "max", "min", "pow", "rem", "sub"]
FOLDED = ["cumprod", "cummax", "cummin", "cumlogsumexp"]


def build_smooth(rng, shape):
    function = getattr(lax, str(rng.choice(SMOOTH)))
    return lambda x: function(0.1 + 0.8 * jax.nn.sigmoid(x))


def build_binary(rng, shape):
    function = getattr(lax, str(rng.choice(BINARY)))
    return lambda x: function(0.1 + jax.nn.sigmoid(x), 0.3 + jax.nn.sigmoid(jnp.flip(x)))


def _pooled(x):
    return lax.reduce_window(x.ravel(), -jnp.inf, lax.max, (2,), (1,), "SAME")


def build_odd(rng, shape):
    """Elementwise primitives that need arguments of their own."""
    options = [
        lambda x: lax.acosh(1.5 + x * x),
        lambda x: lax.clamp(np.float32(-0.5), x, np.float32(0.8)),
        lambda x: lax.reduce_precision(x, 8, 20),
        lambda x: lax.optimization_barrier((x, x * 2))[1],
        lambda x: checkpoint_name(x, "a"),
        lambda x: lax.imag(lax.complex(x, jnp.flip(x)) ** 2),
        lambda x: lax.real(lax.conj(lax.complex(x, jnp.flip(x)))),
        lambda x: jnp.where(lax.is_finite(x), x, 0),
        lambda x: jax.scipy.special.betainc(2.0, 3.0, jax.nn.sigmoid(x)),
        lambda x: jax.scipy.special.polygamma(1, 1 + x * x),
        lambda x: jax.grad(lambda y: (y * jnp.sin(y) * jnp.flip(y)).sum())(x),
        lambda x: jax.grad(lambda y: _pooled(y * y).sum())(x),
        jnp.copy,
    ]
    return options[rng.integers(len(options))]


def build_folded(rng, shape):
    axis = _axis(rng, shape)
    kind = int(rng.integers(6))
    if kind < 4:
        function = getattr(lax, FOLDED[kind])
        return lambda x: function(x, axis=axis, reverse=bool(axis))
    if kind == 4:
        return lambda x: jnp.min(x, axis=axis)
    return lambda x: lax.reduce_window(x, jnp.inf, lax.min, *_pairs(shape, axis))


def _pairs(shape, axis):
    dimensions = tuple(min(2, size) if a == axis else 1 for a, size in enumerate(shape))
    return dimensions, (1,) * len(shape), "VALID"


def build_written(rng, shape):
    index = rng.permutation(shape[0])[:2]
    if len(index) < 2:
        return None
    kind = ["subtract", "multiply", "min", "max", "set"][rng.integers(5)]
    return lambda x: getattr(x.at[index], kind)(jnp.flip(x[:2]), unique_indices=True)


def build_factor(rng, shape):
    options = [
        lambda a: lax.linalg.lu(a)[0],
        lambda a: jnp.linalg.qr(a)[1],
        lambda a: jnp.linalg.eigh(a + a.T)[0],
        lambda a: jnp.linalg.svd(a, compute_uv=False),
        lambda a: lax.linalg.tridiagonal_solve(a[0], 4 + a[1] ** 2, a[2], a),
        lambda a: lax.custom_linear_solve(lambda v: 2 * v, a, lambda _, b: b / 2, symmetric=True),
        lambda a: lax.top_k(a, 2)[0],
        lambda a: lax.approx_max_k(a, 2)[0],
        lambda a: jnp.unstack(a)[1],
    ]
    function = options[rng.integers(len(options))]
    spread = jnp.diag(jnp.arange(3.0))
    return lambda x: function(jnp.resize(x, (3, 3)) + spread)
