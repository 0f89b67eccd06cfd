"""Stand-ins: what a NumPy function is given in place of its arrays.

A `Stand` has a shadow, a real NumPy array or number with the real values, and a symbol. An array's
symbol belongs to its buffer; a number's is its own. `Chosen` is `x[mask]` while the mask is traced:
the whole array beside its mask. Both hand whatever they are asked to their session.
"""

import operator
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from gradlab.reading.memory import Buffer

if TYPE_CHECKING:
    from gradlab.reading.session import Recorder


_local = threading.local()


def current() -> "Recorder | None":
    """Return the reading that this thread is in."""
    return getattr(_local, "session", None)


class active:
    """Make a session this thread's reading for a while."""

    def __init__(self, session: "Recorder | None") -> None:
        self.session = session

    def __enter__(self) -> None:
        self.before = current()
        _local.session = self.session

    def __exit__(self, *error: object) -> None:
        _local.session = self.before


def is_stand(value: Any) -> bool:
    """Whether a value is a stand-in; `isinstance` says what its shadow is."""
    return type(value) is Stand or type(value) is Chosen


def shadow_of(value: Any) -> Any:
    """Return a value with real arrays in the place of stand-ins, inside containers too."""
    kind = type(value)
    if kind is Stand or kind is Chosen:
        return value.shadow
    if kind in (list, tuple, set):
        return kind(map(shadow_of, value))
    if kind is dict:
        return {name: shadow_of(item) for name, item in value.items()}
    if kind is slice:
        return slice(*map(shadow_of, (value.start, value.stop, value.step)))
    if isinstance(value, tuple):
        return kind(*map(shadow_of, value)) if hasattr(value, "_fields") else value
    return value


class _Operators:
    """Everything that an array answers by an operator or a method."""

    __slots__ = ()
    session: "Recorder"
    shadow: Any

    @property  # type: ignore[misc]  # so that isinstance(x, np.ndarray) is true
    def __class__(self) -> type:
        return type(self.shadow)

    @property
    def reading(self) -> bool:
        """Whether this thread is in the reading; elsewhere a stand-in is its shadow."""
        return current() is self.session

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if not self.reading:
            return getattr(ufunc, method)(*shadow_of(inputs), **shadow_of(kwargs))
        return self.session.ufunc(ufunc, method, inputs, kwargs, None)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if not self.reading:
            return function(*shadow_of(args), **shadow_of(kwargs))
        return self.session.call(function, args, kwargs)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        if self.reading and self.traced:
            raise self.session.refuse("compiled code reads the values of an array")
        return np.array(self.shadow, dtype)

    def __float__(self) -> float:
        if self.reading and self.traced:
            raise self.session.refuse("compiled code reads a number")
        return float(self.shadow)

    def __complex__(self) -> complex:
        if self.reading and self.traced:
            raise self.session.refuse("compiled code reads a number")
        return complex(self.shadow)

    @property
    def traced(self) -> bool:
        """Whether the value depends on the inputs."""
        return True

    def __repr__(self) -> str:
        return repr(self.shadow)

    def __str__(self) -> str:
        return str(self.shadow)

    def __format__(self, spec: str) -> str:
        return format(self.shadow, spec)

    def __hash__(self) -> int:
        if self.reading and self.traced and not isinstance(self.shadow, np.ndarray):
            return hash(self.session.decide(self, "key"))
        return hash(self.shadow)


class Stand(_Operators):
    """An array or a number in a reading; see the module."""

    __slots__ = ("buffer", "session", "shadow", "symbol")

    def __init__(
        self, session: "Recorder", shadow: Any, buffer: Buffer | None = None, symbol: Any = None
    ) -> None:
        self.session, self.shadow = session, shadow
        self.buffer, self.symbol = buffer, symbol

    @property
    def traced(self) -> bool:
        """Whether the value depends on the inputs."""
        return self.symbol is not None if self.buffer is None else self.buffer.traced

    def __getattr__(self, name: str) -> Any:
        # NumPy's protocols (`__array_interface__`, buffers) would take the values out of sight.
        if name.startswith("__") or name in ("ctypes", "data"):
            raise AttributeError(name)
        value = getattr(self.shadow, name)  # the error for what an array has not is NumPy's
        if not self.reading:
            return value
        if name in ("T", "mT", "real", "imag"):
            return self.session.method(name, self, (), {})
        if name == "flat":
            return _Flat(self)
        if callable(value):
            return _method(self, name)
        return value  # shape, dtype, ndim, size, ...

    def __setattr__(self, name: str, value: Any) -> None:
        if name in Stand.__slots__:
            object.__setattr__(self, name, value)
        elif name == "shape":
            self.shadow = self.shadow.reshape(value)
        elif name in ("real", "imag"):
            self.session.assign(getattr(self, name), value)
        elif name == "flat":
            _Flat(self)[:] = value
        else:
            setattr(self.shadow, name, value)

    def __len__(self) -> int:
        return len(self.shadow)

    def __bool__(self) -> bool:
        return bool(self.session.decide(self, "if") if self.reading else self.shadow)

    def __int__(self) -> int:
        return int(self.session.decide(self, "int") if self.reading else self.shadow)

    def __index__(self) -> int:
        return operator.index(self.session.decide(self, "index") if self.reading else self.shadow)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key: Any) -> Any:
        return self.session.get(self, key) if self.reading else self.shadow[shadow_of(key)]

    def __setitem__(self, key: Any, value: Any) -> None:
        if self.reading:
            self.session.put(self, key, value)
        else:
            self.shadow[shadow_of(key)] = shadow_of(value)

    def __contains__(self, value: Any) -> bool:
        return bool((self == value).any())

    def __round__(self, digits: int | None = None) -> Any:
        rounded = np.round(self, digits or 0)
        return rounded if digits is not None else int(rounded)

    def __trunc__(self) -> Any:
        return np.trunc(self)

    def __floor__(self) -> Any:
        return int(np.floor(self))

    def __ceil__(self) -> Any:
        return int(np.ceil(self))

    def __deepcopy__(self, memo: Any = None) -> Any:
        return self.copy() if isinstance(self.shadow, np.ndarray) else self

    __copy__ = __deepcopy__


class Chosen(_Operators):
    """`x[mask]` while the mask is traced.

    Attributes:
        whole: the symbol of the whole array, axes of the mask first.
        safe: entries that are not chosen hold what a chosen one would, so that none makes a NaN.
        mask: the symbol of the mask; masks are the same if their symbols are.
        where: the mask's shadow.
    """

    __slots__ = ("mask", "safe", "session", "shadow", "where", "whole")

    def __init__(
        self, session: "Recorder", shadow: Any, whole: Any, mask: Any, where: Any, safe: bool = True
    ) -> None:
        self.session, self.shadow = session, shadow
        self.whole, self.mask, self.where, self.safe = whole, mask, where, safe

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in ("dtype", "ndim", "itemsize"):
            return getattr(self.shadow, name)
        if name in ("sum", "mean", "max", "min", "any", "all", "astype", "copy"):
            return _method(self, name)
        return getattr(self.session.plain(self), name)

    def __len__(self) -> int:
        return len(self.session.plain(self))

    def __bool__(self) -> bool:
        return bool(self.session.plain(self))

    def __iter__(self) -> Iterator[Any]:
        return iter(self.session.plain(self))

    def __getitem__(self, key: Any) -> Any:
        return self.session.plain(self)[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        raise self.session.refuse("a part of x[mask] is written to")


class _Flat:
    """`x.flat`: the entries in order; writing to it writes to the array."""

    def __init__(self, stand: Stand) -> None:
        self.stand = stand

    def __len__(self) -> int:
        return int(self.stand.size)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.stand.ravel())

    def __getitem__(self, key: Any) -> Any:
        return self.stand.flatten()[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        flat = self.stand.flatten()
        many = np.size(shadow_of(value)) > 1
        flat[key] = np.resize(value, np.shape(shadow_of(flat[key]))) if many else value
        self.stand[...] = flat.reshape(self.stand.shape)


def _method(stand: Any, name: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        return stand.session.method(name, stand, args, kwargs)

    return call


_COMPARED = ("lt", "le", "eq", "ne", "gt", "ge")
_NAMES = (  # Python's name of an operator, and NumPy's where it is another
    "matmul divmod add sub:subtract mul:multiply truediv:true_divide floordiv:floor_divide "
    "mod:remainder pow:power and:bitwise_and or:bitwise_or xor:bitwise_xor lshift:left_shift "
    "rshift:right_shift lt:less le:less_equal eq:equal ne:not_equal gt:greater ge:greater_equal"
)
_BINARY = {
    ours: getattr(np, theirs or ours)
    for ours, _, theirs in (name.partition(":") for name in _NAMES.split())
}
_UNARY = {"neg": np.negative, "pos": np.positive, "abs": np.absolute, "invert": np.invert}


def _install(name: str, ufunc: Any) -> None:
    """Give stand-ins the operator `name`, its reflected and its in-place form.

    NumPy's own operator computes the shadow: `x ** 2` is not always `np.power(x, 2)` to the bit.
    """
    plain = divmod if name == "divmod" else getattr(operator, f"__{name}__")

    def forward(self: Any, *other: Any) -> Any:
        if not self.reading:
            return plain(self.shadow, *shadow_of(other))
        return self.session.ufunc(ufunc, "__call__", (self, *other), {}, plain)

    def reflected(self: Any, other: Any) -> Any:
        if not self.reading:
            return plain(shadow_of(other), self.shadow)
        return self.session.ufunc(ufunc, "__call__", (other, self), {}, plain)

    def in_place(self: Any, other: Any) -> Any:
        if not self.reading:
            return ufunc(self.shadow, shadow_of(other), out=self.shadow)
        if type(self) is Chosen or not isinstance(self.shadow, np.ndarray):
            return forward(self, other)
        return self.session.ufunc(ufunc, "__call__", (self, other), {"out": (self,)}, None)

    setattr(_Operators, f"__{name}__", forward)
    if name in _BINARY and name not in _COMPARED:
        setattr(_Operators, f"__r{name}__", reflected)
        if name != "divmod":
            setattr(_Operators, f"__i{name}__", in_place)


for _name, _ufunc in (*_BINARY.items(), *_UNARY.items()):
    _install(_name, _ufunc)
