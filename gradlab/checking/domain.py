"""Which inputs are legal: gradlab makes no others."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from gradlab.arguments import nearest
from gradlab.common.arrays import Function, Tree
from gradlab.errors import InputError, InputTypeError
from gradlab.tracing.leaves import flatten

Arrays = dict[str, Any]
_WORDS = ("positive", "finite")
Rule = tuple[str, Callable[[Any], bool]]  # in words, and whether it holds


@dataclass(frozen=True)
class Domain:
    """What the inputs may be."""

    # for each input or leaf by name, what must hold of its values
    rules: tuple[tuple[str, Rule], ...] = ()
    whole: Callable[[Arrays], bool] | None = None  # what must hold of all inputs together
    # the intervals among the rules, which points are clipped into
    bounds: tuple[tuple[str, float, float], ...] = ()

    @property
    def everything(self) -> bool:
        """Whether nothing was said, so that every input is legal."""
        return not self.rules and self.whole is None

    def broken(self, values: Arrays) -> str:
        """Return in words what inputs are outside; empty where they are legal."""
        for name, (text, holds) in self.rules:
            for path, value in values.items():
                if _belongs(path, name) and not holds(np.asarray(value)):
                    return f"{path} is not {text}"
        if self.whole is not None and not self.whole(values):
            return "the inputs do not satisfy it"
        return ""

    def clipped(self, values: Arrays) -> Arrays:
        """Return values with those outside of an interval moved to its end."""
        moved = dict(values)
        for name, low, high in self.bounds:
            for path, value in values.items():
                if _belongs(path, name):
                    array = np.asarray(value)
                    moved[path] = np.clip(array, low, high).astype(array.dtype)
        return moved


def parse_domain(domain: Any, inputs: tuple[Tree, ...], names: Sequence[str]) -> Domain:
    """Return what was said of the inputs."""
    if domain is None:
        return Domain()
    _, leaves, _ = flatten(inputs, tuple(names))
    paths = [leaf.path for leaf in leaves]
    if callable(domain):
        parsed = Domain(whole=_of_all(domain, inputs, names))
    else:
        by_name = domain if isinstance(domain, Mapping) else dict.fromkeys(names, domain)
        rules, bounds = [], []
        for name, said in by_name.items():
            if not any(_belongs(path, str(name)) for path in paths):
                near = nearest(name, [*names, *paths])
                raise InputError(
                    f"domain: no input is named {name!r}; the inputs are {', '.join(names)}"
                    + (f"; {near}" if near else "")
                )
            rule, interval = _rule(str(name), said, inputs, names)
            rules.append((str(name), rule))
            bounds += [(str(name), *interval)] if interval else []
        parsed = Domain(tuple(rules), None, tuple(bounds))
    values = {
        leaf.path: v for leaf, v in zip(leaves, flatten(inputs, tuple(names))[0]) if leaf.traced
    }
    try:
        broken = parsed.broken(values)
    except Exception as error:  # whatever the user's function raises
        text = f"calling it raised {type(error).__name__}: {error}"
        raise InputError(f"domain: {text}; it must take the inputs and return a bool") from error
    if broken:
        raise InputError(f"domain: the given inputs are outside: {broken}")
    return parsed


def _rule(
    name: str, said: Any, inputs: tuple[Tree, ...], names: Sequence[str]
) -> tuple[Rule, tuple[float, float] | None]:
    """Return what must hold of one input, and its interval if it has one."""
    if isinstance(said, str):
        if said not in _WORDS:
            raise InputError(f"domain: {name}: expected 'positive' or 'finite', got {said!r}")
        if said == "finite":
            return (said, lambda x: bool(np.isfinite(x).all())), None
        return (said, lambda x: bool((x > 0).all())), None
    if callable(said):
        if name in names and np.ndim(inputs[names.index(name)]) == 0:
            return ("what domain= allows", lambda x: bool(said(x))), None
        return ("what domain= allows", lambda x: bool(np.all(said(x)))), None
    if isinstance(said, tuple) and len(said) == 2:
        low, high = (
            (-np.inf if said[0] is None else said[0]),
            (np.inf if said[1] is None else said[1]),
        )
        try:
            low, high = float(low), float(high)
        except (TypeError, ValueError):
            raise InputTypeError(f"domain: {name}: expected two numbers, got {said!r}") from None
        if not low <= high:
            raise InputError(f"domain: {name}: {low} .. {high} is empty")
        text = f"in {low} .. {high}"
        return (text, lambda x: bool(((x >= low) & (x <= high)).all())), (low, high)
    try:
        allowed = np.asarray(said)
    except (TypeError, ValueError):
        allowed = np.array(None)
    if allowed.dtype.kind not in "iub" or not allowed.size:
        raise InputTypeError(
            f"domain: {name}: expected (low, high), 'positive', 'finite', integers or a function, "
            f"got {type(said).__name__}"
        )
    return (f"among {allowed.ravel().tolist()}", lambda x: bool(np.isin(x, allowed).all())), None


def _of_all(
    function: Function, inputs: tuple[Tree, ...], names: Sequence[str]
) -> Callable[[Arrays], bool]:
    given, leaves, tree = flatten(inputs, tuple(names))

    def holds(values: Arrays) -> bool:
        every = [values.get(leaf.path, value) for leaf, value in zip(leaves, given)]
        return bool(np.all(function(*jax.tree_util.tree_unflatten(tree, every))))

    return holds


def _belongs(path: str, name: str) -> bool:
    """Whether a leaf is an input of this name, or lies in it."""
    return path == name or (path.startswith(name) and path[len(name)] in "[.")
