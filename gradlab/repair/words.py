"""A fix in one sentence, in the words of the source."""

import ast
import itertools
import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from gradlab._codes import CODES
from gradlab.repair.causes import Cause, Compared, Values
from gradlab.repair.edits import SAFE
from gradlab.repair.pool import Scope, depending
from gradlab.repair.problem import Mended
from gradlab.repair.source import Text

_SHORT, _LONG = 70, 90
_AXES = 3  # whose lengths one size multiplies


def explained(mended: Mended, upstream: str) -> tuple[str, str]:
    """Return the code of the mistake, and the sentence that says what to change.

    Args:
        mended: the text before and after.
        upstream: the name of the upstream in the function that is mended; "" where it has none.
    """
    old, new = mended.old, mended.new
    first = new.edits[0]
    found: dict[Cause, tuple[str, str]] = {}
    for k, (a, b) in enumerate(zip(old.statements, new.statements)):
        if _own(a) == _own(b):
            continue
        _write(old, a)
        _write(new, b)
        scope = mended.scope(k) if mended.scope else None
        compared = Compared(_values(scope, upstream, old))
        if first.tier == SAFE:
            found.setdefault(Cause(first.code, "this form loses digits"), _shown(old, new, a, b))
        elif sorted(map(_own, old.statements)) == sorted(map(_own, new.statements)):
            text = f"`{old.of(a)}` must come after what follows it"
            found = {Cause("GL323", text): _shown(old, new, a, b)}
            break
        else:
            for one, two in _parts(a, b):
                each = compared.cause(one, two)
                if each is not None:
                    found.setdefault(each, _shown(old, new, a, b))
    found = found or {Cause("GL204", ""): (first.old, first.new)}
    said = [f"{_said(c, x)}: `{x}` should be `{y}`" for c, (x, y) in found.items()]
    return next(iter(found)).code, "; ".join(said)


def _said(found: Cause, shown: str) -> str:
    """Return what is wrong; where its words are long, or are shown anyway, those of the code."""
    whole = found.code == "GL101" and f"`{shown}`" in found.said
    mistake = re.split("[:,.]", CODES[found.code].mistake)[0]
    return (
        mistake[0].lower() + mistake[1:]
        if whole or not 0 < len(found.said) <= _LONG
        else found.said
    )


def _parts(a: Any, b: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the values that two statements return or assign at once."""
    one, two = (getattr(getattr(x, "value", None), "elts", []) for x in (a, b))
    apart = type(a) is type(b) and len(one) == len(two) > 0
    apart = apart and sorted(map(ast.dump, one)) != sorted(map(ast.dump, two))
    yield from zip(one, two) if apart else [(a, b)]


def _own(statement: ast.stmt) -> str:
    """Return what a statement says itself, without those that stand in it."""
    skipped = ("body", "orelse", "handlers", "finalbody", "decorator_list")
    held = statement._fields if hasattr(statement, "body") else ()
    fields = [getattr(statement, name) for name in held if name not in skipped]
    whole = ast.dump(statement) if not held else ""
    return whole or type(statement).__name__ + "".join(
        ast.dump(x) if isinstance(x, ast.AST) else repr(x) for x in fields
    )


def _write(text: Text, statement: ast.stmt) -> None:
    """Let every expression of a statement know how it is written."""
    for node in ast.walk(statement):
        if isinstance(node, ast.expr):
            node.written = text.of(node)  # type: ignore[attr-defined]


def _shown(old: Text, new: Text, a: Any, b: Any) -> tuple[str, str]:
    """Return what changes and what it becomes: the most of the statement that is short."""
    while True:
        here = " ".join(old.of(a).split()), " ".join(new.of(b).split())
        if max(map(len, here)) <= _SHORT and not hasattr(a, "body"):
            return here
        pairs = []
        for one, two in zip(ast.iter_child_nodes(a), ast.iter_child_nodes(b)):
            if ast.dump(one) != ast.dump(two):
                pairs.append((one, two))
        whole = isinstance(pairs[0][0], ast.expr | ast.keyword) if len(pairs) == 1 else False
        if type(a) is not type(b) or not whole or type(pairs[0][0]) is not type(pairs[0][1]):
            return here
        a, b = pairs[0]


def _values(scope: Scope | None, upstream: str, text: Text) -> Values:
    if scope is None:
        return Values(lambda _: None, (), upstream, depending(text, upstream), text.file.decode())

    def of(source: str) -> tuple[Any, ...] | None:
        found = scope.values(source)  # of tuples and dicts nothing is known
        plain = all(
            hasattr(v, "dtype") or isinstance(v, complex | float | int) for v in found or ()
        )
        return found if plain else None

    lengths = []
    for held in scope.locals:
        some = {np.shape(v) for v in held.values() if isinstance(v, np.ndarray)}
        sizes = {
            math.prod(axes)
            for shape in some
            for k in range(1, min(len(shape), _AXES) + 1)
            for axes in itertools.combinations(shape, k)
        }
        lengths.append(sizes)
    tainted = depending(text, upstream)
    return Values(of, lengths, upstream, tainted, text.file.decode())
