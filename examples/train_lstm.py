"""Train a character language model, an LSTM, on the Zen of Python, on NumPy alone.

The whole time loop is one node; backward goes through it from the last character to the first.
At every step the gradients are held against `jax.grad` of the same function.

Run it with `python examples/train_lstm.py`.
"""

import codecs
import contextlib
import io

import jax
import numpy as np

from gradlab import Graph, nodes

LENGTH, WIDTH, STEPS, RATE = 6, 24, 20, 2.0

with contextlib.redirect_stdout(io.StringIO()):
    import this


def loss(params, text, following):
    start = np.zeros((text.shape[0], WIDTH))
    letters = nodes.embedding(params["letters"], text)
    h, _ = nodes.lstm(letters, start, start, params["wx"], params["wh"], params["b"])
    logits = nodes.affine(h, params["w"], params["c"])
    rows = nodes.reshape(logits, shape=(-1, logits.shape[-1]))
    return nodes.softmax_cross_entropy(rows, following)


def zen():
    """Return the text in lines of LENGTH letters, as numbers, and the letters that follow."""
    text = codecs.decode(this.s, "rot13")
    letters, numbers = np.unique(list(text), return_inverse=True)
    lines = (len(numbers) - 1) // LENGTH
    text, following = (numbers[i:][: lines * LENGTH].reshape(lines, LENGTH) for i in (0, 1))
    return text, following.ravel(), len(letters)


def initial(rng, letters):
    scale = WIDTH**-0.5
    return {
        "letters": rng.normal(size=(letters, WIDTH)),
        "wx": scale * rng.normal(size=(WIDTH, 4 * WIDTH)),
        "wh": scale * rng.normal(size=(WIDTH, 4 * WIDTH)),
        "b": np.zeros(4 * WIDTH),
        "w": scale * rng.normal(size=(WIDTH, letters)),
        "c": np.zeros(letters),
    }


def difference(gradients, expected):
    """Return the largest difference of any parameter's gradient, relative to its largest entry."""
    pairs = [(gradients[name], expected[name]) for name in expected]
    return np.max([np.abs(g - e).max() / np.abs(e).max() for g, e in pairs])


def main() -> None:
    rng = np.random.default_rng(0)
    text, following, letters = zen()
    params = initial(rng, letters)
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
    assert losses[-1] < 0.8 * losses[0], "the loss did not fall"
    assert worst < 1e-9, "a gradient differs from jax.grad"


if __name__ == "__main__":
    main()
