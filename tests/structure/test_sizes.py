"""Shapes with names: they are read at the numbers given, and say so."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradlab
from gradlab import InputError, InputTypeError, assert_structure, jacobian


def attend(x):
    s = jnp.where(jnp.tri(x.shape[1], dtype=bool), x @ x.mT, -jnp.inf)
    return jax.nn.softmax(s, axis=-1) @ x


def test_names_stand_for_the_numbers_given():
    J = jacobian(attend, "BxTx4,T>=2,T%2==0", sizes={"B": 2, "T": 6})
    assert J.inputs[0].shape == (2, 6, 4)
    assert J.sizes == {"B": "B = 2", "T": "T = 6, T>=2, T%2==0"}
    assert J.to_dict()["sizes"] == J.sizes
    larger = J.sized(T=8)
    assert larger.pattern == jacobian(attend, jax.ShapeDtypeStruct((2, 8, 4), np.float32)).pattern
    assert_structure(attend, "BxTx4", causal=1, independent=0, sizes={"B": 3, "T": 5})


@pytest.mark.parametrize(
    ("words", "shape", "dtype"),
    [
        ("3BxT+1:bfloat16", (6, 5), jnp.bfloat16),
        ("B*Tx2", (8, 2), np.float32),
        ("2x3", (2, 3), np.float32),
        ("2T-1", (7,), np.float32),
    ],
)
def test_sizes_are_sums_of_products(words, shape, dtype):
    J = jacobian(jnp.tanh, words, sizes={"B": 2, "T": 4})
    assert (J.inputs[0].shape, J.inputs[0].dtype) == (shape, str(np.dtype(dtype)))
    assert J.structure == "diagonal"


def test_other_strings_stay_what_they_are():
    def act(x, name, padding):
        assert padding == "SAME"
        return getattr(jax.nn, name)(x)

    assert jacobian(act, np.zeros(3, np.float32), "relu", "SAME").structure == "diagonal"


@pytest.mark.parametrize(
    ("words", "sizes", "said"),
    [
        ("BxT", {"B": 2}, "T has none; give sizes={'T': 8}"),
        ("BxT,T%8==0", {"B": 2, "T": 6}, "T%8==0 does not hold"),
        ("BxT-6", {"B": 2, "T": 6}, "a size of 0"),
        ("BxT:float7", {"B": 2, "T": 6}, "'float7' is no dtype"),
        ("BxT,even", {"B": 2, "T": 6}, "'even' is no constraint"),
    ],
)
def test_what_cannot_be_read_is_refused_with_what_to_give(words, sizes, said):
    with pytest.raises(InputError, match=said):
        jacobian(jnp.tanh, words, sizes=sizes)


def test_a_size_is_a_positive_integer():
    with pytest.raises(InputTypeError, match="T is a number of entries"):
        gradlab.jacobian(jnp.tanh, "T", sizes={"T": 0.5})
