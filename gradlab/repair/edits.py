"""The edits that may mend a function: small changes of its text, cheapest first.

No edit knows a formula or a name of its own: what is put in is what the function's text and its
values in scope offer.
"""

import ast
import contextlib
import dataclasses
import functools
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from gradlab.common.arrays import Tree
from gradlab.repair.forms import matches, needed, parsed, written
from gradlab.repair.source import ATOM, Edit, Text, precedence, symbol

TOKENS, NAMES, SOLVED, WIDE, FITTED, TRIED, SAFE = range(7)

_OTHERS: Final = {
    "+": "- *",
    "-": "+ *",
    "*": "/ @ + ** -",
    "/": "* -",
    "@": "*",
    "**": "*",
    "&": "|",
    "|": "&",
    "//": "/ %",
    "%": "//",
    "<": "> <=",
    "<=": ">= <",
    ">": "< >=",
    ">=": "<= >",
    "==": "!= < >",
    "!=": "==",
}  # each operator, and those that it is taken for
_CONFUSED: Final = [
    group.split()
    for group in (
        *("sum mean", "max min", "amax amin", "maximum minimum", "argmax argmin", "exp expm1"),
        *("log log1p log2", "sin cos", "sinh cosh tanh", "sqrt square rsqrt", "var std"),
        *("tanh sigmoid arctan", "tril triu", "zeros_like ones_like", "zeros ones", "fft ifft"),
        *("rfft irfft", "softmax log_softmax", "sign abs", "floor ceil trunc round"),
        *("hstack vstack", "round rint"),
        *("cumsum cumprod", "inv pinv", "real imag", "outer multiply dot matmul", "set add"),
    )
]
REDUCTIONS: Final = frozenset(
    [
        *("sum", "mean", "max", "min", "amax", "amin", "prod", "var", "std", "logsumexp"),
        *("softmax", "cumsum", "flip", "argmax", "argmin", "norm", "concatenate", "stack"),
        *("split", "take"),
    ]
)
OF_PLACES: Final = frozenset(
    ("slice", "one_hot", "take", "take_along_axis", "arange", "eye", "tri", "tril", "triu")
)
_SIBLINGS: Final = 6  # statements that are written alike
_STRANGE: Final = 3  # the cost of an edit that makes something linear in the upstream, or not
_CALLS: Final = re.compile(rb"[\w)\]]$")  # before a parenthesis
_REDUCED: Final = re.compile(r"\((.*)\)\.(sum|mean)\(axis=-1\)")
_WORDS: Final = re.compile(r"[^\W\d]\w*")
_BINARY: Final[dict[type, int]] = {ast.Add: 12, ast.Sub: 12, ast.Mult: 13, ast.Div: 13}
_VARIABLE: Final = ast.Name("v")
_TAKEN_FOR: Final = {
    "1 - v": "1 - v**2",
    "a * (1 - a)": "1 - a**2",
    "c * a * (1 - a)": "c * (1 - a**2)",
    "c * (1 - a**2)": "c * a * (1 - a)",
    "sqrt(a) + b": "sqrt(a + b)",
    "sqrt(a + b)": "sqrt(a) + b",
    "a @ b.T": "a @ b.T + b @ a.T",
    "a.T @ b": "a.T @ b + b.T @ a",
    "2 * a @ b.T": "a @ b.T + b @ a.T",
    "2 * a.T @ b": "a.T @ b + b.T @ a",
    "2 * a @ b @ c": "a @ b @ c + c @ b @ a",
    "c * (a > b)": "(c * (a > b) + c * (a >= b)) / 2",
    "c * (a < b)": "(c * (a < b) + c * (a <= b)) / 2",
    "c * (a >= b)": "(c * (a >= b) + c * (a > b)) / 2",
    "c * (a <= b)": "(c * (a <= b) + c * (a < b)) / 2",
}  # a formula, and the one that is meant; `v` stands for a variable, other letters for anything
_AXES: Final = (
    *("0", "1", "-1", "2", "-2", "None", "(0, 1)", "(0, 2)", "(1, 2)", "(0, 1, 2)"),
    *("(0, 2, 3)", "(-2, -1)"),
)


class Site(NamedTuple):
    """An expression, what holds it, the statement in which it stands, and where it stands again.

    An edit of a place that stands again changes all of them alike.
    """

    node: ast.expr
    parents: tuple[ast.AST, ...]
    statement: int
    again: "tuple[Site, ...]" = ()

    @property
    def parent(self) -> ast.AST:
        """The nearest node around it."""
        return self.parents[-1]


@functools.lru_cache(maxsize=64)
def sites(text: Text) -> tuple[Site, ...]:
    """Return every expression of every statement, in the order of the text."""
    return tuple(_sites(text))


def _sites(text: Text) -> Iterator[Site]:
    for index, statement in enumerate(text.statements):
        parts: list[Any] = []
        for name, value in ast.iter_fields(statement):
            if name not in ("body", "orelse", "handlers", "finalbody", "decorator_list", "args"):
                parts += value if isinstance(value, list) else [value]
        for part in parts:
            if isinstance(part, ast.AST):
                yield from _walk(part, (statement,), index)


def repeated(text: Text, every: Sequence[Site]) -> Iterator[Site]:
    """Yield the names that are read several times, in one statement or in all: each as one place.

    What such a name holds may be wrong wherever it is read, from where it was last written on.
    """
    written = [(s.statement, base_name(s.node)) for s in sites(text) if is_stored(s.node)]
    within: dict[tuple[int, str], list[Site]] = {}
    everywhere: dict[tuple[str, int], list[Site]] = {}
    for site in every:
        if isinstance(site.node, ast.Name) and not is_stored(site.parent):
            name, last = site.node.id, site.statement
            within.setdefault((last, name), []).append(site)
            times = sum(n == name and k < last for k, n in written)
            everywhere.setdefault((name, times), []).append(site)
    found = [some for some in within.values() if len(some) > 1]
    found += [some for some in everywhere.values() if some[0].statement < some[-1].statement]
    for first, *more in found:
        yield first._replace(again=tuple(more))


def _walk(node: ast.AST, parents: tuple[ast.AST, ...], index: int) -> Iterator[Site]:
    if isinstance(node, ast.expr):
        yield Site(node, parents, index)
    for child in ast.iter_child_nodes(node):
        yield from _walk(child, (*parents, node), index)


def is_stored(node: ast.AST) -> bool:
    """Whether an expression is written, not read."""
    return isinstance(getattr(node, "ctx", None), ast.Store | ast.Del)


def written_in_parts(text: Text) -> set[str]:
    """Return the names of arrays whose entries are written."""
    every = (site.node for site in sites(text) if isinstance(site.node, ast.Subscript))
    return {base_name(node) for node in every if is_stored(node)}


def base_name(node: ast.AST) -> str:
    """Return the name that is written, whole or in part."""
    while isinstance(node, ast.Subscript):
        node = node.value
    return str(getattr(node, "id", ""))


def is_number(site: Site) -> bool:
    """Whether an expression is a number that is calculated with: no axis, no index, no shape."""
    value, parent = getattr(site.node, "value", None), site.parent
    held = any(isinstance(p, ast.Subscript | ast.Slice) or _is_axis(p) for p in site.parents)
    listed = isinstance(parent, ast.Tuple | ast.List) and site.parents[-2:-1] != site.parents[:1]
    return type(value) in (int, float) and not held and not listed


def compared(text: Text) -> list[tuple[int, int]]:
    """Return where a function compares values."""
    return [text.span(s.node) for s in sites(text) if isinstance(s.node, ast.Compare)]


def is_bound(site: Site) -> bool:
    """Whether an expression is what a value is compared with."""
    functions = ("where", "clip", "minimum", "maximum")
    parent = site.parent
    return isinstance(parent, ast.Compare) or (
        isinstance(parent, ast.Call) and last_name(parent) in functions
    )


def _is_axis(node: ast.AST) -> bool:
    return isinstance(node, ast.keyword) and node.arg in ("axis", "axes")


@dataclass(frozen=True)
class Material:
    """A text that can be put in, how tightly it binds, and its values at some points."""

    text: str
    binds: int
    values: tuple[Tree, ...]
    slope: bool = False  # the derivative of a function that is often forgotten

    @property
    def is_number(self) -> bool:
        """Whether it is a number as such, which has no name."""
        return self.text[:1].isdigit()

    @functools.cached_property
    def value(self) -> Any:
        """Its value at the first point, as an array."""
        return np.asarray(self.values[0])

    @functools.cached_property
    def shape(self) -> tuple[int, ...]:
        """Its shape at the first point."""
        return np.shape(self.values[0])


class _Writer:
    """Makes the edits of one function's text."""

    def __init__(self, text: Text) -> None:
        self.text = text

    @functools.cached_property
    def axes(self) -> tuple[str, ...]:
        """The axes that the function writes, and others."""
        mine = (self.text.of(s.node) for s in sites(self.text) if _is_axis(s.parent))
        return tuple(dict.fromkeys([*mine, *_AXES]))

    def put(self, site: Site, new: str, binds: int, tier: int, cost: int = 0) -> Edit:
        """Replace an expression, in parentheses where it must stand in some."""
        if site.again:
            alone = (site._replace(again=()), *site.again)
            return self.joined([self.put(s, new, binds, tier, cost) for s in alone])
        start, end = self.text.span(site.node)
        parent = site.parent
        if new == "1" and isinstance(parent, ast.BinOp) and _is_factor(parent, site.node):
            other = parent.left if site.node is parent.right else parent.right
            kept = self.within(other, precedence(parent))  # nobody multiplies by one
            return self.piece(*self.text.span(parent), kept, tier, site.statement, cost)
        if new.startswith("(") and new.endswith(")"):
            with contextlib.suppress(SyntaxError):  # as `(a) * (b)`
                inner = ast.parse(new[1:-1], mode="eval").body
                new, binds = new[1:-1], precedence(inner)
        held = self.text.segment[start - 1 : start] == b"("
        held = held and self.text.segment[end : end + 1] == b")"
        if binds < needed(site.parent, site.node) and not held:
            new = f"({new})"
        elif held and binds == ATOM and not _CALLS.search(self.text.segment[: start - 1]):
            start, end = start - 1, end + 1
        return self.piece(start, end, new, tier, site.statement, cost)

    def piece(
        self, start: int, end: int, new: str, tier: int, statement: int, cost: int = 0
    ) -> Edit:
        old = self.text.segment[start:end].decode()
        return Edit(start, end, old, new, tier, statement, cost)

    def joined(self, edits: Sequence[Edit]) -> Edit:
        """Return edits of one function, in the order of the text, as one."""
        new, at = "", edits[0].start
        for each in edits:
            new += self.text.segment[at : each.start].decode() + each.new
            at = each.end
        old = self.text.segment[edits[0].start : at].decode()
        return dataclasses.replace(edits[0], end=at, old=old, new=new)

    def within(self, node: ast.expr, binds: int) -> str:
        """Return the text of an expression as it must stand under an operator."""
        written = self.text.of(node)
        return f"({written})" if precedence(node) < binds else written


def _is_factor(product: ast.BinOp, node: ast.expr) -> bool:
    if isinstance(product.op, ast.Div):
        return node is product.right
    return isinstance(product.op, ast.Mult)


def tokens(text: Text, aliases: Sequence[str], held: frozenset[str]) -> Iterator[Edit]:
    """Yield the edits that need no values: operators, signs, constants, axes, order, deletions.

    Args:
        text: the function.
        aliases: what the function's module calls NumPy or `jax.numpy`.
        held: the attributes that may be called: what those modules hold.
    """
    write = _Writer(text)
    for site in sites(text):
        node = site.node
        if isinstance(node, ast.BinOp):
            yield from _operator(write, site, node)
        elif isinstance(node, ast.UnaryOp):
            operand = node.operand
            if not isinstance(site.parent, ast.Slice) or node is not site.parent.step:
                yield write.put(site, text.of(operand), precedence(operand), TOKENS)
        elif isinstance(node, ast.Constant):
            yield from _constant(write, site, node)
        elif isinstance(node, ast.Compare) and len(node.ops) == 1:
            yield from _between(write, site, node.left, symbol(node), node.comparators[0])
        elif isinstance(node, ast.IfExp):
            new = f"{text.of(node.orelse)} if {text.of(node.test)} else {text.of(node.body)}"
            yield write.put(site, new, 3, TOKENS)
        elif isinstance(node, ast.Call):
            yield from _call(write, site, node)
            yield from _stepped(write, site, node)
        elif isinstance(node, ast.Attribute):
            yield from _attribute(write, site, node, held)
        elif isinstance(node, ast.Subscript):
            yield from _subscript(write, site, node)
            yield from _scattered(write, site, node, aliases)
        elif isinstance(node, ast.Tuple | ast.List) and isinstance(node.ctx, ast.Load):
            yield from _exchanged(write, site, node.elts)
        yield from _taken_for(write, site)
        yield from _anywhere(write, site)
    for index, statement in enumerate(text.statements):
        yield from _statement(write, index, statement, aliases)
    yield from _everywhere(write)
    yield from _siblings(write)
    yield from _at_other_end(write)


@functools.cache
def _forms() -> list[tuple[ast.expr, ast.expr]]:
    return [(parsed(form), parsed(other)) for form, other in _TAKEN_FOR.items()]


def _taken_for(write: _Writer, site: Site) -> Iterator[Edit]:
    """Yield the formulas that one is taken for: the slope of tanh for that of a sigmoid."""
    for form, other in _forms():
        for bound in matches(form, site.node, {}, {}):
            if is_variable(bound.get("v", _VARIABLE)):
                new = written(other, bound, write.text)
                yield write.put(site, new, precedence(other), TOKENS)


def _at_other_end(write: _Writer) -> Iterator[Edit]:
    """Yield what is written at one end of an array, at the other end: `x[-1]` for `x[0]`."""
    text = write.text
    for each in text.statements:
        targets = each.targets if isinstance(each, ast.Assign) else []
        targets = [each.target] if isinstance(each, ast.AugAssign) else targets
        target = targets[0] if len(targets) == 1 else None
        if not isinstance(target, ast.Subscript):
            continue
        start, end = text.span(each)
        new, at = "", start
        indexed = (n for n in ast.walk(each) if isinstance(n, ast.Subscript))
        parts = [part for node in indexed for part in _indices(node)]
        for part in sorted(parts, key=text.span):
            if (other := _mirrored_place(text, part)) and text.span(part)[0] >= at:
                a, b = text.span(part)
                new, at = new + text.segment[at:a].decode() + other, b
        new += text.segment[at:end].decode()
        moved = any(_mirrored_place(text, part) for part in _indices(target))
        if moved and new.encode() not in text.segment:
            yield after(text, each, new, TOKENS)
            if isinstance(each, ast.AugAssign) and isinstance(each.op, ast.Add | ast.Sub):
                signs = ("+=", "-=") if isinstance(each.op, ast.Add) else ("-=", "+=")
                yield after(text, each, new.replace(*signs, 1), TOKENS)


def _mirrored_place(text: Text, part: ast.expr) -> str:
    """Return a place that is counted from the other end; "" where it is not known."""

    def number(node: ast.expr | None) -> int | None:
        known = node is None or re.fullmatch(r"-?\d+", text.of(node))
        return None if node is None or not known else int(text.of(node))

    if not isinstance(part, ast.Slice):
        value = number(part)
        return "" if value is None else str(-1 - value)
    if part.step is not None or (part.lower is None) == (part.upper is None):
        return ""
    value = number(part.lower if part.upper is None else part.upper)
    if not value:
        return ""
    return f":{-value}" if part.upper is None else f"{-value}:"


def added_again(text: Text, places: Sequence[str]) -> Iterator[Edit]:
    """Yield what is added at some places, added or taken away at others that are read as well."""
    write = _Writer(text)
    for statement in text.statements:
        call: Any = getattr(statement, "value", None)
        both: tuple[str, ...] = ()
        at = ""
        if isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Subscript):
            if isinstance(statement.op, ast.Add | ast.Sub):
                base, at, value = map(
                    text.of, (statement.target.value, statement.target.slice, call)
                )
                both = tuple(f"{base}[{{}}] {sign}= {value}" for sign in "-+")
        elif isinstance(statement, ast.Expr) and isinstance(call, ast.Call) and len(call.args) == 3:
            base, at, value = map(text.of, call.args)
            module = text.of(call.func).removesuffix("add.at")
            added = text.of(call.func) != module
            both = tuple(
                f"{module}{v}.at({base}, {{}}, {value})" for v in ("subtract", "add") if added
            )
        for place, form in itertools.product(places, both):
            if place != at:
                yield after(text, statement, form.format(place), TOKENS)
    for site in sites(text):
        node = site.node
        if isinstance(node, ast.Call) and last_name(node) == "add" and len(node.args) == 1:
            held: Any = getattr(node.func, "value", None)
            if last_name(getattr(held, "value", node)) == "at":
                for place in places:
                    if place != text.of(held.slice):
                        for value in (f"-{write.within(node.args[0], 14)}", text.of(node.args[0])):
                            new = f"{text.of(node)}.at[{place}].add({value})"
                            yield write.put(site, new, ATOM, TOKENS)


def turned_first(text: Text, turns: Sequence[str]) -> Iterator[Edit]:
    """Yield arrays with their axes in another order before they are reshaped."""
    for site in sites(text):
        node = site.node
        if isinstance(node, ast.Call) and node.args and last_name(node) == "reshape":
            array = node.args[0] if _of_module(node) else getattr(node.func, "value", None)
            if isinstance(array, ast.expr):
                mine, write = Site(array, (*site.parents, node), site.statement), _Writer(text)
                for turn in turns:
                    new = turn.replace("{}", write.within(array, ATOM))
                    yield write.put(mine, new, ATOM, TOKENS)


def parameters(text: Text) -> Iterator[Edit]:
    """Yield the function with two of its parameters in each other's place."""
    write, given = _Writer(text), text.tree.args.args
    for one, two in itertools.pairwise(given):
        (a, b), (c, d) = text.span(one), text.span(two)
        between = text.segment[b:c].decode()
        if not {"=", ":"} & set(between + text.segment[d : d + 1].decode()):
            yield write.piece(a, d, f"{two.arg}{between}{one.arg}", TOKENS, 0)


def after(text: Text, statement: ast.stmt, new: str, tier: int) -> Edit:
    """Return the edit that puts a statement behind another one."""
    start, end = text.span(statement)
    line = text.segment[text.segment.rfind(b"\n", 0, start) + 1 : start].decode()
    index = text.statements.index(statement)
    return Edit(end, end, "", f"\n{line}{new}", tier, index)


def _everywhere(write: _Writer) -> Iterator[Edit]:
    """Exchange two functions, or a fraction and its complement, wherever they stand."""
    text = write.text
    called: dict[tuple[ast.AST | None, str], list[Edit]] = {}
    named: dict[str, dict[int, Site]] = {}
    held: dict[str, list[Site]] = {}
    for site in sites(text):
        node = site.node
        if isinstance(node, ast.Attribute):
            end = text.span(node)[1]
            group = [g for g in _CONFUSED if node.attr in g]
            for other in itertools.chain(*group):
                start = end - len(node.attr)
                made = write.piece(start, end, other, TOKENS, site.statement)
                whole = (p for p in site.parents if isinstance(p, ast.stmt))
                parts = (
                    p
                    for p, q in zip((*site.parents, node)[1:], site.parents)
                    if isinstance(q, ast.Tuple)
                )
                for within in (None, *whole, *parts):  # in all, a statement, what it returns
                    called.setdefault((within, f"{node.attr} {other}"), []).append(made)
        if isinstance(node, ast.Name) and not is_stored(node):
            named.setdefault(node.id, {})[text.span(node)[0]] = site
        if isinstance(node, ast.BinOp) and symbol(node) == "-" and text.of(node.left) in "1 1.0":
            held.setdefault(text.of(node.right), []).append(site)
    for within, names in called:
        one, other = names.split()
        if one < other and (within, f"{other} {one}") in called:
            both = called[within, names] + called[within, f"{other} {one}"]
            yield write.joined(sorted(both, key=lambda edit: edit.start))
    for name, complements in held.items():
        inside = {text.span(getattr(s.node, "right"))[0] for s in complements}  # noqa: B009
        plain = [s for at, s in named.get(name, {}).items() if at not in inside]
        if plain:
            both = [write.put(s, name, ATOM, TOKENS) for s in complements]
            both += [write.put(s, f"1 - {name}", 12, TOKENS) for s in plain]
            yield write.joined(sorted(both, key=lambda edit: edit.start))


def _siblings(write: _Writer) -> Iterator[Edit]:
    """Exchange the names in which two assignments differ that are written alike."""
    text = write.text
    alike: dict[str, list[list[ast.Name]]] = {}
    for node in text.statements:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            names = [n for n in ast.walk(node.value) if isinstance(n, ast.Name)]
            blank = re.sub(r"id='\w+'", "", ast.dump(node.value))
            alike.setdefault(blank, []).append(names)
    spots = {id(site.node): site for site in sites(text)}
    for some in alike.values():
        for one, two in itertools.combinations(some[:_SIBLINGS], 2):
            pairs = [(a, b) for a, b in zip(one, two) if a.id != b.id]
            if len(pairs) == 1 and all(id(x) in spots for x in pairs[0]):
                a, b = pairs[0]
                both = [write.put(spots[id(x)], y.id, ATOM, TOKENS) for x, y in ((a, b), (b, a))]
                yield write.joined(sorted(both, key=lambda edit: edit.start))


def _operator(write: _Writer, site: Site, node: ast.BinOp) -> Iterator[Edit]:
    name, left, right = symbol(node), node.left, node.right
    yield from _between(write, site, left, name, right)
    binds = precedence(node)
    if name in ("-", "/", "@", "**", "//"):
        new = f"{write.within(right, binds)} {name} {write.within(left, binds + 1)}"
        yield write.put(site, new, binds, TOKENS)
    for each in (left, right) if name == "@" else ():
        mine = Site(each, (*site.parents, node), site.statement)
        if not (isinstance(each, ast.Attribute) and each.attr == "T"):
            yield write.put(mine, f"{write.within(each, ATOM)}.T", ATOM, TOKENS)
    multiplied = isinstance(site.parent, ast.BinOp) and symbol(site.parent) == "*"
    for kept in (left, right):
        if multiplied and isinstance(kept, ast.Constant) and kept.value == 1:
            continue  # nobody writes x * 1
        tier = TOKENS if name == "**" and kept is left else NAMES
        yield write.put(site, write.text.of(kept), precedence(kept), tier)
    if name == "-":
        yield write.put(site, f"-{write.within(right, 14)}", 14, NAMES)
    if name == "**":
        for exponent in ("1.5", "0.5", "-1", "3", "2", "4", "-2", "-0.5", "-1.5"):
            mine = Site(right, (*site.parents, node), site.statement)
            binds = 14 if exponent[0] == "-" else ATOM
            yield write.put(mine, exponent, binds, TOKENS)


def _scattered(
    write: _Writer, site: Site, node: ast.Subscript, aliases: Sequence[str]
) -> Iterator[Edit]:
    """Yield two edits of `a[i]`: its transpose; and zeros at `i` where `a` is returned."""
    text, base, index = write.text, write.text.of(node.value), write.text.of(node.slice)
    if isinstance(node.slice, ast.Constant | ast.Slice) or is_stored(node):
        return
    names = [each.arg for each in text.tree.args.args if each.arg not in (*aliases, base)]
    for like in names if aliases else ():
        new = f"{aliases[0]}.zeros_like({like}).at[{index}].add({base})"
        yield write.put(site, new, ATOM, TOKENS)
    for other in sites(text):
        if text.of(other.node) == base and isinstance(other.parent, ast.Return | ast.Tuple):
            yield write.put(other, f"{base}.at[{index}].set(0)", ATOM, TOKENS)


def _stepped(write: _Writer, site: Site, node: ast.Call) -> Iterator[Edit]:
    """Yield one less and one more of what is bounded to be an index."""
    bounded = last_name(node) in ("minimum", "maximum", "clip")
    if bounded and any(isinstance(p, ast.Subscript) or last_name(p) == "at" for p in site.parents):
        for each in node.args:
            if isinstance(each, ast.Name):
                for new in (f"{each.id} - 1", f"{each.id} + 1"):
                    yield write.piece(*write.text.span(each), new, TOKENS, site.statement)


def _between(
    write: _Writer, site: Site, left: ast.expr, old: str, right: ast.expr
) -> Iterator[Edit]:
    """Yield the operators that one between two expressions may be taken for."""
    start, end = write.text.span(left)[1], write.text.span(right)[0]
    at = write.text.segment.find(old.encode(), start, end)
    one, first = (isinstance(n, ast.Constant) and n.value == 1 for n in (right, left))
    for new in _OTHERS.get(old, "").split() if at >= 0 else ():
        if (one and new in ("*", "/", "**", "//")) or (first and new in ("*", "**")):
            continue  # nobody writes x * 1
        yield write.piece(at, at + len(old), new, TOKENS, site.statement)


def _constant(write: _Writer, site: Site, node: ast.Constant) -> Iterator[Edit]:
    value, parent = node.value, site.parent
    if isinstance(value, bool):
        yield write.put(site, str(not value), ATOM, TOKENS)
    elif isinstance(value, str) and "->" in value:
        quote = write.text.of(node)[-1]
        for i in range(len(value) - 1):
            if value[i].isalpha() and value[i + 1].isalpha():
                new = value[:i] + value[i + 1] + value[i] + value[i + 2 :]
                yield write.put(site, f"{quote}{new}{quote}", ATOM, TOKENS)
        inputs, out = value.split("->")
        if "," in inputs and inputs.count(",") == 1:
            first, second = inputs.split(",")
            new = f"{quote}{second},{first}->{out}{quote}"
            yield write.put(site, new, ATOM, TOKENS)
    elif isinstance(value, int | float):
        whole = site
        if isinstance(parent, ast.UnaryOp) and len(site.parents) > 1:
            whole = Site(parent, site.parents[:-1], site.statement)
        for new in _numbers(site, value):
            place = whole if new == "0" or new[0] in "-(" else site  # -1 becomes 0, not -0
            yield write.put(place, new, 14 if new[0] == "-" else ATOM, TOKENS)


def _numbers(site: Site, value: float) -> Iterator[str]:
    parent = site.parent
    axis = any(map(_is_axis, site.parents))
    axis = axis or (isinstance(parent, ast.Call) and last_name(parent.func) in REDUCTIONS)
    if axis and isinstance(value, int):
        yield from _AXES
        return
    index = any(isinstance(p, ast.Subscript) or last_name(p) in OF_PLACES for p in site.parents)
    power = isinstance(parent, ast.BinOp) and isinstance(parent.op, ast.Pow)
    added = isinstance(parent, ast.BinOp) and isinstance(parent.op, ast.Add | ast.Sub)
    news: list[float] = [value + 1, value - 1, -value]
    if not index:
        news += [2 * value, value / 2, value * value, 0, 1]
        news += [1 / value, 1 - value, value / 10, value * 10] if value else [0.5, 2]
    scaled = isinstance(parent, ast.BinOp) and isinstance(parent.op, ast.Mult | ast.Div | ast.Pow)
    idle = 0 if added else 1 if scaled else None  # there the constant goes altogether
    for new in dict.fromkeys(news):
        if (
            new not in (value, idle)
            and not (power and new == 0)
            and not (new < 0 and isinstance(parent, ast.UnaryOp))
        ):
            yield repr(int(new)) if new == int(new) else repr(float(new))


def _call(write: _Writer, site: Site, node: ast.Call) -> Iterator[Edit]:
    text, name = write.text, last_name(node.func)
    if node.args:
        yield from _exchanged(write, site, node.args)
    if name == "where" and len(node.args) == 3:
        for each in node.args[1:]:
            yield write.put(site, text.of(each), precedence(each), NAMES)
    elif node.args:
        kept = node.args[0]
        yield write.put(site, text.of(kept), precedence(kept), NAMES)
    if isinstance(node.func, ast.Attribute):
        kept = node.func.value
        if not (isinstance(kept, ast.Name) and kept.id in ("np", "jnp", "jax", "numpy", "lax")):
            yield write.put(site, text.of(kept), precedence(kept), NAMES)
    given = {keyword.arg for keyword in node.keywords}
    end = text.span(node)[1] - 1
    tail = text.segment[:end].rstrip()
    comma = "" if not (node.args or node.keywords) or tail.endswith(b",") else ", "
    if name in REDUCTIONS and len(node.args) <= 1 + (not _of_module(node)):
        positional = len(node.args) > (1 if _of_module(node) else 0)
        added = [] if "axis" in given or positional else [f"axis={a}" for a in _AXES]
        if "keepdims" not in given:
            added.append("keepdims=True")
            added += [f"axis={a}, keepdims=True" for a in _AXES[:3] if len(added) > 1]
        for new in added:
            yield write.piece(end, end, comma + new, TOKENS, site.statement)
    if name in ("cumsum", "cumprod") and node.args:
        axis = next((text.of(k.value) for k in node.keywords if k.arg == "axis"), "0")
        index = {"0": "::-1", "-1": "..., ::-1"}.get(axis, ":, " * (axis == "1") + "::-1")
        turned = f"{write.within(node.args[0], ATOM)}[{index}]"
        new = text.of(node).replace(text.of(node.args[0]), turned, 1)
        yield write.put(site, f"{new}[{index}]", ATOM, TOKENS)
    for each in node.args:  # what runs backwards comes out backwards
        if isinstance(each, ast.Subscript) and any(map(_is_backwards, _indices(each))):
            yield write.put(site, f"{text.of(node)}[{text.of(each.slice)}]", ATOM, TOKENS)
    if name in ("tile", "repeat") and len(node.args) == 2:
        yield from _repeated(write, site, node)
    if name == "at" and len(node.args) == 3:
        index = text.of(node.args[1])
        for new in _next_to(text, node.args[1]) if index != ":" else ():
            yield write.piece(*text.span(node.args[1]), new, TOKENS, site.statement)
    if name == "scan" and "reverse" not in given:
        yield write.piece(end, end, comma + "reverse=True", TOKENS, site.statement)
    for i, keyword in enumerate(node.keywords):
        if keyword.arg == "axis" and not isinstance(keyword.value, ast.Constant):
            mine = Site(keyword.value, (*site.parents, node, keyword), site.statement)
            for axis in write.axes:
                if axis != text.of(keyword.value):
                    yield write.put(mine, axis, ATOM, TOKENS)
        start, stop = text.span(keyword)
        before: list[ast.expr | ast.keyword] = [*node.args, *node.keywords[:i]]
        if before:
            start = text.span(before[-1])[1]
            yield write.piece(start, stop, "", NAMES, site.statement)


def _repeated(write: _Writer, site: Site, node: ast.Call) -> Iterator[Edit]:
    """Exchange `tile` and `repeat`, which take how often in other ways."""
    text, (array, times) = write.text, node.args
    called, here = text.of(node.func), text.of(array)
    if last_name(node) == "repeat":
        axis = next((text.of(k.value) for k in node.keywords if k.arg == "axis"), "")
        several = {"": "{}", "0": "({}, 1)", "1": "(1, {})", "-1": "(1, {})", "2": "(1, 1, {})"}
        new = several.get(axis, "{}").format(text.of(times))
        news = [f"{called.replace('repeat', 'tile')}({here}, {new})"]
    else:
        each = times.elts if isinstance(times, ast.Tuple) else [times]
        axes = [f", axis={k}" if len(each) > 1 else "" for k in range(len(each))]
        called = called.replace("tile", "repeat")
        news = [f"{called}({here}, {text.of(n)}{axis})" for n, axis in zip(each, axes)]
    for new in news:
        yield write.put(site, new, ATOM, TOKENS)


def _attribute(
    write: _Writer, site: Site, node: ast.Attribute, held: frozenset[str]
) -> Iterator[Edit]:
    text, base = write.text, node.value
    if node.attr == "T":
        yield write.put(site, text.of(base), precedence(base), TOKENS)
    end = text.span(node)[1]
    if node.attr == "size":  # of a mask, what it lets pass counts
        yield write.put(site, f"{text.of(base)}.sum()", ATOM, TOKENS)
    for group in _CONFUSED:
        if node.attr in group:
            for other in group:
                if other != node.attr and (other in held or other == "set"):
                    start = end - len(node.attr)
                    yield write.piece(start, end, other, TOKENS, site.statement, -3)


def _subscript(write: _Writer, site: Site, node: ast.Subscript) -> Iterator[Edit]:
    text, base = write.text, node.value
    if isinstance(node.ctx, ast.Load):
        yield write.put(site, text.of(base), precedence(base), NAMES)
        if isinstance(base, ast.Call) and any(map(_is_backwards, _indices(node))):
            for given in base.args[:2]:
                index = f"{write.within(given, ATOM)}[{text.of(node.slice)}]"
                mine = Site(given, (*site.parents, node, base), site.statement)
                yield write.put(mine, index, ATOM, TOKENS)
        whole = [text.of(part) in (":", "...") for part in _indices(node)]
        for axis, part in enumerate(_indices(node)):  # an entry for the sum of all
            single = isinstance(part, ast.Constant) and type(part.value) is int
            if single and sum(whole) == len(whole) - 1 and getattr(base, "attr", "") != "shape":
                at = axis if all(text.of(p) == ":" for p in _indices(node)[:axis]) else -1
                yield write.put(site, f"{text.of(base)}.sum(axis={at})", ATOM, TOKENS)
    for part in _indices(node):
        start, end = text.span(part)
        if isinstance(part, ast.Slice):
            lower, upper = (p and text.of(p) for p in (part.lower, part.upper))
            news = [f"{upper or ''}:{lower or ''}"] if lower or upper else []
            news += ["1:"] if upper == "-1" else [":-1"] if lower == "1" else []
            news += [f"{lower}:"] if upper and lower else []
            step = part.step and text.of(part.step)
            news = [":"] if step == "-1" else news if step is None else []
            news += ["::-1"] if (lower, upper, step) == (None, None, None) else []
            for new in news:
                yield write.piece(start, end, new, TOKENS, site.statement)
        elif isinstance(part, ast.Name | ast.BinOp):
            for new in _next_to(text, part):
                yield write.piece(start, end, new, TOKENS, site.statement)


def _is_backwards(part: ast.expr) -> bool:
    step = part.step if isinstance(part, ast.Slice) else None
    return isinstance(step, ast.UnaryOp) and isinstance(step.op, ast.USub)


def _next_to(text: Text, place: ast.expr) -> list[str]:
    """Return the places on both sides of one: `i` for `i + 1`."""
    if isinstance(place, ast.BinOp) and isinstance(place.right, ast.Constant):
        return [text.of(place.left)]
    return [f"{text.of(place)} + 1", f"{text.of(place)} - 1"]


def turned(text: Text, site: Site) -> Iterator[str]:
    """Yield a product of matrices with some of them transposed: a symmetric form has two terms."""
    parts, node = list[str](), site.node
    whole = isinstance(site.parent, ast.BinOp) and symbol(site.parent) == "@"
    while isinstance(node, ast.BinOp) and symbol(node) == "@" and not whole:
        parts, node = [text.of(node.right), *parts], node.left
    parts = [text.of(node), *parts] if parts else []
    if 1 < len(parts) <= 3 and all(p.replace(".", "").isidentifier() for p in parts):
        ways = [(p, p[:-2] if p.endswith(".T") else f"{p}.T") for p in parts]
        yield from itertools.islice(map(" @ ".join, itertools.product(*ways)), 1, None)


def slices(text: Text) -> Iterator[str]:
    """Yield the slices that a function writes, as an index holds them: `1::3`, or by name."""
    for site in sites(text):
        for part in _indices(site.node):
            if isinstance(part, ast.Slice):
                yield text.of(part)
        called = isinstance(site.node, ast.Call) and last_name(site.node) == "slice"
        if called and isinstance(site.parent, ast.Assign):
            yield from (t.id for t in site.parent.targets if isinstance(t, ast.Name))


def written_elsewhere(text: Text, written: Sequence[str], numbers: Sequence[str]) -> Iterator[Edit]:
    """Yield other slices and other numbers, of those that the user's source writes."""
    write = _Writer(text)
    for site in sites(text):
        for new in numbers if isinstance(site.node, ast.Constant) and is_number(site) else ():
            if new != text.of(site.node):
                yield write.put(site, new, ATOM, NAMES)
        for part in _indices(site.node):
            for new in written if isinstance(part, ast.Slice) else ():
                yield write.piece(*text.span(part), new, NAMES, site.statement)
        if isinstance(site.node, ast.Subscript) and len(_cut_parts(site.node)) > 1:
            for index in dict.fromkeys(_indices_like(text, site.node)):
                start, end = text.span(site.node.slice)
                yield write.piece(start, end, index, NAMES, site.statement)
        if isinstance(site.node, ast.Call) and last_name(site.node) == "slice":
            for new in written:
                parts = (*new.split(":"), "")[:3] if 0 < new.count(":") < 3 else ()
                called = ", ".join(p.strip() or "None" for p in parts)
                if called:
                    new = f"{text.of(site.node.func)}({called})"
                    yield write.put(site, new, ATOM, NAMES)


def _cut_parts(node: ast.Subscript) -> list[ast.Slice]:
    return [p for p in _indices(node) if isinstance(p, ast.Slice) and (p.lower or p.upper)]


def _indices_like(text: Text, node: ast.Subscript) -> Iterator[str]:
    """Yield the indices that cut as many axes elsewhere in a function, in another way."""
    every = (site.node for site in sites(text))
    for other in (each for each in every if isinstance(each, ast.Subscript)):
        same = len(_indices(other)) == len(_indices(node))
        same = same and len(_cut_parts(other)) == len(_cut_parts(node))
        if same and text.of(other.slice) != text.of(node.slice):
            yield text.of(other.slice)


def shifted(text: Text, site: Site, places: Sequence[str]) -> Iterator[Edit]:
    """Yield other slices of an array, from and to places that have a name."""
    write = _Writer(text)
    ends = [f"{p}:{p} + {q}" for p, q in itertools.permutations(places, 2)]
    for part in _indices(site.node):
        if isinstance(part, ast.Slice) and part.step is None:
            for new in (*(f"{p}:-{p}" for p in places), *(f"{p}:" for p in places), *ends):
                yield write.piece(*text.span(part), new, NAMES, site.statement)
    cut = [p for p in _indices(site.node) if isinstance(p, ast.Slice) and p.step is p.lower is None]
    cut = [part for part in cut if part.upper is not None]
    for p in places if len(cut) > 1 else ():  # along several axes at once
        pieces = [(part, f"{p}:{p} + {text.of(part.upper)}") for part in cut if part.upper]
        yield write.joined(
            [write.piece(*text.span(part), new, NAMES, site.statement) for part, new in pieces]
        )


def _indices(node: ast.expr) -> Sequence[ast.expr]:
    index = getattr(node, "slice", None)
    return index.elts if isinstance(index, ast.Tuple) else [index] if index is not None else []


def others(text: Text, node: ast.Subscript) -> Iterator[str]:
    """Yield the other part of what a slice cuts off, `x[3:]` for `x[:3]`, and what is beside."""
    start = text.span(node)[0]
    for part in _indices(node):
        if isinstance(part, ast.Slice) and (part.lower is None) != (part.upper is None):
            (a, b), here = text.span(part), text.of(node).encode()
            bounds = (p and text.of(p) for p in (part.upper, part.lower))
            new = ":".join(p or "" for p in bounds)
            yield (here[: a - start] + new.encode() + here[b - start :]).decode()
        for new in _beside(text, part):
            (a, b), here = text.span(part), text.of(node).encode()
            yield (here[: a - start] + new.encode() + here[b - start :]).decode()


def _beside(text: Text, place: ast.expr) -> Iterator[str]:
    """Yield the places next to one that a loop counts: `t` for `t + 1`."""
    counted = isinstance(place, ast.BinOp) and isinstance(place.right, ast.Constant)
    name = text.of(place.left) if counted and isinstance(place, ast.BinOp) else text.of(place)
    loops = (s.target for s in text.statements if isinstance(s, ast.For))
    if name in {n.id for t in loops for n in ast.walk(t) if isinstance(n, ast.Name)}:
        yield from [name] if counted else (f"{name} - 1", f"{name} + 1")


def _exchanged(write: _Writer, site: Site, parts: Sequence[ast.expr]) -> Iterator[Edit]:
    """Exchange two parts of a list, next to each other first."""
    text = write.text
    pairs = itertools.combinations(range(len(parts)), 2)
    for i, j in sorted(pairs, key=lambda p: p[1] - p[0]):
        (a, b), (c, d) = text.span(parts[i]), text.span(parts[j])
        between = text.segment[b:c].decode()
        new = f"{text.of(parts[j])}{between}{text.of(parts[i])}"
        if text.of(parts[i]) != text.of(parts[j]):
            yield write.piece(a, d, new, TOKENS, site.statement)


def _anywhere(write: _Writer, site: Site) -> Iterator[Edit]:
    """Signs and directions, where a whole value stands."""
    text, node, parent = write.text, site.node, site.parent
    if is_stored(node):
        return
    whole = isinstance(parent, ast.Assign | ast.AugAssign | ast.Return | ast.Tuple)
    whole = whole or (isinstance(parent, ast.Call) and node in parent.args)
    inside = not any(isinstance(p, ast.Subscript | ast.keyword) for p in site.parents)
    if whole and inside and not isinstance(node, ast.Tuple | ast.Constant | ast.UnaryOp):
        yield write.put(site, f"-{write.within(node, 14)}", 14, TOKENS)
    if (isinstance(parent, ast.For) and node is parent.iter) or last_name(parent) == "zip":
        if isinstance(node, ast.Call) and last_name(node) == "range":
            yield write.put(site, f"reversed({text.of(node)})", ATOM, TOKENS)
        elif isinstance(node, ast.Name):
            yield write.put(site, f"{text.of(node)}[::-1]", ATOM, TOKENS)


def _statement(
    write: _Writer, index: int, statement: ast.stmt, aliases: Sequence[str]
) -> Iterator[Edit]:
    text = write.text
    start, end = text.span(statement)
    if isinstance(statement, ast.AugAssign):
        target, value = text.span(statement.target), text.span(statement.value)
        at = text.segment.find(b"=", target[1], value[0])
        yield write.piece(at - 1, at + 1, "=", TOKENS, index)
        for new in "+-*/":
            if text.segment[at - 1 : at].decode() != new:
                yield write.piece(at - 1, at, new, TOKENS, index)
        verb = {ast.Add: "add", ast.Sub: "subtract"}.get(type(statement.op))
        if verb is not None:
            yield from _added(write, index, statement.target, statement.value, aliases, verb)
    elif isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        target, value = text.span(statement.targets[0]), text.span(statement.value)
        at = text.segment.find(b"=", target[1], value[0])
        if not isinstance(statement.targets[0], ast.Tuple):
            yield write.piece(at, at + 1, "+=", TOKENS, index)
        made = [s.targets[0] for s in text.statements if isinstance(s, ast.Assign)]
        named = [each.id for each in made if isinstance(each, ast.Name)]
        if named.count(text.of(statement.targets[0])) > 1:  # one of them may be meant for another
            for name in dict.fromkeys(named):
                yield write.piece(*target, name, TOKENS, index)
        yield from _added(write, index, statement.targets[0], statement.value, aliases)
    elif isinstance(statement, ast.If):
        mine = Site(statement.test, (statement,), index)
        new = f"not ({text.of(statement.test)})"
        yield write.put(mine, new, 6, TOKENS)
    if isinstance(statement, ast.Assign | ast.AugAssign | ast.Return | ast.Expr):
        yield from _crossed(write, index, statement, aliases)
    simple = ast.Assign | ast.AugAssign | ast.Expr | ast.Continue
    if isinstance(statement, simple):
        yield write.piece(start, end, "pass", NAMES, index)
    following = _next(text, statement)
    one, two = (list(_added_value(s)) for s in (statement, following))
    if one and two and one[0] == two[0] and text.of(one[1]) != text.of(two[1]):
        both = [(one[1], two[1]), (two[1], one[1])]  # what each adds is the other's
        pieces = [write.piece(*text.span(a), text.of(b), TOKENS, index) for a, b in both]
        yield write.joined(pieces)
    if following is not None:
        a, b = text.span(following)
        between = text.segment[end:a].decode()
        new = text.segment[a:b].decode() + between + text.segment[start:end].decode()
        first = min(index, text.statements.index(following))
        yield write.piece(start, b, new, TOKENS, first)


def _added_value(statement: ast.stmt | None) -> Iterator[Any]:
    """Yield to what a statement adds, as `np.add.at` and `+=` do, and then what it adds."""
    call = statement.value if isinstance(statement, ast.Expr) else None
    if isinstance(call, ast.Call) and last_name(call) == "at" and len(call.args) == 3:
        yield from (ast.dump(call.func) + ast.dump(call.args[0]), call.args[2])
    if isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Subscript):
        yield from (ast.dump(statement.op) + ast.dump(statement.target.value), statement.value)


def unshared(text: Text) -> Iterator[Edit]:
    """Yield new arrays, where one is changed in place that something else may hold."""
    write = _Writer(text)
    changed = {base_name(s.target) for s in text.statements if isinstance(s, ast.AugAssign)}
    changed |= written_in_parts(text)
    for index, statement in enumerate(text.statements):
        if isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name):
            name, binds = statement.target.id, _BINARY.get(type(statement.op), 16)
            operator = symbol(ast.BinOp(statement.target, statement.op, statement.value))
            value = write.within(statement.value, binds + 1)
            new = f"{name} = {name} {operator} {value}"
            yield write.piece(*text.span(statement), new, TOKENS, index)
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        held = getattr(statement, "value", None)
        if isinstance(held, ast.Name) and not changed.isdisjoint(map(base_name, targets)):
            mine = Site(held, (statement,), index)
            yield write.put(mine, f"{held.id}.copy()", ATOM, TOKENS)


def placed(text: Text, names: Sequence[str], alias: str) -> Iterator[Edit]:
    """Yield the places that arrays of indices hold, where others are written or read."""
    write = _Writer(text)
    for site in sites(text):
        node = site.node
        if isinstance(node, ast.Subscript) and not isinstance(node.slice, ast.Constant):
            for name in names:
                rows = f"{alias}.arange(len({name}))"
                for new in (name, f":, {name}", f"{rows}, {name}", f"{rows}[:, None], {name}"):
                    if name not in text.of(node):
                        yield write.piece(*text.span(node.slice), new, NAMES, site.statement)


def _added(
    write: _Writer,
    index: int,
    target: ast.expr,
    value: ast.expr,
    aliases: Sequence[str],
    verb: str = "add",
) -> Iterator[Edit]:
    """Add values at indices, of which one may stand there twice."""
    text = write.text
    for alias in aliases[:1]:
        if not isinstance(target, ast.Subscript):
            return
        base, place = text.of(target.value), text.of(target.slice)
        new = f"{alias}.{verb}.at({base}, {place}, {text.of(value)})"
        start, end = text.span(target)[0], text.span(value)[1]
        yield write.piece(start, end, new, TOKENS, index)


def _crossed(
    write: _Writer, index: int, statement: ast.stmt, aliases: Sequence[str]
) -> Iterator[Edit]:
    """Exchange two names, each of which stands where the other should."""
    text, called = write.text, set[ast.AST]()
    for node in ast.walk(statement):
        called |= {node.func} if isinstance(node, ast.Call) else set()
        base = node.value if isinstance(node, ast.Attribute) else None
        called |= {base.value} if isinstance(base, ast.Attribute) else set()  # as `jax.lax.scan`
    read = (n for n in ast.walk(statement) if isinstance(n, ast.Name) and n not in called)
    found = sorted(text.span(name) for name in read if isinstance(name.ctx, ast.Load))
    chosen = [n for n in ast.walk(statement) if isinstance(n, ast.IfExp)]
    sides = [(*text.span(n.body), *text.span(n.orelse)) for n in chosen]
    own = {n.id for n in ast.walk(text.tree) if isinstance(n, ast.Name) and is_stored(n)}
    own |= {each.arg for each in text.tree.args.args}
    changed = {base_name(n) for n in ast.walk(statement) if is_stored(n)}
    for (a, b), (c, d) in itertools.combinations(found, 2):
        first, last = text.segment[a:b].decode(), text.segment[c:d].decode()
        if not {first, last}.isdisjoint(changed) and not {first, last} <= own:
            continue  # what the module holds must stay as it is
        if any(p <= a < q and r <= c < s for p, q, r, s in sides):
            continue  # one of the two never runs
        if first != last and first not in aliases and last not in aliases:
            new = f"{last}{text.segment[b:c].decode()}{first}"
            yield write.piece(a, d, new, NAMES, index)


def _next(text: Text, statement: ast.stmt) -> ast.stmt | None:
    """Return the statement after this one, in the same block."""
    blocks: Iterable[ast.AST] = (text.tree, *text.statements)
    for block in blocks:
        for name in ("body", "orelse"):
            body = getattr(block, name, None)
            if isinstance(body, list) and statement in body[:-1]:
                following: ast.stmt = body[body.index(statement) + 1]
                return None if isinstance(following, ast.Return) else following
    return None


def names(
    text: Text,
    site: Site,
    shape: tuple[int, ...],
    pool: Sequence[Material],
    again: bool,
    calls: Sequence[str],
    upstreamed: frozenset[str],
) -> Iterator[Edit]:
    """Yield another value in the place of this one; where it runs `again`, beside it too.

    No product of two that are `upstreamed`, and no sum of one with another, is a gradient.
    """
    write, old = _Writer(text), text.of(site.node)
    linear = not upstreamed.isdisjoint(_WORDS.findall(old))
    named = isinstance(site.node, ast.Name | ast.Attribute | ast.Subscript)
    placed = not shape and _is_place(site)
    if placed:
        pool = [m for m in pool if m.value.dtype.kind in "iu" and ".size" not in m.text]
    if named and len(shape) >= 2:
        yield write.put(site, f"{old}.T", ATOM, NAMES)
    named = named or isinstance(site.parent, ast.Compare)
    if isinstance(site.node, ast.Constant) and not named:  # a number that has a name
        pool = [each for each in pool if not each.is_number]
    for each in pool:
        if each.text != old and (named or each.shape == shape):
            tier = TRIED if named and each.is_number else NAMES  # names before numbers
            also = not upstreamed.isdisjoint(_WORDS.findall(each.text))
            yield write.put(site, each.text, each.binds, tier, _STRANGE * (also != linear))
    if not shape and isinstance(site.node, ast.Name | ast.Call | ast.Subscript | ast.Attribute):
        for sign in "-+":  # one less or one more of what is counted
            yield write.put(site, f"{old} {sign} 1", 12, NAMES)
    for count in _counts(text, site):
        yield write.put(site, count, 13, NAMES)
    yield from _moved_in(write, site, pool)
    multiplied = set(factors(text, site.node))
    for each in pool if again and not isinstance(site.node, ast.Constant) else ():
        if placed and not each.text.isidentifier():
            continue  # a place is made of counts and strides that have names
        if each.text == old and not each.is_number and np.all((each.value > 0) & (each.value < 1)):
            yield write.put(site, f"1 - {old}", 12, NAMES)
        also = not upstreamed.isdisjoint(_WORDS.findall(each.text))
        if each.shape in (shape, ()) and each.text != old:  # never twice the same
            added = each.shape == shape and each.text.removeprefix("-") not in multiplied
            forms = ["{s} * {m}"] * (not (linear and also)) + ["{s} / {m}"] * (not also)
            forms += ["{s} + {m}", "{s} - {m}"] * (added and (linear == also or not upstreamed))
            for form in forms:
                edit = filled(text, site, form, each)
                strange = _STRANGE * (also and not linear)  # it is no gradient as it stands
                yield dataclasses.replace(edit, tier=NAMES, cost=edit.cost + strange)
    compared = isinstance(site.parent, ast.Compare) and not isinstance(site.node, ast.Constant)
    functions = calls if compared else ()
    wrapped = (again or not shape) and not isinstance(site.node, ast.Constant)
    for edit, new in wraps(text, site, functions) if wrapped or functions else ():
        if not (linear and new[:1] != "-"):
            yield dataclasses.replace(edit, tier=NAMES)
    whole = isinstance(site.parent, ast.Assign | ast.AugAssign | ast.Return | ast.Tuple)
    alike = [m for m in pool if m.shape == shape and not m.is_number and "(" not in m.text]
    movers = [m for m in alike if not upstreamed.isdisjoint(_WORDS.findall(m.text))]
    for one in movers if again and linear and whole else ():
        for two in (m for m in alike if m not in movers and m.text != old):
            product = Material(f"{one.text} * {two.text}", 13, (np.multiply(one.value, two.value),))
            yield dataclasses.replace(filled(text, site, "{s} + {m}", product), tier=NAMES)


def _moved_in(write: _Writer, site: Site, pool: Sequence[Material]) -> Iterator[Edit]:
    """Yield what a call or a matrix product is multiplied by, or another array, inside of it."""
    node, text = site.node, write.text
    if not isinstance(node, ast.BinOp) or symbol(node) not in ("*", "/"):
        return
    made = node.left
    array = made.args[0] if isinstance(made, ast.Call) and made.args else None
    if isinstance(made, ast.BinOp) and symbol(made) == "@":
        array = made.right
    named = (m.text for m in pool if m.shape and m.binds == ATOM)
    if array is None:
        return
    for new in (text.of(node.right), *named):
        inner = f"{write.within(array, 13)} {symbol(node)} {new}"
        inner = f"({inner})" if isinstance(made, ast.BinOp) else inner
        (a, b), start = text.span(array), text.span(made)[0]
        here = text.of(made).encode()
        whole = (here[: a - start] + inner.encode() + here[b - start :]).decode()
        yield write.put(site, whole, precedence(made), NAMES)


def _is_place(site: Site) -> bool:
    """Whether a number is an index, or bounds one."""
    made = ("range", "zeros", "ones", "empty", *OF_PLACES)
    return any(isinstance(p, ast.Subscript) or last_name(p) in made for p in site.parents)


def _counts(text: Text, site: Site) -> Iterator[str]:
    """Yield products of the lengths of one array's axes, in the place of one of them."""
    old, used = text.of(site.node), isinstance(site.parent, ast.Assign | ast.BinOp)
    for each in text.statements if used else ():
        if not isinstance(each, ast.Assign) or not text.of(each.value).endswith(".shape"):
            continue
        lengths = [text.of(n) for n in ast.walk(each.targets[0]) if isinstance(n, ast.Name)]
        for count in range(2, len(lengths) + 1) if old in lengths else ():
            some = itertools.combinations(lengths, count)
            yield from (" * ".join(names) for names in some if old in names)


def summed(
    text: Text, site: Site, shape: tuple[int, ...], wanted: tuple[int, ...]
) -> Iterator[Edit]:
    """Yield the sums of a value over some of its axes that have the shape which is wanted."""
    write = _Writer(text)
    here, every = write.within(site.node, ATOM), range(len(shape))
    for axes in itertools.chain(*(itertools.combinations(every, k + 1) for k in every)):
        written = str(axes[0]) if len(axes) == 1 else str(axes)
        left = tuple(n for k, n in enumerate(shape) if k not in axes)
        kept = tuple(1 if k in axes else n for k, n in enumerate(shape))
        for result, more in ((left, ""), (kept, ", keepdims=True")):
            if result == wanted:
                new = f"{here}.sum(axis={written}{more})"
                yield write.put(site, new, ATOM, NAMES)


def conjugated(text: Text, places: Iterable[Site]) -> Iterator[Edit]:
    """Yield the conjugates of some values."""
    write = _Writer(text)
    for site in places:
        if isinstance(site.node, ast.Name | ast.Call | ast.Subscript):
            yield write.put(site, f"{text.of(site.node)}.conj()", ATOM, TOKENS, -18)


def factors(text: Text, node: ast.expr) -> Iterator[str]:
    """Yield what a product multiplies: nobody adds a factor of it to it."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult | ast.Div):
        yield from factors(text, node.left)
        yield from factors(text, node.right)
    elif isinstance(node, ast.UnaryOp):
        yield from factors(text, node.operand)
    else:
        yield text.of(node)


def both(text: Text, some: Sequence[Edit]) -> Iterator[Edit]:
    """Yield two edits of one statement as one."""
    ordered = sorted(some, key=lambda edit: edit.start)
    for one, two in itertools.combinations(ordered, 2):
        if one.end <= two.start:
            between = text.segment[one.end : two.start].decode()
            old, new = one.old + between + two.old, one.new + between + two.new
            yield dataclasses.replace(one, end=two.end, old=old, new=new, cost=one.cost + two.cost)


def moved(text: Text, site: Site) -> Edit:
    """Return the edit that moves a value, to see what depends on it."""
    write = _Writer(text)
    return write.put(site, f"{write.within(site.node, 12)} + __moved__", 12, SOLVED)


def nudged(text: Text, index: int) -> Edit | None:
    """Return the edit that moves what a statement makes, to see what depends on it."""
    statement = text.statements[index]
    if not isinstance(statement, ast.Assign | ast.AugAssign | ast.Return):
        return None
    value = statement.value
    if value is None:
        return None
    new = f"__nudged__({text.of(value)})"
    return _Writer(text).piece(*text.span(value), new, SOLVED, index)


def filled(text: Text, site: Site, form: str, each: Material, tier: int = SOLVED) -> Edit:
    """Return the edit that puts a text beside a value: `{m}`, `{s} * {m}`, `{s} + {m}`."""
    write = _Writer(text)
    new = each.text
    if form == "{m}":
        return write.put(site, new, each.binds, tier, len(new))
    product = form[4:5] in ("*", "/")
    here = write.within(site.node, 13 if product else 12)
    if new.startswith("-") and not product:
        form, new = form.replace("+", "-"), new[1:]
    if form == "1 + {m} * {s}":
        tight, here = each.binds >= 13, write.within(site.node, 14)
        new = form.format(s=here, m=new if tight else f"({new})")
        return write.put(site, new, 12, SOLVED)
    tight = each.binds >= {"*": 13, "/": 14, "+": 12, "-": 13}[form[4]]
    new = form.format(s=here, m=new if tight else f"({new})")
    known = -6 if each.slope else 0 if product else 3  # everybody writes it so, a term is rarer
    return write.put(site, new, 13 if product else 12, SOLVED, known)


def styled(text: Text, site: Site, new: str) -> str:
    """Return a reduction as the call in whose place it stands writes one: `np.sum(v, axis=1)`."""
    node, made = site.node, _REDUCED.fullmatch(new)
    if made is None or not isinstance(node, ast.Call) or not _of_module(node):
        return ""
    more: list[ast.expr | ast.keyword] = [*node.args[1:], *node.keywords]
    given = "".join(f", {text.of(each)}" for each in more)
    same = made[2] == last_name(node)
    return f"{text.of(node.func)}({made[1]}{given})" if same and given else ""


def wraps(text: Text, site: Site, functions: Sequence[str]) -> Iterator[tuple[Edit, str]]:
    """Yield functions of a value, of those that the user's source calls, and their texts."""
    write, here = _Writer(text), text.of(site.node)
    tight = write.within(site.node, ATOM)
    for function in functions:
        new = function.replace("{}", tight if function.startswith("{}") else here)
        yield write.put(site, new, ATOM, SOLVED), new
    if isinstance(site.node, ast.BinOp):  # `np.linalg.solve(a, b)` for `a @ b`
        operands = f"({text.of(site.node.left)}, {text.of(site.node.right)})"
        for called in pairs_called(text):
            yield write.put(site, f"{called}{operands}", ATOM, SOLVED), f"{called}{operands}"
    squared = write.within(site.node, 16)
    for new, binds in ((f"{squared}**2", 15), (f"1 / {write.within(site.node, 14)}", 13)):
        yield write.put(site, new, binds, SOLVED), new
    if not isinstance(site.node, ast.UnaryOp):
        new = f"-{write.within(site.node, 14)}"
        yield write.put(site, new, 14, SOLVED), new


@functools.lru_cache(maxsize=64)
def pairs_called(text: Text) -> tuple[str, ...]:
    """Return what a file calls with two values, such as `np.linalg.solve`."""
    calls = [n for n in ast.walk(ast.parse(text.file)) if isinstance(n, ast.Call)]
    listed = (ast.Tuple, ast.List, ast.Constant)
    calls = [n for n in calls if len(n.args) == 2 and not n.keywords and is_variable(n.func)]
    calls = [n for n in calls if not any(isinstance(each, listed) for each in n.args)]
    names = (ast.unparse(n.func) for n in calls if isinstance(n.func, ast.Attribute))
    return tuple(dict.fromkeys(names))[:_SIBLINGS]


def normalised(text: Text, site: Site, dimensions: int) -> Iterator[tuple[Edit, str]]:
    """Yield a value without its mean, or over its sum, along each axis; and their texts."""
    write = _Writer(text)
    here = write.within(site.node, ATOM)
    for axis in range(dimensions):
        for sign, verb in (("/", "sum"), ("-", "mean")):
            new = f"{write.within(site.node, 13)} {sign} {here}.{verb}(axis={axis}, keepdims=True)"
            yield write.put(site, new, 13 if sign == "/" else 12, SOLVED), new


def symmetrised(text: Text, site: Site) -> Iterator[tuple[Edit, str]]:
    """Yield the symmetric part of a square matrix, and twice that; and their texts."""
    write = _Writer(text)
    new = f"{write.within(site.node, 12)} + {write.within(site.node, ATOM)}.T"
    for whole, binds in ((f"0.5 * ({new})", 13), (new, 12)):
        yield write.put(site, whole, binds, SOLVED), whole


def is_cut(node: ast.AST) -> bool:
    """Whether an expression is a part of a variable, with a slice: `states[1:]`."""
    return isinstance(node, ast.Subscript) and bool(_cut_parts(node)) and is_variable(node.value)


def is_variable(node: ast.AST) -> bool:
    """Whether a reader takes an expression for a variable: `r`, `self.r`, `p["r"]`."""
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        return isinstance(node.slice.value, str) and is_variable(node.value)
    return isinstance(node, ast.Name) or (
        isinstance(node, ast.Attribute) and is_variable(node.value)
    )


def last_name(node: ast.AST) -> str:
    """Return the last name of what is called or read."""
    if isinstance(node, ast.Call):
        return last_name(node.func)
    name: str = getattr(node, "attr", "") or getattr(node, "id", "")
    return name


def _of_module(node: ast.Call) -> bool:
    """Whether a reduction is called with its array as an argument, as `np.sum(x)`."""
    func = node.func
    return isinstance(func, ast.Name) or (
        isinstance(func, ast.Attribute)
        and isinstance(func.value, ast.Name | ast.Attribute)
        and (last_name(func.value) in ("np", "jnp", "numpy", "nn", "lax", "special", "xp"))
    )
