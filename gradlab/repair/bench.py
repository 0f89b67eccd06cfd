"""One draft of a function, run up to each statement once, from where candidates go on."""

import ast
import functools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from types import CodeType
from typing import Any

import numpy as np

from gradlab.common.arrays import Array
from gradlab.repair.edits import Site, is_number, is_stored, sites, tokens
from gradlab.repair.pool import Scope, Words, spoken
from gradlab.repair.source import Edit, Text, edited
from gradlab.repair.world import Failed, Mark, World, copied, counted, place, theirs, watched

Run = Callable[[int], list[Any]]
_COUNTED = re.compile(rb"\b(for|while|def)\b")
_TIMES, _ROOM = 10, 1 << 20  # how much more memory an edit may take, and bytes that it may anyway


class Bench:
    """Runs edits of one text.

    Args:
        world: the copies of the user's functions.
        code: the original code of the function that the text belongs to.
        text: the draft.
        run: evaluates the gradients at the k-th point; raises `Failed` where the user's code does.
        reads: reads the gradients out of what the entry returns; None where this is no entry.
        points: how many points there are.
        texts: of the user's functions, from whose words edits are made.
        upstream: the parameter that takes the upstream; "" where none does.
    """

    def __init__(
        self,
        world: World,
        code: CodeType,
        text: Text,
        run: Run,
        reads: Callable[[Any], Sequence[Any]] | None,
        points: int,
        texts: Sequence[Text],
        upstream: str,
    ) -> None:
        self.world, self.code, self.text, self._run, self.reads = world, code, text, run, reads
        self.copy = world.copies[code][0]
        self._rest: dict[int, CodeType | None] = {}
        self._last: tuple[bytes, CodeType | None] = b"", None
        self._scopes: dict[int, Scope | None] = {}
        self.kept: list[dict[int, dict[str, Any]]] = []
        self.visits: Counter[int] = Counter()
        for k in range(points):
            self.kept.append(self.watched(k))
        held = {n: v for scope in self.kept[0].values() for n, v in scope.items()}
        for name, value in world.around(code).items():
            self.copy.__globals__.setdefault(name, value)
        self._held, self._texts, self._upstream = held, texts, upstream
        sizes = (_bytes(scope) for scope in self.kept[0].values())
        self._memory = _TIMES * max(sizes, default=0) + _bytes(self.copy.__globals__) + _ROOM

    @functools.cached_property
    def words(self) -> Words:
        """What the user's functions write."""
        held, copy = self._held, self.copy
        helpers = self.world.helpers(copy, self.text, set(held))
        return spoken(self.text, self._texts, copy.__globals__ | held, helpers, self._upstream)

    @functools.cached_property
    def tokens(self) -> list[Edit]:
        """The edits that need no values."""
        return list(tokens(self.text, self.words.aliases, self.words.held))

    def watched(self, k: int) -> dict[int, dict[str, Any]]:
        """Run at the k-th point; return the locals before each statement, where it ran last."""
        found: dict[int, dict[str, Any]] = {}
        visits: Counter[int] = Counter()

        def keep(index: int, scope: dict[str, Any]) -> None:
            found[index] = copied(scope, {})
            visits[index] += 1

        for copy in self.world.copies[self.code]:
            copy.__globals__["__keep__"] = keep
        self.whole(self.text, k, watched)
        self.visits = visits.copy()  # others of the module are watched later, and keep there too
        return found.copy()

    def whole(self, text: Text, k: int, mark: Mark | None = None) -> list[Any] | None:
        """Return the gradients at the k-th point, everything run; None where something raises."""
        try:
            with self.world.exchanged(self.code, text, mark):
                return self._run(k)
        except Failed:
            return None

    def gradients(self, edit: Edit, **put: Any) -> list[Array] | None:
        """Return the gradients of an edit at the first point, run from before its statement."""
        new = edited(self.text, edit)
        if put:
            self.copy.__globals__.update(put)
        node = self._top(edit)
        kept = None if node is None else self.kept[0].get(self.text.statements.index(node))
        try:
            rest = None if node is None or kept is None else self._after(node, edit)
            if node is None or kept is None or rest is None or self.reads is None:
                return self.whole(new, 0)
            self.world.lines = 0
            return list(self.reads(self._finish(new, node, edit, kept, rest)))
        except Failed:
            return None

    def _finish(
        self, new: Text, node: ast.stmt, edit: Edit, kept: dict[str, Any], rest: CodeType
    ) -> Any:
        starting = (span for _, span in self._tops if span[0] < edit.end)
        end = max(edit.end, *(last for _, last in starting))
        stop = end + len(new.segment) - len(self.text.segment)
        code = self._once(new.segment[self._line(node) : stop])
        scope = {**self.copy.__globals__, **self._free}
        scope.update(copied(kept, {}))
        theirs(exec, code, scope, edited=True)  # the user's own statement, edited
        if _bytes(scope) > self._memory:
            raise Failed("it takes too much memory")
        if "__result__" not in scope:
            theirs(exec, rest, scope, edited=True)
        return scope["__result__"]

    @functools.cached_property
    def _free(self) -> dict[str, Any]:
        cells = zip(self.copy.__code__.co_freevars, self.copy.__closure__ or ())
        return {name: cell.cell_contents for name, cell in cells}

    @functools.cached_property
    def _body(self) -> list[ast.stmt]:
        """The statements of a function that runs straight to its return; else nothing."""
        body = self.text.tree.body
        if not isinstance(body, list):
            return []
        every = [n for s in body for n in ast.walk(s)]
        inner = {n for f in every if isinstance(f, ast.FunctionDef) for n in ast.walk(f)}
        returns = [n for n in every if isinstance(n, ast.Return | ast.Yield) and n not in inner]
        lined = all(self._line(s) >= 0 for s in body)
        return body if lined and returns == [body[-1]] and returns[0].value else []

    def _line(self, node: ast.stmt) -> int:
        start = self.text.span(node)[0]
        line = self.text.segment.rfind(b"\n", 0, start) + 1
        return line if not self.text.segment[line:start].strip() else -1

    def _top(self, edit: Edit) -> ast.stmt | None:
        found = (node for node, (start, end) in self._tops if start <= edit.start <= end)
        return next(found, None)

    @functools.cached_property
    def _tops(self) -> list[tuple[ast.stmt, tuple[int, int]]]:
        statements = self.text.statements
        return [(node, self.text.span(node)) for node in self._body if node in statements]

    def _after(self, node: ast.stmt, edit: Edit) -> CodeType | None:
        """Return the code of what follows a statement, compiled once."""
        k = self._body.index(node) + 1
        while k < len(self._body) and self.text.span(self._body[k])[0] < edit.end:
            k += 1
        if k not in self._rest:
            last = k == len(self._body)
            start = len(self.text.segment) if last else self._line(self._body[k])
            self._rest[k] = self._compiled(self.text.segment[start:] or b" pass")
        return self._rest[k]

    def _once(self, segment: bytes) -> CodeType:
        """Compile statements, those of the last time not again: a value is moved many times."""
        if self._last[0] != segment:
            self._last = segment, self._compiled(segment)
        assert self._last[1] is not None
        return self._last[1]

    def _compiled(self, segment: bytes) -> CodeType:
        """Compile statements on their own; `return` puts its value into `__result__`."""
        lines = segment.split(b"\n")
        depth = len(lines[0]) - len(lines[0].lstrip())
        for i, line in enumerate(lines):
            bare = line.lstrip()
            whole = len(line) - len(bare) == depth  # else a function within returns
            if whole and bare.startswith(b"return") and not bare[6:7].isalnum():
                lines[i] = line.replace(b"return", b"__result__ =", 1)
        tree: Any = b"if 1:\n" + b"\n".join(lines)
        if _COUNTED.search(segment):
            tree = theirs(ast.parse, tree)
            counted(tree.body, place(self.code))
        made: CodeType = theirs(compile, tree, "<gradlab candidate>", "exec")
        return made

    @functools.cached_property
    def _outer(self) -> dict[int, int]:
        """The function that a statement stands in, within this one: both by their numbers."""
        numbers = {id(s): k for k, s in enumerate(self.text.statements)}
        return {
            numbers[id(inner)]: k
            for k, outer in enumerate(self.text.statements)
            for inner in ast.walk(outer)
            if isinstance(outer, ast.FunctionDef) and inner is not outer and id(inner) in numbers
        }

    def scope(self, statement: int) -> Scope | None:
        """Return the locals before a statement, where every point reaches it."""
        if statement not in self._scopes:
            outer = self._outer.get(statement, statement)
            found = tuple(
                kept.get(outer, {}) | kept[statement] for kept in self.kept if statement in kept
            )
            whole = len(found) == len(self.kept) and found
            scope = self._scope(found) if whole else None
            self._scopes[statement] = scope
        return self._scopes[statement]

    def around(self, given: dict[str, Any]) -> Scope:
        """Return the scope of a line whose locals are given."""
        return self._scope((given,))

    def _scope(self, found: tuple[dict[str, Any], ...]) -> Scope:
        return Scope(found, self.copy.__globals__, self.words, self.world.rest)

    def value_sites(
        self, wanted: set[int], before: dict[str, Array] | None = None
    ) -> Iterator[tuple[Site, Scope]]:
        """Yield the places of values in the statements that are wanted, with the locals `before`.

        Without these, the locals are those of every point.
        """
        for site in sites(self.text):
            node = site.node
            stored = is_stored(node)
            apart = any(isinstance(p, ast.keyword | ast.Slice) for p in site.parents)
            called = isinstance(site.parent, ast.Call) and site.parent.func is node
            listed = isinstance(node, ast.Tuple | ast.Starred | ast.Slice)
            listed |= isinstance(node, ast.Constant) and not is_number(site)
            listed |= isinstance(site.parent, ast.Expr)  # it has no value, but writes some
            if not (stored or apart or called or listed) and site.statement in wanted:
                held = before and self._scope((before,))
                if (scope := held or self.scope(site.statement)) is not None:
                    yield site, scope


def _bytes(scope: dict[str, Any]) -> int:
    return sum(v.nbytes for v in scope.values() if isinstance(v, np.ndarray))
