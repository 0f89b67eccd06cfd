import jax
import jax.numpy as jnp

DELTA = 0.6


def elementwise(r):
    small = 0.5 * r**2
    large = DELTA * (jnp.abs(r) - 0.5 * DELTA)
    return jnp.where(jnp.abs(r) <= DELTA, small, large)


@jax.custom_vjp
def huber_row(pred, target, weight):
    return weight * jnp.sum(elementwise(pred - target))


def huber_row_fwd(pred, target, weight):
    r = pred - target
    loss = jnp.sum(elementwise(r))
    return weight * loss, (r, weight, loss)


def huber_row_bwd(res, g):
    r, weight, loss = res
    slope = jnp.where(r**2 <= DELTA, r, DELTA * jnp.sign(r))
    dp = g * weight * slope
    return dp, -dp, g * loss


huber_row.defvjp(huber_row_fwd, huber_row_bwd)


def huber(pred, target, weights):
    return jnp.mean(jax.vmap(huber_row)(pred, target, weights))
