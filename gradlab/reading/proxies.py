"""What the user's names mean during a reading: NumPy, `math` and `float` that know stand-ins.

A proxy passes through unless its own thread is reading, so that other threads see NumPy.
"""

import functools
import math
import operator
import types
from collections.abc import Callable
from typing import Any

import numpy as np

from gradlab.reading.rules import each_entry, vectorized
from gradlab.reading.standins import Stand, current, is_stand, shadow_of

_ROOTS = ("numpy", "scipy")
_MATH = {
    **{name: getattr(np, name) for name in dir(math) if hasattr(np, name)},
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "atan2": np.arctan2,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "pow": np.power,
}
_FOLDED = {"fsum": operator.add, "prod": operator.mul}
_SPECIAL = {"erf": "erf", "erfc": "erfc", "gamma": "gamma", "lgamma": "gammaln"}


def replacement(value: Any) -> Any:
    """Return what stands for a module, function or type of NumPy's, or the value itself."""
    if type(value) is types.FunctionType:
        return _function(value) if _of_a_library(value) else value
    if isinstance(value, types.ModuleType):
        known = value is math or value.__name__.partition(".")[0] in _ROOTS
        return _module(value) if known else value
    if isinstance(value, type):
        return _number(value) if value in _NUMBERS else _OTHER_TYPES.get(value, value)
    if isinstance(value, np.ufunc):
        return _ufunc(value)
    if is_stand(value):
        return value
    if isinstance(value, np.vectorize):
        return _vectorized(value, value.pyfunc, value.otypes)
    if isinstance(value, np.random.Generator | np.random.RandomState):
        return _Drawer(value)
    if callable(value) and _of_a_library(value):
        return _function(value)
    if isinstance(value, types.BuiltinFunctionType) and value.__module__ == "math":
        return _math(value)
    if isinstance(value, functools._lru_cache_wrapper):
        return _uncached(value)
    return _INDEXED.get(id(value), value)


def original(value: Any) -> Any:
    """Return what a proxy stands for, or the value itself."""
    kind = type(value)
    if kind in (_Module, _Drawer, _Ufunc, _Indexed):
        return object.__getattribute__(value, "_real")
    if kind is types.FunctionType or kind is type or kind is _Kind:
        return value.__dict__.get("_gradlab_stands_for", value)
    return value


def _of_a_library(function: Any) -> bool:
    return _home(function).partition(".")[0] in _ROOTS and hasattr(function, "__name__")


def _home(function: Any) -> str:
    home = getattr(function, "__module__", None)
    home = home if isinstance(home, str) else ""
    owner = getattr(function, "__self__", None)  # np.random.normal is a method of a generator
    return home or (type(owner).__module__ if owner is not None else "")


class _Module:
    """A module whose functions know stand-ins."""

    def __init__(self, real: types.ModuleType) -> None:
        object.__setattr__(self, "_real", real)

    def __getattribute__(self, name: str) -> Any:
        real = object.__getattribute__(self, "_real")
        value = getattr(real, name)
        return value if current() is None or name.startswith("__") else replacement(value)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(object.__getattribute__(self, "_real"), name, value)


_module = functools.cache(_Module)


class _Ufunc:
    """A ufunc that knows lists of stand-ins; it dispatches on stand-ins by itself."""

    def __init__(self, real: Any, method: str = "__call__") -> None:
        self._real, self._method = real, method

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        reading: Any = current()
        if reading is not None and any(
            type(a) in (list, tuple) and reading.traced(a) for a in args
        ):
            args = tuple(reading.call(np.asarray, (a,), {}) for a in args)
        args, kwargs = _real(args), _real(kwargs)
        made = getattr(self._real, self._method)(*args, **kwargs)
        return reading.wrap(made) if reading is not None and not is_stand(made) else made

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._real, name)
        return _Ufunc(self._real, name) if callable(found) else found

    def __deepcopy__(self, memo: Any) -> Any:
        return self


_ufunc = functools.cache(_Ufunc)


def _standing(proxy: Any, real: Any) -> Any:
    proxy.__name__ = real.__name__
    proxy._gradlab_stands_for = real
    return proxy


@functools.cache
def _function(real: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of NumPy's or SciPy's that takes stand-ins, and makes them."""

    def call(*args: Any, **kwargs: Any) -> Any:
        reading = current()
        if reading is None:
            return real(*shadow_of(args), **shadow_of(kwargs))
        args, kwargs = _real(args), _real(kwargs)
        made = reading.call(real, args, kwargs)
        return _Drawer(made) if isinstance(made, np.random.Generator) else made

    return _standing(call, real)  # type: ignore[no-any-return]  # the function itself


def _real(value: Any) -> Any:
    """Return arguments with NumPy's own types and functions for proxies."""
    kind = type(value)
    if kind in (list, tuple):
        return kind(map(_real, value))
    if kind is dict:
        return {name: _real(item) for name, item in value.items()}
    return original(value)


@functools.cache
def _uncached(real: Any) -> Callable[..., Any]:
    """Return what a cache stands before: a reading's stand-ins must not be kept in it."""

    def call(*args: Any, **kwargs: Any) -> Any:
        reading = current()
        return real(*args, **kwargs) if reading is None else real.__wrapped__(*args, **kwargs)

    return _standing(call, real)  # type: ignore[no-any-return]  # the function itself


class _Indexed:
    """`np.c_` and its like, which take their operands between brackets."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getitem__(self, key: Any) -> Any:
        reading: Any = current()
        if reading is None or not reading.traced(key):
            made = self._real[shadow_of(key)]
            return made if reading is None else reading.wrap(made)
        parts = key if isinstance(key, tuple) else (key,)
        if self._real not in (np.c_, np.r_) or any(isinstance(p, str | slice) for p in parts):
            raise reading.refuse("code between brackets reads values")
        if self._real is np.c_:
            return reading.call(np.column_stack, (parts,), {})
        return reading.call(np.hstack, (parts,), {})


_INDEXED = {id(each): _Indexed(each) for each in (np.c_, np.r_, np.mgrid, np.ogrid)}


@functools.cache
def _math(real: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of `math` that takes stand-ins: NumPy's computes the symbol."""
    name = real.__name__

    def call(*args: Any) -> Any:
        reading = current()
        if reading is None or not reading.traced(args):
            return real(*shadow_of(args))
        if name in _FOLDED:
            return functools.reduce(_FOLDED[name], args[0])
        twin = _MATH.get(name)
        if twin is None and name in _SPECIAL:
            import scipy.special

            twin = getattr(scipy.special, _SPECIAL[name])
        if name in ("floor", "ceil", "trunc"):
            return int(twin(*args))  # type: ignore[misc]
        if name == "log" and len(args) == 2:
            return np.log(args[0]) / np.log(args[1])
        if twin is None:
            raise reading.refuse(f"math.{name} reads a plain number")
        return _number_of(twin(*map(_number_of, args)))

    return _standing(call, real)  # type: ignore[no-any-return]  # the function itself


def _number_of(value: Any) -> Any:
    """Return a traced number as one of Python's."""
    return value.item() if hasattr(value, "item") else value


class _Kind(type):
    """The type of types that stand for those of numbers: what is one of them is one of these."""

    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, original(cls))

    def __subclasscheck__(cls, other: Any) -> bool:
        return issubclass(original(other), original(cls))

    def __eq__(cls, other: object) -> bool:
        return original(cls) is original(other)

    def __hash__(cls) -> int:
        return hash(original(cls))


_NUMBERS = frozenset(
    (np.float64, np.float32, np.float16, np.complex128, np.complex64, np.int64, np.int32)
)


@functools.cache
def _number(real: type) -> type:
    """Return a type of numbers that takes stand-ins."""

    def new(cls: Any, value: Any = 0, *rest: Any) -> Any:
        reading = current()
        if reading is not None and type(value) in (list, tuple):
            value = reading.call(np.array, (value,), {})
        if reading is None or not (is_stand(value) and value.traced):
            return real(shadow_of(value), *rest)
        if real is float:
            return _number_of(value)
        found = reading.call(np.asarray, (value,), {"dtype": np.dtype(real)})
        return found if np.ndim(found.shadow) and np.ndim(value.shadow) else found[()]

    members = {"__new__": new, "__slots__": ()}
    if real is float:
        members["dtype"] = np.dtype(float)
    kind = _Kind(real.__name__, (real,), members)
    type.__setattr__(kind, "_gradlab_stands_for", real)
    return kind


Float = _number(float)


class _Drawer:
    """A generator of random numbers: what it draws does not depend on the inputs."""

    def __init__(self, real: Any) -> None:
        object.__setattr__(self, "_real", real)

    @property  # type: ignore[misc]  # so that isinstance says what it stands for
    def __class__(self) -> type:
        return type(object.__getattribute__(self, "_real"))

    def __getattr__(self, name: str) -> Any:
        value = getattr(object.__getattribute__(self, "_real"), name)
        return _drawing(value) if callable(value) and current() is not None else value

    def __deepcopy__(self, memo: Any) -> Any:
        import copy

        return _Drawer(copy.deepcopy(object.__getattribute__(self, "_real"), memo))


def _drawing(method: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        reading = current()
        if reading is None:
            return method(*shadow_of(args), **shadow_of(kwargs))
        return reading.call(method, _real(args), _real(kwargs))

    return call


def _vectorize(function: Any = None, otypes: Any = None, **options: Any) -> Any:
    if function is None:
        return functools.partial(_vectorize, otypes=otypes, **options)
    if current() is None or options:
        return np.vectorize(function, otypes=otypes, **options)
    return _vectorized(np.vectorize(function, otypes=otypes), function, otypes)


def _vectorized(real: Any, function: Any, otypes: Any) -> Any:
    def call(*arrays: Any) -> Any:
        reading: Any = current()
        if reading is None:
            return real(*shadow_of(arrays))
        return vectorized(reading, function, arrays, otypes[0] if otypes else None)

    return _standing(call, real)


def _enumerate(array: Any) -> Any:
    return each_entry(array) if type(array) is Stand else np.ndenumerate(array)


_OTHER_TYPES: dict[Any, Any] = {
    np.vectorize: _standing(_vectorize, np.vectorize),
    np.ndenumerate: _standing(_enumerate, np.ndenumerate),
}
