"""Primitives that say themselves what they stand for, opened where no derivative is lost."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradlab.structure import jacobian
from gradlab.tracing import custom_rules, lift, trace, without_checks
from gradlab.tracing.lift import opaque

KNOTS = np.linspace(0, 3, 7, dtype=np.float32) ** 2
X = np.linspace(0.3, 2.0, 4, dtype=np.float32)

FUNCTIONS = {
    "searchsorted": (
        lambda x: x * jnp.searchsorted(jnp.asarray(KNOTS), 3 * x, side="right"),
        lambda x: x * np.searchsorted(KNOTS, 3 * x, side="right"),
    ),
    "interpolation": (
        lambda x: jnp.interp(x, jnp.asarray(KNOTS), jnp.asarray(KNOTS[::-1])),
        lambda x: np.interp(x, KNOTS, KNOTS[::-1]),
    ),
    "nonzero": (
        lambda x: x[jnp.nonzero(x > 1, size=2)[0]] * x[0],
        lambda x: x[np.nonzero(x > 1)[0][:2]] * x[0],
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_finds_places_is_lifted(name):
    function, plain = FUNCTIONS[name]
    program = trace(function, X)
    assert opaque(program) == []
    with without_checks():
        found = np.asarray(lift(program)(X.astype(np.float64))[0])
    np.testing.assert_allclose(found, plain(X.astype(np.float64)), rtol=1e-13)


def test_what_finds_places_mixes_no_entries():
    function, _ = FUNCTIONS["interpolation"]
    assert (jacobian(function, X).pattern.to_dense() == np.eye(X.size)).all()


def test_one_with_a_derivative_of_its_own_stays_closed():
    hijax = importlib.import_module("jax.experimental.hijax")
    if not hasattr(hijax, "HiPrim"):
        pytest.skip("this JAX has no such primitives")

    class StraightThrough(hijax.HiPrim):
        """Rounds; its derivative is that of the identity."""

        def __init__(self, aval):
            self.in_avals, self.out_aval, self.params = (aval,), aval, {}
            super().__init__()

        def expand(self, x):
            return jnp.round(x)

        def jvp(self, primals, tangents):
            return self(*primals), tangents[0]

        def batch(self, axis_data, args, dims):
            return StraightThrough(jax.typeof(args[0]))(*args), dims[0]

    def function(x):
        return StraightThrough(jax.typeof(x))(x)

    truth = np.asarray(jax.jacfwd(function)(X))
    assert (truth == np.eye(X.size)).all()
    assert (jacobian(function, X).pattern.to_dense()[truth != 0]).all()
    (rule,) = custom_rules(trace(function, X))
    assert rule.kind == "hijax"
