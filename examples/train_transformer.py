"""Train one transformer block to copy: the second half of a sequence repeats the first.

Position and letter add up, attention looks back, and residual sums carry both past each sublayer
(Vaswani et al. 2017; normalised before each sublayer). At every step the gradients are held
against `jax.grad` of the same function.

Run it with `python examples/train_transformer.py`.
"""

import jax
import numpy as np

from gradlab import Graph, nodes

BATCH, HALF, LETTERS, WIDTH, STEPS, RATE = 32, 4, 6, 16, 20, 0.5


def loss(params, text, following):
    x = nodes.embedding(params["letters"], text) + params["places"]
    h = nodes.layer_norm(x, params["scale1"], params["shift1"])
    projections = (params[name] for name in ("wq", "wk", "wv", "wo"))
    x = x + nodes.multi_head_attention(h, *projections, heads=2, is_causal=True)
    h = nodes.layer_norm(x, params["scale2"], params["shift2"])
    h = nodes.gelu(nodes.affine(h, params["up"], params["b1"]))
    x = x + nodes.affine(h, params["down"], params["b2"])
    seen = nodes.slice(x, slices=((None, None, None), (HALF - 1, None, None)))
    rows = nodes.reshape(seen @ params["w"], shape=(-1, LETTERS))
    return nodes.softmax_cross_entropy(rows, following)


def copying(rng):
    """Return sequences without their last letter, and the letters that are to be copied."""
    half = rng.integers(LETTERS, size=(BATCH, HALF))
    return np.concatenate([half, half[:, :-1]], axis=1), half.ravel()


def initial(rng):
    def weights(rows, columns):
        return rng.normal(size=(rows, columns)) / rows**0.5

    return {
        "letters": rng.normal(size=(LETTERS, WIDTH)),
        "places": rng.normal(size=(2 * HALF - 1, WIDTH)),
        **{name: weights(WIDTH, WIDTH) for name in ("wq", "wk", "wv", "wo")},
        **{name: np.ones(WIDTH) for name in ("scale1", "scale2")},
        **{name: np.zeros(WIDTH) for name in ("shift1", "shift2", "b2")},
        "up": weights(WIDTH, 2 * WIDTH),
        "b1": np.zeros(2 * WIDTH),
        "down": weights(2 * WIDTH, WIDTH),
        "w": weights(WIDTH, LETTERS),
    }


def difference(gradients, expected):
    """Return the largest difference of any parameter's gradient, relative to its largest entry."""
    pairs = [(gradients[name], expected[name]) for name in expected]
    return np.max([np.abs(g - e).max() / np.abs(e).max() for g, e in pairs])


def main() -> None:
    rng = np.random.default_rng(0)
    text, following = copying(rng)
    params = initial(rng)
    graph = Graph(loss, params, text, following)
    reference = jax.jit(jax.grad(graph.reference))
    losses, worst = [], 0.0
    for _ in range(STEPS):
        value, (gradients, _, _) = graph.value_and_gradient(params, text, following)
        with jax.enable_x64(True):
            expected = jax.device_get(reference(params, text, following))
        losses.append(float(value))
        worst = np.maximum(worst, difference(gradients, expected))
        params = {name: params[name] - RATE * gradients[name] for name in params}
    losses.append(float(graph(params, text, following)))

    print(f"loss fell from {losses[0]:.3f} to {losses[-1]:.3f} in {STEPS} steps")
    print(f"largest relative difference from jax.grad: {worst:.1e}")
    assert losses[-1] < 0.7 * losses[0], "the loss did not fall"
    assert worst < 1e-9, "a gradient differs from jax.grad"


if __name__ == "__main__":
    main()
