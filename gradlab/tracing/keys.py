"""Random keys in NumPy: JAX would compile its generator anew for each shape.

How JAX seeds, splits and counts with its generator, Threefry, is traced from JAX itself.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.extend.random
import numpy as np

from gradlab.common.arrays import Array, DTypeLike, NumPyArray, Shape
from gradlab.primitives import lookup
from gradlab.tracing import numeric
from gradlab.tracing.compiling import remember
from gradlab.tracing.interpreter import Interpreter
from gradlab.tracing.jaxprs import Equation, Jaxpr, bind, dtype_of, shape_of
from gradlab.tracing.leaves import is_key

_GENERATOR = jax.extend.random.threefry_prng_impl
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "random_seed": _GENERATOR.seed,
    "random_split": _GENERATOR.split,
    "random_fold_in": _GENERATOR.fold_in,
    "random_bits": _GENERATOR.random_bits,
}
"""What the generator does with one key, by the primitive of JAX."""


def evaluate(equation: Equation, arrays: Sequence[Array]) -> list[Array] | None:
    """Return the results of drawing from keys, or of moving them; None for all else.

    Keys come in and go out as JAX has them, arrays of the dtype of a key.
    """
    kinds = [dtype_of(atom) for atom in (*equation.invars, *equation.outvars)]
    keys = [kind for kind in kinds if is_key(kind)]
    if not keys or any(kind != _dtype() for kind in keys):
        return None
    raw = [np.asarray(jax.random.key_data(a) if is_key(a.dtype) else a) for a in arrays]
    drawn = equation.primitive.name in _FUNCTIONS
    results = _drawn(equation, raw) if drawn else _moved(equation, raw)
    if results is None:
        return None
    return [_key(a) if is_key(dtype_of(v)) else a for a, v in zip(results, equation.outvars)]


def _key(raw: Array) -> Array:
    return jax.random.wrap_key_data(raw, impl=_GENERATOR.name)


@functools.cache
def _dtype() -> DTypeLike:
    return _key(np.zeros(_GENERATOR.key_shape, np.uint32)).dtype


def _drawn(equation: Equation, raw: Sequence[NumPyArray]) -> list[NumPyArray] | None:
    """Return what the generator makes of the words of keys, for each key of an array."""
    shapes = [shape_of(atom) for atom in equation.invars]
    if len({shape for shape in shapes if shape}) > 1:
        return None
    given = tuple((a.shape, a.dtype, bool(shape)) for a, shape in zip(raw, shapes))
    named = ("bit_width", "shape")  # in the order of the arguments
    settings = tuple(equation.params[name] for name in named if name in equation.params)
    name, rank = equation.primitive.name, max(map(len, shapes))
    key = ("keys", name, settings, given, rank)
    return _Drawing()(remember(key, lambda: _traced(name, settings, given, rank)), raw)


def _traced(
    name: str,
    settings: tuple[Any, ...],
    given: tuple[tuple[Shape, DTypeLike, bool], ...],
    rank: int,
) -> Jaxpr:
    """Return the program of the generator; `given`: shape, dtype, and whether for each key."""

    def function(*arrays: Any) -> Any:
        return _FUNCTIONS[name](*arrays, *settings)

    for _ in range(rank):
        function = jax.vmap(function, in_axes=tuple(0 if each else None for *_, each in given))
    return jax.make_jaxpr(function)(*(np.zeros(shape, dtype) for shape, dtype, _ in given))


def _moved(equation: Equation, raw: Sequence[NumPyArray]) -> list[NumPyArray] | None:
    """Return keys that an equation moves, by moving their numbers."""
    moves = lookup(equation.primitive.name).moves
    if moves is None:
        return None
    words = np.concatenate([a.reshape(-1, 2) for a in raw[moves]])
    inputs, start = list(raw), 0
    for k in range(len(raw))[moves]:
        size = raw[k].size // 2
        inputs[k] = np.arange(start, start + size).reshape(shape_of(equation.invars[k]))
        start += size
    places = numeric.evaluate(equation, inputs)
    if places is None or any(((p < 0) | (p >= start)).any() for p in places):
        return None  # a fill value
    return [words[place] for place in places]


class _Drawing(Interpreter[Any]):
    """Evaluates what the generator is made of."""

    def constant(self, array: Array) -> Any:
        """Bring a constant of the program in."""
        return np.asarray(array)

    def equation(self, equation: Equation, inputs: list[Any]) -> list[Any]:
        """Evaluate one equation."""
        results = numeric.evaluate(equation, inputs)
        return bind(equation, inputs) if results is None else results
