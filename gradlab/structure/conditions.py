"""Conditions: what has to hold so that a finite mask hides what it covers, and whether it does.

A mask of finfo.min hides an entry only while the real scores are far above it, and while its row
keeps one of them. `ranges` finds how far; a caller accepts such conditions, or nobody does.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradlab.common.arrays import Array
from gradlab.errors import InputError, InputTypeError
from gradlab.formatting import at_most
from gradlab.patterns import Pattern
from gradlab.primitives.ranges import Kind, Need
from gradlab.tracing.jaxprs import Literal, Loop, bind, body
from gradlab.tracing.linearise import call_body

_KINDS: tuple[Kind, ...] = ("magnitude", "nonempty", "finite")


@dataclass(frozen=True)
class Condition:
    """What has to hold of the values, so that an entry is zero.

    Attributes:
        kind: "magnitude": no value is larger than `bound`; "nonempty": a mask leaves each row an
            entry, those rows aside that the program hides whole; "finite": no value is infinite.
        bound: of a magnitude, the largest that is small enough; else None.
        what: the values.
        source: the line at which they are, such as "attention.py:41".
        accepted: whether whoever asked accepts it.
    """

    kind: Kind
    bound: float | None
    what: str
    source: str
    accepted: bool = False

    @classmethod
    def of(cls, need: Need, bound: float) -> "Condition":
        """Return a condition with its number."""
        return cls(need.kind, bound if need.kind == "magnitude" else None, need.what, need.source)

    @property
    def need(self) -> Need:
        """The condition but for its number."""
        return Need(self.kind, self.what, self.source)

    def __str__(self) -> str:
        at = f" at {self.source}" if self.source else ""
        if self.kind == "magnitude":
            values, _, place = self.what.partition(" ")
            return f"|{values}| <= {at_most(self.bound or 0.0)}{at}, {place}"
        if self.kind == "nonempty":
            return f"each of the {self.what}, keeps an entry{at}"
        return f"{self.what} are finite{at}"


Accept = Callable[[Condition], bool]


def refuse(condition: Condition) -> bool:
    """Accept nothing."""
    return False


def accepting(conditions: Any) -> Accept:
    """Return which conditions a caller accepts.

    Args:
        conditions: a bound on the values that masks are laid over, "nonempty", "finite",
            `Condition`s, or several of these.

    Raises:
        InputError, InputTypeError: it is none of them.
    """
    several = conditions if isinstance(conditions, tuple | list) else (conditions,)
    bounds = [math.inf]
    kinds: set[str] = set()
    named: dict[Need, float] = {}
    for one in several:
        if isinstance(one, Condition):
            named[one.need] = one.bound or 0.0
        elif isinstance(one, str):
            if one not in _KINDS[1:]:
                raise InputError(
                    f"conditions: {one!r} is not known; give a bound such as 1e6, 'nonempty' or "
                    "'finite'"
                )
            kinds.add(one)
        elif isinstance(one, int | float) and not isinstance(one, bool):
            if not one >= 0:
                raise InputError(f"conditions: a bound is at least 0, got {one}")
            bounds.append(float(one))
        elif one is not None:
            raise InputTypeError(
                "conditions: expected a bound, 'nonempty', 'finite' or Conditions, got "
                f"{type(one).__name__}"
            )

    def accept(condition: Condition) -> bool:
        if condition.kind != "magnitude":
            return condition.kind in kinds or condition.need in named
        granted = min(min(bounds), named.get(condition.need, math.inf))
        return condition.bound is not None and granted <= condition.bound

    return accept


def suggested(conditions: Sequence[Condition]) -> str:
    """Return the argument that accepts conditions."""
    words = [repr(kind) for kind in _KINDS[1:] if any(c.kind == kind for c in conditions)]
    bounds = [c.bound for c in conditions if c.bound is not None]
    if bounds:
        least = min(bounds)
        words.append("1e6" if least >= 1e6 else at_most(least, 2))
    return words[0] if len(words) == 1 else f"({', '.join(words)})"


class Watch(NamedTuple):
    """Where a condition is looked at.

    Attributes:
        equation: of the program of the derivative.
        operand: of it.
        level: nonempty: a row that keeps an entry has a maximum above it.
        besides: nonempty: rows of the result of which it is not asked; None: a magnitude.
    """

    equation: Any
    operand: int
    level: float
    besides: Pattern | None

    def violation(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> Any:
        """Return by what number a point is away: a magnitude, or how many rows are empty."""
        if self.besides is None:
            size = jnp.abs(inputs[self.operand]).astype(jnp.float32)
            return jnp.where(jnp.isnan(size), jnp.inf, size).max(initial=0.0)
        rows = outputs[0] if self.equation.primitive.name != "reduce_min" else -outputs[0]
        asked: Any = True
        if not self.besides.is_zero:
            asked = ~self.besides.to_dense().reshape(self.besides.output_shape)
        return jnp.sum(asked & ~(rows > self.level), dtype=jnp.float32)


def holding(
    jaxpr: Any,
    values: Sequence[Array],
    watched: Mapping[Need, Sequence[Watch]],
    conditions: Sequence[Condition],
) -> tuple[Any, ...]:
    """Return for each condition whether it holds where the program runs on these values."""
    places = {
        (id(watch.equation), n): watch
        for n, condition in enumerate(conditions)
        for watch in watched.get(condition.need, ())
    }
    by_equation: dict[int, list[tuple[int, Watch]]] = {}
    for (equation, n), watch in places.items():
        by_equation.setdefault(equation, []).append((n, watch))
    start = jnp.zeros(len(conditions), jnp.float32)
    _, worst = _observed(jaxpr, list(values), start, by_equation)
    return tuple(
        worst[n] <= (0 if c.bound is None else np.float32(c.bound))
        for n, c in enumerate(conditions)
    )


def _observed(
    jaxpr: Any, values: list[Array], worst: Any, watched: Mapping[int, Sequence[tuple[int, Watch]]]
) -> tuple[list[Any], Any]:
    """Run a program; return what it makes, and by how much conditions are violated at most."""
    parts = body(jaxpr)
    known: dict[Any, Any] = dict(zip(parts.constvars, parts.constants))
    known.update(zip(parts.invars, values, strict=True))

    def run(inner: Any, inputs: list[Array], worst: Any) -> tuple[list[Any], Any]:
        return _observed(inner, inputs, worst, watched)

    for equation in parts.equations:
        inputs = [a.val if isinstance(a, Literal) else known[a] for a in equation.invars]
        inner = call_body(equation)
        if inner is not None:
            outputs, worst = run(inner, inputs, worst)
        elif equation.primitive.name in _LOOPS:
            outputs, worst = _LOOPS[equation.primitive.name](equation, inputs, worst, run)
        else:
            outputs = bind(equation, inputs)
        for n, watch in watched.get(id(equation), ()):
            worst = worst.at[n].max(watch.violation(inputs, outputs))
        known.update(zip(equation.outvars, outputs, strict=True))
    return [a.val if isinstance(a, Literal) else known[a] for a in parts.outvars], worst


def _scan(equation: Any, inputs: list[Array], worst: Any, run: Any) -> tuple[list[Any], Any]:
    loop = Loop.of(equation)
    fixed, start, columns = loop.split(inputs)

    def step(state: Any, row: Any) -> tuple[Any, Any]:
        made, worst = run(loop.body, [*fixed, *state[0], *row], state[1])
        return (made[: loop.carried], worst), made[loop.carried :]

    length, reverse = equation.params["length"], equation.params["reverse"]
    (last, worst), stacked = jax.lax.scan(step, (start, worst), columns, length, reverse)
    return [*last, *stacked], worst


def _while(equation: Any, inputs: list[Array], worst: Any, run: Any) -> tuple[list[Any], Any]:
    loop = Loop.of(equation)
    fixed, start, _ = loop.split(inputs)
    tested = inputs[: loop.tested]
    made, worst = jax.lax.while_loop(
        lambda state: run(loop.condition, [*tested, *state[0]], state[1])[0][0],
        lambda state: run(loop.body, [*fixed, *state[0]], state[1]),
        (start, worst),
    )
    return made, worst


def _cond(equation: Any, inputs: list[Array], worst: Any, run: Any) -> tuple[list[Any], Any]:
    branches = [functools.partial(run, branch) for branch in equation.params["branches"]]
    made, worst = jax.lax.switch(jnp.asarray(inputs[0], jnp.int32), branches, inputs[1:], worst)
    return made, worst


_LOOPS = {"scan": _scan, "while": _while, "cond": _cond}
