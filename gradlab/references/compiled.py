"""Several programs in float64, with and without rounding noise, compiled together by XLA.

All that a check needs of large programs is compiled once: the noise is an argument.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradlab.common.arrays import Function, Tree
from gradlab.common.arrays import NumPyArray as Array
from gradlab.references.estimates import deviation
from gradlab.references.host import options_for
from gradlab.references.noise import PooledNoise, Pools, Units, fill
from gradlab.references.rounding import Quiet, Rounder
from gradlab.references.setting import Setting
from gradlab.tracing import compile_once, remember
from gradlab.tracing.leaves import is_key

Kind: TypeAlias = Literal["noisy", "quiet", "sums", "summed"]
"""What is compiled. Small programs have one; large ones run without noise, return the magnitudes of
their sums beside the values, and add every draw to the deviations without keeping it."""

TURNS = 20_000  # of a loop, where one that ended at the given inputs may never end at others
_ENDLESS = 1 << 62
_TOGETHER = 4  # draws in one call, one after another: what each needs is allocated once


class _Executable(NamedTuple):
    """What all programs became: how to run them, and what was learnt while they were traced."""

    run: Function
    layout: Mapping[str, list[int]]
    stays_narrow: set[str]


class _Measured(NamedTuple):
    """What a draw starts from."""

    arguments: dict[str, Array]
    values: list[Tree]
    sums: list[Any]


class Compiled:
    """Programs that XLA runs; see `Interpreted` for what its methods have in common with this.

    A `while` has at most `turns` turns and gives NaN if it does not end: gradlab makes inputs at
    which an iteration never converges. None: as many, if that changes nothing at the first inputs.
    """

    def __init__(self, setting: Setting, large: bool, turns: int | None = None) -> None:
        self._setting, self._large, self._turns = setting, large, turns
        self._silence = fill(setting.silence)
        self._executables: dict[Kind, _Executable] = {}

    def placed(self, arguments: Mapping[str, Array]) -> dict[str, Any]:
        """Return arguments where the programs read them, so that no run copies them again."""
        return {name: jax.device_put(array) for name, array in arguments.items()}

    def values(self, arguments: dict[str, Array]) -> dict[str, list[Array]]:
        """Return all outputs, without noise."""
        self._limit(arguments)
        return self._named([np.asarray(array) for array in self._run(arguments)])

    def scatters(
        self,
        arguments: dict[str, Array],
        roundings: Mapping[str, Units],
        draws: int,
        generator: np.random.Generator,
    ) -> tuple[dict[str, list[Array]], dict[str, dict[str, list[Array]]]]:
        """Return the values, and for each rounding how far it moves them, root mean square."""
        self._limit(arguments)
        if self._large:
            measured = _Measured(arguments, *self._called("sums", arguments, self._silence))
        else:
            measured = _Measured(arguments, self._run(arguments), [])
        moved = {}
        for name, units in roundings.items():
            if self._large:
                flat = self._summed(measured, units, draws, generator)
            else:

                def draw(units: Units = units) -> Sequence[Any]:
                    return self._run(arguments, fill(units, generator))

                flat = deviation(draw, measured.values, draws)
            moved[name] = self._named(flat)
        return self._named([np.asarray(array) for array in measured.values]), moved

    @property
    def stays_narrow(self) -> set[str]:
        """The dtypes whose digits are all that some value has, once the programs have been run."""
        return next(iter(self._executables.values())).stays_narrow

    def _limit(self, arguments: dict[str, Array]) -> None:
        """Decide, at the first inputs, how many turns a `while` may have."""
        if self._turns is None:
            self._turns = _ENDLESS
            if not self._setting.work.counted:
                endless = self._run(arguments)
                self._turns = TURNS
                pairs = zip(endless, self._run(arguments))
                if not all(np.array_equal(a, b, equal_nan=True) for a, b in pairs):
                    self._turns = _ENDLESS

    def _summed(
        self, measured: _Measured, units: Units, draws: int, generator: np.random.Generator
    ) -> list[Any]:
        """Return root mean square deviations; nothing that is drawn is kept."""
        weight = np.sqrt(1.0 / draws)
        totals: Any = [jnp.zeros(a.shape, jnp.float64) for a in measured.values]
        for start in range(0, draws, _TOGETHER):
            count = min(_TOGETHER, draws - start)
            pools = [fill(units, generator if i < count else None) for i in range(_TOGETHER)]
            rows = jax.tree.map(lambda *each: np.stack(each), *pools)
            totals = self._called("summed", measured, rows, np.int64(count), weight, totals)
        return [np.asarray(total) for total in totals]

    def _named(self, flat: Sequence[Any]) -> dict[str, list[Any]]:
        layout = next(iter(self._executables.values())).layout
        return {key: [flat[i] for i in indices] for key, indices in layout.items()}

    def _run(self, arguments: dict[str, Array], pools: Pools | None = None) -> list[Any]:
        """Return the distinct outputs, without noise unless pools of it are given.

        Where compiling is what costs, silence is a noise like any other.
        """
        kind: Kind = "quiet" if self._large else "noisy"
        values: list[Any] = self._called(kind, arguments, self._silence if pools is None else pools)
        return values

    def _called(self, kind: Kind, *arguments: Tree) -> Any:
        if kind not in self._executables:
            self._executables[kind] = self._compile(kind, arguments)
        return self._executables[kind].run(np.int64(self._turns or TURNS), *arguments)

    def _compile(self, kind: Kind, arguments: tuple[Tree, ...]) -> _Executable:
        setting = self._setting

        def compile_it() -> _Executable:
            layout: dict[str, list[int]] = {}
            stays_narrow: set[str] = set()

            def rounder(pools: Pools, sums: Iterator[Any] | None = None) -> Rounder:
                noise = PooledNoise(pools)
                return Rounder(noise, setting.constants, frozenset(pools), sums, setting.device)

            def silent(pools: Pools) -> Quiet:
                return Quiet(PooledNoise(pools), setting.constants, frozenset(pools))

            def evaluate(rounder: Rounder, turns: Any, arguments: Tree) -> list[Any]:
                rounder.turns = turns
                distinct, places = setting.evaluate(rounder, arguments)
                layout.update(places)
                stays_narrow.update(rounder.stays_narrow)
                return [_as_double(array) for array in distinct]

            def noisy(turns: Any, arguments: Tree, pools: Pools) -> list[Any]:
                return evaluate(rounder(pools), turns, arguments)

            def quiet(turns: Any, arguments: Tree, pools: Pools) -> list[Any]:
                return evaluate(silent(pools), turns, arguments)

            def sums(turns: Any, arguments: Tree, pools: Pools) -> tuple[list[Any], list[Any]]:
                listening = silent(pools)
                return evaluate(listening, turns, arguments), listening.seen

            def summed(
                turns: Any, measured: Any, rows: Pools, count: Any, weight: Any, totals: Any
            ) -> Any:
                arguments, values, sums = measured

                def draw(i: Any, totals: Any) -> Any:
                    pools = jax.tree.map(lambda row: row[i], rows)
                    drawn = evaluate(rounder(pools, iter(sums)), turns, arguments)
                    off = [weight * jnp.abs(a - b) for a, b in zip(drawn, values, strict=True)]
                    return list(map(jnp.hypot, totals, off))  # squares may overflow

                return lax.fori_loop(0, count, draw, totals)

            functions: dict[Kind, Function]
            functions = {"noisy": noisy, "quiet": quiet, "sums": sums, "summed": summed}
            last = (5,) if kind == "summed" else ()
            options, given = options_for(setting.entries), (np.int64(0), *arguments)
            run = compile_once(functions[kind], *given, options=options, donate=last)
            return _Executable(run, layout, stays_narrow)

        known = setting.identity
        key = None if known is None else (kind, known)
        return remember(key, compile_it, store="executable")


def _as_double(array: Any) -> Any:
    if is_key(array.dtype):
        array = jax.random.key_data(array)
    return array if jnp.iscomplexobj(array) else jnp.asarray(array, jnp.float64)
