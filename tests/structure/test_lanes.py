"""Passes spread over devices and processes, against the same passes on one device."""

import os
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradlab import InputError
from gradlab.structure import evaluate, jacobian

CASES = """
import jax, jax.numpy as jnp, numpy as np
from gradlab.structure import evaluate, jacobian

evaluate._CHUNK = 1 << 17
rng = np.random.default_rng(0)
X = rng.standard_normal((12, 20)).astype(np.float32)
W = rng.standard_normal((20, 20)).astype(np.float32)

def layer(x):
    y = jnp.tanh(x @ W)
    return jax.nn.softmax((y - y.mean(-1, keepdims=True)) / y.std(-1, keepdims=True), -1)

def few(x):
    return (x[:6] * x.sum(0)).ravel()

def entries(f):
    return jacobian(f, X).evaluate().flat
"""


@pytest.fixture
def here(monkeypatch):
    """The cases in this process, on its one device."""
    monkeypatch.setattr(evaluate, "_CHUNK", evaluate._CHUNK)  # the text sets it
    names: dict = {}
    exec(CASES, names)
    return names


def test_four_devices_find_the_bits_of_one(tmp_path, here):
    code = (
        CASES
        + f"""
assert len(jax.devices()) == 4
found = dict(layer=entries(layer), few=entries(few))
evaluate._CHUNK = 1 << 15
np.savez({str(tmp_path / "four.npz")!r}, smaller=entries(layer), **found)
"""
    )
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "4"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    with np.load(tmp_path / "four.npz") as four:
        for name in ("layer", "few"):
            assert four[name].tobytes() == here["entries"](here[name]).tobytes()
        assert np.allclose(four["smaller"], four["layer"], rtol=1e-5, atol=1e-6)


PROCESS = """
import os, sys
from gradlab import InputError

rank, address, path = int(sys.argv[1]), sys.argv[2], sys.argv[3]
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(address, num_processes=2, process_id=rank)
assert len(jax.devices()) == 2 and len(jax.local_devices()) == 1

softmax = jacobian(jax.nn.softmax, X)
np.save(path, softmax.evaluate().flat)
try:
    jacobian(jax.nn.softmax, X + rank).evaluate()
except InputError as error:
    assert "all must pass the same arrays" in str(error)
else:
    raise SystemExit("different arrays were not noticed")
"""


def test_two_processes(tmp_path, here):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    words = [sys.executable, "-c", CASES + PROCESS]
    both = [
        subprocess.Popen([*words, str(rank), address, str(tmp_path / f"{rank}.npy")])
        for rank in range(2)
    ]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    alone = here["entries"](jax.nn.softmax)
    for rank in range(2):
        assert np.load(tmp_path / f"{rank}.npy").tobytes() == alone.tobytes()


def test_a_program_with_a_mesh_of_its_own_is_spread_by_jax(tmp_path):
    code = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, PartitionSpec as P
from gradlab.structure import evaluate, jacobian

evaluate._CHUNK = 1
mesh = Mesh(np.array(jax.devices()), ("a",))
f = jax.shard_map(lambda x: jnp.cumsum(x, 0), mesh=mesh, in_specs=P("a"), out_specs=P("a"))
x = np.ones((4, 3), np.float32)
assert len(jax.devices()) == 2
assert np.array_equal(jacobian(f, x).to_dense(), np.asarray(jax.jacrev(f)(x)).reshape(12, 12))
"""
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "2"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_what_cannot_fit_is_refused_before_anything_is_allocated():
    wide = np.broadcast_to(np.float32(1.0), (100, 4096))
    elementwise = jacobian(jnp.tanh, wide)
    with pytest.raises(InputError, match=r"409,600 x 409,600 matrix takes 625 GiB.*evaluate"):
        elementwise.to_dense()
    with pytest.raises(InputError, match=r"625 GiB"):
        elementwise.evaluate().to_dense()
    dense = jacobian(lambda x: x * jnp.sum(x), wide)
    for ask in (dense.evaluate, dense.to_scipy, dense.to_bcoo):
        with pytest.raises(InputError, match=r"409,600 \w+ make 625 GiB.*max_bytes=1 GiB"):
            ask()


def test_default_device_is_respected():
    with jax.default_device(jax.devices("cpu")[0]):
        assert jacobian(jnp.tanh, np.ones(3)).evaluate().nbytes == 24
