"""How far long work has come: those who work tell it, and whoever wants to show it listens.

The rooms that work know no terminal: they loop over `tracked(items, ...)`, which costs nothing
while nobody listens. Loops inside loops are stages of one whole, whose share is told.
"""

import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeVar

Item = TypeVar("Item")
Listener = Callable[[float, str], None]


@dataclass
class _Work:
    """The stages that are under way, outermost first: what is done now, as which of how many."""

    listener: Listener
    stages: list[tuple[str, int, int]] = field(default_factory=list)
    step: str = ""
    spent: dict[str, float] = field(default_factory=dict)
    since: float = field(default_factory=time.process_time)

    def mark(self) -> None:
        """Enter the CPU time that went by under the innermost stage."""
        now, doing = time.process_time(), self.step or (self.stages or [("the rest", 0, 0)])[-1][0]
        self.spent[doing] = self.spent.get(doing, 0.0) + now - self.since
        self.since = now

    def tell(self) -> None:
        share = 0.0
        for _, done, total in reversed(self.stages):
            share = (done + share) / total
        self.listener(share, ", ".join(doing for doing, _, _ in self.stages if doing))


_work: ContextVar[_Work | None] = ContextVar("gradlab_work", default=None)


def tracked(
    items: Iterable[Item], doing: Callable[[Item], str], total: int | None = None
) -> Iterator[Item]:
    """Yield the items, and tell before each one what is done now and what share is done.

    `total`: how many items there are, where `items` has no length.
    """
    work = _work.get()
    if work is None:
        yield from items
        return
    number = total or (len(items) if isinstance(items, Collection) else 1)
    depth = len(work.stages)
    try:
        for done, item in enumerate(items):
            work.mark()
            work.stages[depth:] = [(doing(item), min(done, number), number)]
            work.tell()
            yield item
    finally:
        work.mark()
        del work.stages[depth:]


@contextlib.contextmanager
def step(doing: str) -> Iterator[None]:
    """Enter the CPU time that is spent inside under a name of its own."""
    work = _work.get()
    if work is None:  # reading the clock is slow on some machines
        yield
        return
    work.mark()
    work.step = doing
    try:
        yield
    finally:
        work.mark()
        work.step = ""


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[dict[str, float]]:
    """Call `listener` with the share that is done, and what is done now, as work goes on inside.

    What is entered is a dict that holds, once the work is done, the CPU seconds of each step.
    """
    work = _Work(listener)
    token = _work.set(work)
    try:
        yield work.spent
    finally:
        work.mark()
        _work.reset(token)
