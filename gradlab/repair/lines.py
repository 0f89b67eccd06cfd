"""Edits of one line, held against the right gradients within the forward.

A line is right if its value is the gradient of something in the forward. Another line is edited and
evaluated alone, with the values that it read. If its value is a right gradient then, the whole
backward runs with the edit. One line takes a thirtieth of the time of such a run.
"""

import ast
import collections
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any

import jax
import numpy as np

from gradlab.common.arrays import NumPyArray as Array
from gradlab.repair import edits as kinds
from gradlab.repair.edits import Site
from gradlab.repair.pool import Scope
from gradlab.repair.source import Edit, Text
from gradlab.repair.watch import Watch, feeders
from gradlab.repair.within import Known, Within, equal, turned
from gradlab.tracing.leaves import is_inexact

Right = collections.Counter[tuple[CodeType, int]]  # how often a value of each statement is right
_Place = tuple[CodeType, int, int | None]
_ENTRIES = 128  # of a value on which it is seen how the line depends
_BEFORE = 3  # turns of a loop at which a line was right, where it must stay so


@dataclass(frozen=True)
class Line:
    """A line whose value is no gradient within the forward.

    Its value and its locals are those of the first time that this is so.

    Attributes:
        statement: its index in the text.
        part: which of several values the statement makes; None where it makes one.
        value: what it computes.
        given: the locals before it.
        sure: whether all that it reads is right.
    """

    code: CodeType
    text: Text
    statement: int
    part: int | None
    value: Array
    given: dict[str, Any]
    sure: bool
    _goal: Known
    _here: Scope
    _before: tuple[Scope, ...]

    def hit(self, edit: Edit) -> bytes:
        """Return the key of the right gradient that the edited line computes; b"" for none."""
        made = self._made(edit, self._here)
        if made is None or not self._is_goal(made):
            return b""
        for scope in self._before:
            before = self._made(edit, scope)
            if before is None or not self._goal.holds(before):
                return b""
        told: bytes = np.round(made / np.abs(made).max(), 6).tobytes()
        return told

    def with_value(self, site: Site, shape: tuple[int, ...]) -> "Hit | None":
        """Return what a place in the line may be given.

        None where it holds no number, or where the line is not linear in it.
        """
        value = self._here.floats(self.text.of(site.node), isinstance(site.node, ast.Constant))
        if value is None or math.prod(shape) > _ENTRIES:
            return None
        value = np.broadcast_to(value, shape)
        edit = kinds.moved(self.text, site)
        size = float(np.std(value)) + 1e-3 * float(np.max(np.abs(value), initial=1.0))
        delta = size * np.cos(1.0 + np.arange(value.size)).reshape(shape)
        here, one, two = (self._moved(edit, k * delta) for k in range(3))
        if here is None or one is None or two is None:
            return None
        bent = np.abs(two - 2 * one + here).max(initial=0.0)
        if not bent <= 1e-9 * np.abs(two - here).max(initial=0.0):
            return None
        units = size * np.eye(value.size).reshape(-1, *shape)
        rows = [self._moved(edit, unit) for unit in units]
        seen = [row for row in rows if row is not None]
        if len(seen) < len(rows):
            return None
        slope = np.array([float(np.vdot(self._mixed, row - here)) for row in seen]) / size
        return Hit(self, edit, value, float(np.vdot(self._mixed, here)), slope)

    def wanted(self, most: int) -> list[Array]:
        """Return the gradients of the line's shape, those that are most like its value first."""
        same = [each for each in self._goal.arrays if each.shape == self.value.shape]
        size = [abs(float(np.vdot(e, self.value))) / float(np.linalg.norm(e)) for e in same]
        return [same[k] for k in np.argsort(np.negative(size), kind="stable")[:most]]

    @functools.cached_property
    def goals(self) -> Array:
        """The sums, mixed of all entries, that the right gradients of the line's shape have."""
        shape = self.value.shape
        ways = (way for each in self._goal.arrays for way in turned(each, shape))
        return np.unique([float(np.vdot(self._mixed, way)) for way in ways])

    @functools.cached_property
    def _mixed(self) -> Array:
        return np.reshape(np.cos(1.0 + 2.0 * np.arange(self.value.size)), self.value.shape)

    def _moved(self, edit: Edit, by: Array) -> Array | None:
        """Return what the line computes with a value moved; None where it is of no such shape."""
        self._here.put(__moved__=by)
        return self._made(edit, self._here)

    def _made(self, edit: Edit, scope: Scope) -> Array | None:
        made = _made_by(self.text, self.statement, self.part, edit, scope)
        try:
            array = np.asarray(None if made is None else made[0])
        except ValueError:  # a ragged list
            return None
        if array.dtype.kind not in "fiub" or array.shape != self.value.shape:
            return None
        return np.asarray(array, float)

    def _is_goal(self, made: Array) -> bool:
        """Whether a value is a right gradient, and not what the line computes anyway."""
        return bool(made.any()) and self._goal.holds(made) and not equal(made, self.value)


@dataclass(frozen=True)
class Hit:
    """What a place in a line must be given for the line to compute some right gradient.

    Attributes:
        edit: moves the value at the place.
        value: the one there.
        mixed: the sum, mixed of all entries, of what the line computes.
        slope: how that sum changes with each entry of the value.
        exact: a value that would do, where one is known.
    """

    line: Line
    edit: Edit
    value: Array
    mixed: float
    slope: Array
    exact: Array | None = None

    def met(self, new: Any) -> bool:
        """Whether the line is right with a new value at the place."""
        try:
            array = np.broadcast_to(np.asarray(new, float), self.value.shape)
        except (TypeError, ValueError):
            return False
        if not self.close(array[None]).size:
            return False
        made = self.line._moved(self.edit, array - self.value)
        return made is not None and self.line._is_goal(made)

    def close(self, candidates: Array) -> Array:
        """Return which of many new values give a sum that a right gradient has."""
        goals = self.line.goals
        if not goals.size:
            return np.zeros(0, int)
        with np.errstate(all="ignore"):
            sums = self.mixed + (candidates - self.value).reshape(len(candidates), -1) @ self.slope
            above = np.searchsorted(goals, sums).clip(0, goals.size - 1)
            off = np.abs(goals[[above, (above - 1).clip(0)]] - sums).min(axis=0)
            return np.flatnonzero(off <= 1e-6 * (np.abs(sums) + 1e-3 * np.abs(goals).max()))


def suspects(
    watch: Watch,
    within: Within,
    expected: Sequence[Array],
    scope: Callable[[CodeType, dict[str, Any]], Scope],
) -> tuple[list[Line], Right]:
    """Return the lines whose values are no gradients within the forward; count the right values.

    Lines that read only right values come first. Otherwise they stand as they run.

    Args:
        watch: what the backward computed.
        within: the values within the forward, and the right gradients there.
        expected: the right gradients of the inputs.
        scope: makes a scope of a function's locals.
    """
    wholes = [g for g in (*(g for _, g in within.whole), *expected) if _has_numbers(g)]
    sums = list(filter(_has_numbers, within.sums))
    whole, share = Known([*within.values, *wholes]), Known(within.gradients)
    more, any_ = Known([*wholes, *sums]), Known([*within.gradients, *wholes])
    every = Known([*within.values, *any_.arrays, *_given(watch)])
    found: list[Line] = []
    right = Right()
    before: dict[_Place, list[Scope]] = {}
    done = set[_Place]()
    for e, event in enumerate(watch.events):
        place, text = watch.place(e), watch.texts[event.code]
        node = text.statements[event.statement]
        if not isinstance(node, ast.Assign | ast.AugAssign | ast.Return):
            continue
        apart = event.part is not None or not watch.target(event)
        parts = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
        if apart and all(part is None or kinds.is_variable(part) for part in parts):
            continue  # what is put together, taken apart or returned is computed elsewhere
        shared = share.holds(event.value)
        told = whole.holds(event.value) or (shared and isinstance(node, ast.AugAssign))
        right[event.code, event.statement] += told and not watch.repeats(e)
        if told and not watch.passes_on(e):
            if place not in done:
                before.setdefault(place, []).append(scope(event.code, event.scope))
        elif place not in done:
            done.add(place)
            sure = set(feeders(watch, e, every)) == {event.statement}
            here, first = scope(event.code, event.scope), (event.code, text, event.statement)
            scopes, goal = tuple(before.get(place, ())[:_BEFORE]), more if shared else any_
            line = Line(*first, event.part, event.value, event.scope, sure, goal, here, scopes)
            found.append(line)
    return sorted(found, key=lambda line: not line.sure), right


def _has_numbers(gradient: Array) -> bool:
    return is_inexact(gradient.dtype) and bool(np.any(gradient))  # of a key there is none


def _given(watch: Watch) -> list[Array]:
    """Return the arrays that the backward is given, as far as it has names for them."""
    entry = next(iter(watch.texts), None)
    first = next((event for event in watch.events if event.code is entry), None)
    leaves = jax.tree.leaves(list(first.scope.values())) if first is not None else []
    return [x for x in leaves if isinstance(x, np.ndarray) and x.dtype.kind == "f" and x.size > 1]


def _made_by(
    text: Text, statement: int, part: int | None, edit: Edit, scope: Scope
) -> list[Any] | None:
    """Return the value that a statement's part makes after an edit of it; None where none."""
    node = getattr(text.statements[statement], "value", None)
    assert isinstance(node, ast.expr)
    start, end = text.span(node)
    if not start <= edit.start <= edit.end <= end:
        return None
    before, after = text.segment[start : edit.start], text.segment[edit.end : end]
    made = scope.value((before + edit.new.encode() + after).decode())
    if made is None or part is None:
        return None if made is None else [made]
    parts = list(made.values()) if isinstance(made, dict) else made
    known = isinstance(parts, list | tuple) and part < len(parts)
    return [parts[part]] if known else None
