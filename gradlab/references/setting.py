"""What is evaluated together: programs, their constants, and the digits in which they run."""

import functools
import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from gradlab.common.arrays import Array
from gradlab.references.noise import Units
from gradlab.references.rounding import Rounder
from gradlab.tracing import Program, Value
from gradlab.tracing.constants import Constants, constants_of
from gradlab.tracing.leaves import is_inexact
from gradlab.tracing.work import Work, work


@dataclass(frozen=True, eq=False)
class Setting:
    """Programs that are evaluated together."""

    programs: Mapping[str, Program]  # by keyword
    dtypes: Mapping[str, frozenset[str]]  # the real dtypes to which each rounds where it runs
    device: Any  # where they run in their own dtypes
    silence: Units  # units of a draw without noise

    @functools.cached_property
    def constants(self) -> Constants:
        """The constants of all programs, in float64."""
        return constants_of(tuple(self.programs.values()))

    @functools.cached_property
    def entries(self) -> int:
        """How many entries the inputs and outputs of the largest program have."""
        shapes: list[list[tuple[int, ...]]] = [
            [aval.shape for aval in (*p.in_avals, *p.out_avals)] for p in self.programs.values()
        ]
        return max(sum(map(math.prod, each)) for each in shapes)

    @functools.cached_property
    def work(self) -> Work:
        """How much work one evaluation of all programs is."""
        each = [work(program.jaxpr) for program in self.programs.values()]
        return Work(
            equations=sum(one.equations for one in each),
            steps=sum(one.steps for one in each),
            entries=sum(one.entries for one in each),
            held=sum(one.held for one in each),
            largest=max(one.largest for one in each),
            counted=all(one.counted for one in each),
        )

    @functools.cached_property
    def identity(self) -> Hashable | None:
        """A key that only settings share which compute the same; None where that is unknown."""
        rows = [(key, p.computes, p.in_names) for key, p in self.programs.items()]
        if any(row[1] is None for row in rows):
            return None
        return *rows, self.constants.identity, self.device.platform, self.device.device_kind

    def evaluate(
        self, rounder: Rounder, arguments: Mapping[str, Array]
    ) -> tuple[list[Any], dict[str, list[int]]]:
        """Evaluate the programs with one rounder: they share what they have in common.

        Returns the distinct outputs, and which of them are each program's, in order.
        """
        distinct: dict[int, tuple[int, Any]] = {}
        layout = {}
        for key, program in self.programs.items():
            rounder.allowed = frozenset(self.dtypes.get("reference", self.dtypes[key]))
            values = [
                Value(arguments[name], is_inexact(aval.dtype))
                for name, aval in zip(program.in_names, program.in_avals)
            ]
            results = [rounder.wide(value) for value in rounder(program.jaxpr, values)]
            layout[key] = [
                distinct.setdefault(id(array), (len(distinct), array))[0] for array in results
            ]
        return [array for _, array in distinct.values()], layout
