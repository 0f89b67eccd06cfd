"""Newton's method on an implicit Burgers step, inside `lax.while_loop`, with a banded Jacobian.

The Jacobian of the step is tridiagonal, which gradlab proves from the program. A compiled Jacobian
gives its three bands in 3 JVPs, and a tridiagonal solve takes them. Run: python newton_burgers.py
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import gradlab

N, STEP, VISCOSITY = 300, 1e-3, 0.05


def burgers(u: jax.Array) -> jax.Array:
    """Return du/dt of the viscous Burgers equation, u being 0 at both ends; u is (N,)."""
    h = 1 / (u.size + 1)
    wide = jnp.pad(u, 1)
    left, right = wide[:-2], wide[2:]
    return -u * (right - left) / (2 * h) + VISCOSITY * (right - 2 * u + left) / h**2


def residual(u: jax.Array, before: jax.Array) -> jax.Array:
    """Return what an implicit Euler step makes zero; both are (N,)."""
    return u - before - STEP * burgers(u)


def newton(solve, before: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the step and how many iterations it took; `solve` returns J^-1 r at a point."""

    def step(state):
        u, _, k = state
        change = solve(u, before)
        return u - change, jnp.abs(change).max(), k + 1

    u, _, k = lax.while_loop(
        lambda s: (s[1] > 1e-5) & (s[2] < 20), step, (before, jnp.inf, jnp.int32(0))
    )
    return u, k


def main() -> None:
    """Take a step with bands, with a dense Jacobian, and, if installed, with asdex."""
    before = jnp.sin(2 * jnp.pi * jnp.arange(1, N + 1) / (N + 1))
    J = gradlab.jacobian(residual, before, before, wrt=0)
    bands = J.compile("banded", value=True)
    assert bands.bandwidths == (1, 1)

    def banded(u, before):
        value, ab = bands(u, before)
        upper, diagonal, lower = jnp.roll(ab[0], -1), ab[1], jnp.roll(ab[2], 1)
        lower, upper = lower.at[0].set(0), upper.at[-1].set(0)
        return lax.linalg.tridiagonal_solve(lower, diagonal, upper, value[:, None])[:, 0]

    def dense(u, before):
        return jnp.linalg.solve(jax.jacfwd(residual)(u, before), residual(u, before))

    solvers = {"gradlab": banded, "dense JAX": dense}
    try:
        import asdex
    except ImportError:
        pass
    else:
        sparse = asdex.jacobian(residual, before, before, argnums=0, output_format="dense")
        solvers["asdex, dense solve"] = lambda u, b: jnp.linalg.solve(sparse(u, b), residual(u, b))
    found = {}
    for name, solve in solvers.items():
        run = jax.jit(lambda b, solve=solve: newton(solve, b))
        u, k = jax.block_until_ready(run(before))
        start = time.process_time()
        for _ in range(10):
            jax.block_until_ready(run(before))
        print(f"{name:<20} {k} iterations, {(time.process_time() - start) * 100:.2f} ms a step")
        found[name] = np.asarray(u)
    for u in found.values():
        assert np.allclose(u, found["dense JAX"], atol=1e-4)


if __name__ == "__main__":
    main()
