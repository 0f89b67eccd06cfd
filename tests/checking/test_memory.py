"""What cannot fit is refused with its size and an alternative, before anything is allocated."""

import jax.numpy as jnp
import numpy as np
import pytest

import gradlab
from gradlab.checking.inputs import require_memory

HUGE = np.broadcast_to(np.float32(1.0), (10**6, 10**6))


@pytest.mark.parametrize("name", ["check", "audit", "precision", "assert_gradients"])
def test_inputs_that_no_machine_can_hold(name):
    with pytest.raises(gradlab.GradlabError, match=r"1,000,000,000,000 entries need .* TiB.*batch"):
        getattr(gradlab, name)(jnp.sin, HUGE)


def test_structure_needs_no_memory():
    assert gradlab.jacobian(jnp.sin, HUGE).nnz == 10**12
    gradlab.assert_structure(jnp.sin, HUGE, elementwise=True)


def test_integers_and_what_is_no_array_count_nothing():
    require_memory("check", {"rows": np.broadcast_to(1, (10**6, 10**6)), "name": "x", "eps": 1e-5})
