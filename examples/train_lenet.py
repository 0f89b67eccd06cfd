"""Train a small convolutional network to tell upright bars from lying ones, on NumPy alone.

The shape is that of LeNet (LeCun et al. 1998): convolution and pooling twice, then affine layers.
At every step the gradients are held against `jax.grad` of the same function.

Run it with `python examples/train_lenet.py`.
"""

import jax
import numpy as np

from gradlab import Graph, nodes

IMAGES, SIZE, STEPS, RATE = 40, 12, 20, 0.1


def loss(params, x, labels):
    h = nodes.relu(nodes.conv2d(x, params["k1"], params["c1"], padding=1))
    h = nodes.max_pool(h)
    h = nodes.relu(nodes.conv2d(h, params["k2"], params["c2"]))
    h = nodes.reshape(nodes.max_pool(h), shape=(IMAGES, -1))
    h = nodes.relu(nodes.affine(h, params["w1"], params["b1"]))
    return nodes.softmax_cross_entropy(nodes.affine(h, params["w2"], params["b2"]), labels)


def bars(rng):
    """Return noisy images with one bar each, upright (label 0) or lying (label 1)."""
    x = 0.2 * rng.normal(size=(IMAGES, 1, SIZE, SIZE))
    labels = np.arange(IMAGES) % 2
    for image, label, place in zip(x[:, 0], labels, rng.integers(SIZE, size=IMAGES)):
        (image if label else image.T)[place] += 1.0
    return x, labels


def initial(rng):
    def weights(*shape, inputs):
        return rng.normal(size=shape) * (2 / inputs) ** 0.5

    return {
        "k1": weights(4, 1, 3, 3, inputs=9),
        "c1": np.zeros(4),
        "k2": weights(8, 4, 3, 3, inputs=36),
        "c2": np.zeros(8),
        "w1": weights(32, 16, inputs=32),
        "b1": np.zeros(16),
        "w2": weights(16, 2, inputs=16),
        "b2": np.zeros(2),
    }


def difference(gradients, expected):
    """Return the largest difference of any parameter's gradient, relative to its largest entry."""
    pairs = [(gradients[name], expected[name]) for name in expected]
    return np.max([np.abs(g - e).max() / np.abs(e).max() for g, e in pairs])


def main() -> None:
    rng = np.random.default_rng(0)
    x, labels = bars(rng)
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
