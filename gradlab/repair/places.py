"""Where a fix stands: at the mistake, or at a right line whose change gives equal code.

A local is right where it has the value that its name says: that of a local of the forward, or, for
`ds`, the gradient of the forward's `s`.
"""

import ast
import functools
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gradlab.common.arrays import NumPyArray as Array
from gradlab.repair.pool import Scope
from gradlab.repair.source import ATOM, Text, edited, precedence
from gradlab.repair.within import Within, equal, turned

_MARKS = "d|g|grad|ct|bar|adj|dot"
_OF = re.compile(rf"(?:{_MARKS})_?(?P<first>\w+)|(?P<last>\w+?)_?(?:{_MARKS})")


class Named:
    """What the names of a rule say.

    Args:
        locals: the forward's, by name.
        given: the right gradients, by the names of the inputs.
        within: gives the gradients within the forward, where they are asked for.
    """

    def __init__(
        self,
        locals: Mapping[str, Sequence[Array]],
        given: Mapping[str, Array],
        within: Callable[[], Within],
    ) -> None:
        self.locals, self._given, self._made = locals, given, within

    @functools.cached_property
    def _within(self) -> Within:
        return self._made()

    def is_right(self, name: str, value: Any) -> bool | None:
        """Whether a local of a rule has the value that its name says; None where it says none."""
        if not telling(value):
            return None
        if name in self.locals:
            return any(_same(each, value) for each in self.locals[name])
        totals = [g for g in self._totals(name) if g.size == value.size]
        if any(g.shape == value.shape and _same(g, value) and not equal(g, value) for g in totals):
            return None  # it may be turned on purpose, or by mistake
        return any(_same(g, value) for g in totals) if totals else None

    def is_part(self, name: str, value: Any) -> bool:
        """Whether a value is the share of one use in the gradient that a name says."""
        meant = [v for part, v in self._meant(name) if part not in self._given]
        values = meant if telling(value) else []
        shares = (g for v in values for x, g in self._within.parts if _same(x, v))
        return any(_same(g, value) or _same(-g, value) for g in shares)

    def _totals(self, name: str) -> Iterator[Array]:
        """Yield the gradients that a name may say."""
        for part, v in self._meant(name):
            if part in self._given:
                yield self._given[part]
            else:  # the first of equal values is meant: the others are made of it
                every = (g for x, g in self._within.whole if equal(x, v))
                yield from itertools.islice(every, 1)

    def _meant(self, name: str) -> list[tuple[str, Array]]:
        """Return the values of the forward's local whose gradient a name says, with its name."""
        found = _OF.fullmatch(name)
        parts = (found["first"], found["last"]) if found else ()
        return [(part, v) for part in filter(None, parts) for v in self.locals.get(part, ())]


def doubt(
    old: Text, new: Text, scope_of: Callable[[int], Scope | None], right: set[int], named: Named
) -> int:
    """Return 2 for a fix that changes what is right, 1 for one after the wrong line, else 0.

    Args:
        old: the function before the fix.
        new: with it.
        scope_of: gives the locals before a statement of the function as it was.
        right: the statements whose values are right.
        named: what the names of the function say.
    """
    texts = [old]
    for edit in new.edits:
        texts.append(edited(texts[-1], edit))
    if len(new.statements) != len(old.statements):
        return 0
    if at_its_definition(old, new) is not None:
        return 1
    found = (
        2 if k in right else _doubt(one, two, k, scope_of(k), named)
        for one, two in itertools.pairwise(texts)
        for k, pair in enumerate(zip(one.statements, two.statements))
        if not hasattr(pair[0], "body") and ast.dump(pair[0]) != ast.dump(pair[1])
    )
    most = max(found, default=0)
    return 0 if most == 1 and len(texts) > 2 else most  # the other edit may mend what is wrong


def at_its_definition(old: Text, new: Text) -> Text | None:
    """Return a fix where a name is made, if this one changes the only read of it."""
    edit, reads = new.edits[-1], f"id={new.edits[-1].old!r}, ctx=Load()"
    alone = ast.dump(old.tree).count(reads) == 1
    again = len(re.findall(rf"\b{re.escape(edit.old)}\b", edit.new))
    if len(new.edits) > 1 or not edit.old.isidentifier() or again > alone:
        return None
    if not again and reads in ast.dump(new.tree):
        return None
    returned = isinstance(old.statements[edit.statement], ast.Return)
    for k, node in enumerate(old.statements[: edit.statement] if returned or not again else ()):
        targets = [getattr(each, "id", "") for each in getattr(node, "targets", ())]
        if isinstance(node, ast.Assign) and targets == [edit.old]:
            start, end = old.span(node.value)
            bare = re.fullmatch(r"\(([^()]*(\([^()]*\)[^()]*)*)\)", edit.new)
            written = bare[1] if bare else edit.new
            here = old.segment[start:end].decode()
            held = here if precedence(node.value) >= ATOM else f"({here})"
            written = held.join(re.split(rf"\b{re.escape(edit.old)}\b", written))
            made = replace(edit, start=start, end=end, old=here, new=written, statement=k)
            return edited(old, made)
    return None


def _doubt(old: Text, new: Text, k: int, scope: Scope | None, named: Named) -> int:
    a, b = old.statements[k], new.statements[k]
    *around, (last, made) = _path(a, b)
    if _is_parted(last, made, old):
        return 2
    if scope is None:
        return 0
    adds = isinstance(made, ast.BinOp) and isinstance(made.op, ast.Add | ast.Sub)
    adds = adds and _dump(last) in _dump(made)
    if adds and _is_zero(scope.value(old.of(last))):
        return 2
    name = getattr(a.targets[0], "id", "") if isinstance(a, ast.Assign) else ""
    made_of = [x for x, _ in around if isinstance(x, ast.BinOp | ast.Call) and not adds]
    if any(named.is_part(name, scope.value(old.of(x))) for x in made_of):
        return 2
    names = {n.id for n in ast.walk(a) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    read = ((n, scope.locals[0].get(n)) for n in names if _OF.fullmatch(n))
    return int(any(named.is_right(*each) is False for each in read))


def is_right(text: Text, k: int, scope: Scope, named: Named) -> bool:
    """Whether a statement gives its locals the values that their names say."""
    node = text.statements[k]
    if not isinstance(node, ast.Assign) or len(node.targets) != 1:
        return False
    values, target = scope.value(text.of(node.value)), node.targets[0]
    if isinstance(target, ast.Tuple) and isinstance(values, tuple):
        names = (getattr(each, "id", "") for each in target.elts)
        told = [named.is_right(name, value) for name, value in zip(names, values)]
        return True in told and False not in told
    return isinstance(target, ast.Name) and named.is_right(target.id, values) is True


def _path(a: Any, b: Any) -> Iterator[tuple[Any, Any]]:
    """Yield what holds the change in a statement, from the outside in, and last what changes."""
    yield a, b
    while type(a) is type(b):
        children = zip(ast.iter_child_nodes(a), ast.iter_child_nodes(b))
        pairs = [(x, y) for x, y in children if _dump(x) != _dump(y)]
        if len(pairs) != 1:
            return
        ((a, b),) = pairs
        yield a, b


def _is_parted(a: Any, b: Any, text: Text) -> bool:
    """Whether a fix exchanges two arguments that have the names of the parameters."""
    one, two = (_words(x) for x in (a, b))
    places = [k for k, (x, y) in enumerate(zip(one, two)) if x != y]
    if len(one) != len(two) or len(places) != 2 or sorted(one) != sorted(two):
        return False
    taken = [_words(n) for n in ast.walk(ast.parse(text.file)) if _takes(n)]
    return any(
        all(_likeness(one[k], names[k]) > _likeness(two[k], names[k]) for k in places)
        for names in taken
        if len(names) == len(one)
    )


def _takes(node: ast.AST) -> bool:
    stored = isinstance(node, ast.Tuple) and isinstance(node.ctx, ast.Store)
    return stored or isinstance(node, ast.arguments)


def _words(node: Any) -> list[str]:
    """Return the names of a tuple, of a call's arguments, or of parameters."""
    if isinstance(node, ast.arguments):
        return [each.arg for each in (*node.posonlyargs, *node.args)]
    return [
        str(getattr(each, "id", "")) for each in getattr(node, "elts", getattr(node, "args", []))
    ]


def _likeness(one: str, other: str) -> int:
    """Return with how many letters two names begin alike."""
    pairs = zip(one, other)
    return next((k for k, (x, y) in enumerate(pairs) if x != y), min(len(one), len(other)))


def _same(one: Array, other: Array) -> bool:
    return any(equal(way, other) for way in turned(one, other.shape))


def telling(value: Any) -> bool:
    """Whether an array can be recognised by its values: it holds floats that differ."""
    return isinstance(value, np.ndarray) and value.dtype.kind == "f" and np.unique(value).size > 1


def _is_zero(value: Any) -> bool:
    return isinstance(value, np.ndarray) and not value.any()


def _dump(node: Any) -> str:
    return ast.dump(node) if isinstance(node, ast.AST) else repr(node)
