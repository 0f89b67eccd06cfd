"""Where does the NaN come from? The graph of a JAX function names the first wire that carries it.

`where` picks the finite branch in the forward pass. Backwards, the branch that was not taken still
multiplies its zero gradient by an infinite slope: 0 * inf = NaN.

Run it with `python examples/first_nan.py`.
"""

import jax.numpy as jnp
import numpy as np

from gradlab import Graph


def distance(x):
    squared = (x * x).sum(axis=1)
    return jnp.where(squared > 0, jnp.sqrt(squared), 0.0).sum()


def main() -> None:
    points = np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)
    graph = Graph.from_jax(distance, points)
    print("value:", graph.forward())
    print("gradient:", graph.backward().tolist())
    print(*graph.report().findings, sep="\n")


if __name__ == "__main__":
    main()
