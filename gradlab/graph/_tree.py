"""Inputs and outputs that are containers: tuples, lists and dicts of arrays, opened and rebuilt."""

from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["is_array", "leaves", "rebuild"]


def leaves(tree: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield every leaf of a container with its path, in order.

    Example:
        >>> list(leaves({"w": 1.0, "b": (2.0, None)}, "params"))
        [("params['w']", 1.0), ("params['b'][0]", 2.0), ("params['b'][1]", None)]
    """
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, f"{path}[{key!r}]")
    elif isinstance(tree, list | tuple):
        for i, value in enumerate(tree):
            yield from leaves(value, f"{path}[{i}]")
    else:
        yield path, tree


def rebuild(tree: Any, leaf: Callable[[Any], Any]) -> Any:
    """Return the container with every leaf replaced by `leaf(leaf)`, called in order.

    Example:
        >>> rebuild({"w": 1.0, "b": (2.0, 3.0)}, lambda x: 10 * x)
        {'w': 10.0, 'b': (20.0, 30.0)}
    """
    if isinstance(tree, dict):
        return type(tree)((key, rebuild(value, leaf)) for key, value in tree.items())
    if isinstance(tree, list | tuple):
        items = [rebuild(value, leaf) for value in tree]
        return tree._make(items) if hasattr(tree, "_make") else type(tree)(items)
    return leaf(tree)


def is_array(x: Any) -> bool:
    """Return whether `x` is an array of NumPy, JAX or a namespace like theirs."""
    return hasattr(x, "shape") and hasattr(x, "dtype")
