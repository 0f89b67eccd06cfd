"""The first wrong line of a long backward.

The gradient with respect to every value of the forward, and to every use of it, is known. Where a
line of the backward is given one of them in the place of what it computed, and more gradients are
right at the end, that line is wrong. The first one on the way back that is so is the mistake.
"""

import ast
import collections
import contextlib
import copy
import functools
import itertools
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any, Self

import jax
import numpy as np

from gradlab.common.arrays import NumPyArray as Array
from gradlab.common.arrays import Tree
from gradlab.formatting import count
from gradlab.repair.pool import Scope
from gradlab.repair.source import Edit, Text, inside, is_docstring
from gradlab.repair.standin import numbers
from gradlab.repair.world import Failed, Mark, World, copied, theirs
from gradlab.tracing import JAX, Arithmetic, Lifter, NumPy, Program, Value, run_lifted, trace
from gradlab.tracing.interpreter import Interpreter
from gradlab.tracing.jaxprs import body
from gradlab.tracing.leaves import is_inexact

_OUTERMOST = 1  # the number of the call that evaluates a program as a whole
_Variable = tuple[int, int]  # the turn of a loop, and what tells variables apart
_Healed = tuple[int, int, Array]  # how much more is right, how many gradients, with which value
_NAMESAKES = 2  # values of a forward's local that are tried
_LIKELY = 12  # right gradients that are tried in the place of a value
_BESIDE = 6  # and of those that belong beside the last right one
_NEAR = 1e-7
_MOST = 4096  # entries of a value that is tried
_AXES = 4  # of a value that is tried with its axes in other orders
_SHORT = 70  # characters of a line that is shown
_TURNS = 4  # values in loops, of which one turn may be the first wrong one
_PASSES = 12  # turns of a loop, at each of which a right value is put
_EVENTS = 2_000  # values that a backward computes
_LATE = 40  # values before one that is wrong at a later turn, of which those of its shape may be
_BACK = 8  # values before a wrong one that may be another's right gradient


@dataclass(frozen=True)
class WrongLine:
    """A line of the backward whose value is wrong.

    Attributes:
        text: of the function.
        line: in its file.
        statement: its index in the text.
        near: the statements that it is made from, whose values nothing confirms.
        part: which of several values the statement makes; None where it makes one.
        scope: the locals before it.
        needed: the right value.
        mended: how many more gradients are right with the right value there.
        named: the forward's local whose value the line should have; "" where it is a gradient.
        turn: of a loop, the first one at which the value is wrong, from 1; 0 where it always is.
    """

    code: CodeType
    text: Text
    line: int
    statement: int
    near: frozenset[int]
    part: int | None
    scope: dict[str, Any]
    needed: Array
    mended: int
    named: str = ""
    turn: int = 0

    @property
    def whole(self) -> bool:
        """Whether all that the line reads is right."""
        return self.near == {self.statement} and not self.turn

    @property
    def place(self) -> str:
        """The line as `layers.py:12`."""
        return f"{os.path.basename(self.text.path)}:{self.line}"

    @property
    def told(self) -> str:
        """What was seen, in one sentence."""
        more, are = count(self.mended, "more gradient"), "is" if self.mended == 1 else "are"
        seen = f"with the right value there, {more} {are} right"
        if not self.mended:
            seen = "with the right value there, more of what follows is right"
        if self.named:
            told = f"`{self.named}` at {self.place} is not what it is in the forward: "
            return told + f"with that value, {more} {are} right"
        if self.turn:
            node = self.text.statements[self.statement]
            name = next((f"`{n}`" for n in _names(node, ast.Store)), "the value")
            told = f"{name} at {self.place} is right at turn {self.turn - 1} of the loop and wrong "
            return (
                f"{told}at turn {self.turn}: it lacks something, or what it reads was not updated"
            )
        if not self.whole:
            places = (self.text.span(self.text.statements[k])[0] for k in self.near)
            lines = sorted({self.text.line_of(start) for start in places} - {self.line})
            return (
                f"the mistake is at {self.place} or at line {' or '.join(map(str, lines))}: {seen}"
            )
        told = f"{self.place} is the first wrong line: {seen}"
        node = self.text.statements[self.statement]
        if isinstance(node, ast.Return) and self.part is None:
            return told
        written = " ".join(self.text.of(node).split())
        return f"{told}: `{written}`" if len(written) <= _SHORT else told


def made_by(
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


@dataclass(frozen=True)
class Within:
    """What is computed within a forward: the values, and the right gradients there.

    `whole` has each value with its gradient, `parts` each with the share of one of its uses, `sums`
    the sums of some shares of a value: a loop adds the others elsewhere. `gradients` has all these.
    """

    values: list[Array]
    gradients: list[Array]
    whole: list[tuple[Array, Array]]
    parts: list[tuple[Array, Array]]
    sums: list[Array]


@dataclass(frozen=True)
class Event:
    """A value that the backward computed: where, and what."""

    code: CodeType
    statement: int
    line: int
    part: int | None
    value: Array
    scope: dict[str, Any]


def first_wrong_line(
    world: World,
    texts: dict[CodeType, Text],
    run: Callable[[], list[Any]],
    right: Callable[[list[Any]], Sequence[bool]],
    known: Within,
    expected: Sequence[Array],
    named: Mapping[str, Sequence[Array]] | None = None,
    *,
    most: int,
) -> WrongLine | None:
    """Return the first line whose value is wrong; None where that cannot be told.

    Args:
        world: in which the backward runs.
        texts: of the functions that run in it.
        run: gives the gradients.
        right: says which gradients are right.
        known: what is computed within the forward, and the right gradients there.
        expected: the right gradients.
        named: the forward's locals, where those of the backward are held against them.
        most: how often the backward may run.
    """
    watch = Watch(world, texts, run, most)
    try:
        with watch:
            if line := _unlike(watch, right, named or {}):
                return line
            sure = Known([*known.values, *known.gradients])
            found = _First(watch, right, known.gradients, sure, expected).found()
            # a share of a gradient may lack the other shares
            totals = Known([*known.values, *(g for _, g in known.whole), *expected])
    except Failed:
        return None
    if found is None:
        return None
    event, (_, mended, needed), again = watch.events[found[0]], *found[1:]
    near, turn = set(feeders(watch, found[0], totals)), watch.wrong_turn(found[0], sure)
    if watch.is_given_wrong(found[0], near, totals):
        return None
    if mended and again:  # what runs once made one turn wrong, not the others
        every = range(len(watch.events))
        looped = {watch.place(k)[1] for k in every if watch.is_looped(k)}
        near = {event.statement, *(near & looped)}
    place = (event.code, texts[event.code], event.line, event.statement, frozenset(near))
    return WrongLine(*place, event.part, event.scope, needed, mended, turn=turn)


def _unlike(
    watch: "Watch",
    right: Callable[[list[Any]], Sequence[bool]],
    named: Mapping[str, Sequence[Array]],
) -> WrongLine | None:
    """Return the line of a local that should be as the forward's one of its name, and is not."""
    before = right(watch.came)
    for e, event in enumerate(watch.events):
        text, name = watch.texts[event.code], watch.target(event)
        values = [v for v in named.get(name, ()) if v.shape == event.value.shape]
        if any(equal(v, event.value) for v in values):
            continue
        for value in values[:_NAMESAKES]:
            now = right(watch.tried({e: value}))
            more = sum(now) - sum(before)
            if more > 0 and all(is_ or not was for was, is_ in zip(before, now)):
                near = frozenset((event.statement,))
                place = (event.code, text, event.line, event.statement, near)
                return WrongLine(*place, event.part, event.scope, value, more, name)
    return None


class _First:
    """Finds the first event whose value is wrong, among those that the backward computed."""

    def __init__(
        self,
        watch: "Watch",
        right: Callable[[list[Any]], Sequence[bool]],
        known: Sequence[Array],
        sure: "Known",
        expected: Sequence[Array],
    ) -> None:
        self._watch, self._right, self._sure, self._expected = watch, right, sure, expected
        self._before = right(watch.came)
        self._wrong = {i for i, ok in enumerate(self._before) if not ok}
        self._values = [event.value for event in watch.events]
        self._matched = [sure.holds(value) for value in self._values]
        computed = Known(self._values)
        self._lacking = [(k, each) for k, each in enumerate(known) if not computed.holds(each)]
        own, beside = Known(known), 0
        self._beside = [beside := own.find(value, beside) for value in self._values]
        self._entries = self._right_entries(watch.came)
        turns = (e for e, ok in enumerate(self._matched) if not ok and watch.is_looped(e))
        self._turns = set(itertools.islice(turns, _TURNS))

    def found(self) -> tuple[int, _Healed, bool] | None:
        """Return the number of the first wrong event, and what its right value does.

        The last one says whether right values were put at each turn of a loop.
        """
        every, values, matched = range(len(self._values)), self._values, self._matched
        reach = {e: self._reached(e) for e in every if not matched[e]}
        again = [e for e in every if self._watch.passes_on(e)]
        for whole in (True, False):
            for e in again if not whole else ():  # passed on, where something was to be done
                if (mended := self._healed(e))[0]:
                    return e, mended, False
            for e in every:
                reaches = not matched[e] and (
                    reach[e] >= self._wrong if whole else reach[e] & self._wrong
                )
                mended = self._healed(e) if reaches else (0, 0, values[e])
                if not mended[0]:
                    continue
                late, shape, since = self._watch.turn(e), values[e].shape, e
                before = range(e - 1, max(-1, e - 1 - (_LATE if late else _BACK)), -1)
                # what a later turn is given was made in the turn before
                for earlier in (k for k in before if not late or values[k].shape == shape):
                    same = equal(values[earlier], values[e])  # the later one only passes it on
                    same &= self._watch.events[e].part is None  # but for what a helper returned
                    nothing = same or not values[earlier].any()
                    self._turns |= set() if mended[1] else {earlier}
                    also = matched[earlier] and not nothing and self._healed(earlier, since)
                    passed = equal(values[earlier], values[e])
                    if also and also[0] >= mended[0] + (not passed):
                        e, mended = earlier, also
                turns = not mended[1]
                return e, self._at_each_turn(e, mended) if turns else mended, turns
        for e in every:  # each value is some right gradient, but one stands in another's place
            if matched[e] and np.any(values[e]) and (mended := self._healed(e))[0]:
                return e, mended, False
        return None

    def _healed(self, e: int, since: int = -1) -> _Healed:
        """Return what the likeliest right value at an event makes right, and that value.

        In a loop, the other turns stay wrong: there it is enough if more of what follows is right,
        `since` another event.
        """
        most: _Healed = (0, 0, self._values[e])
        looped = self._watch.is_looped(e) and e in self._turns
        for each in self._candidates(e, self._values[e]):
            came = self._watch.tried({e: each}, looped)
            now = self._right(came)
            if any(was and not is_ for was, is_ in zip(self._before, now)):
                continue
            more = sum(now) - sum(self._before)
            score = more + (self._follows(max(e, since), came) if looped else 0)
            most = (score, more, each) if score > most[0] else most
            if more == len(self._wrong):
                break
        return most

    def _candidates(self, e: int, value: Array) -> list[Array]:
        """Return what could stand for a value, in its shape: as it is, then with its axes turned.

        First what is most like it; then what belongs beside the right gradient that came last.
        """

        def likeness(each: Array) -> float:
            return -abs(float(np.vdot(each, value))) / float(np.linalg.norm(each))

        ways = [(k, list(turned(each, value.shape))) for k, each in self._lacking]
        plain = [(k, each[0]) for k, each in ways if each]
        others = sorted((way for _, each in ways for way in each[1:]), key=likeness)
        beside = sorted(plain, key=lambda pair: abs(pair[0] - self._beside[e]))[:_BESIDE]
        best = sorted(plain, key=lambda pair: likeness(pair[1]))[:_LIKELY]
        return [*dict([*best, *beside]).values(), *others[: _LIKELY // 3]]

    def _at_each_turn(self, e: int, first: _Healed) -> _Healed:
        """Return what is right with right values at this turn of a loop and at all that follow."""
        watch, put = self._watch, {e: first[2]}
        turns = [k for k in range(e + 1, len(self._values)) if watch.place(k) == watch.place(e)]
        for k in turns if len(turns) < _PASSES else ():
            most, best = -1, None
            for each in [None, *self._candidates(k, watch.values_with(put)[k])]:
                values = watch.values_with(put if each is None else put | {k: each})
                more = sum(map(self._sure.holds, values[k + 1 :]))
                most, best = (more, each) if more > most else (most, best)
            put |= {k: best} if best is not None else {}
        now = self._right(watch.tried(put))
        lost = any(was and not is_ for was, is_ in zip(self._before, now))
        return first[0], 0 if lost else sum(now) - sum(self._before), first[2]

    def _follows(self, e: int, came: Sequence[Any]) -> int:
        """Return how much more is right after an event, where nothing right becomes wrong."""
        there = self._watch.noted
        if len(there) != len(self._values):
            return 0
        now = [self._sure.holds(value) for value in there[e + 1 :]]
        if any(was and not is_ for was, is_ in zip(self._matched[e + 1 :], now)):
            return 0
        entries = zip(self._entries, self._right_entries(came))
        more = sum(now) - sum(self._matched[e + 1 :])
        return more + sum(int(after.sum() > was.sum()) for was, after in entries)

    def _right_entries(self, came: Sequence[Any]) -> list[Array]:
        pairs = zip(came, self._expected)
        return [
            np.abs(c - e) <= _NEAR * np.abs(e) if np.shape(c) == np.shape(e) else np.zeros(1)
            for c, e in pairs
        ]

    def _reached(self, e: int) -> set[int]:
        value = self._values[e]
        moved = value + np.cos(1.0 + np.arange(value.size)).reshape(value.shape) * np.std(value)
        came = self._watch.tried({e: moved})
        return {i for i, (a, b) in enumerate(zip(came, self._watch.came)) if not equal(a, b)}


def feeders(watch: "Watch", e: int, sure: "Known") -> Iterator[int]:
    """Yield the statements that feed a wrong event with values that nothing confirms."""
    code, events = watch.events[e].code, watch.events
    statements = watch.texts[code].statements
    parts = {name: k for k, node in enumerate(statements) for name in _written_in_parts(node)}
    inner = {
        f.name: [
            k for k, node in enumerate(statements) if node in set(ast.walk(f)) and node is not f
        ]
        for f in statements
        if isinstance(f, ast.FunctionDef)
    }
    found, todo = {events[e].statement}, [e]
    while todo:
        last = todo.pop()
        for name in _names(statements[events[last].statement], ast.Load):
            found.update(inner.get(name, ()))  # what it makes may be wrong there
            if name in parts and not isinstance(statements[events[last].statement], ast.AugAssign):
                found.add(parts[name])
            made = [
                k
                for k in range(last)
                if events[k].code is code
                and name in _names(statements[events[k].statement], ast.Store)
            ]
            alone = events[last].scope.get(name)  # a number is no event
            number = isinstance(alone, np.ndarray | np.generic | float) and np.size(alone) == 1
            number = number and np.asarray(alone).dtype.kind in "fiub"
            if number and not made and not sure.holds(np.asarray(alone, float)):
                found.update(
                    k for k, node in enumerate(statements) if name in _names(node, ast.Store)
                )
            for k in made[-1:]:
                if not sure.holds(events[k].value, shaped=True):
                    todo += [k] if events[k].statement not in found else []
                    found.add(events[k].statement)
    yield from found


def _written_in_parts(node: ast.stmt) -> Iterator[str]:
    """Yield the names of what a statement changes without naming it anew."""
    target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
    base = target.value if isinstance(target, ast.Subscript) else None
    call = node.value if isinstance(node, ast.Expr) else None
    if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
        inner = isinstance(call.func.value, ast.Attribute)  # `np.add.at(array, ...)`
        base = next(iter(call.args), None) if inner else call.func.value
    if isinstance(base, ast.Name):
        yield base.id


@functools.lru_cache(maxsize=1 << 10)
def _names(node: ast.AST, context: type[ast.expr_context]) -> tuple[str, ...]:
    every = (each for each in ast.walk(node) if isinstance(each, ast.Name))
    return tuple(each.id for each in every if isinstance(each.ctx, context))


class Watch:
    """Runs the backward with other values in place of those that its lines computed."""

    def __init__(
        self, world: World, texts: dict[CodeType, Text], run: Callable[[], list[Any]], most: int = 1
    ) -> None:
        self.world, self.texts, self._run, self._most = world, texts, run, most
        self.events: list[Event] = []
        self.came: list[Any] = []
        self._places: list[tuple[CodeType, int, int]] = []
        self._put: dict[int, Array] = {}
        self._count = self._runs = 0
        self.noted: list[Array] = []
        self._noting = False
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with self._stack:  # where an edited text fails, the functions are as they were
            for code, text in self.texts.items():
                mark: Mark = functools.partial(self._mark, code, text)
                self._stack.enter_context(self.world.exchanged(code, text, mark))
                for each in self.world.copies[code]:
                    each.__globals__["__at__"] = self._at
            self.came = self._run()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def passes_on(self, e: int) -> bool:
        """Whether an assignment of one value makes what its function had before."""
        event = self.events[e]
        node = self.texts[event.code].statements[event.statement]
        return isinstance(node, ast.Assign) and event.part is None and self.repeats(e)

    def repeats(self, e: int) -> bool:
        """Whether a value is one that its function made shortly before."""
        code, value = self.events[e].code, self.events[e].value
        before = (each for each in self.events[max(0, e - _BACK) : e] if each.code is code)
        return any(equal(value, other.value) for other in before)

    def target(self, event: Event) -> str:
        """Return the name that a value is assigned to; "" where it gets none."""
        node = self.texts[event.code].statements[event.statement]
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        if isinstance(target, ast.Tuple) and event.part is not None:
            target = target.elts[event.part] if event.part < len(target.elts) else None
        return target.id if isinstance(target, ast.Name) else ""

    def is_looped(self, e: int) -> bool:
        """Whether the place of an event is passed several times."""
        return self._times[self.place(e)] > 1

    def place(self, e: int) -> tuple[CodeType, int, int | None]:
        """Return the place of an event: function, statement, part."""
        return self.events[e].code, self.events[e].statement, self.events[e].part

    @functools.cached_property
    def _times(self) -> collections.Counter[Any]:
        return collections.Counter(map(self.place, range(len(self.events))))

    def tried(self, put: dict[int, Array], noting: bool = False) -> list[Any]:
        """Return the gradients with other values at some events; note all values if asked."""
        self.noted, self._noting = [], noting
        self._runs += 1
        if self._runs > self._most:
            raise Failed("the first wrong line takes too long")
        self._put, self._count = put, 0
        return self._run()

    def turn(self, e: int) -> int:
        """Return at which turn of a loop an event is, from 1; 0 where it is the first one."""
        before = sum(self.place(k) == self.place(e) for k in range(e))
        return before + 1 if before else 0

    def wrong_turn(self, e: int, sure: "Known") -> int:
        """Return the first turn at which the value of an event's place is wrong, as `turn` does."""
        every = (k for k in range(e + 1) if self.place(k) == self.place(e))
        return self.turn(next((k for k in every if not sure.holds(self.events[k].value)), e))

    def is_given_wrong(self, e: int, near: set[int], sure: "Known") -> bool:
        """Whether a helper may have been given what is wrong: a parameter that nothing confirms."""
        event, statements = self.events[e], self.texts[self.events[e].code].statements
        made = {name for node in statements for name in _names(node, ast.Store)}
        read = {name for k in near for name in _names(statements[k], ast.Load)} - made
        given = (event.scope.get(name) for name in read & set(event.code.co_varnames))
        arrays = (v for v in given if isinstance(v, np.ndarray) and v.dtype.kind == "f")
        entry = event.code is next(iter(self.texts))
        return not entry and not all(sure.holds(v) for v in arrays if v.size > 1)

    def values_with(self, put: dict[int, Array]) -> list[Array]:
        """Return what all events make with other values at some; as it is where others run."""
        self.tried(put, True)
        same = len(self.noted) == len(self.events)
        return self.noted if same else [event.value for event in self.events]

    def _at(self, place: int, part: int | None, scope: dict[str, Any], value: Tree) -> Any:
        """Note a value, or give the one that stands in its place."""
        if isinstance(value, tuple | list) and type(value) in (tuple, list):
            each = (self._at(place, k, scope, v) for k, v in enumerate(value))
            return type(value)(each)
        if (
            not isinstance(value, np.ndarray)
            or not 1 < value.size <= _MOST
            or value.dtype.kind != "f"
        ):
            return value
        number, self._count = self._count, self._count + 1
        if self._noting:
            self.noted.append(value.copy())
        if not self._runs:
            if number >= _EVENTS:
                raise Failed("the first wrong line takes too long")
            here = copied(scope, {})
            self.events.append(Event(*self._places[place], part, value.copy(), here))
        other = self._put.get(number)
        return value if other is None else numbers(other.reshape(value.shape).copy())

    def _mark(self, code: CodeType, text: Text, tree: ast.FunctionDef) -> None:
        """Let every value that a function assigns or returns pass through `__at__`."""
        statements = [node for node in inside(tree.body) if not is_docstring(node)]
        for index, node in enumerate(statements):
            if isinstance(node, ast.Assign | ast.AugAssign | ast.Return) and node.value is not None:
                node.value = self._passed(node.value, None, code, text, index)
            elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                last = node.value.args[-1:]  # what is put into a list, or added at places
                node.value.args[-1:] = [self._passed(x, None, code, text, index) for x in last]

    def _passed(
        self, node: ast.expr, part: int | None, code: CodeType, text: Text, index: int
    ) -> ast.expr:
        parts = getattr(node, "values" if isinstance(node, ast.Dict) else "elts", None)
        if parts is not None and isinstance(node, ast.Tuple | ast.List | ast.Dict):
            parts[:] = [self._passed(x, k, code, text, index) for k, x in enumerate(parts)]
            return node
        self._places.append((code, index, text.line + node.lineno - 2))
        given: list[ast.expr] = [
            ast.Constant(len(self._places) - 1),
            ast.Constant(part),
            ast.Call(ast.Name("locals", ast.Load()), [], []),
            node,
        ]
        return ast.copy_location(ast.Call(ast.Name("__at__", ast.Load()), given, []), node)


class Known:
    """Some arrays, and their norms, by which one of them is found."""

    def __init__(self, arrays: Sequence[Array]) -> None:
        self.arrays = arrays
        self.norms = np.array([np.linalg.norm(each) for each in arrays])

    def holds(self, value: Array, turns: bool = True, shaped: bool = False) -> bool:
        """Whether a value is one of these, or, if it `turns`, one with its axes in other orders.

        With `shaped` it may not be reshaped, but for axes of length 1: that may be a mistake.
        """
        return self.find(value, -1, turns, shaped) >= 0 or not value.any()

    def find(
        self, value: Array, default: int = -1, turns: bool = True, shaped: bool = False
    ) -> int:
        """Return the number of the array that a value is, or the default."""
        size, last = float(np.linalg.norm(value)), None if turns else 1
        for k in np.flatnonzero(np.abs(self.norms - size) <= _NEAR * size).tolist():
            same = not shaped or _lengths(self.arrays[k]) == _lengths(value)
            ways = itertools.islice(turned(self.arrays[k], value.shape), not same, last)
            if any(equal(way, value) for way in ways):
                return int(k)
        return default


def turned(array: Array, shape: tuple[int, ...]) -> Iterator[Array]:
    """Yield an array reshaped, and with its axes in each other order that gives this shape."""
    if array.size == math.prod(shape):
        yield array.reshape(shape)
    if 2 <= array.ndim <= _AXES and sorted(array.shape) == sorted(shape):
        for order in itertools.islice(itertools.permutations(range(array.ndim)), 1, None):
            if tuple(array.shape[axis] for axis in order) == shape:
                yield array.transpose(order)


def _lengths(array: Array) -> list[int]:
    return [n for n in array.shape if n > 1]


def equal(one: Any, other: Any) -> bool:
    """Whether two arrays are the same up to rounding."""
    if one is None or other is None or np.shape(one) != np.shape(other):
        return one is other
    one, other = np.asarray(one), np.asarray(other)
    if jax.dtypes.float0 in (one.dtype, other.dtype):  # the tangent of a whole number
        return bool(one.dtype == other.dtype)
    size = np.abs(one)
    return bool((np.abs(one - other) <= _NEAR * (size + size.max(initial=0.0))).all())


def gradients_within(
    program: Program, inputs: Sequence[Tree], more: Sequence[Any], forward: bool
) -> Within:
    """Return each value of a program, and the gradients with respect to it and to each use of it.

    Args:
        program: the forward.
        inputs: its flat inputs.
        more: one upstream for each inexact output; one tangent for each inexact input.
        forward: whether tangents are wanted, in the place of gradients.
    """
    names = [f"array {k}" for k in range(len(inputs) + len(more))]
    wide = list(map(_value, inputs))

    def outputs(arrays: Sequence[Any], moves: Any) -> tuple[list[Any], list[Any]]:
        lifter = _Moved(JAX, moves, counter.alone)
        given = [Value(a, v.depends) for a, v in zip(arrays, wide)]
        results = [lifter.wide(v) for v in lifter(program.jaxpr, given)]
        return [r for r in results if is_inexact(r.dtype)], lifter.arrays

    def derived(*arrays: Any) -> Any:
        given, rest = list(arrays[: len(wide)]), list(arrays[len(wide) :])
        moving = [k for k, v in enumerate(wide) if v.depends]
        if not forward:
            return jax.vjp(lambda moves: outputs(given, moves)[0], zeros)[1](rest)[0]

        def values(*some: Any) -> list[Tree]:
            full = dict(enumerate(given)) | dict(zip(moving, some))
            return outputs(list(full.values()), None)[1]

        return jax.jvp(values, [given[k] for k in moving], rest)[1]

    with jax.enable_x64(True):
        counter = _Moved(NumPy(), None)
        theirs(counter, program.jaxpr, wide)
        kept = [k for k in range(len(counter.arrays)) if k not in counter.alone]
        zeros = [np.zeros(np.shape(counter.arrays[k])) for k in kept]
        traced = theirs(functools.partial(trace, names=names), derived, *inputs, *more)
        found = theirs(run_lifted, traced.jaxpr, [*inputs, *more])
    if len(found) != len(kept):  # a loop runs as often as its values say
        return Within(_distinct(counter.arrays), _distinct(found), [], [], [])
    at, numbers_ = dict(zip(kept, found)), {k: n for n, k in enumerate(kept)}
    at |= {use: at[made] for use, made in counter.alone.items()}
    parts = [(counter.arrays[k], at[k]) for uses in counter.uses.values() for k in uses]
    whole = [(counter.arrays[k], at[k]) for k in counter.made]
    inputs_ = (uses for ((turn, _), _), uses in counter.uses.items() if turn == _OUTERMOST)
    moved = ([uses[0]] if forward else uses for uses in inputs_)  # a call may read a part alone
    whole += [(counter.arrays[uses[0]], sum(at[k] for k in uses)) for uses in moved]
    added = []
    # a function that is called uses a value several times
    for uses in counter.uses.values() if not forward else ():
        for order in (uses, uses[::-1]) if len(uses) > 1 else ():
            sums = itertools.accumulate((at[k] for k in order), np.add)
            added += [(numbers_.get(uses[0], 0), each) for each in sums][1:]
    placed = sorted([*enumerate(found), *added], key=lambda pair: pair[0])
    gradients = _distinct([g for _, g in placed])
    return Within(_distinct(counter.arrays), gradients, whole, parts, [g for _, g in added])


def _distinct(arrays: Sequence[Array]) -> list[Array]:
    kept: dict[tuple[tuple[int, ...], float], list[Array]] = {}
    for each in arrays:
        size = float(np.linalg.norm(each))
        near = kept.setdefault((each.shape, float(f"{size:.5g}")), [])
        if size and not any(equal(each, other) for other in near):
            near.append(each)
    return [each for near in kept.values() for each in near]


def _value(array: Any) -> Value:
    return Value(np.asarray(array), is_inexact(np.asarray(array).dtype))


class _Moved(Lifter):
    """Lifts, and adds a move to every value and to every use of it.

    Args:
        arithmetic: in which it lifts.
        moves: what is added; None where values are only noted.
        without: the numbers of the moves that are none.
    """

    def __init__(
        self,
        arithmetic: Arithmetic,
        moves: Sequence[Any] | None,
        without: Mapping[int, int] | None = None,
    ) -> None:
        super().__init__(arithmetic)
        self._moves, self._without = moves, without or {}
        self._numbers, self._turns, self._turn = itertools.count(), itertools.count(_OUTERMOST), 0
        self._in_a_loop = False
        self.arrays: list[Any] = []
        self.made: list[int] = []  # the moves of what equations make
        self._makers: dict[_Variable, int] = {}
        self._held: list[Any] = []  # no other variable gets the number of one that is gone
        self.uses: dict[tuple[_Variable, tuple[int, ...]], list[int]] = {}  # the moves of each

    @property
    def alone(self) -> dict[int, int]:
        """The moves of values that one equation reads, with those of the values themselves."""
        once = ((uses[0], key[0]) for key, uses in self.uses.items() if len(uses) == 1)
        return {use: self._makers[made] for use, made in once if made in self._makers}

    def enter(self, turn: Any = None) -> Self:
        inner = copy.copy(self)
        inner._in_a_loop = True
        return inner

    def scan(self, equation: Any, inputs: list[Value]) -> list[Value]:
        """Run a `scan` turn after turn, in JAX too: each turn has gradients of its own."""
        return Interpreter.scan(self, equation, inputs)

    def stack(self, rows: list[Value], variable: Any) -> Value:
        """Return the rows of a `scan` as one value."""
        if not (rows and self.staged):
            return super().stack(rows, variable)
        return rows[0]._replace(array=jax.numpy.stack([row.array for row in rows]))

    def __call__(self, jaxpr: Any, arguments: Sequence[Value]) -> list[Value]:
        """Evaluate a jaxpr, whose variables have other values at each call and in each turn.

        What a loop gives to a turn, and takes from it, is moved too.
        """
        inner = copy.copy(self)
        inner._turn, inner._in_a_loop = next(self._turns), False
        if not self._in_a_loop:
            return Lifter.__call__(inner, jaxpr, arguments)
        self._held.append(jaxpr)
        parts = body(jaxpr)
        given = [inner._made(v, x) for v, x in zip(parts.invars, arguments)]
        made = Lifter.__call__(inner, jaxpr, given)
        return [inner._used(v, x) for v, x in zip(parts.outvars, made)]

    def _made(self, variable: Any, value: Value) -> Value:
        if not (value.depends and is_inexact(value.array.dtype)):
            return value
        array = self._plus(value.array, self.made)
        self._makers[self._turn, id(variable)] = self.made[-1]
        return Value(array, True)

    def _used(self, variable: Any, value: Value) -> Value:
        if not (value.depends and is_inexact(value.array.dtype)):
            return value
        uses = self.uses.setdefault(((self._turn, id(variable)), np.shape(value.array)), [])
        return Value(self._plus(value.array, uses), True)

    def before(self, equation: Any, arrays: list[Any]) -> list[Any]:
        self._held.append(equation)
        return [
            self._plus(array, self.uses.setdefault(((self._turn, id(atom)), np.shape(array)), []))
            if is_inexact(array.dtype)
            else array
            for atom, array in zip(equation.invars, arrays)
        ]

    def after(self, equation: Any, inputs: Any, arrays: list[Any], outputs: list[Any]) -> list[Any]:
        moved = []
        for variable, array in zip(equation.outvars, outputs):
            if is_inexact(array.dtype):
                array = self._plus(array, self.made)
                self._makers[self._turn, id(variable)] = self.made[-1]
            moved.append(array)
        return moved

    def _plus(self, array: Any, moves: list[int]) -> Any:
        """Return an array with its move, whose number is noted."""
        moves.append(number := next(self._numbers))
        if number in self._without:
            return array
        self.arrays.append(array)
        return array if self._moves is None else array + self._moves[len(self.arrays) - 1]
