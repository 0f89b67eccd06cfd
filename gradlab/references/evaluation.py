"""Several programs in float64, with and without rounding noise, in one compiled program.

Compiling is what costs, so all that a check needs in float64 is compiled once: the rule's gradient
and the reference's, the pushforward, the draws of Monte Carlo arithmetic (the noise is an argument)
and the values at which finite differences are taken (the step is an argument).
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradlab.errors import InputError
from gradlab.references.digits import digits_of
from gradlab.references.estimates import DRAWS, Estimate, deviation, estimate
from gradlab.references.host import as_read, on_host, options_for
from gradlab.references.noise import Noise, Pools, Units, fill
from gradlab.references.precision import largest, underflow, unit_roundoff
from gradlab.references.products import device_here
from gradlab.references.rounding import Quiet, Rounder
from gradlab.tracing import Program, Value, compile_once, remember
from gradlab.tracing.constants import Constants
from gradlab.tracing.leaves import is_inexact

__all__ = ["Evaluation", "Law", "Outputs"]

Array: TypeAlias = np.ndarray[Any, Any]
Law: TypeAlias = Literal["formula", "accuracy"]
Outputs: TypeAlias = dict[str, list[Array]]
Kind: TypeAlias = Literal["noisy", "quiet", "sums", "summed"]
"""What is compiled. Small programs have one; large ones run without noise, return the magnitudes of
their sums beside the values, and add every draw to the deviations without keeping it."""

_LARGE = 1 << 20  # entries from which on the draws are what costs
_FEW_DRAWS = (4, 8, 16, 64)  # of large programs
_TOGETHER = 4  # of them in one call, one after another: what each needs is allocated once
_GAIN = 2.0**12  # noise at float64's own unit would drown in its rounding: draw larger, scale back


class _Compiled(NamedTuple):
    """What all programs became: how to run them, and what was learnt while they were traced."""

    run: Callable[..., Any]
    layout: Mapping[str, list[int]]
    stays_narrow: set[str]


class _Measured(NamedTuple):
    """What a draw starts from."""

    arguments: dict[str, Any]
    values: list[Any]
    sums: list[Any]


class Evaluation:
    """Programs lifted to float64 and compiled together; inputs with the same name are the same.

    Args:
        **programs: traced programs by keyword. One called `reference` limits the others: a dtype
            coarser than all of its own does not excuse their errors. They are taken to run on the
            device that is JAX's default where this is made.

    Attributes:
        names: of all inputs.
        inputs: shape and dtype of each, by name.
        draws: how often rounding is drawn; then, for as long as a verdict of wrong is close.

    Example:
        >>> import jax.numpy as jnp
        >>> from gradlab.references import vjp_program
        >>> from gradlab.tracing import trace
        >>> x = jnp.arange(1.0, 4.0)
        >>> lab = Evaluation(reference=vjp_program(trace(lambda x: x * x, x)))
        >>> estimate = lab.estimates({"x": x, "upstream": jnp.ones(3)}, law="accuracy")
        >>> estimate["reference"][1].value
        array([2., 4., 6.])
        >>> bool((estimate["reference"][1].scatter < 1e-6).all())
        True
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
        self._device = device_here()
        self._dtypes = {key: digits_of(p.jaxpr, self._device) for key, p in programs.items()}
        used = set().union(*self._dtypes.values())
        inside = {"float32"} if used - {"float64"} else set()  # where half precision is summed
        self._units = sorted(used | inside | {"float64"})
        self._traced = used
        self._large = _entries(self._programs.values()) > _LARGE
        self.draws = _FEW_DRAWS if self._large else DRAWS
        self._compiled: dict[Kind, _Compiled] = {}
        self._alone: dict[str, Evaluation] = {}

    def values(self, inputs: Mapping[str, Any], only: str | None = None) -> Outputs:
        """Return all outputs, lifted and without noise, as float64 arrays by keyword.

        Args:
            inputs: an array for each of `names`.
            only: the one program whose outputs are wanted; of large ones, no other is run.
        """
        if only is not None and self._large:
            if only not in self._alone:
                self._alone[only] = Evaluation(**{only: self._programs[only]})
            return self._alone[only].values(inputs)
        with on_host():
            return self._named(self._run(self._arguments(inputs)))

    def along(
        self, inputs: Mapping[str, Any], direction: Mapping[str, Any]
    ) -> Callable[[float], Outputs]:
        """Return the outputs as a function of t, at `inputs + t * direction`."""
        start = self._arguments(inputs)
        ways = {name: np.asarray(way, start[name].dtype) for name, way in direction.items()}
        with on_host():
            rest = {name: jax.device_put(a) for name, a in start.items() if name not in ways}

        def at(step: float) -> Outputs:
            with on_host():
                moved = {name: start[name] + step * way for name, way in ways.items()}
                return self._named(self._run({**rest, **moved}))

        return at

    def estimates(
        self,
        inputs: Mapping[str, Any],
        law: Law = "formula",
        draws: int | None = None,
        seed: int = 0,
    ) -> dict[str, list[Estimate]]:
        """Return each output with its scatter under rounding.

        Args:
            inputs: an array for each of `names`.
            law: "formula": everything is rounded to float64, and only constants that are known to
                fewer digits scatter at their own; "accuracy": each result is rounded to the dtype
                that it has in the traced program.
            draws: how many times rounding is drawn.
            seed: of the noise.
        """
        with on_host():
            return self._estimates(self._measured(inputs), law, draws, seed)

    def both(
        self, inputs: Mapping[str, Any], draws: int | None = None, seed: int = 0
    ) -> tuple[dict[str, list[Estimate]], dict[str, list[Estimate]]]:
        """Return the estimates of both laws, formula first.

        Large programs in float32 are drawn once: their scatter in float64 is the same in proportion
        to the units. (Sums of half precision are rounded otherwise.)
        """
        with on_host():
            measured = self._measured(inputs)
            accuracy = self._estimates(measured, "accuracy", draws, seed)
            if self._large and self._traced == {"float32"} and not self._stays_narrow:
                ratio = unit_roundoff("float64") / unit_roundoff("float32")
                every = {id(e): e for estimates in accuracy.values() for e in estimates}
                scaled = {k: Estimate(e.value, e.scatter * ratio) for k, e in every.items()}
                formula = {key: [scaled[id(e)] for e in each] for key, each in accuracy.items()}
            elif self._traced == {"float64"}:
                formula = accuracy
            else:
                formula = self._estimates(measured, "formula", draws, seed)
        return formula, accuracy

    def placed(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return inputs as the compiled programs read them, so that no run copies them again."""
        with on_host():
            return {name: jax.device_put(a) for name, a in self._arguments(inputs).items()}

    def _measured(self, inputs: Mapping[str, Any]) -> "_Measured":
        arguments = self.placed(inputs)
        if self._large:
            return _Measured(arguments, *self._called("sums", arguments, self._silence))
        return _Measured(arguments, self._run(arguments), [])

    def _estimates(
        self, measured: "_Measured", law: Law, draws: int | None, seed: int
    ) -> dict[str, list[Estimate]]:
        arguments, values, _ = measured
        draws = self.draws[0] if draws is None else draws
        generator = np.random.default_rng(seed)
        deviations, scales = [], []
        for units, scale in self._roundings(law):
            if self._large:
                deviations.append(self._summed(measured, units, draws, generator))
            else:

                def draw(units: Units = units) -> Sequence[Any]:
                    return self._run(arguments, fill(units, generator))

                deviations.append(deviation(draw, values, draws))
            scales.append(scale)
        flat = [estimate(a, [d[i] for d in deviations], scales) for i, a in enumerate(values)]
        return {key: [flat[i] for i in indices] for key, indices in self._layout.items()}

    def _summed(
        self, measured: "_Measured", units: Units, draws: int, generator: np.random.Generator
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

    @property
    def _layout(self) -> Mapping[str, list[int]]:
        """Which of the distinct outputs are each program's, in order."""
        return next(iter(self._compiled.values())).layout

    @property
    def _stays_narrow(self) -> set[str]:
        """The dtypes narrower than float64 whose digits are all that some value has."""
        return next(iter(self._compiled.values())).stays_narrow - {"float64"}

    def _roundings(self, law: Law) -> list[tuple[Units, float]]:
        """Return the roundings to draw, each with the factor by which it is exaggerated."""
        narrow = [name for name in self._units if name != "float64"]
        if law == "accuracy" and narrow and "float64" not in self._traced:
            return [(self._narrow(narrow, narrow), 1.0)]
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
        roundings: list[tuple[Units, float]] = [(double, _GAIN)]
        if law == "accuracy" and narrow:
            roundings.append((self._narrow(narrow, narrow), 1.0))
        elif self._stays_narrow:
            roundings.append((self._narrow([], narrow), 1.0))
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

    def _arguments(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
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

    def _run(self, arguments: dict[str, Any], pools: Pools | None = None) -> list[Any]:
        """Return the distinct outputs, without noise unless pools of it are given.

        Where compiling is what costs, silence is a noise like any other.
        """
        kind: Kind = "quiet" if self._large else "noisy"
        values: list[Any] = self._called(kind, arguments, self._silence if pools is None else pools)
        return values

    @property
    def _silence(self) -> Pools:
        return fill(self._narrow([], []))

    def _called(self, kind: Kind, *arguments: Any) -> Any:
        if kind not in self._compiled:
            self._compiled[kind] = self._compile(kind, arguments)
        return self._compiled[kind].run(*arguments)

    def _compile(self, kind: Kind, arguments: tuple[Any, ...]) -> "_Compiled":
        constants = Constants(self._programs.values())

        def compile_it() -> _Compiled:
            layout: dict[str, list[int]] = {}
            stays_narrow: set[str] = set()

            def rounder(pools: Pools, sums: Iterator[Any] | None = None) -> Rounder:
                noise = Noise(pools)
                return Rounder(noise, constants, frozenset(pools), sums, self._device)

            def silent(pools: Pools) -> Quiet:
                return Quiet(Noise(pools), constants, frozenset(pools))

            def evaluate(rounder: Rounder, arguments: Any) -> list[Any]:
                outputs = self._evaluate(rounder, arguments, layout)
                stays_narrow.update(rounder.stays_narrow)
                return outputs

            def noisy(arguments: Any, pools: Pools) -> list[Any]:
                return evaluate(rounder(pools), arguments)

            def quiet(arguments: Any, pools: Pools) -> list[Any]:
                return evaluate(silent(pools), arguments)

            def sums(arguments: Any, pools: Pools) -> tuple[list[Any], list[Any]]:
                listening = silent(pools)
                return evaluate(listening, arguments), listening.seen

            def summed(measured: Any, rows: Pools, count: Any, weight: Any, totals: Any) -> Any:
                arguments, values, sums = measured

                def draw(i: Any, totals: Any) -> Any:
                    pools = jax.tree.map(lambda row: row[i], rows)
                    drawn = evaluate(rounder(pools, iter(sums)), arguments)
                    off = [weight * jnp.abs(a - b) for a, b in zip(drawn, values, strict=True)]
                    return list(map(jnp.hypot, totals, off))  # squares may overflow

                return lax.fori_loop(0, count, draw, totals)

            functions: dict[Kind, Callable[..., Any]]
            functions = {"noisy": noisy, "quiet": quiet, "sums": sums, "summed": summed}
            options = options_for(_entries(self._programs.values()))
            last = (4,) if kind == "summed" else ()
            run = compile_once(functions[kind], *arguments, options=options, donate=last)
            return _Compiled(run, layout, stays_narrow)

        rows = [(key, p.identity, p.in_names) for key, p in self._programs.items()]
        known = all(row[1] is not None for row in rows)
        place = self._device.platform, self._device.device_kind
        return remember((kind, *rows, constants.identity, place) if known else None, compile_it)

    def _named(self, flat: Sequence[Any]) -> Outputs:
        arrays = [np.asarray(array) for array in flat]
        return {key: [arrays[i] for i in indices] for key, indices in self._layout.items()}

    def _evaluate(
        self, rounder: Rounder, arguments: dict[str, Any], layout: dict[str, list[int]]
    ) -> list[Any]:
        """Evaluate all programs with one rounder, so that they share what they have in common."""
        distinct: dict[int, tuple[int, Any]] = {}
        for key, program in self._programs.items():
            rounder.allowed = frozenset(self._dtypes.get("reference", self._dtypes[key]))
            values = [
                Value(arguments[name], is_inexact(aval.dtype))
                for name, aval in zip(program.in_names, program.in_avals)
            ]
            results = [rounder.wide(value) for value in rounder(program.jaxpr, values)]
            layout[key] = [
                distinct.setdefault(id(array), (len(distinct), array))[0] for array in results
            ]
        return [_as_double(array) for _, array in distinct.values()]


def _entries(programs: Iterable[Program]) -> int:
    """Return how many entries the inputs and outputs of the largest program have."""
    shapes: list[list[tuple[int, ...]]]
    shapes = [[aval.shape for aval in (*p.in_avals, *p.out_avals)] for p in programs]
    return max(sum(map(math.prod, each)) for each in shapes)


def _as_double(array: Any) -> Any:
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    return array if jnp.iscomplexobj(array) else jnp.asarray(array, jnp.float64)
