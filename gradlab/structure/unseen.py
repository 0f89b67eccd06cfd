"""Values that reach an output without a derivative: through comparisons, indices, `stop_gradient`.

A pattern of derivatives does not show them. So the function's own program is walked, with a seed in
each input. An equation without a derivative replaces these seeds by new ones, one for each input.
The outputs that read a new seed read an input through that equation. Loop bodies are not entered.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gradlab.patterns import Pattern
from gradlab.patterns.size import Sizes
from gradlab.primitives import Site, lookup
from gradlab.structure.infer import Traced, Walk, union
from gradlab.structure.sizes import in_sizes
from gradlab.tracing.dependence import flow
from gradlab.tracing.jaxprs import dtype_of
from gradlab.tracing.leaves import is_inexact
from gradlab.tracing.program import Program

_LOOPS = frozenset({"scan", "while"})
_SHOWN = 3


@dataclass(eq=False)
class _Values(Walk):
    """The walk of a program with seeds in its inputs.

    Attributes:
        given: how many inputs have seeds.
        hidden: for an input and an equation without a derivative, the seed of what it makes.
        loops: how many loops the walk is inside of; their bodies have seeds of their own.
    """

    given: int = 0
    hidden: dict[tuple[int, str], int] = field(default_factory=dict)
    loops: int = 0

    def equation(self, equation: Any, operands: list[Traced]) -> list[Traced]:
        """Return what each output of an equation reads, with and without a derivative."""
        name = equation.primitive.name
        self.loops += name in _LOOPS
        made = super().equation(equation, operands)
        self.loops -= name in _LOOPS
        return [
            self._hide(value, equation) if not self.loops and _is_flat(name, variable) else value
            for variable, value in zip(equation.outvars, made, strict=True)
        ]

    def dense(self, equation: Any, operands: Sequence[Traced], why: str) -> list[Traced]:
        """Let every output read every seed; how often a loop runs has no derivative."""
        made = super().dense(equation, operands, why)
        if equation.primitive.name != "while" or self.loops > 1:
            return made
        return [self._hide(value, equation) for value in made]

    def _hide(self, value: Traced, equation: Any) -> Traced:
        parts: dict[int, list[Pattern]] = {}
        where = f"{_word(equation)} at {self.source(equation)}".removesuffix(" at ")
        for seed, pattern in value.reads.items():
            if seed < self.given:
                seed = self.hidden.setdefault((seed, where), self.given + len(self.hidden))
            parts.setdefault(seed, []).append(pattern)
        return replace(value, reads=union(parts))

    def site_of(self, equation: Any, operands: Sequence[Traced]) -> Site:
        """Return an equation as the rules see it: what is known of a value holds at every input."""
        site = super().site_of(equation, operands)
        sorts = equation.primitive.name == "sort"  # its order is that of its keys
        return replace(
            site,
            depends=tuple(sorts and carries for carries in site.depends),
            vanishes=tuple(operand.is_zero for operand in operands),
        )


def _word(equation: Any) -> str:
    """Return what an equation without a derivative is, as a person calls it."""
    if equation.outvars[0].aval.dtype == np.bool_:
        return "a comparison"
    name: str = equation.primitive.name
    return {"convert_element_type": "a cast to integers", "while": "a loop"}.get(name, name)


def _is_flat(name: str, variable: Any) -> bool:
    return lookup(name).flat or not is_inexact(dtype_of(variable))


def unseen(
    program: Program,
    inputs: Sequence[int],
    outputs: Sequence[int],
    patterns: Mapping[tuple[str, str], Pattern],
    sizes: Sizes | None,
) -> str:
    """Say through which equations values reach outputs outside of the pattern; "": through none.

    Args:
        program: the function.
        inputs: the flat inputs that it is differentiated by.
        outputs: the flat outputs that are differentiated.
        patterns: for the path of an output and of an input, where derivatives may differ from 0.
        sizes: the sizes that have names.
    """
    flat: list[str] = []

    def see(equation: Any, flags: Sequence[bool]) -> None:
        name = equation.primitive.name
        if name == "while" or any(_is_flat(name, variable) for variable in equation.outvars):
            flat.append(name)

    flow(program.jaxpr, [k in inputs for k in range(len(program.in_avals))], see)
    if not flat:
        return ""
    walk = _Values(sizes=sizes, given=len(inputs))
    states = [Traced()] * len(program.in_avals)
    for n, k in enumerate(inputs):
        shape = in_sizes(tuple(program.in_avals[k].shape), sizes)
        states[k] = Traced({n: Pattern.identity(shape)})
    results = walk.run(program.jaxpr, states)
    found: dict[tuple[str, str], dict[str, None]] = {}
    for k in outputs:
        for (source, where), seed in walk.hidden.items():
            reached = results[k].reads.get(seed)
            pair = program.out_names[k], program.in_names[inputs[source]]
            if reached is not None and not patterns[pair].covers(reached):
                found.setdefault(pair, {})[where] = None
    alone = len(outputs) == 1
    said = [
        f"{given} also reaches {'out' if alone else made} through "
        f"{' and '.join([*places][:_SHOWN])}"
        for (made, given), places in found.items()
    ]
    more = ", which has no derivative; this pattern is about derivatives alone"
    return f"{'; '.join(said[:_SHOWN])}{more}" if said else ""
