"""JAX, loaded when a reference is first evaluated and not before: nodes run on NumPy alone."""

import importlib
from typing import Any


class _Lazy:
    """A module that is imported at the first use of one of its names."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)


jax: Any = _Lazy("jax")
jnp: Any = _Lazy("jax.numpy")
jsp: Any = _Lazy("jax.scipy")
