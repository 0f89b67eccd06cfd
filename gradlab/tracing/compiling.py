"""Compile once: programs that lower to the same text share one executable in this process.

Compiling is most of a check's time, and one layer is checked again and again: under Hypothesis,
for further samples, in the next parametrised test. A lowered program's text holds all that the
executable depends on, constants included, so that equal text is equal meaning.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import jax

__all__ = ["compile_once"]

_KEPT = 256
_LONGEST = 1 << 20  # characters; longer texts hold large constants and are rarely met twice
_executables: OrderedDict[Any, Any] = OrderedDict()
_lock = threading.Lock()


def compile_once(
    function: Callable[..., Any], *arguments: Any, options: Mapping[str, Any] | None = None
) -> Callable[..., Any]:
    """Return `function` compiled for arguments like these, from memory where it was met before.

    Args:
        function: what to compile; it is traced at each call of `compile_once`.
        *arguments: pytrees of arrays; later calls must have their structure, shapes and dtypes.
        options: XLA's compiler options.

    Example:
        >>> import numpy as np
        >>> double = compile_once(lambda x: 2.0 * x, np.ones(3, np.float32))
        >>> again = compile_once(lambda y: 2.0 * y, np.ones(3, np.float32))
        >>> again is double
        True
    """
    # Unused arguments are kept: where they were dropped, equal texts could take different ones.
    chosen = dict(options) if options else None
    lowered = jax.jit(function, keep_unused=True, compiler_options=chosen).lower(*arguments)
    text = lowered.as_text()
    if len(text) > _LONGEST:
        return lowered.compile()
    devices = str(jax.config.jax_default_device)  # type: ignore[attr-defined]
    key = (text, str(lowered.in_tree), str(lowered.out_tree), devices, str(chosen))
    with _lock:
        if key in _executables:
            _executables.move_to_end(key)
            return _executables[key]  # type: ignore[no-any-return]
    compiled = lowered.compile()
    with _lock:
        _executables[key] = compiled
        if len(_executables) > _KEPT:
            _executables.popitem(last=False)
    return compiled
