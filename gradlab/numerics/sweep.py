"""The gradient of a function of one or two numbers, held against float64 over a whole dtype."""

import importlib.util
import math
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from gradlab.arguments import name_of, require_callable
from gradlab.common.arrays import Array, Function, Tree
from gradlab.errors import GradlabError, InputError
from gradlab.primitives import lookup
from gradlab.progress import tracked
from gradlab.references import Evaluation, smallest_normal, unit_roundoff, vjp_program
from gradlab.references.precision import largest
from gradlab.report import Report
from gradlab.tracing import Program, lift, strip, trace
from gradlab.tracing.interpreter import Interpreter
from gradlab.tracing.jaxprs import Equation, dtype_of
from gradlab.tracing.leaves import is_inexact
from gradlab.tracing.numeric import evaluate
from gradlab.tracing.program import without_checks

F64 = NDArray[np.float64]

_SAMPLES = 4096  # of each binade
_CHUNK = 1 << 20
_FORMATS = {"float32": (23, 8), "bfloat16": (7, 8), "float16": (10, 5)}  # mantissa, exponent bits
_LOST = 0.5  # digits
_KEEPS = 1.0  # digits that autodiff keeps more, where a loss is avoidable


@dataclass(frozen=True)
class Binade:
    """The numbers from `low` to `high`, and the one at which the gradient is furthest off.

    Attributes:
        low: the lowest number, of the first input.
        high: the highest.
        worst: the input, or the inputs, with the fewest digits.
        came: the gradient there, as it runs in the dtype.
        expected: what it should be.
        digits: correct decimal digits, from 0 to those of the dtype.
        autodiff_digits: the same of JAX's autodiff in the dtype, without custom rules.
    """

    low: float
    high: float
    worst: tuple[float, ...]
    came: float
    expected: float
    digits: float
    autodiff_digits: float

    @property
    def lost(self) -> bool:
        """Whether less than half a digit is left somewhere here."""
        return self.digits < _LOST

    @property
    def avoidable(self) -> bool:
        """Whether digits are lost here that autodiff keeps."""
        return self.lost and self.autodiff_digits >= self.digits + _KEEPS


@dataclass(frozen=True)
class SweepReport(Report):
    """How many digits a gradient keeps over all numbers of a dtype, or a sample of each binade.

    Attributes:
        function: its name.
        dtype: the dtype that was swept.
        tried: at how many inputs.
        unknown: binades in which float64 itself is not sure of the worst input.
        binades: each with its worst input, from the most negative on.
        worst: the worst of all; None where nothing is finite.
    """

    kind: ClassVar[str] = "sweep"
    derived: ClassVar[tuple[str, ...]] = ()
    function: str
    dtype: str
    tried: int
    unknown: int
    binades: tuple[Binade, ...]
    worst: Binade | None

    @property
    def ok(self) -> bool:
        """Whether no digit is lost that autodiff keeps."""
        return not any(binade.avoidable for binade in self.binades)


def sweep(
    function: Function, dtype: str = "float32", every: bool = False, jobs: int = 1
) -> SweepReport:
    """Hold a function's gradient against float64 over a whole dtype.

    float16 and bfloat16 are swept whole; of float32, 4,096 numbers of each binade and sign, or all.
    A function of two numbers is swept on a grid of 256 by 256.

    Args:
        function: an elementwise JAX function of one or two arrays.
        dtype: "float32", "bfloat16" or "float16".
        every: take all 2^32 numbers of float32.
        jobs: threads.

    Raises:
        InputError: the dtype cannot be swept, or the function takes other inputs.

    References:
        Relative error and digits: Higham (2002), "Accuracy and Stability of Numerical Algorithms",
        section 1.2.

    Example:
        >>> report = sweep(lambda x: x * x, "float16")
        >>> report.tried, report.ok
        (63488, True)
    """
    require_callable("function", function)
    if dtype not in _FORMATS:
        raise InputError(
            f"dtypes: {dtype!r} cannot be swept; choose {', '.join(_FORMATS)}", (dtype, "float32")
        )
    judge = _Judge(function, dtype, _inputs(function, dtype))
    if judge.count == 2:
        spans = list(_grid(dtype))
    else:
        spans = list(_spans(dtype, every and dtype == "float32"))
    with ThreadPoolExecutor(jobs) as pool, without_checks(), np.errstate(all="ignore"):
        found = list(tracked(pool.map(judge.worst_of, spans), lambda _: "", len(spans)))
        binades, unknown = judge.confirmed(spans, found)
    return SweepReport(
        function=name_of(function),
        dtype=dtype,
        tried=sum(span.size for span in spans),
        unknown=unknown,
        binades=tuple(binades),
        worst=min(binades, key=lambda b: b.digits, default=None),
    )


@dataclass(frozen=True)
class _Span:
    """Numbers of one binade and sign: bit patterns from `first` on, `step` apart."""

    first: int
    step: int
    size: int
    others: tuple[float, ...] = ()


def _inputs(function: Function, dtype: str) -> int:
    for count in (1, 2):
        try:
            trace(function, *(jnp.ones(4, dtype) for _ in range(count)))
        except GradlabError:
            continue
        return count
    raise InputError(
        f"{name_of(function)}: sweep takes an elementwise function of one or two arrays; wrap it "
        "so that the other arguments are fixed: functools.partial(function, axis=-1)"
    )


def _spans(dtype: str, every: bool) -> Iterator[_Span]:
    """Yield each binade of finite normal numbers; for half precision with the subnormal ones."""
    mantissa, bits = _FORMATS[dtype]
    exponents = (1 << bits) - 1
    width, sign = 1 << mantissa, 1 << (mantissa + bits)
    step = 1 if every or dtype != "float32" else width // _SAMPLES
    lowest = 1 if dtype == "float32" else 0  # XLA takes subnormal float32 numbers for zero
    for minus in (sign, 0):
        order = range(lowest, exponents)
        for exponent in reversed(order) if minus else order:
            yield _Span(minus + exponent * width, step, width // step)


def _grid(dtype: str) -> Iterator[_Span]:
    """Yield, for each of 256 first inputs, 256 second ones."""
    top = math.log2(largest(dtype)) * 0.45
    sizes = np.exp2(np.linspace(-top, top, 128))
    numbers = [float(n) for n in np.concatenate([-sizes[::-1], sizes])]
    for number in numbers:
        bits = int(np.asarray(number, dtype).view(_unsigned(dtype)))
        yield _Span(bits, 0, len(numbers), tuple(numbers))


def _unsigned(dtype: str) -> str:
    return f"uint{8 * np.dtype(jnp.dtype(dtype)).itemsize}"


class _Judge:
    """The gradient as it runs, autodiff's, and float64's, in one compiled program."""

    def __init__(self, function: Function, dtype: str, count: int) -> None:
        self.dtype, self.count = dtype, count
        self.least = smallest_normal(dtype)
        self.full = -math.log10(unit_roundoff(dtype))
        self.function = function
        self._compiled: dict[int, Function] = {}

    def programs(self, size: int) -> tuple[Program, Program]:
        """Return the gradient, and autodiff of the function without its rules, at one size."""
        program = trace(self.function, *(jnp.ones(size, self.dtype) for _ in range(self.count)))
        return vjp_program(program), vjp_program(strip(program))

    def worst_of(self, span: _Span) -> tuple[float, ...] | None:
        """Return the inputs at which the gradient has the fewest digits, with its numbers."""
        best: tuple[float, ...] | None = None
        for start in range(0, span.size, _CHUNK):
            size = min(_CHUNK, span.size - start)
            run = self._compile(size)
            bits = np.array(span.first + start * span.step, _unsigned(self.dtype))
            others = [np.asarray(span.others[start : start + size])] if span.others else []
            found = tuple(float(x) for x in run(bits, np.uint32(span.step), *others))
            if best is None or found[0] < best[0]:
                best = found
        return None if best is None or math.isnan(best[0]) else best

    def _compile(self, size: int) -> Function:
        if size not in self._compiled:
            rule, reference = self.programs(size)
            lifted = lift(reference)
            unsigned = _unsigned(self.dtype)

            def run(bits: Any, step: Any, *others: Any) -> Any:
                places = bits + jnp.arange(size, dtype=unsigned) * step.astype(unsigned)
                x = jax.lax.bitcast_convert_type(places, self.dtype)
                inputs = [x, *(other.astype(self.dtype) for other in others)]
                ones = jnp.ones(size, self.dtype)
                outputs = len(rule.out_names) - self.count
                came = rule.flat(*inputs, ones)[outputs:]
                plain = reference.flat(*inputs, ones)[outputs:]
                exact = lifted(*inputs, ones)[outputs:]
                digits = jnp.stack([self.digits(jnp, a, q) for a, q in zip(came, exact)])
                own = jnp.stack([self.digits(jnp, a, q) for a, q in zip(plain, exact)])
                flat = jnp.argmin(digits)
                which, at = jnp.divmod(flat, size)
                pick = [jnp.stack(each)[which, at].astype(jnp.float64) for each in (came, exact)]
                return (digits.ravel()[flat], own.ravel()[flat], *pick, *(i[at] for i in inputs))

            with jax.enable_x64(True):
                self._compiled[size] = jax.jit(run)
        compiled = self._compiled[size]

        def call(*arguments: Tree) -> Any:
            with jax.enable_x64(True):
                return compiled(*arguments)

        return call

    def digits(self, xp: Any, came: Array, exact: Array) -> Any:
        """Return correct decimal digits; all of them where float64 itself is not finite."""
        came, exact = came.astype(np.float64), exact.astype(np.float64)
        error = xp.abs(came - exact) / xp.maximum(xp.abs(exact), self.least)
        found = xp.clip(-xp.log10(error), 0.0, self.full)
        beyond = xp.abs(exact) > largest(self.dtype)
        same = xp.isinf(came) & (xp.sign(came) == xp.sign(exact))
        found = xp.where(xp.isfinite(came), found, 0.0)
        found = xp.where(beyond, xp.where(same, self.full, 0.0), found)
        return xp.where(xp.isfinite(exact), found, self.full)

    def confirmed(
        self, spans: list[_Span], found: list[tuple[float, ...] | None]
    ) -> tuple[list[Binade], int]:
        """Return the binades, the worst inputs judged again where float64 may be off itself."""
        kept = [(span, each) for span, each in zip(spans, found) if each is not None]
        if not kept:
            return [], 0
        inputs = [np.array([each[4 + k] for _, each in kept]) for k in range(self.count)]
        exact, sure = self._exact(inputs, np.array([each[3] for _, each in kept]),
                                  np.array([each[2] for _, each in kept]))  # fmt: skip
        binades, unknown = [], 0
        for (span, each), value, known in zip(kept, exact, sure):
            if not known:
                unknown += 1
                continue
            low, high = self._ends(span)
            digits, own, came = each[:3]
            if value != each[3]:
                digits = float(self.digits(np, np.float64(came), np.float64(value)))
            binades.append(Binade(low, high, each[4:], came, float(value), digits, own))
        return binades, unknown

    def _exact(self, inputs: list[F64], exact: F64, came: F64) -> tuple[F64, NDArray[np.bool_]]:
        """Return the gradients expected at the worst inputs, and where they are certain."""
        _, reference = self.programs(len(exact))
        lab = Evaluation(reference=reference)
        names = reference.in_names
        arrays = [i.astype(jnp.dtype(self.dtype)) for i in inputs]
        point = dict(zip(names, [*arrays, np.ones(len(exact), jnp.dtype(self.dtype))]))
        outputs = len(names) - 1
        estimates = lab.estimates(point, law="formula")["reference"][-outputs:]
        scatter = np.max([np.abs(e.scatter) for e in estimates], axis=0)
        unit = unit_roundoff(self.dtype)
        sure = scatter <= 0.1 * np.fmax(np.abs(came - exact), unit * np.abs(exact))
        if not sure.all() and importlib.util.find_spec("mpmath") is not None:
            better = exactly(reference, point, np.flatnonzero(~sure))
            for place, value in better.items():
                nearest = int(np.argmin(np.abs(np.array(value) - exact[place])))
                exact[place], sure[place] = value[nearest], True
        return exact, sure

    def _ends(self, span: _Span) -> tuple[float, float]:
        last = span.first + span.step * (span.size - 1)
        ends = np.array([span.first, last], _unsigned(self.dtype)).view(jnp.dtype(self.dtype))
        low, high = sorted(float(end) for end in ends)
        return low, high


_DIGITS = (50, 100, 200)
_AGREE = 1e-9  # relative


def exactly(
    program: Program, inputs: Mapping[str, Array], places: NDArray[np.intp]
) -> dict[int, list[float]]:
    """Return the gradients at some places that no more digits change (needs mpmath).

    A program with a primitive that mpmath has no function for gives nothing.
    """
    import mpmath

    found: dict[int, list[float]] = {}
    names, before = program.in_names, None
    for digits in _DIGITS:
        with mpmath.workdps(digits), np.errstate(all="ignore"):
            high = _High(mpmath)
            arrays = [high.precise(np.asarray(inputs[name])) for name in names]
            try:
                outputs = high(program.jaxpr, arrays)[1 - len(names) :]
            except KeyError:
                return {}
            now = np.array([output[places].astype(np.float64) for output in outputs])
        if before is not None:
            same = (np.abs(now - before) <= _AGREE * np.abs(now)).all(0)
            found |= {int(places[k]): list(map(float, now[:, k])) for k in np.flatnonzero(same)}
        before = now
    return found


class _High(Interpreter[Array]):
    """Evaluates with mpmath's numbers, in NumPy arrays of objects."""

    def __init__(self, mpmath: Any) -> None:
        self._mpf = np.frompyfunc(mpmath.mpf, 1, 1)
        self._functions = _functions(mpmath)

    def precise(self, array: Array) -> Array:
        """Return an array with mpmath's numbers; whole numbers stay."""
        if not is_inexact(array.dtype):
            return array
        return np.asarray(self._mpf(array.astype(np.float64)), object)

    def constant(self, array: Array) -> Array:
        """Bring a constant in, as the shortest decimal that it stands for."""
        if not is_inexact(array.dtype):
            return array
        text = np.frompyfunc(lambda x: self._mpf(np.format_float_positional(x)), 1, 1)
        finite = np.isfinite(array.astype(np.float64)).all()
        return np.asarray(text(array), object) if finite else self.precise(array)

    def concrete(self, value: Array) -> Array:
        """Return numbers that decide."""
        return value

    def equation(self, equation: Equation, inputs: list[Array]) -> list[Array]:
        """Evaluate one equation; raises KeyError where mpmath has nothing for it."""
        name = equation.primitive.name
        if name == "convert_element_type":
            (array,) = inputs
            wide = is_inexact(dtype_of(equation.outvars[0])) and array.dtype != object
            return [self.precise(array) if wide else array]
        if name == "integer_pow":
            return [inputs[0] ** equation.params["y"]]
        if lookup(name).moves is not None or all(array.dtype != object for array in inputs):
            found = evaluate(equation, inputs)
            if found is None:
                raise KeyError(name)
            return found
        return [np.asarray(self._functions[name](*inputs))]


def _functions(mp: Any) -> dict[str, Function]:
    """Return mpmath's function for each primitive, on arrays of its numbers."""

    def compared(ufunc: np.ufunc) -> Function:
        return lambda x, y: np.asarray(ufunc(x, y), bool)

    same = "asinh atan atanh cbrt cos cosh digamma erf erfc exp expm1 sign sin sinh tan tanh"
    of_one = {name: getattr(mp, name) for name in same.split()} | {
        "abs": abs,
        "exp2": lambda x: mp.power(2, x),
        "is_finite": lambda x: bool(mp.isfinite(x)),
        "lgamma": lambda x: mp.log(abs(mp.gamma(x))),
        "log": lambda x: mp.log(x) if x > 0 else mp.nan,
        "log1p": lambda x: mp.log1p(x) if x > -1 else mp.nan,
        "logistic": lambda x: 1 / (1 + mp.exp(-x)),
        "one_minus_square": lambda x: 1 - x * x,  # of newer JAX
        "rsqrt": lambda x: 1 / mp.sqrt(x) if x > 0 else mp.nan,
        "sqrt": lambda x: mp.sqrt(x) if x >= 0 else mp.nan,
        "square": lambda x: x * x,
    }
    of_two = {"div": lambda x, y: x / y if y else mp.nan, "max": max, "min": min, "pow": mp.power}
    comparisons = {
        "eq": np.equal,
        "ge": np.greater_equal,
        "gt": np.greater,
        "le": np.less_equal,
        "lt": np.less,
        "ne": np.not_equal,
    }
    arithmetic = {"add": np.add, "add_any": np.add, "mul": np.multiply, "sub": np.subtract}
    return {
        **{name: np.frompyfunc(function, 1, 1) for name, function in of_one.items()},
        **{name: np.frompyfunc(function, 2, 1) for name, function in of_two.items()},
        **{name: compared(ufunc) for name, ufunc in comparisons.items()},
        **arithmetic,
        "neg": np.negative,
    }
