"""Several programs in float64, with and without rounding noise: who evaluates them is decided here.

A program is evaluated by NumPy unless it is so much work that compiling it pays. Both ways take
draws of Monte Carlo arithmetic, and values at which finite differences are taken.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np

from gradlab.common.arrays import NumPyArray as Array
from gradlab.errors import InputError
from gradlab.references.bounds import device_here, digits_of
from gradlab.references.compiled import TURNS, Compiled
from gradlab.references.estimates import DRAWS, Estimate, estimate
from gradlab.references.host import as_read, on_host
from gradlab.references.interpreted import Interpreted
from gradlab.references.noise import Units
from gradlab.references.precision import largest, underflow, unit_roundoff
from gradlab.references.setting import Setting
from gradlab.tracing import Program, TooLong, remember
from gradlab.tracing.work import ENTRY, STEP, Work

T = TypeVar("T")
Law: TypeAlias = Literal["formula", "accuracy"]
Outputs: TypeAlias = dict[str, list[Array]]

_LARGE = 1 << 20  # entries from which on the draws are what costs
_FEW_DRAWS = (4, 8, 16, 64)  # of large programs
_GAIN = 2.0**12  # noise at float64's own unit would drown in its rounding: draw larger, scale back

_PASSES, _ROWS = 40, 100  # of a check through its programs in NumPy, and draws and points together
_SHORT = 2_000  # equations that NumPy runs in the time of a few calls of a compiled program
_COMPILED, _RUN = 6e-3, 2e-9  # seconds of XLA for one equation with its noise, and to run an entry


def pays_to_compile(work: Work) -> bool:
    """Return whether a check is done sooner when XLA compiles its programs first."""
    interpreted = _PASSES * STEP * work.steps + _ROWS * ENTRY * work.entries
    return interpreted > _COMPILED * work.equations + _ROWS * _RUN * work.entries


@dataclass
class _Loops:
    """Whether the loops of some programs were seen to take too many turns for NumPy."""

    endless: bool = False


class Evaluation:
    """Programs lifted to float64 and compiled together; inputs with the same name are the same.

    A program called `reference` limits the others: a dtype coarser than all of its own does not
    excuse their errors. They are taken to run on the device that is JAX's default here.
    """

    def __init__(self, **programs: Program) -> None:
        if not programs:
            raise InputError("Evaluation: expected at least one program")
        self._programs = programs
        self._avals: dict[str, Any] = {}
        for program in programs.values():
            for name, aval in zip(program.in_names, program.in_avals):
                known = self._avals.setdefault(name, aval)
                if known.shape != aval.shape:
                    raise InputError(
                        f"Evaluation: input {name!r} has shape {known.shape} in one program and "
                        f"{aval.shape} in {program.name}; rename one of them"
                    )
        self.names = tuple(self._avals)
        self.inputs = dict(self._avals)
        device = device_here()
        dtypes = {key: digits_of(program.jaxpr, device) for key, program in programs.items()}
        used = set().union(*dtypes.values())
        inside = {"float32"} if used - {"float64"} else set()  # where half precision is summed
        self._units = sorted(used | inside | {"float64"})
        self._traced = used
        self._setting = Setting(programs, dtypes, device, self._narrow([], []))
        self._large = self._setting.entries > _LARGE
        self.draws = _FEW_DRAWS if self._large else DRAWS
        work = self._setting.work
        compiles = self._large or pays_to_compile(work)
        if not (compiles or work.counted):
            compiles = self._loops.endless
        self._engine: Compiled | Interpreted = (
            Compiled(self._setting, self._large) if compiles else Interpreted(self._setting)
        )
        self._alone: dict[str, Evaluation] = {}
        self._ended = False  # whether all loops came to an end in NumPy, at the given inputs

    @property
    def roundings(self) -> int:
        """How many kinds of rounding are drawn, at most, each by itself."""
        return len(self._roundings)

    @property
    def interpreted(self) -> bool:
        """Whether NumPy evaluates, so that many points go through in one pass."""
        return isinstance(self._engine, Interpreted)

    def values(self, inputs: Mapping[str, Array], only: str | None = None) -> Outputs:
        """Return all outputs, lifted and without noise, as float64 arrays by keyword.

        `only`: the one program whose outputs are wanted; of large ones, no other is run.
        """
        if only is not None and self._large:
            if only not in self._alone:
                self._alone[only] = Evaluation(**{only: self._setting.programs[only]})
            return self._alone[only].values(inputs)
        with on_host():
            arguments = self._arguments(inputs)
            return self._attempt(
                lambda engine: (
                    engine.values(arguments, only)
                    if isinstance(engine, Interpreted)
                    else engine.values(arguments)
                )
            )

    def rows(
        self,
        inputs: Mapping[str, Array],
        moved: Mapping[str, Any],
        only: str | None = None,
        first: int | None = None,
    ) -> Outputs:
        """Return the outputs at many points, one row for each.

        `moved`: for some names an array with one row for each point.
        """
        engine = self._engine
        work = self._setting.work
        if first is not None and not self._large and work.counted and work.steps <= _SHORT:
            engine = Interpreted(self._setting)  # of what is compiled, everything would run
        if isinstance(engine, Interpreted):
            with on_host():
                arguments = self._arguments(inputs)
                try:
                    return engine.rows(arguments, moved, only, first)
                except TooLong:
                    self._compile()
        count = len(next(iter(moved.values())))
        points = [{**inputs, **{n: rows[i] for n, rows in moved.items()}} for i in range(count)]
        found = [self.values(point, only) for point in points]
        return {
            key: [np.stack(column) for column in zip(*(each[key] for each in found))]
            for key in found[0]
        }

    def along(
        self,
        inputs: Mapping[str, Array],
        direction: Mapping[str, Any],
        only: str | None = None,
        first: int | None = None,
    ) -> Callable[[Sequence[float]], Outputs]:
        """Return the outputs as a function of steps t, at `inputs + t * direction`, row by row.

        `first`: how many of the outputs are wanted; what only others need is left out.
        """
        start = self.placed(inputs)
        ways = {name: np.asarray(way, start[name].dtype) for name, way in direction.items()}

        def at(steps: Sequence[float]) -> Outputs:
            times = np.asarray(steps, np.float64)
            with on_host():  # without it JAX adds an array of its own in float32
                moved = {
                    name: np.asarray(start[name]) + times.reshape(-1, *(1,) * way.ndim) * way
                    for name, way in ways.items()
                }
            return self.rows(start, moved, only, first)

        return at

    def estimates(
        self,
        inputs: Mapping[str, Array],
        law: Law = "formula",
        draws: int | None = None,
        seed: int = 0,
    ) -> dict[str, list[Estimate]]:
        """Return each output with its scatter under rounding.

        Law "formula" rounds everything to float64: only constants that are known to fewer digits
        scatter at their own. "accuracy" rounds each result to its dtype in the traced program.
        """
        return self._laws(inputs, draws, seed, law)[0]

    def both(
        self, inputs: Mapping[str, Array], draws: int | None = None, seed: int = 0
    ) -> tuple[dict[str, list[Estimate]], dict[str, list[Estimate]]]:
        """Return the estimates of both laws, formula first.

        Large programs in float32 are drawn once: their scatter in float64 is the same in proportion
        to the units. (Sums of half precision are rounded otherwise.)
        """
        formula, accuracy = self._laws(inputs, draws, seed, "formula", "accuracy")
        return formula, accuracy

    def placed(self, inputs: Mapping[str, Array]) -> dict[str, Any]:
        """Return inputs as the programs read them, so that no evaluation copies them again."""
        with on_host():
            return self._engine.placed(self._arguments(inputs))

    def _laws(
        self, inputs: Mapping[str, Array], draws: int | None, seed: int, *laws: Law
    ) -> list[dict[str, list[Estimate]]]:
        """Return the estimates for some laws; what they have in common is drawn once."""
        draws = self.draws[0] if draws is None else draws
        generator = np.random.default_rng(seed)
        arguments = self.placed(inputs)
        values: Outputs = {}
        moved: dict[str, Outputs] = {}

        def draw(names: set[str]) -> None:
            roundings = {n: self._roundings[n][0] for n in sorted(names - moved.keys())}
            if roundings:
                with on_host():
                    found = self._attempt(
                        lambda engine: engine.scatters(arguments, roundings, draws, generator)
                    )
                values.update(found[0])
                moved.update(found[1])

        scaled = self._large and self._traced == {"float32"} and len(laws) > 1
        draw(set().union(*(self._needs(law) for law in laws if not (scaled and law == "formula"))))
        narrow = self._engine.stays_narrow - {"float64"}
        if scaled and not narrow:  # the scatter in float64 is the same in proportion to the units
            _, unit = self._roundings["narrow"]
            ratio = unit_roundoff("float64") / unit_roundoff("float32")
            moved["double"] = moved["narrow"]
            gains = {"double": 1.0 / ratio, "narrow": unit}
        else:
            gains = {name: gain for name, (_, gain) in self._roundings.items()}
        needs = [self._needs(law, bool(narrow)) for law in laws]
        draw(set().union(*needs))
        return [self._estimated(values, moved, sorted(each), gains) for each in needs]

    def _estimated(
        self,
        values: Outputs,
        moved: Mapping[str, Outputs],
        names: list[str],
        gains: Mapping[str, float],
    ) -> dict[str, list[Estimate]]:
        made: dict[tuple[int, ...], Estimate] = {}  # programs share what they both compute

        def of(value: Array, deviations: list[Array]) -> Estimate:
            key = id(value), *map(id, deviations)
            if key not in made:
                made[key] = estimate(value, deviations, [gains[name] for name in names])
            return made[key]

        return {
            key: [of(value, [moved[n][key][i] for n in names]) for i, value in enumerate(each)]
            for key, each in values.items()
        }

    def _attempt(self, evaluate: Callable[[Any], T]) -> T:
        """Evaluate; what takes too many turns in NumPy is compiled from now on."""
        try:
            found = evaluate(self._engine)
        except TooLong:
            self._compile()
            return evaluate(self._engine)
        self._ended = True
        return found

    def _compile(self) -> None:
        self._loops.endless = not self._ended
        self._engine = Compiled(self._setting, self._large, TURNS if self._ended else None)

    @property
    def _loops(self) -> "_Loops":
        """What is remembered of the loops of these programs."""
        known = self._setting.identity
        return remember(None if known is None else ("loops", known), _Loops)

    def _needs(self, law: Law, narrow_values: bool = False) -> set[str]:
        """Return the names of the roundings that a law draws."""
        if law == "accuracy" and "narrow" in self._roundings:
            return {"narrow"} if "float64" not in self._traced else {"double", "narrow"}
        return {"double", "constants"} if narrow_values and law == "formula" else {"double"}

    @functools.cached_property
    def _roundings(self) -> dict[str, tuple[Units, float]]:
        """The roundings that may be drawn, each with the factor by which it is exaggerated.

        `double` rounds everything to float64, `narrow` what is narrower to its own dtype, and
        `constants` only what has never had more digits.
        """
        narrow = [name for name in self._units if name != "float64"]
        unit, tiny = _GAIN * unit_roundoff("float64"), _GAIN * underflow("float64")
        double = {
            name: {
                "unit": unit,
                "tiny": tiny,
                "constant": unit if name == "float64" else 0.0,
                "largest": np.inf,
            }
            for name in self._units
        }
        roundings: dict[str, tuple[Units, float]] = {"double": (double, _GAIN)}
        if narrow:
            roundings["narrow"] = (self._narrow(narrow, narrow), 1.0)
        roundings["constants"] = (self._narrow([], narrow), 1.0)
        return roundings

    def _narrow(self, unit: list[str], constant: list[str]) -> Units:
        return {
            name: {
                "unit": unit_roundoff(name) if name in unit else 0.0,
                "tiny": underflow(name) if name in unit else 0.0,
                "constant": unit_roundoff(name) if name in constant else 0.0,
                "largest": largest(name) if name in unit else np.inf,
            }
            for name in self._units
        }

    def _arguments(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        missing = [name for name in self.names if name not in inputs]
        if missing:
            raise InputError(f"Evaluation: no value for input {missing[0]!r}; it has {self.names}")
        arguments = {}
        for name, aval in self._avals.items():
            value = inputs[name]
            if np.shape(value) != aval.shape:
                raise InputError(
                    f"Evaluation: input {name!r} has shape {np.shape(value)}; "
                    f"the program was traced with {aval.shape}"
                )
            arguments[name] = as_read(value, aval.dtype)
        return arguments
