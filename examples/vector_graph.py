"""f(x, W) = ||W x||^2: the same rules when the wires carry vectors and matrices.

A gradient has the shape of its variable: df/dW is 2 q x^T, df/dx is 2 W^T q, with q = W x.

Run it with `python examples/vector_graph.py`.
"""

import numpy as np

from gradlab import Graph, nodes

W = np.array([[0.1, 0.5], [-0.3, 0.8]])
X = np.array([0.2, 0.4])


def f(w, x):
    return nodes.l2_loss(w @ x)


def main() -> None:
    graph = Graph(f, W, X).label(matmul="q", l2_loss="f")
    graph.backward()
    print(graph.table())


if __name__ == "__main__":
    main()
