"""The first wrong line of a long backward.

The gradient with respect to every value of the forward, and to every use of it, is known. Where a
line of the backward is given one of them in the place of what it computed, and more gradients are
right at the end, that line is wrong. The first one on the way back that is so is the mistake.
"""

import ast
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any

import numpy as np

from gradlab.common.arrays import NumPyArray as Array
from gradlab.formatting import count
from gradlab.repair.source import Text
from gradlab.repair.watch import Watch, feeders, names_in
from gradlab.repair.within import Known, Within, equal, turned
from gradlab.repair.world import Failed, World

_NAMESAKES = 2  # values of a forward's local that are tried
_LIKELY = 12  # right gradients that are tried in the place of a value
_BESIDE = 6  # and of those that belong beside the last right one
_LOOPED = 3  # of these, with others at each turn of a loop
_SHORT = 70  # characters of a line that is shown
_PASSES = 12  # turns of a loop, at each of which a right value is put
_BACK = 8  # values before a wrong one that may be another's right gradient


@dataclass(frozen=True)
class WrongLine:
    """A line of the backward whose value is wrong.

    Attributes:
        text: of the function.
        line: in its file.
        statement: its index in the text.
        near: the statements that it is made from, whose values nothing confirms.
        part: which of several values the statement makes; None where it makes one.
        mended: how many more gradients are right with the right value there.
        named: the forward's local whose value the line should have; "" where it is a gradient.
        turn: of a loop, the first one at which the value is wrong, from 1; 0 where it always is.
    """

    code: CodeType
    text: Text
    line: int
    statement: int
    near: frozenset[int]
    part: int | None
    mended: int
    named: str = ""
    turn: int = 0

    @property
    def whole(self) -> bool:
        """Whether all that the line reads is right."""
        return self.near == {self.statement} and not self.turn

    @property
    def place(self) -> str:
        """The line as `layers.py:12`."""
        return f"{os.path.basename(self.text.path)}:{self.line}"

    @property
    def told(self) -> str:
        """What was seen, in one sentence."""
        more, are = count(self.mended, "more gradient"), "is" if self.mended == 1 else "are"
        seen = f"with the right value there, {more} {are} right"
        if self.named:
            told = f"`{self.named}` at {self.place} is not what it is in the forward: "
            return told + f"with that value, {more} {are} right"
        if self.turn:
            node = self.text.statements[self.statement]
            name = next((f"`{n}`" for n in names_in(node, ast.Store)), "the value")
            told = f"{name} at {self.place} is right at turn {self.turn - 1} of the loop and wrong "
            return (
                f"{told}at turn {self.turn}: it lacks something, or what it reads was not updated"
            )
        if not self.whole:
            places = (self.text.span(self.text.statements[k])[0] for k in self.near)
            lines = sorted({self.text.line_of(start) for start in places} - {self.line})
            return (
                f"the mistake is at {self.place} or at line {' or '.join(map(str, lines))}: {seen}"
            )
        told = f"{self.place} is the first wrong line: {seen}"
        node = self.text.statements[self.statement]
        if isinstance(node, ast.Return) and self.part is None:
            return told
        written = " ".join(self.text.of(node).split())
        return f"{told}: `{written}`" if len(written) <= _SHORT else told


def first_wrong_line(
    world: World,
    texts: dict[CodeType, Text],
    run: Callable[[], list[Any]],
    right: Callable[[list[Any]], Sequence[bool]],
    known: Within,
    expected: Sequence[Array],
    named: Mapping[str, Sequence[Array]] | None = None,
    *,
    most: int,
) -> WrongLine | None:
    """Return the first line whose value is wrong; None where that cannot be told.

    Args:
        world: in which the backward runs.
        texts: of the functions that run in it.
        run: gives the gradients.
        right: says which gradients are right.
        known: what is computed within the forward, and the right gradients there.
        expected: the right gradients.
        named: the forward's locals, where those of the backward are held against them.
        most: how often the backward may run.
    """
    watch = Watch(world, texts, run, most)
    try:
        with watch:
            if line := _unlike(watch, right, named or {}):
                return line
            found = _First(watch, right, known).found()
    except Failed:
        return None
    # a share of a gradient may lack the other shares
    totals = Known([*known.values, *(g for _, g in known.whole), *expected])
    if found is None:
        return None
    e, mended = found
    event, near = watch.events[e], frozenset(feeders(watch, e, totals))
    if watch.is_given_wrong(e, near, totals):
        return None
    place = (event.code, texts[event.code], event.line, event.statement, near)
    return WrongLine(*place, event.part, mended, turn=watch.turn(e))


def _unlike(
    watch: Watch,
    right: Callable[[list[Any]], Sequence[bool]],
    named: Mapping[str, Sequence[Array]],
) -> WrongLine | None:
    """Return the line of a local that should be as the forward's one of its name, and is not."""
    before = right(watch.came)
    for e, event in enumerate(watch.events):
        text, name = watch.texts[event.code], watch.target(event)
        values = [v for v in named.get(name, ()) if v.shape == event.value.shape]
        if any(equal(v, event.value) for v in values):
            continue
        for value in values[:_NAMESAKES]:
            now = right(watch.tried({e: value}))
            more = sum(now) - sum(before)
            if more > 0 and all(is_ or not was for was, is_ in zip(before, now)):
                near = frozenset((event.statement,))
                place = (event.code, text, event.line, event.statement, near)
                return WrongLine(*place, event.part, more, name)
    return None


class _First:
    """Finds the first event whose value is wrong, among those that the backward computed."""

    def __init__(
        self, watch: Watch, right: Callable[[list[Any]], Sequence[bool]], known: Within
    ) -> None:
        self._watch, self._right, self._before = watch, right, right(watch.came)
        self._values = [event.value for event in watch.events]
        self._sure = Known([*known.values, *known.gradients])
        computed, own, last = Known(self._values), Known(known.gradients), 0
        self._lacking = [(k, g) for k, g in enumerate(own.arrays) if not computed.holds(g)]
        self._beside = [last := own.find(value, last) for value in self._values]

    def found(self) -> tuple[int, int] | None:
        """Return the number of the event, and how many more gradients its right value mends."""
        for e, value in enumerate(self._values):
            if self._sure.holds(value) and not self._watch.passes_on(e):
                continue
            if most := self._mended(e):
                # one before it may be some right gradient, in another's place
                for k in range(max(0, e - _BACK), e):
                    mended = self._mended(k) if self._values[k].any() else 0
                    e, most = (k, mended) if mended > most else (e, most)
                return e, most
        return None

    def _mended(self, e: int) -> int:
        """Return how many more gradients are right with a right value at an event.

        Where its place is passed again, they may need right values at each turn.
        """
        place, likely = self._watch.place(e), self._likely(e, self._values[e])
        most = max((self._gained({e: value}) for value in likely), default=0)
        turns = [k for k in range(e + 1, len(self._values)) if self._watch.place(k) == place]
        for value in likely[:_LOOPED] if 0 < len(turns) < _PASSES and not most else ():
            put = {e: value}
            for k in turns:
                now = self._watch.values_with(put)[k]
                if not self._sure.holds(now):
                    put[k] = self._likely(k, now)[0]
            most = max(most, self._gained(put))
        return most

    def _gained(self, put: dict[int, Array]) -> int:
        """Return how many more gradients are right with other values; 0 where one is lost."""
        right = self._right(self._watch.tried(put))
        lost = any(was and not now for was, now in zip(self._before, right))
        return 0 if lost else sum(right) - sum(self._before)

    def _likely(self, e: int, value: Array) -> list[Array]:
        """Return right gradients that nothing computes, in the shape of a value.

        First what is most like it; then what belongs beside the right gradient that came last, then
        those with their axes in another order.
        """

        def likeness(way: Array) -> float:
            return -abs(float(np.vdot(way, value))) / float(np.linalg.norm(way))

        ways = [(k, list(turned(each, value.shape))) for k, each in self._lacking]
        plain = [(k, each[0]) for k, each in ways if each]
        others = sorted((way for _, each in ways for way in each[1:]), key=likeness)
        best = sorted(plain, key=lambda pair: likeness(pair[1]))[:_LIKELY]
        beside = sorted(plain, key=lambda pair: abs(pair[0] - self._beside[e]))[:_BESIDE]
        return [*(way for _, way in (*best, *beside)), *others[: _LIKELY // 3]]
