"""JAX's own special functions, where its rules lose digits, and where they do not.

The oracle is SciPy in float64, by the closed form of the derivative.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

import gradlab

SMALL = np.array([1e-3, 2e-5, 3e-4], np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_wofz_far_from_zero_is_judged_as_scipy_judges_it(dtype):
    """The rule is -2 z w + 2i / sqrt(pi), where w comes from a rational approximation of 32 terms.

    At z = 80 the two terms cancel but for 1e-4 of each. jax 0.10.2 is off by 1e-5 to 5e-4 in
    complex64, by 6e-11 to 4e-10 in complex128, though its value is right to a few units.
    """
    z = np.array([12, 20, 40, 80], dtype)
    wide = z.astype(np.complex128)
    true = -2 * wide * scipy.special.wofz(wide) + 2j / np.sqrt(np.pi)
    with jax.enable_x64(dtype == "complex128"):
        _, slope = jax.jvp(jax.scipy.special.wofz, (jnp.asarray(z),), (jnp.ones(4, dtype),))
        off = np.abs(np.asarray(slope) - true) / np.abs(true)
    report = gradlab.audit(jax.scipy.special.wofz, z)
    enough = 20 * np.finfo(dtype).eps
    assert report.ok == bool(np.all(off < enough))
    if not report.ok:
        worst = report.rules[0].report.worst
        said = abs(worst.actual / worst.expected - 1)
        # in float64 the rule's constants keep their rounding, its arithmetic does not
        assert enough < said < 3 * off[worst.index]


@pytest.mark.parametrize(
    ("function", "derivative"),
    [
        pytest.param(jax.scipy.special.exp1, lambda x: -np.exp(-x) / x, marks=pytest.mark.slow),
        pytest.param(jax.scipy.special.expi, lambda x: np.exp(x) / x, marks=pytest.mark.slow),
        (lambda x: jax.scipy.special.expn(2, x), lambda x: -scipy.special.exp1(x)),
    ],
    ids=["exp1", "expi", "expn"],
)
def test_exponential_integrals_near_zero(function, derivative):
    slope = np.asarray(jax.grad(lambda x: function(x).sum())(jnp.asarray(SMALL)))
    np.testing.assert_allclose(slope, derivative(SMALL.astype(np.float64)), rtol=2e-6)


@pytest.mark.slow
def test_expi_near_zero_is_right_and_the_expn_inside_it_undecided():
    """expi calls expn for negative inputs only: in the branch not taken nothing is finite."""
    report = gradlab.audit(jax.scipy.special.expi, SMALL)
    assert not any(rule.report.failed for rule in report.rules)
    assert {rule.name: rule.report.ok for rule in report.rules} == {"expn": False, "expi": True}
