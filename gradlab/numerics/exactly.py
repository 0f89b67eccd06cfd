"""An elementwise program with fifty digits: what it should give where float64 cancels too."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradlab.primitives import lookup
from gradlab.tracing import Program
from gradlab.tracing.interpreter import Interpreter
from gradlab.tracing.jaxprs import Equation, dtype_of
from gradlab.tracing.leaves import is_inexact
from gradlab.tracing.numeric import evaluate

Array = NDArray[Any]
_DIGITS = 50


def exactly(
    program: Program, inputs: Mapping[str, Array], places: NDArray[np.intp]
) -> dict[int, list[float]]:
    """Return the gradients at some places, rounded from fifty digits (needs mpmath).

    A program with a primitive that mpmath has no function for gives nothing.

    Args:
        program: an elementwise program: outputs, then one gradient per input but the upstream.
        inputs: one-dimensional arrays, by name.
        places: positions in these arrays.
    """
    import mpmath

    found: dict[int, list[float]] = {}
    with mpmath.workdps(_DIGITS):
        high = _High(mpmath)
        try:
            arrays = [high.precise(np.asarray(inputs[name])) for name in program.in_names]
            outputs = high(program.jaxpr, arrays)
        except KeyError:
            return {}
        count = len(program.in_names) - 1
        for place in places:
            found[int(place)] = [float(output[place]) for output in outputs[-count:]]
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
        if lookup(name).moves is not None or name == "convert_element_type":
            outputs = evaluate(equation, inputs) if name != "convert_element_type" else None
            if outputs is None:
                kind = dtype_of(equation.outvars[0])
                array = inputs[0]
                outputs = [self.precise(array) if is_inexact(kind) and array.dtype != object
                           else array]  # fmt: skip
            return outputs
        if name == "integer_pow":
            return [inputs[0] ** equation.params["y"]]
        if not any(array.dtype == object for array in inputs):
            found = evaluate(equation, inputs)
            if found is None:
                raise KeyError(name)
            return found
        return [np.asarray(self._functions[name](*inputs))]


def _functions(mp: Any) -> dict[str, Callable[..., Any]]:
    def of(function: Callable[..., Any], count: int = 1) -> Callable[..., Any]:
        found: Callable[..., Any] = np.frompyfunc(function, count, 1)
        return found

    def compared(ufunc: Callable[..., Any]) -> Callable[..., Any]:
        return lambda x, y: np.asarray(ufunc(x, y), bool)

    return {
        "abs": of(abs),
        "add": np.add,
        "add_any": np.add,
        "asinh": of(mp.asinh),
        "atan": of(mp.atan),
        "atanh": of(mp.atanh),
        "cbrt": of(mp.cbrt),
        "cos": of(mp.cos),
        "cosh": of(mp.cosh),
        "digamma": of(mp.digamma),
        "div": of(lambda x, y: x / y if y else mp.nan, 2),
        "eq": compared(np.equal),
        "erf": of(mp.erf),
        "erfc": of(mp.erfc),
        "exp": of(mp.exp),
        "exp2": of(lambda x: mp.power(2, x)),
        "expm1": of(mp.expm1),
        "ge": compared(np.greater_equal),
        "gt": compared(np.greater),
        "is_finite": of(lambda x: bool(mp.isfinite(x))),
        "le": compared(np.less_equal),
        "lgamma": of(lambda x: mp.log(abs(mp.gamma(x)))),
        "log": of(lambda x: mp.log(x) if x > 0 else mp.nan),
        "log1p": of(lambda x: mp.log1p(x) if x > -1 else mp.nan),
        "logistic": of(lambda x: 1 / (1 + mp.exp(-x))),
        "lt": compared(np.less),
        "max": of(max, 2),
        "min": of(min, 2),
        "mul": np.multiply,
        "ne": compared(np.not_equal),
        "neg": np.negative,
        "pow": of(mp.power, 2),
        "rsqrt": of(lambda x: 1 / mp.sqrt(x) if x > 0 else mp.nan),
        "sign": of(lambda x: mp.sign(x)),
        "sin": of(mp.sin),
        "sinh": of(mp.sinh),
        "sqrt": of(lambda x: mp.sqrt(x) if x >= 0 else mp.nan),
        "square": of(lambda x: x * x),
        "sub": np.subtract,
        "tan": of(mp.tan),
        "tanh": of(mp.tanh),
    }
