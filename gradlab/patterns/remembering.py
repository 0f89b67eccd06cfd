"""Remembering what depends on shapes alone: a cache by arguments, in which lists are tuples."""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, ParamSpec, TypeVar

__all__ = ["remembered"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


def remembered(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Remember results by arguments; lists of integers are taken for tuples."""
    cached: Callable[..., _R] = lru_cache(maxsize=4096)(function)

    def frozen(value: Any) -> Any:
        return tuple(map(frozen, value)) if isinstance(value, list | tuple) else value

    @wraps(function)
    def remembering(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        return cached(*map(frozen, args), **{k: frozen(v) for k, v in kwargs.items()})

    return remembering
