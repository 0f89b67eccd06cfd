"""The variables on which a function is called to record its graph."""

import sys
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from gradlab.common.arrays import Array, Axis, DTypeLike, Tree
from gradlab.errors import InputError, InputTypeError
from gradlab.formatting import shape_text
from gradlab.graph._form import is_array
from gradlab.graph._plan import Recording, Step
from gradlab.nodes import Node, registry
from gradlab.nodes._base import Kept, Outputs

_UFUNCS = {"negative": "negate"}  # where a NumPy function and its node have different names
Operand: TypeAlias = Any  # a variable, an array or a number


class Recorder(Recording):
    """What a function does to its variables.

    Every node is run as it is recorded, so that a variable has a value, a shape and a dtype, and a
    wrong call is reported at the line that makes it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.values: list[Array] = []
        self.residuals: list[Kept] = []

    def input(self, name: str, value: Array) -> "Variable":
        """Return a new variable for an input."""
        wire = self._wire(name, value)
        self.inputs.append(wire)
        return Variable(self, wire)

    def apply(self, node: Node, inputs: tuple[Operand, ...]) -> Outputs:
        """Run a node and return its output as a variable; several outputs as a tuple of them."""
        wires = tuple(self.wire_of(x) for x in inputs)
        output, residuals = node.forward(*(self.values[wire] for wire in wires))
        self.residuals.append(residuals)
        several = isinstance(output, tuple)
        name = node.name()
        named = [(f"{name}[{i}]", y) for i, y in enumerate(output)] if several else [(name, output)]
        outputs = tuple(self._wire(name, value) for name, value in named)
        self.steps.append(Step(node, wires, outputs, several, _calling_line()))
        variables = tuple(Variable(self, wire) for wire in outputs)
        return variables if several else variables[0]

    def wire_of(self, x: Operand) -> int:
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

    def _wire(self, name: str, value: Array) -> int:
        self.values.append(value)
        return self.new(name)


Gate: TypeAlias = Callable[["Variable", "Operand"], "Variable"]


def _gates(name: str) -> tuple[Gate, Gate]:
    """Return the method that records a node of two inputs, and the one for the other order."""
    return lambda x, y: _apply(name, x, y), lambda x, y: _apply(name, y, x)


def _folding(name: str) -> Callable[..., "Variable"]:
    """Return the method that records a reduction."""

    def fold(self: "Variable", axis: Axis = None, keepdims: bool = False) -> "Variable":
        return _apply(name, self, axis=axis, keepdims=keepdims)

    return fold


class Variable:
    """A value on its way through a graph: arithmetic on it records nodes.

    Understood are `+ - * / ** @`, unary minus, every function of `gradlab.nodes`, NumPy's functions
    of the same names (`np.exp`, `np.tanh`, `np.maximum`, ...), and a few of an array's methods.
    """

    __slots__ = ("recorder", "wire")

    def __init__(self, recorder: Recorder, wire: int) -> None:
        self.recorder = recorder
        self.wire = wire

    def __gradlab_apply__(self, node: Node, inputs: tuple[Operand, ...]) -> Outputs:
        return self.recorder.apply(node, inputs)

    def __array_ufunc__(
        self, ufunc: np.ufunc, method: str, *inputs: Operand, **keywords: object
    ) -> Outputs:
        name = _UFUNCS.get(ufunc.__name__, ufunc.__name__)
        if method != "__call__" or keywords or name not in registry():
            return NotImplemented
        return _apply(name, *inputs)

    @property
    def value(self) -> Array:
        """The array that this variable holds while the graph is recorded."""
        return self.recorder.values[self.wire]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the value."""
        return tuple(self.value.shape)

    @property
    def dtype(self) -> DTypeLike:
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

    def transpose(self, *axes: Tree) -> "Variable":
        """Return the value with its axes reordered; reversed if none are named."""
        return _apply("transpose", self, axes=_unpacked(axes) or None)

    def reshape(self, *shape: Tree) -> "Variable":
        """Return the value in another shape."""
        return _apply("reshape", self, shape=_unpacked(shape))

    sum, mean, max = map(_folding, ("sum", "mean", "max"))
    __add__, __radd__ = _gates("add")
    __sub__, __rsub__ = _gates("subtract")
    __mul__, __rmul__ = _gates("multiply")
    __matmul__, __rmatmul__ = _gates("matmul")
    __truediv__, _divided_by = _gates("divide")
    _power, __rpow__ = _gates("power")

    def __rtruediv__(self, other: Operand) -> "Variable":
        if isinstance(other, int | float) and other == 1:
            return _apply("reciprocal", self)
        return self._divided_by(other)

    def __pow__(self, other: Operand) -> "Variable":
        gates = {2: "square", -1: "reciprocal", 0.5: "sqrt"}
        if isinstance(other, int | float) and other in gates:
            return _apply(gates[other], self)
        return self._power(other)

    def __neg__(self) -> "Variable":
        return _apply("negate", self)

    def __bool__(self) -> bool:
        raise InputTypeError(
            f"{self!r} has no truth value: a graph is the same for every input, so `if` and "
            "`while` cannot look at its values; use nodes such as maximum or relu"
        )

    def _unordered(self, other: Operand) -> bool:
        return bool(self)

    __lt__ = __le__ = __gt__ = __ge__ = _unordered

    def __float__(self) -> float:
        raise InputTypeError(f"{self!r} is no number: it stands for every value; leave it as it is")

    def __repr__(self) -> str:
        name = self.recorder.names[self.wire]
        return f"Variable({name}: {self.dtype} {shape_text(self.shape)})"


def _apply(name: str, *inputs: Operand, **parameters: Tree) -> Variable:
    """Apply the node of this name to inputs of which at least one is a variable."""
    variable: Variable = registry()[name](**parameters)(*inputs)
    return variable


def _unpacked(sizes: tuple[Tree, ...]) -> tuple[int, ...]:
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
