"""What was wrong in the mathematics, as the text before a fix and the one after it differ.

Both are read as sums of products, so that one factor, term, sign or constant that differs has its
name, whatever edit brought it there. What the text leaves open, the values of both decide, as the
mended function has them.
"""

import ast
import functools
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from gradlab.repair.edits import OF_PLACES, REDUCTIONS, last_name

_NEAR = 1e-9
_POWERS: Final = {"sqrt": 0.5, "square": 2.0, "reciprocal": -1.0, "rsqrt": -0.5}
_INNER: Final = frozenset(
    [
        *("exp", "log", "log2", "log1p", "expm1", "sqrt", "rsqrt", "sigmoid", "softmax"),
        *("tanh", "sin", "cos", "arctan", "log_softmax"),
    ]
)  # functions in which a factor is none of the whole
_TURNED: Final = frozenset(("T", "mT", "transpose", "swapaxes", "moveaxis", "matrix_transpose"))
_PLACED: Final = OF_PLACES | {"range", "pad", "roll", "reshape", "tile", "repeat"}
_BOUNDED: Final = frozenset(("maximum", "minimum", "clip", "where"))

_Part = tuple[float, ast.expr]  # a power or a coefficient, and what has it
_Parts = dict[Any, _Part]
_Around = tuple[ast.AST, ...]


class Cause(NamedTuple):
    """A mistake: its code, and what it is, in the words of the source."""

    code: str
    said: str


class Values(NamedTuple):
    """What is known of a statement where the mended function runs.

    `of` gives the values of a text at all points, None where it has none; `lengths` are the
    lengths and their products there; `tainted` are the names that depend on the upstream.
    """

    of: Callable[[str], tuple[Any, ...] | None]
    lengths: Sequence[Collection[int]]
    upstream: str
    tainted: set[str]
    source: str


class _Product(NamedTuple):
    """A number times powers of what is no product itself."""

    number: float
    powers: _Parts

    @property
    def key(self) -> Any:
        return tuple(sorted((name, power) for name, (power, _) in self.powers.items()))

    def times(self, other: "_Product", power: float = 1.0) -> "_Product":
        powers = dict(self.powers)
        for key, (exponent, node) in other.powers.items():
            powers[key] = (powers.get(key, (0.0, node))[0] + power * exponent, node)
        number = self.number * other.number**power
        return _Product(number, {key: part for key, part in powers.items() if part[0]})


_EXTRA: Final = "should not be there"
_LINE: Final = f"this line {_EXTRA}"
_UNIT: Final = _Product(1.0, {})
_ONE: Final = ast.Constant(1)
_POWER: Final = ast.BinOp(_ONE, ast.Pow(), _ONE)


def _product(node: ast.expr) -> _Product:
    """Return an expression as a number times powers."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return _Product(float(str(node.value)), {})
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return _Product(-1.0, {}).times(_product(node.operand))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult | ast.Div | ast.Pow):
        left, right = _product(node.left), _product(node.right)
        powered = isinstance(node.op, ast.Pow)
        if not powered and (right.number or isinstance(node.op, ast.Mult)):
            return left.times(right, 1.0 if isinstance(node.op, ast.Mult) else -1.0)
        if powered and not right.powers and (left.number > 0 or right.number in (1, 2, 3)):
            return _UNIT.times(left, right.number)
    if isinstance(node, ast.Call) and last_name(node) in _POWERS and len(node.args) == 1:
        inner = _product(node.args[0])
        if inner.number > 0:
            return _UNIT.times(inner, _POWERS[last_name(node)])
    return _Product(1.0, {ast.dump(node): (1.0, node)})


def _terms(node: ast.expr, sign: float = 1.0) -> Iterator[_Part]:
    """Yield the terms of a sum, each with its sign."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
        yield from _terms(node.left, sign)
        yield from _terms(node.right, sign if isinstance(node.op, ast.Add) else -sign)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield from _terms(node.operand, -sign)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
        if last_name(node) == "expm1":
            node = ast.parse(ast.unparse(node).replace("expm1", "exp", 1), mode="eval").body
            yield -sign, _ONE
        yield sign, node
    else:
        yield sign, node


def _sum(node: ast.expr) -> _Parts:
    """Return an expression as a sum: each product with its coefficient."""
    found: _Parts = {}
    for sign, term in _terms(node):
        made = _product(term)
        found[made.key] = (found.get(made.key, (0.0, term))[0] + sign * made.number, term)
    return {key: part for key, part in found.items() if part[0]}


def _changed(
    one: _Parts, two: _Parts
) -> tuple[list[tuple[_Part | None, _Part | None]], list[_Part], list[_Part]]:
    """Return which numbers of two sums or products differ; what is gone, and what has come."""
    pairs = [(one.get(key), two.get(key)) for key in {**one, **two}]
    pairs = [(p, q) for p, q in pairs if not p or not q or p[0] != q[0]]
    return pairs, [p for p, q in pairs if p and not q], [q for p, q in pairs if q and not p]


class Compared:
    """Compares what was written before a fix with what is after it, from the outside in."""

    def __init__(self, values: Values) -> None:
        self.values = values

    def cause(self, a: Any, b: Any, around: _Around = ()) -> Cause | None:
        """Return the cause for which `a` must become `b`; None where both are the same."""
        if _dump(a) == _dump(b):
            return None
        if _complements(a, b):
            return Cause("GL204", f"`{_text(a)}` stands where `{_text(b)}` should")
        if (crossed := _crossed(a, b) or _exchanged(a, b)) is not None:
            return crossed
        if isinstance(a, ast.stmt):
            return self._statement(a, b)
        if not (isinstance(a, ast.expr) and isinstance(b, ast.expr)):
            return self._children(a, b, around)
        listed = isinstance(a, ast.Tuple | ast.List | ast.Dict | ast.Slice | ast.Starred)
        listed |= {last_name(x) for x in (a, b) if isinstance(x, ast.Call)} == {"exp", "expm1"}
        found = None if listed else self._arithmetic(a, b, around)
        return found or self._children(a, b, around) or self._leaf(a, b, around)

    def _statement(self, a: Any, b: Any) -> Cause | None:
        if isinstance(b, ast.Pass) and isinstance(a, ast.AugAssign):
            made = ast.BinOp(a.target, a.op, a.value)
            return self.cause(made, a.target)
        if isinstance(b, ast.Pass):
            named = isinstance(a, ast.Assign) and isinstance(a.targets[0], ast.Name)
            return self.cause(a.value, a.targets[0]) if named else Cause("GL212", _LINE)
        targets = [x.targets[0] for x in (a, b) if isinstance(x, ast.Assign)]
        renamed = len(targets) == 2 and _dump(a.value) == _dump(b.value)
        if renamed and all(isinstance(t, ast.Name) for t in targets):
            old, new = map(_text, targets)
            return Cause("GL331", f"`{old}` is overwritten by what `{new}` should be")
        if isinstance(a, ast.AugAssign) and isinstance(b, ast.Assign):
            if _dump(a.op) == _dump(getattr(b.value, "op", None)):
                return _in_place(_text(a.target))
            return Cause("GL331", f"`{_text(a.target)}` is added up, not overwritten")
        if isinstance(a, ast.Assign) and (added := _added(b)) is not None:
            target, op, value = added
            known = _loaded(target)
            if _dump(known) in _dump(a.value):  # a sum that reads what it replaces
                return self.cause(a.value, ast.BinOp(known, op, value))
            return Cause("GL331", f"`{_text(target)}` is overwritten, not added up")
        if isinstance(a, ast.AugAssign) and isinstance(b, ast.Expr) and (added := _added(b)):
            target, _, value = added
            if ast.unparse(a.target) == ast.unparse(target):
                sign = "-" if isinstance(a.op, ast.Sub) else "+"
                repeated = Cause("GL331", f"`{sign}=` counts a repeated index only once")
                inner = self.cause(a.value, value)
                return _and(repeated, inner) if inner else repeated
        if type(a) is not type(b):
            return None
        if isinstance(a, ast.AugAssign) and type(a.op) is not type(b.op):
            signs = isinstance(a.op, ast.Add | ast.Sub) and isinstance(b.op, ast.Add | ast.Sub)
            return Cause("GL101" if signs else "GL204", f"the sign of `{_text(a.value)}` is wrong")
        if isinstance(a, ast.For) and ("reversed" in _text(b.iter)) != (
            "reversed" in _text(a.iter)
        ):
            return Cause("GL322", "the loop runs in the wrong direction")
        if isinstance(a, ast.If | ast.While):
            return _condition(a.test, b.test)
        pairs = zip(ast.iter_child_nodes(a), ast.iter_child_nodes(b))
        found = (self.cause(x, y, (a,)) for x, y in pairs if isinstance(x, ast.expr))
        return next(filter(None, found), None)

    # sums and products

    def _arithmetic(self, a: ast.expr, b: ast.expr, around: _Around) -> Cause | None:
        one, two, inside = _product(a), _product(b), _inside(around)
        ratio = two.number / one.number if one.number else 0.0
        powers, gone, come = _changed(one.powers, two.powers)
        if (slope := _other_slope(gone, come)) is not None:
            return slope
        if not powers and (ratio != -1 or inside in ("condition", "place")):
            return self._number(a, b, (one.number, two.number), around)
        if len(powers) == 1 and abs(ratio) == 1 and inside != "condition":
            divided = "/" in _text(a) + _text(b)
            found = self._factor(*powers[0], [n for _, n in one.powers.values()], divided)
            return found._replace(said=found.said + " (and its sign is wrong)" * (ratio < 0))
        first = _sum(a)
        terms, left, right = _changed(first, _sum(b))
        if not (left or right) and all(p and q and p[0] == -q[0] for p, q in terms):
            node = a if len(terms) == len(first) else (terms[0][0] or (0, a))[1]
            return Cause("GL101", f"the sign of `{_bare(node)}` is wrong")
        if len(terms) == 1:
            return self._term(*terms[0], inside, self.values.of(_text(b)))
        if len(gone) == len(come) == 1 and _complements(gone[0][1], come[0][1]):
            return self.cause(gone[0][1], come[0][1])
        some, lacks = gone or come, _lacks(bool(come))
        if abs(ratio) == 1 and max(len(gone), len(come)) == len(powers) < 4:
            above, below = ([n for p, n in some if (p > 0) == up] for up in (True, False))
            text = " * ".join(map(_tight, above or below))
            text += "".join(f" / {_tight(n)}" for n in below if above)
            rest = [n for _, n in (*one.powers.values(), *some)]
            if come and len(some) == 2 and any(self._is_slope(n, rest) for _, n in some):
                return Cause("GL221", f"the derivative of the activation, `{text}`, {lacks}")
            sized = all(self._is_size(n) for _, n in some)
            said = f"the {'factor' if above else 'division by'} `{text}` {lacks}"
            return Cause("GL103" if sized else "GL201" if come else "GL202", said)
        if (scaled := self._ratio(a, b)) is not None:
            return scaled
        if max(len(left), len(right)) == len(terms) < 3:
            text = " and ".join(f"`{_text(n)}`" for _, n in left or right)
            lacks = "are missing" if right else _EXTRA
            return Cause("GL211" if right else "GL212", f"the terms {text} {lacks}")
        deeper = around if gone and gone[0][0] == 1 else (*around, _POWER)
        factors, summands = (gone, come, deeper, powers), (left, right, (*around, a), terms)
        for olds, news, within, changed in (factors, summands):
            alike = 0 < len(olds) == len(news) == len(changed) / 2
            alike = alike and abs(olds[0][0]) == abs(news[0][0])
            if alike and (olds[0][1] is not a or news[0][1] is not b):  # a part became another
                if olds is gone and abs(ratio) != 1:
                    return self._number(a, b, (one.number, two.number), around)
                parts = [self.cause(x, y, within) for (_, x), (_, y) in zip(olds, news)]
                told = [*dict.fromkeys(filter(None, parts))]
                said = ", and ".join(cause.said for cause in told)
                said += " (and its sign is wrong)" * (olds is gone and ratio < 0)
                return told[0]._replace(said=said) if told else None
        return None

    def _number(
        self, a: ast.expr, b: ast.expr, numbers: tuple[float, float], around: _Around
    ) -> Cause:
        """Return the cause where a number alone differs."""
        inside, (old, new) = _inside(around), numbers
        both = f"should be `{_text(b)}`, not `{_text(a)}`"
        power = around and isinstance(getattr(around[-1], "op", None), ast.Pow)
        if inside in ("condition", "axis", "place"):
            code = {"condition": "GL332", "axis": "GL302"}.get(inside, "GL321")
            if inside == "place":
                call = next((x for x in reversed(around) if isinstance(x, ast.Call)), None)
                name = last_name(call) if call is not None else ""
                code = "GL322" if old == -new else code
                inside = {"roll": "shift", "": "index"}.get(name, f"argument of `{name}`")
                inside = "axis" if call and inside == "shift" and a in call.args[2:] else inside
            return Cause(code, f"the {inside.replace('condition', 'bound')} {both}")
        if power and around[-1] is not _POWER:
            return Cause("GL203", f"the power {both}")
        if inside == "function":
            calls = (x for x in reversed(around) if isinstance(x, ast.Call))
            call = next((x for x in calls if last_name(x) in _INNER), None)
            scaled = bool(_product(a).powers and old and new)
            if call is not None and scaled and 1 in (abs(old), abs(new)):
                found = _scaled(new / old, _text(b), missing=abs(old) == 1)
                return Cause("GL213", f"{found.said} inside `{_text(call)}`")
            return Cause("GL213", f"the constant inside {both}")
        if 1 in (abs(old), abs(new)) and old and new:
            return _scaled(new / old, _text(b), missing=abs(old) == 1)
        return Cause("GL102", f"the factor should be `{new:.6g}`, not `{old:.6g}`")

    def _factor(
        self,
        before: _Part | None,
        after: _Part | None,
        rest: Sequence[ast.expr],
        divided: bool,
    ) -> Cause:
        power, node = after or before or (1.0, _ONE)
        if before and after:
            power, code = after[0], "GL204" if before[0] == -after[0] else "GL203"
            if isinstance(node, ast.Call) and last_name(node) == "exp":
                times = power / before[0]
                return Cause("GL213", f"the factor `{times:g}` is missing inside `{_text(node)}`")
            old, new = _raised(node, before[0]), _raised(node, power)
            said = f"the power of `{_text(node)}` should be {power:g}, not {before[0]:g}"
            if divided and (power < 0 or before[0] < 0):
                do, not_ = ("divide" if p < 0 else "multiply" for p in (power, before[0]))
                also = "not" if do == not_ else f"do not {not_}"
                said = f"{do} by `{new}`, {also} by `{old}`"
            return Cause(code, said)
        text, size, lacks = _raised(node, power), abs(power), _lacks(bool(after))
        said = f"the {'factor' if power > 0 else 'division by'} `{text}` {lacks}"
        found = self.values.of(_text(node))
        named = {n.id for each in rest for n in ast.walk(each) if isinstance(n, ast.Name)}
        if size == 1 and self._is_size(node):
            return Cause("GL103", said)
        if size == 1 and found and len(found) > 1 and all(_is_constant(found[0], v) for v in found):
            return Cause("GL102", said)
        if before or power != 1:
            return Cause("GL201" if after else "GL202", said)
        if _base(node) == self.values.upstream and self.values.tainted.isdisjoint(named):
            return Cause("GL223", f"the upstream `{self.values.upstream}` is missing")
        if _is_mask(node, found):
            return Cause("GL333", f"the mask `{text}` is not applied")
        if self._is_slope(node, rest):
            return Cause("GL221", f"the derivative of the activation, `{text}`, is missing")
        return Cause("GL201", said)

    def _term(self, old: _Part | None, new: _Part | None, inside: str, value: Any) -> Cause:
        number, node = new or old or (1.0, _ONE)
        text, constant = _text(node), isinstance(node, ast.Constant)
        if inside == "place" or (value and np.ndim(value[0]) and _kind(value[0]) in "iu"):
            return Cause("GL321", f"the index is off by `{text}`")
        if inside == "condition":
            if old and new:
                both = f"{number:g} times `{text}`, not {old[0]:g} times"
                return Cause("GL332", f"the condition should have {both}")
            lacks = "is missing" if new else "should not be"
            return Cause("GL332", f"the term `{text}` {lacks} in the condition")
        if old and new and constant:
            return Cause("GL213", f"the constant should be {number:g}, not {old[0]:g}")
        if old and new:
            found = _scaled(number / old[0], text, missing=abs(number) != 1)
            return found._replace(said=f"{found.said} in the term `{_bare(old[1])}`")
        inner = constant and inside == "function"
        code = "GL213" if inner else "GL211" if new else "GL212"
        if number * _product(node).number < 0:  # it is taken away
            text = text[1:] if text.startswith("-") else f"-{text}"
        said = f"the {'constant' if inner else 'term'} `{text}` {_lacks(bool(new))}"
        return Cause(code, said)

    def _ratio(self, a: ast.expr, b: ast.expr) -> Cause | None:
        """Return the cause where what should be is a number, or a size, times what is."""
        first, last = self.values.of(_text(a)), self.values.of(_text(b))
        numbers = [_times_what(x, y) for x, y in zip(first or (), last or ())]
        if len(numbers) < 2 or not all(numbers):
            return None
        known = [n for n in numbers if n]
        if all(abs(n - 1) < _NEAR for n in known):  # here they are the same, which says nothing
            return None
        for old, new in (("sum", "mean"), ("mean", "sum")):
            if _dump(b) == _dump(a).replace(f"'{old}'", f"'{new}'"):
                return Cause("GL103", f"this {old} should be a {new}")
        if all(abs(n + 1) < _NEAR for n in known):
            return Cause("GL101", f"the sign of `{_bare(a)}` is wrong")
        if self._are_sizes(known) or self._are_sizes([1 / n for n in known]):
            return Cause("GL103", f"`{_text(a)}` stands where `{_text(b)}` should")
        same = max(known) - min(known) < _NEAR * abs(known[0])
        written = [n.value for x in (a, b) for n in ast.walk(x) if isinstance(n, ast.Constant)]
        some = (abs(known[0]), 1 / abs(known[0]))
        said = any(isinstance(n, int | float) and np.isclose(n, some).any() for n in written)
        return _scaled(known[0], _text(b)) if same and said else None

    # what is no arithmetic

    def _children(self, a: Any, b: Any, around: _Around) -> Cause | None:
        """Return the cause where two expressions of one kind differ in one part."""
        if type(a) is not type(b):
            return None
        if isinstance(a, ast.Call) and (found := self._call(a, b, around)) is not None:
            return found
        other = isinstance(a, ast.IfExp) and (
            _dump(a.test) != _dump(b.test) or _dump(a.body) == _dump(b.orelse)
        )
        if other or (isinstance(a, ast.Compare) and _dump(a.ops) != _dump(b.ops)):
            one, two = (getattr(x, "test", x) for x in (a, b))
            if _dump(one) == _dump(two):
                return Cause("GL332", "the two branches are in each other's place")
            return _condition(one, two)
        if isinstance(a, ast.Subscript) and _dump(a.slice) != _dump(b.slice):
            return _index(a, b)
        pairs: list[tuple[Any, Any]] = []
        for name in a._fields:
            one, two = getattr(a, name), getattr(b, name)
            listed = isinstance(one, list) and isinstance(two, list) and len(one) == len(two)
            pairs += zip(one, two) if listed else [(one, two)]
        pairs = [(x, y) for x, y in pairs if _dump(x) != _dump(y)]
        if not all(isinstance(x, ast.AST) and isinstance(y, ast.AST) for x, y in pairs):
            return None
        olds, news = ([_dump(pair[k]) for pair in pairs] for k in (0, 1))
        if len(pairs) > 1 and sorted(olds) == sorted(news):
            both = " and ".join(f"`{_text(x)}`" for x, _ in pairs[:2])
            if last_name(a) == "where":
                return Cause("GL332", "the two branches are in each other's place")
            returned = bool(around) and isinstance(around[-1], ast.Return)
            what = "the gradients " if returned else ""
            code = "GL312" if returned else "GL313"
            return Cause(code, f"{what}{both} are in each other's place")
        if len(pairs) > 1 and not isinstance(a, ast.Tuple | ast.List | ast.Dict):
            return None
        causes = [each for x, y in pairs if (each := self.cause(x, y, (*around, a)))]
        return functools.reduce(_and, dict.fromkeys(causes)) if causes else None

    def _call(self, a: ast.Call, b: ast.Call, around: _Around) -> Cause | None:
        first, last = last_name(a), last_name(b)
        if first != last:
            if _dump(a) in _dump(b) or _dump(b) in _dump(a):  # a call around the other
                return None
            if {first, last} == {"mean", "sum"}:
                found = Cause("GL103", f"this {first} should be a {last}")
                method = isinstance(a.func, ast.Attribute) and isinstance(b.func, ast.Attribute)
                pairs = list(zip(a.args, b.args))
                pairs += [(a.func.value, b.func.value)] if method else []  # type: ignore[attr-defined]
                inner = (self.cause(x, y, (*around, a)) for x, y in pairs)
                return next((_and(found, each) for each in inner if each), found)
            if (first, last) == ("exp", "expm1"):
                said = "the term `-1` is missing (`exp` stands where `expm1` should)"
                return Cause("GL211", said)
            same = {*map(_dump, a.args)} & {*map(_dump, b.args)} or _dump(a.func) == _dump(b.func)
            method = _dump(getattr(a.func, "value", a)) == _dump(getattr(b.func, "value", b))
            same = same or len(a.args) == len(b.args) > 0 or (method and not a.args + b.args)
            code = "GL331" if {first, last} == {"set", "add"} else "GL204"
            return Cause(code, f"`{first}` stands where `{last}` should") if same else None
        others = [x for x, y in zip(a.args, b.args) if _dump(x) != _dump(y)]
        axes = all(isinstance(x, ast.Constant | ast.UnaryOp | ast.Tuple) for x in others)
        if first in _TURNED and axes and _dump(a.func) == _dump(b.func):
            return Cause("GL301", f"`{_text(a)}` has its axes in another order")
        if first == "range":
            return Cause("GL321", f"the loop should run over `{_text(b)}`, not `{_text(a)}`")
        if first == "einsum" and _dump(a.args[0]) != _dump(b.args[0]):
            return _subscripts(a.args[0], b.args[0])
        mine, other = ({str(k.arg): k.value for k in call.keywords} for call in (a, b))
        for name in (n for n in {**mine, **other} if _dump(mine.get(n)) != _dump(other.get(n))):
            if _dump(other.get(name)) in map(_dump, a.args):  # `x.sum(0)`, and with `axis=0`
                return self.cause(a.func, b.func, (*around, a))
            codes = {"axis": "GL302", "axes": "GL302", "keepdims": "GL304", "reverse": "GL322"}
            if name not in codes and name in mine and name in other:
                return self.cause(mine[name], other[name], (*around, a))
            said = f"`{name}` should be `{_text(other[name])}`" if name in other else f"no `{name}`"
            return Cause(codes.get(name, "GL204"), said)
        return None

    # what stands in another's place

    def _leaf(self, a: ast.expr, b: ast.expr, around: _Around) -> Cause:
        instead = f"`{_text(a)}` stands where `{_text(b)}` should"
        if isinstance(a, ast.Name) and isinstance(b, ast.Name):
            instead = f"`{a.id}` is read instead of `{b.id}`"
        found = self._wrapped(a, b, missing=True) or self._wrapped(b, a, missing=False)
        if (found := found or self._ratio(a, b) or self._rearranged(a, b)) is not None:
            return found
        named = isinstance(b, ast.Name | ast.Attribute | ast.Subscript | ast.Constant)
        named = named or (self._is_size(a) and _kind((self.values.of(_text(b)) or [""])[0]) in "iu")
        if isinstance(getattr(a, "value", None), bool) or (
            _inside(around) == "condition" and not isinstance(a, ast.Name)
        ):
            return Cause("GL332", f"the condition has `{_text(a)}`, not `{_text(b)}`")
        if last_name(b) == "sum" and isinstance(a, ast.Subscript) and _dump(a.value) in _dump(b):
            return Cause("GL303", f"`{_text(a.value)}` is not summed over an axis")
        mask = self.values.of(_text(b))
        ones = (np.size(v) and np.all(v == 1) for v in self.values.of(_text(a)) or [0])
        if mask and _is_mask(b, mask) and all(ones):
            return Cause("GL333", f"the mask `{_text(b)}` is not applied")
        bounded = {last_name(n) for n in ast.walk(a)} ^ {last_name(n) for n in ast.walk(b)}
        if bounded & _BOUNDED and self._partly(a, b):
            return Cause("GL332", f"{instead} where a condition holds")
        return Cause("GL311" if named else "GL204", instead)

    def _wrapped(self, inner: ast.expr, outer: ast.expr, missing: bool) -> Cause | None:
        """Return the cause where a function, an index or a transpose stands around a value."""
        verb, lacks = "should" if missing else "should not", _lacks(missing)
        name, text, key = last_name(outer), _text(inner), _dump(inner)
        given = [getattr(outer, "value", None), *getattr(outer, "args", ())]
        given.append(getattr(getattr(outer, "func", None), "value", None))
        if not any(x is not None and _dump(x) == key for x in given):
            base = outer
            while isinstance(base, ast.Subscript):
                base = base.value
            turned = "-1" in _steps(outer) and last_name(base) == last_name(inner) != ""
            if not turned and not (name in _BOUNDED and key in _dump(outer)):
                return None
        if name in _TURNED:
            return Cause("GL301", f"`{text}` {verb} be transposed")
        if name == "flip" or "-1" in _steps(outer):
            return Cause("GL322", f"`{text}` {verb} be flipped")
        if isinstance(outer, ast.Subscript):
            index = _text(outer.slice)
            if _is_new_axis(index):
                return Cause("GL304", f"`{text}` {verb} have an axis of length 1")
            return Cause("GL321", f"the index `{index}` {lacks}")
        if not isinstance(outer, ast.Call):
            return None
        if name == "where":
            others = [n for n in outer.args[1:] if key not in _dump(n)]
            held = (n for x in others for n in ast.walk(x) if isinstance(n, ast.Attribute))
            modules = {n.value for n in held}  # as in `-np.inf`
            names = (n for x in others for n in ast.walk(x) if isinstance(n, ast.Name))
            plain = len(others) == 1 and modules.issuperset(names)
            if plain and missing:
                return Cause("GL333", f"the mask `{_text(outer.args[0])}` is not applied")
            return Cause("GL332", f"the condition `{_text(outer.args[0])}` {lacks}")
        if name == "sum" and missing:
            return Cause("GL303", f"`{text}` is not summed over an axis that was broadcast")
        if name == "copy":
            return _in_place(text)
        if name in ("triu", "tril") and missing:
            return Cause("GL333", f"the mask `{name}` is not applied to `{text}`")
        code = {"conj": "GL406", "sum": "GL303"}.get(name, "GL332" if name in _BOUNDED else "GL204")
        return Cause(code, f"`{name}` {verb} be applied to `{text}`")

    def _rearranged(self, a: ast.expr, b: ast.expr) -> Cause | None:
        """Return the cause where one value is the other's transpose, or the other turned round."""
        pairs = list(zip(self.values.of(_text(a)) or (), self.values.of(_text(b)) or ()))
        wide = min((np.ndim(x) for x, _ in pairs), default=0)
        moves: list[Callable[[Any], Any]] = [np.transpose] * (wide > 1)
        moves += [functools.partial(np.flip, axis=axis) for axis in range(wide)]
        for move in moves:
            if all(_same(move(x), y) for x, y in pairs):
                if move is np.transpose:
                    return Cause("GL301", f"`{_text(a)}` should be transposed")
                return Cause("GL322", f"`{_text(a)}` should be flipped")
        return None

    def _partly(self, a: ast.expr, b: ast.expr) -> bool:
        """Whether both values are the same at some entries and not at others."""
        pairs = zip(self.values.of(_text(a)) or (), self.values.of(_text(b)) or ())
        alike = [np.isclose(x, y, rtol=_NEAR) for x, y in pairs if np.shape(x) == np.shape(y)]
        return any(same.any() and not same.all() for same in alike)

    # what a value is

    def _is_size(self, node: ast.expr) -> bool:
        found = self.values.of(_text(node))
        return (
            bool(found)
            and all(_kind(v) in "iuf" and not np.ndim(v) for v in found or ())
            and (self._are_sizes([float(v) for v in found or ()]))
        )

    def _are_sizes(self, numbers: Sequence[float]) -> bool:
        """Whether the numbers are lengths, or products of lengths, and not the same everywhere."""
        known = zip(numbers, self.values.lengths)
        return len(set(numbers)) > 1 and all(
            any(abs(n - each) < _NEAR * each for each in lengths) for n, lengths in known
        )

    def _is_slope(self, node: ast.expr, rest: Sequence[ast.expr]) -> bool:
        """Whether a factor is `1 - t**2` of a tanh, or `1 - s` beside a sigmoid `s`."""
        terms = dict(_terms(node))
        made = _product(terms.get(-1.0, _ONE))
        if _text(terms.get(1.0, node)) not in ("1", "1.0") or len(made.powers) != 1:
            return False
        ((power, base),) = made.powers.values()
        found, source = self.values.of(_text(base)), self.values.source
        if not found or not all(np.all(np.abs(v) < 1) for v in found):
            return False
        beside = any(_dump(base) == _dump(each) for each in rest)
        sigmoid = beside and ("sigmoid" in source or "exp(-" in source)
        positive = all(np.all(np.asarray(v) > 0) for v in found)
        return (power == 2 and "tanh" in source) or (power == 1 and positive and sigmoid)


def _other_slope(gone: Sequence[_Part], come: Sequence[_Part]) -> Cause | None:
    """Return the cause where the slope of a sigmoid stands for that of tanh, or that for this."""
    (one, v), (other, meant) = _slope_of(gone), _slope_of(come)
    if not one or not other or one == other or v != meant:
        return None
    written = {"tanh": f"`1 - {v}**2`", "a sigmoid": f"`{v} * (1 - {v})`"}
    said = f"{written[one]} is the slope of {one}, but that of {other} is {written[other]}"
    return Cause("GL221", said)


def _slope_of(factors: Sequence[_Part]) -> tuple[str, str]:
    """Return of which function a factor is the slope, and the name of its value."""
    plain = {_text(node) for power, node in factors if power == 1}
    for terms in (_sum(node) for power, node in factors if power == 1):
        known = {key: number for key, (number, _) in terms.items()}
        lower = [_product(node).powers for number, node in terms.values() if number == -1]
        for power, node in (
            part for powers in lower if len(powers) == 1 for part in powers.values()
        ):
            v, one = _text(node), known.get((), 0.0) == 1
            alone = len(known) == 2 and (one or known.get(_product(node).key) == 1)
            if alone and (power == 2 or (power == 1 and one and v in plain)):
                return "tanh" if power == 2 and one else "a sigmoid", v
    return "", ""


def _crossed(a: Any, b: Any) -> Cause | None:
    """Return the cause where two names stand in each other's place, and nothing else differs."""
    ones, twos = ([n.id for n in ast.walk(x) if isinstance(n, ast.Name)] for x in (a, b))
    pairs = {(one, two) for one, two in zip(ones, twos) if one != two}
    if len(ones) != len(twos) or len(pairs) != 2 or {(two, one) for one, two in pairs} != pairs:
        return None
    blank = re.compile(r"Name\(id='\w+'")
    if blank.sub("", _dump(a)) != blank.sub("", _dump(b)):
        return None
    first, last = next((one, two) for one, two in zip(ones, twos) if one != two)
    indices = [x.slice for x in ast.walk(a) if isinstance(x, ast.Subscript)]
    within = [n.id for x in indices for n in ast.walk(x) if isinstance(n, ast.Name)]
    outside = any(ones.count(name) > within.count(name) for name in (first, last))
    code = "GL313" if outside else "GL321"
    return Cause(code, f"`{first}` and `{last}` are in each other's place")


def _exchanged(a: Any, b: Any) -> Cause | None:
    """Return the cause where two expressions stand in each other's place within another one."""
    pairs = list(_apart(a, b))
    if len(pairs) != 2 or not all(isinstance(x, ast.expr) for pair in pairs for x in pair):
        return None
    (one, two), (three, four) = ([_dump(x) for x in pair] for pair in pairs)
    if one != four or two != three:
        return None
    first, last = pairs[0]
    return Cause("GL313", f"`{_text(first)}` and `{_text(last)}` are in each other's place")


def _apart(a: Any, b: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the smallest parts in which two trees differ."""
    if _dump(a) == _dump(b):
        return
    parts = [list(ast.iter_child_nodes(x)) for x in (a, b)]
    if type(a) is not type(b) or len(parts[0]) != len(parts[1]) or isinstance(a, ast.Name):
        yield a, b
        return
    if isinstance(a, ast.BinOp) and [*map(_dump, parts[0])] == [*map(_dump, parts[1])][::-1]:
        yield a, b  # a difference or quotient is the wrong way round
        return
    found = [pair for x, y in zip(*parts) for pair in _apart(x, y)]
    yield from found or [(a, b)]


def _complements(a: Any, b: Any) -> bool:
    """Whether one of two values is 1 minus the other."""
    for one, two in ((a, b), (b, a)):
        minus = isinstance(two, ast.BinOp) and isinstance(two.op, ast.Sub)
        if minus and _text(two.left) in ("1", "1.0") and _dump(two.right) == _dump(one):
            return True
    return False


def _lacks(missing: bool) -> str:
    return "is missing" if missing else _EXTRA


def _added(statement: ast.stmt) -> tuple[ast.expr, ast.operator, ast.expr] | None:
    """Return to what a statement adds, as `+=` and `np.add.at` do, how, and what; else None."""
    if isinstance(statement, ast.AugAssign):
        return statement.target, statement.op, statement.value
    call = getattr(statement, "value", None)
    if isinstance(call, ast.Call) and last_name(call) == "at" and len(call.args) == 3:
        return ast.Subscript(call.args[0], call.args[1], ast.Load()), ast.Add(), call.args[2]
    return None


def _loaded(target: ast.expr) -> ast.expr:
    """Return what is assigned as what is read."""
    return ast.parse(ast.unparse(target), mode="eval").body


def _condition(a: ast.expr, b: ast.expr) -> Cause:
    return Cause("GL332", f"the condition should be `{_text(b)}`, not `{_text(a)}`")


def _and(one: Cause, other: Cause) -> Cause:
    return one._replace(said=f"{one.said}, and {other.said}")


def _in_place(name: str) -> Cause:
    return Cause("GL323", f"`{name}` is changed in place, but it is read as it was before")


def _index(a: ast.Subscript, b: ast.Subscript) -> Cause:
    if _dump(a.value) != _dump(b.value) or last_name(a.value) == "shape":
        return Cause("GL311", f"`{_text(a)}` stands where `{_text(b)}` should")
    if all(_is_new_axis(_text(each.slice)) for each in (a, b)):
        return Cause("GL302", f"the new axis should be `{_text(b.slice)}`, not `{_text(a.slice)}`")
    if _steps(a) != _steps(b) and "-1" in _steps(a) + _steps(b):
        verb = "should not" if "-1" not in _steps(b) else "should"
        return Cause("GL322", f"`{_text(a.value)}` {verb} be flipped")
    one, two = (x.slice.elts if isinstance(x.slice, ast.Tuple) else [x.slice] for x in (a, b))
    pairs = [(x, y) for x, y in zip(one, two) if _dump(x) != _dump(y)]
    if len(one) == len(two) and len(pairs) == 1:
        (x, y), what = pairs[0], "slice" if isinstance(pairs[0][1], ast.Slice) else "index"
        code = "GL311" if isinstance(x, ast.Name) and isinstance(y, ast.Name) else "GL321"
        return Cause(code, f"the {what} should be `{_text(y)}`, not `{_text(x)}`")
    code = "GL311" if isinstance(a.slice, ast.Name) and isinstance(b.slice, ast.Name) else "GL321"
    return Cause(code, f"the index should be `{_text(b.slice)}`, not `{_text(a.slice)}`")


def _is_new_axis(index: str) -> bool:
    return "None" in index and not index.replace("None", "").strip(".:, ")


def _subscripts(a: ast.expr, b: ast.expr) -> Cause:
    first, last = (str(getattr(each, "value", "")).replace(" ", "") for each in (a, b))
    mine, other = first.split("->")[0].split(","), last.split("->")[0].split(",")
    if sorted(mine) == sorted(other) and mine != other:
        return Cause("GL313", "the operands are in another order")
    alike = list(map(sorted, mine)) == list(map(sorted, other))
    return Cause("GL301" if alike else "GL302", f"`{first}` should be `{last}`")


def _scaled(ratio: float, after: str, missing: bool | None = None) -> Cause:
    if missing is None:
        missing = abs(ratio) > 1 or f"/ {1 / ratio:.6g}" in after
    ratio = ratio if missing else 1 / ratio
    number, inverse = f"{ratio:.6g}", f"{1 / ratio:.6g}"
    divided = f"/ {inverse}" in after or len(inverse) < 5 <= len(number)
    text = f"division by `{inverse}`" if divided else f"factor `{number}`"
    return Cause("GL102", f"the {text} {_lacks(missing)}")


def _inside(around: _Around) -> str:
    """Return in what an expression stands, as far as that gives a number its meaning."""
    nearest, part = True, None
    for each in reversed(around):
        given = isinstance(each, ast.Call) and not isinstance(part, ast.Attribute)
        name, part = last_name(each) if given else "", each  # a method is not given its array
        if isinstance(each, ast.Compare | ast.BoolOp) or name in ("clip", "maximum", "minimum"):
            return "condition"
        if isinstance(each, ast.Slice) or name in _PLACED:
            return "place"
        if name in REDUCTIONS and nearest:
            return "axis"
        if name in _INNER or each is _POWER or isinstance(getattr(each, "op", None), ast.Pow):
            return "function"
        nearest = nearest and isinstance(each, ast.UnaryOp | ast.Tuple)
    return ""


def _times_what(one: Any, two: Any) -> float | None:
    """Return the number by which one value gives the other; None where there is none."""
    if _kind(one) not in "iuf" or _kind(two) not in "iuf" or not np.size(one):
        return None
    x, y = np.broadcast_arrays(one, two) if not np.ndim(one) or not np.ndim(two) else (one, two)
    if np.shape(x) != np.shape(y) or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return None
    top = np.unravel_index(np.argmax(np.abs(x)), np.shape(x))
    x, y = np.asarray(x, float), np.asarray(y, float)
    number = float(y[top] / x[top]) if x[top] else 0.0
    return number if number and _same(number * x, y) else None


def _is_mask(node: ast.expr, found: tuple[Any, ...] | None) -> bool:
    if found is None:
        return isinstance(node, ast.Compare)
    if all(_kind(v) == "b" for v in found):
        return True
    return all(np.ndim(v) and np.isin(v, (0, 1)).all() and np.unique(v).size > 1 for v in found)


def _is_constant(one: Any, other: Any) -> bool:
    return np.ndim(one) == 0 == np.ndim(other) and bool(one == other)


def _same(x: Any, y: Any) -> bool:
    if np.shape(x) != np.shape(y) or "O" in _kind(x) + _kind(y):
        return False
    scale = np.max(np.abs(y), initial=0.0)
    return bool(np.all(np.abs(np.subtract(x, y, dtype=complex)) <= _NEAR * (np.abs(y) + scale)))


def _kind(value: Any) -> str:
    known = isinstance(value, np.ndarray | np.generic | int | float | complex)
    return np.asarray(value).dtype.kind if known else "O"


def _base(node: ast.expr) -> str:
    """Return the name of a value, with or without new axes; a space where it has none."""
    while isinstance(node, ast.Subscript) and "None" in _text(node.slice):
        node = node.value
    return node.id if isinstance(node, ast.Name) else " "


def _bare(node: ast.expr) -> str:
    """Return the text of a value without its sign."""
    return _text(node.operand if isinstance(node, ast.UnaryOp) else node)


def _steps(node: ast.AST) -> str:
    """Return the steps of a value's slices."""
    slices = (n.step for n in ast.walk(node) if isinstance(n, ast.Slice))
    return " ".join(_text(step) for step in slices if step)


def _tight(node: ast.expr) -> str:
    return f"({_text(node)})" if isinstance(node, ast.BinOp) else _text(node)


def _raised(node: ast.expr, power: float) -> str:
    """Return the text of a power, without its sign."""
    size = abs(power)
    if size in (0.5, 1):
        return f"sqrt({_text(node)})" if size < 1 else _text(node)
    return f"{_tight(node)}**{size:g}"


def _text(node: ast.AST) -> str:
    """Return an expression as the source has it, on one line."""
    return " ".join((getattr(node, "written", "") or ast.unparse(node)).split())


def _dump(node: Any) -> str:
    if isinstance(node, list):
        return "".join(map(_dump, node))
    return ast.dump(node) if isinstance(node, ast.AST) else repr(node)
