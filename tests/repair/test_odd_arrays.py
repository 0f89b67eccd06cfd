"""A search goes through what few rules hold: no entries, whole numbers' tangents, odd globals."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradlab

RNG = np.random.default_rng(0)


class Counter(dict):
    """A dict of the user's, whose class has methods of its own."""

    def hit(self, name):
        self[name] = self.get(name, 0) + 1


HITS = Counter()


@jax.custom_vjp
def joined(x, y):
    return jnp.concatenate([x, jnp.sin(y)])


joined.defvjp(lambda x, y: (joined(x, y), y), lambda y, g: (g[:0], 2 * g * jnp.cos(y)))


@jax.custom_jvp
def summed(x):
    return jnp.argmax(x), jnp.cumsum(x)


@summed.defjvp
def summed_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    zero = np.zeros((), jax.dtypes.float0)
    return summed(x), (zero, 2 * jnp.cumsum(dx))


def never_run(x):
    def inner(y):
        return y * x

    return inner


@jax.custom_vjp
def counted(x):
    return jnp.sin(x)


def counted_backward(x, g):
    HITS.hit("backward")
    assert isinstance(HITS, Counter)
    helper = never_run(x)
    return (g * jnp.sin(x) if callable(helper) else helper(g),)


counted.defvjp(lambda x: (counted(x), x), counted_backward)


@pytest.mark.parametrize(
    ("function", "inputs"),
    [
        (joined, (np.zeros(0), RNG.normal(size=3))),
        (summed, (RNG.normal(size=4),)),
        (counted, (RNG.normal(size=4),)),
    ],
    ids=["empty", "whole", "globals"],
)
def test_a_search_ends_without_an_error_of_its_own(function, inputs):
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        report = gradlab.check(function, *inputs)
    assert report.status == "wrong", report
    assert bool(report.fixes) or function is summed
