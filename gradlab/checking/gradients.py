"""Which gradient belongs to which input; and where none does, the call that works."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from gradlab.common.arrays import Array, Tree
from gradlab.errors import InputError
from gradlab.formatting import count

SPELLINGS = ("{}", "d{}", "d_{}", "grad_{}", "{}_grad", "{}_gradient", "grad{}", "g{}")


def spelled(name: Any, keys: Any) -> Any:
    """Return the key under which the gradient of a name stands, or None."""
    if not isinstance(name, str):
        return name if name in keys else None
    return next((each for each in (s.format(name) for s in SPELLINGS) if each in keys), None)


def keyed(
    gradients: Mapping[Any, Any], inputs: Sequence[Tree], names: Sequence[str]
) -> dict[int, Any]:
    """Return gradients by the position of their input, from their keys.

    A key names an argument, or an entry of an argument that is a dict.
    """
    left = dict(gradients)
    found: dict[int, Any] = {}
    for i, name in enumerate(names):
        key = spelled(name, left)
        if key is not None:
            found[i] = left.pop(key)
    holders = [(i, x) for i, x in enumerate(inputs) if isinstance(x, Mapping) and i not in found]
    for i, holder in holders:
        for name in holder:
            key = spelled(name, left)
            if key is not None:
                found.setdefault(i, {})[name] = left.pop(key)
    if left:
        inner = [name for _, holder in holders for name in holder]
        parameters = f"parameters: {quoted(inner)}; " if inner else ""
        raise InputError(
            f"gradients: {quoted(gradients)}; {parameters}inputs: {quoted(names)}; "
            f"{quoted(left)} {'match' if len(left) > 1 else 'matches'} none of these; name each "
            "gradient as its input"
        )
    return found


def quoted(names: Iterable[Any]) -> str:
    """Return names as a list in a sentence."""
    return ", ".join(repr(str(name)) for name in names)


def wrong_number(
    name: str, names: Sequence[str], inputs: Sequence[Tree], gradients: Sequence[Array], loss: bool
) -> InputError:
    """Return the error for fewer or more gradients than inputs, with what to do."""
    who = name if loss else "backward"
    said = f"{who}: returned {count(len(gradients), 'gradient')} for {count(len(names), 'input')}"
    if len(gradients) > len(names):
        return InputError(
            f"{said}; pass everything that is differentiated as an input of the forward"
        )
    free = [i for i, x in enumerate(inputs) if is_float(x)]
    chosen: list[str] = []
    for gradient in gradients:
        fits = next((i for i in free if np.shape(inputs[i]) == np.shape(gradient)), None)
        if fits is not None:
            free.remove(fits)
            chosen.append(names[fits])
    if not chosen or len(chosen) < len(gradients):
        return InputError(f"{said}; return one for each input, None where there is none")
    return InputError(
        f"{said}; say which: wrt=({', '.join(map(repr, chosen))}{',' * (len(chosen) == 1)}), or "
        "return one for each input, None where there is none"
    )


def call_that_works(name: str, names: Sequence[str], result: Any, backward: str = "") -> str:
    """Return the call for a forward that returns more than its output, or nothing."""
    if not isinstance(result, tuple) or len(result) < 2:
        return ""
    arguments = ", ".join((name, *names))
    if np.shape(result[0]) == () and is_float(result[0]) and not backward:
        what = "a float and more: where these are its gradients"
        call = f"gradlab.check({arguments}, returns='output+gradients')"
    else:
        what = "a pair: where it is output and cache"
        with_it = backward or "BACKWARD"
        call = f"gradlab.check({arguments}, backward={with_it}, returns='output+residuals')"
    return f"{name} returns {what}, call {call}"


def looks_handwritten(result: Any, inputs: Sequence[Tree]) -> bool:
    """Whether NumPy returned a loss with gradients, or an output with a cache of its inputs."""
    leaves = jax.tree_util.tree_leaves(result)
    if not isinstance(result, tuple) or any(isinstance(leaf, jax.Array) for leaf in leaves):
        return False
    given = [leaf for leaf in jax.tree_util.tree_leaves(tuple(inputs)) if is_float(leaf)]
    rest = jax.tree_util.tree_leaves(result[1:])
    if any(leaf is each for leaf in rest for each in given):
        return True
    shapes = [np.shape(each) for each in given]
    fit = all(is_float(leaf) and np.shape(leaf) in shapes for leaf in rest)
    return bool(rest) and np.shape(result[0]) == () and is_float(result[0]) and fit


def is_float(value: Any) -> bool:
    """Whether a value is a float or complex array, or a Python float."""
    array = isinstance(value, np.ndarray | np.generic | jax.Array)
    return isinstance(value, float) or (array and value.dtype.kind in "fc")
