"""A program in prime fields: each value at one concrete point, and as field elements beside it.

The concrete numbers decide what depends on numbers: comparisons, branches, pivots, which entry a
maximum takes. So a formula is tested on the branch that its real inputs take.

Four mechanisms cover most primitives, and each rests on how NumPy evaluates the primitive:

* what only *moves* entries moves residues the same way;
* what is *linear* or *bilinear* is evaluated on residues, whose sums are exact below 2^53;
* what *chooses* entries (max, sort, pooling) runs on the ranks of the concrete numbers;
* what computes *entry by entry* has its own arithmetic in a field.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradlab.primitives import lookup
from gradlab.proof.arithmetic import BILINEAR, CHOICES, COMPLEX, ENTRIES, LINEAR, masked
from gradlab.proof.constants import Reading, element_of, read
from gradlab.proof.degree import CONSTANT, VARIABLE, Degree, joined
from gradlab.proof.field import Element, Lanes, constant, residue
from gradlab.proof.matrices import MATRICES
from gradlab.tracing.arithmetic import NumPy
from gradlab.tracing.constants import Constants
from gradlab.tracing.interpreter import Interpreter, picked
from gradlab.tracing.jaxprs import Equation, dtype_of, source
from gradlab.tracing.leaves import digits, is_inexact
from gradlab.tracing.lift import cannot_lift
from gradlab.tracing.numeric import cast

_EACH = 1000  # entries that cost what an equation does beside its entries
_MOST_TERMS = 1 << 11  # of a sum of products of residues below 2^21
_MOST_READ = 1 << 14  # different numbers of one constant


class TooLarge(Exception):
    """The program has more work in it than a proof may take."""


@dataclass(frozen=True, eq=False)
class Symbol:
    """A value: its numbers at the concrete point, and field elements; None for whole numbers.

    A complex value has two elements. `known`: no real input moves it, and its numbers are those of
    the trace, so that it may be read where no arithmetic leads to it.
    """

    real: NDArray[Any]
    parts: tuple[Element, ...] | None = None
    degree: Degree = CONSTANT
    known: bool = False
    serial: int = field(default_factory=itertools.count(1).__next__)


def cost(equation: Equation) -> int:
    """Return the work of an equation in one lane, in entries."""
    atoms: list[Any] = [*equation.invars, *equation.outvars]
    name = equation.primitive.name
    products = ENTRIES[name].products if name in ENTRIES else 1
    size: int = sum(math.prod(atom.aval.shape) for atom in atoms)
    return size * products + _EACH


class Field(Interpreter[Symbol]):
    """Evaluates a program in some lanes.

    More work than the `budget`, in entries times lanes, raises `TooLarge`.
    """

    def __init__(self, lanes: Lanes, constants: Constants, budget: float) -> None:
        self.lanes = lanes
        self.budget = budget
        self.unproved: dict[str, None] = {}  # what no arithmetic is known for
        self.assumed: dict[str, None] = {}
        self.ambiguous = False  # a root or a logarithm was taken, whose sign may be the other
        self._constants = constants
        self._numpy = NumPy()
        self._tables: dict[Reading, Element] = {}

    def input(self, real: NDArray[Any], rng: np.random.Generator) -> Symbol:
        """Return an input: random residues, squares where the number is not negative."""
        if not is_inexact(real.dtype):
            return Symbol(real, None, known=True)
        if real.dtype.kind == "c":
            parts = tuple(self._draw(part, rng) for part in (real.real, real.imag))
        else:
            parts = (self._draw(real, rng),)
        return Symbol(real, parts, VARIABLE)

    def _draw(self, real: NDArray[Any], rng: np.random.Generator) -> Element:
        roots = [rng.integers(1, int(prime), real.shape) for prime in self.lanes.primes]
        root = Element(self.lanes, np.array(roots, np.float64))
        square = root * root
        return square.made(np.where(real < 0, -square.a, square.a))

    # what the walk asks

    def hold(self, values: Iterable[Symbol]) -> None:
        """Note that numbers are kept, so that no update writes into them."""
        self._numpy.hold([value.real for value in values])

    def release(self, values: Iterable[Symbol]) -> None:
        """Note that numbers are no longer kept."""
        self._numpy.release([value.real for value in values])

    def constant(self, array: NDArray[Any]) -> Symbol:
        """Bring a constant in; it is read when something needs it."""
        return Symbol(array, None, CONSTANT, known=True)

    def concrete(self, value: Symbol) -> NDArray[Any]:
        """Return the numbers of a value."""
        return value.real

    def row(self, value: Symbol, index: int, variable: Any = None) -> Symbol:
        """Return one row of a value."""
        return _each(value, value.real[index], lambda a: a[:, index])

    def stack(self, rows: list[Symbol], variable: Any) -> Symbol:
        """Return rows as one value."""
        if not rows:
            return Symbol(np.zeros(variable.aval.shape, dtype_of(variable)), None, known=True)
        real = np.stack([row.real for row in rows])
        return self._together(rows, real, lambda arrays: np.stack(arrays, 1))

    def choose(
        self, which: Any, alternatives: list[list[Symbol]], atoms: Sequence[Any], rows: int = 0
    ) -> list[Symbol]:
        """Return the values of the alternative whose number each row has."""
        found = []
        for values, atom in zip(zip(*alternatives), atoms):
            pick = partial(picked, which, rank=len(atom.aval.shape), rows=rows)
            found.append(self._together(values, pick([value.real for value in values]), pick))
        return found

    def _together(
        self, values: Sequence[Symbol], real: Any, function: Callable[[list[Any]], Any]
    ) -> Symbol:
        """Return one value whose residues a function arranges from those of several."""
        if not is_inexact(real.dtype) or all(value.known for value in values):
            return Symbol(real, None, known=True)
        parts = zip(*map(self.parts, values))
        arranged = tuple(_joined(self.lanes, elements, function) for elements in parts)
        return Symbol(real, arranged, joined(value.degree for value in values))

    def equation(self, equation: Equation, inputs: list[Symbol]) -> list[Symbol]:
        """Evaluate one equation, in numbers and in the lanes."""
        dtypes = [dtype_of(variable) for variable in equation.outvars]
        known = all(symbol.known for symbol in inputs)
        if known:
            reals = self._numpy.bind(equation, [symbol.real for symbol in inputs])
            if not any(symbol.parts for symbol in inputs):
                return [Symbol(real, None, known=True) for real in reals]
        else:
            wide = [self._widened(symbol) for symbol in inputs]
            found = None if cannot_lift(equation) else self._numpy.lifted(equation, wide)
            if found is None:  # the primitive insists on the dtypes of the trace
                traced = [cast(a, dtype_of(v)) for a, v in zip(wide, equation.invars)]
                found = self._numpy.bind(equation, traced)
            reals = found
        if not any(map(is_inexact, dtypes)):
            return [Symbol(real, None, known=True) for real in reals]
        name = equation.primitive.name
        self.budget -= cost(equation) * len(self.lanes)
        if self.budget < 0:
            raise TooLarge
        self.ambiguous |= name in ("log", "log1p", "pow", "rsqrt", "sqrt", "cholesky", "abs")
        with np.errstate(all="ignore"):
            symbols = self._computed(name, equation, inputs, reals)
        if symbols is None:
            place = source(equation)
            self.unproved[name + (f" at {place}" if place else "")] = None
            symbols = [self._nothing(real) for real in reals]
        return [
            symbol if is_inexact(dtype) else Symbol(symbol.real, None, known=True)
            for symbol, dtype in zip(symbols, dtypes)
        ]

    def _widened(self, symbol: Symbol) -> NDArray[Any]:
        if not symbol.known or not is_inexact(symbol.real.dtype):
            return symbol.real
        return self._constants.lifted(np.asarray(symbol.real))[0]

    def _nothing(self, real: NDArray[Any]) -> Symbol:
        element = Element(self.lanes, np.full((len(self.lanes), *np.shape(real)), np.nan))
        return Symbol(real, (element,) * (2 if np.iscomplexobj(real) else 1))

    def parts(self, symbol: Symbol) -> tuple[Element, ...]:
        """Return the field elements of a value; a constant is read, a whole number is itself."""
        if symbol.parts is not None:
            return symbol.parts
        real = np.asarray(symbol.real)
        wide, precision = real, 53
        if symbol.known and is_inexact(real.dtype):
            wide = self._constants.lifted(real)[0]
            if np.array_equal(wide, real, equal_nan=True):  # no trace held more digits
                precision = digits(real.dtype)
        pieces = (wide.real, wide.imag) if np.iscomplexobj(wide) else (wide,)
        return tuple(self._read(np.asarray(piece), precision) for piece in pieces)

    def _read(self, numbers: NDArray[Any], precision: int) -> Element:
        distinct, index = np.unique(numbers.astype(np.float64), return_inverse=True)
        if len(distinct) > _MOST_READ:
            raise TooLarge
        columns = [self._table(float(number), precision) for number in distinct]
        if not columns:
            return Element(self.lanes, np.zeros((len(self.lanes), *numbers.shape)))
        table = np.stack([element.a for element in columns], 1)
        a = table[:, index.reshape(-1)].reshape(len(self.lanes), *numbers.shape)
        return Element(self.lanes, a, _exact(columns))

    def _table(self, number: float, precision: int) -> Element:
        if not math.isfinite(number):
            return constant(self.lanes, 1).undefined()
        reading = read(number, precision)
        if reading not in self._tables:
            self._tables[reading] = element_of(self.lanes, reading)
        if reading.text:
            self.assumed[reading.text] = None
        return self._tables[reading]

    # the four mechanisms

    def _computed(
        self, name: str, equation: Equation, inputs: list[Symbol], reals: list[NDArray[Any]]
    ) -> list[Symbol] | None:
        pairs = any(np.iscomplexobj(s.real) for s in inputs) or np.iscomplexobj(reals[0])
        if name in (COMPLEX if pairs else ENTRIES):
            return self._entries(name, equation, inputs, reals[0])
        moved = range(len(inputs))[lookup(name).moves or slice(0)]
        if moved and not any(
            is_inexact(s.real.dtype) for k, s in enumerate(inputs) if k not in moved
        ):
            return self._moved(equation, inputs, reals, moved)
        if name in LINEAR:
            return self._linear(equation, inputs, reals[0], LINEAR[name])
        if name in BILINEAR:
            return self._bilinear(equation, inputs, reals[0], BILINEAR[name](equation))
        if name in CHOICES:
            return self._chosen(equation, inputs, reals)
        if name in MATRICES and not any(np.iscomplexobj(s.real) for s in inputs):
            elements = [self.parts(symbol)[0] for symbol in inputs]
            found = MATRICES[name](equation.params, elements, reals)
            if found is None:
                return None
            degree = joined(symbol.degree for symbol in inputs)
            size = max(symbol.real.shape[-1] for symbol in inputs)
            grown = Degree((degree.total + 1) * size)
            return [
                Symbol(real) if element is None else Symbol(real, (element,), grown)
                for element, real in zip(found, reals)
            ]
        return None

    def _entries(
        self, name: str, equation: Equation, inputs: list[Symbol], real: NDArray[Any]
    ) -> list[Symbol] | None:
        degrees = [symbol.degree for symbol in inputs]
        shape = (len(self.lanes), *np.shape(real))
        if np.iscomplexobj(real) or any(np.iscomplexobj(s.real) for s in inputs):
            return self._complex(name, equation, inputs, real)
        elements = [_spread(self.parts(symbol)[0], shape) for symbol in inputs]
        numbers = [np.asarray(self._widened(symbol)) for symbol in inputs]
        element = ENTRIES[name].function(equation.params, elements, numbers, real)
        if element is None:
            return None
        if name == "exp" and (masked(numbers[0]) & np.isfinite(numbers[0])).any():
            self.assumed["exp of a number below -10^4 is read as 0"] = None
        degree = ENTRIES[name].degree(degrees, [symbol.serial for symbol in inputs])
        if name == "integer_pow":
            degree = degrees[0].raised(equation.params["y"], inputs[0].serial)
        return [Symbol(real, (element,), degree)]

    def _complex(
        self, name: str, equation: Equation, inputs: list[Symbol], real: NDArray[Any]
    ) -> list[Symbol] | None:
        """Compute with pairs of elements."""
        function = COMPLEX.get(name)
        if function is None:
            return None
        shape = (len(self.lanes), *np.shape(real))
        pairs = []
        for symbol in inputs:
            found = [_spread(part, shape) for part in self.parts(symbol)]
            pairs.append((found[0], found[1] if len(found) > 1 else found[0].made(found[0].a * 0)))
        parts = function(*pairs)
        degree = joined(s.degree for s in inputs)
        return [Symbol(real, parts, Degree(4 * degree.total))]

    def _moved(
        self, equation: Equation, inputs: list[Symbol], reals: list[Any], moved: range
    ) -> list[Symbol]:
        """Move residues as the primitive moves numbers; the other operands are whole numbers."""
        outputs = self._apply(equation, inputs, {k: self.parts(inputs[k]) for k in moved})
        degree = joined(inputs[k].degree for k in moved)
        return [Symbol(real, parts, degree) for real, parts in zip(reals, outputs)]

    def _linear(
        self, equation: Equation, inputs: list[Symbol], real: NDArray[Any], which: slice
    ) -> list[Symbol]:
        """Evaluate what adds entries up: residues stay below 2^53 for up to 2^31 terms."""
        operands = range(len(inputs))[which]
        outputs = self._apply(equation, inputs, {k: self.parts(inputs[k]) for k in operands})
        size = sum(inputs[k].real.size for k in operands)
        degree = joined(inputs[k].degree for k in operands)
        degree = degree.plus(degree, terms=max(1.0, size / max(1, np.size(real))))
        return [Symbol(real, outputs[0], degree)]

    def _bilinear(
        self, equation: Equation, inputs: list[Symbol], real: NDArray[Any], terms: int
    ) -> list[Symbol]:
        """Evaluate a sum of products on residues, of half their digits where there are many."""
        left, right = (self.parts(symbol) for symbol in inputs[:2])
        degree = inputs[0].degree.times(inputs[1].degree)
        degree = degree.plus(degree, terms=max(1, terms))

        def times(x: Element, y: Element) -> Element:
            def whole(a: Any, b: Any) -> Any:
                halves = (a,) if terms <= _MOST_TERMS else divmod(a, float(1 << 11))
                found: Any = 0.0
                for half in halves:
                    product = self._numpy_of(equation, inputs, {0: half, 1: b})[0]
                    found = residue(found * float(1 << 11) + product, column)
                return found

            column = x.lanes.column(np.ndim(real))
            return x.made(_by_parts(lambda a: _by_parts(lambda b: whole(a, b), y.a), x.a), y)

        if len(left) == 1 and len(right) == 1:
            return [Symbol(real, (times(left[0], right[0]),), degree)]
        zero = [part.made(part.a * 0) for part in (left[0], right[0])]
        a, b = left if len(left) > 1 else (left[0], zero[0])
        c, d = right if len(right) > 1 else (right[0], zero[1])
        parts = times(a, c) - times(b, d), times(a, d) + times(b, c)
        return [Symbol(real, parts, degree)]

    def _chosen(
        self, equation: Equation, inputs: list[Symbol], reals: list[NDArray[Any]]
    ) -> list[Symbol] | None:
        """Find which entries were chosen by running the primitive on their ranks."""
        numbers = [np.asarray(self._widened(symbol), np.float64) for symbol in inputs]
        flat = np.concatenate([n.reshape(-1) for n in numbers])
        if not np.isfinite(flat).all():
            flat = np.nan_to_num(flat, nan=np.inf)
        order = np.argsort(flat, kind="stable")
        ranks = np.empty(len(flat))
        ranks[order] = np.arange(len(flat))
        first = np.concatenate([[0], np.cumsum([n.size for n in numbers])])
        ranked = [ranks[first[k] : first[k + 1]].reshape(n.shape) for k, n in enumerate(numbers)]
        outputs = self._lifted(equation, ranked)
        parts = [_spread(self.parts(s)[0], (len(self.lanes), *s.real.shape)) for s in inputs]
        table = _joined(
            self.lanes,
            parts,
            lambda arrays: np.concatenate([a.reshape(len(self.lanes), -1) for a in arrays], 1),
        )
        degree = joined(symbol.degree for symbol in inputs)
        found = []
        for output, real in zip(outputs, reals):
            inside = (output >= 0) & (output < len(flat))
            index = order[np.where(inside, output, 0).astype(np.int64)]
            element = table.arranged(_taking(index, inside))
            found.append(Symbol(real, (element,), degree))
        return found

    def _apply(
        self, equation: Equation, inputs: list[Symbol], parts: Mapping[int, tuple[Element, ...]]
    ) -> list[tuple[Element, ...]]:
        """Evaluate an equation on residues in place of some operands' numbers, part by part."""
        width = max(len(each) for each in parts.values())
        outputs: list[list[Element]] = []
        for place in range(width):
            elements = {
                k: each[place] if place < len(each) else each[0].made(each[0].a * 0)
                for k, each in parts.items()
            }

            def part(of: Callable[[Element], Any], named: dict[int, Element] = elements) -> Any:
                found = self._numpy_of(equation, inputs, {k: of(e) for k, e in named.items()})
                return [_laned(x, self.lanes, v) for x, v in zip(found, equation.outvars)]

            first, *others = elements.values()
            found = part(lambda e: e.a.real)
            if any(np.iscomplexobj(e.a) for e in elements.values()):
                found = [a + 1j * b for a, b in zip(found, part(lambda e: e.a.imag))]
            made = [first.made(a, *others) for a in found]
            if any(e.flips is not None for e in elements.values()):
                flips = part(lambda e: e.a.real * 0 if e.flips is None else e.flips)
                made = [element.flipped(flip) for element, flip in zip(made, flips)]
            outputs.append(made)
        return list(zip(*outputs))

    def _numpy_of(
        self, equation: Equation, inputs: list[Symbol], residues: Mapping[int, NDArray[Any]]
    ) -> list[Any]:
        arrays = [
            residues[k] if k in residues else np.asarray(self._widened(symbol))
            for k, symbol in enumerate(inputs)
        ]
        return self._lifted(equation, arrays)

    def _lifted(self, equation: Equation, arrays: list[Any]) -> list[Any]:
        outputs = self._numpy.lifted(equation, arrays)
        assert outputs is not None  # the four mechanisms know primitives of any dtype
        return outputs


def _each(value: Symbol, real: Any, function: Callable[[Any], Any]) -> Symbol:
    """Return a symbol whose residues are those of another, moved."""
    if value.parts is None:
        return replace(value, real=np.asarray(real))
    parts = tuple(part.arranged(function) for part in value.parts)
    return replace(value, real=np.asarray(real), parts=parts)


def _joined(
    lanes: Lanes, elements: Sequence[Element], function: Callable[[list[Any]], Any]
) -> Element:
    flips = None
    if any(e.flips is not None for e in elements):
        flips = function([e.a.real * 0 if e.flips is None else e.flips for e in elements])
    return Element(lanes, function([e.a for e in elements]), _exact(elements), flips)


def _exact(elements: Sequence[Element]) -> NDArray[np.bool_]:
    """Return the lanes in which all of some elements are exact."""
    count = len(elements[0].lanes)
    found: NDArray[np.bool_] = np.logical_and.reduce(
        [np.broadcast_to(element.exact, count) for element in elements]
    )
    return found


def _by_parts(function: Callable[[Any], Any], a: Any) -> Any:
    """Return what a linear function of real arrays makes of a, which may be complex."""
    return function(a.real) + 1j * function(a.imag) if np.iscomplexobj(a) else function(a)


def _taking(index: NDArray[Any], inside: NDArray[Any]) -> Callable[[Any], Any]:
    return lambda table: np.where(inside, table[:, index], np.nan)


def _laned(array: Any, lanes: Lanes, variable: Any) -> Any:
    """Return an output with an axis of lanes, also where no operand had one."""
    shape = (len(lanes), *variable.aval.shape)
    array = np.real(array)  # one part of a complex value is real
    return array if np.shape(array) == shape else np.broadcast_to(array, shape)


def _spread(element: Element, shape: tuple[int, ...]) -> Element:
    """Return an element of a scalar as one of an array."""
    if element.a.shape == shape:
        return element

    def wide(a: Any) -> Any:
        ones = (1,) * (len(shape) - a.ndim)
        return np.broadcast_to(a.reshape(a.shape[0], *ones, *a.shape[1:]), shape)

    return element.arranged(wide)
