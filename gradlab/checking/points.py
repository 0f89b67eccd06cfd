"""The forward in float64 at many points at once: compiled once, one row per point."""

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np

from gradlab.checking.widen import widen
from gradlab.tracing import Lifter, Program, Value, without_checks
from gradlab.tracing.constants import Constants
from gradlab.tracing.leaves import is_inexact

__all__ = ["Points"]


class Points:
    """A program lifted to float64, and evaluated at batches of points.

    Constants are those of the programs that it is compared with, to the last digit.
    """

    def __init__(self, program: Program, companions: Iterable[Program]) -> None:
        self._program = program
        self._constants = Constants([program, *companions])
        self._compiled: dict[tuple[str, ...], Any] = {}

    def __call__(
        self, values: dict[str, Any], cases: Sequence[dict[str, Any]]
    ) -> list[np.ndarray[Any, Any]]:
        """Return the outputs, one row per case; all cases change the same inputs."""
        moved = tuple(cases[0])
        rows = [np.stack([np.asarray(case[name]) for case in cases]) for name in moved]
        fixed = {n: widen(values[n]) for n in self._program.in_names if n not in moved}
        with without_checks():
            return [np.asarray(output) for output in self._batched(moved)(rows, fixed)]

    def _batched(self, moved: tuple[str, ...]) -> Any:
        if moved not in self._compiled:

            def one(changed: Sequence[Any], fixed: dict[str, Any]) -> list[Any]:
                values = {**fixed, **dict(zip(moved, changed))}
                lifter = _Exact(self._constants)
                arguments = [
                    Value(values[name], is_inexact(aval.dtype))
                    for name, aval in zip(self._program.in_names, self._program.in_avals)
                ]
                outputs = lifter(self._program.jaxpr, arguments)
                return [lifter.wide(value) for value in outputs]

            self._compiled[moved] = jax.jit(jax.vmap(one, in_axes=(0, None)))
        return self._compiled[moved]


class _Exact(Lifter):
    """Lifts, with the digits that constants have lost in a narrow trace."""

    def __init__(self, constants: Constants) -> None:
        self._constants = constants

    def enters(self, array: Any, dtype: Any, rough: bool) -> Any:
        if isinstance(array, np.ndarray):
            return self._constants.lifted(array)[0]
        return super().enters(array, dtype, rough)
