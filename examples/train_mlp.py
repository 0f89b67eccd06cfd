"""Train a multilayer perceptron on two spirals, by hand-written nodes on NumPy alone.

A graph takes its parameters as a dict and returns their gradients as one. At every step they are
held against `jax.grad` of the same function, which `Graph.reference` states in JAX.

Run it with `python examples/train_mlp.py`.
"""

import jax
import numpy as np

from gradlab import Graph, nodes

POINTS, WIDTH, STEPS, RATE = 60, 32, 20, 0.5


def loss(params, x, labels):
    h = nodes.relu(nodes.affine(x, params["w1"], params["b1"]))
    h = nodes.relu(nodes.affine(h, params["w2"], params["b2"]))
    return nodes.softmax_cross_entropy(nodes.affine(h, params["w3"], params["b3"]), labels)


def two_spirals(rng):
    angle = np.linspace(0.5, 4.0, POINTS)
    arm = angle[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1) / 2
    x = np.concatenate([arm, -arm])
    return x + 0.02 * rng.normal(size=x.shape), np.repeat([0, 1], POINTS)


def initial(rng):
    return {
        "w1": rng.normal(size=(2, WIDTH)),
        "b1": np.zeros(WIDTH),
        "w2": rng.normal(size=(WIDTH, WIDTH)) * (2 / WIDTH) ** 0.5,
        "b2": np.zeros(WIDTH),
        "w3": rng.normal(size=(WIDTH, 2)) / WIDTH**0.5,
        "b3": np.zeros(2),
    }


def difference(gradients, expected):
    """Return the largest difference of any parameter's gradient, relative to its largest entry."""
    pairs = [(gradients[name], expected[name]) for name in expected]
    return np.max([np.abs(g - e).max() / np.abs(e).max() for g, e in pairs])


def main() -> None:
    rng = np.random.default_rng(0)
    x, labels = two_spirals(rng)
    params = initial(rng)
    graph = Graph(loss, params, x, labels)
    reference = jax.jit(jax.grad(graph.reference))
    losses, worst = [], 0.0
    for _ in range(STEPS):
        value, (gradients, _, _) = graph.value_and_gradient(params, x, labels)
        with jax.enable_x64(True):
            expected = jax.device_get(reference(params, x, labels))
        losses.append(float(value))
        worst = np.maximum(worst, difference(gradients, expected))
        params = {name: params[name] - RATE * gradients[name] for name in params}
    losses.append(float(graph(params, x, labels)))

    print(f"loss fell from {losses[0]:.3f} to {losses[-1]:.3f} in {STEPS} steps")
    print(f"largest relative difference from jax.grad: {worst:.1e}")
    assert losses[-1] < 0.7 * losses[0], "the loss did not fall"
    assert worst < 1e-9, "a gradient differs from jax.grad"


if __name__ == "__main__":
    main()
