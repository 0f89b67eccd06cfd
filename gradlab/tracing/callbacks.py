"""Calls of the host out of a compiled program, and kernels that a CPU can only interpret.

JAX runs a callback on another thread, which does not know `jax.enable_x64` of this one: numbers of
64 bits arrive there, and come back, cut to 32. So they travel as pairs of words.
"""

import contextlib
import functools
import logging
import math
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import io_callback

from gradlab.common.arrays import Array, DTypeLike
from gradlab.tracing.settings import platform_here

T = TypeVar("T")

_LOG = logging.getLogger("jax._src.callback")  # it logs every error that it hands on, too
_ERROR = re.compile(r"^(?:\w+\.)*(\w+): +(\S.*)", re.MULTILINE)
Abstract: Any = jax.ShapeDtypeStruct
_CALLS = ("pure_callback", "io_callback")


class Tally:
    """How often the programs of one check have called the host: JAX does so on other threads."""

    def __init__(self) -> None:
        self.made, self._lock = 0, threading.Lock()

    def add(self) -> None:
        """Count a call."""
        with self._lock:
            self.made += 1


_HERE: ContextVar[Tally | None] = ContextVar("gradlab_tally", default=None)


def tally() -> Tally | None:
    """Return what counts the calls of the check that runs here; None where there is no check.

    A program that is compiled keeps it, so that no other check may run that program: it is part
    of the identity of what calls the host.
    """
    return _HERE.get()


@contextlib.contextmanager
def counted() -> Iterator[None]:
    """Count calls of the host apart from those of any other check."""
    token = _HERE.set(Tally())
    try:
        yield
    finally:
        _HERE.reset(token)


def host_calls() -> int:
    """Return how often the programs of this check have called Python on the host so far."""
    here = tally()
    return 0 if here is None else here.made


class NoCallLeft(BaseException):
    """No further call of the host is allowed: no error of the user's code, nor of gradlab."""


_MOST: ContextVar[float] = ContextVar("gradlab_host_calls", default=math.inf)


@contextlib.contextmanager
def host_calls_limited(most: float) -> Iterator[None]:
    """Refuse calls of the host on this thread once so many were made."""
    token = _MOST.set(host_calls() + most)
    try:
        yield
    finally:
        _MOST.reset(token)


class Refused(Exception):
    """A callback inside a program raised; the message is what it said."""


def run_callbacks(compute: Callable[[], T]) -> T:
    """Return what `compute` returns, which runs programs with callbacks inside."""
    _LOG.addFilter(_unheard)
    try:
        return compute()
    except jax.errors.JaxRuntimeError as error:
        if str(error).startswith("RESOURCE_EXHAUSTED"):
            raise
        _renew_token()
        found = _ERROR.findall(str(error).rpartition('  File "')[2])
        raise Refused(": ".join(found[0]) if found else "an error") from error
    except RuntimeError as error:  # a library's own, such as Equinox's, from a call on this thread
        if type(error) in (RuntimeError, RecursionError, NotImplementedError):
            raise
        raise Refused(f"{type(error).__name__}") from error
    finally:
        _LOG.removeFilter(_unheard)


def _renew_token() -> None:
    """Make JAX forget the call that failed: it would raise again when the process ends."""
    jax.jit(lambda x: jax.debug.callback(_ignore, x))(np.float32(0.0))


def _ignore(_: Any) -> None:
    return None


def _unheard(_: logging.LogRecord) -> bool:
    return False


def runs_elsewhere(equation: Any) -> bool:
    """Whether an equation cannot be compiled as it stands: see `jaxprs.bind_to_run`."""
    kernel = equation.primitive.name == "pallas_call" and platform_here() == "cpu"
    return (kernel and not equation.params["interpret"]) or is_callback(equation)


def leaves_program(equation: Any) -> bool:
    """Whether an equation computes outside of the program: what it does cannot be read."""
    return is_callback(equation) or equation.primitive.name == "ffi_call"


def is_callback(equation: Any) -> bool:
    """Whether an equation calls Python on the host."""
    return equation.primitive.name in _CALLS


def call_host(equation: Any, inputs: Sequence[Array]) -> list[Any]:
    """Call the host at once, on this thread."""
    if host_calls() >= _MOST.get():
        raise NoCallLeft
    here = tally()
    if here is not None:
        here.add()
    try:
        found = equation.params["callback"](*map(jnp.asarray, inputs))
    except Exception as error:  # whatever the user's callback raises
        text = str(error).partition("\n")[0]
        raise Refused(f"{type(error).__name__}: {text}") from error
    return [np.asarray(y, v.aval.dtype) for y, v in zip(found, equation.outvars)]


def bind_callback(equation: Any, inputs: Sequence[Array]) -> list[Any]:
    """Call the host with all digits of the inputs, and return all digits of its answers."""
    params = equation.params
    given = [variable.aval.dtype for variable in equation.invars]
    results = [variable.aval for variable in equation.outvars]
    wide = any(map(_wide, (*given, *(aval.dtype for aval in results))))
    here = tally()

    def on_host(*words: Any) -> list[Any]:
        if here is not None:
            here.add()
        with jax.enable_x64(True) if wide else contextlib.nullcontext():
            values = [jnp.asarray(_joined(np.asarray(w), d)) for w, d in zip(words, given)]
            answers = params["callback"](*values)
            return [_words(answer, aval.dtype) for answer, aval in zip(answers, results)]

    shapes = [Abstract(*_form(aval)) for aval in results]
    words = [_divided(array, dtype) for array, dtype in zip(inputs, given)]
    if equation.primitive.name == "io_callback":
        call = functools.partial(io_callback, ordered=params["ordered"])
    else:
        call = functools.partial(jax.pure_callback, vmap_method=params["vmap_method"])
    return [_united(w, aval.dtype) for w, aval in zip(call(on_host, shapes, *words), results)]


def _wide(dtype: DTypeLike) -> bool:
    return dtype in (np.float64, np.complex128, np.int64, np.uint64)


def _form(aval: Any) -> tuple[tuple[int, ...], Any]:
    if not _wide(aval.dtype):
        return aval.shape, aval.dtype
    return (*aval.shape, np.dtype(aval.dtype).itemsize // 4), np.uint32


def _words(array: Array, dtype: DTypeLike) -> Any:
    """Return a NumPy array as words of 32 bits along a last axis, if its numbers have more."""
    exact = np.asarray(array, dtype)
    if not _wide(dtype):
        return exact
    shape = (*exact.shape, exact.dtype.itemsize // 4)
    return np.ascontiguousarray(exact).reshape(-1).view(np.uint32).reshape(shape)


def _joined(words: Any, dtype: DTypeLike) -> Any:
    if not _wide(dtype):
        return words
    return np.ascontiguousarray(words).reshape(-1).view(dtype).reshape(words.shape[:-1])


def _divided(array: Array, dtype: DTypeLike) -> Any:
    """Return an array in a program as words of 32 bits along a last axis."""
    if dtype == np.complex128:
        parts = [lax.bitcast_convert_type(p, np.uint32) for p in (jnp.real(array), jnp.imag(array))]
        return jnp.concatenate(parts, -1)
    return lax.bitcast_convert_type(array, np.uint32) if _wide(dtype) else array


def _united(words: Any, dtype: DTypeLike) -> Any:
    if dtype == np.complex128:
        real, imaginary = (lax.bitcast_convert_type(w, np.float64) for w in jnp.split(words, 2, -1))
        return lax.complex(real, imaginary)
    return lax.bitcast_convert_type(words, dtype) if _wide(dtype) else words
