"""Four gates to remember: add distributes, multiply swaps, max routes, copy adds.

Each gate gets an upstream of 2, and its inputs are 3 and 4.

Run it with `python examples/lecture/gates.py`, or see one gate with
`gradlab graph examples.lecture.gates:add x=3 y=4 -o add.html`.
"""

import numpy as np

from gradlab import Graph, nodes


def add(x, y):
    return 2 * (x + y)


def multiply(x, y):
    return 2 * (x * y)


def maximum(x, y):
    return 2 * np.maximum(x, y)


def copy(x):
    once, twice = nodes.copy(x)
    return 2 * once + 4 * twice


def main() -> None:
    for gate in (add, multiply, maximum):
        dx, dy = Graph(gate, 3.0, 4.0).backward()
        print(f"{gate.__name__}: the inputs 3 and 4 get {dx:g} and {dy:g}")
    dx = Graph(copy, 3.0).backward()
    print(f"copy: the input gets 2 + 4 = {dx:g}")


if __name__ == "__main__":
    main()
