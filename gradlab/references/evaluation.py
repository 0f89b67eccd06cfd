"""Several programs in float64, with and without rounding noise, in one compiled program.

Compiling is what costs, so all that a check needs in float64 is compiled once: the rule's gradient
and the reference's, the pushforward, the draws of Monte Carlo arithmetic (the noise is an argument)
and the values at which finite differences are taken (the step is an argument).
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from gradlab.errors import InputError
from gradlab.references.noise import POOL, Noise, fill_pool
from gradlab.references.precision import name_with_bits, real_name, underflow, unit_roundoff
from gradlab.references.rounding import Rounder, Units
from gradlab.tracing import Program, Value, widen_dtype, without_checks
from gradlab.tracing.constants import Constants
from gradlab.tracing.jaxprs import body, dtype_of
from gradlab.tracing.leaves import is_inexact
from gradlab.tracing.walking import jaxprs

__all__ = ["DRAWS", "Estimate", "Evaluation", "Outputs"]

Array: TypeAlias = np.ndarray[Any, Any]
Outputs: TypeAlias = dict[str, list[Array]]

DRAWS = 12
"""How many times rounding is drawn for an estimate."""

_GAIN = 2.0**12  # noise at float64's own unit would drown in its rounding: draw larger, scale back


@dataclass(frozen=True, eq=False)
class Estimate:
    """One array in float64 and, entry by entry, how far rounding may move it.

    `scatter` is the root mean square of the draws' deviations; infinite where a draw is not finite
    though the value is.
    """

    value: Array
    scatter: Array


class Evaluation:
    """Programs lifted to float64 and compiled together; inputs with the same name are the same.

    Args:
        **programs: traced programs by keyword. One called `reference` limits the others: a dtype
            coarser than all of its own does not excuse their errors.

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
        self._dtypes = {key: _float_names(program) for key, program in programs.items()}
        used = set().union(*self._dtypes.values())
        inside = {"float32"} if used - {"float64"} else set()  # where half precision is summed
        self._units = sorted(used | inside | {"float64"})
        self._stays_narrow: set[str] = set()

    def values(self, inputs: Mapping[str, Any]) -> Outputs:
        """Return all outputs, lifted and without noise, as float64 arrays by keyword."""
        with self._inside() as run:
            return run(self._arguments(inputs))

    def along(
        self, inputs: Mapping[str, Any], direction: Mapping[str, Any]
    ) -> Callable[[float], Outputs]:
        """Return the outputs as a function of t, at `inputs + t * direction`."""
        arguments = self._arguments(inputs, direction)

        def at(step: float) -> Outputs:
            with self._inside() as run:
                return run(arguments, step=step)

        return at

    def estimates(
        self,
        inputs: Mapping[str, Any],
        law: Literal["formula", "accuracy"] = "formula",
        draws: int = DRAWS,
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
        generator = np.random.default_rng(seed)
        arguments = self._arguments(inputs)
        with self._inside() as run:
            values = run(arguments)
            squares = [_scatter(run, arguments, values, self._double(), generator, draws)]
            scales = [_GAIN]
            narrow = [name for name in self._units if name != "float64"]
            if law == "accuracy" and narrow:
                own = self._narrow(unit=narrow, constant=narrow)
                squares.append(_scatter(run, arguments, values, own, generator, draws))
                scales.append(1.0)
            elif law == "formula" and self._stays_narrow - {"float64"}:
                own = self._narrow(unit=[], constant=narrow)
                squares.append(_scatter(run, arguments, values, own, generator, draws))
                scales.append(1.0)
        return {
            key: [
                Estimate(array, _combined([s[key][i] for s in squares], scales))
                for i, array in enumerate(arrays)
            ]
            for key, arrays in values.items()
        }

    def _double(self) -> Units:
        unit, tiny = _GAIN * unit_roundoff("float64"), _GAIN * underflow("float64")
        return {
            name: {"unit": unit, "tiny": tiny, "constant": unit if name == "float64" else 0.0}
            for name in self._units
        }

    def _narrow(self, unit: list[str], constant: list[str]) -> Units:
        return {
            name: {
                "unit": unit_roundoff(name) if name in unit else 0.0,
                "tiny": underflow(name) if name in unit else 0.0,
                "constant": unit_roundoff(name) if name in constant else 0.0,
            }
            for name in self._units
        }

    def _arguments(
        self, inputs: Mapping[str, Any], direction: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        missing = [name for name in self.names if name not in inputs]
        if missing:
            raise InputError(f"Evaluation: no value for input {missing[0]!r}; it has {self.names}")
        at, along = {}, {}
        for name, aval in self._avals.items():
            value = inputs[name]
            if np.shape(value) != aval.shape:
                raise InputError(
                    f"Evaluation: input {name!r} has shape {np.shape(value)}; "
                    f"the program was traced with {aval.shape}"
                )
            if is_inexact(aval.dtype):
                wide = widen_dtype(aval.dtype)
                at[name] = np.asarray(value).astype(wide)
                given = (direction or {}).get(name)
                along[name] = self._still(name, wide) if given is None else np.asarray(given, wide)
            elif jnp.issubdtype(aval.dtype, jax.dtypes.prng_key):
                at[name] = value
            else:
                at[name] = np.asarray(value).astype(aval.dtype)
        return at, along

    def _still(self, name: str, dtype: Any) -> Array:
        """Return the direction that moves nothing: -0, so that even a zero keeps its sign."""
        return np.broadcast_to(np.asarray(-0.0, dtype), self._avals[name].shape)

    @contextlib.contextmanager
    def _inside(self) -> Iterator[Callable[..., Outputs]]:
        """Enter the context in which everything is computed, and give out the runner."""

        def run(
            arguments: Any, units: Units | None = None, pool: Array | None = None, step: float = 0.0
        ) -> Outputs:
            if pool is None:
                pool = np.zeros(POOL)
            rounding = jax.tree.map(np.float64, units or self._narrow([], []))
            outputs = self._compiled(*arguments, np.float64(step), rounding, pool)
            return {key: [np.asarray(array) for array in arrays] for key, arrays in outputs.items()}

        with without_checks(), jax.default_device(_cpu()):
            yield run

    @functools.cached_property
    def _compiled(self) -> Callable[..., dict[str, list[Any]]]:
        return jax.jit(self._evaluate)

    def _evaluate(
        self, at: Any, along: Any, step: Any, units: Units, pool: Any
    ) -> dict[str, list[Any]]:
        rounder = Rounder(Noise(pool), units, Constants(self._programs.values()))
        moved = {name: at[name] + step * along[name] if name in along else at[name] for name in at}
        outputs = {}
        for key, program in self._programs.items():
            limits = self._dtypes.get("reference", self._dtypes[key])
            rounder.allowed = frozenset(limits)
            arguments = [Value(moved[name], name in along) for name in program.in_names]
            results = rounder(program.jaxpr, arguments)
            outputs[key] = [_as_double(rounder.wide(value)) for value in results]
        self._stays_narrow = rounder.stays_narrow
        return outputs


def _scatter(
    run: Callable[..., Outputs],
    arguments: Any,
    values: Outputs,
    units: Units,
    generator: np.random.Generator,
    draws: int,
) -> Outputs:
    """Return the mean square deviation of noisy outputs from the values."""
    total = {key: [np.zeros(a.shape) for a in arrays] for key, arrays in values.items()}
    with np.errstate(all="ignore"):
        for _ in range(draws):
            noisy = run(arguments, units, fill_pool(generator))
            for key, arrays in noisy.items():
                for sum_, array, value in zip(total[key], arrays, values[key]):
                    sum_ += np.abs(array - value) ** 2 / draws
    return total


def _combined(squares: list[Array], scales: list[float]) -> Array:
    with np.errstate(all="ignore"):
        total = sum(square / scale**2 for square, scale in zip(squares, scales))
        return np.where(np.isnan(total), np.inf, np.sqrt(total))


def _as_double(array: Any) -> Any:
    return array if jnp.iscomplexobj(array) else jnp.asarray(array, jnp.float64)


def _float_names(program: Program) -> set[str]:
    """Return the names of the real dtypes that a program rounds to."""
    names = set()
    for jaxpr in jaxprs(program.jaxpr):
        parts = body(jaxpr)
        atoms = [*parts.constvars, *parts.invars]
        for equation in parts.equations:
            atoms += [*equation.invars, *equation.outvars]
            if equation.primitive.name == "reduce_precision":
                names.add(name_with_bits(equation.params["mantissa_bits"]))
        names |= {real_name(dtype) for dtype in map(dtype_of, atoms) if is_inexact(dtype)}
    return names


def _cpu() -> Any:
    try:
        return jax.devices("cpu")[0]
    except RuntimeError:  # a machine where JAX was told to use the accelerator alone
        return None
