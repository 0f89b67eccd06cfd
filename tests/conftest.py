"""What all tests share: the folder that they import from, and the CPU, if a GPU is the default."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def on_the_cpu(request, monkeypatch):
    """Run on the CPU what is not marked `gpu`: expected numbers are of exact float32 products."""
    jax = sys.modules.get("jax")
    wanted = request.config.getoption("--on-gpu") or request.node.get_closest_marker("gpu")
    if wanted or jax is None or jax.default_backend() == "cpu":
        yield
        return
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")  # of the processes that tests start
    with jax.default_device(jax.devices("cpu")[0]):
        yield
