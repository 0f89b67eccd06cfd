"""A linear program, read as a sum of terms: linear primitives map terms to terms."""

import functools
import itertools
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradlab.common.arrays import Array, DTypeLike
from gradlab.structure.terms import Arrays, Label, Term
from gradlab.tracing.jaxprs import Literal, bind, body
from gradlab.tracing.linearise import call_body


class Opaque(Exception):
    """A primitive on a tangent that terms cannot say."""


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


class Reader:
    """One walk over a linear program at a point."""

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = arrays
        self._alive: list[Any] = []

    def identity(self, shape: Sequence[int]) -> Term:
        """Return the term of a seed itself."""
        labels = tuple(map(self._arrays.fresh, shape))
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
                    base = self._arrays.once(key, lambda: jnp.squeeze(base, dropped))
                axes = tuple(d for _, d in kept)
                return [Known(base, axes, tuple(params["shape"]), key, x.number)]
        made = bind(equation, [operand.full() for operand in operands])
        number = operands[0].number if name == "convert_element_type" else None
        return [self.known(value, number) for value in made]

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
            base = self._arrays.once(key, lambda: 1 / jnp.asarray(known.base))
        labels = [term.out[axis] if base.shape[k] != 1 else () for k, axis in enumerate(known.axes)]
        return replace(term, factors=(*term.factors, self._arrays.factor(base, labels, key)))

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
                mask = self._arrays.once(key, functools.partial(_mask, choice.base, k, dtype))
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
                labels[axis] = self._arrays.fresh(array.shape[axis])
            own = [a for a in range(len(term.out)) if a not in (*contracted[k], *batch[k])]
            mine, theirs = [term.out[a] for a in own], [labels[a] for a in free]
            sides = [*mine, *theirs] if k == 0 else [*theirs, *mine]
            out = (*(term.out[a] for a in batch[k]), *sides)
            factor = self._arrays.factor(array, labels, other.key)
            return replace(term, out=out, factors=(*term.factors, factor))

        return _each(held, multiplied)

    def broadcast(self, term: Term, params: Mapping[str, Any], shape: Sequence[int]) -> Term:
        """Copy along new axes."""
        place = {d: k for k, d in enumerate(params["broadcast_dimensions"])}
        out = []
        for axis, size in enumerate(shape):
            kept = term.out[place[axis]] if axis in place else ()
            out.append(kept if kept or size == 1 else self._arrays.fresh(size))
        return replace(term, out=tuple(out))

    def reduce_sum(self, term: Term, params: Mapping[str, Any], shape: Sequence[int]) -> Term:
        """Sum over axes; what nothing depends on is counted."""
        out = tuple(label for k, label in enumerate(term.out) if k not in params["axes"])
        gone = {n for k in params["axes"] for n in term.out[k]}
        used = replace(term, out=out).names()
        return replace(
            term, out=out, scale=term.scale * math.prod(self._arrays.sizes[n] for n in gone - used)
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
                own = self._arrays.sizes[rest[0]] if rest else 0
                if not own or (size % own and own % size):
                    raise Opaque("reshape")
                if size % own:
                    parts = *self._arrays.fresh(size), *self._arrays.fresh(own // size)
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
            f if name not in f.names else self._arrays.factor(f.array, [swapped(f.names)], f.key)
            for f in term.factors
        )
        into = tuple(map(swapped, term.into))
        return Term(tuple(map(swapped, term.out)), into, factors, term.scale)


def _mask(choice: Any, number: int, dtype: DTypeLike) -> Any:
    return (jnp.asarray(choice) == number).astype(dtype)


def _each(terms: Terms, change: Callable[[Term], Term]) -> Terms:
    return {seed: [change(t) for t in each] for seed, each in terms.items()}


_MOVES: dict[str, Callable[[Reader, Term, Mapping[str, Any], Any], Term]] = {
    **dict.fromkeys(
        ("convert_element_type", "copy", "copy_p", "optimization_barrier", "reduce_precision"),
        lambda reader, term, params, shape: term,
    ),
    **dict.fromkeys(
        ("expand_dims", "squeeze"),
        lambda reader, term, params, shape: reader.reshape(term, {}, shape),
    ),
    "broadcast_in_dim": Reader.broadcast,
    "neg": lambda reader, term, params, shape: replace(term, scale=-term.scale),
    "reduce_sum": Reader.reduce_sum,
    "reshape": Reader.reshape,
    "transpose": lambda reader, term, params, shape: replace(
        term, out=tuple(term.out[k] for k in params["permutation"])
    ),
}
