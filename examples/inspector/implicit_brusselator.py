"""An implicit Euler step of the Brusselator, whose sparse Jacobian lineax solves.

Two species react and diffuse on a periodic grid. gradlab proves which entries of the Jacobian may
differ from zero; a compiled Jacobian returns a lineax operator. Run: python implicit_brusselator.py
"""

import time

import jax
import jax.numpy as jnp
import lineax
import numpy as np

import gradlab

SHAPE, STEP = (24, 24, 2), 0.05


def brusselator(u: jax.Array) -> jax.Array:
    """Return du/dt; u is (n, n, 2)."""
    x, y = u[..., 0], u[..., 1]

    def laplacian(a):
        return sum(jnp.roll(a, s, axis) for s in (1, -1) for axis in (0, 1)) - 4 * a

    return jnp.stack(
        [1 + x * x * y - 4.4 * x + laplacian(x), 3.4 * x - x * x * y + laplacian(y)], -1
    )


def residual(u: jax.Array, before: jax.Array) -> jax.Array:
    """Return what the implicit step makes zero; both are (n, n, 2)."""
    return u - before - STEP * brusselator(u)


def main() -> None:
    """Take a step by Newton's method, with a sparse and with a dense Jacobian."""
    before = jnp.asarray(np.random.default_rng(0).uniform(0.5, 1.5, SHAPE), jnp.float32)
    J = gradlab.jacobian(residual, before, before, wrt=0)
    c = J.compile("lineax", value=True)
    print(repr(c))
    solver = lineax.BiCGStab(rtol=1e-6, atol=1e-6)

    def sparse(u):
        value, operator = c(u, before)
        return u - lineax.linear_solve(operator, value.ravel(), solver).value.reshape(SHAPE)

    def dense(u):
        matrix = jax.jacfwd(residual)(u, before).reshape(u.size, u.size)
        return u - jnp.linalg.solve(matrix, residual(u, before).ravel()).reshape(SHAPE)

    found = {}
    for name, iteration in {"gradlab": sparse, "dense JAX": dense}.items():
        run = jax.jit(lambda u, step=iteration: jax.lax.fori_loop(0, 5, lambda _, v: step(v), u))
        u = jax.block_until_ready(run(before))
        start = time.process_time()
        jax.block_until_ready(run(before))
        spent = (time.process_time() - start) * 1e3
        size = float(jnp.abs(residual(u, before)).max())
        print(f"{name:<10} {spent:.1f} ms a step, residual {size:.1e}")
        assert size < 1e-4
        found[name] = np.asarray(u)
    assert np.allclose(found["gradlab"], found["dense JAX"], atol=1e-4)


if __name__ == "__main__":
    main()
