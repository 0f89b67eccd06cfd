"""Soundness: random JAX programs, their inferred pattern against `jax.jacrev` at several points.

Programs are run equation by equation on a few tiny shapes, so that XLA's compilations are shared.
"""

import collections
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from gradlab.structure import jacobian
from gradlab.structure.infer import Step
from gradlab.structure.report import JacobianReport

SHAPES = [(6,), (2, 3), (3, 3), (4,), (2, 2, 3)]
RESHAPED = [*SHAPES, (12,), (3, 2), (4, 3), (3, 4), (9,)]
POINTS = 3
AT_ONCE = 16
QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_parallel_codegen_split_count": 1,
}
if jax.__version_info__ < (0, 11):
    QUICK["xla_cpu_use_fusion_emitters"] = False  # a third of the time to compile


class Op(NamedTuple):
    name: str
    build: Callable[[np.random.Generator, tuple[int, ...]], Callable[..., Any] | None]
    operands: int = 1


def _axis(rng: np.random.Generator, shape: tuple[int, ...]) -> int:
    return int(rng.integers(len(shape)))


def _unary(name: str, function: Callable[..., Any]) -> Op:
    return Op(name, lambda rng, shape: function)


def _ranked(name: str, build: Callable[..., Any], least: int = 1) -> Op:
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


def _scan(rng, shape):
    if rng.random() < 0.5:
        reverse = bool(rng.random() < 0.5)
        return lambda x: lax.scan(_carry, jnp.zeros(x.shape[1:]), x, reverse=reverse)[1]
    return lambda x: lax.scan(_register, jnp.zeros((2, *x.shape[1:])), x)[1]


def _loop(rng, shape):
    steps = int(rng.integers(1, 4))
    body = [_mix, _shift, _double, jnp.sin][rng.integers(4)]
    return lambda x: lax.fori_loop(0, steps, lambda _, y: body(y), x)


def _last_carry(rng, shape):
    return lambda x: lax.scan(_carry, x[0] * 0 + 1, x)[0]


def _while(rng, shape):
    return lambda x: lax.while_loop(
        lambda state: state[0] < 2, lambda state: (state[0] + 1, _shift(state[1])), (0, x)
    )[1]


def _cond(rng, shape):
    return lambda x: lax.cond(jnp.sum(x) > 0, _mix, _double, x)


def _reshape(rng, shape):
    size = int(np.prod(shape))
    options = [s for s in RESHAPED if int(np.prod(s)) == size]
    if not options:
        return None
    target = options[rng.integers(len(options))]
    return lambda x: x.reshape(target)


def _strided(rng, shape):
    axis, step = _axis(rng, shape), int(rng.integers(1, 3))
    start = int(rng.integers(0, 2)) if shape[axis] > 1 else 0
    index = tuple(slice(start, None, step) if a == axis else slice(None) for a in range(len(shape)))
    return lambda x: x[index]


def _pad(rng, shape):
    axis = _axis(rng, shape)
    config = [(0, 0, 0)] * len(shape)
    config[axis] = tuple(int(v) for v in rng.integers([-1, 0, 0], [2, 2, 2]))
    if shape[axis] < 2:
        return None
    return lambda x: lax.pad(x, jnp.zeros((), x.dtype), config)


def _take(rng, shape):
    axis = _axis(rng, shape)
    index = rng.integers(0, shape[axis], size=int(rng.integers(2, 4)))
    return lambda x: jnp.take(x, index, axis=axis)


def _grid(rng, shape):
    rows, columns = rng.integers(0, shape[0], (2, 2)), rng.integers(0, shape[1], (2, 2))
    return lambda x: x[rows, columns]


def _chosen(rng, shape):
    axis = _axis(rng, shape)
    return lambda x: jnp.take_along_axis(x, jnp.argsort(x, axis=axis), axis=axis)


def _scattered(rng, shape):
    index = rng.integers(0, shape[0], size=2)
    kind = rng.integers(3)
    if kind == 0:
        return lambda x: x.at[index].add(2 * x[:2]) if x.shape[0] >= 2 else x
    if kind == 1:
        return lambda x: x.at[int(index[0])].set(0.5 * x[-1])
    return lambda x: jax.ops.segment_sum(x, jnp.arange(x.shape[0]) // 2, num_segments=3)


def _window(rng, shape):
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


def _conv(rng, shape):
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


def _matmul(rng, shape):
    weights = rng.standard_normal((shape[-1], 3)).astype(np.float32)
    weights *= rng.random(weights.shape) < 0.7
    return lambda x: x @ weights


def _masked(rng, shape):
    offset = int(rng.integers(-1, 2))
    return lambda x: jnp.tril(x, offset) if offset < 1 else jnp.triu(x, offset - 1)


def _attention(rng, shape):
    def apply(x):
        n = x.shape[-2]
        scores = x @ jnp.swapaxes(x, -1, -2)
        mask = lax.broadcasted_iota(jnp.int32, (n, n), 0) >= lax.broadcasted_iota(
            jnp.int32, (n, n), 1
        )
        return jax.nn.softmax(jnp.where(mask, scores, -jnp.inf), axis=-1) @ x

    return apply


def _reduced(rng, shape):
    axis = _axis(rng, shape)
    function = [jnp.sum, jnp.max, jnp.mean, jnp.prod, jax.nn.logsumexp][rng.integers(5)]
    keep = bool(rng.random() < 0.5)
    return lambda x: function(x, axis=axis, keepdims=keep)


def _along(rng, shape):
    axis = _axis(rng, shape)
    function = [jnp.cumsum, jnp.sort, jax.nn.softmax, jnp.flip, lax.cumlogsumexp, lax.cummax][
        rng.integers(6)
    ]
    return lambda x: function(x, axis=axis)


def _dynamic(rng, shape):
    def apply(x):
        at = jnp.argmax(x.ravel()) % x.shape[0]
        sizes = (1, *x.shape[1:])
        piece = lax.dynamic_slice(x, (at, *([0] * (x.ndim - 1))), sizes)
        return lax.dynamic_update_slice(x * x, piece, (1, *([0] * (x.ndim - 1))))

    return apply if shape[0] > 1 else None


def _solve(rng, shape):
    def apply(x):
        matrix = x.reshape(x.shape[0], -1)
        gram = matrix @ matrix.T + 3 * jnp.eye(x.shape[0])
        return jnp.linalg.solve(gram, matrix)

    return apply


def _triangular(rng, shape):
    lower, left = bool(rng.random() < 0.5), bool(rng.random() < 0.5)

    def apply(x):
        n = x.shape[-2] if left else x.shape[-1]
        factor = jnp.ones((n, n)) + 2 * jnp.eye(n)
        batch = jnp.broadcast_to(factor, (*x.shape[:-2], n, n))
        return lax.linalg.triangular_solve(batch, x, left_side=left, lower=lower)

    return apply


def _cholesky(rng, shape):
    def apply(x):
        matrix = x.reshape(x.shape[0], -1)
        return jnp.linalg.cholesky(matrix @ matrix.T + 3 * jnp.eye(x.shape[0]))

    return apply


def _transposed(rng, shape):
    order = tuple(int(a) for a in rng.permutation(len(shape)))
    return lambda x: x.transpose(order)


def _selected(rng, shape):
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


def _smooth(rng, shape):
    function = getattr(lax, str(rng.choice(SMOOTH)))
    return lambda x: function(0.1 + 0.8 * jax.nn.sigmoid(x))


def _binary(rng, shape):
    function = getattr(lax, str(rng.choice(BINARY)))
    return lambda x: function(0.1 + jax.nn.sigmoid(x), 0.3 + jax.nn.sigmoid(jnp.flip(x)))


def _pooled(x):
    return lax.reduce_window(x.ravel(), -jnp.inf, lax.max, (2,), (1,), "SAME")


def _odd(rng, shape):
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


def _folded(rng, shape):
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


def _written(rng, shape):
    index = rng.permutation(shape[0])[:2]
    if len(index) < 2:
        return None
    kind = ["subtract", "multiply", "min", "max", "set"][rng.integers(5)]
    return lambda x: getattr(x.at[index], kind)(jnp.flip(x[:2]), unique_indices=True)


def _factor(rng, shape):
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


OPS = [
    _unary("tanh", jnp.tanh),
    _unary("square", jnp.square),
    _unary("relu", jax.nn.relu),
    _unary("gelu", jax.nn.gelu),
    _unary("where", lambda x: jnp.where(x > 0, x, -x * x)),
    _unary("clip", lambda x: jnp.clip(x, -0.5, 0.5)),
    _unary("stop", lambda x: x + lax.stop_gradient(jnp.flip(x))),
    _unary("cast", lambda x: x.astype(jnp.int32).astype(jnp.float32) + x),
    _unary("straight through", straight_through),
    _unary("reversing rule", reverses),
    _unary("clipping rule", clips),
    _unary("jit", jax.jit(_mix_any := lambda x: x * 2 + jnp.flip(x))),
    _unary("remat", jax.checkpoint(lambda x: jnp.sin(x) * jnp.flip(x))),
    _unary("normalise", lambda x: (x - x.mean(-1, keepdims=True)) / (1 + x.std(-1, keepdims=True))),
    _unary("fft", lambda x: jnp.abs(jnp.fft.fft(x))),
    _unary("rfft", lambda x: jnp.real(jnp.fft.rfft(x))),
    _unary("outer", lambda x: jnp.outer(x.ravel()[:3], x.ravel()[-2:])),
    _unary("top", lambda x: lax.top_k(x, 2)[0] if x.shape[-1] > 2 else x),
    _unary("tile", lambda x: jnp.tile(x, 2)),
    _unary("repeat", lambda x: jnp.repeat(x, 2, axis=0)),
    _unary("roll", lambda x: jnp.roll(x, 1, axis=0)),
    _unary("vmap", lambda x: jax.vmap(jnp.cumsum)(x.reshape(x.shape[0], -1))),
    _unary("diag", lambda x: jnp.diag(x.ravel()[:3])),
    _unary("stack", lambda x: jnp.stack([x, x * x], axis=-1)),
    _unary("split", lambda x: jnp.concatenate(jnp.split(x, [1])[::-1])),
    _unary("zero times", lambda x: x * jnp.zeros(x.shape).at[0].set(1.0)),
    _ranked("scan", _scan),
    _ranked("last carry", _last_carry),
    _ranked("loop", _loop),
    _ranked("while", _while),
    _ranked("cond", _cond),
    _ranked("reshape", _reshape),
    _ranked("slice", _strided),
    _ranked("pad", _pad),
    _ranked("take", _take),
    _ranked("grid", _grid, 2),
    _ranked("take along", _chosen),
    _ranked("scatter", _scattered),
    _ranked("window", _window),
    _ranked("conv", _conv),
    _ranked("matmul", _matmul),
    _ranked("triangle", _masked, 2),
    _ranked("attention", _attention, 2),
    _ranked("reduce", _reduced),
    _ranked("along", _along),
    _ranked("dynamic", _dynamic),
    _ranked("solve", _solve),
    _ranked("triangular solve", _triangular, 2),
    _ranked("cholesky", _cholesky),
    _ranked("transpose", _transposed),
    _ranked("select", _selected),
    Op("add", lambda rng, shape: jnp.add, 2),
    Op("multiply", lambda rng, shape: jnp.multiply, 2),
    Op("divide", lambda rng, shape: lambda a, b: a / (2 + b * b), 2),
    Op("maximum", lambda rng, shape: jnp.maximum, 2),
]
RARE = [
    *[_ranked("smooth", _smooth)] * 3,
    _ranked("binary", _binary),
    _ranked("odd", _odd),
    _ranked("folded", _folded),
    _ranked("written", _written),
    _ranked("factor", _factor),
]
HANDLED = {
    *SMOOTH, *BINARY, *FOLDED, "acosh", "add", "add_any", "approx_top_k", "broadcast_in_dim",
    "cholesky", "clamp", "complex", "concatenate", "cond", "conj", "conv_general_dilated",
    "convert_element_type", "copy", "cumsum", "custom_linear_solve", "dot_general",
    "dynamic_slice", "dynamic_update_slice", "eigh", "fft", "gather", "imag", "integer_pow", "lu",
    "mul", "name", "optimization_barrier", "pad", "polygamma", "qr", "real",
    "reduce_max", "reduce_min", "reduce_precision", "reduce_prod", "reduce_sum",
    "reduce_window_max", "reduce_window_min", "reduce_window_sum", "regularized_incomplete_beta",
    "reshape", "rev", "scan", "scatter", "scatter-add", "scatter-max", "scatter-min",
    "scatter-mul", "scatter-sub", "select_and_gather_add", "select_and_scatter_add", "select_n",
    "slice", "sort", "split", "squeeze", "stack", "svd", "tanh", "tile", "top_k", "transpose",
    "triangular_solve", "tridiagonal_solve", "unstack", "while",
}  # fmt: skip
RULES = {"reversing rule", "clipping rule"}
IMPOSSIBLE = {pair for rule in RULES for pair in [("while", rule), (rule, "while")]}
"""JAX differentiates the two together in no mode."""

# what AD's answer depends on at a point, or rules whose exact pattern no rule on axes can say
VALUE_DEPENDENT = {
    "relu", "gelu", "where", "clip", "cond", "take along", "along", "window", "dynamic", "reduce",
    "maximum", "top", "scatter", "fft", "rfft", "solve", "triangular solve", "cholesky", "while",
    "attention", "clipping rule", "normalise", "cast", "jit", "remat", "odd", "folded", "written",
    "factor",
}  # fmt: skip


class Drawn(NamedTuple):
    seed: int
    names: tuple[str, ...]
    composed: frozenset[tuple[str, str]]  # (operation, one that reads its result)
    function: Callable[..., Any]
    shape: tuple[int, ...]


def draw(seed: int) -> Drawn:
    """Draw a program: each seed composes another pair of operations, with up to two others."""
    rng = np.random.default_rng(seed)
    pair = [OPS[seed % len(OPS)], OPS[seed // len(OPS) % len(OPS)]]
    for _ in range(60):
        others = [RARE if rng.random() < 0.6 else OPS for _ in range(rng.integers(3))]
        drawn = [options[rng.integers(len(options))] for options in others]
        before = int(rng.integers(len(drawn) + 1))
        program = _chain(seed, rng, [*drawn[:before], *pair, *drawn[before:]], before + 1)
        if program is not None:
            return program
    return draw(seed + 1)  # a pair that JAX does not compose


def _chain(seed: int, rng: np.random.Generator, ops: list[Op], linked: int) -> Drawn | None:
    """Apply operations to earlier results; the one at `linked` to the last result for sure."""
    names = {op.name for op in ops}
    if "while" in names and names & RULES:
        return None
    shape = SHAPES[rng.integers(len(SHAPES))]
    shapes = [shape]
    plan: list[tuple[Callable[..., Any], tuple[int, ...]]] = []
    for place, op in enumerate(ops):
        last = place == linked or rng.random() < 0.8
        first = len(shapes) - 1 if last else int(rng.integers(len(shapes)))
        chosen = (first, int(rng.integers(len(shapes))))[: op.operands]
        if op.operands == 2 and shapes[chosen[0]] != shapes[chosen[1]]:
            chosen = (first, first)
        function = op.build(rng, shapes[first])
        if function is None:
            return None
        try:
            out = jax.eval_shape(
                function, *(jax.ShapeDtypeStruct(shapes[k], jnp.float32) for k in chosen)
            )
        except (TypeError, ValueError, IndexError, ZeroDivisionError):
            return None
        if out is None or not 0 < out.size <= 36 or out.ndim == 0 or out.dtype != jnp.float32:
            return None
        plan.append((function, chosen))
        shapes.append(out.shape)

    def run(x):
        made = [x]
        for function, chosen in plan:
            made.append(function(*(made[k] for k in chosen)))
        return made[-1]

    composed = frozenset(
        (ops[k - 1].name, op.name) for op, (_, chosen) in zip(ops, plan) for k in chosen if k
    )
    return Drawn(seed, tuple(op.name for op in ops), composed, run, shape)


def truth(programs: list[Drawn], points: list[np.ndarray]) -> list[np.ndarray]:
    """Return where each Jacobian is not zero at one of several points, all compiled together."""

    def dense(program: Drawn, at: jax.Array) -> jax.Array:
        differentiate = jax.jacfwd if "while" in program.names else jax.jacrev
        return jax.vmap(differentiate(program.function))(at)

    def together(points: list[np.ndarray]) -> list[jax.Array]:
        return [dense(*pair) for pair in zip(programs, points)]

    try:
        compiled = jax.jit(together, compiler_options=QUICK)
        everything = jax.block_until_ready(compiled(points))
    except jax.errors.JaxRuntimeError:  # XLA's FFT fails on some layouts that it chose itself
        everything = together(points)
    found = []
    for program, values in zip(programs, map(np.asarray, everything)):
        nonzero = (np.isfinite(values) & (values != 0)).any(0)
        found.append(nonzero.reshape(-1, int(np.prod(program.shape))))
    return found


def examine(program: Drawn, nonzero: np.ndarray) -> tuple[JacobianReport, int]:
    """Return the report and how many entries it over-estimates; fail if it misses one."""
    report = jacobian(program.function, np.zeros(program.shape, np.float32))
    pattern = report.pattern.to_dense()
    missed = nonzero & ~pattern
    assert not missed.any(), (
        f"seed {program.seed}: {' -> '.join(program.names)} on {program.shape} misses "
        f"{missed.sum()}, first (output, input) {np.argwhere(missed)[0]}: {report.notation}"
    )
    assert not report.unknown, (program.seed, program.names, report.unknown)
    return report, int((pattern & ~nonzero).sum())


def primitives(steps: Iterable[Step]) -> Iterator[str]:
    for step in steps:
        yield step.name
        yield from primitives(step.inner)


def census(seeds: range) -> dict[str, collections.Counter[Any]]:
    """Examine many programs; count operations, primitives, compositions and over-estimates."""
    counts: dict[str, collections.Counter[Any]] = collections.defaultdict(collections.Counter)
    for first in range(0, len(seeds), AT_ONCE):
        programs = [draw(seed) for seed in seeds[first : first + AT_ONCE]]
        points = [
            np.random.default_rng(program.seed)
            .standard_normal((POINTS, *program.shape))
            .astype(np.float32)
            for program in programs
        ]
        for program, nonzero in zip(programs, truth(programs, points)):
            report, extra = examine(program, nonzero)
            counts["operations"].update(set(program.names))
            counts["composed"].update(program.composed)
            lines = {line.name for line in report.proof.lines}
            counts["primitives"].update(lines | set(primitives(report.proof.steps)))
            depends_on_values = bool(VALUE_DEPENDENT & set(program.names))
            counts["over"][depends_on_values, bool(extra)] += 1
            if extra and not depends_on_values:
                counts["culprits"][program.names] += 1
                counts["examples"][program.seed, program.names, program.shape, extra] += 1
    return counts


def judge(counts: dict[str, collections.Counter[Any]]) -> None:
    """Hold a census of twenty thousand programs to what it must cover, and how exactly."""
    assert min(counts["operations"][op.name] for op in [*OPS, *RARE]) >= 50
    rarest = min(HANDLED, key=lambda name: counts["primitives"][name])
    assert counts["primitives"][rarest] >= 50, rarest
    pairs = {(a.name, b.name) for a in OPS for b in OPS} - IMPOSSIBLE
    assert min(counts["composed"][pair] for pair in pairs) >= 5
    exact, over = counts["over"][False, False], counts["over"][False, True]
    assert over <= 0.05 * (exact + over), counts["culprits"].most_common(20)


def test_no_entry_is_missed_in_random_programs():
    census(range(0, len(OPS) ** 2, len(OPS) ** 2 // 48))


@pytest.mark.slow
def test_no_entry_is_missed_in_twenty_thousand_random_programs():
    judge(census(range(20_000)))
