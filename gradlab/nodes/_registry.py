"""All nodes by name, found by reading the files of this folder: one file is one family.

Adding a node is writing its class in its family's file; `python tests/nodes/test_stub.py` then
writes its types down for type checkers.
"""

import functools
import importlib
import inspect
import pkgutil
from typing import TypeAlias

from gradlab.arguments import nearest, nearest_of
from gradlab.errors import InputError, InputTypeError
from gradlab.nodes._base import Node

NodeLike: TypeAlias = Node | type[Node] | str


@functools.cache
def registry() -> dict[str, type[Node]]:
    """Return all nodes by name, in the order of their families and then of their writing.

    Example:
        >>> registry()["tanh"]
        <class 'gradlab.nodes.activation.Tanh'>
    """
    package = importlib.import_module("gradlab.nodes")
    found: dict[str, type[Node]] = {}
    for module in pkgutil.iter_modules(package.__path__):
        if module.name.startswith("_"):
            continue
        family = importlib.import_module(f"gradlab.nodes.{module.name}")
        for cls in vars(family).values():
            if _is_node(cls) and cls.__module__ == family.__name__:
                found[cls.name()] = cls
    return found


def _is_node(cls: type) -> bool:
    known = inspect.isclass(cls) and issubclass(cls, Node) and not inspect.isabstract(cls)
    return known and not cls.__name__.startswith("_")


def find(node: object) -> type[Node]:
    """Return a node's class from its name, its class or an instance.

    Raises:
        InputError: no node has this name; the nearest names are told.
        InputTypeError: this is no node.
    """
    if isinstance(node, Node):
        return type(node)
    if inspect.isclass(node) and issubclass(node, Node):
        return node
    if not isinstance(node, str):
        raise InputTypeError(
            f"node: expected a node, its class or its name, got {type(node).__name__}"
        )
    nodes = registry()
    if node not in nodes:
        near = nearest_of(node, nodes)
        hint = nearest(node, nodes) or "`gradlab nodes` lists them"
        raise InputError(
            f"there is no node named {node!r}; {hint}", (node, near[0] if near else node)
        )
    return nodes[node]
