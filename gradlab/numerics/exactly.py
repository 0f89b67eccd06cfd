"""An elementwise program with many digits: what it should give where float64 cancels too."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradlab.common.arrays import Function
from gradlab.primitives import lookup
from gradlab.tracing import Program
from gradlab.tracing.interpreter import Interpreter
from gradlab.tracing.jaxprs import Equation, dtype_of
from gradlab.tracing.leaves import is_inexact
from gradlab.tracing.numeric import evaluate

Array = NDArray[Any]
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
