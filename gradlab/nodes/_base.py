"""What a node is: one differentiable operation, written by hand.

    forward(*inputs)              -> output, residuals       what backward will need
    local_gradient(residuals)     -> one operator per input  the mathematics
    backward(upstream, residuals) -> one array per input     upstream @ local gradient, fused

A node keeps no state: parameters such as an axis are its fields, arrays are its inputs.
"""

import functools
import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from gradlab.nodes._arrays import (
    Array,
    aligned,
    as_inputs,
    as_upstream,
    keeping,
    namespace,
    require_broadcast,
    unbroadcast,
)
from gradlab.nodes._domain import REALS, Case, Domain, generic, special
from gradlab.operators import Broadcast, Diagonal, Identity, Operator

__all__ = ["Elementwise", "Node"]


@dataclass(frozen=True)
class Node(ABC):
    """One differentiable operation: forward, local gradient and backward, written by hand.

    Subclass it as a frozen dataclass whose fields are the parameters. Called on arrays it returns
    the output; called on a graph's variables it becomes a node of that graph.

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

    @abstractmethod
    def forward(self, *inputs: Any) -> tuple[Any, Any]:
        """Return the output, and the residuals that `local_gradient` and `backward` need.

        Args:
            *inputs: arrays of NumPy or JAX; the node says which shapes fit. Several outputs are a
                tuple.
        """

    @abstractmethod
    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        """Return the Jacobian in each input as an operator; None where there is none.

        A node with several outputs returns one such tuple per output.

        Args:
            residuals: what `forward` returned.
        """

    @abstractmethod
    def backward(self, upstream: Any, residuals: Any) -> tuple[Any, ...]:
        """Return the gradient with respect to each input, in the input's shape and dtype.

        Args:
            upstream: the gradient that arrives, in the output's shape; a tuple for several outputs.
            residuals: what `forward` returned.
        """

    def backward_to(
        self, wanted: tuple[bool, ...], upstream: Any, residuals: Any
    ) -> tuple[Any, ...]:
        """Return `backward` for the inputs that are wanted; the others may be None.

        A graph asks so where a gradient leads nowhere. Override it where that saves work.

        Args:
            wanted: for each input, whether its gradient is.
            upstream: as for `backward`.
            residuals: what `forward` returned.
        """
        return self.backward(upstream, residuals)

    @abstractmethod
    def reference(self, *inputs: Any) -> Any:
        """Return the output as JAX computes it: the function that this node is verified against.

        Args:
            *inputs: as for `forward`; a node spells them out, and so names them.
        """

    @classmethod
    @abstractmethod
    def cases(cls) -> tuple[Case, ...]:
        """Return the inputs to verify it on: three generic ones, then special ones."""

    def __call__(self, *inputs: Any) -> Any:
        for x in inputs:
            if hasattr(x, "__gradlab_apply__"):  # a variable of a graph, which lies above this room
                return x.__gradlab_apply__(self, inputs)
        return self.forward(*inputs)[0]

    def as_jax(self, mode: str = "vjp") -> Callable[..., Any]:
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
        from gradlab.nodes._jax import as_jax

        return as_jax(self, mode)

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
        """Return the names of the inputs, as the reference spells them."""
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
        return list(inspect.signature(cls.reference).parameters.values())[1:]


class Elementwise(Node):
    """A node that treats each entry by itself: y[i] = f(x[i]), so dy[i]/dx[j] = 0 unless i = j.

    Write `value` and `derivatives`. That its Jacobian needs only a diagonal, for any shape, and
    that inputs which were broadcast sum their gradients, is said here once:

        local gradient = Diagonal(f'(x)) @ Broadcast(shape of x -> shape of y)
        backward       = upstream * f'(x), summed over the axes along which x was repeated
    """

    @abstractmethod
    def value(self, *x: Array) -> Array:
        """Return f(x), entry by entry."""

    @abstractmethod
    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        """Return df/dx for each input: an array, a number where it is constant, or None."""

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        """Return f(x), and x and f(x) as residuals."""
        x = as_inputs(self, inputs)
        try:
            y = self.value(*aligned(x))
        except ValueError:
            require_broadcast(self, x)  # says so, if that is what is wrong
            raise
        y = keeping(y, x)
        return y, (x, y)

    def local_gradient(self, residuals: Any) -> tuple[Operator | None, ...]:
        """Return `Diagonal(f'(x)) @ Broadcast` for each differentiable input."""
        x, y = residuals
        return tuple(
            _diagonal(d, y) @ Broadcast(xi.shape, y.shape, dtype=y.dtype) if d is not None else None
            for d, xi in zip(self.derivatives(aligned(x), y), x)
        )

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array | None, ...]:
        """Return `upstream * f'(x)`, summed back to each input's shape."""
        return self.backward_to((True,) * len(residuals[0]), upstream, residuals)

    def backward_to(
        self, wanted: tuple[bool, ...], upstream: Any, residuals: Any
    ) -> tuple[Array | None, ...]:
        """Return `upstream * f'(x)` for the inputs that are wanted."""
        x, y = residuals
        upstream = as_upstream(self, upstream, y)
        gradients: list[Array | None] = []
        for want, d, xi in zip(wanted, self.derivatives(aligned(x), y), x):
            if not want or d is None:
                gradients.append(None)
            else:
                gradients.append(unbroadcast(upstream if _is_one(d) else upstream * d, xi))
        return tuple(gradients)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        """Return three broadcasting shapes, then a scalar, size-1 axes and a zero-size array."""
        n = cls.arity()[0]
        return (
            generic(cls(), *[(3, 4), (4,), (3, 1)][:n]),
            generic(cls(), *[(5,), (2, 5), (1,)][:n]),
            generic(cls(), *[(2, 1, 3), (4, 1), ()][:n]),
            Case(cls(), ((),) * n, "scalar"),
            Case(cls(), ((1, 3, 1), (1, 1, 2), (1,))[:n], "size-1 axes"),
            Case(cls(), ((0, 3), (3,), ())[:n], "zero size"),
            *(special(cls(), note, *inputs) for note, *inputs in cls.special_points()),
        )

    @classmethod
    def special_points(cls) -> tuple[Any, ...]:
        """Return further cases as (note, input, ...): zeros, ties, saturation, kinks."""
        return ()


def _is_one(derivative: Any) -> bool:
    return derivative.__class__ is float and derivative == 1.0


def _diagonal(derivative: Any, y: Array) -> Operator:
    if _is_one(derivative):
        return Identity(y.shape, dtype=y.dtype)
    xp = namespace(y)
    return Diagonal(xp.broadcast_to(xp.asarray(derivative, dtype=y.dtype), y.shape))
