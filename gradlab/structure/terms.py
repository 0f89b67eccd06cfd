"""A sum of terms, simplified, as an operator with a formula.

A term maps a seed to an output by an einsum of known arrays: every axis of seed and output is a
list of named indices, the same name on both sides says that the indices are equal, and a name that
only factors have is summed. What is simplified follows from names and from which array the program
used twice, never from the values.
"""

import itertools
import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradlab.common.arrays import Array
from gradlab.operators import Contraction, Diagonal, Identity, Operator, OperatorSum, Reshape, Zero

Label = tuple[int, ...]
"""The named indices that an axis is written in, the leading one first; none for a size of 1."""


@dataclass(frozen=True, eq=False)
class Factor:
    """A known array over named indices; `key` is equal only where the program made it equal."""

    array: Array
    names: Label
    key: Hashable


Factors = tuple[Factor, ...]


@dataclass(frozen=True, eq=False)
class Term:
    """One map of a seed: `out[...] = scale * sum of factors * seed[...]`."""

    out: tuple[Label, ...]
    into: tuple[Label, ...]
    factors: Factors = ()
    scale: float = 1.0

    def names(self) -> set[int]:
        """All names of it."""
        return {
            n for part in (*self.out, *self.into, *(f.names for f in self.factors)) for n in part
        }


class Arrays:
    """The indices of terms, with their sizes, and arrays that are made of others, once each."""

    def __init__(self) -> None:
        self.sizes: dict[int, int] = {}
        self._next = itertools.count()
        self._made: dict[Hashable, Any] = {}
        self._bases: dict[Hashable, int] = {}

    def fresh(self, size: int) -> Label:
        """Return the label of a new axis."""
        if size == 1:
            return ()
        name = next(self._next)
        self.sizes[name] = size
        return (name,)

    def once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return the array that a key stands for, made at its first use."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def factor(self, array: Array, labels: Sequence[Label], key: Hashable) -> Factor:
        """Return an array as a factor, its axes written in the digits of their labels."""
        names = tuple(itertools.chain(*labels))
        shape = tuple(self.sizes[name] for name in names)
        if shape != tuple(np.shape(array)):
            key = key, shape
            array = self.once(key, lambda: jnp.reshape(array, shape))
        return Factor(array, names, key)

    def operator(self, terms: Sequence[Term], out: Any, source: Any) -> tuple[Operator, str]:
        """Return the terms of one block, simplified, as an operator and its formula."""
        if not terms or not out.size or not source.size:
            return Zero(out.shape, source.shape, out.dtype), "0"
        groups: dict[Hashable, list[Term]] = {}
        for term in terms:
            lean = self._contracted(term)
            groups.setdefault(self._structure(lean), []).append(self._renamed(lean))
        parts: list[tuple[Operator, str]] = []
        for group in groups.values():
            parts += self._parts(group, out, source)
        parts.sort(key=lambda part: not part[1].endswith(("(d)", "I")))
        whole = parts[0][0] if len(parts) == 1 else OperatorSum(*(part for part, _ in parts))
        return whole, " + ".join(text for _, text in parts)

    def _contracted(self, term: Term) -> Term:
        """Sum inner indices, while that saves bytes."""
        outer = {n for label in (*term.out, *term.into) for n in label}
        factors = list(term.factors)
        for name in sorted(term.names() - outer):
            holders = [f for f in factors if name in f.names]
            names = tuple(dict.fromkeys(n for f in holders for n in f.names if n != name))
            size = math.prod(self.sizes[n] for n in names)
            if size <= sum(math.prod(f.array.shape) for f in holders) or len(holders) == 1:
                factors = [f for f in factors if f not in holders]
                factors.append(self._product(holders, names))
        return replace(term, factors=tuple(factors))

    def _product(self, factors: Sequence[Factor], names: Label) -> Factor:
        """Multiply factors, and sum what is not among the names."""
        if len(factors) == 1 and factors[0].names == names:
            return factors[0]
        key = "product", tuple((f.key, f.names) for f in factors), names
        operands: list[Array] = []
        for f in factors:
            operands += [jnp.asarray(f.array), list(f.names)]
        return Factor(self.once(key, lambda: _einsum(operands, names)), names, key)

    def _structure(self, term: Term) -> Hashable:
        """Return which digits of output and input are equal: terms that share it can be added."""
        place = {n: k for k, n in enumerate(itertools.chain(*term.into))}
        digits = [tuple(self.sizes[n] for n in label) for label in (*term.out, *term.into)]
        return tuple(place.get(n) for n in itertools.chain(*term.out)), tuple(digits)

    def _renamed(self, term: Term) -> Term:
        """Name the indices by their places: of output and input equal in all terms of a group."""
        first = self._bases.setdefault(self._structure(term), (len(self._bases) + 1) * 10**9)
        new = {n: first + k for k, n in enumerate(itertools.chain(*term.out, *term.into))}
        new |= {n: first + k for k, n in enumerate(itertools.chain(*term.out))}
        new |= {n: first + 10**6 + n for n in term.names() - new.keys()}
        self.sizes.update({k: self.sizes[n] for n, k in new.items()})
        factors = tuple(
            Factor(f.array, tuple(new[n] for n in f.names), f.key) for f in term.factors
        )
        out, into = (
            tuple(tuple(new[n] for n in label) for label in side) for side in (term.out, term.into)
        )
        return Term(out, into, factors, term.scale)

    def _parts(self, group: Sequence[Term], out: Any, source: Any) -> list[tuple[Operator, str]]:
        """Return the operators of terms with one structure."""
        first = group[0]
        digits = [tuple(itertools.chain(*side)) for side in (first.out, first.into)]
        rows, columns = map(set, digits)
        tied = rows & columns
        parts: list[tuple[Operator, str]] = []
        pairs: dict[Hashable, tuple[Factors, list[tuple[Factors, float]]]] = {}
        for t in group:
            if not t.names() <= rows | columns:
                parts.append(self._part(t, t.factors, out, source, tied, t.scale))
                continue
            right = tuple(f for f in t.factors if set(f.names) & (columns - tied))
            if any(set(f.names) & (rows - tied) for f in right):
                right = ()
            left = tuple(f for f in t.factors if f not in right)
            alike = frozenset((f.key, f.names) for f in right)
            pairs.setdefault(alike, (right, []))[1].append((left, t.scale))
        if pairs and digits[0] == digits[1] and not any(f for f, _ in pairs[frozenset()][1]):
            same: Operator = Identity(source.shape, out.dtype)
            if tuple(out.shape) != tuple(source.shape):
                same = Reshape(source.shape, out.shape, out.dtype)
            number = sum(scale for _, scale in pairs[frozenset()][1])
            return [*parts, (same * number, "I" if number == 1 else f"{number:.6g} * I")]
        sides = [
            (self._sum(lefts), *([self._product(right, _union(right))] if right else []))
            for right, lefts in pairs.values()
        ]
        held = sum(math.prod(f.array.shape) for side in sides for f in side)
        names = tuple(sorted(rows | columns))
        if sides and held > math.prod(self.sizes[n] for n in names):
            total = self._sum([(side, 1.0) for side in sides])
            return [*parts, self._part(first, (total,), out, source, tied)]
        return parts + [self._part(first, side, out, source, tied) for side in sides]

    def _sum(self, terms: Sequence[tuple[Sequence[Factor], float]]) -> Factor:
        """Add products of factors, over as few indices as they need."""
        names = tuple(sorted(set(itertools.chain(*(_union(factors) for factors, _ in terms)))))
        total: Any = 0.0
        for factors, scale in terms:
            own = tuple(n for n in names if n in _union(factors))
            array = self._product(factors, own).array if factors else jnp.ones(())
            spread = [self.sizes[n] if n in own else 1 for n in names]
            total = total + scale * jnp.reshape(array, spread)
        shape = tuple(self.sizes[n] for n in names)
        return Factor(jnp.broadcast_to(total, shape), names, object())

    def _part(
        self,
        term: Term,
        factors: Sequence[Factor],
        out: Any,
        source: Any,
        tied: set[int],
        scale: float = 1.0,
    ) -> tuple[Operator, str]:
        """Return one operator, and what it is called in a formula."""
        dtype = out.dtype
        rows, columns = (list(itertools.chain(*side)) for side in (term.out, term.into))
        arrays = [(jnp.asarray(f.array).astype(dtype), f.names) for f in factors]
        if scale != 1:
            arrays = arrays or [(jnp.ones((), dtype), ())]
            arrays[0] = arrays[0][0] * scale, arrays[0][1]
        numbers = [f.array for f in factors if not f.names]
        traced = any(isinstance(number, jax.core.Tracer) for number in numbers)
        scaled = traced or bool(scale * np.prod(numbers) != 1)
        text = _formula(factors, rows, columns, tied, scaled)
        if rows == columns and len(arrays) == 1 and set(arrays[0][1]) == set(rows):
            order = [arrays[0][1].index(n) for n in rows]
            return Diagonal(jnp.transpose(arrays[0][0], order).reshape(out.shape)), text
        seen = set(itertools.chain(*(names for _, names in arrays)))
        for name in sorted((set(rows) ^ set(columns)) - seen):
            arrays.append((jnp.ones(self.sizes[name], dtype), (name,)))
        arrays = arrays or [(jnp.ones((), dtype), ())]
        every = sorted({*rows, *columns, *itertools.chain(*(names for _, names in arrays))})
        letter = {n: _LETTERS[k] for k, n in enumerate(every)}

        def spelled(names: Iterable[int]) -> str:
            return "".join(letter[n] for n in names)

        left = ",".join(spelled(names) for _, names in arrays)
        made: Operator = Contraction(
            f"{left},{spelled(columns)}->{spelled(rows)}",
            *(array for array, _ in arrays),
            input_shape=[self.sizes[n] for n in columns],
        )
        if made.input_shape != tuple(source.shape):
            made = made @ Reshape(source.shape, made.input_shape, dtype)
        if made.output_shape != tuple(out.shape):
            made = Reshape(made.output_shape, out.shape, dtype) @ made
        return made, text


_LETTERS = "ijklmnopqrstuvwxyzabcdefghABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _union(factors: Iterable[Factor]) -> Label:
    return tuple(sorted({n for f in factors for n in f.names}))


def _einsum(operands: list[Array], names: Label) -> Any:
    return jnp.einsum(*operands, list(names), precision="highest")


def _formula(
    factors: Sequence[Factor],
    rows: Sequence[int],
    columns: Sequence[int],
    tied: set[int],
    scaled: bool,
) -> str:
    """Return what one operator is called; `scaled`: a number multiplies it."""
    each = (
        f" for each {', '.join(_LETTERS[k] for k, n in enumerate(rows) if n in tied)}"
        if tied
        else ""
    )
    if set(rows) == set(columns):
        moved = "" if list(rows) == list(columns) else " P"
        return f"{'diag(d)' if any(f.names for f in factors) else 'c * I'}{moved}"
    sides = [bool({n for f in factors for n in f.names} & (set(s) - tied)) for s in (rows, columns)]
    across = any(
        set(f.names) & (set(rows) - tied) and set(f.names) & (set(columns) - tied) for f in factors
    )
    if across:
        return f"W{each}"
    left, right = ("u" if sides[0] else "1"), ("v" if sides[1] else "1")
    number = "c " if scaled and not any(sides) else ""  # no vector takes it up
    if not set(rows) - tied:
        return f"{number}{right}'{each}"
    outer = "" if not set(columns) - tied else f" {right}'"
    return f"{number}{left}{outer}{each}"
