"""Mutants of a function: what its source would be with one small mistake in it.

A mutant counts if it runs, gives the right shapes, and other numbers than the original somewhere.
"""

import contextlib
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any

import jax
import numpy as np

from gradlab.common.arrays import Array, Function, Tree
from gradlab.repair.edits import TOKENS, tokens
from gradlab.repair.source import Edit, Text, edited, read
from gradlab.repair.world import Failed, World, compiled, quiet, theirs

_POINTS = 20
_CLOSE = 1e-12


@dataclass(frozen=True)
class Mutant:
    """A function with one mistake put in.

    `same` says that no point told it from the original, so that no test can be asked to.
    """

    text: Text
    edit: Edit
    code: CodeType
    same: bool

    @property
    def lines(self) -> tuple[int, str, str]:
        """The line that changes, and how it reads before and after."""
        old = self.text.segment
        new = edited(self.text, self.edit).segment
        line = self.text.line_of(self.edit.start)
        index = line - self.text.line
        before, after = (s.split(b"\n")[index].decode().strip() for s in (old, new))
        return line, before, after


def mutants(
    function: FunctionType,
    calls: Sequence[tuple[Any, ...]],
    count: int,
    seed: int,
    owned: Callable[[str], bool],
) -> list[Mutant]:
    """Return mutants of a function, spread over its statements.

    Args:
        function: written in Python, in a file.
        calls: arguments with which it was called; traced arrays stand for their shapes.
        count: how many mutants that differ from the original.
        seed: of the choice and of the points.
        owned: whether a file's functions are the user's.
    """
    text = read(function.__code__)
    if text is None or not calls:
        return []
    world = World(owned)
    copy = world.load(function)
    rng = np.random.default_rng(seed)
    points = [_drawn(calls[k % len(calls)], rng, k < len(calls)) for k in range(_POINTS)]
    found: list[Mutant] = []
    with quiet():
        known = []
        for point in points:
            with contextlib.suppress(Failed):  # a point that the function refuses
                right = _results(world, copy, point)
                known.append((point, right, _results(world, copy, _moved(point))))
        for edit in _spread(text, rng):
            if sum(not m.same for m in found) >= count or not known:
                break
            mutant = _mutant(world, copy, function, text, edit, known)
            found += [mutant] if mutant is not None else []
    return found


def _spread(text: Text, rng: np.random.Generator) -> Iterator[Edit]:
    """Yield single edits in turn from each statement and kind, in random order."""
    names = frozenset(dir(np)) | {"sum", "mean", "max", "min"}
    some = list(tokens(text, ("np",), names))
    some = [some[k] for k in rng.permutation(len(some))]
    some.sort(key=_kind)
    groups = [list(g) for _, g in itertools.groupby(some, key=_kind)]
    order = [groups[k] for k in rng.permutation(len(groups))]
    for row in itertools.zip_longest(*order):
        yield from (edit for edit in row if edit is not None and edit.tier >= TOKENS)


def _kind(edit: Edit) -> tuple[int, str]:
    """Return the statement of an edit, and the operators that it changes."""
    return edit.statement, re.sub(r"[\w\s]+", "x", f"{edit.old} > {edit.new}")


def _mutant(
    world: World,
    copy: FunctionType,
    function: FunctionType,
    text: Text,
    edit: Edit,
    known: Sequence[tuple[Any, list[Any], list[Any]]],
) -> Mutant | None:
    original, new, same = function.__code__, edited(text, edit), True
    try:
        code = compiled(new, original, counts=False)
        with world.exchanged(original, new):
            for point, right, near in known:
                came = _results(world, copy, point)
                if [np.shape(c) for c in came] != [np.shape(r) for r in right]:
                    return None
                same = all(map(_close, came, right, near))
                if not same:
                    break
    except Failed:
        return None
    return Mutant(text, edit, code, same)


def _close(came: Array, right: Array, near: Array) -> bool:
    """Whether results differ by no more than they move when the inputs move by 1e-12."""
    known = np.isfinite(right) & np.isfinite(near)
    moved = np.max(np.abs(np.asarray(near, complex) - right), initial=0.0, where=known)
    size = np.max(np.abs(right), initial=0.0, where=known)
    allowed = float(moved + _CLOSE * size)
    return np.allclose(came, right, rtol=_CLOSE, atol=allowed, equal_nan=True)


def _moved(point: Tree) -> Tree:
    """Return a point whose numbers are moved by 1e-12 of themselves."""

    def one(x: Any) -> Any:
        moves = isinstance(x, np.ndarray) and x.dtype.kind in "fc"
        return x * (1 + _CLOSE * np.cos(1.0 + np.arange(x.size)).reshape(x.shape)) if moves else x

    return jax.tree.map(one, point)


def _results(world: World, copy: Function, point: Tree) -> list[Array]:
    given = jax.tree.map(lambda x: x.copy() if isinstance(x, np.ndarray) else x, point)
    came = world.call(copy, *given)
    return [theirs(np.asarray, x) for x in jax.tree.leaves(came)]


def _drawn(arguments: tuple[Tree, ...], rng: np.random.Generator, given: bool) -> Tree:
    def one(x: Array) -> Any:
        if not hasattr(x, "dtype"):
            return x
        traced = isinstance(x, jax.core.Tracer)
        kind = np.dtype(x.dtype).kind
        if kind not in "fcV":
            return np.zeros(x.shape, x.dtype) if traced else np.asarray(x)
        noise = rng.normal(size=x.shape)
        if traced:
            return noise
        return np.asarray(x, np.float64) + (0.0 if given else 0.3) * noise

    return jax.tree.map(one, arguments)
