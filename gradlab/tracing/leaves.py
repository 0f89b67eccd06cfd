"""The leaves of a call's inputs: which are traced, which differentiated, and how they are named."""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradlab.common.arrays import Array, DTypeLike, Tree


@dataclass(frozen=True)
class Leaf:
    """One leaf of the inputs.

    `path` is what a person would write: `x`, `params['w']`, `state[0].mean`. `kind` is one of
    real, complex, integer, boolean, key (traced) or none, static (part of the function).
    """

    path: str
    position: int
    kind: str
    shape: tuple[int, ...] = ()
    dtype: DTypeLike = None

    @property
    def traced(self) -> bool:
        """Whether the leaf is an input of the traced program."""
        return self.kind not in ("none", "static")

    @property
    def differentiable(self) -> bool:
        """Whether the leaf has a gradient."""
        return self.kind in ("real", "complex")


@functools.lru_cache(256)
def is_inexact(dtype: DTypeLike) -> bool:
    """Return whether a dtype is real or complex floating point, bfloat16 and the like included."""
    return bool(jnp.issubdtype(dtype, np.inexact))


@functools.lru_cache(256)
def is_key(dtype: DTypeLike) -> bool:
    """Return whether a dtype is that of JAX's random keys."""
    return bool(jnp.issubdtype(dtype, jax.dtypes.extended))


def in_words(array: Array) -> Any:
    """Return random keys as the whole numbers that they stand for, other arrays as they are."""
    key = is_key(getattr(array, "dtype", np.float64))
    return jax.random.key_data(array) if key else array


def in_numpy(array: Array) -> Any:
    """Return an array as NumPy's; a random key stays what it is."""
    return array if is_key(getattr(array, "dtype", np.float64)) else np.asarray(array)


@functools.lru_cache(256)
def digits(dtype: DTypeLike) -> int:
    """Return how many binary digits a dtype keeps after the leading one."""
    info: Any = jnp.finfo
    return int(info(dtype).nmant)


def kind_of(dtype: DTypeLike) -> str:
    """Return the kind of leaf that an array of this dtype is."""
    names = {"complex": np.complexfloating, "real": np.floating, "boolean": np.bool_}
    names |= {"integer": np.integer, "key": jax.dtypes.extended}
    return next((n for n, kind in names.items() if jnp.issubdtype(dtype, kind)), "static")


def flatten(inputs: tuple[Tree, ...], names: tuple[str, ...]) -> tuple[list[Any], list[Leaf], Any]:
    """Flatten positional inputs into values, their leaves and the tree; `None` is a leaf here.

    A Python number is traced only as a whole positional input: inside a container it is a setting
    (`{"eps": 1e-5}`), and an integer is one everywhere (an axis, a stride).
    """
    pairs, tree = jax.tree_util.tree_flatten_with_path(inputs, is_leaf=lambda x: x is None)
    values, leaves = [], []
    for keys, value in pairs:
        position = keys[0].idx
        path = names[position] + jax.tree_util.keystr(keys[1:])
        values.append(value)
        leaves.append(_leaf(path, position, value, whole=len(keys) == 1))
    return values, leaves, tree


def _leaf(path: str, position: int, value: Tree, whole: bool) -> Leaf:
    if value is None:
        return Leaf(path, position, "none")
    if isinstance(value, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct):
        return Leaf(path, position, kind_of(value.dtype), np.shape(value), value.dtype)
    if whole and isinstance(value, float | complex) and not isinstance(value, bool):
        kind = "real" if isinstance(value, float) else "complex"
        return Leaf(path, position, kind, (), np.asarray(value).dtype)
    return Leaf(path, position, "static")
