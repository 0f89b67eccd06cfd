"""A neuron gate by gate: 1 / (1 + exp(-(w0 x0 + w1 x1 + w2))), backwards through ten gates.

Its last four gates are a sigmoid. As one node they have the same gradients, because
d sigmoid / dx = (1 - sigmoid) sigmoid.

Run it with `python examples/sigmoid_gates.py`.
"""

import numpy as np

from gradlab import Graph, nodes

INPUTS = (2.0, -1.0, -3.0, -2.0, -3.0)


def neuron(w0, x0, w1, x1, w2):
    return 1 / (1 + np.exp(-(w0 * x0 + w1 * x1 + w2)))


def neuron_with_sigmoid(w0, x0, w1, x1, w2):
    return nodes.sigmoid(w0 * x0 + w1 * x1 + w2)


def main() -> None:
    gates = Graph(neuron, *INPUTS)
    gates.backward()
    print(gates.table(), end="\n\n")

    whole = Graph(neuron_with_sigmoid, *INPUTS)
    print("as one sigmoid:", *(f"{float(gradient):.2f}" for gradient in whole.backward()))


if __name__ == "__main__":
    main()
