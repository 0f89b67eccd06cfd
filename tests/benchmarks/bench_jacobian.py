"""Structure inference against asdex and sparsejac, and evaluation against one JVP.

Run: python tests/benchmarks/bench_jacobian.py [--peers] [CASE ...]

Times are the best of several, after one warm-up, tracing included; memory is what Python allocated.
The peers (extra `bench`) run on the cases that they finish within seconds, once: asdex detects a
pattern entry by entry; sparsejac is given the pattern, and colours it.
"""

import argparse
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.sparse import BCOO

from gradlab.structure import jacobian


def layer_norm(x):
    return (x - x.mean(-1, keepdims=True)) * lax.rsqrt(x.var(-1, keepdims=True) + 1e-5)


def perceptron(hidden):
    def apply(x):
        width = x.shape[1]
        rows, columns = jnp.arange(width)[:, None] + 1.0, jnp.arange(hidden)[None, :] + 1.0
        return jnp.tanh(x @ jnp.sin(rows * columns)) @ jnp.cos(rows * columns).T

    return apply


def convolution(x):
    kernel = np.random.default_rng(0).standard_normal((3, 3, 3, 8)).astype(np.float32)
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def brusselator(u):
    x, y = u[..., 0], u[..., 1]

    def laplacian(a):
        return sum(jnp.roll(a, s, axis) for s in (1, -1) for axis in (0, 1)) - 4 * a

    return jnp.stack(
        [1 + x * x * y - 4.4 * x + laplacian(x), 3.4 * x - x * x * y + laplacian(y)], -1
    )


def burgers(u):
    padded = jnp.pad(u, 1)
    left, right = padded[:-2], padded[2:]
    return -u * (right - left) / 2 + (right - 2 * u + left)


def attention(x):
    mask = jnp.tril(jnp.ones((x.shape[0], x.shape[0]), bool))
    return jax.nn.softmax(jnp.where(mask, x @ x.T, -jnp.inf), axis=-1) @ x


def recurrent(xs):
    width = xs.shape[1]
    weights = jnp.full((width, width), 0.1)

    def step(h, x):
        h = jnp.tanh(h @ weights + x)
        return h, h

    return lax.scan(step, jnp.zeros(width), xs)[1]


CASES: dict[str, tuple[Callable[..., Any], tuple[int, ...], bool]] = {
    "tanh 1000": (jnp.tanh, (1000,), True),
    "tanh 100x4096": (jnp.tanh, (100, 4096), True),
    "tanh 10^7": (jnp.tanh, (10_000_000,), False),
    "gelu*sigmoid+sin 100x4096": (
        lambda x: jax.nn.gelu(x) * jax.nn.sigmoid(x) + jnp.sin(x), (100, 4096), False,
    ),
    "softmax rows 100x512": (jax.nn.softmax, (100, 512), False),
    "layer norm rows 100x512": (layer_norm, (100, 512), False),
    "cumsum 4096": (jnp.cumsum, (4096,), False),
    "conv2d 8x32x32x3 -> 8": (convolution, (8, 32, 32, 3), True),
    "matmul 100x512 -> 512": (lambda x: x @ jnp.ones((512, 512)), (100, 512), False),
    "perceptron 100x256 -> 1024 -> 256": (perceptron(1024), (100, 256), False),
    "brusselator 224": (brusselator, (224, 224, 2), True),
    "burgers 10^5": (burgers, (100_000,), True),
    "causal attention 64x16": (attention, (64, 16), True),
    "causal attention 4096x16": (attention, (4096, 16), False),
    "recurrent 100x16": (recurrent, (100, 16), True),
    "recurrent 10^5x16": (recurrent, (100_000, 16), False),
    "sort 64x64": (jnp.sort, (64, 64), True),
}  # fmt: skip

LISTED = 10**6  # entries up to which sparsejac colours within seconds


def best(call: Callable[[], Any], repeats: int = 5) -> float:
    """Return the best time of a call in milliseconds, after one warm-up."""
    call()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return 1e3 * min(times)


def allocated(call: Callable[[], Any]) -> float:
    """Return the peak memory that Python allocates in a call, in MB."""
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def detect(names: list[str], peers: bool) -> None:
    print(f"jax {jax.__version__}; times in ms\n")
    print(
        f"{'case':34} {'infer':>8} {'report':>8} {'MB':>6} {'nnz':>15} {'passes':>9} "
        f"{'asdex':>9} {'sparsejac':>9}"
    )
    for name in names:
        print(f"{name:34} {measured(*CASES[name], peers)}")


def measured(function: Callable[..., Any], shape: tuple[int, ...], quick: bool, peers: bool) -> str:
    """Return one line of the table."""
    at = jax.ShapeDtypeStruct(shape, jnp.float32)

    def infer():
        return jacobian(function, at)

    def complete():
        report = infer()
        return report.nnz, report.passes, report.structure

    report = infer()
    bound = f"{'' if report.exact else '<='}{report.nnz:,}"
    listed = peers and quick and report.nnz <= LISTED
    other = f"{sparsejac_time(function, shape, report.pattern.to_scipy()):9.0f}" if listed else ""
    peer = f"{asdex_time(function, shape):9.0f}" if peers and quick else ""
    return (
        f"{best(infer):8.1f} {best(complete, 2):8.1f} {allocated(infer):6.2f} {bound:>15} "
        f"{report.passes:9,} {peer:>9} {other:>9}"
    )


def asdex_time(function: Callable[..., Any], shape: tuple[int, ...]) -> float:
    import asdex

    x = np.ones(shape, np.float32)
    began = time.perf_counter()
    asdex.jacobian_sparsity(function, x)
    return 1e3 * (time.perf_counter() - began)


def sparsejac_time(function: Callable[..., Any], shape: tuple[int, ...], pattern: Any) -> float:
    import sparsejac

    def flat(x):
        return function(x.reshape(shape)).ravel()

    given = BCOO.from_scipy_sparse(pattern.astype(np.float32))
    began = time.perf_counter()
    sparsejac.jacfwd(flat, given)
    return 1e3 * (time.perf_counter() - began)


def evaluate() -> None:
    """Compare the evaluation of a diagonal with one compiled JVP."""
    x = np.random.default_rng(0).standard_normal((100, 4096)).astype(np.float32)
    report = jacobian(jnp.tanh, x)
    ones = jnp.ones_like(x)
    push = jax.jit(lambda v, t: jax.jvp(jnp.tanh, (v,), (t,))[1])
    plain = best(lambda: np.asarray(push(x, ones)), 30)
    began = time.perf_counter()
    report.evaluate()
    first = 1e3 * (time.perf_counter() - began)
    later = best(report.evaluate, 30)
    print(
        f"\ntanh 100x4096: one JVP {plain:.2f}, evaluate {later:.2f} "
        f"(the first time, compiled and held against its probe, {first:.0f})"
    )


def heat(u):
    p = jnp.pad(u, 1)
    return p[:-2, 1:-1] + p[2:, 1:-1] + p[1:-1, :-2] + p[1:-1, 2:] - 4 * u + u**3


def control(z):
    """Return how far each state is from what the dynamics make of the one before."""
    x, u = z[:, :4], z[:, 4:]
    turn = x[:, 2]
    way = 0.1 * x[:, 3]
    ahead = [x[:, 0] + way * jnp.cos(turn), x[:, 1] + way * jnp.sin(turn)]
    ahead += [turn + 0.1 * u[:, 0], x[:, 3] + 0.1 * u[:, 1]]
    return x[1:] - jnp.stack(ahead, 1)[:-1]


SOLVED: dict[str, tuple[Callable[..., Any], tuple[int, ...]]] = {
    "brusselator 64": (brusselator, (64, 64, 2)),
    "burgers 20,000": (burgers, (20_000,)),
    "heat 100x100": (heat, (100, 100)),
    "control 2,000": (control, (2000, 6)),
}


def cpu(make: Callable[[], Callable[..., Any]], point: Any, fresh: bool = True) -> float:
    """Return the CPU time of making a function and calling it, in milliseconds."""
    if fresh:
        jax.clear_caches()
    began = time.process_time()
    jax.block_until_ready(make()(point).data)
    return 1e3 * (time.process_time() - began)


def new_point(function: Callable[..., Any], shape: tuple[int, ...], repeats: int = 60) -> str:
    """Return a new point and the first evaluation beside asdex, compiled and as it is called."""
    import asdex

    drawn = np.random.default_rng(0).uniform(0.5, 1.5, (8, *shape)).astype(np.float32)
    points = list(map(jnp.asarray, drawn))
    made = (
        lambda: jacobian(function, points[0]).compile("bcoo"),
        lambda: asdex.jacobian(function, points[0]),
        lambda: jax.jit(asdex.jacobian(function, points[0])),
    )
    first = [cpu(make, points[0]) for make in made]
    ours, theirs = made[0](), made[2]()
    times: tuple[list[float], list[float]] = [], []
    for n in range(repeats):
        for found, call in zip(times, (ours, theirs)):
            found.append(cpu(lambda call=call: call, points[n % 8], fresh=False))
    a, b = (float(np.median(found[6:])) for found in times)
    count = asdex.jacobian_coloring(function, points[0]).num_colors
    return (
        f"{a:6.3f} of {b:6.3f}: {a / b:4.2f} {first[0]:8.0f} of {first[1]:6.0f}, "
        f"{first[2]:6.0f} compiled {ours.passes:>6} of {count}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", choices=[[], *CASES], default=[])
    parser.add_argument("--peers", action="store_true", help="run asdex beside")
    chosen = parser.parse_args()
    detect(chosen.cases or list(CASES), chosen.peers)
    evaluate()
    if chosen.peers:
        new_point(jnp.tanh, (4,), repeats=8)  # what is loaded and compiled once
        print(f"\n{'CPU ms, a BCOO':18} {'new point':>22} {'first evaluation':>38} {'passes':>10}")
        for name, (function, shape) in SOLVED.items():
            print(f"{name:18} {new_point(function, shape)}")


if __name__ == "__main__":
    main()
