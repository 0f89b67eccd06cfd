"""Samples and audited rules spread over devices, against the same on one device."""

import json
import os
import subprocess
import sys

import jax
import pytest

from gradlab.checking.beside import idle_devices, side_by_side

CASES = """
import json
import jax, jax.numpy as jnp, numpy as np, gradlab
from gradlab.checking import beside

W = np.random.default_rng(1).standard_normal((6, 6)).astype(np.float32)
X = jnp.asarray(np.random.default_rng(0).standard_normal((4, 6)), jnp.float32)

def ruled(factor):
    @jax.custom_vjp
    def layer(x):
        return jnp.tanh(x @ W) / 3
    layer.defvjp(
        lambda x: (layer(x), x),
        lambda x, g: (((1 - jnp.tanh(x @ W) ** 2) * g * factor) @ W.T,),
    )
    return layer

right, wrong = ruled(1 / 3), ruled(1.0)

def model(x):
    hidden = right(x)
    return wrong(hidden)

def reports():
    found = [gradlab.check(f, X, samples=3) for f in (right, wrong)]
    found.append(gradlab.audit(model, X))
    return [json.dumps(report.to_dict(), sort_keys=True) for report in found]
"""


def test_four_devices_say_what_one_says(tmp_path):
    path = tmp_path / "reports.json"
    code = (
        CASES
        + f"""
beside._SMALL = 1
used = set()
hold = jax.default_device
jax.default_device = lambda device: (used.add(device), hold(device))[1]
assert len(jax.devices()) == 4
open({str(path)!r}, "w").write(json.dumps(reports()))
assert set(jax.devices()[:3]) <= used
"""
    )
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "4"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    here: dict = {}
    exec(CASES, here)
    ours = here["reports"]()
    assert [json.loads(text)["ok"] for text in ours] == [True, False, False]
    assert len(json.loads(ours[2])["rules"]) == 2
    assert json.loads(path.read_text()) == ours


def test_the_work_of_each_device_is_done_in_its_thread():
    device = jax.devices("cpu")[0]
    with jax.enable_x64(True):
        found = side_by_side(
            lambda n: (n, jax.config.jax_enable_x64, jax.config.jax_default_device),
            range(5),
            [device, device],
        )
    assert found == [(n, True, device) for n in range(5)]


def test_an_error_in_a_thread_is_raised():
    device = jax.devices("cpu")[0]
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda n: 1 / n, [1, 0], [device, device])


def test_one_default_device_is_all_there_is():
    device = jax.devices("cpu")[0]
    with jax.default_device(device):
        assert idle_devices() == (device,)
