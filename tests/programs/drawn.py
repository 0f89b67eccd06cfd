"""Random JAX programs: each seed composes another pair of operations, with up to two others."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from programs.operations import (
    BINARY,
    FOLDED,
    SHAPES,
    SMOOTH,
    Op,
    build_along,
    build_attention,
    build_binary,
    build_cholesky,
    build_chosen,
    build_cond,
    build_conv,
    build_dynamic,
    build_factor,
    build_folded,
    build_grid,
    build_last_carry,
    build_loop,
    build_masked,
    build_matmul,
    build_odd,
    build_pad,
    build_reduced,
    build_reshape,
    build_scan,
    build_scattered,
    build_selected,
    build_smooth,
    build_solve,
    build_strided,
    build_take,
    build_transposed,
    build_triangular,
    build_while,
    build_window,
    build_written,
    clips,
    ranked,
    reverses,
    straight_through,
    unary,
)

OPS = [
    unary("tanh", jnp.tanh),
    unary("square", jnp.square),
    unary("relu", jax.nn.relu),
    unary("gelu", jax.nn.gelu),
    unary("where", lambda x: jnp.where(x > 0, x, -x * x)),
    unary("clip", lambda x: jnp.clip(x, -0.5, 0.5)),
    unary("stop", lambda x: x + lax.stop_gradient(jnp.flip(x))),
    unary("cast", lambda x: x.astype(jnp.int32).astype(jnp.float32) + x),
    unary("straight through", straight_through),
    unary("reversing rule", reverses),
    unary("clipping rule", clips),
    unary("jit", jax.jit(_mix_any := lambda x: x * 2 + jnp.flip(x))),
    unary("remat", jax.checkpoint(lambda x: jnp.sin(x) * jnp.flip(x))),
    unary("normalise", lambda x: (x - x.mean(-1, keepdims=True)) / (1 + x.std(-1, keepdims=True))),
    unary("fft", lambda x: jnp.abs(jnp.fft.fft(x))),
    unary("rfft", lambda x: jnp.real(jnp.fft.rfft(x))),
    unary("outer", lambda x: jnp.outer(x.ravel()[:3], x.ravel()[-2:])),
    unary("top", lambda x: lax.top_k(x, 2)[0] if x.shape[-1] > 2 else x),
    unary("tile", lambda x: jnp.tile(x, 2)),
    unary("repeat", lambda x: jnp.repeat(x, 2, axis=0)),
    unary("roll", lambda x: jnp.roll(x, 1, axis=0)),
    unary("vmap", lambda x: jax.vmap(jnp.cumsum)(x.reshape(x.shape[0], -1))),
    unary("diag", lambda x: jnp.diag(x.ravel()[:3])),
    unary("stack", lambda x: jnp.stack([x, x * x], axis=-1)),
    unary("split", lambda x: jnp.concatenate(jnp.split(x, [1])[::-1])),
    unary("zero times", lambda x: x * jnp.zeros(x.shape).at[0].set(1.0)),
    ranked("scan", build_scan),
    ranked("last carry", build_last_carry),
    ranked("loop", build_loop),
    ranked("while", build_while),
    ranked("cond", build_cond),
    ranked("reshape", build_reshape),
    ranked("slice", build_strided),
    ranked("pad", build_pad),
    ranked("take", build_take),
    ranked("grid", build_grid, 2),
    ranked("take along", build_chosen),
    ranked("scatter", build_scattered),
    ranked("window", build_window),
    ranked("conv", build_conv),
    ranked("matmul", build_matmul),
    ranked("triangle", build_masked, 2),
    ranked("attention", build_attention, 2),
    ranked("reduce", build_reduced),
    ranked("along", build_along),
    ranked("dynamic", build_dynamic),
    ranked("solve", build_solve),
    ranked("triangular solve", build_triangular, 2),
    ranked("cholesky", build_cholesky),
    ranked("transpose", build_transposed),
    ranked("select", build_selected),
    Op("add", lambda rng, shape: jnp.add, 2),
    Op("multiply", lambda rng, shape: jnp.multiply, 2),
    Op("divide", lambda rng, shape: lambda a, b: a / (2 + b * b), 2),
    Op("maximum", lambda rng, shape: jnp.maximum, 2),
]
RARE = [
    *[ranked("smooth", build_smooth)] * 3,
    ranked("binary", build_binary),
    ranked("odd", build_odd),
    ranked("folded", build_folded),
    ranked("written", build_written),
    ranked("factor", build_factor),
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
