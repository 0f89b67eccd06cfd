"""Which function of JAX computes what a function of NumPy or SciPy computes: its namesake."""

import functools
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from gradlab.reading.session import Recorder


_SPACES = (  # each is imported when a function of it is met: SciPy takes a tenth of a second
    ("numpy.linalg", "jax.numpy.linalg"),
    ("numpy.fft", "jax.numpy.fft"),
    ("numpy", "jax.numpy"),
    ("scipy.special", "jax.scipy.special"),
    ("scipy.linalg", "jax.scipy.linalg"),
    ("scipy.signal", "jax.scipy.signal"),
    ("scipy.fft", "jax.scipy.fft"),
)
_RENAMED = {"a_min": "min", "a_max": "max"}
_DROPPED = frozenset(("order", "subok", "like", "casting", "device", "kind", "copy", "optimize"))
_ORDERED = ("ravel", "reshape")
_ONE_HALF = ("cholesky", "cho_factor", "eigh", "eigvalsh")
_TAKE_LISTS = (
    *("cho_solve", "lu_solve", "concatenate", "stack", "hstack", "vstack", "dstack"),
    *("column_stack", "concat", "meshgrid", "broadcast_arrays", "einsum", "select", "multi_dot"),
    "lexsort",
)


@functools.cache
def twin_of(function: Any) -> Callable[..., Any] | None:
    """Return the function of the same name in JAX, taking the arguments that NumPy's takes."""
    name = getattr(function, "__name__", "")
    home = "" if isinstance(function, np.ufunc) else getattr(function, "__module__", None) or ""
    name = {"psi": "digamma"}.get(name, name)
    if name in ("softmax", "log_softmax") and home.startswith("scipy.special"):
        return lambda x, axis=None: getattr(jax.nn, name)(x, axis)
    for space, module in _SPACES:
        if home and not (home == space or (home.startswith(space) and space[0] == "s")):
            continue
        found = getattr(importlib.import_module(module), name, None)
        if callable(found) and not name.startswith("_"):
            if name in _ONE_HALF:
                found = functools.partial(_of_one_half, found, space.startswith("numpy"))
            return functools.partial(_called, found)
    return None


def as_arrays(reading: "Recorder", function: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return arguments with arrays for lists of traced numbers, where JAX asks for arrays."""
    name = getattr(function, "__name__", "")

    def array(each: Any) -> Any:
        several = type(each) in (list, tuple) and reading.traced(each)
        return reading.call(np.array, (each,), {}) if several else each

    if name == "block":
        return args
    lists = (list, tuple) if name in _TAKE_LISTS else ()
    return tuple(type(a)(map(array, a)) if type(a) in lists else array(a) for a in args)


def _of_one_half(twin: Any, numpy: bool, a: Any, *args: Any, **kwargs: Any) -> Any:
    """Call what reads one triangle of a matrix, where its namesake reads both."""
    name = twin.__name__
    if numpy:
        lower = not kwargs.get("upper") and (*args, kwargs.get("UPLO", "L"))[0] in "lL"
    else:
        lower = (*args[name == "eigh" :], kwargs.get("lower", name == "eigh"))[0]
    half, other = (jnp.tril, jnp.triu) if lower else (jnp.triu, jnp.tril)
    across = jnp.conj(jnp.swapaxes(half(a), -1, -2))
    whole = half(a) + other(across, 1 if lower else -1)
    found = twin(whole, *args, **kwargs)
    return (half(found[0]) + a - half(a), found[1]) if name == "cho_factor" else found


def _called(twin: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    name = getattr(twin, "__name__", "")
    options = {
        _RENAMED.get(key, key): value
        for key, value in kwargs.items()
        if (key not in _DROPPED or (key == "order" and name in _ORDERED))
        and value is not np._NoValue
    }
    if name == "choose" and len(args) < 4:
        options.setdefault("mode", "clip")  # JAX raises on nothing that is traced
    try:
        return twin(*args, **options)
    except TypeError as error:
        if "ndarray or scalar" not in str(error):
            raise
        options = {n: np.asarray(v) if isinstance(v, list) else v for n, v in options.items()}
        return twin(*(np.asarray(a) if isinstance(a, list) else a for a in args), **options)
