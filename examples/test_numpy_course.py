"""A course's two-layer net as people hand it in: NumPy, caches, and gradients in a dict.

Its forward is read as a program, so that JAX's autodiff of it is the reference for every gradient.
The same layer is then ported with `gradlab.as_jax`, and trained by JAX.
"""

# ruff: noqa: D102

import jax
import jax.numpy as jnp
import numpy as np

import gradlab


def affine_forward(x, w, b):
    return x @ w + b, (x, w)


def affine_backward(dout, cache):
    x, w = cache
    return dout @ w.T, x.T @ dout, dout.sum(axis=0)


class TwoLayerNet:
    """A hidden layer with ReLU, and a softmax loss."""

    def __init__(self, rng, inputs, hidden, classes):
        self.params = {
            "W1": rng.normal(size=(inputs, hidden)) / 2,
            "b1": np.zeros(hidden),
            "W2": rng.normal(size=(hidden, classes)) / 2,
            "b2": np.zeros(classes),
        }

    def loss(self, X, y):
        p, grads = self.params, {}
        hidden, first = affine_forward(X, p["W1"], p["b1"])
        scores, second = affine_forward(np.maximum(hidden, 0), p["W2"], p["b2"])
        probs = np.exp(scores - scores.max(axis=1, keepdims=True))
        probs /= probs.sum(axis=1, keepdims=True)
        rows = np.arange(len(y))
        loss = -np.log(probs[rows, y]).mean()
        probs[rows, y] -= 1
        dhidden, grads["W2"], grads["b2"] = affine_backward(probs / len(y), second)
        dhidden[hidden <= 0] = 0
        _, grads["W1"], grads["b1"] = affine_backward(dhidden, first)
        return loss, grads


class Affine:
    """One layer of a framework: parameters, gradients and a cache on itself."""

    def __init__(self, w, b):
        self.w, self.b = w, b

    def forward(self, x):
        self.x = x
        return x @ self.w + self.b

    def backward(self, dout):
        self.dw, self.db = self.x.T @ dout, dout.sum(axis=0)
        return dout @ self.w.T


class Tanh:
    """Another."""

    def forward(self, x):
        self.y = np.tanh(x)
        return self.y

    def backward(self, dout):
        return dout * (1 - self.y**2)


class Sequential:
    """Several layers, one after another."""

    def __init__(self, *layers):
        self.layers = layers

    def forward(self, x):
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, dout):
        for layer in self.layers[::-1]:
            dout = layer.backward(dout)
        return dout


def data():
    rng = np.random.default_rng(0)
    return rng, rng.normal(size=(6, 4)), rng.integers(0, 3, 6)


def test_the_function_pair():
    rng, x, _ = data()
    w, b = rng.normal(size=(4, 3)), rng.normal(size=3)
    gradlab.assert_gradients(
        affine_forward, x, w, b, backward=affine_backward, returns="output+residuals"
    )


def test_the_model():
    rng, x, y = data()
    report = gradlab.assert_gradients(TwoLayerNet(rng, 4, 5, 3), x, y)
    assert report.oracle == "autodiff of TwoLayerNet, read from NumPy"
    assert [leaf.path for leaf in report.leaves] == [
        f"params.{n}" for n in ("W1", "b1", "W2", "b2")
    ]


def test_every_layer_of_the_framework():
    rng, x, _ = data()
    net = Sequential(
        Affine(rng.normal(size=(4, 5)), rng.normal(size=5)),
        Tanh(),
        Affine(rng.normal(size=(5, 3)), rng.normal(size=3)),
    )
    for layer in net.layers:
        gradlab.assert_gradients(layer, x)
        x = layer.forward(x)
    report = gradlab.check(net, data()[1])
    assert report.ok and "layers[0].w" in [leaf.path for leaf in report.leaves]


class WrongTanh(Tanh):
    """It forgets the square."""

    def backward(self, dout):
        return dout * (1 - self.y)


def test_a_mistake_is_found():
    report = gradlab.check(WrongTanh(), data()[1])
    assert report.status == "wrong"


def test_the_forward_ported_and_trained_by_jax():
    _, x, y = data()
    x = x.astype(np.float32)

    @gradlab.as_jax
    def loss(w, b):
        scores, _ = affine_forward(x, w, b)
        top = scores.max(axis=1, keepdims=True)
        logs = scores - top - np.log(np.exp(scores - top).sum(axis=1, keepdims=True))
        return -logs[np.arange(len(y)), y].mean()

    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    w, b = jnp.zeros((4, 3)), jnp.zeros(3)
    first, _ = step(w, b)
    for _ in range(50):
        value, (dw, db) = step(w, b)
        w, b = w - dw, b - db
    assert value < 0.7 * first
