"""Gauss-Newton on a least-squares fit with a block structure: many curves, one decay of each.

Each curve has its own parameters, so that the Jacobian is block-diagonal: 3 passes give it, however
many curves there are. Run: python block_least_squares.py
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse.linalg

import gradlab

CURVES, POINTS = 60, 20
TIMES = np.linspace(0, 2, POINTS, dtype=np.float32)


def curves(p: jax.Array) -> jax.Array:
    """Return (curves, times) from amplitude, rate and offset of each curve, (curves, 3)."""
    return p[:, :1] * jnp.exp(-p[:, 1:2] * TIMES) + p[:, 2:]


def main() -> None:
    """Fit all curves at once, with a sparse and with a dense Jacobian."""
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.5, 2, (CURVES, 3)).astype(np.float32)
    data = curves(truth)
    start = truth * rng.uniform(0.8, 1.2, truth.shape).astype(np.float32)
    J = gradlab.jacobian(curves, start)
    assert J.structure == "block-diagonal" and J.passes == 3
    c = J.compile("csr", value=True)
    fast = jax.jit(lambda p: (curves(p), jax.jacfwd(curves)(p).reshape(-1, p.size)))

    def sparse(p):
        value, matrix = c(p)
        error = np.asarray(value - data).ravel()
        return p - scipy.sparse.linalg.spsolve(matrix.T @ matrix, matrix.T @ error).reshape(p.shape)

    def dense(p):
        value, matrix = fast(p)
        return p - np.linalg.lstsq(matrix, np.ravel(value - data))[0].reshape(p.shape)

    for name, step in {"gradlab": sparse, "dense JAX": dense}.items():
        step(start)
        began, p = time.process_time(), start
        for _ in range(6):
            p = step(p)
        spent = (time.process_time() - began) * 1e3
        print(f"{name:<10} {spent:.1f} ms, largest error {np.abs(p - truth).max():.1e}")
        assert np.abs(p - truth).max() < 1e-2


if __name__ == "__main__":
    main()
