"""`gradlab.as_jax`: a NumPy function as a JAX function of the same arguments."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradlab.arguments import argument_names, name_of, require_callable
from gradlab.common.arrays import Array, Function, Tree
from gradlab.errors import GradlabError, InputError, NotReadable
from gradlab.reading.read import Reading, read
from gradlab.reading.session import Decision
from gradlab.tracing import Evaluator, Value
from gradlab.tracing.jaxprs import bind
from gradlab.tracing.leaves import Leaf, flatten

_KEPT = 16  # readings of one function at inputs of one kind
_CALLS = ("jit", "pjit", "closed_call", "core_call")
_DTYPES = ("dtype", "new_dtype", "index_dtype", "preferred_element_type")


def as_jax(function: Function, *example: Any) -> "JaxFunction":
    """Return a NumPy function as a JAX function of the same arguments.

    It is read anew for every shape and dtype. Called with arrays, it decides by their values, as
    the NumPy function does. Under `jit`, `grad` or `vmap` there are shapes alone: then a decision
    by value raises, unless an example of these shapes was given, whose decisions are taken.

    Args:
        function: of positional arguments, which computes with NumPy.
        *example: inputs, arrays of any shape or pytrees of them, whose decisions are taken under
            JAX's transformations.

    Returns:
        A function for JAX; its `conditions` are the decisions of the example, else of the last
        reading.

    Raises:
        InputTypeError: `function` cannot be called.
        NotReadable: something takes values out of sight; `.line` and `.reason` say what.

    References:
        Tracing: Frostig, Johnson and Leary (2018), "Compiling machine learning programs via
        high-level tracing".

    Example:
        >>> import jax, jax.numpy as jnp, numpy as np
        >>> def layer(x, w):
        ...     out = np.zeros(len(w))
        ...     for i in range(len(w)):
        ...         out[i] = np.tanh(x @ w[i])
        ...     return out.sum()
        >>> layer = as_jax(layer)
        >>> print(jax.jit(jax.grad(layer))(jnp.zeros(3), jnp.eye(3)))
        [1. 1. 1.]
    """
    require_callable("function", function)
    return JaxFunction(function, example)


def ported(function: Function, inputs: tuple[Tree, ...], error: GradlabError) -> Function:
    """Return what JAX could not trace as a function that it can, if it is NumPy."""
    leaves = jax.tree_util.tree_leaves(inputs)
    shapes = any(isinstance(leaf, jax.ShapeDtypeStruct | jax.core.Tracer) for leaf in leaves)
    wide = any(str(getattr(leaf, "dtype", "")) in ("float64", "complex128") for leaf in leaves)
    try:
        with jax.enable_x64(wide or jax.dtypes.canonicalize_dtype(np.float64) == np.float64):
            found = JaxFunction(function, () if shapes else inputs, deciding=False)
            if shapes:
                jax.eval_shape(found, *inputs)
    except NotReadable as reason:
        if "reads values" in reason.reason:
            raise
        raise error from reason
    except Exception as reason:  # it cannot be run at all
        raise error from reason
    return found


class JaxFunction:
    """A NumPy function that JAX can call, compile, differentiate and batch; see `as_jax`.

    Attributes:
        conditions: the decisions by value on which it rests.
    """

    def __init__(self, function: Function, example: tuple[Any, ...], deciding: bool = True) -> None:
        self._function = function
        self.__name__, self.__doc__ = name_of(function), getattr(function, "__doc__", None)
        self.__wrapped__ = function
        self.conditions: tuple[Decision, ...] = ()
        self._readings: dict[Any, list[Reading]] = {}
        self._example: tuple[Any, Reading] | None = None
        if example:
            values, leaves, tree = self._flat(example)
            self._example = (
                self._key(values, leaves, tree),
                self._read(values, leaves, tree, deciding),
            )

    def __call__(self, *inputs: Any) -> Any:
        """Compute what the NumPy function computes."""
        values, leaves, tree = self._flat(inputs)
        reading = self._reading(values, leaves, tree)
        arrays = [jnp.asarray(v) for v, leaf in zip(values, leaves) if leaf.traced]
        evaluator = _Ambient()
        outputs = evaluator(reading.program.jaxpr, [Value(array, True) for array in arrays])
        return reading.program.unflatten([_narrow(value.array) for value in outputs])

    def _reading(self, values: list[Array], leaves: list[Leaf], tree: Any) -> Reading:
        key = self._key(values, leaves, tree)
        if any(isinstance(value, jax.core.Tracer) for value in values):
            if self._example is not None and self._example[0] == key:
                return self._example[1]
            known = self._readings.setdefault((key, "shapes"), [])
            if not known:
                known.append(self._by_shape(values, leaves, tree))
            return known[0]
        known = self._readings.setdefault(key, [])
        inputs = jax.tree_util.tree_unflatten(tree, values)
        for reading in known:
            if reading.holds(*inputs):
                return reading
        known.insert(0, self._read(values, leaves, tree))
        del known[_KEPT:]
        return known[0]

    def _read(self, values: list[Array], leaves: list[Leaf], tree: Any, by: bool = True) -> Reading:
        arrays = [np.asarray(v) if leaf.traced else v for v, leaf in zip(values, leaves)]
        inputs = jax.tree_util.tree_unflatten(tree, arrays)
        reading = read(self._function, *inputs, deciding=by)
        if self._example is None:
            self.conditions = reading.decisions
        return reading

    def _by_shape(self, values: list[Array], leaves: list[Leaf], tree: Any) -> Reading:
        rng = np.random.default_rng(0)
        made = [_made_up(v, rng) if leaf.traced else v for v, leaf in zip(values, leaves)]
        try:
            return self._read(made, leaves, tree, by=False)
        except NotReadable as error:
            hint = f"{error.reason}; give an example: as_jax({self.__name__}, *example)"
            raise NotReadable(hint, error.line) from error
        except InputError as error:
            raise NotReadable(f"{error}, at numbers made up; give an example") from error

    def _flat(self, inputs: tuple[Tree, ...]) -> tuple[list[Any], list[Leaf], Any]:
        names = argument_names(self._function, len(inputs))
        values, leaves, tree = flatten(inputs, names)
        values = [jnp.asarray(v) if leaf.traced else v for v, leaf in zip(values, leaves)]
        return values, leaves, tree

    def _key(self, values: list[Array], leaves: list[Leaf], tree: Any) -> Any:
        each = [
            (v.shape, v.dtype) if leaf.traced else (type(v), repr(v))
            for v, leaf in zip(values, leaves)
        ]
        return tree, tuple(each)


class _Ambient(Evaluator):
    """Evaluates what was read in 64 bits as JAX computes here: in 32, unless x64 is on."""

    def keeps(self, equation: Any) -> bool:
        return equation.primitive.name not in _CALLS  # others may have a derivative of their own

    def constant(self, array: Array) -> Value:
        return Value(_narrow(jnp.asarray(array)), False)

    def equation(self, equation: Any, inputs: Any) -> list[Value]:
        changed = {
            name: jax.dtypes.canonicalize_dtype(equation.params[name])
            for name in _DTYPES
            if equation.params.get(name) is not None
        }
        outputs = bind(equation, [value.array for value in inputs], **changed)
        return [Value(output, any(value.depends for value in inputs)) for output in outputs]


def _narrow(array: Array) -> Any:
    wanted = jax.dtypes.canonicalize_dtype(array.dtype)
    return array if array.dtype == wanted else array.astype(wanted)


def _made_up(value: Any, rng: np.random.Generator) -> Any:
    if jnp.issubdtype(value.dtype, np.inexact):
        return rng.uniform(0.5, 1.5, value.shape).astype(value.dtype)
    return np.full(value.shape, value.dtype == bool, value.dtype)
