"""A step of a small network through Graph, beside the same arithmetic in plain NumPy and autograd.

Run it with `python tests/benchmarks/bench_graph.py`. Processor times, the least of many short and
interleaved rounds, on one thread: what the work takes when nothing disturbs it. HIPS autograd is
measured where it is installed.
"""

import functools
import importlib.util
import os
import time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from gradlab import Graph, nodes

PARAMETERS = ("w1", "b1", "w2", "b2")
SIZES = {"batch 32, 64->64->10": (32, 64, 64, 10), "batch 128, 512->512->10": (128, 512, 512, 10)}


def inputs(rows, width, hidden, classes):
    rng = np.random.default_rng(0)
    return (
        rng.standard_normal((rows, width)),
        rng.standard_normal((width, hidden)) / width**0.5,
        np.zeros(hidden),
        rng.standard_normal((hidden, classes)) / hidden**0.5,
        np.zeros(classes),
        rng.integers(0, classes, rows),
    )


def network(x, w1, b1, w2, b2, labels):
    h = np.tanh(nodes.affine(x, w1, b1))
    return nodes.softmax_cross_entropy(nodes.affine(h, w2, b2), labels)


def network_gate_by_gate(x, w1, b1, w2, b2, labels):
    h = np.tanh(x @ w1 + b1)
    return nodes.softmax_cross_entropy(h @ w2 + b2, labels)


def plain(x, w1, b1, w2, b2, labels):
    rows = np.arange(len(labels))
    h = np.tanh(x @ w1 + b1)
    scores = h @ w2 + b2
    shifted = scores - scores.max(axis=1, keepdims=True)
    e = np.exp(shifted)
    total = e.sum(axis=1, keepdims=True)
    loss = (np.log(total[:, 0]) - shifted[rows, labels]).mean()
    dscores = e / total
    dscores[rows, labels] -= 1
    dscores /= len(labels)
    dz = (dscores @ w2.T) * (1 - h * h)
    return loss, (x.T @ dz, dz.sum(axis=0), h.T @ dscores, dscores.sum(axis=0))


def with_autograd(x, labels):
    import autograd
    import autograd.numpy as anp

    rows = np.arange(len(labels))

    def loss(parameters):
        w1, b1, w2, b2 = parameters
        scores = anp.dot(anp.tanh(anp.dot(x, w1) + b1), w2) + b2
        shifted = scores - anp.max(scores, axis=1, keepdims=True)
        return anp.mean(anp.log(anp.sum(anp.exp(shifted), axis=1)) - shifted[rows, labels])

    return autograd.value_and_grad(loss)


def interleaved(rounds, repeats, **steps):
    """Return the least time of each step over many short rounds, in microseconds."""
    times = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.process_time()
            for _ in range(repeats):
                step()
            times[name].append((time.process_time() - start) / repeats * 1e6)
    return {name: min(spent) for name, spent in times.items()}


def main():
    for title, size in SIZES.items():
        values = inputs(*size)
        graph, gates = Graph(network, *values), Graph(network_gate_by_gate, *values)

        def step(graph, values=values):
            return graph.forward(*values), graph.backward(wrt=PARAMETERS)

        for g in (graph, gates):
            for a, b in zip(step(g)[1], plain(*values)[1], strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-15)
        steps = {
            "plain": functools.partial(plain, *values),
            "graph": functools.partial(step, graph),
            "gates": functools.partial(step, gates),
        }
        repeats = 10 if size[0] < 100 else 1
        times = interleaved(400 if size[0] < 100 else 150, repeats, **steps)
        if importlib.util.find_spec("autograd"):  # by itself: its garbage would cost the others
            gradient = with_autograd(values[0], values[-1])
            times |= interleaved(40, repeats, autograd=functools.partial(gradient, values[1:5]))
        print(title)
        for name, spent in times.items():
            print(f"  {name:9s} {spent:9.1f} us  {spent / times['plain']:5.2f} x plain NumPy")


if __name__ == "__main__":
    main()
