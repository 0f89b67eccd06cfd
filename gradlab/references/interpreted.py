"""Several programs in float64, with and without rounding noise, evaluated by NumPy.

Nothing is compiled. All draws of the noise are rows of the same arrays, and go through the programs
in one pass; the first row has no noise and is the value.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from gradlab.common.arrays import NumPyArray as Array
from gradlab.common.arrays import Shape
from gradlab.references.compiled import TURNS
from gradlab.references.estimates import hypot
from gradlab.references.noise import Draws, Units
from gradlab.references.rounding import Exact, Rounder
from gradlab.references.setting import Setting
from gradlab.tracing import NumPy, Program, Value
from gradlab.tracing.jaxprs import Abstract, with_outputs
from gradlab.tracing.leaves import in_numpy, in_words, is_inexact, is_key

_HELD = 1 << 24  # numbers that the draws of the largest program's arrays may have together


class Interpreted:
    """Programs that NumPy runs; its methods raise `TooLong` where a loop takes too many turns.

    `further`: for how many turns each `while` runs on where no noise is drawn. `stays_narrow`: the
    dtypes whose digits are all that some value has, once `scatters` has run.
    """

    def __init__(self, setting: Setting, further: int = 0) -> None:
        self._setting, self._further = setting, further
        self.stays_narrow: set[str] = set()

    def placed(self, arguments: Mapping[str, Array]) -> dict[str, Any]:
        """Return arguments as NumPy's arrays."""
        return {name: in_numpy(array) for name, array in arguments.items()}

    def values(
        self, arguments: Mapping[str, Array], only: str | None = None, first: int | None = None
    ) -> dict[str, list[Array]]:
        """Return the outputs of all programs, or of one, without noise; or their first ones."""
        given = self.placed(arguments)
        chosen = self._setting.programs if only is None else {only: self._setting.programs[only]}
        with np.errstate(all="ignore"):
            return {key: self._evaluated(program, given, first) for key, program in chosen.items()}

    def rows(
        self,
        arguments: Mapping[str, Array],
        moved: Mapping[str, Array],
        only: str | None = None,
        first: int | None = None,
    ) -> dict[str, list[Array]]:
        """Return the outputs at many points, one row for each, from some inputs' values there."""
        count = len(next(iter(moved.values())))
        most = max(1, _HELD // max(1, self._setting.work.held))
        parts = []
        for start in range(0, count, most):
            part = {name: rows[start : start + most] for name, rows in moved.items()}
            parts.append(
                (min(most, count - start), self.values({**arguments, **part}, only, first))
            )
        found = {}
        for key in parts[0][1]:
            shapes = [_in_words(aval) for aval in self._setting.programs[key].out_avals[:first]]
            found[key] = [
                np.concatenate(
                    [np.broadcast_to(values[key][i], (n, *shape)) for n, values in parts]
                )
                for i, shape in enumerate(shapes)
            ]
        return found

    def _evaluated(
        self, program: Program, given: Mapping[str, Any], first: int | None
    ) -> list[Array]:
        jaxpr = program.jaxpr if first is None else with_outputs(program.jaxpr, slice(first))
        walk = Exact(self._setting.constants, NumPy(), self._further)
        walk.turns = TURNS
        pairs = zip(program.in_names, program.in_avals)
        inputs = [Value(given[name], is_inexact(aval.dtype)) for name, aval in pairs]
        outputs = walk(jaxpr, inputs)
        return [_as_double(walk.wide(value)) for value in outputs]

    def scatters(
        self,
        arguments: Mapping[str, Array],
        roundings: Mapping[str, Units],
        draws: int,
        generator: np.random.Generator,
    ) -> tuple[dict[str, list[Array]], dict[str, dict[str, list[Array]]]]:
        """Return the values, and for each rounding how far it moves them, root mean square."""
        rows = [(name, units) for name, units in roundings.items() for _ in range(draws)]
        most = max(1, _HELD // max(1, self._setting.work.held) - 1)
        values: dict[str, list[Array]] = {}
        totals: dict[str, dict[str, list[Any]]] = {name: {} for name in roundings}
        with np.errstate(all="ignore"):
            for start in range(0, len(rows), most):
                part = rows[start : start + most]
                drawn, layout = self._drawn(arguments, [units for _, units in part], generator)
                names = [name for name, _ in part]
                parts = [_moved(array, size, names) for array, size in drawn]
                values = {key: [parts[i][0] for i in places] for key, places in layout.items()}
                for name in dict.fromkeys(names):
                    for key, places in layout.items():
                        found = [parts[i][1][name] for i in places]
                        before = totals[name].get(key, found)
                        both = zip(before, found)
                        totals[name][key] = (
                            found if before is found else [hypot(a, b) for a, b in both]
                        )
        weight = 1.0 / np.sqrt(draws)
        return values, {
            name: {key: [weight * total for total in each] for key, each in found.items()}
            for name, found in totals.items()
        }

    def _drawn(
        self, arguments: Mapping[str, Array], units: list[Units], generator: np.random.Generator
    ) -> tuple[list[tuple[Array, int]], dict[str, list[int]]]:
        """Return the distinct outputs, with their number of axes, and which are whose."""
        setting = self._setting
        noise = Draws([setting.silence, *units], setting.work.largest, generator)
        rounder = Rounder(
            noise,
            setting.constants,
            frozenset(setting.silence),
            device=setting.device,
            arithmetic=NumPy(),
        )
        rounder.turns = TURNS
        distinct, layout = setting.evaluate(rounder, self.placed(arguments))
        self.stays_narrow |= rounder.stays_narrow
        ranks = {
            place: len(_in_words(aval))
            for key, places in layout.items()
            for place, aval in zip(places, setting.programs[key].out_avals)
        }
        return [(_as_double(array), ranks[i]) for i, array in enumerate(distinct)], layout


def _moved(array: Array, rank: int, names: list[str]) -> tuple[Array, dict[str, Array]]:
    """Return the row without noise, and the root of the sum of squares by which others are off."""
    if array.ndim == rank:
        return array, dict.fromkeys(names, np.zeros(array.shape))
    value, rows = array[0], np.abs(array[1:] - array[0])
    which = np.array(names)
    return value, {n: functools.reduce(hypot, rows[which == n]) for n in dict.fromkeys(names)}


def _in_words(aval: Abstract) -> Shape:
    """Return the shape of an output; a random key is read as its words."""
    shape: Shape = aval.shape
    return jax.eval_shape(jax.random.key_data, aval).shape if is_key(aval.dtype) else shape


def _as_double(array: Any) -> Array:
    plain: Array = np.asarray(in_words(array))
    return plain if plain.dtype.kind == "c" else plain.astype(np.float64, copy=False)
