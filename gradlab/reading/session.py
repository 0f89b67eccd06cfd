"""One reading: NumPy computes on the shadows, JAX on the symbols, and both must agree.

What a call shows of memory that is known is a view, whatever made it. What it makes anew gets its
symbol from a rule of ours (`rules`), else from the function of the same name in JAX.
"""

import operator
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from gradlab.errors import NotReadable
from gradlab.reading import indexing, masks
from gradlab.reading.elementwise import elementwise
from gradlab.reading.frames import user_line
from gradlab.reading.memory import Buffer, Source, buffer_of, owner_of, seen_as
from gradlab.reading.standins import Chosen, Stand, is_stand, shadow_of
from gradlab.reading.twins import as_arrays, twin_of

_MOST = 200_000  # equations
_SMALL = 1 << 12  # bytes of a constant that is told apart by them
_HELD = 1 << 24  # bytes of a user's array that are held while the function is run beside it
_KINDS = "biufc"
_ABOUT_SHAPES = frozenset(
    {
        *("shape", "ndim", "size", "iscomplexobj", "isrealobj", "result_type", "can_cast"),
        *("isscalar", "shares_memory", "may_share_memory", "isfortran"),
        *("array_repr", "array_str", "array2string"),
    }
)


_ASKED = {"if": "condition", "int": "integer"}


@dataclass(frozen=True)
class Decision:
    """A value of the inputs that the function asked for, as `if` does."""

    line: str  # the user's line, as `layer.py:12`
    kind: str  # "if", "int", "index", "key", "mask" or "places"
    value: Any  # what it was

    def __str__(self) -> str:
        one, what = np.ndim(self.value) == 0, _ASKED.get(self.kind, self.kind)
        shown = (
            repr(np.asarray(self.value).item())
            if one
            else f"as here ({np.size(self.value)} values)"
        )
        return f"the {what} at {self.line} {'are' if what.endswith('s') else 'is'} {shown}"


class Recorder:
    """What a reading writes down; stand-ins hand it whatever they are asked.

    `deciding`: values may decide; without it, they end the reading.
    """

    def __init__(self, rules: dict[Any, Callable[..., Any]], deciding: bool = True) -> None:
        self.rules, self.deciding = rules, deciding
        self.buffers: dict[int, Buffer] = {}
        self.decisions: list[Decision] = []
        self.deciders: list[Any] = []
        self.refusal: NotReadable | None = None
        self.generators: list[Callable[[], None]] = []
        self.names: list[tuple[dict[Any, Any], Any, Any]] = []
        self._contents: list[tuple[Any, Any]] | None = None
        self.count = 0
        self._decided: set[int] = set()
        self._known: dict[Any, Any] = {}
        self._kept: list[Any] = []

    # What is made

    def scalar(self, shadow: Any, symbol: Any) -> Stand:
        """Return a stand-in for a number with a symbol of no axes."""
        dtype = np.asarray(shadow).dtype
        return Stand(self, shadow, symbol=lax.convert_element_type(symbol, dtype))

    def array(self, shadow: Any, symbol: Any = None, guarded: bool = False) -> Any:
        """Return a stand-in for an array: a view of what is known, or new memory."""
        if type(shadow) is not np.ndarray or shadow.dtype.kind not in _KINDS or _long(shadow):
            if symbol is None:
                return shadow
            raise self.refuse(f"JAX has no arrays of {type(shadow).__name__} {shadow.dtype}")
        owner = owner_of(shadow)
        known = self.buffers.get(id(owner))
        if known is not None and symbol is None and seen_as(known.memory, shadow):
            return Stand(self, shadow, known)
        if symbol is not None and (known is not None or owner.size != shadow.size):
            shadow = owner = shadow.copy(order="K")
        if symbol is not None:
            symbol = lax.convert_element_type(symbol, shadow.dtype)
            if symbol.shape != shadow.shape:
                raise self.refuse(f"JAX gives the shape {symbol.shape}, NumPy {shadow.shape}")
            if owner is not shadow:
                shadow = owner = shadow.copy(order="K")
        buffer = buffer_of(owner, symbol, guarded)
        if buffer is None or not seen_as(buffer.memory, shadow):
            shadow = shadow.copy(order="C")
            buffer = buffer_of(shadow, symbol)
            assert buffer is not None
        self.buffers[id(buffer.owner)] = buffer
        return Stand(self, shadow, buffer)

    def wrap(self, result: Any) -> Any:
        """Return what no input moves, with stand-ins for its arrays."""
        if isinstance(result, np.ndarray):
            return self.array(result)
        if type(result) in (list, tuple):
            return type(result)(map(self.wrap, result))
        if isinstance(result, tuple) and hasattr(result, "_fields"):
            return type(result)(*map(self.wrap, result))
        if isinstance(result, dict):
            return {name: self.wrap(item) for name, item in result.items()}
        return result

    def pair(self, result: Any, symbols: Any) -> Any:
        """Return a result of NumPy beside the same of JAX."""
        self.counted()
        if isinstance(result, tuple | list) and isinstance(symbols, tuple | list):
            if len(result) != len(symbols):
                raise self.refuse(f"JAX returns {len(symbols)} results, NumPy {len(result)}")
            each = [self.pair(r, s) for r, s in zip(result, symbols)]
            named = isinstance(result, tuple) and hasattr(result, "_fields")
            return type(result)(*each) if named else type(result)(each)
        if isinstance(symbols, bool | int):  # a choice, such as which half of a matrix is held
            return symbols if isinstance(result, np.ndarray) else result
        if isinstance(result, np.ndarray):
            if self.is_view(result):
                return self.array(result)
            return self.array(result, symbols)
        if isinstance(result, np.generic | bool | int | float | complex):
            return self.scalar(result, symbols if not np.ndim(symbols) else jnp.squeeze(symbols))
        raise self.refuse(f"a {type(result).__name__} is made of values")

    def elsewhere(self, stand: Stand, key: Any, shadow: Any, symbol: Any) -> Stand:
        """Return what an array shows at a place that depends on values, which writes there too."""
        found: Stand = self.pair(shadow.copy(), symbol)
        assert stand.buffer is not None and found.buffer is not None
        found.buffer.source = Source(stand, key, stand.buffer.version)
        return found

    def is_view(self, result: Any) -> bool:
        """Whether a result shows memory that is known."""
        known = self.buffers.get(id(owner_of(result)))
        return known is not None and seen_as(known.memory, result)

    def counted(self) -> None:
        """Count what was written down, up to what a program may have."""
        self.count += 1
        if self.count > _MOST:
            raise self.refuse(f"more than {_MOST:,} operations")

    # What is known of a value

    def symbol(self, value: Any) -> Any:
        """Return a value's symbol; of what no input moves, the value itself."""
        if type(value) is Stand:
            if value.buffer is not None:
                if value.buffer.stale:
                    raise self.refuse("x[i], where values decide i, is used after x was written")
                return value.buffer.read(value.shadow)
            return value.shadow if value.symbol is None else value.symbol
        if type(value) is Chosen:
            return self.symbol(self.plain(value))
        kind = type(value)
        if kind in (list, tuple):
            return kind(map(self.symbol, value))
        if kind is dict:
            return {name: self.symbol(item) for name, item in value.items()}
        if kind is slice:
            return slice(*map(self.symbol, (value.start, value.stop, value.step)))
        return np.array(value) if isinstance(value, np.ndarray) else value

    def traced(self, value: Any) -> bool:
        """Whether something inside depends on the inputs."""
        kind = type(value)
        if kind is Stand or kind is Chosen:
            return bool(value.traced)
        if kind in (list, tuple):
            return any(map(self.traced, value))
        if kind is dict:
            return any(map(self.traced, value.values()))
        return kind is slice and self.traced((value.start, value.stop, value.step))

    def decide(self, stand: Any, kind: str) -> Any:
        """Return the value of a stand-in, and note that it decided."""
        if stand.traced:
            self.noted(kind, stand.shadow, self.symbol(stand))
        return stand.shadow

    def noted(self, kind: str, shadow: Any, symbol: Any) -> None:
        """Note that a value decided; once for each symbol."""
        if not self.deciding:
            raise self.refuse(
                "it reads values of its inputs here, where shapes alone may decide; "
                "choose with np.where"
            )
        if id(symbol) not in self._decided:
            self._decided.add(id(symbol))
            value = shadow if np.ndim(shadow) == 0 else np.array(shadow)
            self.decisions.append(Decision(user_line(), kind, value))
            self.deciders.append(symbol)

    def rewind(self) -> None:
        """Put generators of random numbers, and arrays of the user's, back to where it began."""
        for back in self.generators:
            back()
        for container, name, array in self.names:
            if container.get(name) is not array:
                container[name] = array
        if self._contents is None:
            owners = [buffer.owner for buffer in self.buffers.values() if buffer.guarded]
            small = [owner for owner in owners if owner.nbytes <= _HELD and owner.flags.writeable]
            self._contents = [(owner, owner.copy()) for owner in small]
        for owner, contents in self._contents:
            owner[...] = contents

    def refuse(self, reason: str) -> NotReadable:
        """Return the error that ends the reading; the first one stays the reason."""
        error = NotReadable(reason, user_line())
        self.refusal = self.refusal or error
        return error

    # What is called

    def call(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function of NumPy or SciPy."""
        rule = self.rules.get(function)
        if rule is not None:
            return rule(self, function, args, kwargs)
        if args and type(args[0]) is Chosen:
            name = getattr(function, "__name__", "")
            found = masks.reduced(self, name, args[0], args[1:], kwargs)
            if found is not None:
                return found
        return self.plainly(function, args, kwargs)

    def plainly(
        self,
        function: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        twin: Callable[..., Any] | None = None,
    ) -> Any:
        """Call a function on shadows, and its twin in JAX on symbols."""
        out = kwargs.pop("out", None)
        if out is not None:
            out = out[0] if isinstance(out, tuple) else out
            result = self.plainly(function, args, kwargs, twin)
            self.assign(out, result)
            return out
        result = function(*shadow_of(args), **shadow_of(kwargs))
        name = getattr(function, "__name__", "")
        if not self.traced((args, kwargs)):
            return self.wrap(result)
        if name in _ABOUT_SHAPES:
            return result
        leaves = list(result) if isinstance(result, tuple | list) else [result]
        if leaves and all(isinstance(a, np.ndarray) and self.is_view(a) for a in leaves):
            self.settled((args, kwargs))
            return self.wrap(result)
        twin = twin or twin_of(function)
        if twin is None:
            return self._python(function, name, args, kwargs)
        try:
            symbols = self.symbol(as_arrays(self, function, args))
            symbols = twin(*_as_wide(symbols, leaves), **self.symbol(kwargs))
        except NotReadable:
            raise
        except Exception as error:  # JAX says in many ways that it cannot do the same
            said = str(error).split("\n")[0]
            raise self.refuse(f"{name}: JAX refuses it ({type(error).__name__}: {said})") from error
        return self.pair(result, symbols)

    def _python(self, function: Any, name: str, args: Any, kwargs: Any) -> Any:
        """Run NumPy's own Python on stand-ins, where JAX has no function of that name."""
        inside = getattr(function, "__wrapped__", function)
        if type(inside) is not types.FunctionType:
            raise self.refuse(f"{name} has no counterpart in JAX")
        result = inside(*args, **kwargs)
        if not self.traced(result):
            raise self.refuse(f"{name} has no counterpart in JAX")
        return result

    def ufunc(
        self, ufunc: Any, method: str, inputs: tuple[Any, ...], kwargs: dict[str, Any], shadow: Any
    ) -> Any:
        """Call a ufunc, or one of its methods; `shadow` computes the shadow in its place."""
        if method != "__call__":
            rule = self.rules.get(method)
            if rule is None:
                raise self.refuse(f"{ufunc.__name__}.{method} has no counterpart in JAX")
            return rule(self, ufunc, inputs, kwargs, method)
        return elementwise(self, ufunc, inputs, kwargs, shadow)

    def method(self, name: str, stand: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a method of arrays."""
        rule = self.rules.get(f".{name}")
        if rule is not None:
            return rule(self, stand, args, kwargs)

        def on_shadow(array: Any, *rest: Any, **options: Any) -> Any:
            found = getattr(array, name)
            return found(*rest, **options) if callable(found) else found

        def on_symbol(array: Any, *rest: Any, **options: Any) -> Any:
            found = getattr(jnp.asarray(array), name)
            return found(*rest, **options) if callable(found) else found

        on_shadow.__name__ = name
        function = getattr(np, name, None)
        if callable(function) and not isinstance(function, type) and name not in _OWN_SIGNATURE:
            return self.call(function, (stand, *args), kwargs)
        return self.plainly(on_shadow, (stand, *args), kwargs, on_symbol)

    # What is read and written

    def get(self, stand: Stand, key: Any) -> Any:
        """Return `stand[key]`."""
        return indexing.get(self, stand, key)

    def put(self, stand: Any, key: Any, value: Any) -> None:
        """Write `stand[key] = value`."""
        indexing.put(self, stand, key, value)

    def assign(self, stand: Any, value: Any) -> None:
        """Write a value into the whole of an array."""
        if is_stand(stand):
            indexing.put(self, stand, Ellipsis, value)
        elif self.traced(value):
            raise self.refuse("a traced value is written into an array that gradlab does not trace")
        else:
            stand[...] = shadow_of(value)

    def written(
        self, stand: Stand, symbol: Any, write: Callable[[], Any], constant: bool = False
    ) -> None:
        """Give what an array shows a new symbol, or none if constants fill its whole memory.

        `write` writes into the shadow.
        """
        assert stand.buffer is not None
        self.counted()
        if not stand.shadow.flags.writeable:
            raise ValueError("assignment destination is read-only")
        whole = constant and stand.shadow.size == stand.buffer.memory.size
        spread = None if whole else indexing.spread(symbol, stand.shadow.shape)
        if not stand.buffer.write(stand.shadow, spread):
            raise self.refuse("a view is written to that shows an entry twice")
        write()
        buffer, source = stand.buffer, stand.buffer.source
        if source is not None:
            indexing.put(self, source.stand, source.key, Stand(self, buffer.owner, buffer))
            source.seen, source.kept = source.buffer.version, buffer.version

    def settled(self, value: Any) -> Any:
        """Return arguments in which whole numbers, as of shapes and axes, have decided."""
        kind = type(value)
        if kind in (list, tuple):
            return kind(map(self.settled, value))
        if kind is dict:
            return {name: self.settled(item) for name, item in value.items()}
        number = kind is Stand and np.ndim(value.shadow) == 0 and value.traced
        return operator.index(value) if number and isinstance(value, int | np.integer) else value

    def cast(self, value: Any, dtype: Any) -> Any:
        """Return a value's symbol in a dtype; the imaginary part of complex numbers may go."""
        if type(value) in (list, tuple):
            value = self.rules[np.array](self, np.array, (value,), {})
        symbol = self.symbol(value)
        if isinstance(symbol, np.ndarray | np.generic | bool | int | float | complex):
            symbol = np.asarray(symbol)
            symbol = symbol.real if symbol.dtype.kind == "c" != dtype.kind else symbol
            return symbol.astype(dtype)
        if np.issubdtype(symbol.dtype, np.complexfloating) and dtype.kind != "c":
            symbol = jnp.real(symbol)
        return lax.convert_element_type(symbol, dtype)

    def spread(self, value: Any, dtype: Any, shape: tuple[int, ...]) -> Any:
        """Return a value's symbol in a dtype and a shape, broadcast as what is assigned."""
        return indexing.spread(self.cast(value, dtype), shape)

    def plain(self, chosen: Chosen) -> Stand:
        """Return `x[mask]` as an array of a shape that the mask's values decide."""
        self.noted("mask", chosen.where, chosen.mask)
        places = np.flatnonzero(chosen.where).astype(np.int32)
        rest = chosen.whole.shape[chosen.where.ndim :]
        flat = jnp.reshape(chosen.whole, (chosen.where.size, *rest))
        found: Stand = self.pair(chosen.shadow, flat.at[places].get(mode="promise_in_bounds"))
        return found

    def known(self, key: Any, make: Callable[[], Any]) -> Any:
        """Return what an equal key made before: equal comparisons are one symbol."""
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]

    def key(self, symbol: Any) -> Any:
        """Return what tells symbols apart; constants by their entries."""
        if isinstance(symbol, np.ndarray | np.generic | bool | int | float | complex):
            array = np.asarray(symbol)
            if array.nbytes <= _SMALL:
                return array.dtype, array.shape, array.tobytes()
        self._kept.append(symbol)  # so that no other comes to have its number
        return id(symbol)


# Methods whose arguments are not those of the function of that name.
_OWN_SIGNATURE = frozenset(
    ["reshape", "transpose", "squeeze", "astype", "flatten", "view", "repeat", "clip"]
)


def _as_wide(symbols: Any, results: list[Any]) -> Any:
    """Return operands in float64 where NumPy computed in it what JAX would in their dtype."""
    wide = any(getattr(result, "dtype", None) == np.float64 for result in results)

    def cast(symbol: Any) -> Any:
        if type(symbol) in (list, tuple):
            return type(symbol)(map(cast, symbol))
        narrow = getattr(symbol, "dtype", None) in (np.float32, np.float16)
        return lax.convert_element_type(symbol, np.float64) if narrow else symbol

    return cast(symbols) if wide else symbols


def _long(array: Any) -> bool:
    return bool(array.dtype.itemsize > (16 if array.dtype.kind == "c" else 8))
