"""The variables on which a function is called to record its graph."""

import sys
from typing import Any

import numpy as np

from gradlab.errors import InputError, InputTypeError
from gradlab.formatting import shape_text
from gradlab.graph._plan import Plan, Step
from gradlab.graph._tree import is_array
from gradlab.nodes import Node, registry

__all__ = ["Recorder", "Variable"]

_UFUNCS = {"negative": "negate"}  # where a NumPy function and its node have different names


class Recorder:
    """What a function does to its variables: the wires and steps of a graph to be.

    Every node is run as it is recorded, so that a variable has a value, a shape and a dtype, and a
    wrong call is reported at the line that makes it.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.taken: dict[str, int] = {}
        self.values: list[Any] = []
        self.inputs: list[int] = []
        self.constants: dict[int, Any] = {}
        self.steps: list[Step] = []
        self.residuals: list[Any] = []

    def input(self, name: str, value: Any) -> "Variable":
        """Return a new variable for an input."""
        wire = self._wire(name, value)
        self.inputs.append(wire)
        return Variable(self, wire)

    def apply(self, node: Node, inputs: tuple[Any, ...]) -> Any:
        """Run a node and return its output as a variable; several outputs as a tuple of them."""
        wires = tuple(self.wire_of(x) for x in inputs)
        output, residuals = node.forward(*(self.values[wire] for wire in wires))
        self.residuals.append(residuals)
        several = isinstance(output, tuple)
        name = self._unused(node.name())
        named = [(f"{name}[{i}]", y) for i, y in enumerate(output)] if several else [(name, output)]
        outputs = tuple(self._wire(name, value) for name, value in named)
        self.steps.append(Step(node, wires, outputs, several, _calling_line()))
        variables = tuple(Variable(self, wire) for wire in outputs)
        return variables if several else variables[0]

    def wire_of(self, x: Any) -> int:
        """Return the wire of a variable; anything else becomes a constant."""
        if isinstance(x, Variable):
            if x.recorder is not self:
                raise InputError(
                    f"{x!r} belongs to another graph; build one graph from one function"
                )
            return x.wire
        if not is_array(x) and not isinstance(x, int | float | complex):
            raise InputTypeError(f"a graph's constants are arrays and numbers, not {x!r}")
        wire = self._wire("constant", x)
        self.constants[wire] = x
        return wire

    def plan(self, outputs: tuple[int, ...]) -> Plan:
        """Return what was recorded, ready to run."""
        return Plan(len(self.names), tuple(self.inputs), self.constants, tuple(self.steps), outputs)

    def _wire(self, name: str, value: Any) -> int:
        self.names.append(self._unused(name))
        self.taken.setdefault(self.names[-1], 0)
        self.values.append(value)
        return len(self.names) - 1

    def _unused(self, name: str) -> str:
        """Return `name`, or `name_1`, `name_2`, ... where it is taken."""
        if name not in self.taken:
            return name
        while True:
            self.taken[name] += 1
            candidate = f"{name}_{self.taken[name]}"
            if candidate not in self.taken:
                return candidate


class Variable:
    """A value on its way through a graph: arithmetic on it records nodes.

    Understood are `+ - * / ** @`, unary minus, every function of `gradlab.nodes`, NumPy's functions
    of the same names (`np.exp`, `np.tanh`, `np.maximum`, ...), and a few of an array's methods.
    """

    __slots__ = ("recorder", "wire")

    def __init__(self, recorder: Recorder, wire: int) -> None:
        self.recorder = recorder
        self.wire = wire

    def __gradlab_apply__(self, node: Node, inputs: tuple[Any, ...]) -> Any:
        return self.recorder.apply(node, inputs)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **keywords: Any) -> Any:
        name = _UFUNCS.get(ufunc.__name__, ufunc.__name__)
        if method != "__call__" or keywords or name not in registry():
            return NotImplemented
        return _apply(name, *inputs)

    @property
    def value(self) -> Any:
        """The array that this variable holds while the graph is recorded."""
        return self.recorder.values[self.wire]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the value."""
        return tuple(self.value.shape)

    @property
    def dtype(self) -> Any:
        """The dtype of the value."""
        return self.value.dtype

    @property
    def ndim(self) -> int:
        """The number of axes of the value."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of entries of the value."""
        return int(np.prod(self.shape, dtype=int))

    @property
    def T(self) -> "Variable":
        """The value with its axes reversed."""
        return _apply("transpose", self)

    def transpose(self, *axes: Any) -> "Variable":
        """Return the value with its axes reordered; reversed if none are named."""
        return _apply("transpose", self, axes=_unpacked(axes) or None)

    def reshape(self, *shape: Any) -> "Variable":
        """Return the value in another shape."""
        return _apply("reshape", self, shape=_unpacked(shape))

    def sum(self, axis: Any = None, keepdims: bool = False) -> "Variable":
        """Return the sum over axes."""
        return _apply("sum", self, axis=axis, keepdims=keepdims)

    def mean(self, axis: Any = None, keepdims: bool = False) -> "Variable":
        """Return the mean over axes."""
        return _apply("mean", self, axis=axis, keepdims=keepdims)

    def max(self, axis: Any = None, keepdims: bool = False) -> "Variable":
        """Return the greatest entry over axes."""
        return _apply("max", self, axis=axis, keepdims=keepdims)

    def __add__(self, other: Any) -> "Variable":
        return _apply("add", self, other)

    def __radd__(self, other: Any) -> "Variable":
        return _apply("add", other, self)

    def __sub__(self, other: Any) -> "Variable":
        return _apply("subtract", self, other)

    def __rsub__(self, other: Any) -> "Variable":
        return _apply("subtract", other, self)

    def __mul__(self, other: Any) -> "Variable":
        return _apply("multiply", self, other)

    def __rmul__(self, other: Any) -> "Variable":
        return _apply("multiply", other, self)

    def __truediv__(self, other: Any) -> "Variable":
        return _apply("divide", self, other)

    def __rtruediv__(self, other: Any) -> "Variable":
        if isinstance(other, int | float) and other == 1:
            return _apply("reciprocal", self)
        return _apply("divide", other, self)

    def __matmul__(self, other: Any) -> "Variable":
        return _apply("matmul", self, other)

    def __rmatmul__(self, other: Any) -> "Variable":
        return _apply("matmul", other, self)

    def __pow__(self, other: Any) -> "Variable":
        gates = {2: "square", -1: "reciprocal", 0.5: "sqrt"}
        if isinstance(other, int | float) and other in gates:
            return _apply(gates[other], self)
        return _apply("power", self, other)

    def __rpow__(self, other: Any) -> "Variable":
        return _apply("power", other, self)

    def __neg__(self) -> "Variable":
        return _apply("negate", self)

    def __bool__(self) -> bool:
        raise InputTypeError(
            f"{self!r} has no truth value: a graph is the same for every input, so `if` and "
            "`while` cannot look at its values; use nodes such as maximum or relu"
        )

    def _unordered(self, other: Any) -> bool:
        return bool(self)

    __lt__ = __le__ = __gt__ = __ge__ = _unordered

    def __float__(self) -> float:
        raise InputTypeError(f"{self!r} is no number: it stands for every value; leave it as it is")

    def __repr__(self) -> str:
        name = self.recorder.names[self.wire]
        return f"Variable({name}: {self.dtype} {shape_text(self.shape)})"


def _apply(name: str, *inputs: Any, **parameters: Any) -> Variable:
    """Apply the node of this name to inputs of which at least one is a variable."""
    variable: Variable = registry()[name](**parameters)(*inputs)
    return variable


def _unpacked(sizes: tuple[Any, ...]) -> tuple[int, ...]:
    """Return `(2, 3)` from the arguments of `reshape(2, 3)` as well as of `reshape((2, 3))`."""
    return tuple(sizes[0]) if len(sizes) == 1 and not isinstance(sizes[0], int) else sizes


def _calling_line() -> str:
    """Return the line of the caller's code that applied a node, as `layer.py:12`."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        if not frame.f_globals.get("__name__", "").startswith("gradlab."):
            return f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno}"
        frame = frame.f_back
    return ""
