"""Every node is traced where JAX's user has forbidden silent promotion of ranks and dtypes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradlab.nodes import registry


@pytest.mark.parametrize("name", sorted(registry()))
def test_nothing_is_promoted_silently(name):
    case = registry()[name].cases()[0]
    node, inputs = case.node, case.draw(0, np.float32)

    def everything(*inputs):
        output, residuals = node.forward(*inputs)
        several = isinstance(output, tuple)
        upstream = tuple(map(jnp.ones_like, output if several else (output,)))
        gradients = node.backward(upstream if several else upstream[0], residuals)
        local = node.local_gradient(residuals)
        rows = zip(local if several else (local,), upstream)
        pulled = [op.T @ u for row, u in rows for op in row if op is not None]
        return output, [g for g in gradients if g is not None], pulled

    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        jax.make_jaxpr(everything)(*inputs)


def test_residuals_keep_no_array_for_its_shape_alone():
    x = np.ones((100, 40))

    def kept(node, *inputs):
        arrays = [a for a in node.forward(*inputs)[1][0] if isinstance(a, np.ndarray)]
        return sum(a.nbytes for a in arrays)

    known = registry()
    assert kept(known["add"](), x, x) == 0
    assert kept(known["sum"](), x) == 0
    assert kept(known["transpose"](), x) == 0
    assert kept(known["concatenate"](), x, x) == 0
    assert kept(known["tanh"](), x) == x.nbytes
    assert kept(known["multiply"](), x, x) == 2 * x.nbytes
