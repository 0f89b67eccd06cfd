"""Pallas kernels of every build, each with plain code that computes the same."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas

SHAPE = jax.ShapeDtypeStruct


def call(kernel, shape, *arrays, interpret=True, **options):
    return pallas.pallas_call(kernel, shape, interpret=interpret, **options)(*arrays)


def _tanh(x_ref, out_ref):
    out_ref[...] = jnp.tanh(x_ref[...])


def tanh(x):
    """One block: the whole array."""
    return call(_tanh, SHAPE(x.shape, x.dtype), x)


def compiled_tanh(x):
    """The same for an accelerator: the CPU does not run it."""
    return call(_tanh, SHAPE(x.shape, x.dtype), x, interpret=False)


def softmax(x):
    """A grid over rows."""

    def kernel(x_ref, out_ref):
        e = jnp.exp(x_ref[...] - x_ref[...].max(-1, keepdims=True))
        out_ref[...] = e / e.sum(-1, keepdims=True)

    rows = pallas.BlockSpec((2, x.shape[1]), lambda i: (i, 0))
    grid = (x.shape[0] // 2,)
    return call(kernel, SHAPE(x.shape, x.dtype), x, grid=grid, in_specs=[rows], out_specs=rows)


def matmul(a, b):
    """A grid that adds to one output block again and again."""
    (n, k), m = a.shape, b.shape[1]

    def kernel(a_ref, b_ref, out_ref):
        @pallas.when(pallas.program_id(0) == 0)
        def _():
            out_ref[...] = jnp.zeros_like(out_ref)

        out_ref[...] += a_ref[...] @ b_ref[...]

    part = k // 4
    return call(
        kernel, SHAPE((n, m), a.dtype), a, b, grid=(4,),
        in_specs=[
            pallas.BlockSpec((n, part), lambda i: (0, i)),
            pallas.BlockSpec((part, m), lambda i: (i, 0)),
        ],
        out_specs=pallas.BlockSpec((n, m), lambda i: (0, 0)),
    )  # fmt: skip


def running(x):
    """A loop inside the kernel whose length the program knows, and one whose length it does not."""

    def kernel(x_ref, out_ref):
        def add(i, total):
            return total + x_ref[i] ** 2

        half = jax.lax.fori_loop(0, x.shape[0] // 2, add, jnp.zeros(x.shape[1:], x.dtype))
        out_ref[...] = jax.lax.fori_loop(x.shape[0] // 2, x.shape[0], add, half)

    return call(kernel, SHAPE(x.shape[1:], x.dtype), x)


def causal(q, k, v):
    """Attention block by block, as far as the past goes: a loop that the grid's place bounds."""
    size = 4
    far = -1e30

    def kernel(q_ref, k_ref, v_ref, out_ref):
        place = pallas.program_id(0)
        q = q_ref[...]

        def block(j, state):
            most, total, out = state
            at = (pallas.ds(j * size, size), slice(None))
            rows, columns = (size * i + jnp.arange(size) for i in (place, j))
            scores = jnp.where(rows[:, None] >= columns, q @ k_ref[at].T, far)
            larger = jnp.maximum(most, scores.max(-1))
            p, shrunk = jnp.exp(scores - larger[:, None]), jnp.exp(most - larger)
            return larger, total * shrunk + p.sum(-1), out * shrunk[:, None] + p @ v_ref[at]

        start = jnp.full(size, far, q.dtype), jnp.zeros(size, q.dtype), jnp.zeros_like(v_ref[:size])
        _, total, out = jax.lax.fori_loop(0, place + 1, block, start)
        out_ref[...] = out / total[:, None]

    def rows(a):
        return pallas.BlockSpec((size, a.shape[1]), lambda i: (i, 0))

    def whole(a):
        return pallas.BlockSpec(a.shape, lambda i: (0, 0))

    return call(
        kernel, SHAPE((len(q), v.shape[1]), q.dtype), q, k, v, grid=(len(q) // size,),
        in_specs=[rows(q), whole(k), whole(v)], out_specs=rows(v),
    )  # fmt: skip


def plain_causal(q, k, v):
    scores = jnp.where(jnp.tril(jnp.ones((len(q), len(k)), bool)), q @ k.T, -1e30)
    return jax.nn.softmax(scores) @ v


@dataclass(frozen=True)
class Kernel:
    function: Callable[..., Any]
    plain: Callable[..., Any]
    backward: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]

    def inputs(self, dtype, seed=0):
        rng = np.random.default_rng(seed)
        return [jnp.asarray(rng.standard_normal(s), dtype) for s in self.shapes]

    def layer(self, factor=1.0):
        """Return the kernel with its hand-written rule, off by a factor."""
        layer = jax.custom_vjp(self.function)

        def backward(inputs, upstream):
            return tuple((factor * g).astype(g.dtype) for g in self.backward(upstream, *inputs))

        layer.defvjp(lambda *inputs: (self.function(*inputs), inputs), backward)
        return layer


def _softmax_backward(u, x):
    y = jax.nn.softmax(x)
    return (y * (u - (y * u).sum(-1, keepdims=True)),)


KERNELS = {
    "tanh": Kernel(tanh, jnp.tanh, lambda u, x: (u * (1 - jnp.tanh(x) ** 2),), ((6, 8),)),
    "softmax": Kernel(softmax, jax.nn.softmax, _softmax_backward, ((6, 16),)),
    "matmul": Kernel(
        matmul, lambda a, b: a @ b, lambda u, a, b: (u @ b.T, a.T @ u), ((6, 64), (64, 4))
    ),
    "running": Kernel(
        running, lambda x: (x**2).sum(0), lambda u, x: (2 * x * u,), ((12, 5),)
    ),
}  # fmt: skip
