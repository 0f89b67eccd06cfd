"""What an edit may put in: the values in scope, and what is commonly made of them."""

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradlab.common.arrays import Tree
from gradlab.repair.edits import Material
from gradlab.repair.source import ATOM
from gradlab.repair.world import Failed, theirs

_LARGEST = 1 << 16


@dataclass(frozen=True)
class Scope:
    """The locals before a statement, at each point, and the globals of its module.

    `written` are the entries and slices that the function's text reads, such as `upstream[i]`.
    """

    locals: tuple[dict[str, Any], ...]
    globals: dict[str, Any]
    written: tuple[str, ...] = ()

    def value(self, text: str) -> tuple[Tree, ...] | None:
        """Return an expression's values, None where it has none."""
        try:
            code = theirs(compile, text.replace("\n", " "), "<gradlab value>", "eval")
            return tuple(theirs(eval, code, {**self.globals, **each}) for each in self.locals)
        except Failed:
            return None

    @functools.cached_property
    def shapes(self) -> frozenset[tuple[int, ...]]:
        """The shapes that values in scope have."""
        return frozenset(np.shape(m.values[0]) for m in self.simple)

    @functools.cached_property
    def simple(self) -> list[Material]:
        """The numbers and arrays that have a name, an attribute or a key, and their sizes."""
        return _simple(self)


def _simple(scope: Scope) -> list[Material]:
    first = scope.locals[0]
    found: list[tuple[str, tuple[Any, ...]]] = []
    for name in first:
        if all(name in each for each in scope.locals):
            found += _parts(name, tuple(each[name] for each in scope.locals), 0)
    found += [(w, values) for w in scope.written if (values := scope.value(w)) is not None]
    made = _distinct(Material(text, ATOM, values) for text, values in found)
    sizes = []
    for each in made:
        dimensions = np.ndim(each.values[0])
        for axis in range(dimensions) if dimensions < 5 else ():
            if all(np.ndim(v) == dimensions for v in each.values):
                lengths = tuple(float(np.shape(v)[axis]) for v in each.values)
                shown = -1 if axis == dimensions - 1 > 1 else axis
                sizes.append(Material(f"{each.text}.shape[{shown}]", ATOM, lengths, ""))
        if np.ndim(each.values[0]) > 1:
            counts = tuple(float(np.size(v)) for v in each.values)
            sizes.append(Material(f"{each.text}.size", ATOM, counts, ""))
    every = len(scope.locals)
    constants = [Material(n, ATOM, (float(n),) * every) for n in ("2", "0.5", "3", "4")]
    return _distinct([*made, *constants, *sizes])


def _parts(text: str, values: tuple[Any, ...], depth: int) -> Iterator[tuple[str, tuple[Any, ...]]]:
    first = values[0]
    if isinstance(first, np.ndarray | np.generic | float | complex) or type(first) is int:
        if np.size(first) <= _LARGEST and np.asarray(first).dtype.kind in "fcib":
            yield text, values
    elif depth > 1:
        return
    elif type(first) is dict:
        for key in first:
            if isinstance(key, str) and all(key in v for v in values):
                yield from _parts(f'{text}["{key}"]', tuple(v[key] for v in values), depth + 1)
    elif hasattr(first, "__dict__") and not callable(first):
        for name in vars(first):
            if not name.startswith("__") and all(name in vars(v) for v in values):
                parts = tuple(vars(v)[name] for v in values)
                yield from _parts(f"{text}.{name}", parts, depth + 1)


def derived(
    scope: Scope,
    pool: Sequence[Material],
    aliases: Sequence[str],
    calls: Sequence[str],
    most: int = 12,
) -> list[Material]:
    """Return what is commonly made of the values in scope: slopes, reductions, products.

    Pairs are made of the first arrays, at `most` so many.
    """
    texts: list[tuple[str, int, str]] = []
    arrays = [m for m in pool if np.asarray(m.values[0]).dtype.kind in "fc" and m.binds == ATOM]
    arrays = [m for m in arrays if not m.text[0].isdigit() and "shape[" not in m.text]
    whole = [m for m in arrays if np.ndim(m.values[0]) >= 1][:most]
    for a in whole:
        for b in whole:
            if a.shape == b.shape and a.text <= b.text:
                axes = ("-1, keepdims=True", "0") if a.shape[1:] else ("0",)
                for axis, verb in itertools.product(axes, ("sum", "mean")):
                    texts.append((f"({a.text} * {b.text}).{verb}(axis={axis})", ATOM, ""))
            if len(a.shape) == len(b.shape) == 2 and a.shape[0] == b.shape[0]:
                texts.append((f"{a.text}.T @ {b.text}", 13, ""))
            if len(a.shape) >= 2 and len(b.shape) == 2:
                if a.shape[-1] == b.shape[1]:
                    texts.append((f"{a.text} @ {b.text}.T", 13, ""))
                if a.shape[-1] == b.shape[0]:
                    texts.append((f"{a.text} @ {b.text}", 13, ""))
    texts += [
        (f"({a.text} - {b.text})", ATOM, "")
        for a in whole
        for b in whole
        if a.shape != b.shape and np.ndim(a.values[0]) == np.ndim(b.values[0])
    ]
    for each in arrays:
        v, dimensions = each.text, np.ndim(each.values[0])
        texts += [
            (f"(1 - {v}**2)", ATOM, "GL221"),
            (f"{v} * (1 - {v})", 13, "GL221"),
            (f"(1 - {v})", ATOM, "GL221"),
            (f"{v}**2", 15, ""),
            (f"({v} > 0)", ATOM, "GL333"),
            (f"(1 + {v})", ATOM, ""),
            (f"(1 / {v})", ATOM, ""),
        ]
        texts += [(f"{call}({v})", ATOM, "") for call in calls]
        if dimensions >= 2:
            for verb in ("mean", "sum"):
                texts.append((f"{v}.{verb}(axis=-1, keepdims=True)", ATOM, ""))
                texts.append((f"{v}.{verb}(axis=0)", ATOM, ""))
            texts.append((f"{v}.T", ATOM, ""))
        if dimensions == 3:
            texts.append((f"{v}.transpose(0, 2, 1)", ATOM, "GL301"))
        if dimensions >= 1:
            texts += [(f"{v}[..., None]", ATOM, ""), (f"{v}[None]", ATOM, "")]
    lengths = [m.text for m in pool if m.shape == () and m.text[0].isalpha() and m not in arrays]
    texts += [(f"{c}({v})", ATOM, "") for c in calls if c.endswith("sqrt") for v in lengths]
    for np_ in aliases[:1]:  # the numbers of Gauss and of other bases
        texts += [(f"{np_}.{c}", ATOM, "GL102") for c in ("log(2)", "log(10)", "sqrt(2)", "pi")]
        for inner in (f"{np_}.pi", f"2 * {np_}.pi", f"2 / {np_}.pi"):
            texts.append((f"{np_}.sqrt({inner})", ATOM, "GL102"))
    made = []
    for text, binds, code in texts:
        values = scope.value(text)
        if values is not None and _size(values[0]) <= _LARGEST:
            made.append(Material(text, binds, values, code))
    known = len(pool)
    return _distinct([*pool, *made])[known:]


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
            key = tuple((a.shape, a.astype(complex).tobytes()) for a in arrays)
        except (TypeError, ValueError):
            continue
        seen.setdefault(key, each)
    return list(seen.values())
