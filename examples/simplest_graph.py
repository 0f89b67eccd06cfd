"""f(x, y, z) = (x + y) z at x = -2, y = 5, z = -4: the first graph that a course draws.

The add gate distributes its gradient, the multiply gate swaps its inputs.

Run it with `python examples/simplest_graph.py`.
"""

from gradlab import Graph


def f(x, y, z):
    return (x + y) * z


def main() -> None:
    graph = Graph(f, -2.0, 5.0, -4.0).label(add="q", multiply="f")
    graph.backward()
    print(graph.table())


if __name__ == "__main__":
    main()
