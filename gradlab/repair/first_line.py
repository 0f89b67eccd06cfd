"""The first wrong line of a long backward.

The gradient with respect to every value of the forward, and to every use of it, is known. Where a
line of the backward is given one of them in the place of what it computed, and more gradients are
right at the end, that line is wrong. The first one on the way back that is so is the mistake.
"""

import ast
import itertools
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

_Healed = tuple[int, int, Array]  # how much more is right, how many gradients, with which value
_NAMESAKES = 2  # values of a forward's local that are tried
_LIKELY = 12  # right gradients that are tried in the place of a value
_BESIDE = 6  # and of those that belong beside the last right one
_NEAR = 1e-7
_SHORT = 70  # characters of a line that is shown
_TURNS = 4  # values in loops, of which one turn may be the first wrong one
_PASSES = 12  # turns of a loop, at each of which a right value is put
_LATE = 40  # values before one that is wrong at a later turn, of which those of its shape may be
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
        if not self.mended:
            seen = "with the right value there, more of what follows is right"
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
            sure = Known([*known.values, *known.gradients])
            found = _First(watch, right, known.gradients, sure, expected).found()
            # a share of a gradient may lack the other shares
            totals = Known([*known.values, *(g for _, g in known.whole), *expected])
    except Failed:
        return None
    if found is None:
        return None
    event, (_, mended, _), again = watch.events[found[0]], *found[1:]
    near, turn = set(feeders(watch, found[0], totals)), watch.wrong_turn(found[0], sure)
    if watch.is_given_wrong(found[0], near, totals):
        return None
    if mended and again:  # what runs once made one turn wrong, not the others
        every = range(len(watch.events))
        looped = {watch.place(k)[1] for k in every if watch.is_looped(k)}
        near = {event.statement, *(near & looped)}
    place = (event.code, texts[event.code], event.line, event.statement, frozenset(near))
    return WrongLine(*place, event.part, mended, turn=turn)


def _unlike(
    watch: "Watch",
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
        self,
        watch: "Watch",
        right: Callable[[list[Any]], Sequence[bool]],
        known: Sequence[Array],
        sure: "Known",
        expected: Sequence[Array],
    ) -> None:
        self._watch, self._right, self._sure, self._expected = watch, right, sure, expected
        self._before = right(watch.came)
        self._wrong = {i for i, ok in enumerate(self._before) if not ok}
        self._values = [event.value for event in watch.events]
        self._matched = [sure.holds(value) for value in self._values]
        computed = Known(self._values)
        self._lacking = [(k, each) for k, each in enumerate(known) if not computed.holds(each)]
        own, beside = Known(known), 0
        self._beside = [beside := own.find(value, beside) for value in self._values]
        self._entries = self._right_entries(watch.came)
        turns = (e for e, ok in enumerate(self._matched) if not ok and watch.is_looped(e))
        self._turns = set(itertools.islice(turns, _TURNS))

    def found(self) -> tuple[int, _Healed, bool] | None:
        """Return the number of the first wrong event, and what its right value does.

        The last one says whether right values were put at each turn of a loop.
        """
        every, values, matched = range(len(self._values)), self._values, self._matched
        reach = {e: self._reached(e) for e in every if not matched[e]}
        again = [e for e in every if self._watch.passes_on(e)]
        for whole in (True, False):
            for e in again if not whole else ():  # passed on, where something was to be done
                if (mended := self._healed(e))[0]:
                    return e, mended, False
            for e in every:
                reaches = not matched[e] and (
                    reach[e] >= self._wrong if whole else reach[e] & self._wrong
                )
                mended = self._healed(e) if reaches else (0, 0, values[e])
                if not mended[0]:
                    continue
                late, shape, since = self._watch.turn(e), values[e].shape, e
                before = range(e - 1, max(-1, e - 1 - (_LATE if late else _BACK)), -1)
                # what a later turn is given was made in the turn before
                for earlier in (k for k in before if not late or values[k].shape == shape):
                    same = equal(values[earlier], values[e])  # the later one only passes it on
                    same &= self._watch.events[e].part is None  # but for what a helper returned
                    nothing = same or not values[earlier].any()
                    self._turns |= set() if mended[1] else {earlier}
                    also = matched[earlier] and not nothing and self._healed(earlier, since)
                    passed = equal(values[earlier], values[e])
                    if also and also[0] >= mended[0] + (not passed):
                        e, mended = earlier, also
                turns = not mended[1]
                return e, self._at_each_turn(e, mended) if turns else mended, turns
        for e in every:  # each value is some right gradient, but one stands in another's place
            if matched[e] and np.any(values[e]) and (mended := self._healed(e))[0]:
                return e, mended, False
        return None

    def _healed(self, e: int, since: int = -1) -> _Healed:
        """Return what the likeliest right value at an event makes right, and that value.

        In a loop, the other turns stay wrong: there it is enough if more of what follows is right,
        `since` another event.
        """
        most: _Healed = (0, 0, self._values[e])
        looped = self._watch.is_looped(e) and e in self._turns
        for each in self._candidates(e, self._values[e]):
            came = self._watch.tried({e: each}, looped)
            now = self._right(came)
            if any(was and not is_ for was, is_ in zip(self._before, now)):
                continue
            more = sum(now) - sum(self._before)
            score = more + (self._follows(max(e, since), came) if looped else 0)
            most = (score, more, each) if score > most[0] else most
            if more == len(self._wrong):
                break
        return most

    def _candidates(self, e: int, value: Array) -> list[Array]:
        """Return what could stand for a value, in its shape: as it is, then with its axes turned.

        First what is most like it; then what belongs beside the right gradient that came last.
        """

        def likeness(each: Array) -> float:
            return -abs(float(np.vdot(each, value))) / float(np.linalg.norm(each))

        ways = [(k, list(turned(each, value.shape))) for k, each in self._lacking]
        plain = [(k, each[0]) for k, each in ways if each]
        others = sorted((way for _, each in ways for way in each[1:]), key=likeness)
        beside = sorted(plain, key=lambda pair: abs(pair[0] - self._beside[e]))[:_BESIDE]
        best = sorted(plain, key=lambda pair: likeness(pair[1]))[:_LIKELY]
        return [*dict([*best, *beside]).values(), *others[: _LIKELY // 3]]

    def _at_each_turn(self, e: int, first: _Healed) -> _Healed:
        """Return what is right with right values at this turn of a loop and at all that follow."""
        watch, put = self._watch, {e: first[2]}
        turns = [k for k in range(e + 1, len(self._values)) if watch.place(k) == watch.place(e)]
        for k in turns if len(turns) < _PASSES else ():
            most, best = -1, None
            for each in [None, *self._candidates(k, watch.values_with(put)[k])]:
                values = watch.values_with(put if each is None else put | {k: each})
                more = sum(map(self._sure.holds, values[k + 1 :]))
                most, best = (more, each) if more > most else (most, best)
            put |= {k: best} if best is not None else {}
        now = self._right(watch.tried(put))
        lost = any(was and not is_ for was, is_ in zip(self._before, now))
        return first[0], 0 if lost else sum(now) - sum(self._before), first[2]

    def _follows(self, e: int, came: Sequence[Any]) -> int:
        """Return how much more is right after an event, where nothing right becomes wrong."""
        there = self._watch.noted
        if len(there) != len(self._values):
            return 0
        now = [self._sure.holds(value) for value in there[e + 1 :]]
        if any(was and not is_ for was, is_ in zip(self._matched[e + 1 :], now)):
            return 0
        entries = zip(self._entries, self._right_entries(came))
        more = sum(now) - sum(self._matched[e + 1 :])
        return more + sum(int(after.sum() > was.sum()) for was, after in entries)

    def _right_entries(self, came: Sequence[Any]) -> list[Array]:
        pairs = zip(came, self._expected)
        return [
            np.abs(c - e) <= _NEAR * np.abs(e) if np.shape(c) == np.shape(e) else np.zeros(1)
            for c, e in pairs
        ]

    def _reached(self, e: int) -> set[int]:
        value = self._values[e]
        moved = value + np.cos(1.0 + np.arange(value.size)).reshape(value.shape) * np.std(value)
        came = self._watch.tried({e: moved})
        return {i for i, (a, b) in enumerate(zip(came, self._watch.came)) if not equal(a, b)}
