"""`gradlab.as_jax`: a NumPy function under JAX's transformations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradlab
from gradlab import NotReadable, as_jax


def layer(x, w, b):
    out = np.zeros((x.shape[0], w.shape[1]), x.dtype)
    for i, row in enumerate(x):
        out[i] = np.maximum(row @ w + b, 0)
    out[out > 2] *= 0.5
    return out


def jax_layer(x, w, b):
    out = jnp.maximum(x @ w + b, 0)
    return jnp.where(out > 2, 0.5 * out, out)


def data(dtype=np.float32):
    rng = np.random.default_rng(0)
    return tuple(jnp.asarray(rng.normal(size=s).astype(dtype)) for s in ((4, 3), (3, 2), (2,)))


@pytest.mark.parametrize("x64", [False, True])
def test_values_gradients_and_batches_are_jaxs(x64):
    with jax.enable_x64(x64):
        inputs = data(np.float64)
        ported = as_jax(layer)
        expected = jax_layer(*inputs)
        for found in (ported(*inputs), jax.jit(ported)(*inputs)):
            assert found.dtype == expected.dtype
            np.testing.assert_allclose(found, expected, rtol=1e-5)

        def loss(f, *args):
            return (f(*args) ** 2).sum()

        mine = jax.jit(jax.grad(lambda *a: loss(ported, *a), (0, 1, 2)))(*inputs)
        other = jax.grad(lambda *a: loss(jax_layer, *a), (0, 1, 2))(*inputs)
        for a, b in zip(mine, other):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        batch = jnp.stack([inputs[0], 2 * inputs[0]])
        found = jax.vmap(ported, (0, None, None))(batch, *inputs[1:])
        np.testing.assert_allclose(found[1], jax_layer(2 * inputs[0], *inputs[1:]), rtol=1e-5)


def test_another_shape_and_dtype_is_read_anew():
    ported = as_jax(layer)
    x, w, b = data()
    assert ported(x, w, b).shape == (4, 2) and ported(x[:2], w, b).shape == (2, 2)
    assert ported(x, w, b).dtype == jnp.float32


def decides(x):
    if x.sum() > 0:
        return 2 * x
    return -x


def test_called_with_arrays_it_decides_by_their_values():
    ported = as_jax(decides)
    np.testing.assert_array_equal(ported(jnp.ones(3)), 2.0)
    np.testing.assert_array_equal(ported(-jnp.ones(3)), 1.0)
    np.testing.assert_array_equal(ported(jnp.full(3, 4.0)), 8.0)


def test_under_jit_a_decision_raises_unless_an_example_was_given():
    with pytest.raises(NotReadable, match=r"test_as_jax.py:\d+.*give an example") as caught:
        jax.jit(as_jax(decides))(jnp.ones(3))
    line = decides.__code__.co_firstlineno + 1
    assert caught.value.line == f"test_as_jax.py:{line}"
    ported = as_jax(decides, jnp.ones(3))
    assert [(c.kind, c.value) for c in ported.conditions] == [("if", True)]
    assert ported.conditions[0].line == f"test_as_jax.py:{line}"
    np.testing.assert_array_equal(jax.jit(ported)(-jnp.ones(3)), -2.0)
    np.testing.assert_array_equal(jax.grad(lambda x: ported(x).sum())(jnp.ones(3)), 2.0)
    with pytest.raises(NotReadable):  # the example had another shape
        jax.jit(ported)(jnp.ones(2))


def test_pytrees_and_settings():
    def net(params, x, axis):
        return {"y": np.exp(params["w"] * x).sum(axis), "b": params["b"][0]}

    ported = as_jax(net)
    params = {"w": jnp.ones((2, 3)), "b": [jnp.zeros(2)]}
    x = jnp.ones((2, 3))
    found = jax.jit(lambda p, x: ported(p, x, 1))(params, x)
    np.testing.assert_allclose(found["y"], 3 * np.e, rtol=1e-6)
    assert found["b"].shape == (2,)
    assert ported(params, x, 0)["y"].shape == (3,)


def test_integers_and_indices_under_32_bits():
    def pick(table, index):
        grad = np.zeros_like(table)
        np.add.at(grad, index, 1.0)
        return table[index] + grad[np.argsort(index)].mean(0)

    table, index = jnp.arange(12.0).reshape(4, 3), jnp.array([1, 3, 1])
    np.testing.assert_allclose(
        jax.jit(as_jax(pick))(table, index), pick(np.asarray(table), np.asarray(index)), rtol=1e-6
    )


def test_gradlab_inspects_what_was_ported():
    with jax.enable_x64(True):
        inputs = data(np.float64)
        ported = as_jax(lambda x: np.cumsum(np.tanh(x), axis=1))
        gradlab.assert_structure(ported, inputs[0], independent=0, causal=1)


def test_what_cannot_be_read_says_so():
    with pytest.raises(NotReadable, match="compiled code"):
        as_jax(lambda x: sum(v for v in np.nditer(x)))(jnp.ones(3))


def test_what_has_a_derivative_of_its_own_keeps_it():
    with jax.enable_x64(True):
        a = jnp.asarray(3 * np.eye(3) + np.arange(9.0).reshape(3, 3) / 9)
        mine = jax.jacrev(as_jax(lambda a: np.linalg.inv(a)))(a)
        np.testing.assert_allclose(mine, jax.jacrev(jnp.linalg.inv)(a), rtol=1e-12, atol=1e-12)
        assert gradlab.jacobian(lambda a: np.linalg.inv(a), np.asarray(a)).structure == "dense"


def test_a_mask_that_chooses_nothing_decides_nothing():
    def forward(x):
        out = np.zeros_like(x)
        out[x > 0] = np.log(x[x > 0])
        return out

    x = -jnp.ones(3)
    ported = as_jax(forward, x)
    assert ported.conditions == ()
    np.testing.assert_array_equal(jax.grad(lambda x: ported(x).sum())(x), 0.0)
    np.testing.assert_array_equal(jax.grad(lambda x: ported(x).sum())(jnp.full(3, 2.0)), 0.5)


def test_doors_read_numpy_by_themselves():
    def softmax(x):
        e = np.exp(x - x.max(axis=-1, keepdims=True))
        return e / e.sum(axis=-1, keepdims=True)

    x = np.random.default_rng(0).normal(size=(3, 4))
    gradlab.assert_structure(softmax, x, independent=0)
    graph = gradlab.Graph.from_jax(softmax, x)
    np.testing.assert_allclose(graph.forward(), softmax(x), rtol=1e-12)
    assert gradlab.precision(softmax, x.astype(np.float32)).kind == "precision"
    with pytest.raises(gradlab.InputError, match="softmax is NumPy, which has no custom rules"):
        gradlab.audit(softmax, x)
    with pytest.raises(NotReadable, match=r"test_as_jax.py:\d+"):
        gradlab.jacobian(decides, x)


class Layer:
    """A layer that keeps what it saw, and a mean of it."""

    def __init__(self):
        self.w, self.mean, self.part = np.ones((4, 2)), np.ones(4), None

    def forward(self, x):
        self.x, self.size = x, x.shape
        self.mean *= 0.5
        self.mean += x.mean(axis=0)
        return np.sqrt(x @ self.w + self.mean.sum())


class Net:
    def __init__(self):
        self.layers = [Layer()]

    def forward(self, x):
        self.out = self.layers[0].forward(x)
        return self.out


@pytest.mark.parametrize("kind", [Layer, Net])
def test_a_layer_is_left_as_it_was(kind):
    net = kind()
    layers = [net, *getattr(net, "layers", [])]
    before = [dict(vars(each)) for each in layers]
    x = np.ones((3, 4))
    gradlab.jacobian(net.forward, x)
    gradlab.assert_structure(net.forward, x, structure="dense")
    assert [dict(vars(each)) for each in layers] == before
    assert all(np.all(each.mean == 1) for each in layers[-1:])


def test_another_dtype_is_another_reading():
    seen = []

    def forward(x):
        seen.append((x.shape, x.dtype.name))
        return np.tanh(x)

    ported = as_jax(forward)
    for shape, dtype in (
        ((3,), "float32"),
        ((2, 3), "float32"),
        ((3,), "int32"),
        ((3,), "float32"),
    ):
        ported(jnp.ones(shape, dtype))
    assert set(seen) == {((3,), "float32"), ((2, 3), "float32"), ((3,), "int32")}
    assert jax.jit(ported)(jnp.ones(3)).shape == (3,)


def test_what_jax_does_inside_is_done_at_the_users_line():
    def folded(x):
        sums = np.zeros(4)
        np.add.at(sums, [0, 1, 1], x[0])
        return np.where(sums > 0, sums, np.add.reduce(x[:, 0]))

    x = np.random.default_rng(0).normal(size=(3, 3))
    gradlab.jacobian(folded, x)  # JAX keeps how it traced its own functions
    said = str(gradlab.jacobian(lambda x: folded(2 * x), x))
    assert "np.add.at(sums, [0, 1, 1], x[0])" in said and "inside JAX" not in said, said
