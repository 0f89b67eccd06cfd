"""A fix in one sentence, in the words of the source."""

import ast
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from gradlab.repair.causes import Cause, Compared, Values
from gradlab.repair.edits import SAFE
from gradlab.repair.pool import Scope, depending
from gradlab.repair.problem import Mended
from gradlab.repair.source import Text, alike, edited

_SHORT, _LONG = 70, 90
_BESIDE = 20  # characters beside what changes in a long line
_PIECE = 40  # characters of an expression in a long sentence
_AXES = 3  # whose lengths one size multiplies


def explained(mended: Mended, upstream: str) -> tuple[str, str]:
    """Return the code of the mistake, and the sentence that says what to change.

    Edits are told one by one, those of one statement together.

    Args:
        mended: the text before and after.
        upstream: the name of the upstream in the function that is mended; "" where it has none.
    """
    texts = [mended.old]
    for edit in mended.new.edits:
        texts.append(edited(texts[-1], edit))
    if texts[-1].segment != mended.new.segment:
        texts = [mended.old, mended.new]
    steps = itertools.pairwise(texts)
    found = [each for old, new in steps for each in _causes(mended, old, new, upstream)]
    by_line = _by_line(found)
    if len(texts) > 2 and any(len(causes) > 1 for causes in by_line.values()):
        at_once = _by_line(_causes(mended, mended.old, mended.new, upstream))
        for k, some in by_line.items():
            by_line[k] = min(some, at_once.get(k, some), key=_vague)
    said = []
    if len(mended.new.statements) > len(mended.old.statements) and len(mended.new.edits) == 1:
        edit = mended.new.edits[0]
        before = " ".join(mended.old.of(mended.old.statements[edit.statement]).split())
        code = "GL211" if re.search(r"[+-]=", edit.new) else "GL201"
        return code, f"`{edit.new.strip()}` is missing after `{before}`"
    for k, causes in by_line.items():
        one, two = _shown(mended.old, mended.new, k)
        said.append(f"{_told(causes)}: `{one}` should be `{two}`")
    if not by_line:  # what it takes, not what it does
        one, two = re.findall(r"\w+", mended.new.edits[0].old)[:2]
        return "GL313", f"the parameters `{one}` and `{two}` are in each other's place"
    return next(iter(by_line.values()))[0].code, "; ".join(said)


def _by_line(found: Iterable[tuple[int, Cause]]) -> dict[int, list[Cause]]:
    made = dict[int, list[Cause]]()
    for k, cause in sorted(dict.fromkeys(found), key=lambda each: each[0]):
        made.setdefault(k, []).append(cause)
    return made


def _causes(mended: Mended, old: Text, new: Text, upstream: str) -> Iterator[tuple[int, Cause]]:
    """Yield what was wrong in each statement that differs, by its number."""
    edit = new.edits[-1]
    moved = sorted(map(_own, old.statements)) == sorted(map(_own, new.statements))
    changed = [p for p in zip(old.statements, new.statements) if _own(p[0]) != _own(p[1])]
    parts = [_differing(*p) for p in changed] if len(changed) == 2 and not moved else []
    dumps = [[ast.dump(x) for x in pair] for pair in parts]
    apart = bool(parts) and not isinstance(parts[0][0], ast.Attribute)  # a function is told alone
    apart = apart and not (dumps[0][0] in dumps[0][1] or dumps[0][1] in dumps[0][0])  # as `1 - t`
    if apart and dumps[0] == dumps[1][::-1]:
        one, two = (" ".join(old.of(pair[0]).split()) for pair in parts)
        said = f"`{one}` and `{two}` are in each other's place"
        yield old.statements.index(changed[0][0]), Cause("GL313", said)
        return
    for k, (a, b) in enumerate(zip(old.statements, new.statements)):
        if _own(a) == _own(b):
            continue
        _write(old, a)
        _write(new, b)
        if edit.tier == SAFE:
            yield k, Cause(edit.code, "this form loses digits")
        elif isinstance(a, ast.Assign) and isinstance(b, ast.Pass):
            yield k, Cause("GL212", "this line should not be there")
        elif moved:
            yield k, Cause("GL323", f"`{old.of(a)}` must come after `{new.of(b)}`")
            return
        elif names := _renamed(a, b):
            yield k, Cause("GL311", f"`{names[0]}` is read instead of `{names[1]}`")
        else:
            scope = mended.scope(k) if mended.scope else None
            compared = Compared(_values(scope, upstream, old))
            both = [compared.cause(one, two) for one, two in _parts(a, b)]
            other = Cause("GL204", f"`{old.of(a)}` stands where `{new.of(b)}` should")
            yield from ((k, each) for each in [*filter(None, both)] or [other])


def _renamed(a: ast.stmt, b: ast.stmt) -> tuple[str, str] | None:
    """Return the one name that is read several times, and the one that is meant."""
    both = [(x, y) for x, y in zip(ast.walk(a), ast.walk(b)) if ast.dump(x) != ast.dump(y)]
    pairs = [(x.id, y.id) for x, y in both if isinstance(x, ast.Name) and isinstance(y, ast.Name)]
    if len(pairs) < 2 or len(set(pairs)) > 1:
        return None
    (one, other), *_ = pairs
    changed = re.sub(rf"\bid='{one}'", f"id='{other}'", ast.dump(a))
    return (
        (one, other) if changed == re.sub(rf"\bid='{one}'", f"id='{other}'", ast.dump(b)) else None
    )


def _differing(a: Any, b: Any) -> tuple[Any, Any]:
    """Return the innermost part of a statement that alone differs, and what it becomes."""
    while type(a) is type(b):
        children = zip(ast.iter_child_nodes(a), ast.iter_child_nodes(b))
        pairs = [(x, y) for x, y in children if ast.dump(x) != ast.dump(y)]
        if len(pairs) != 1:
            break
        a, b = pairs[0]
    return a, b


def _vague(causes: Sequence[Cause]) -> tuple[bool, int]:
    told = _told(causes)
    return " stands where `" in told and "`1 - " not in told, len(told)


def _told(causes: Sequence[Cause]) -> str:
    return ", and ".join(_brief(cause.said) for cause in causes)


def _brief(said: str) -> str:
    """Return a sentence in which the expressions are short, where it is long."""
    if len(said) <= _LONG:
        return said
    return re.sub("`([^`]*)`", lambda found: f"`{_cut(found[1])}`", said)


def _cut(written: str) -> str:
    """Return an expression whose innermost arguments are left out, the longest first."""
    while len(written) > _PIECE:
        inner = re.findall(r"(?<=[(\[])[^()\[\]]{4,}(?=[)\]])", written)
        if not inner:
            return f"{written[: _PIECE - 4]} ..."
        written = written.replace(max(inner, key=len), "...", 1)
    return written


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


def _shown(old: Text, new: Text, k: int) -> tuple[str, str]:
    """Return what changes in a statement, and what it becomes: the most of it that is short."""
    a: Any = old.statements[k]
    b: Any = new.statements[min(k, len(new.statements) - 1)]
    while True:
        here = " ".join(old.of(a).split()), " ".join(new.of(b).split())
        if max(map(len, here)) <= _SHORT and not hasattr(a, "body"):
            return here
        children = zip(ast.iter_child_nodes(a), ast.iter_child_nodes(b))
        pairs = [(x, y) for x, y in children if ast.dump(x) != ast.dump(y)]
        pairs = [pair for pair in pairs if isinstance(pair[0], ast.expr | ast.keyword)]
        whole = len(pairs) == 1 and type(pairs[0][0]) is type(pairs[0][1])
        if type(a) is not type(b) or not whole:
            return _window(*here)
        a, b = pairs[0]


def _window(one: str, two: str) -> tuple[str, str]:
    """Return where two long texts differ, and a little beside that."""
    start, tail = alike(one, two)
    start, tail = max(start - _BESIDE, 0), max(tail - _BESIDE, 0)
    start = len(one[:start].rpartition(" ")[0]) if start else 0
    pieces = (each[start : len(each) - tail] for each in (one, two))
    first, last = (f"{'...' * (start > 0)}{piece.strip()}{'...' * (tail > 0)}" for piece in pieces)
    return first, last


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
