"""What the fault corpus is made of: operations with a right backward, and wrong ones beside it.

Every operation is written once against an array namespace `xp` (NumPy or `jax.numpy`):

    forward(xp, *inputs)              -> output
    backward(xp, upstream, *inputs)   -> one gradient per input, None for an integer one

A fault is another `backward`. It names where the mistake was made in public (if it was), the
diagnosis that fits it (if there is one), and the inputs at which it shows if others hide it.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

HALF = ("bfloat16", "float16")
REAL = ("float64", "float32", *HALF)
FULL = ("float64", "float32")
COMPLEX = ("complex128", "complex64")

OPERATIONS: dict[str, "Operation"] = {}
FAULTS: list["Fault"] = []


@dataclass(frozen=True)
class Fault:
    """One wrong backward."""

    operation: "Operation"
    name: str
    backward: Callable[..., Any]
    source: str = ""
    diagnosis: tuple[str, ...] = ()  # kinds of diagnosis that are right; empty: none is expected
    inputs: Callable[..., tuple[Any, ...]] | None = None
    dtypes: tuple[str, ...] = ()
    form: str = "any"  # "numpy": shows only where arrays are mutable; "jax": needs JAX
    shape: bool = False  # returns a wrong shape, which custom_vjp itself refuses
    hidden: str = ""  # why no check can call it wrong

    @property
    def id(self) -> str:
        return f"{self.operation.name}-{self.name}"

    def make(self, seed: int, scale: float | str = 1.0) -> tuple[Any, ...]:
        return (self.inputs or self.operation.inputs)(Draw(seed, scale))


@dataclass(frozen=True)
class Operation:
    """One operation: its forward, its right backward, its inputs."""

    name: str
    inputs: Callable[["Draw"], tuple[Any, ...]]
    forward: Callable[..., Any]
    backward: Callable[..., Any]
    dtypes: tuple[str, ...] = REAL
    special: tuple[Callable[["Draw"], tuple[Any, ...]], ...] = ()
    form: str = "any"  # "jax": needs JAX, for a key or a scan
    large: bool = False  # a million entries: a check takes seconds, gradcheck would take days
    faults: list[Fault] = field(default_factory=list)

    def make(self, seed: int, scale: float | str = 1.0) -> tuple[Any, ...]:
        return self.inputs(Draw(seed, scale))

    def fault(self, source: str = "", diagnosis: str = "", **more: Any) -> Callable[..., Any]:
        """Add the decorated backward as a fault; several right diagnoses are separated by `|`."""

        def add(backward: Callable[..., Any]) -> Callable[..., Any]:
            kinds = tuple(filter(None, diagnosis.split("|")))
            name = backward.__name__
            settings = {"dtypes": self.dtypes, "form": self.form, **more}
            fault = Fault(self, name, backward, source, kinds, **settings)
            self.faults.append(fault)
            FAULTS.append(fault)
            return backward

        return add


def operation(inputs: Callable[..., Any], **more: Any) -> Callable[..., Operation]:
    """Make an operation of a class body with `forward` and `backward`."""

    def make(body: type) -> Operation:
        made = Operation(body.__name__, inputs, body.forward, body.backward, **more)
        OPERATIONS[made.name] = made
        return made

    return make


class Draw:
    """Seeded inputs; all but integers scale with `scale`.

    The scale "mixed" gives every entry one of its own, from 1e-3 to 1e3.
    """

    def __init__(self, seed: int, scale: float | str = 1.0) -> None:
        self.rng = np.random.default_rng(seed)
        self.scale = scale

    def normal(self, *shape: int) -> np.ndarray:
        return self.rng.normal(size=shape) * self._scales(shape)

    def positive(self, *shape: int) -> np.ndarray:
        return self.rng.uniform(0.5, 2.0, size=shape) * self._scales(shape)

    def _scales(self, shape: tuple[int, ...]) -> Any:
        if self.scale == "mixed":
            return 10.0 ** self.rng.uniform(-3.0, 3.0, size=shape)
        return self.scale

    def unit(self, *shape: int) -> np.ndarray:
        """Values of order one: logits, angles, weights."""
        return self.rng.normal(size=shape) * self._scales(shape)

    def complex(self, *shape: int) -> np.ndarray:
        return self.normal(*shape) + 1j * self.normal(*shape)

    def integers(self, low: int, high: int, *shape: int) -> np.ndarray:
        return self.rng.integers(low, high, size=shape)


def add_at(xp: Any, shape: tuple[int, ...], index: Any, values: Any) -> Any:
    """Return zeros with `values` added at `index`, repeated indices adding up."""
    if xp is np:
        out = np.zeros(shape, values.dtype)
        np.add.at(out, index, values)
        return out
    return xp.zeros(shape, values.dtype).at[index].add(values)


def set_at(xp: Any, array: Any, index: Any, values: Any) -> Any:
    """Return a copy of `array` with `values` written at `index`."""
    if xp is np:
        out = array.copy()
        out[index] = values
        return out
    return array.at[index].set(values)


def special(xp: Any) -> Any:
    """Return the namespace with erf, expit and the like that goes with `xp`."""
    if xp is np:
        import scipy.special

        return scipy.special
    import jax.scipy.special

    return jax.scipy.special


def as_custom_vjp(op: Operation, backward: Callable[..., Any]) -> Callable[..., Any]:
    """Return the operation as a JAX function that carries `backward` as its own gradient."""
    import jax
    import jax.numpy as jnp

    def primal(*inputs: Any) -> Any:
        return op.forward(jnp, *inputs)

    primal.__name__ = op.name
    written = inspect.signature(op.forward)
    primal.__signature__ = written.replace(parameters=list(written.parameters.values())[1:])
    rule = jax.custom_vjp(primal)
    rule.defvjp(
        lambda *inputs: (op.forward(jnp, *inputs), inputs),
        lambda inputs, upstream: _one_per_input(backward(jnp, upstream, *inputs)),
    )
    return rule


def _one_per_input(gradients: Any) -> tuple[Any, ...]:
    return gradients if isinstance(gradients, tuple) else (gradients,)


def cast(inputs: tuple[Any, ...], dtype: str, jax: bool) -> tuple[Any, ...]:
    """Return the inputs with their inexact arrays in `dtype`, as JAX or NumPy arrays."""
    import jax.numpy as jnp

    def one(x: Any) -> Any:
        if isinstance(x, np.ndarray) and np.issubdtype(x.dtype, np.inexact):
            complex_ = np.issubdtype(x.dtype, np.complexfloating)
            name = dtype if complex_ == dtype.startswith("complex") else _REAL_PART[dtype]
            return np.asarray(x).astype(jnp.dtype(name))
        return x

    cast_inputs = tuple(map(one, inputs))
    if jax and dtype not in ("float64", "complex128"):
        return tuple(map(jnp.asarray, cast_inputs))
    return cast_inputs


_REAL_PART = {"complex128": "float64", "complex64": "float32"}
