"""Points that gradlab made, where the user's function may refuse to run: they are dropped."""

from collections.abc import Callable
from typing import TypeVar

import jax

from gradlab.tracing.callbacks import Refused, run_callbacks

__all__ = ["Dropped"]

T = TypeVar("T")


class Dropped:
    """The reasons for which points were dropped, without repeats.

    Example:
        >>> dropped = Dropped("f")
        >>> print(dropped.attempt(lambda: [1.0][1], python=True))
        None
        >>> print(dropped.notes[0])
        f raises IndexError: list index out of range at an input that gradlab made; it was left out
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._reasons: dict[str, None] = {}

    def attempt(self, compute: Callable[[], T], python: bool = False) -> T | None:
        """Return what `compute` returns; None where the user's code raises.

        Args:
            compute: runs a compiled program, in which callbacks may raise, or the user's Python.
            python: which of both it is.

        Raises:
            jax.errors.JaxRuntimeError: there is not enough memory, which no point is to blame for.
        """
        try:
            return run_callbacks(compute)
        except Refused as refused:
            self._reasons[str(refused)] = None
        except jax.errors.JaxRuntimeError:
            raise
        except Exception as error:  # whatever the user's code raises
            if not python:
                raise
            text = str(error).partition("\n")[0]
            self._reasons[f"{type(error).__name__}: {text}"] = None
        return None

    @property
    def notes(self) -> tuple[str, ...]:
        """What was dropped, in words."""
        where = "at an input that gradlab made; it was left out"
        return tuple(f"{self._name} raises {reason} {where}" for reason in self._reasons)
