"""Compile once: programs that are the same share one executable in this process.

Compiling is most of a check's time, and one layer is checked again and again: under Hypothesis,
for further samples, in the next parametrised test. A lowered program's text holds all that the
executable depends on, constants included, so that equal text is equal meaning. Lowering costs too:
what has a key of its own is not even lowered again.
"""

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np

from gradlab.common.arrays import Function, Tree

T = TypeVar("T")

_KEPT = {"executable": 256, "other": 512}  # what XLA made takes megabytes
_LONGEST = 1 << 20  # characters; longer texts hold large constants and are rarely met twice
_SETTINGS = (
    *("jax_enable_x64", "jax_default_device", "jax_default_matmul_precision"),
    *("jax_threefry_partitionable", "jax_default_prng_impl"),
)
_stores: dict[str, OrderedDict[Hashable, Any]] = {kind: OrderedDict() for kind in _KEPT}
_lock = threading.Lock()


def remember(
    key: Hashable | None,
    make: Callable[[], T],
    keeps: Callable[[T], bool] = lambda made: True,
    store: str = "other",
) -> T:
    """Return what `make` returned for this key under JAX's present settings; None: make it anew.

    `keeps` says whether what was made is worth remembering, `store` what it is.
    """
    if key is None:
        return make()
    known = _stores[store]
    full = (key, *(str(getattr(jax.config, name, None)) for name in _SETTINGS))
    with _lock:
        if full in known:
            known.move_to_end(full)
            found: T = known[full]
            return found
    made = make()
    if not keeps(made):
        return made
    with _lock:
        known[full] = made
        if len(known) > _KEPT[store]:
            known.popitem(last=False)
    return made


def compile_once(
    function: Function,
    *arguments: Tree,
    options: Mapping[str, Any] | None = None,
    donate: tuple[int, ...] = (),
) -> Function:
    """Return `function` compiled for arguments like these, from memory where it was met before."""
    # Unused arguments are kept: where they were dropped, equal texts could take different ones.
    chosen = dict(options) if options else None
    jitted = jax.jit(function, keep_unused=True, compiler_options=chosen, donate_argnums=donate)
    lowered = jitted.lower(*arguments)
    text = lowered.as_text()
    trees = (str(lowered.in_tree), str(lowered.out_tree))
    key = (text, *trees, str(chosen), donate) if len(text) <= _LONGEST else None
    return remember(key, lambda: _compiled(lowered), store="executable")


def _compiled(lowered: jax.stages.Lowered) -> Function:
    """Compile; what XLA's emitter of loops fails at is left to the one that it had before."""
    try:
        return lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        try:
            return lowered.compile(compiler_options={"xla_cpu_use_fusion_emitters": False})
        except jax.errors.JaxRuntimeError:
            raise error from None


@functools.cache
def quickest() -> Mapping[str, Any]:
    """Return the options with which this jaxlib compiles soonest for the CPU.

    Up to 0.10 it still has the emitter of loops that takes a third of the time of its successor.
    """
    level: dict[str, Any] = {"xla_backend_optimization_level": 0}
    return level | _accepted("xla_cpu_use_fusion_emitters", False)


@functools.cache
def steady() -> Mapping[str, Any]:
    """Return the options with which this jaxlib computes large products at their usual speed.

    0.10.2 fuses a matrix product with the sum that follows, which takes 14 times as long. With
    these options it computes each product, and each convolution, by itself.
    """
    option = "xla_cpu_experimental_ynn_fusion_type"
    kinds = "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT", "LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"
    return _accepted(option, ",".join(kinds))


def _accepted(option: str, value: Any) -> dict[str, Any]:
    """Return an option of the compiler as a dict, empty where this jaxlib does not have it."""
    options = {option: value}
    try:
        jax.jit(lambda x: x, compiler_options=options).lower(np.float32(0.0)).compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return options
