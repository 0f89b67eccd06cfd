"""The hand-written operations: forward, local gradient and backward, one file per family.

`nodes.Softmax(axis=-1)` is a node; `nodes.softmax(x, axis=-1)` applies one, to arrays or to the
variables of a graph. The list is `nodes.registry()`, or `gradlab nodes` on the command line.

Example:
    >>> import numpy as np
    >>> from gradlab import nodes
    >>> nodes.softmax(np.zeros((2, 4)), axis=-1)
    array([[0.25, 0.25, 0.25, 0.25],
           [0.25, 0.25, 0.25, 0.25]])
"""

import dataclasses
from typing import Any

from gradlab.arguments import nearest
from gradlab.common.arrays import Array, Function, Tree
from gradlab.errors import InputTypeError
from gradlab.nodes._base import Elementwise, Node, Outputs
from gradlab.nodes._registry import find, registry

__all__ = ["Elementwise", "Node", "find", "registry"]


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    known = registry()
    if name in known:
        return _function(known[name])
    for cls in known.values():
        if cls.__name__ == name:
            return cls
    hint = nearest(name, __dir__()) or "see `gradlab nodes`"
    raise AttributeError(f"module 'gradlab.nodes' has no node {name!r}; {hint}")


def __dir__() -> list[str]:
    known = registry()
    return sorted([*__all__, *known, *(cls.__name__ for cls in known.values())])


def _function(cls: type[Node]) -> Function:
    """Return the function that applies a node of this class; keyword arguments are its fields."""

    def apply(*inputs: Array, **parameters: Tree) -> Outputs:
        fields = [field.name for field in dataclasses.fields(cls)]
        unknown = [name for name in parameters if name not in fields]
        if unknown:
            takes = ", ".join(fields) or "none"
            raise InputTypeError(f"{cls.name()}: no parameter {unknown[0]!r}; it takes {takes}")
        return cls(**parameters)(*inputs)

    apply.__name__ = apply.__qualname__ = cls.name()
    apply.__doc__ = cls.__doc__
    return apply
