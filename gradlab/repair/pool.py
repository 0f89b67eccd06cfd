"""What an edit may put in: the values in scope, and what is commonly made of them."""

import ast
import functools
import importlib
import itertools
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from types import CodeType
from typing import Any

import numpy as np

from gradlab.common.arrays import NumPyArray as Array
from gradlab.common.arrays import Tree
from gradlab.repair.edits import (
    Material,
    base_name,
    is_bound,
    is_number,
    is_stored,
    last_name,
    others,
    sites,
    slices,
    turned,
)
from gradlab.repair.solving import one_sign
from gradlab.repair.source import ATOM, Text
from gradlab.repair.standin import Namespace
from gradlab.repair.world import BUILTINS, NUMPY, Failed, copied, has_effect, is_pure, theirs

_LARGEST = 1 << 16
_BOUNDS, _SLICES, _PRODUCTS, _CHAINS = 3, 8, 4, 21
_PARTS = 4  # of a tuple
_COUNTS = 4  # whole numbers with a name, of which products are made
_SHIFTED = 6  # arrays whose rows are shifted
_PLACES = 6  # that arrays are indexed with


@dataclass(frozen=True)
class Words:
    """What a user's source writes, from which edits are made.

    Attributes:
        aliases: the names of NumPy or `jax.numpy` in a function's scope.
        held: what these modules hold, and methods of arrays.
        calls: what is called with one value, such as `np.exp({})`.
        written: numbers, entries, slices and calls, such as `upstream[i]` and `sigmoid(z)`.
        bounds: the numbers that values are compared with.
        bounded: what bounds or masks a value by numbers, such as `np.maximum({}, 0.5)`.
        slices: of arrays, such as `1::3`.
        products: that the one to edit multiplies, such as `g * w`.
        turns: whether the one to edit has a loop or a scan.
        places: what arrays are indexed with, such as `edges[:, 1]`.
        chains: products of its matrices, of which some are transposed that are not so there.
        sums: such as `(x - mean)`.
        upstreamed: the names in the one to edit that depend on the upstream.
    """

    aliases: tuple[str, ...] = ()
    held: frozenset[str] = frozenset()
    calls: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    bounds: tuple[str, ...] = ()
    bounded: tuple[str, ...] = ()
    slices: tuple[str, ...] = ()
    products: tuple[str, ...] = ()
    chains: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    sums: tuple[str, ...] = ()
    upstreamed: frozenset[str] = frozenset()
    turns: bool = False


_CALLS = ("sqrt", "exp", "log", "tanh", "cos", "sign", "abs", "triu", "tril")
_ENTRY = re.compile(r"\w\[[^\W\d]\w*( [+-] 1)?\]$")  # such as `states[t + 1]`
_COUNT = re.compile(r"[^\W\d][\w.]*( \* [^\W\d][\w.]*)?")  # a name, or an area
_OF_LISTS = ("stack", "concatenate", "hstack", "vstack", "block", "array", "asarray")
_LONGEST = 60  # characters of an expression that is used elsewhere


def spoken(
    own: Text,
    texts: Sequence[Text],
    scope: Mapping[str, Any],
    helpers: Iterable[str],
    upstream: str,
) -> Words:
    """Return the words of a user's functions.

    Args:
        own: the text of the one to edit.
        texts: of all.
        scope: the globals and locals of the one to edit.
        helpers: calls of the user's functions, with a place for one value.
        upstream: the parameter of the one to edit that takes the upstream; "" where none does.
    """

    def strange(alias: str) -> tuple[bool, bool, bool]:
        called = f"{alias}.".encode()
        elsewhere = not any(called in text.segment for text in texts)
        return called not in own.segment, elsewhere, scope[alias].__name__ == "numpy"

    aliases = [n for n, v in scope.items() if getattr(v, "__name__", "") in NUMPY]
    aliases.sort(key=strange)
    held = frozenset(itertools.chain.from_iterable(map(_held, aliases and NUMPY)))
    calls, written, bounds, bounded, masked, places, sums = (dict[str, None]() for _ in range(7))
    upstreamed = frozenset(depending(own, upstream) - {""}) if upstream else frozenset[str]()
    for text in texts:
        for site in sites(text):
            node, here = site.node, text.of(site.node)
            if isinstance(node, ast.Call) and last_name(node) in ("transpose", "swapaxes"):
                axes = ", ".join(map(text.of, node.args))
                method = isinstance(node.func, ast.Attribute) and not _names(node.args)
                calls |= {f"{{}}.{last_name(node)}({axes})": None} if method else {}
            if isinstance(node, ast.Subscript) and not is_stored(node):
                index = node.slice if isinstance(node.slice, ast.Name | ast.Subscript) else None
                known = index is not None and _read(index) <= set(scope)
                places |= {text.of(node.slice): None} if known else {}
            if isinstance(node, ast.Call) and len(node.args) == 1 and not node.keywords:
                called = text.of(node.func)
                known = called.split(".")[0] in scope and _may_be_called(node.func, scope)
                known = known and last_name(node) not in _OF_LISTS
                calls |= {f"{called}({{}})": None} if known else {}
            if isinstance(node, ast.Call) and last_name(node) == "where" and len(node.args) == 3:
                called, when = text.of(node.func), text.of(node.args[0])
                masks = [f"{called}({when}, {{}}, 0)", f"{called}({when}, 0, {{}})"]
                known = _may_run(node, scope) and _read(node) <= set(scope)
                calls |= dict.fromkeys(masks) if known and len(when) <= _LONGEST else {}
                for array, filling in itertools.permutations(node.args[1:]):
                    known = _read(filling) | _read(node.args[0]) <= set(scope) | BUILTINS
                    number = _read(filling) <= set(aliases) and text is not own
                    if number and known and _may_run(node, scope):
                        pair = "{}, " + text.of(filling), text.of(filling) + ", {}"
                        masked[f"{called}({when}, {pair[array is node.args[2]]})"] = None
            if isinstance(node, ast.Call) and last_name(node) in ("maximum", "minimum", "clip"):
                others_ = [text.of(n) for n in node.args[1:]]
                if node.args and isinstance(node.args[0], ast.BinOp) and _may_run(node, scope):
                    here = (
                        text.of(node.args[0])
                        if text is own
                        else _inlined(text, node.args[0], scope)
                    )
                    written |= {here: None} if len(here) <= _LONGEST else {}
                if others_ and not _names(node.args[1:]):
                    bounded[f"{text.of(node.func)}({{}}, {', '.join(others_)})"] = None
            if isinstance(node, ast.Constant) and is_number(site):
                written[here] = None
                bounds |= {here: None} if node.value and is_bound(site) else {}
            elif not _may_run(node, scope):
                continue
            elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
                written |= dict.fromkeys([here, *others(text, node)])
            elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Store):
                written[here] = None  # one of the module's; the others are known
            elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
                plain = len(here) <= _LONGEST and upstreamed.isdisjoint(_read(node))
                both = _read(node.left) and _read(node.right)  # complements are made anyway
                sums |= {f"({here})": None} if plain and both else {}
            elif isinstance(node, ast.Call) and not isinstance(site.parent, ast.Expr):
                here = here if text is own else _inlined(text, node, scope)
                written |= {here: None} if len(here) <= _LONGEST else {}
    calls |= dict.fromkeys(helpers)
    calls |= {f"{alias}.{name}({{}})": None for alias in aliases[:1] for name in _CALLS}
    above = _above(own, texts)
    calls, written = ({w: None for w in each if not above.search(w)} for each in (calls, written))
    held |= {"sum", "mean", "max", "min"}
    cut = dict.fromkeys(itertools.chain.from_iterable(map(slices, texts)))
    bounds_ = tuple(bounds)[:_BOUNDS], (*tuple(bounded)[:_BOUNDS], *tuple(masked)[:_BOUNDS])
    found = tuple(calls), tuple(written), *bounds_, tuple(cut)[:_SLICES]
    binary = (s.node for s in sites(own) if isinstance(s.node, ast.BinOp))
    products = dict.fromkeys(own.of(n) for n in binary if isinstance(n.op, ast.Mult))
    chains = dict.fromkeys(itertools.chain.from_iterable(map(turned, repeat(own), sites(own))))
    made = tuple(products)[:_PRODUCTS], tuple(chains)[:_CHAINS], tuple(places)[:_PLACES]
    turns = re.search(rb"\b(for|while|\w*scan)\b", own.segment) is not None
    return Words(tuple(aliases), held, *found, *made, tuple(sums), upstreamed, turns)


def _above(own: Text, texts: Sequence[Text]) -> re.Pattern[str]:
    """Return what matches calls that lead back into a function: edits with one never end."""
    found = {own.name}
    for text in (*texts, *texts):
        if found & {last_name(n) for n in ast.walk(text.tree) if isinstance(n, ast.Call)}:
            found.add(text.name)
    return re.compile(rf"\b({'|'.join(map(re.escape, sorted(found)))})\(")


def _inlined(text: Text, node: ast.expr, scope: Mapping[str, Any]) -> str:
    """Return an expression's text; names out of scope give way to what they are made of."""
    start, here = text.span(node)[0], text.of(node)
    read_ = [n for n in ast.walk(node) if isinstance(n, ast.Name) and n.id not in scope]
    for name in sorted(read_, key=lambda n: text.span(n)[0], reverse=True):
        made = [
            s.value
            for s in text.statements
            if isinstance(s, ast.Assign) and name.id in {base_name(t) for t in s.targets}
        ]
        if len(made) == 1 and _may_run(made[0], scope):
            a, b = (at - start for at in text.span(name))
            here = here[:a] + text.of(made[0]) + here[b:]
    return here


def depending(text: Text, name: str) -> set[str]:
    """Return the names of a function that depend on one of them."""
    found = {name}
    for statement in (*text.statements, *text.statements):
        nodes = list(_alone(statement))
        if not found.isdisjoint(
            n.id for n in nodes if isinstance(n, ast.Name) and not is_stored(n)
        ):
            found |= {base_name(n) for n in nodes if is_stored(n)} - {""}
    return found


def _alone(statement: ast.stmt) -> Iterator[ast.AST]:
    """Yield the nodes of a statement, without those of statements inside."""
    for node in ast.iter_child_nodes(statement):
        yield from ast.walk(node) if not isinstance(node, ast.stmt) else ()


def _read(node: ast.AST) -> set[str]:
    """Return the names in an expression."""
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def _names(nodes: Sequence[ast.AST]) -> bool:
    """Whether there is a name among some expressions."""
    return any(isinstance(each, ast.Name) for node in nodes for each in ast.walk(node))


def _may_run(node: ast.AST, scope: Mapping[str, Any]) -> bool:
    """Whether an expression calls mathematics alone, so that the search may run it by itself."""
    called = (each.func for each in ast.walk(node) if isinstance(each, ast.Call))
    return all(_may_be_called(each, scope) for each in called)


def _may_be_called(called: ast.AST, scope: Mapping[str, Any]) -> bool:
    while isinstance(called, ast.Attribute | ast.Subscript):
        if isinstance(called, ast.Attribute) and has_effect(called.attr):
            return False
        called = called.value
    if not isinstance(called, ast.Name):
        return True  # a method of what another call returns
    return called.id in BUILTINS or is_pure(scope.get(called.id))


@functools.cache
def _held(module: str) -> tuple[str, ...]:
    return tuple(dir(importlib.import_module(module)))


@functools.lru_cache(maxsize=1 << 14)
def _expression(text: str) -> CodeType:
    return compile(text.replace("\n", " "), "<gradlab value>", "eval")


@dataclass(frozen=True)
class Scope:
    """The locals before a statement, at each point, and the globals of its module."""

    locals: tuple[dict[str, Any], ...]
    globals: dict[str, Any]
    words: Words = Words()
    anew: Callable[[], object] = tuple  # lets lines be counted anew, before a text is evaluated

    @functools.cached_property
    def _spaces(self) -> tuple[dict[str, Any], ...]:
        return tuple({**self.globals, **each} for each in self.locals)

    def put(self, **values: Any) -> None:
        """Give names values, at every point."""
        for space in self._spaces:
            space.update(values)

    def value(self, text: str) -> Any:
        """Return an expression's value at the first point, None where it has none."""
        self.anew()
        try:
            return theirs(eval, theirs(_expression, text), self._spaces[0])
        except Failed:
            return None

    def floats(self, text: str, constant: bool) -> Array | None:
        """Return an expression's value where all of it are finite floats; those of masks as well.

        Args:
            text: the expression.
            constant: whether it is a constant, which any number may stand for.
        """
        value = self.value(text)
        if not isinstance(value, np.ndarray | np.generic | float | int):
            return None
        array = np.asarray(value)
        array = array.astype(float) if constant or array.dtype.kind == "b" else array
        known = array.dtype.kind == "f" and array.size > 0 and bool(np.isfinite(array).all())
        return array if known else None

    def values(self, text: str) -> tuple[Any, ...] | None:
        """Return an expression's values at all points; a call may write into what it reads."""
        self.anew()
        try:
            code: CodeType = theirs(_expression, text)
            read = ({n: s[n] for n in code.co_names if n in s} for s in self._spaces)
            spaces = ({**s, **copied(each, {})} for s, each in zip(self._spaces, read))
            return tuple(theirs(eval, code, space) for space in spaces)
        except Failed:
            return None

    @functools.cached_property
    def shapes(self) -> frozenset[tuple[int, ...]]:
        """The shapes that values in scope have."""
        return frozenset(m.shape for m in self.simple)

    @functools.cached_property
    def simple(self) -> list[Material]:
        """The numbers and arrays that have a name, an attribute or a key, and their sizes."""
        return _simple(self)


def _simple(scope: Scope) -> list[Material]:
    first = scope.locals[0]
    found: list[tuple[str, tuple[Any, ...]]] = []
    for name in first:
        if name != "_" and all(name in each for each in scope.locals):
            found += _parts(name, tuple(each[name] for each in scope.locals), 0)
    made = ((w, scope.values(w)) for w in (*scope.words.written, *scope.words.sums))
    known = [(w, values) for w, values in made if values is not None and _is_one(values)]
    found += [(w, values) for w, values in known if w not in scope.words.sums or np.ndim(values[0])]
    found.sort(key=lambda each: (not each[0].isidentifier(), each[0].count("[")))
    named = _distinct(Material(text, ATOM, values) for text, values in found)
    sizes = [*_areas(named, len(scope.locals))]
    for each in named:
        dimensions = len(each.shape)
        for axis in range(dimensions) if dimensions < 5 else ():
            if all(np.ndim(v) == dimensions for v in each.values):
                lengths = tuple(float(np.shape(v)[axis]) for v in each.values)
                shown = -1 if axis == dimensions - 1 > 1 else axis
                sizes.append(Material(f"{each.text}.shape[{shown}]", ATOM, lengths))
        if dimensions > 1:
            counts = tuple(float(np.size(v)) for v in each.values)
            sizes.append(Material(f"{each.text}.size", ATOM, counts))
    every = len(scope.locals)
    held = {float(m.value) for m in named if not m.shape and _kind(m) in "fi"}
    numbers = [n for n in ("1", "2", "0.5", "3", "4") if held.isdisjoint((float(n), 1 / float(n)))]
    constants = [Material(n, ATOM, (float(n),) * every) for n in numbers]
    return _distinct([*named, *constants, *sizes])


def _areas(named: Sequence[Material], points: int) -> Iterator[Material]:
    """Yield the products of two lengths that have a name: `h * w`."""
    lengths = [{n for m in named for n in np.shape(m.values[k])} for k in range(points)]
    counts = [
        each
        for each in named
        if each.text.isidentifier()
        and all(isinstance(v, int) and v in here for v, here in zip(each.values, lengths))
    ]
    for a, b in itertools.combinations(counts[:_COUNTS], 2):
        product = tuple(map(operator.mul, a.values, b.values))
        yield Material(f"{a.text} * {b.text}", 13, product)


def _is_one(values: tuple[Any, ...]) -> bool:
    """Whether a value is a number, or an array that is not too large."""
    first = values[0]
    known = isinstance(first, np.ndarray | np.generic | float | complex) or type(first) is int
    return known and np.size(first) <= _LARGEST and np.asarray(first).dtype.kind in "fcib"


def _parts(text: str, values: tuple[Any, ...], depth: int) -> Iterator[tuple[str, tuple[Any, ...]]]:
    first = values[0]
    if isinstance(first, np.ndarray | np.generic | float | complex | int):
        if _is_one(values):
            yield text, values
    elif depth > 1:
        return
    if depth == 0 and type(first) is list:  # a tuple has the length that it was written with
        yield f"len({text})", tuple(len(v) for v in values)
    if type(first) in (tuple, list) and len({len(v) for v in values}) == 1:
        for k in range(min(len(first), _PARTS)):
            yield from _parts(f"{text}[{k}]", tuple(v[k] for v in values), depth + 1)
    elif type(first) is dict:
        for key in first:
            if isinstance(key, str) and all(key in v for v in values):
                yield from _parts(f'{text}["{key}"]', tuple(v[key] for v in values), depth + 1)
    elif hasattr(first, "__dict__") and not (callable(first) or isinstance(first, Namespace)):
        shared = (n for n, v in vars(type(first)).items() if isinstance(v, int | float))
        for name in dict.fromkeys((*vars(first), *shared)):
            if not name.startswith("__") and all(hasattr(v, name) for v in values):
                parts = tuple(getattr(v, name) for v in values)
                yield from _parts(f"{text}.{name}", parts, depth + 1)


def derived(scope: Scope, most: int = 12) -> list[Material]:
    """Return what is commonly made of the values in scope: slopes, reductions, products.

    Pairs are made of the first arrays, at `most` so many.
    """
    pool, words = scope.simple, scope.words
    alias = words.aliases[0] if words.aliases else ""
    texts: list[tuple[str, int]] = []
    arrays = [m for m in pool if _kind(m) in "fc" and m.binds == ATOM]
    arrays = [m for m in arrays if not m.text[0].isdigit() and "shape[" not in m.text]
    arrays = [m for m in arrays if m.text not in words.sums]
    indices = [m.text for m in pool if _kind(m) == "i" and m.shape and m.text.isidentifier()][:2]
    whole = [m for m in arrays if m.shape][:most]
    square = (m.text for m in whole if len(m.shape) == 2 and m.shape[0] == m.shape[1])
    texts += [(f"{alias}.eye(len({v}))", ATOM) for v in square if alias]
    counts = [m for m in pool if not m.shape and _kind(m) == "i" and m.text.isidentifier()]
    texts += [(f"({m.text} - 1)", ATOM) for m in counts[:3] if most]
    rows = (a for a in arrays if len(a.shape) > 1 and a.shape[:-1] in scope.shapes)
    texts += [(f"{a.text}.sum(axis=-1)", ATOM) for a in rows]
    for a in whole:
        for b in whole:
            if {a.text, b.text} <= words.upstreamed:
                continue
            if a.shape == b.shape and a.text <= b.text:
                axes = ["-1, keepdims=True"] * (len(a.shape) > 1 < a.shape[-1]) + ["0"]
                axes += ["-1"] * (len(a.shape) > 1 and a.shape[:-1] in scope.shapes)
                for axis, verb in itertools.product(axes, ("sum", "mean")):
                    texts.append((f"({a.text} * {b.text}).{verb}(axis={axis})", ATOM))
            if len(a.shape) == len(b.shape) == 2 and a.shape[0] == b.shape[0]:
                texts.append((f"{a.text}.T @ {b.text}", 13))
            if len(a.shape) >= 2 and len(b.shape) == 2:
                if a.shape[-1] == b.shape[1]:
                    texts.append((f"{a.text} @ {b.text}.T", 13))
                if a.shape[-1] == b.shape[0]:
                    texts.append((f"{a.text} @ {b.text}", 13))
            if len(a.shape) == 2 and len(b.shape) == 1:
                ways = (("", a.shape[1]), (".T", a.shape[0]))
                texts += [(f"{a.text}{t} @ {b.text}", 13) for t, n in ways if n == b.shape[0]]
    for product in words.products if most else ():
        shape = np.shape(scope.value(product))
        alike = [b.text for b in whole if len(shape) > 1 and b.shape == shape]
        for other, verb in itertools.product(alike, ("mean", "sum")):
            texts.append((f"({product} * {other}).{verb}(axis=-1, keepdims=True)", ATOM))
    texts += [
        (f"({a.text} - {b.text})", ATOM)
        for a in whole
        for b in whole
        if a.shape != b.shape and len(a.shape) == len(b.shape)
    ]
    texts += [
        (f"({a.text} == {b.text}{index})", ATOM)
        for a in whole
        for b in whole
        if a.shape != b.shape
        for axis in range(len(a.shape))
        for new in ("..., " if axis == len(b.shape) else ":, " * axis,)
        for index, kept in (("", (1,)), (f"[{new}None]", ()))
        if b.shape == (*a.shape[:axis], *kept, *a.shape[axis + 1 :])
    ]
    texts += [(chain, 13) for chain in words.chains if most]
    for a in whole[:_SHIFTED] if most else ():
        texts += [(text, ATOM) for text in rows_beside(scope, a.text, a.shape)]
    for each in arrays:
        v, dimensions = each.text, len(each.shape)
        if words.upstreamed.intersection(re.findall(r"\w+", v)):  # a backward is linear in these
            texts += _linear(v, dimensions, indices)
            continue
        own = dimensions or v in scope.locals[0]
        texts += [
            *((slope, 13 if slope[0] != "(" else ATOM) for slope in _slopes(v)),
            (f"{v}**2", 15),
            (f"({v} > 0)", ATOM),
            (f"(1 + {v})", ATOM),
        ]
        divides = _kind(each) == "c" or one_sign(each.value)
        texts += [(f"(1 / {v})", ATOM)] if divides else []
        texts += [(call.replace("{}", v), ATOM) for call in words.calls if most and own]
        for c in words.bounds if v.isidentifier() else ():
            texts += [(f"({v} {sign} {c})", ATOM) for sign in "<>"]
            texts += [(f"({alias}.abs({v}) < {c})", ATOM)] if alias else []
            texts += [(f"{alias}.clip({v}, -{c}, {c})", ATOM)] if alias else []
        texts += _linear(v, dimensions, indices)
    lengths = [m.text for m in pool if m.shape == () and m.text[0].isalpha() and m not in arrays]
    texts += [
        (c.replace("{}", v), ATOM) for c in words.calls if c.endswith("sqrt({})") for v in lengths
    ]
    masks = [m for m in pool if _kind(m) == "b"]
    texts += [(f"(1 - {m.text})", ATOM) for m in masks]
    texts += [(f"{m.text}[..., None]", ATOM) for m in masks if m.shape]
    for np_ in words.aliases[:1]:  # the numbers of Gauss and of other bases
        texts += [(f"{np_}.{c}", ATOM) for c in ("log(2)", "log(10)", "sqrt(2)", "pi")]
        for inner in (f"{np_}.pi", f"2 * {np_}.pi", f"2 / {np_}.pi"):
            texts.append((f"{np_}.sqrt({inner})", ATOM))
    slopes = {slope for m in arrays for slope in _slopes(m.text)}
    made = []
    for text, binds in texts:
        value = scope.value(text)
        if value is not None and (size := _size(value)) <= _LARGEST and not _is_idle(value):
            values = scope.values(text) if size == 1 else (value,)
            made += [Material(text, binds, values, text in slopes)] if values else []
    known = len(pool)
    return _distinct([*pool, *made])[known:]


def rows_beside(scope: Scope, v: str, shape: tuple[int, ...]) -> Iterator[str]:
    """Yield an array with each row in the next one's place, where something runs in turns."""
    alias = scope.words.aliases[0] if scope.words.aliases else ""
    if not (alias and scope.words.turns and shape and shape[0] > 2):
        return
    yield f"{alias}.concatenate([{v}[1:], {alias}.zeros_like({v}[:1])])"
    yield f"{alias}.concatenate([{alias}.zeros_like({v}[:1]), {v}[:-1]])"
    for m in scope.simple:
        if m.shape == shape[1:] and m.text.isidentifier() and _kind(m) in "fc":
            yield f"{alias}.concatenate([{m.text}[None], {v}[:-1]])"


def _is_idle(value: Any) -> bool:
    """Whether a value is a comparison that holds everywhere: nobody writes one for a number."""
    array = np.asarray(value)
    return array.dtype.kind == "b" and (bool(array.all()) or not array.any())


def _slopes(v: str) -> tuple[str, str, str]:
    return f"(1 - {v}**2)", f"{v} * (1 - {v})", f"(1 - {v})"


def _linear(v: str, dimensions: int, indices: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Yield what is linear in an array: sums, transposes, its entries in other places."""
    if dimensions >= 2:
        for verb in ("mean", "sum"):
            yield f"{v}.{verb}(axis=-1, keepdims=True)", ATOM
            yield f"{v}.{verb}(axis=0)", ATOM
        yield f"{v}.T", ATOM
    if dimensions >= 1:
        yield f"{v}.sum()", ATOM
    if dimensions == 3:
        yield f"{v}.transpose(0, 2, 1)", ATOM
    places = ["..., None", "None", "::-1", *indices] if dimensions >= 1 else []
    places += [":, ::-1", "::-1, ::-1"] if dimensions >= 2 else []
    places += ["..., ::-1, ::-1"] if dimensions > 2 else []
    places += [":, None, None"] if dimensions == 1 else []
    for index in places:
        yield f"{v}[{index}]", ATOM


def _kind(material: Material) -> str:
    return str(material.value.dtype.kind)


def _size(value: Tree) -> float:
    """Return how many entries a value has; infinitely many where it is no array."""
    try:
        return float(np.size(value))
    except (TypeError, ValueError):  # such as a shape beside a dtype
        return np.inf


def _distinct(pool: Any) -> list[Material]:
    """Keep the first of those that have the same values at all points."""
    seen: dict[Any, Material] = {}
    for each in pool:
        try:
            arrays = [np.asarray(v) for v in each.values]
            if any(a.dtype.kind not in "fciub" or not np.isfinite(a).all() for a in arrays):
                continue
            key: Any = tuple((a.shape, a.astype(complex).tobytes()) for a in arrays)
            if type(each.values[0]) is int and _COUNT.fullmatch(each.text):
                key = each.text  # in a loop, a place and a setting are equal by chance
            if _ENTRY.search(each.text):
                key = each.text  # and so are its last entry and one with a number
        except (TypeError, ValueError):
            continue
        seen.setdefault(key, each)
    return list(seen.values())
