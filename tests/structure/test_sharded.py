"""Programs spread over devices with `shard_map`, against `jax.jacrev` on four host devices."""

import os
import subprocess
import sys

PROGRAM = """
import jax, jax.numpy as jnp, numpy as np, gradlab
from jax.sharding import Mesh, PartitionSpec as P

mesh = Mesh(np.array(jax.devices()).reshape(2, 2), ("a", "b"))
x = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
w = np.random.default_rng(1).standard_normal((6, 4)).astype(np.float32)

def spread(body, given, made):
    return jax.shard_map(body, mesh=mesh, in_specs=given, out_specs=made)

def product(x, w):
    return jax.lax.psum(jnp.tanh(x) @ w, "b")

def swap(x):
    return jax.lax.ppermute(x, "a", [(0, 1), (1, 0)])

def exchange(x):
    return jax.lax.all_to_all(x, "b", 0, 1, tiled=True)

def scatter(x):
    return jax.lax.psum_scatter(x, "b", scatter_dimension=0, tiled=True)

blocks, rows = P("a", "b"), P(("a", "b"))
CASES = [  # function, inputs, entries allowed beyond the true ones
    (spread(jnp.tanh, (blocks,), blocks), (x,), 0),
    (spread(jnp.tanh, (rows,), rows), (x,), 0),
    (spread(lambda x: jnp.cumsum(x, 0), (P("a"),), P("a")), (x,), 0),
    (spread(product, (blocks, P("b", None)), P("a", None)), (x, w), 0),
    (spread(swap, (blocks,), blocks), (x,), 24),
    (spread(exchange, (blocks,), rows), (x,), 999),
    (spread(scatter, (blocks,), rows), (x,), 999),
]
for number, (function, inputs, slack) in enumerate(CASES):
    report = gradlab.jacobian(function, *inputs)
    assert not report.unknown, (number, report.unknown)
    for k, pattern in enumerate(report.patterns.values()):
        nonzero = np.asarray(jax.jacrev(function, k)(*inputs)).reshape(pattern.shape) != 0
        found = pattern.to_dense()
        assert not (nonzero & ~found).any(), (number, k)
        assert (found & ~nonzero).sum() <= slack, (number, k, (found & ~nonzero).sum())
print("all hold")
"""


def test_parts_of_arrays_on_several_devices():
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        env={**os.environ, "XLA_FLAGS": flags},
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert "all hold" in run.stdout
