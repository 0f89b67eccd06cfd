"""A wrong call is refused with what came, what was expected, and what to do."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradlab
from gradlab.errors import InputError, InputTypeError

X = np.ones((2, 3))


def same(x):
    return 2 * x


WRONG_CALLS = [
    (lambda: gradlab.check(3, X), "function: expected a function, got int"),
    (lambda: gradlab.check(same), "inputs: same got none"),
    (lambda: gradlab.check(same, X, backward=3), "backward: expected a function"),
    (lambda: gradlab.check(same, X, reference="f"), "reference: expected a function"),
    (lambda: gradlab.check(same, X, returns="both"), "returns: expected one of output,"),
    (lambda: gradlab.check(same, X, returns="output+residuals"), "backward: returns="),
    (lambda: gradlab.check(same, X, wrt="y"), "wrt: no input is named 'y'; the inputs are x"),
    (lambda: gradlab.check(same, X, wrt=4), "wrt: there is no input 4"),
    (lambda: gradlab.check(same, X, wrt=()), "wrt: empty"),
    (lambda: gradlab.check(same, X, wrt=1.5), "wrt: expected positions or names"),
    (lambda: gradlab.check(same, X, order=5), "order: expected 1 to 4, got 5"),
    (lambda: gradlab.check(same, X, samples=0), "samples: expected at least 1, got 0"),
    (lambda: gradlab.check(same, X, seed="a"), "seed: expected an integer, got str"),
    (lambda: gradlab.check(same, X, dtypes="int8"), "dtypes: expected some of float64"),
    (lambda: gradlab.check(same, X, device="tpu:9"), "device: JAX sees no 'tpu:9'"),
    (
        lambda: gradlab.check(same, X, backward=lambda g, x: g.astype(object)),
        "backward: returned an array of objects for x",
    ),
    (lambda: gradlab.check(same, np.ma.masked_array(X)), "x: a MaskedArray computes otherwise"),
    (lambda: gradlab.check(same, X.view(np.matrix)), "x: a matrix computes otherwise than an"),
    (lambda: jax.jit(lambda x: gradlab.check(same, x).ok)(X), "x: it is traced by jit, vmap or"),
    (lambda: gradlab.check(same, np.arange(3)), "x is int64, so it has no gradient"),
    (lambda: gradlab.check(lambda x: x > 0, X), "returns no float array"),
    (lambda: gradlab.check(lambda x: "a", X), "returned str, expected arrays"),
    (lambda: gradlab.check(lambda x: x @ x, X), "calling it raised TypeError"),
    (lambda: gradlab.check(same, X, backward=lambda g: g), "backward takes (g), but gradlab calls"),
    (
        lambda: gradlab.check(lambda x, y: x * y, X, X, backward=lambda g, x, y: (g, g, g)),
        "backward: returned 3 gradients for 2 inputs",
    ),
    (
        lambda: gradlab.check(same, X, backward=lambda g, x: g, reference=lambda x: x[0]),
        "reference: <lambda> returns 3, but same returns 2x3",
    ),
    (lambda: gradlab.check(lambda x: np.sin(x) if x.sum() > 0 else x, X), "cannot trace"),
    (
        lambda: gradlab.check(lambda a: jnp.linalg.inv(a), np.eye(3), dtypes="bfloat16"),
        "(JAX cannot compile it: Unsupported|does not accept) dtype bfloat16",
    ),
    (lambda: gradlab.audit(3, X), "function: expected a function"),
    (lambda: gradlab.audit(same), "inputs: same got none"),
]


@pytest.mark.parametrize(("call", "message"), WRONG_CALLS, ids=[m[:30] for _, m in WRONG_CALLS])
def test_wrong_calls(call, message):
    with pytest.raises(gradlab.GradlabError) as caught:
        call()
    assert isinstance(caught.value, InputError | InputTypeError | TypeError | ValueError)
    assert message in str(caught.value) or re.search(message, str(caught.value))


def test_the_users_own_traceback_is_kept():
    def broken(x):
        raise RuntimeError("mine")

    with pytest.raises(gradlab.GradlabError) as caught:
        gradlab.check(broken, jnp.ones(2))
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_assertions_carry_the_report():
    with pytest.raises(gradlab.GradientMismatch) as caught:
        gradlab.assert_gradients(same, X, backward=lambda g, x: g)
    assert caught.value.report.worst.path == "x"
    assert re.search(r"backward=lambda g, x: (g \+ g|2 \* g|g \* 2)\)", str(caught.value))
    assert gradlab.assert_gradients(same, X, backward=lambda g, x: 2 * g).status == "right"
