"""What was asked, made uniform: inputs, their names, which are differentiated, in which dtypes."""

import operator
import os
from collections.abc import Sequence
from typing import Any, Literal

import jax
import numpy as np

from gradlab.arguments import nearest_of, several
from gradlab.errors import InputError, InputTypeError
from gradlab.formatting import size_text
from gradlab.tracing import require_values
from gradlab.tracing.leaves import is_inexact

Returns = Literal["output", "output+residuals", "output+gradients"]
RETURNS: tuple[Returns, ...] = ("output", "output+residuals", "output+gradients")

_FLOATS = ("float64", "float32", "bfloat16", "float16")
_WIDE = ("float64", "complex128")  # JAX arrays of these exist under x64 alone
_COMPLEX_OF = {"float64": "complex128", "float32": "complex64"}


def require_arrays(inputs: tuple[Any, ...], names: Sequence[str]) -> None:
    """Refuse leaves that are no plain arrays: traced, masked, of another library, too exact."""
    import jax

    pairs, _ = jax.tree_util.tree_flatten_with_path(inputs)
    for keys, leaf in pairs:
        path = names[keys[0].idx] + jax.tree_util.keystr(keys[1:])
        require_values(f"{path}: it is", [leaf])
        if isinstance(leaf, np.matrix | np.ma.MaskedArray):
            kind = type(leaf).__name__
            raise InputTypeError(
                f"{path}: a {kind} computes otherwise than an array; pass numpy.asarray({path})"
            )
        if isinstance(leaf, np.ndarray | np.generic):
            exact = "complex128" if leaf.dtype.kind == "c" else "float64"
            if leaf.dtype.kind in "fc" and leaf.dtype.itemsize > np.dtype(exact).itemsize:
                raise InputError(
                    f"{path}: {leaf.dtype} is no dtype of JAX; pass {path}.astype(numpy.{exact})"
                )
            continue
        if hasattr(leaf, "__array__") and hasattr(leaf, "shape") and not hasattr(leaf, "aval"):
            kind = f"{type(leaf).__module__.partition('.')[0]}.{type(leaf).__name__}"
            raise InputTypeError(
                f"{path}: expected an array of NumPy or JAX, got a {kind}; pass numpy.asarray("
                f"{path}), and let the function convert it if it needs a {kind}"
            )


def parse_wrt(wrt: Any, names: Sequence[str]) -> tuple[int, ...] | None:
    """Return the positions that `wrt` names, in the order of the inputs; None for all."""
    if wrt is None:
        return None
    positions = []
    for item in several(wrt):
        if isinstance(item, str):
            if item not in names:
                near = [*nearest_of(item, names), *names][:1] or [""]
                raise InputError(
                    f"wrt: no input is named {item!r}; the inputs are {', '.join(names)}",
                    (item, near[0]),
                )
            positions.append(names.index(item))
            continue
        try:
            position = operator.index(item)
        except TypeError:
            raise InputTypeError(
                f"wrt: expected positions or names of inputs, got {type(item).__name__}"
            ) from None
        if not -len(names) <= position < len(names):
            raise InputError(
                f"wrt: there is no input {position}; the inputs are {', '.join(names)}",
                (str(position), "0"),
            )
        positions.append(position % len(names))
    if not positions:
        raise InputError("wrt: empty; leave it out to check all inputs")
    return tuple(sorted(set(positions)))


def parse_dtypes(dtypes: Any) -> tuple[str | None, ...]:
    """Return the names of the dtypes to check in; `(None,)`: the inputs' own."""
    if dtypes is None:
        return (None,)
    names = tuple(_dtype_name(dtype) for dtype in several(dtypes))
    for name in names:
        if name not in _FLOATS:
            raise InputError(
                f"dtypes: expected some of {', '.join(_FLOATS)}, got {name!r}", (name, "float32")
            )
    if not names:
        raise InputError("dtypes: empty; leave it out to check the inputs as they are")
    return names


def _dtype_name(dtype: Any) -> str:
    if isinstance(dtype, str):
        return dtype
    try:
        return str(getattr(dtype, "__name__", None) or np.dtype(dtype).name)
    except (TypeError, ValueError):  # a random key says so
        return str(dtype)


def has_float64(inputs: tuple[Any, ...]) -> bool:
    """Whether some leaf is a float64 array."""
    import jax

    return any(str(getattr(leaf, "dtype", "")) == "float64" for leaf in jax.tree.leaves(inputs))


def cast(inputs: tuple[Any, ...], dtype: str | None) -> tuple[Any, ...]:
    """Return the inputs with every inexact array in `dtype`; complex ones in its complex twin."""
    if dtype is None:
        return inputs
    import jax
    import jax.numpy as jnp

    def one(leaf: Any) -> Any:
        kind = getattr(leaf, "dtype", None)
        if kind is None or not jnp.issubdtype(kind, jnp.inexact):
            return leaf
        wanted = dtype
        if jnp.issubdtype(kind, jnp.complexfloating):
            if dtype not in _COMPLEX_OF:
                raise InputError(f"dtypes: a complex input cannot be checked in {dtype}")
            wanted = _COMPLEX_OF[dtype]
        array = np.asarray(leaf).astype(jnp.dtype(wanted))
        jax_alone = wanted == "bfloat16" or isinstance(leaf, jax.Array)  # NumPy promotes bfloat16
        return jnp.asarray(array) if jax_alone and wanted not in _WIDE else array

    return tuple(jax.tree.map(one, inputs))


_COPIES = 12  # float64 copies of its inputs that a check holds at least; elementwise layers need 40


def require_memory(caller: str, inputs: Any, samples: int = 1) -> None:
    """Raise if the inputs are so large that no check of them can fit."""
    sizes = [
        np.size(leaf) for leaf in jax.tree.leaves(inputs) if is_inexact(getattr(leaf, "dtype", int))
    ]
    needed = 8 * _COPIES * sum(sizes) * samples
    here = _physical()
    if here and needed > here:
        raise InputError(
            f"{caller}: inputs of {sum(sizes):,} entries need at least {size_text(needed)}, and "
            f"this machine has {size_text(here)}; pass a smaller batch. "
            "assert_structure can prove that a function treats all rows alike"
        )


def _physical() -> int:
    """Return the machine's memory in bytes; 0 where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 0
