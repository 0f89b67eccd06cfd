"""How the arguments of a function are made of arrays: which leaves vary, which stay."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from gradlab.common.arrays import Array, Tree
from gradlab.errors import InputError, InputTypeError

_VARIES = object()  # in place of a leaf that is an array


class Form:
    """The form of a function's arguments.

    Arrays vary, and so do Python numbers that are an argument by themselves, which become float64.
    Everything else (None, strings, functions, numbers inside containers) stays as it was.
    """

    def __init__(self, names: list[str], inputs: tuple[Tree, ...]) -> None:
        self.names = names
        self._leaves = {
            path: _VARIES if is_array(leaf) or (leaf is tree and _is_number(leaf)) else leaf
            for name, tree in zip(names, inputs, strict=True)
            for path, leaf in leaves(tree, name)
        }
        self._trees = [rebuild(tree, lambda leaf: None) for tree in inputs]
        self.paths = [path for path, leaf in self._leaves.items() if leaf is _VARIES]

    def flatten(self, inputs: tuple[Tree, ...]) -> list[Array]:
        """Return the leaves that vary, as arrays; an InputError if the form is another one."""
        if len(inputs) != len(self._trees):
            raise InputTypeError(
                f"the graph takes {len(self._trees)} input(s) ({', '.join(self.names)}), "
                f"but {len(inputs)} came"
            )
        if self.paths == self.names and all(map(is_array, inputs)):
            return list(inputs)
        found = dict(pair for name, x in zip(self.names, inputs) for pair in leaves(x, name))
        if found.keys() != self._leaves.keys():
            raise InputTypeError(
                f"the graph was recorded with leaves {', '.join(self._leaves)}, "
                f"but these inputs have {', '.join(found)}; build another graph for them"
            )
        for path, leaf in self._leaves.items():
            given = found[path]
            if leaf is not _VARIES and leaf is not given and leaf != given:
                raise InputError(
                    f"{path}: the graph was recorded with {leaf!r}, but you gave {given!r}; "
                    "build another graph for it"
                )
        return [_as_array(path, found[path]) for path in self.paths]

    def unflatten(self, flat: Iterable[Array], keep_static: bool = True) -> tuple[Tree, ...]:
        """Return arguments of this form with other leaves; None for static ones on request."""
        values, recorded = iter(flat), iter(self._leaves.values())

        def leaf(_: Tree) -> Tree:
            static = next(recorded)
            return next(values) if static is _VARIES else static if keep_static else None

        return tuple(rebuild(tree, leaf) for tree in self._trees)


class Returned:
    """What a function returns: one array, or a container of them."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._bare = not isinstance(tree, dict | list | tuple)

    def pack(self, outputs: list[Array]) -> Tree:
        """Return flat outputs in the form in which the function returns them."""
        if self._bare:
            return outputs[0]
        supply = iter(outputs)
        return rebuild(self._tree, lambda leaf: next(supply))

    def unpack(self, upstream: Tree) -> list[Array]:
        """Return the leaves of an upstream that has the form of the output."""
        return [upstream] if self._bare else [leaf for _, leaf in leaves(upstream, "upstream")]


def _is_number(x: object) -> bool:
    return isinstance(x, int | float | complex) and not isinstance(x, bool)


def _as_array(path: str, leaf: Tree) -> Array:
    if is_array(leaf):
        return leaf
    if not _is_number(leaf):
        raise InputTypeError(f"{path}: expected an array, but got {type(leaf).__name__}")
    return np.asarray(leaf, complex if isinstance(leaf, complex) else float)


def leaves(tree: Tree, path: str) -> Iterator[tuple[str, Tree]]:
    """Yield every leaf of a container with its path, in order."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, f"{path}[{key!r}]")
    elif isinstance(tree, list | tuple):
        for i, value in enumerate(tree):
            yield from leaves(value, f"{path}[{i}]")
    else:
        yield path, tree


def rebuild(tree: Tree, leaf: Callable[[Tree], Tree]) -> Tree:
    """Return the container with every leaf replaced by `leaf(leaf)`, called in order."""
    if isinstance(tree, dict):
        return type(tree)((key, rebuild(value, leaf)) for key, value in tree.items())
    if isinstance(tree, list | tuple):
        items = [rebuild(value, leaf) for value in tree]
        return tree._make(items) if hasattr(tree, "_make") else type(tree)(items)
    return leaf(tree)


def is_array(x: object) -> bool:
    """Return whether `x` is an array of NumPy, JAX or a namespace like theirs."""
    return hasattr(x, "shape") and hasattr(x, "dtype")
