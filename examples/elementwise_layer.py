"""A layer 4096 wide, on a minibatch of 100: a Jacobian of 409,600 x 409,600, never formed.

Each output depends on one input, so the local gradient is a diagonal and backward is a product
entry by entry. What is held is as large as the output; the matrix would be 625 GiB.

Run it with `python examples/elementwise_layer.py`.
"""

import numpy as np

from gradlab import Graph, nodes


def layer(x):
    return nodes.relu(x)


def main() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((100, 4096), np.float32)
    upstream = rng.standard_normal((100, 4096), np.float32)

    graph = Graph(layer, x)
    gradient = graph.backward(upstream)
    local = graph.local_gradients["relu", "x"]
    print(local)
    print("backward = upstream @ local gradient:", bool((gradient == upstream @ local).all()))


if __name__ == "__main__":
    main()
