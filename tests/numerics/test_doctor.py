"""What the doctor says of this machine, and gradlab of platforms that are not here."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from gradlab.numerics import doctor
from gradlab.references import product_digits


def test_this_machine():
    report = doctor()
    assert report.versions["jax"] == jax.__version__
    cpu = [d for d in report.devices if d.platform == "cpu"]
    assert all(d.product == "float32" for d in cpu)
    assert sum(d.count for d in report.devices) == len(jax.devices())
    for word in ("float32 products", "jaxlib", "x64", "matmul precision", "determinism", "cache"):
        assert word in str(report)


@pytest.mark.gpu
def test_products_on_the_gpu_are_one_of_the_three():
    try:
        device = jax.devices("gpu")[0]
    except RuntimeError:
        pytest.skip("JAX sees no GPU here")
    assert product_digits(device) in ("float32", "tensorfloat32")
    assert product_digits(device, "highest") == "float32"


PROGRAM = """
import jax, numpy as np, gradlab
from gradlab.numerics import doctor
x = np.ones(3)
for call in (
    doctor,
    lambda: gradlab.check(jax.numpy.sin, x),
    lambda: gradlab.precision(jax.numpy.sin, x),
    lambda: gradlab.jacobian(jax.numpy.sin, x),
    lambda: gradlab.audit(jax.numpy.sin, x),
    lambda: gradlab.verify("tanh"),
):
    try:
        call()
    except gradlab.GradlabError as error:
        assert "JAX cannot start the platform 'cuda'" in str(error), error
        assert "unset JAX_PLATFORMS" in str(error)
    else:
        raise SystemExit("no error")
"""


def test_a_platform_that_is_not_here_is_named_in_plain_words():
    if any(device.platform == "gpu" for device in jax.devices()):
        pytest.skip("the platform is here")
    environment = {**os.environ, "JAX_PLATFORMS": "cuda"}
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, env=environment)


def test_a_compilation_that_gives_other_numbers_is_named(monkeypatch):
    room = sys.modules["gradlab.numerics.doctor"]
    tried = (("a tanh", jnp.tanh, (3,)), ("a sine", jnp.sin, (2,)))
    monkeypatch.setattr(room, "_TRIED", tried)
    assert doctor().compilations == ()
    doubled = lambda function: lambda x: function(x) * (2.0 if x.size == 3 else 1.0)  # noqa: E731
    monkeypatch.setattr(room.jax, "jit", doubled)
    assert doctor().compilations == ("jit(jacrev(f)) of a tanh at 3",)
