"""What the lines of a backward compute, each time that they run."""

import ast
import contextlib
import functools
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from types import CodeType
from typing import Any, Self

import numpy as np

from gradlab.common.arrays import NumPyArray as Array
from gradlab.common.arrays import Tree
from gradlab.repair.source import Text, inside, is_docstring
from gradlab.repair.standin import numbers
from gradlab.repair.within import Known, equal
from gradlab.repair.world import Failed, Mark, World, copied

_MOST = 4096  # entries of a value that is seen
_EVENTS = 2_000  # values that a backward computes
_BACK = 30  # values before another one that may be the same


@dataclass(frozen=True)
class Event:
    """A value that the backward computed: where, and what."""

    code: CodeType
    statement: int
    line: int
    part: int | None
    value: Array
    scope: dict[str, Any]


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
        if not isinstance(node, ast.Assign) or event.part is not None:
            return False
        return isinstance(node.value, ast.Name) or self.repeats(e)

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

    def place(self, e: int) -> tuple[CodeType, int, int | None]:
        """Return the place of an event: function, statement, part."""
        return self.events[e].code, self.events[e].statement, self.events[e].part

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

    def is_given_wrong(self, e: int, near: Collection[int], sure: Known) -> bool:
        """Whether a helper may have been given what is wrong: a parameter that nothing confirms."""
        event, statements = self.events[e], self.texts[self.events[e].code].statements
        made = {name for node in statements for name in names_in(node, ast.Store)}
        read = {name for k in near for name in names_in(statements[k], ast.Load)} - made
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


def feeders(watch: Watch, e: int, sure: Known) -> Iterator[int]:
    """Yield the statements that feed a wrong event with values that nothing confirms."""
    code, events = watch.events[e].code, watch.events
    statements = watch.texts[code].statements
    parts, inner = _parts(watch.texts[code]), _inner(watch.texts[code])
    found, todo = {events[e].statement}, [e]
    while todo:
        last = todo.pop()
        for name in names_in(statements[events[last].statement], ast.Load):
            found.update(inner.get(name, ()))  # what it makes may be wrong there
            if name in parts and not isinstance(statements[events[last].statement], ast.AugAssign):
                found.add(parts[name])
            made = [
                k
                for k in range(last)
                if events[k].code is code
                and name in names_in(statements[events[k].statement], ast.Store)
            ]
            alone = events[last].scope.get(name)  # a number is no event
            number = isinstance(alone, np.ndarray | np.generic | float) and np.size(alone) == 1
            number = number and np.asarray(alone).dtype.kind in "fiub"
            if number and not made and not sure.holds(np.asarray(alone, float)):
                found.update(
                    k for k, node in enumerate(statements) if name in names_in(node, ast.Store)
                )
            for k in made[-1:]:
                if not sure.holds(events[k].value, shaped=True):
                    todo += [k] if events[k].statement not in found else []
                    found.add(events[k].statement)
    yield from found


@functools.lru_cache(maxsize=64)
def _parts(text: Text) -> dict[str, int]:
    """Return the statements that change what has a name, without naming it anew."""
    return {name: k for k, node in enumerate(text.statements) for name in _written_in_parts(node)}


@functools.lru_cache(maxsize=64)
def _inner(text: Text) -> dict[str, list[int]]:
    """Return the statements in each function within a function."""
    found = {}
    for function in text.statements:
        if isinstance(function, ast.FunctionDef):
            within = {id(node) for node in ast.walk(function)} - {id(function)}
            found[function.name] = [k for k, n in enumerate(text.statements) if id(n) in within]
    return found


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
def names_in(node: ast.AST, context: type[ast.expr_context]) -> tuple[str, ...]:
    """Return the names that a statement reads or writes."""
    every = (each for each in ast.walk(node) if isinstance(each, ast.Name))
    return tuple(each.id for each in every if isinstance(each.ctx, context))
