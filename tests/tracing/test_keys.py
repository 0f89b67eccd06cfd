"""Random keys that are drawn from in NumPy, held against JAX."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradlab.tracing.arithmetic import NumPy
from gradlab.tracing.jaxprs import Equation
from gradlab.tracing.running import AtOnce

Draw = Callable[[jax.Array], object]


def _split(seed: jax.Array, count: int = 4) -> jax.Array:
    return jax.random.split(jax.random.key(seed), count)


DRAWS: dict[str, Draw] = {
    "dropout": lambda s: jax.random.bernoulli(
        jax.random.fold_in(jax.random.key(s), 3), 0.5, (4, 5)
    ),
    "one of a grid": lambda s: jax.random.key_data(
        jax.random.split(jax.random.key(s), (3, 2))[1, 1]
    ),
    "widths": lambda s: [
        jax.random.bits(jax.random.key(s), (3, 5), d) for d in ("uint8", "uint16", "uint32")
    ],
    "permutation": lambda s: jax.random.permutation(jax.random.key(s), 20),
    "negative": lambda s: jax.random.bits(jax.random.key(-s - 5), (3,)),
    "bare words": lambda s: jax.random.uniform(jax.random.PRNGKey(s), (3,)),
    "each key": lambda s: jax.vmap(lambda k: jax.random.randint(k, (3,), 0, 100))(_split(s)),
    "each key and number": lambda s: jax.vmap(
        lambda k, i: jax.random.uniform(jax.random.fold_in(k, i), (2,))
    )(_split(s), jnp.arange(4)),
    "joined": lambda s: jax.random.key_data(jnp.concatenate([_split(s)[1:], _split(s + 1)[::-1]])),
    "chosen": lambda s: jax.random.bits(
        jnp.where(jnp.arange(4) > s, _split(s), _split(s + 7))[2], (3,)
    ),
    "another generator": lambda s: jax.random.bits(jax.random.key(s, impl="rbg"), (3,)),
}


@pytest.mark.one_in(2)
@pytest.mark.parametrize(("x64", "partitionable"), [(False, True), (True, False)])
@pytest.mark.parametrize("name", DRAWS)
def test_numbers_are_those_of_jax(name: str, x64: bool, partitionable: bool) -> None:
    with jax.enable_x64(x64), jax.threefry_partitionable(partitionable):
        jaxpr = jax.make_jaxpr(DRAWS[name])(3)
        found = AtOnce()(jaxpr, [np.asarray(3, jaxpr.in_avals[0].dtype)])
        for mine, theirs in zip(found, jax.tree.leaves(DRAWS[name](3)), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-6)


def test_jax_compiles_nothing_for_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def bound(equation: Equation, inputs: object) -> list[object]:
        asked.append(equation.primitive.name)
        return []

    jaxpr = jax.make_jaxpr(DRAWS["each key and number"])(3)
    monkeypatch.setattr("gradlab.tracing.arithmetic.bind", bound)
    monkeypatch.setattr("gradlab.tracing.keys.bind", bound)
    AtOnce()(jaxpr, [np.asarray(3, np.int32)])
    assert not asked


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("float32", "int32"),
        ("float32", "int8"),
        ("uint8", "float32"),
        ("float64", "int32"),
        ("int32", "float64"),
    ],
)
def test_bits_of_another_dtype_are_those_of_jax(given: str, made: str) -> None:
    with jax.enable_x64(True):
        wider = np.dtype(made).itemsize // np.dtype(given).itemsize
        x = np.arange(-8, 8).astype(given).reshape((-1, wider) if wider > 1 else (2, 8))
        jaxpr = jax.make_jaxpr(lambda x: jax.lax.bitcast_convert_type(x, made))(x)
        (found,) = NumPy().bind(jaxpr.eqns[0], [x])
        want = np.asarray(jax.lax.bitcast_convert_type(x, made))
        assert found.shape == want.shape and found.tobytes() == want.tobytes()


def test_bits_of_a_number_are_those_of_jax():
    jaxpr = jax.make_jaxpr(lambda x: jax.lax.bitcast_convert_type(x, np.int32))(np.float32(1.5))
    (found,) = NumPy().bind(jaxpr.eqns[0], [np.array(1.5, np.float32)])
    assert found.shape == () and found == np.float32(1.5).view(np.int32)
