"""JAX as NumPy computes it, so that a candidate runs in microseconds and compiles nothing.

A rule written with `jnp`, `lax` and `jax.nn` runs on NumPy arrays in float64. What NumPy lacks is
traced once, and evaluated in NumPy. The search is verified elsewhere, so nothing here is trusted.
"""

import math
import types
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradlab.tracing import run_lifted
from gradlab.tracing.leaves import is_key

_IGNORED = frozenset(
    [
        *("precision", "preferred_element_type", "indices_are_sorted", "unique_indices"),
        *("mode", "promote_integers", "out_sharding"),
    ]
)
_FEW, _KEPT = 1 << 10, 1 << 10  # entries, up to which a result is kept; results
_FUNCTIONS = 32  # of which derivatives are kept
_SIZED = frozenset(["arange", "empty", "eye", "full", "identity", "ones", "tri", "zeros"])
_SCATTERED = frozenset(["add", "subtract", "multiply", "divide", "maximum", "minimum"])
_LARGEST = 1 << 26  # entries of an array that a candidate makes: `arange(n)` may become arange(1e9)
_NARROW = ("float16", "float32", "bfloat16", "single", "half")


evaluated = [0]  # equations of derivatives, so far: what they take is known by it


class Array(np.ndarray[Any, Any]):
    """A NumPy array with JAX's `x.at[i].set(v)`."""

    @property
    def at(self) -> "_At":
        """Updates that leave the array as it is."""
        return _At(self)


class _At:
    def __init__(self, array: Any) -> None:
        self._array = array
        self._index: Any = None

    def __getitem__(self, index: Any) -> "_At":
        self._index = index
        return self

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def update(value: Any = None, **_: Any) -> Any:
            result = np.array(self._array)
            if name == "set":
                result[self._index] = value
            elif name == "get":
                result = result[self._index]
            else:
                ufunc = {"mul": "multiply", "max": "maximum", "min": "minimum"}.get(name, name)
                _Ufunc(getattr(np, ufunc)).at(result, self._index, value)
            return numbers(result)

        return update


class _Ufunc:
    """A ufunc of NumPy, whose `at` refuses values that do not fit: NumPy may crash there."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self._real(*arguments, **keywords)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def at(self, array: Any, index: Any, *values: Any) -> None:
        """Change entries in place, one after another."""
        shape = np.shape(array[index])
        self._real.at(array, index, *(np.broadcast_to(value, shape) for value in values))


def numbers(value: Any) -> Any:
    """Return an array as the stand-in holds it: NumPy's, floats in float64. Keys are JAX's."""
    if is_key(getattr(value, "dtype", np.float64)):
        return value
    array = np.asarray(value)
    wide = {"f": np.float64, "V": np.float64, "c": np.complex128}.get(array.dtype.kind)
    return (array if wide is None else array.astype(wide, copy=False)).view(Array)


def _kept(result: Any) -> Any:
    if type(result) is np.ndarray:
        return result.view(Array)
    if isinstance(result, list | tuple) and type(result) in (list, tuple):
        return type(result)(map(_kept, result))
    return result


def _numpy(function: Callable[..., Any], real: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **keywords: Any) -> Any:
        if _is_traced(arguments):
            return real(*arguments, **keywords)
        if keywords:
            keywords = {k: v for k, v in keywords.items() if k not in _IGNORED}
        return _kept(function(*arguments, **keywords))

    return call


def _is_traced(arguments: tuple[Any, ...]) -> bool:
    """Whether JAX traces what is called, since a rule differentiates it: then JAX computes."""
    for each in arguments:
        if isinstance(each, jax.core.Tracer):
            return True
        if isinstance(each, list | tuple | dict) and any(
            isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(each)
        ):
            return True
    return False


def _bounded(name: str, make: Callable[..., Any]) -> Callable[..., Any]:
    def made(*sizes: Any, **keywords: Any) -> Any:
        first, second = (*sizes, 0, 0)[:2]
        many = abs(first - second) if name == "arange" else math.prod(np.ravel(first))
        if many > _LARGEST:
            raise MemoryError("no search needs such an array")
        return make(*sizes, **keywords)

    return made


def _traced(function: Callable[..., Any], counted: bool = False) -> Callable[..., Any]:
    """Return a function of JAX that NumPy evaluates, once it was traced at some shapes.

    What JAX cannot trace runs in JAX.
    """
    programs: dict[Any, Any] = {}
    results: dict[Any, list[Any]] = {}  # most candidates call it with the same values

    def call(*arguments: Any, **keywords: Any) -> Any:
        if _is_traced(arguments):
            return function(*arguments, **keywords)
        leaves, tree = jax.tree.flatten((arguments, keywords), is_leaf=lambda x: x is None)
        arrays = [np.asarray(x) for x in leaves if isinstance(x, np.ndarray | np.generic)]
        static = tuple(x for x in leaves if not isinstance(x, np.ndarray | np.generic))

        def flat(*given: Any) -> Any:
            supply = iter(given)
            moving = (isinstance(x, np.ndarray | np.generic) for x in leaves)
            merged = [next(supply) if moves else x for x, moves in zip(leaves, moving)]
            positional, named = jax.tree.unflatten(tree, merged)
            return function(*positional, **named)

        key = tree, str(static), tuple((x.shape, x.dtype) for x in arrays)
        known = (key, *(x.tobytes() for x in arrays)) if sum(map(np.size, arrays)) <= _FEW else None
        if counted and programs.get(key):
            evaluated[0] += len(programs[key][0].eqns)
        if known in results:
            return jax.tree.unflatten(programs[key][1], [numbers(x.copy()) for x in results[known]])
        with jax.enable_x64(True):
            if key not in programs:
                try:
                    program, shape = jax.make_jaxpr(flat, return_shape=True)(*arrays)
                    programs[key] = program, jax.tree.structure(shape)
                except TypeError:  # values decide what it does
                    programs[key] = None
            if programs[key] is None:
                return jax.tree.map(numbers, flat(*arrays))
        program, made = programs[key]
        found = run_lifted(program, arrays)
        if known is not None and len(results) < _KEPT:
            results[known] = [np.array(x) for x in found]
        return jax.tree.unflatten(made, map(numbers, found))

    return call


class Namespace:
    """A module of JAX or NumPy as candidates see it."""

    def __init__(
        self, real: Any, twin: Any = None, own: Mapping[str, Any] = types.MappingProxyType({})
    ) -> None:
        self._real, self._twin, self._own = real, twin, own
        self.__name__ = real.__name__

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = self._look_up(name)
        setattr(self, name, value)
        return value

    def _look_up(self, name: str) -> Any:
        if name in self._own:
            own: Any = self._own[name]
            real: Any = getattr(self._real, name, None)
            plain = isinstance(own, type) or own is _same or self._own is _JAX or not callable(real)
            return own if plain else _numpy(own, real)
        real = getattr(self._real, name)
        if name in _NARROW:
            return np.float64
        if name == "complex64":
            return np.complex128
        twin = getattr(self._twin, name, None)
        if isinstance(real, types.ModuleType):
            return stand_in(real) if real.__name__.startswith("jax") else Namespace(real, twin)
        if isinstance(twin, type) or isinstance(real, type) or not callable(real):
            return real if twin is None else twin
        if name in _SIZED and twin is not None:
            return _bounded(name, twin if real is twin else _numpy(twin, real))
        if real is twin and not self._real.__name__.startswith("jax"):
            return _Ufunc(real) if name in _SCATTERED else real
        return _traced(real) if twin is None else _numpy(twin, real)


def numpy_module(real: types.ModuleType) -> Namespace:
    """Return NumPy with its narrow floats widened."""
    return Namespace(real, real)


def stand_in(real: types.ModuleType) -> Any:
    """Return what takes a module's place: JAX's in NumPy, NumPy's with wide floats."""
    known: dict[str, tuple[Any, Mapping[str, Any]]] = {
        "jax": (None, _JAX),
        "jax.numpy": (np, _JNP),
        "jax.numpy.linalg": (np.linalg, {}),
        "jax.numpy.fft": (np.fft, {}),
        "jax.lax": (None, _LAX),
    }
    if real.__name__ in ("jax.tree", "jax.tree_util", "jax.dtypes", "jax.random"):
        return real
    twin, own = known.get(real.__name__, (None, {}))
    if real.__name__ == "jax.scipy.special":
        import scipy.special  # a fifth of a second, for rules that need it

        twin = scipy.special
    return Namespace(real, twin, own)


def _scan(f: Any, init: Any, xs: Any = None, length: Any = None, reverse: Any = False) -> Any:
    leaves = jax.tree.leaves(xs)
    steps = range(len(leaves[0]) if leaves else length)
    carry, rows = init, []
    for i in reversed(steps) if reverse else steps:
        carry, row = f(carry, jax.tree.map(lambda x, i=i: x[i], xs))
        rows.append(row)
    rows = rows[::-1] if reverse else rows
    return carry, jax.tree.map(lambda *each: numbers(np.stack(each)), *rows)


def _fori(lower: Any, upper: Any, body: Any, init: Any) -> Any:
    for i in range(int(lower), int(upper)):
        init = body(i, init)
    return init


def _while(condition: Any, body: Any, init: Any) -> Any:
    for _ in range(10000):
        if not condition(init):
            return init
        init = body(init)
    raise OverflowError("a loop does not end")


def _cond(choice: Any, yes: Any, no: Any, *operands: Any) -> Any:
    return yes(*operands) if choice else no(*operands)


def _vmap(f: Any, in_axes: Any = 0, out_axes: Any = 0) -> Any:
    def mapped(*arguments: Any) -> Any:
        axes = in_axes if isinstance(in_axes, tuple | list) else (in_axes,) * len(arguments)
        if not all(a is None or isinstance(a, int) for a in axes):
            raise TypeError("only axes that are numbers are mapped here")
        sizes = [
            np.shape(leaf)[a]
            for each, a in zip(arguments, axes)
            if a is not None
            for leaf in jax.tree.leaves(each)
        ]
        rows = [
            f(
                *(
                    each
                    if a is None
                    else jax.tree.map(lambda x, a=a, i=i: numbers(np.take(x, i, axis=a)), each)
                    for each, a in zip(arguments, axes)
                )
            )
            for i in range(sizes[0])
        ]
        return jax.tree.map(lambda *each: numbers(np.stack(each, axis=out_axes)), *rows)

    return mapped


def _derivative(made: Callable[..., Any]) -> Callable[..., Any]:
    """Return a transform of JAX of which NumPy evaluates what it makes of a function."""
    known: dict[Any, Callable[..., Any]] = {}

    def transformed(f: Any, *options: Any, **named: Any) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            key = _written(f), str((options, named))
            if len(known) >= _FUNCTIONS:
                known.clear()
            if key not in known or key[0] is None:
                known[key] = _traced(made(f, *options, **named), counted=True)
            return known[key](*arguments)

        return call

    return transformed


def _written(value: Any, within: tuple[Any, ...] = ()) -> Any:
    """Return what a function does: its code, what it closes over, and what it calls.

    None where that is not known. A candidate may have another code.
    """
    code = getattr(value, "__code__", None)
    if code is None or value in within:
        return None if code is None else code
    held = [cell.cell_contents for cell in value.__closure__ or ()]
    held += [value.__globals__.get(name) for name in code.co_names]
    held += [value.__defaults__, value.__kwdefaults__]
    parts: list[Any] = [code]
    for each in held:
        if isinstance(each, types.FunctionType):
            parts.append(_written(each, (*within, value)))
        elif isinstance(each, np.ndarray):
            parts.append((each.shape, each.tobytes()))
        else:
            parts.append(str(each) if isinstance(each, int | float | tuple) else id(each))
    return tuple(parts)


def _pulled(f: Any, **named: Any) -> Callable[..., Any]:
    return lambda primals, upstream: _JAXS_VJP(f, *primals, **named)[1](upstream)


def _vjp(f: Any, *primals: Any, has_aux: bool = False) -> Any:
    if _is_traced(primals):
        return _JAXS_VJP(f, *primals, has_aux=has_aux)
    made, pull = f(*primals), _PULLED(f, has_aux=has_aux)
    output = made if has_aux else (made,)
    return (output[0], lambda upstream: pull(primals, upstream), *output[1:])


def _jvp(f: Any, primals: Any, tangents: Any, **named: Any) -> Any:
    return _PUSHED(f, **named)(primals, tangents)


_JAXS_VJP: Any = jax.vjp
_PULLED = _derivative(_pulled)
_PUSHED = _derivative(lambda f, **named: lambda x, t: jax.jvp(f, x, t, **named))


def _same(value: Any, *_: Any, **__: Any) -> Any:
    return value


_JAX: dict[str, Any] = {
    "jit": lambda f=None, **_: f if f is not None else _same,
    "checkpoint": _same,
    "vmap": _vmap,
    "vjp": _vjp,
    "jvp": _jvp,
    **{n: _derivative(getattr(jax, n)) for n in ("grad", "value_and_grad", "jacfwd", "jacrev")},
    "Array": np.ndarray,
    "block_until_ready": _same,
    "device_put": _same,
}


_CONTRACTED = _traced(jnp.einsum)


def _einsum(subscripts: Any, *arrays: Any, **named: Any) -> Any:
    """Contract arrays; JAX sums over axes behind dots that the output leaves out, NumPy refuses."""
    if isinstance(subscripts, str) and "..." in subscripts.partition("->")[0]:
        return _CONTRACTED(subscripts, *arrays, **named)
    return np.einsum(subscripts, *arrays, **named)


_JNP: dict[str, Any] = {
    "einsum": _einsum,
    "ndarray": np.ndarray,
    "astype": lambda x, dtype: numbers(np.asarray(x).astype(dtype)),
    "bool_": np.bool_,
    "asarray": lambda x, dtype=None: numbers(np.asarray(x, dtype)),
    "array": lambda x, dtype=None, **_: numbers(np.array(x, dtype)),
}
_LAX: dict[str, Any] = {
    "scan": lambda f, init, xs=None, length=None, reverse=False, unroll=1: _scan(
        f, init, xs, length, reverse
    ),
    "fori_loop": _fori,
    "while_loop": _while,
    "cond": _cond,
    "psum": _same,
}


def function_of(value: Any) -> Any:
    """Return what takes the place of a function that was imported by name from JAX."""
    name = getattr(value, "__name__", "")
    for module in (jnp, jax.lax, jax.nn, jnp.linalg, jnp.fft, jax):
        if name and getattr(module, name, None) is value:
            return getattr(stand_in(module), name)
    return _traced(value) if isinstance(value, Callable) else value  # type: ignore[arg-type]
