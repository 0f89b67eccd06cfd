"""What a node is: one differentiable operation, written by hand.

    forward(*inputs)              -> output, residuals       what backward will need
    local_gradient(residuals)     -> one operator per input  the mathematics
    backward(upstream, residuals) -> one array per input     upstream @ local gradient, fused

A node keeps no state: parameters such as an axis are its fields, arrays are its inputs.

The base class does what every node needs. It turns the inputs into arrays of one namespace, checks
their shapes against the node's line `shapes`, and records the shape and dtype of every input and
output. It checks the upstream, sums each gradient back over broadcast axes and gives it the dtype
of its input. So a subclass writes its mathematics alone:

    apply(xp, *inputs)       -> output, kept    `kept` is a tuple: all that the two others need
    gradients(xp, *kept)     -> one operator per input
    pull(xp, upstream, *kept) -> one array per input

`xp` is NumPy or `jax.numpy`. A node of one input may leave out the tuple around its one operator or
array. Without `pull`, the operators' transposes are applied: right where they only move or weight
entries. `Elementwise` and `Linear` ask for less still.

To add a node, write its class in the file of its family, with a docstring that gives the formula,
the local gradient and the backward. The registry finds it. `gradlab nodes NAME` shows its page,
`gradlab verify NAME` compares it with JAX, `python tests/nodes/test_stub.py` writes its types down.
"""

import ast
import functools
import importlib
import inspect
import math
import operator
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import FrozenInstanceError, dataclass, fields
from typing import Any, ClassVar, NamedTuple, TypeAlias, dataclass_transform

import numpy as np

from gradlab.common.arrays import (
    Array,
    DType,
    DTypeLike,
    Function,
    Shape,
    Tree,
    aligned,
    in_dtype_of,
    is_inexact,
    namespace,
    repeated_axes,
)
from gradlab.common.arrays import Namespace as Namespace
from gradlab.errors import InputError, InputTypeError
from gradlab.formatting import count, shape_text
from gradlab.nodes._domain import REALS, Domain
from gradlab.operators import Broadcast, Diagonal, Identity, Operator


@functools.lru_cache(maxsize=4096)
def misfit(line: str, shapes: tuple[Shape, ...]) -> str:
    """Return what of these shapes does not fit a line, in words; an empty text if all fit.

    Example:
        >>> misfit("x (*rows, n), scale (n) -> (*rows, n)", ((3, 4), (4,)))
        ''
        >>> misfit("x (*rows, n), scale (n) -> (*rows, n)", ((3, 4), (5,)))
        'x has shape 3x4, scale has 5; expected x (*rows, n), scale (n); n is 4 and 5'
    """
    inputs, _, _ = line.partition(" ->")
    sizes: dict[str, int | Shape] = {}
    names, reason = [], ""
    for (name, inside), shape in zip(re.findall(r"(\w+) \(([^)]*)\)", inputs), shapes):
        names.append(name)
        reason = reason or _bind(name, re.findall(r"\*?\w+", inside), shape, sizes)
    if not reason:
        return ""
    came = [f"{name} has {shape_text(shape)}" for name, shape in zip(names, shapes)]
    return f"{', '.join(came)}; expected {inputs}; {reason}".replace(" has ", " has shape ", 1)


def _bind(name: str, axes: list[str], shape: Shape, sizes: dict[str, int | Shape]) -> str:
    """Enter the sizes of one input's axes, and return what contradicts, in words."""
    star = next((i for i, word in enumerate(axes) if word[0] == "*"), None)
    fixed = len(axes) - (star is not None)
    if len(shape) < fixed or (star is None and len(shape) > fixed):
        more = " or more" if star is not None else ""
        return f"{name} needs {count(fixed, 'axis', 'axes')}{more}"
    parts: list[int | Shape] = list(shape)
    if star is not None:
        end = len(shape) - (len(axes) - star - 1)
        parts[star:end] = [tuple(shape[star:end])]
    for word, size in zip(axes, parts):
        known = int(word) if word.isdigit() else sizes.setdefault(word, size)
        if known != size:
            one, other = (shape_text(s) if isinstance(s, tuple) else str(s) for s in (known, size))
            return f"{word} is {one} and {other}"
    return ""


_ndarray = np.ndarray
_first = operator.itemgetter(0)
_REMEMBERED = 1024  # how many tuples of shapes a node remembers
Derivative: TypeAlias = Any  # df/dx: an array, a float where it is constant, None; a tuple of these
Outputs: TypeAlias = Any  # an array; a tuple of them where a node has several
Kept: TypeAlias = Any  # what backward will need: arrays, shapes, dtypes, numbers
Applied: TypeAlias = tuple[Outputs, tuple[Kept, ...]]  # the output or outputs, and what is kept
Gradients: TypeAlias = Any  # an operator or None per input; for several outputs one tuple each
Pulled: TypeAlias = Any  # an array or None per input


Recorded: TypeAlias = tuple[Shape, DType]  # the shape and dtype of an array


class Like(NamedTuple):
    """The shape and dtype of an array, without its entries."""

    shape: Shape
    dtype: DType

    @classmethod
    def of(cls, x: Array) -> "Like":
        """Return an array's shape and dtype."""
        return cls(x.shape, x.dtype)


# What `forward` leaves: what the node keeps; shape and dtype of each input and of each output; and
# whether the node returns a tuple of outputs, and whether all inputs were plain arrays of NumPy. It
# is made at every call, so it is a plain tuple.
Residuals: TypeAlias = tuple[tuple[Kept, ...], list[Recorded], list[Recorded], bool, bool]


class _Frozen:
    """Fields that cannot be set again, in subclasses that are no dataclasses by their own word."""

    def __setattr__(self, name: str, value: object) -> None:
        if name in getattr(self, "__dataclass_fields__", ()):
            raise FrozenInstanceError(f"cannot assign to field {name!r}")
        super().__setattr__(name, value)


@dataclass_transform(frozen_default=True)
@dataclass(frozen=True)
class Node(_Frozen, ABC):
    """One differentiable operation: forward, local gradient and backward, written by hand.

    Subclass it; annotated fields are the parameters, as in a frozen dataclass. Called on arrays it
    returns the output; called on a graph's variables it becomes a node of that graph.

    Raises:
        InputError: inputs of a shape, a dtype or a number that the node does not take, or an
            upstream that has not the output's shape.

    Example:
        >>> import numpy as np
        >>> from gradlab import nodes
        >>> y, residuals = nodes.Tanh().forward(np.array([0.0, 1.0]))
        >>> nodes.Tanh().backward(np.ones(2), residuals)[0].round(2)
        array([1.  , 0.42])
        >>> nodes.Tanh().local_gradient(residuals)[0]
        Diagonal(2, 16 B; dense would be 32 B)
    """

    domains: ClassVar[tuple[Domain, ...]] = (REALS,)
    """Where each input may lie; the last one stands for all that follow."""

    shapes: ClassVar[str] = ""
    """The shapes of the inputs and of the output; empty where the node checks them itself."""

    jax: ClassVar[str] = ""
    """The name of the JAX function that does the same, with the same parameters: by name if it has
    all of these names, else in the same order."""

    drawn: ClassVar[str] = ""
    """Shapes, lists of indices and parameters to verify it at: `3x4; 5 axis=0; zero size: 0x3`."""

    points: ClassVar[dict[str, Tree]] = {}
    """Inputs made on purpose, by what they show: one list, or a tuple of inputs."""

    _kind: ClassVar[str] = ""
    """What all nodes of this kind do, for their pages."""

    formulas: ClassVar[tuple[Function, ...]] = ()
    """`value` and `derivative` as functions of `xp` and arrays, where they need no parameter."""

    def __init_subclass__(cls, eq: bool = True, **keywords: bool) -> None:
        super().__init_subclass__(**keywords)
        cls._fitting = set()
        own = vars(cls)
        for name, formula in zip(("value", "derivative"), own.get("formulas", ())):
            setattr(cls, name, staticmethod(formula))
        if inspect.get_annotations(cls) and "__init__" not in own:
            dataclass(frozen=True, eq=eq)(cls)
            del (
                cls.__setattr__,
                cls.__delattr__,
            )  # so that `@dataclass(frozen=True)` may stand there
        if "backward_to" in own:
            cls._backward_to = own["backward_to"]
        elif "backward" in own:  # a class may override that alone
            cls.backward_to = _by_backward  # type: ignore[method-assign]

    _fitting: ClassVar[set[tuple[Shape, ...]]] = set()  # shapes that were found to fit `shapes`

    # what a subclass writes

    def apply(self, xp: Namespace, *inputs: Array) -> Applied:
        """Return the output, and a tuple of what the gradients need.

        Args:
            xp: NumPy or `jax.numpy`.
            *inputs: arrays of that namespace, which fit `shapes`.
        """
        raise NotImplementedError(f"{type(self).__name__} defines neither apply nor forward")

    def gradients(self, xp: Namespace, *kept: Kept) -> Gradients:
        """Return the Jacobian in each input as an operator; None where there is none.

        Args:
            xp: NumPy or `jax.numpy`.
            *kept: what `apply` kept.
        """
        raise NotImplementedError(
            f"{type(self).__name__} defines neither gradients nor local_gradient"
        )

    def pull(self, xp: Namespace, upstream: Outputs, *kept: Kept) -> Pulled:
        """Return `upstream @ local gradient` for each input, in any dtype, not yet summed back.

        Args:
            xp: NumPy or `jax.numpy`.
            upstream: the gradient with respect to the output; a tuple for several outputs.
            *kept: what `apply` kept.
        """
        found = self.gradients(xp, *kept)
        if upstream.__class__ is not tuple:
            upstream, found = (upstream,), (found if isinstance(found, tuple) else (found,),)
        return tuple([_pulled(column, upstream) for column in zip(*found)])

    pull_wanted: ClassVar[Callable[..., Pulled] | None] = None
    """`pull(xp, wanted, upstream, *kept)` for some inputs alone, where that saves work."""

    def reference(self, *inputs: Array) -> Outputs:
        """Return the output as JAX computes it: the function that this node is verified against.

        Args:
            *inputs: as for `forward`.
        """
        module, _, name = self.jax.rpartition(".")
        function = getattr(importlib.import_module(module), name)
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        if given.keys() <= inspect.signature(function).parameters.keys():
            return function(*inputs, **given)
        return function(*inputs, *given.values())

    # what a node does

    def forward(self, *inputs: Array) -> tuple[Outputs, Kept]:
        """Return the output, and the residuals that `local_gradient` and `backward` need.

        Args:
            *inputs: arrays of NumPy or JAX; the node says which shapes fit. Several outputs are a
                tuple.
        """
        likes = []
        for xi, kind in zip(inputs, _kinds(self.__class__, len(inputs))):
            if xi.__class__ is not _ndarray or (dtype := xi.dtype).kind not in kind:
                x, xp = self._arrays(inputs)
                plain, likes = False, _likes(x)
                break
            likes.append((xi.shape, dtype))
        else:
            x, xp, plain = inputs, np, True  # by far the most common
        if self.shapes:
            shapes = tuple(map(_first, likes))
            if shapes not in self._fitting:
                self._require_fit(shapes)
        y, kept = self.apply(xp, *x)
        if not plain and any(xi.dtype.kind == "V" for xi in x):
            y = self._narrowed(y, x)
        if y.__class__ is tuple:
            return y, (kept, likes, _likes(y), True, plain)
        return y, (kept, likes, [(y.shape, y.dtype)], False, plain)

    @staticmethod
    def _narrowed(y: Outputs, x: tuple[Array, ...]) -> Outputs:
        """Return the outputs in the inputs' dtype: NumPy widens bfloat16 beside a number."""
        outputs = y if y.__class__ is tuple else (y,)
        kept = tuple([in_dtype_of(yi, x) if is_inexact(yi.dtype) else yi for yi in outputs])
        return kept if y.__class__ is tuple else kept[0]

    def _require_fit(self, shapes: tuple[Shape, ...]) -> None:
        """Raise an InputError if these shapes do not fit the line `shapes`; remember them else."""
        wrong = misfit(self.shapes, shapes)
        if wrong:
            raise InputError(f"{self!r}: {wrong}")
        if len(self._fitting) > _REMEMBERED:
            self._fitting.clear()
        self._fitting.add(shapes)

    def require(self, fits: bool, text: str, **shapes: Shape) -> None:
        """Raise an InputError with the node, these shapes and what is wrong, unless it fits.

        Args:
            fits: whether all is right.
            text: what is wrong, or what was expected.
            **shapes: those that came, by the inputs' names.
        """
        if not fits:
            came = "".join(f"{name} has shape {shape_text(s)}; " for name, s in shapes.items())
            raise InputError(f"{self!r}: {came}{text}")

    def local_gradient(self, residuals: Kept) -> tuple[Pulled, ...]:
        """Return the Jacobian in each input as an operator; None where there is none.

        A node with several outputs returns one such tuple per output.

        Args:
            residuals: what `forward` returned.
        """
        kept = residuals[0]
        found = self.gradients(namespace(*kept), *kept)
        return found if isinstance(found, tuple) else (found,)

    def backward(self, upstream: Outputs, residuals: Kept) -> tuple[Pulled, ...]:
        """Return the gradient with respect to each input, in the input's shape and dtype.

        Args:
            upstream: the gradient that arrives, in the output's shape; a tuple for several outputs.
            residuals: what `forward` returned.
        """
        return self._backward_to(None, upstream, residuals)

    def backward_to(
        self, wanted: tuple[bool, ...] | None, upstream: Outputs, residuals: Kept
    ) -> tuple[Pulled, ...]:
        """Return `backward` for the inputs that are wanted; the others may be None.

        A graph asks so where a gradient leads nowhere.

        Args:
            wanted: for each input, whether its gradient is; None for all.
            upstream: as for `backward`.
            residuals: what `forward` returned.
        """
        kept, inputs, outputs, several, plain = residuals
        if several:
            upstream = tuple([self._upstream(u, y) for u, y in zip(upstream, outputs)])
            xp = namespace(*upstream, *kept)
        else:
            if upstream.__class__ is not _ndarray or upstream.shape != outputs[0][0]:
                upstream, plain = self._upstream(upstream, outputs[0]), False
            xp = np if plain else namespace(upstream, *kept)
        if wanted is None or self.pull_wanted is None:
            pulled = self.pull(xp, upstream, *kept)
        else:
            pulled = self.pull_wanted(xp, wanted, upstream, *kept)
        if pulled.__class__ is not tuple:
            return (_fitted(pulled, inputs[0]),)
        return tuple(
            [
                g if g is None or (g.shape == s and g.dtype == d) else _fitted(g, (s, d))
                for g, (s, d) in zip(pulled, inputs)
            ]
        )

    _backward_to = backward_to  # the last that was written, whoever overrides `backward`

    def __call__(self, *inputs: Array) -> Outputs:
        for x in inputs:
            if hasattr(x, "__gradlab_apply__"):  # a variable of a graph, which lies above this room
                return x.__gradlab_apply__(self, inputs)
        return self.forward(*inputs)[0]

    def as_jax(self, mode: str = "vjp") -> Function:
        """Return this node as a JAX function that carries the hand-written gradient.

        Args:
            mode: "vjp" makes a `jax.custom_vjp` of `backward` (reverse mode of any order);
                "jvp" makes a `jax.custom_jvp` of `local_gradient` (forward mode too).

        Example:
            >>> import jax
            >>> from gradlab import nodes
            >>> print(jax.grad(nodes.Square().as_jax())(3.0))
            6.0
        """
        from gradlab.nodes._jax import as_jax  # it loads JAX

        return as_jax(self, mode)

    # what a node says of itself

    @classmethod
    def cases(cls) -> "tuple[Case, ...]":
        """Return the inputs to verify it on: three generic ones, then special ones."""
        return (*_drawn(cls), *_points(cls))

    @classmethod
    def name(cls) -> str:
        """Return the registry's name: `SoftmaxCrossEntropy` is softmax_cross_entropy."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()

    @classmethod
    def family(cls) -> str:
        """Return the family: the file in which the node is written."""
        return cls.__module__.rpartition(".")[2]

    @classmethod
    def domain(cls, position: int) -> Domain:
        """Return the domain of the input at `position`."""
        return cls.domains[min(position, len(cls.domains) - 1)]

    @classmethod
    @functools.cache
    def input_names(cls) -> tuple[str, ...]:
        """Return the names of the inputs, as the node spells them."""
        return tuple(p.name for p in cls._parameters())

    @classmethod
    def input_name(cls, position: int) -> str:
        """Return the name of the input at `position`; `xs[2]` where their number is open."""
        names = cls.input_names()
        if position < len(names) and cls.arity()[0] == cls.arity()[1]:
            return names[position]
        return f"{names[-1]}[{position - len(names) + 1}]"

    @classmethod
    @functools.cache
    def arity(cls) -> tuple[int, float]:
        """Return the least and the greatest number of inputs."""
        fixed = sum(p.kind is not p.VAR_POSITIONAL for p in cls._parameters())
        return (fixed, fixed) if fixed == len(cls._parameters()) else (fixed + 1, float("inf"))

    @classmethod
    def _parameters(cls) -> list[inspect.Parameter]:
        """Return the inputs as parameters: of the reference if it spells them, else of `apply`."""
        if cls.reference is Node.reference:
            return after_xp(cls, cls._mathematics)
        return list(inspect.signature(cls.reference).parameters.values())[1:]

    _mathematics: ClassVar[str] = "apply"  # the method whose parameters after `xp` are the inputs

    # inputs and upstream

    def _arrays(self, inputs: tuple[Array, ...]) -> tuple[tuple[Array, ...], Namespace]:
        """Return the inputs as arrays of one namespace; numbers take the dtype beside them."""
        xp = namespace(*inputs)
        floats = (x.dtype for x in inputs if hasattr(x, "shape") and is_inexact(x.dtype))
        own = (x.dtype for x in inputs if is_inexact(getattr(x, "dtype", np.dtype(int))))
        dtype = next(floats, None) or next(own, np.dtype(float))
        return tuple([self._array(i, x, xp, dtype) for i, x in enumerate(inputs)]), xp

    def _array(self, position: int, x: Array, xp: Namespace, dtype: DTypeLike) -> Array:
        domain = self.domain(position)
        if not hasattr(x, "shape"):  # a number; inside JAX's transformations it may have a dtype
            try:
                array = np.asarray(x)
            except ValueError:
                array = np.asarray(None)
            if array.dtype.kind not in "biufc":
                raise InputTypeError(
                    f"{self!r}: input {position} ({self.input_name(position)}) is "
                    f"{type(x).__name__}; pass an array or a number"
                )
            wide = array.dtype.kind in "iuf" and not domain.integer
            x = xp.asarray(array.astype(dtype) if wide else array)
        elif xp is not np and isinstance(x, np.ndarray):
            x = xp.asarray(x)
        if domain.integer:
            if x.dtype.kind not in "iu":
                raise InputError(
                    f"{self!r}: input {position} ({self.input_names()[position]}) has dtype "
                    f"{x.dtype}; it holds indices, pass integers (x.astype(int))"
                )
        elif not is_inexact(x.dtype) and not domain.boolean:
            raise InputError(
                f"{self!r}: input {position} ({self.input_name(position)}) has dtype {x.dtype}; "
                "gradients need floating point, pass x.astype(float)"
            )
        return x

    def _upstream(self, upstream: Outputs, output: Recorded) -> Array:
        """Return the upstream gradient as an array with the output's shape."""
        if not hasattr(upstream, "dtype"):
            upstream = np.asarray(upstream, dtype=output[1])
        if upstream.shape != output[0]:
            raise InputError(
                f"{self!r}: upstream has shape {shape_text(upstream.shape)}, but the output has "
                f"shape {shape_text(output[0])}; upstream is the gradient in the output"
            )
        return upstream


def _by_backward(
    self: Node, wanted: tuple[bool, ...] | None, upstream: Outputs, residuals: Kept
) -> tuple[Pulled, ...]:
    """Return `backward`, for a class that has overridden that alone."""
    return self.backward(upstream, residuals)


def _pulled(operators: tuple[Operator | None, ...], upstreams: tuple[Array, ...]) -> Array | None:
    """Return the sum of what each output sends back to one input; None where none does."""
    terms = [op.T._apply(u) for op, u in zip(operators, upstreams) if op is not None]
    return sum(terms[1:], start=terms[0]) if terms else None


def _likes(x: Iterable[Array]) -> list[Recorded]:
    return [(xi.shape, xi.dtype) for xi in x]


def _fitted(gradient: Array | None, like: Recorded) -> Array | None:
    """Return a gradient summed back to the shape of its input, in the dtype of its input."""
    if gradient is None:
        return None
    shape, dtype = like
    if gradient.shape != shape:
        gradient = gradient.sum(axis=repeated_axes(shape, gradient.shape)).reshape(shape)
    return gradient if gradient.dtype == dtype else gradient.astype(dtype)


@functools.cache
def _kinds(cls: type[Node], number: int) -> tuple[str, ...]:
    """Return the kinds of NumPy dtypes that each of so many inputs may have."""
    low, high = cls.arity()
    if not low <= number <= high:
        expected = str(low) if low == high else f"{low} or more"
        raise InputTypeError(
            f"{cls.__name__} takes {expected} input(s) ({', '.join(cls.input_names())}), "
            f"but {number} came"
        )
    domains = map(cls.domain, range(number))
    return tuple("iu" if d.integer else "b" if d.boolean else "fc" for d in domains)


class Elementwise(Node):
    """A node that treats each entry by itself: y[i] = f(x[i]), so dy[i]/dx[j] = 0 unless i = j.

    Write `value` and `derivative`; as `formulas`, two functions, where neither needs a parameter.
    That its Jacobian needs only a diagonal, for any shape, and that inputs which were broadcast sum
    their gradients, is said here once:

        local gradient = Diagonal(d/dx) @ Broadcast(shape of x -> shape of y)
        backward       = upstream * d/dx, summed over the axes along which x was repeated

    `derivative` names what it needs: inputs, by their names in `value`; the output, by any other
    name; and last, if it likes, the output's `dtype`. What it does not name is not kept.
    """

    def __init_subclass__(cls, **keywords: bool) -> None:
        super().__init_subclass__(**keywords)
        if {"value", "derivative"} & vars(cls).keys():
            names = [tuple(p.name for p in after_xp(cls, f)) for f in ("value", "derivative")]
            cls._keep = staticmethod(_keeping(*names))  # type: ignore[method-assign]

    _mathematics = "value"
    _kind = "Entry by entry: the local gradient is diag(d/dx), the backward dx = upstream * d/dx."

    @staticmethod
    def _keep(x: tuple[Array, ...], y: Array) -> tuple[Pulled, ...]:
        """Return what `derivative` names, of the inputs and the output."""
        raise NotImplementedError

    variants: ClassVar[tuple[dict[str, Tree], ...]] = ({},)
    """Parameters to verify it with; the generic cases take them in turn."""

    def value(self, xp: Namespace, *x: Array) -> Array:
        """Return f(x), entry by entry."""
        raise NotImplementedError(f"{type(self).__name__} defines neither value nor formulas")

    def derivative(self, xp: Namespace, *named: Array) -> Derivative:
        """Return df/dx: an array, or a number where it is constant.

        Of several inputs, return one for each, and None where there is no gradient.
        """
        raise NotImplementedError(f"{type(self).__name__} defines neither derivative nor formulas")

    def forward(self, *inputs: Array) -> tuple[Array, Residuals]:
        """Return f(x), and what `derivative` names as residuals."""
        likes = []
        for xi, kind in zip(inputs, _kinds(self.__class__, len(inputs))):
            if xi.__class__ is not _ndarray or (dtype := xi.dtype).kind not in kind:
                return self._forward(*self._arrays(inputs))
            likes.append((xi.shape, dtype))
        try:
            y = self.value(np, *inputs)
        except ValueError:
            _require_broadcast(self, inputs)  # says so, if that is what is wrong
            raise
        return y, (self._keep(inputs, y), likes, [(y.shape, y.dtype)], False, True)

    def _forward(self, x: tuple[Array, ...], xp: Namespace) -> tuple[Array, Residuals]:
        """Return the same for what are no plain arrays of NumPy."""
        try:
            y = self.value(xp, *aligned(x))
        except ValueError:
            _require_broadcast(self, x)
            raise
        y = in_dtype_of(y, x)
        return y, (self._keep(x, y), _likes(x), [(y.shape, y.dtype)], False, False)

    def local_gradient(self, residuals: Kept) -> tuple[Operator | None, ...]:
        """Return `Diagonal(f'(x)) @ Broadcast` for each differentiable input."""
        kept, inputs, ((shape, dtype),), *_ = residuals
        xp = namespace(*kept)
        return tuple(
            None if d is None else _diagonal(d, shape, dtype, xp) @ Broadcast(like[0], shape, dtype)
            for d, like in zip(self._derivatives(xp, kept, shape), inputs)
        )

    def backward_to(
        self, wanted: tuple[bool, ...] | None, upstream: Outputs, residuals: Kept
    ) -> tuple[Array | None, ...]:
        """Return `upstream * f'(x)` for the inputs that are wanted."""
        kept, inputs, (output,), _, plain = residuals
        if upstream.__class__ is not _ndarray or upstream.shape != output[0]:
            upstream = self._upstream(upstream, output)
        gradients: list[Array | None] = []
        for i, d in enumerate(
            self._derivatives(np if plain else namespace(*kept), kept, output[0])
        ):
            if d is None or (wanted is not None and not wanted[i]):
                gradients.append(None)
            else:
                gradient = upstream if d.__class__ is float and d == 1.0 else upstream * d
                gradients.append(_fitted(gradient, inputs[i]))
        return tuple(gradients)

    def _derivatives(
        self, xp: Namespace, kept: tuple[Array, ...], shape: Shape
    ) -> tuple[Pulled, ...]:
        if xp is not np:  # a user of JAX may have asked that ranks be never promoted silently
            kept = tuple(
                k if k.shape == shape or isinstance(k, np.dtype) else xp.broadcast_to(k, shape)
                for k in kept
            )
        found = self.derivative(xp, *kept)
        return found if found.__class__ is tuple else (found,)

    @classmethod
    def cases(cls) -> "tuple[Case, ...]":
        """Return three broadcasting shapes, then a scalar, size-1 axes and a zero-size array."""
        n, nodes = cls.arity()[0], [cls(**parameters) for parameters in cls.variants]
        drawn = [
            Case(nodes[i % len(nodes)], tuple(shapes[:n]), note)
            for i, (note, *shapes) in enumerate(_BROADCASTING)
        ]
        return (*drawn, *_points(cls))


_BROADCASTING: tuple[tuple[Any, ...], ...] = (
    ("generic", (3, 4), (4,), (3, 1)),
    ("generic", (5,), (2, 5), (1,)),
    ("generic", (2, 1, 3), (4, 1), ()),
    ("scalar", (), (), ()),
    ("size-1 axes", (1, 3, 1), (1, 1, 2), (1,)),
    ("zero size", (0, 3), (3,), ()),
)


def _keeping(inputs: tuple[str, ...], named: tuple[str, ...]) -> Callable[..., tuple[Kept, ...]]:
    """Return what picks the named ones of inputs and output."""
    if "dtype" in named:
        *first, _ = named
        keep = _keeping(inputs, tuple(first))
        return lambda x, y: (*keep(x, y), y.dtype)
    places = tuple(inputs.index(name) if name in inputs else -1 for name in named)
    if not places:
        return lambda x, y: ()
    if places == tuple(range(len(inputs))):
        return lambda x, y: x
    if len(places) == 1:
        (place,) = places
        return (lambda x, y: (y,)) if place < 0 else lambda x, y: (x[place],)
    pick = operator.itemgetter(*places)
    return lambda x, y: pick((*x, y))


def after_xp(cls: type[Node], name: str) -> list[inspect.Parameter]:
    """Return the parameters after `xp` of a method, or of one of the `formulas`."""
    static = isinstance(inspect.getattr_static(cls, name), staticmethod)
    return list(inspect.signature(getattr(cls, name)).parameters.values())[1 if static else 2 :]


def _require_broadcast(node: Node, x: tuple[Array, ...]) -> None:
    """Raise an InputError if the shapes of these arrays do not broadcast."""
    try:
        np.broadcast_shapes(*(xi.shape for xi in x))
    except ValueError:
        shapes = " and ".join(shape_text(xi.shape) for xi in x)
        raise InputError(
            f"{node!r}: shapes {shapes} do not broadcast; aligned from the right, "
            "each pair of sizes must be equal or one of them 1"
        ) from None


def _is_one(derivative: Derivative) -> bool:
    return derivative.__class__ is float and derivative == 1.0


def _diagonal(derivative: Derivative, shape: Shape, dtype: DTypeLike, xp: Namespace) -> Operator:
    if _is_one(derivative):
        return Identity(shape, dtype)
    return Diagonal(xp.broadcast_to(xp.asarray(derivative, dtype=dtype), shape))


class Linear(Node):
    """A node that is a linear map of its first input: its operator says all that there is to say.

    Write `operator`; forward applies it, backward applies its transpose. What else comes in, such
    as indices, says which map it is and has no gradient.
    """

    _kind = "Linear: the local gradient is the map itself, the backward applies its transpose."

    @abstractmethod
    def operator(self, x: Like, *given: Array) -> Operator:
        """Return the map, for a first input of this shape and dtype."""

    def apply(self, xp: Namespace, x: Array, *given: Array) -> Applied:
        """Return the image of x; of x nothing is kept but its shape and dtype."""
        like = Like(x.shape, x.dtype)
        return self._operators(like, *given)[0]._apply(x), (like, *given)

    def gradients(self, xp: Namespace, x: Like, *given: Array) -> Gradients:
        """Return the map."""
        return self._operators(x, *given)[0], *(None for _ in given)

    def pull(self, xp: Namespace, upstream: Outputs, x: Like, *given: Array) -> Pulled:
        """Return the image of the upstream under the transposed map."""
        if not given:
            return _remembered(self, x)[1]._apply(upstream)
        return self._operators(x, *given)[1]._apply(upstream), *(None for _ in given)

    @classmethod
    def _parameters(cls) -> list[inspect.Parameter]:
        if cls.reference is Node.reference:
            return list(inspect.signature(cls.operator).parameters.values())[1:]
        return super()._parameters()

    def _operators(self, x: Like, *given: Array) -> tuple[Operator, Operator]:
        """Return the map and its transpose."""
        if not given:
            return _remembered(self, x)
        there = self.operator(x, *given)
        return there, there.T


@functools.lru_cache(maxsize=256)
def _remembered(node: Linear, x: Like) -> tuple[Operator, Operator]:
    there = node.operator(x)
    return there, there.T


@dataclass(frozen=True, eq=False)
class Case:
    """One set of inputs on which a node is verified.

    Args:
        node: the node, with its parameters.
        inputs: for each input a shape, to be filled from its domain, or the array itself.
        note: what this case is for: "generic", "ties", "zero size", ...
    """

    node: Node
    inputs: tuple[Array, ...]
    note: str = "generic"

    @property
    def generic(self) -> bool:
        """Whether all inputs are drawn at random, none made on purpose."""
        return self.note == "generic"

    def draw(self, seed: int, dtype: DTypeLike = np.float64) -> tuple[Pulled, ...]:
        """Return the inputs: float ones in `dtype`, index ones as they are."""
        rng = np.random.default_rng(seed)
        drawn = []
        for position, spec in enumerate(self.inputs):
            domain = self.node.domain(position)
            x = domain.draw(rng, spec) if isinstance(spec, tuple) else np.asarray(spec)
            drawn.append(np.asarray(x, dtype if domain.differentiable else None))
        return tuple(drawn)


def generic(node: Node, *shapes: Shape) -> Case:
    """Return the case in which every input is drawn from its domain at these shapes."""
    return Case(node, shapes)


def special(node: Node, note: str, *inputs: Array) -> Case:
    """Return a case made on purpose; lists become arrays, tuples stay shapes to be drawn."""
    return Case(node, tuple(x if isinstance(x, tuple) else np.asarray(x) for x in inputs), note)


def _drawn(cls: type[Node]) -> Iterator[Case]:
    """Yield the cases of a node's line `drawn`."""
    for item in filter(None, cls.drawn.split(";")):
        note, _, words = item.rpartition(":")
        inputs, parameters = [], {}
        for word in words.split():
            name, equals, value = word.partition("=")
            if equals:
                parameters[name] = _parameter(value)
            else:
                inputs.append(_input(word))
        yield special(cls(**parameters), note.strip() or "generic", *inputs)


def _input(word: str) -> Tree:
    """Return a shape such as `2x3`, or the numbers of a list."""
    if word.startswith("["):
        return ast.literal_eval(word)
    return () if word == "scalar" else tuple(map(int, word.split("x")))


def _parameter(text: str) -> Tree:
    """Return a parameter as Python reads it; a word as it is."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return math.inf if text == "inf" else text


def _points(cls: type[Node]) -> Iterator[Case]:
    """Yield the cases of a node's `points`."""
    for note, inputs in cls.points.items():
        given = inputs if isinstance(inputs, tuple) else (inputs,)
        parameters = given[0] if isinstance(given[0], dict) else {}
        yield special(cls(**parameters), note, *given[bool(parameters) :])
