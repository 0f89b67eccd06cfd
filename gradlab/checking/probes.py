"""Runs of the user's function that gradlab wants: how many there may be, and which are dropped."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import jax

from gradlab.tracing.callbacks import (
    NoCallLeft,
    Refused,
    host_calls,
    host_calls_limited,
    run_callbacks,
)

T = TypeVar("T")

_LAST = 16  # calls that are kept for what must run


class Spent(Exception):
    """No further call of what cannot be read is allowed."""


@dataclass
class Calls:
    """How often code that cannot be read was called, and how often it may be.

    `own`: calls of a forward in NumPy. Those of the host out of programs are counted where they are
    made; `each`: how many of these one run of the forward makes.
    """

    allowed: float = math.inf
    own: int = 0
    each: int = 1
    before: int = field(default_factory=host_calls)
    refused: bool = False

    @classmethod
    def for_entries(cls, count: int) -> "Calls":
        """Return what is allowed for so many entries of the inputs."""
        return cls(min(2 * count + 200, 2000))

    def renew(self) -> None:
        """Allow as many again, for the same inputs in another dtype."""
        self.own, self.before = 0, host_calls()

    @property
    def made(self) -> int:
        """How many calls were made."""
        return self.own + (host_calls() - self.before) // self.each

    def grants(self, count: int) -> bool:
        """Return whether so many calls may be made, with some left for later."""
        granted = self.made + count + _LAST <= self.allowed
        self.refused |= not granted
        return granted

    def require(self, count: int) -> None:
        """Raise `Spent` unless so many calls may be made."""
        if not self.grants(count):
            raise Spent

    def spend(self, count: int) -> None:
        """Count calls that are made of programs as they are; raise `Spent` where they may not."""
        if count:
            self.require(count)
            self.own += count

    def share(self, wanted: int, each: int, later: int = _LAST) -> int:
        """Return for how many of the entries that are wanted there are calls, some for each."""
        left = max(self.allowed - self.made - later - 2, 0) // each
        self.refused |= left < wanted
        return int(min(left, wanted))

    def limited(self, compute: Callable[[], T]) -> T | None:
        """Return what `compute` returns; None where programs would call more than may be."""
        try:
            with host_calls_limited(max(self.allowed - self.made, 0) * self.each):
                return compute()
        except NoCallLeft:
            self.refused = True
            return None

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left undone, in words."""
        if not self.refused:
            return ()
        text = f"gradlab cannot read the forward, so it calls it at most {self.allowed:.0f} times"
        return (f"{text}; pass smaller inputs to have every entry judged",)


class Dropped:
    """The reasons for which points were dropped, without repeats."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._reasons: dict[str, None] = {}

    def attempt(self, compute: Callable[[], T], python: bool = False) -> T | None:
        """Return what `compute` returns; None where the user's code raises, Python if `python`."""
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
