"""JAX's Jacobians from one derivative after another: a batch of them may be compiled wrongly."""

import jax
import numpy as np


def nonzero(function, *points):
    """Return where the Jacobian is not zero at one of the points, from JVPs, as a matrix."""
    pushed = jax.jit(
        lambda x, seed: jax.jvp(function, (x,), (seed,))[1].ravel(),
        compiler_options={"xla_backend_optimization_level": 0},
    )
    columns = [[np.asarray(pushed(x, s)) != 0 for x in points] for s in units(points[0])]
    return np.stack([np.any(column, axis=0) for column in columns], axis=1)


def jacobian_by_rows(function, x):
    """Return the Jacobian from VJPs, as a matrix."""
    pulled = jax.jit(lambda x, upstream: jax.vjp(function, x)[1](upstream)[0].ravel())
    return np.stack([np.asarray(pulled(x, u)) for u in units(jax.eval_shape(function, x))])


def units(like):
    """Return an array for each entry, which is 1 there and 0 elsewhere."""
    return np.eye(like.size, dtype=like.dtype).reshape(-1, *like.shape)
