"""Points that gradlab made, where the user's function may refuse to run: they are dropped."""

import logging
import re
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np

__all__ = ["Dropped"]

T = TypeVar("T")

_CALLBACKS = logging.getLogger("jax._src.callback")  # it logs every error that it hands on, too
_ERROR = re.compile(r"^(?:\w+\.)*(\w+): +(\S.*)", re.MULTILINE)


class Dropped:
    """The reasons for which points were dropped, without repeats.

    Example:
        >>> dropped = Dropped("f")
        >>> print(dropped.attempt(lambda: [1.0][1]))
        None
        >>> print(dropped.notes[0])
        f raises IndexError: list index out of range at an input that gradlab made; it was left out
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._reasons: dict[str, None] = {}

    def attempt(self, compute: Callable[[], T]) -> T | None:
        """Return what `compute` returns; None where the user's code, or a callback of it, raises.

        Raises:
            jax.errors.JaxRuntimeError: there is not enough memory, which no point is to blame for.
        """
        _CALLBACKS.addFilter(_unheard)
        try:
            return compute()
        except jax.errors.JaxRuntimeError as error:
            if str(error).startswith("RESOURCE_EXHAUSTED"):
                raise
            _renew_token()
            found = _ERROR.findall(str(error).rpartition('  File "')[2])
            self._reasons[": ".join(found[0]) if found else "an error"] = None
        except Exception as error:  # whatever the user's code raises
            text = str(error).partition("\n")[0]
            self._reasons[f"{type(error).__name__}: {text}"] = None
        finally:
            _CALLBACKS.removeFilter(_unheard)
        return None

    @property
    def notes(self) -> tuple[str, ...]:
        """What was dropped, in words."""
        where = "at an input that gradlab made; it was left out"
        return tuple(f"{self._name} raises {reason} {where}" for reason in self._reasons)


def _renew_token() -> None:
    """Make JAX forget the call that failed: it would raise again when the process ends."""
    jax.jit(lambda x: jax.debug.callback(_ignore, x))(np.float32(0.0))


def _ignore(_: Any) -> None:
    return None


def _unheard(_: logging.LogRecord) -> bool:
    return False
