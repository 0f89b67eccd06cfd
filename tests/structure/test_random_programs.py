"""Soundness: random JAX programs, their inferred pattern against `jax.jacrev` at several points.

Programs are run equation by equation on a few tiny shapes, so that XLA's compilations are shared.
"""

import collections
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from gradlab.structure import jacobian

SHAPES = [(6,), (2, 3), (3, 3), (4,), (2, 2, 3)]
RESHAPED = [*SHAPES, (12,), (3, 2), (4, 3), (3, 4), (9,)]
POINTS = 3
AT_ONCE = 16
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


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
RULES = {"reversing rule", "clipping rule"}
# what AD's answer depends on at a point, or rules whose exact pattern no rule on axes can say
VALUE_DEPENDENT = {
    "relu", "gelu", "where", "clip", "cond", "take along", "along", "window", "dynamic", "reduce",
    "maximum", "top", "scatter", "fft", "rfft", "solve", "triangular solve", "cholesky", "while",
    "attention", "clipping rule", "normalise", "cast", "jit", "remat",
}  # fmt: skip


class Drawn(NamedTuple):
    seed: int
    names: tuple[str, ...]
    function: Callable[..., Any]
    shape: tuple[int, ...]


def draw(seed: int) -> Drawn:
    """Draw a program: a few operations, each on what earlier ones made."""
    rng = np.random.default_rng(seed)
    depth = int(rng.integers(1, 5))
    shape = SHAPES[rng.integers(len(SHAPES))]
    shapes = [shape]
    plan: list[tuple[str, Callable[..., Any], tuple[int, ...]]] = []
    while len(plan) < depth:
        op = OPS[rng.integers(len(OPS))]
        drawn = {name for name, _, _ in plan}
        if (op.name == "while" and drawn & RULES) or (op.name in RULES and "while" in drawn):
            continue  # JAX differentiates the two together in no mode
        first = len(shapes) - 1 if rng.random() < 0.8 else int(rng.integers(len(shapes)))
        chosen = (first, int(rng.integers(len(shapes))))[: op.operands]
        if op.operands == 2 and shapes[chosen[0]] != shapes[chosen[1]]:
            chosen = (first, first)
        function = op.build(rng, shapes[first])
        if function is None:
            continue
        try:
            out = jax.eval_shape(
                function, *(jax.ShapeDtypeStruct(shapes[k], jnp.float32) for k in chosen)
            )
        except (TypeError, ValueError, IndexError, ZeroDivisionError):
            continue
        if out is None or not 0 < out.size <= 36 or out.ndim == 0 or out.dtype != jnp.float32:
            continue
        plan.append((op.name, function, chosen))
        shapes.append(out.shape)

    def run(x):
        made = [x]
        for _, function, chosen in plan:
            made.append(function(*(made[k] for k in chosen)))
        return made[-1]

    return Drawn(seed, tuple(name for name, _, _ in plan), run, shape)


def truth(programs: list[Drawn], points: list[np.ndarray]) -> list[np.ndarray]:
    """Return where each Jacobian is not zero at one of several points, all compiled together."""

    def dense(program: Drawn, at: jax.Array) -> jax.Array:
        differentiate = jax.jacfwd if "while" in program.names else jax.jacrev
        return jax.vmap(differentiate(program.function))(at)

    everything = jax.jit(
        lambda points: [dense(*pair) for pair in zip(programs, points)], compiler_options=QUICK
    )
    found = []
    for program, values in zip(programs, map(np.asarray, everything(points))):
        nonzero = (np.isfinite(values) & (values != 0)).any(0)
        found.append(nonzero.reshape(-1, int(np.prod(program.shape))))
    return found


def examine(program: Drawn, nonzero: np.ndarray) -> int:
    """Return how many entries are over-estimated; fail if one is missed."""
    report = jacobian(program.function, np.zeros(program.shape, np.float32))
    pattern = report.pattern.to_dense()
    missed = nonzero & ~pattern
    assert not missed.any(), (
        f"seed {program.seed}: {' -> '.join(program.names)} on {program.shape} misses "
        f"{missed.sum()}, first (output, input) {np.argwhere(missed)[0]}: {report.notation}"
    )
    assert not report.unknown, (program.seed, program.names, report.unknown)
    return int((pattern & ~nonzero).sum())


def census(seeds: range) -> dict[str, collections.Counter[Any]]:
    """Examine many programs; count operations, neighbouring pairs, and over-estimates."""
    counts: dict[str, collections.Counter[Any]] = collections.defaultdict(collections.Counter)
    for first in range(seeds.start, seeds.stop, AT_ONCE):
        programs = [draw(seed) for seed in range(first, min(first + AT_ONCE, seeds.stop))]
        points = [
            np.random.default_rng(program.seed)
            .standard_normal((POINTS, *program.shape))
            .astype(np.float32)
            for program in programs
        ]
        for program, nonzero in zip(programs, truth(programs, points)):
            extra = examine(program, nonzero)
            counts["operations"].update(program.names)
            counts["pairs"].update(zip(program.names, program.names[1:]))
            depends_on_values = bool(VALUE_DEPENDENT & set(program.names))
            counts["over"][depends_on_values, bool(extra)] += 1
            if extra and not depends_on_values:
                counts["culprits"][program.names] += 1
                counts["examples"][program.seed, program.names, program.shape, extra] += 1
    return counts


def test_no_entry_is_missed_in_random_programs():
    census(range(48))


@pytest.mark.slow
def test_no_entry_is_missed_in_twenty_thousand_random_programs():
    counts = census(range(20_000))
    assert min(counts["operations"][op.name] for op in OPS) >= 50
    exact, over = counts["over"][False, False], counts["over"][False, True]
    assert over <= 0.05 * (exact + over), counts["culprits"].most_common(20)
