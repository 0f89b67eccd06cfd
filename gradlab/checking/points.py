"""The forward in float64 at many points: rows of one pass in NumPy, or turns of a compiled loop."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradlab.checking.probes import Dropped
from gradlab.checking.subject import Arrays
from gradlab.checking.widen import widen
from gradlab.common.arrays import Array, NumPyArray
from gradlab.references import as_read, on_host, options_for
from gradlab.references.evaluation import pays_to_compile
from gradlab.references.interpreted import Interpreted
from gradlab.references.rounding import Exact
from gradlab.references.setting import Setting
from gradlab.tracing import Program, TooLong, Value, compile_once, remember, widen_dtype
from gradlab.tracing.leaves import is_inexact
from gradlab.tracing.work import work

_MOST = 64  # points that one run takes
_HELD = 1 << 20  # entries that the points of one run may have together
_SMALL = 1 << 12  # entries of a point up to which copying them costs less than compiling again


class Points:
    """A program lifted to float64, and evaluated at batches of points.

    Constants are those of the programs that it is compared with, to the last digit. What a point
    that is dropped would have given is NaN. `further`: for how many turns each `while` runs on.
    """

    def __init__(
        self, program: Program, companions: Iterable[Program], dropped: Dropped, further: int = 0
    ) -> None:
        self._program, self._dropped = program, dropped
        beside = {f"beside {i}": other for i, other in enumerate(companions)}
        setting = Setting({"forward": program, **beside}, {}, None, {})
        self._constants = setting.constants
        self._further = further
        compiles = pays_to_compile(work(program.jaxpr)) and not further
        self._numpy = None if compiles else Interpreted(setting, further)
        self._entries = sum(math.prod(aval.shape) for aval in program.in_avals)
        fit = _HELD // max(1, self._entries)
        self._rows = max(1, min(_MOST, fit) if compiles else fit)
        self._dtypes = {n: a.dtype for n, a in zip(program.in_names, program.in_avals)}
        self._inexact = [is_inexact(aval.dtype) for aval in program.out_avals]
        self._compiled: dict[Any, Callable[..., list[Any]]] = {}

    def __call__(self, values: Arrays, rows: Arrays) -> list[NumPyArray | None]:
        """Return the outputs, one row per point; None for those that are not inexact.

        `rows`: for the inputs that move, in float64, one row per point.
        """
        moved, count = self._moved(rows), len(next(iter(rows.values())))
        fixed = {n: value for n, value in self._as_read(values).items() if n not in moved}
        parts = []
        for start in range(0, count, self._rows):
            size = min(self._rows, count - start)
            part = {n: rows[n][start : start + size] for n in moved if n in rows}
            still = {n: widen(values[n])[None] for n in moved if n not in rows}
            filled = {n: self._filled(row, size) for n, row in {**part, **still}.items()}
            parts.append(self._tried(fixed, filled, size))
        outputs = map(np.concatenate, zip(*parts))
        return [next(outputs) if inexact else None for inexact in self._inexact]

    def line(
        self, values: dict[str, Array], direction: dict[str, Array], upstreams: Sequence[Array]
    ) -> Callable[[Sequence[float]], list[float]]:
        """Return Re <upstreams, outputs> as a function of several t, at `values + t * direction`.

        Everything stays where it is computed, in one loop: of large inputs that lie there already
        (`Evaluation.placed`) nothing is copied.
        """
        start = self._as_read(values)
        ways = {name: np.asarray(way) for name, way in direction.items()}

        def all_products(steps: Any, count: Any, start: Any, ways: Any, upstreams: Array) -> Any:
            def one(i: Any, products: Any) -> Any:
                moved = {n: start[n] + steps[i] * w.astype(start[n].dtype) for n, w in ways.items()}
                outputs = zip(upstreams, self._one({**start, **moved}), strict=True)
                return products.at[i].set(sum(jnp.sum(jnp.real(u * y)) for u, y in outputs))

            return lax.fori_loop(0, count, one, jnp.zeros_like(steps))

        if self._numpy is not None:
            return self._tried_alone(lambda steps: self._products(start, ways, upstreams, steps))
        none = np.zeros(_MOST), np.int64(0)
        with on_host():
            placed = [jax.device_put(each) for each in (start, ways, list(map(widen, upstreams)))]
            options = options_for(self._entries)
            run = compile_once(all_products, *none, *placed, options=options)

        def together(steps: Sequence[float]) -> list[float]:
            rows = np.pad(np.array(steps, np.float64), (0, _MOST - len(steps)))
            with on_host():
                found = run(rows, np.int64(len(steps)), *placed)
                return [float(product) for product in np.asarray(found)[: len(steps)]]

        return self._tried_alone(together)

    def _tried_alone(
        self, together: Callable[[Sequence[float]], list[float]]
    ) -> Callable[[Sequence[float]], list[float]]:
        """Return a function of several steps that leaves out those that the function refuses."""

        def products(steps: Sequence[float]) -> list[float]:
            found = self._dropped.attempt(lambda: together(steps))
            if found is None and len(steps) > 1:
                return [product for step in steps for product in products([step])]
            return [np.nan] * len(steps) if found is None else found

        return products

    def _products(
        self, start: Any, ways: dict[str, Any], upstreams: Sequence[Array], steps: Sequence[float]
    ) -> list[float]:
        """Return <upstreams, outputs> at several steps, all in one pass."""
        times = np.array(steps, np.float64)
        rows = {  # large inputs lie in JAX, which would add them in float32
            n: np.asarray(start[n]) + times.reshape(-1, *(1,) * way.ndim) * way
            for n, way in ways.items()
        }
        outputs = self._run(start, rows, len(steps))
        totals = [
            np.real(widen(u) * y).reshape(len(steps), -1).sum(1) for u, y in zip(upstreams, outputs)
        ]
        return [float(total) for total in sum(totals)]

    def _as_read(self, values: dict[str, Array]) -> dict[str, Any]:
        return {name: as_read(values[name], dtype) for name, dtype in self._dtypes.items()}

    def _moved(self, case: dict[str, Any]) -> tuple[str, ...]:
        """Return which inputs have a value for each point: all, where they are small."""
        small = self._entries <= _SMALL and self._numpy is None
        return tuple(n for n, d in self._dtypes.items() if n in case or (small and is_inexact(d)))

    def _filled(self, part: NumPyArray, count: int) -> NumPyArray:
        """Return rows as the first of as many as every run has."""
        if self._numpy is not None and len(part) == count:
            return part
        number = count if self._numpy is not None else self._rows
        rows = np.zeros((number, *part.shape[1:]), part.dtype)
        rows[:count] = part
        return rows

    def _tried(self, fixed: Any, rows: Any, count: int) -> list[NumPyArray]:
        """Run all rows together; one by one where the function refuses some of them."""
        found = self._dropped.attempt(lambda: self._run(fixed, rows, count))
        if found is not None:
            return found
        if count == 1:
            return [np.full((1, *a.shape), np.nan, widen_dtype(a.dtype)) for a in self._kept]
        singles = [
            self._tried(fixed, {n: np.roll(row, -i, 0) for n, row in rows.items()}, 1)
            for i in range(count)
        ]
        return list(map(np.concatenate, zip(*singles)))

    @property
    def _kept(self) -> list[Any]:
        """The avals of the outputs that are returned."""
        return [a for a, inexact in zip(self._program.out_avals, self._inexact) if inexact]

    def _run(self, fixed: Any, rows: Any, count: int) -> list[NumPyArray]:
        with on_host():
            moved = tuple(rows)
            if self._numpy is not None:
                try:
                    part = {name: row[:count] for name, row in rows.items()}
                    outputs = self._numpy.rows({**fixed, **part}, part, "forward")["forward"]
                    return [y for y, inexact in zip(outputs, self._inexact) if inexact]
                except TooLong:
                    if self._further:
                        raise
                    self._numpy = None
            if moved not in self._compiled:
                known = self._program.computes
                key = ("points", known, self._program.in_names, moved, self._constants.identity)
                self._compiled[moved] = remember(
                    None if known is None else key,
                    lambda: compile_once(
                        self._all, fixed, rows, np.int64(count), options=options_for(self._entries)
                    ),
                    store="executable",
                )
            outputs = self._compiled[moved](fixed, rows, np.int64(count))
            return [np.asarray(output)[:count] for output in outputs]

    def _all(self, fixed: Any, rows: Any, count: Any) -> list[Any]:
        """Evaluate the first `count` rows, one after another."""
        kept = self._kept
        empty = [jnp.zeros((self._rows, *aval.shape), widen_dtype(aval.dtype)) for aval in kept]

        def one(i: Any, outputs: list[Array]) -> list[Any]:
            values = {**fixed, **{name: row[i] for name, row in rows.items()}}
            return [out.at[i].set(y) for out, y in zip(outputs, self._one(values))]

        return list(lax.fori_loop(0, count, one, empty))

    def _one(self, values: dict[str, Array]) -> list[Any]:
        lifter = Exact(self._constants)
        arguments = [
            Value(values[name], is_inexact(aval.dtype))
            for name, aval in zip(self._program.in_names, self._program.in_avals)
        ]
        outputs = lifter(self._program.jaxpr, arguments)
        return [lifter.wide(y) for y, inexact in zip(outputs, self._inexact) if inexact]
