"""The pytest fixture against `jax.test_util.check_grads`, and a check under Hypothesis.

Run: python tests/benchmarks/bench_pytest.py

The same 50 small layers are checked in two pytest runs, each a process of its own: by the fixture
`gradcheck`, and by `check_grads(order=1)`. A third run checks 100 Hypothesis examples of one layer.
CPU seconds are the figures to trust on a machine that is not idle.
"""

import os
import re
import resource
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

LAYERS = """
    import jax, jax.numpy as jnp, numpy as np, pytest

    def ruled(apply):
        layer = jax.custom_vjp(apply)
        layer.defvjp(lambda x, w: jax.vjp(apply, x, w), lambda pull, g: pull(g))
        return layer

    FORMS = [
        lambda x, w: jnp.tanh(x @ w),
        lambda x, w: jax.nn.softmax(x @ w),
        lambda x, w: jax.nn.gelu(x) @ w,
        lambda x, w: jnp.sin(x) @ jnp.exp(w),
        lambda x, w: ((x @ w) - (x @ w).mean(-1, keepdims=True)) / (1 + (x @ w).var()),
        ruled(lambda x, w: jnp.tanh(x @ w)),
        ruled(lambda x, w: jax.nn.sigmoid(x @ w) * (x @ w)),
        ruled(lambda x, w: jax.nn.logsumexp(x @ w, axis=-1)),
        ruled(lambda x, w: jnp.mean((x @ w) ** 2)),
        ruled(lambda x, w: jnp.cumsum(x @ w, axis=0) / (1 + x.sum() ** 2)),
    ]
    CASES = [(form, size) for form in range(10) for size in range(2, 7)]

    def inputs(size):
        draw = np.random.default_rng(size).standard_normal
        return draw((size, size + 1)).astype("float32"), draw((size + 1, 3)).astype("float32")
"""

FIXTURE = """
    @pytest.mark.parametrize(("form", "size"), CASES)
    def test_layer(gradcheck, form, size):
        gradcheck(FORMS[form], *inputs(size))
"""

CHECK_GRADS = """
    from jax.test_util import check_grads

    @pytest.mark.parametrize(("form", "size"), CASES)
    def test_layer(form, size):
        check_grads(FORMS[form], inputs(size), order=1, modes=["rev"], atol=2e-2, rtol=2e-2)
"""

EXAMPLES = """
    from gradlab import strategies
    from hypothesis import HealthCheck, given, settings, strategies as st

    SHAPES = st.sampled_from([(3, 4), (5, 4), (7, 4)])
    W = np.linspace(-1, 1, 12).reshape(4, 3)

    @settings(max_examples=100, deadline=None, database=None, suppress_health_check=HealthCheck)
    @given(SHAPES.flatmap(strategies.arrays))
    def test_layer(gradcheck, x):
        gradcheck(FORMS[5], x, W)
"""


def measured(tests: str) -> tuple[float, float]:
    """Return the wall and CPU seconds of a pytest run of the layers with these tests."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "test_layers.py")
        path.write_text(textwrap.dedent(LAYERS) + textwrap.dedent(tests))
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", path.name],
            cwd=folder,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
        )
        wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    print(re.findall(r"^\d+ passed.*", done.stdout, re.M)[-1], flush=True)
    return wall, sum(after[:2]) - sum(before[:2])


def main() -> None:
    rows = {
        "50 layers, gradcheck": measured(FIXTURE),
        "50 layers, check_grads": measured(CHECK_GRADS),
        "100 examples of one layer": measured(EXAMPLES),
    }
    print(f"\n{'':28} {'wall s':>8} {'CPU s':>8}")
    for name, (wall, cpu) in rows.items():
        print(f"{name:28} {wall:8.1f} {cpu:8.1f}")
    ours, theirs, _ = rows.values()
    print(f"{'ratio':28} {ours[0] / theirs[0]:8.2f} {ours[1] / theirs[1]:8.2f}")


if __name__ == "__main__":
    main()
