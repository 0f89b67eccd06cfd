"""The Jacobian as a structured operator: the linearised program, read as a sum of terms.

A term maps a seed to an output by an einsum of known arrays: every axis of seed and output is a
list of named indices, the same name on both sides says that the indices are equal, and a name that
only factors have is summed. Linear primitives map terms to terms. What is simplified follows from
names and from which array the program used twice, never from the values. So a softmax is a diagonal
plus rank one in each row, and a layer norm a diagonal plus rank two, from their programs alone.
"""

import functools
import itertools
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradlab.common.arrays import Array, DTypeLike
from gradlab.operators import (
    Contraction,
    Dense,
    Diagonal,
    Identity,
    Operator,
    OperatorSum,
    Reshape,
    Zero,
)
from gradlab.patterns import Pattern
from gradlab.structure.evaluate import Derivative
from gradlab.tracing.jaxprs import Literal, bind, body
from gradlab.tracing.linearise import Linearised, call_body

Label = tuple[int, ...]
"""The named indices that an axis is written in, the leading one first; none for a size of 1."""


class Opaque(Exception):
    """A primitive on a tangent that terms cannot say."""


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


@dataclass(frozen=True, eq=False)
class Known:
    """A value without tangent: an array that spans some axes of `shape`, the others being copies.

    A number that the program itself says is `number`.
    """

    base: Any
    axes: tuple[int, ...]
    shape: tuple[int, ...]
    key: Hashable
    number: float | None = None

    def full(self) -> Any:
        """Return the array with all its axes."""
        if len(self.axes) == len(self.shape):
            return self.base
        return jax.lax.broadcast_in_dim(jnp.asarray(self.base), self.shape, self.axes)


Terms = dict[int, list[Term]]
Value = Known | Terms


class Program(Operator):
    """A map of which only the program is known: a JVP, and its transpose; it holds no array.

    Args:
        derivative: of the function.
        values: its point.
        block: the numbers of output and input.
        pattern: which entries may be nonzero.
    """

    def __init__(
        self,
        derivative: Derivative,
        values: Sequence[Array],
        block: tuple[int, int],
        pattern: Pattern,
    ) -> None:
        given, made = derivative.modes["jvp"]
        out, source = made[block[0]], given[block[1]]
        super().__init__(out.shape, source.shape, out.dtype)
        self._derivative, self._values, self._block = derivative, values, block
        self._pattern = pattern

    @property
    def pattern(self) -> Pattern:
        """What is proved of the function's Jacobian."""
        return self._pattern

    def _run(self, mode: str, x: Array) -> Any:
        at, places = self._derivative, self._block[::-1] if mode == "jvp" else self._block
        sides = at.modes[mode]
        sizes = [[math.prod(a.shape) for a in side] for side in sides]
        first, start = (sum(side[:place]) for side, place in zip(sizes, places, strict=True))
        aval = sides[1][places[1]]
        with jax.enable_x64(at.program.x64):
            flat = jnp.ravel(jnp.asarray(x))
            seed = jnp.pad(flat, (first, sum(sizes[0]) - first - flat.size))
            made = at.along(mode, self._values, seed)
            return made[start : start + math.prod(aval.shape)].reshape(aval.shape)

    def _apply(self, x: Array) -> Any:
        return self._run("jvp", x)

    def _apply_transposed(self, y: Array) -> Any:
        return self._run("vjp", y)


class Structured(Operator):
    """An operator that was read from a program, and prints as a formula.

    Args:
        operator: what was read.
        formula: of it, such as `diag(d) + u v' for each i`.
    """

    def __init__(self, operator: Operator, formula: str) -> None:
        super().__init__(
            operator.output_shape, operator.input_shape, operator.dtype, operator.arrays
        )
        self.operator, self.formula = operator, formula

    def _apply(self, x: Array) -> Any:
        with _precision(self.dtype):
            return self.operator.apply(x)

    def _dense(self) -> Any:
        with _precision(self.dtype):
            return self.operator.to_dense(self.dense_bytes)

    @property
    def T(self) -> Operator:
        """The transpose."""
        return Structured(self.operator.T, f"({self.formula})'")

    @property
    def pattern(self) -> Any:
        """Which output entries may depend on which input entries."""
        return self.operator.pattern

    @property
    def stored_bytes(self) -> int:
        """The bytes of the arrays that it holds, each counted once."""
        arrays = {id(a): math.prod(a.shape) * a.dtype.itemsize for a in _arrays(self.operator)}
        return sum(arrays.values())

    def __str__(self) -> str:
        return self.formula


def _precision(dtype: DTypeLike) -> Any:
    """Allow float64 where an operator has it, whatever the caller's setting."""
    config: Any = jax.config
    return jax.enable_x64(config.jax_enable_x64 or np.dtype(dtype) in (np.float64, np.complex128))


def _arrays(operator: Operator) -> list[Any]:
    parts = getattr(operator, "terms", getattr(operator, "factors", ()))
    inner = getattr(operator, "operator", None)
    nested = [*parts, *([inner] if inner is not None else [])]
    return [a for part in nested for a in _arrays(part)] if nested else list(operator.arrays)


def operators_of(
    derivative: Derivative,
    linear: Linearised,
    values: Sequence[Array],
    patterns: Mapping[tuple[int, int], Pattern],
) -> dict[tuple[int, int], Structured]:
    """Return the operator of each block, by the numbers of output and input, at a point.

    A block whose program holds a loop, or a primitive that terms cannot say, is one `Program`.

    Args:
        derivative: of the function.
        linear: the program of its derivative.
        values: the flat traced inputs.
        patterns: which entries of each block may be nonzero.
    """
    given, made = derivative.modes["jvp"]
    seeds = given if linear.mode == "jvp" else made
    reader = _Reader()
    known: list[Value] = [reader.known(value) for value in values]
    start: list[Value] = [{n: [reader.identity(aval.shape)]} for n, aval in enumerate(seeds)]
    found: list[Value] | None = None
    why = ""
    try:
        found = reader.run(linear.jaxpr, [*known, *start])
    except Opaque as error:
        why = str(error)
    blocks = {}
    for o, out in enumerate(made):
        for i, source in enumerate(given):
            if found is None:
                program = Program(derivative, values, (o, i), patterns[o, i])
                blocks[o, i] = Structured(program, f"JVP of the program ({why} has no terms)")
                continue
            result, seed = (found[o], i) if linear.mode == "jvp" else (found[i], o)
            terms = [] if isinstance(result, Known) else result.get(seed, [])
            if linear.mode == "vjp":
                terms = [replace(t, out=t.into, into=t.out) for t in terms]
            read = reader.operator(terms, out, source)
            if read.stored_bytes > read.dense_bytes:
                dense = read.to_dense(read.dense_bytes)
                read = Structured(Dense(dense, out.shape, source.shape), "W")
            blocks[o, i] = read
    return blocks


class _Reader:
    """One walk over a linear program at a point."""

    def __init__(self) -> None:
        self.sizes: dict[int, int] = {}
        self._next = itertools.count()
        self._made: dict[Hashable, Any] = {}
        self._alive: list[Any] = []
        self._bases: dict[Hashable, int] = {}

    def fresh(self, size: int) -> Label:
        """Return the label of a new axis."""
        if size == 1:
            return ()
        name = next(self._next)
        self.sizes[name] = size
        return (name,)

    def identity(self, shape: Sequence[int]) -> Term:
        """Return the term of a seed itself."""
        labels = tuple(map(self.fresh, shape))
        return Term(labels, labels)

    def known(self, value: Any, number: float | None = None) -> Known:
        """Return an array as a known value."""
        self._alive.append(value)
        return Known(value, tuple(range(np.ndim(value))), np.shape(value), id(value), number)

    def run(self, jaxpr: Any, inputs: Sequence[Value]) -> list[Value]:
        """Return the outputs of a jaxpr."""
        parts = body(jaxpr)
        values: dict[Any, Value] = dict(zip(parts.constvars, map(self.known, parts.constants)))
        values.update(zip(parts.invars, inputs, strict=True))

        def read(atom: Any) -> Value:
            if not isinstance(atom, Literal):
                return values[atom]
            number = float(atom.val) if np.ndim(atom.val) == 0 and np.isrealobj(atom.val) else None
            return self.known(atom.val, number)

        for equation in parts.equations:
            operands = [read(atom) for atom in equation.invars]
            inner = call_body(equation)
            if inner is not None:
                made = self.run(inner, operands)
            elif all(isinstance(operand, Known) for operand in operands):
                made = self._evaluate(equation, operands)
            else:
                made = [self._linear(equation, operands)]
            values.update(zip(equation.outvars, made))
        return [read(atom) for atom in parts.outvars]

    def _evaluate(self, equation: Any, operands: Sequence[Array]) -> list[Value]:
        name, params = equation.primitive.name, equation.params
        if name == "broadcast_in_dim" and len(operands) == 1:
            (x,) = operands
            to = params["broadcast_dimensions"]
            kept = [
                (k, to[a]) for k, a in enumerate(x.axes) if x.base.shape[k] != 1 or x.shape[a] == 1
            ]
            if all(x.base.shape[k] == params["shape"][d] for k, d in kept):
                base = x.base
                dropped = tuple(k for k in range(np.ndim(base)) if k not in dict(kept))
                key: Hashable = (x.key, "squeeze", dropped) if dropped else x.key
                if dropped:
                    base = self._once(key, lambda: jnp.squeeze(base, dropped))
                axes = tuple(d for _, d in kept)
                return [Known(base, axes, tuple(params["shape"]), key, x.number)]
        made = bind(equation, [operand.full() for operand in operands])
        number = operands[0].number if name == "convert_element_type" else None
        return [self.known(value, number) for value in made]

    def _once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return the array that a key stands for, made at its first use."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def _linear(self, equation: Any, operands: Sequence[Value]) -> Value:
        """Return what an equation makes of tangents."""
        name, params = equation.primitive.name, equation.params
        shape = tuple(equation.outvars[0].aval.shape)
        held = [operand for operand in operands if isinstance(operand, dict)]
        if name in ("add", "add_any", "sub", "select_n"):
            return self._joined(equation, operands, shape)
        if name == "dot_general":
            return self._dot(equation, operands)
        if name in ("mul", "div") and len(held) == 1:
            k = 0 if isinstance(operands[0], dict) else 1
            other = operands[1 - k]
            if isinstance(other, Known) and (name == "mul" or k == 0):
                grown = self._grown(held[0], np.shape(equation.invars[k].aval), shape)
                return _each(grown, lambda t: self._times(t, other, name == "div"))
        if len(operands) == 1 and name in _MOVES:
            return _each(held[0], lambda t: _MOVES[name](self, t, params, shape))
        raise Opaque(name)

    def _grown(self, terms: Terms, before: tuple[int, ...], shape: tuple[int, ...]) -> Terms:
        """Spread axes of size 1 that an elementwise equation repeats."""
        if before == shape:
            return terms
        everywhere = {"broadcast_dimensions": tuple(range(len(shape)))}
        return _each(terms, lambda t: self.broadcast(t, everywhere, shape))

    def _times(self, term: Term, known: Known, inverse: bool = False) -> Term:
        """Multiply a term by a known array of the output's shape."""
        if known.number is not None:
            factor = 1 / known.number if inverse and known.number else known.number
            return replace(term, scale=term.scale * factor)
        base, key = known.base, known.key
        if inverse:
            key = key, "inverse"
            base = self._once(key, lambda: 1 / jnp.asarray(known.base))
        labels = [term.out[axis] if base.shape[k] != 1 else () for k, axis in enumerate(known.axes)]
        return replace(term, factors=(*term.factors, self._factor(base, labels, key)))

    def _factor(self, array: Array, labels: Sequence[Label], key: Hashable) -> Factor:
        names = tuple(itertools.chain(*labels))
        shape = tuple(self.sizes[name] for name in names)
        if shape != tuple(np.shape(array)):
            key = key, shape
            array = self._once(key, lambda: jnp.reshape(array, shape))
        return Factor(array, names, key)

    def _joined(self, equation: Any, operands: Sequence[Value], shape: tuple[int, ...]) -> Terms:
        """Add the terms of operands, each times its sign or where it is selected."""
        choice = operands[0] if equation.primitive.name == "select_n" else None
        dtype = equation.outvars[0].aval.dtype
        joined: Terms = {}
        for k, operand in enumerate(operands if choice is None else operands[1:]):
            if isinstance(operand, Known) and operand.number == 0:
                continue
            if isinstance(operand, Known) or isinstance(choice, dict):
                raise Opaque(equation.primitive.name)
            part = Known(
                None, (), shape, None, -1.0 if equation.primitive.name == "sub" and k else 1.0
            )
            if choice is not None:
                key = choice.key, "is", k, str(dtype)
                mask = self._once(key, functools.partial(_mask, choice.base, k, dtype))
                part = Known(mask, choice.axes, choice.shape or shape, key)
            before = np.shape(equation.invars[k + (choice is not None)].aval)
            for seed, terms in self._grown(operand, before, shape).items():
                joined.setdefault(seed, []).extend(self._times(t, part) for t in terms)
        return joined

    def _dot(self, equation: Any, operands: Sequence[Value]) -> Terms:
        k = 0 if isinstance(operands[0], dict) else 1
        held, other = operands[k], operands[1 - k]
        if not isinstance(held, dict) or not isinstance(other, Known):
            raise Opaque("dot_general")
        contracted, batch = equation.params["dimension_numbers"]
        array = other.full()

        def multiplied(term: Term) -> Term:
            labels: list[Label] = [()] * np.ndim(array)
            for mine, theirs in zip(
                (*contracted[k], *batch[k]), (*contracted[1 - k], *batch[1 - k])
            ):
                labels[theirs] = term.out[mine]
            free = [
                a for a in range(np.ndim(array)) if a not in (*contracted[1 - k], *batch[1 - k])
            ]
            for axis in free:
                labels[axis] = self.fresh(array.shape[axis])
            own = [a for a in range(len(term.out)) if a not in (*contracted[k], *batch[k])]
            mine, theirs = [term.out[a] for a in own], [labels[a] for a in free]
            sides = [*mine, *theirs] if k == 0 else [*theirs, *mine]
            out = (*(term.out[a] for a in batch[k]), *sides)
            factor = self._factor(array, labels, other.key)
            return replace(term, out=out, factors=(*term.factors, factor))

        return _each(held, multiplied)

    def broadcast(self, term: Term, params: Mapping[str, Any], shape: Sequence[int]) -> Term:
        """Copy along new axes."""
        place = {d: k for k, d in enumerate(params["broadcast_dimensions"])}
        out = []
        for axis, size in enumerate(shape):
            kept = term.out[place[axis]] if axis in place else ()
            out.append(kept if kept or size == 1 else self.fresh(size))
        return replace(term, out=tuple(out))

    def reduce_sum(self, term: Term, params: Mapping[str, Any], shape: Sequence[int]) -> Term:
        """Sum over axes; what nothing depends on is counted."""
        out = tuple(label for k, label in enumerate(term.out) if k not in params["axes"])
        gone = {n for k in params["axes"] for n in term.out[k]}
        used = replace(term, out=out).names()
        return replace(
            term, out=out, scale=term.scale * math.prod(self.sizes[n] for n in gone - used)
        )

    def reshape(self, term: Term, params: Mapping[str, Any], shape: Sequence[int]) -> Term:
        """Write the axes in other digits."""
        if params.get("dimensions") is not None:
            raise Opaque("reshape")
        rest = list(itertools.chain(*term.out))
        out: list[Label] = []
        for size in shape:
            label: list[int] = []
            while size > 1:
                own = self.sizes[rest[0]] if rest else 0
                if not own or (size % own and own % size):
                    raise Opaque("reshape")
                if size % own:
                    parts = *self.fresh(size), *self.fresh(own // size)
                    return self.reshape(self._split(term, rest[0], parts), params, shape)
                label.append(rest.pop(0))
                size //= own
            out.append(tuple(label))
        if rest:
            raise Opaque("reshape")
        return replace(term, out=tuple(out))

    def _split(self, term: Term, name: int, parts: Label) -> Term:
        """Write one index of a term as two."""

        def swapped(label: Label) -> Label:
            return tuple(n for m in label for n in (parts if m == name else (m,)))

        factors = tuple(
            f if name not in f.names else self._factor(f.array, [swapped(f.names)], f.key)
            for f in term.factors
        )
        into = tuple(map(swapped, term.into))
        return Term(tuple(map(swapped, term.out)), into, factors, term.scale)

    def operator(self, terms: Sequence[Term], out: Any, source: Any) -> Structured:
        """Return the terms of one block, simplified, as an operator."""
        if not terms or not out.size or not source.size:
            return Structured(Zero(out.shape, source.shape, out.dtype), "0")
        groups: dict[Hashable, list[Term]] = {}
        for term in terms:
            lean = self._contracted(term)
            groups.setdefault(self._structure(lean), []).append(self._renamed(lean))
        parts: list[tuple[Operator, str]] = []
        for group in groups.values():
            parts += self._parts(group, out, source)
        parts.sort(key=lambda part: not part[1].endswith(("(d)", "I")))
        whole = parts[0][0] if len(parts) == 1 else OperatorSum(*(part for part, _ in parts))
        return Structured(whole, " + ".join(text for _, text in parts))

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
        return Factor(self._once(key, lambda: _einsum(operands, names)), names, key)

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
        text = _formula(factors, rows, columns, tied)
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


def _mask(choice: Any, number: int, dtype: DTypeLike) -> Any:
    return (jnp.asarray(choice) == number).astype(dtype)


def _union(factors: Iterable[Factor]) -> Label:
    return tuple(sorted({n for f in factors for n in f.names}))


def _einsum(operands: list[Array], names: Label) -> Any:
    return jnp.einsum(*operands, list(names), precision="highest")


def _each(terms: Terms, change: Callable[[Term], Term]) -> Terms:
    return {seed: [change(t) for t in each] for seed, each in terms.items()}


def _formula(
    factors: Sequence[Factor], rows: Sequence[int], columns: Sequence[int], tied: set[int]
) -> str:
    """Return what one operator is called."""
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
    if not set(rows) - tied:
        return f"{right}'{each}"
    return f"{left}{each}" if not set(columns) - tied else f"{left} {right}'{each}"


_MOVES: dict[str, Callable[[_Reader, Term, Mapping[str, Any], Any], Term]] = {
    **dict.fromkeys(
        ("convert_element_type", "copy", "copy_p", "optimization_barrier", "reduce_precision"),
        lambda reader, term, params, shape: term,
    ),
    **dict.fromkeys(
        ("expand_dims", "squeeze"),
        lambda reader, term, params, shape: reader.reshape(term, {}, shape),
    ),
    "broadcast_in_dim": _Reader.broadcast,
    "neg": lambda reader, term, params, shape: replace(term, scale=-term.scale),
    "reduce_sum": _Reader.reduce_sum,
    "reshape": _Reader.reshape,
    "transpose": lambda reader, term, params, shape: replace(
        term, out=tuple(term.out[k] for k in params["permutation"])
    ),
}
