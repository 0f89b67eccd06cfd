"""Values that reach an output without a derivative: through comparisons, indices, `stop_gradient`.

A pattern of derivatives does not show them. So the function's own program is walked, with a seed in
each input. An equation without a derivative replaces these seeds by new ones, one for each input.
The outputs that read a new seed read an input through that equation. A loop's body has seeds of its
own. So inside loops such equations keep the seeds that they read. Where values then go beyond the
pattern, the walk runs again with one of these equations at a time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gradlab.patterns import Pattern
from gradlab.patterns.size import Sizes
from gradlab.primitives import Site, lookup
from gradlab.structure.conditions import Accept, refuse
from gradlab.structure.infer import Traced, Walk, union
from gradlab.structure.sizes import in_sizes
from gradlab.tracing.dependence import flow
from gradlab.tracing.jaxprs import dtype_of
from gradlab.tracing.leaves import is_inexact
from gradlab.tracing.program import Program

_LOOPS = frozenset({"scan", "while"})
_SHOWN = 3
_TRIED = 8
_Found = dict[tuple[str, str], dict[str, None]]
"""For the paths of an output and an input: through which equations values go beyond the pattern."""


@dataclass(eq=False)
class _Values(Walk):
    """The walk of a program with seeds in its inputs.

    Attributes:
        given: how many inputs have seeds.
        hidden: for an input and an equation without a derivative, the seed of what it makes.
        loops: how many loops the walk is inside of; their bodies have seeds of their own.
        inside: the equations without a derivative that were met in loops.
        only: those of them that carry on what they read; None: all.
    """

    given: int = 0
    hidden: dict[tuple[int, str], int] = field(default_factory=dict)
    loops: int = 0
    inside: dict[str, None] = field(default_factory=dict)
    only: frozenset[str] | None = None

    def equation(self, equation: Any, operands: list[Traced]) -> list[Traced]:
        """Return what each output of an equation reads, with and without a derivative."""
        name = equation.primitive.name
        self.loops += name in _LOOPS
        made = super().equation(equation, operands)
        self.loops -= name in _LOOPS
        return [
            self._hide(value, equation) if _is_flat(name, variable) else value
            for variable, value in zip(equation.outvars, made, strict=True)
        ]

    def dense(self, equation: Any, operands: Sequence[Traced], why: str) -> list[Traced]:
        """Let every output read every seed; how often a loop runs has no derivative."""
        made = super().dense(equation, operands, why)
        if equation.primitive.name != "while":
            return made
        self.loops -= 1  # it is no part of its own body
        made = [self._hide(value, equation) for value in made]
        self.loops += 1
        return made

    def _hide(self, value: Traced, equation: Any) -> Traced:
        parts: dict[int, list[Pattern]] = {}
        where = f"{_word(equation)} at {self.source(equation)}".removesuffix(" at ")
        if self.loops and value.reads:
            self.inside[where] = None
            shown = self.only is None or where in self.only
            return value if shown else replace(value, reads={}, parts=None)
        for seed, pattern in value.reads.items():
            if seed < self.given:
                seed = self.hidden.setdefault((seed, where), self.given + len(self.hidden))
            parts.setdefault(seed, []).append(pattern)
        return replace(value, reads=union(parts), parts=None)

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
    accept: Accept = refuse,
) -> str:
    """Say through which equations values reach outputs outside of the pattern; "": through none.

    Args:
        program: the function.
        inputs: the flat inputs that it is differentiated by.
        outputs: the flat outputs that are differentiated.
        patterns: for the path of an output and of an input, where derivatives may differ from 0.
        sizes: the sizes that have names.
        accept: which conditions the patterns may take to hold.
    """
    flat: list[str] = []

    def see(equation: Any, flags: Sequence[bool]) -> None:
        name = equation.primitive.name
        if name == "while" or any(_is_flat(name, variable) for variable in equation.outvars):
            flat.append(name)

    flow(program.jaxpr, [k in inputs for k in range(len(program.in_avals))], see)
    if not flat:
        return ""
    states = [Traced()] * len(program.in_avals)
    for n, k in enumerate(inputs):
        shape = in_sizes(tuple(program.in_avals[k].shape), sizes)
        states[k] = Traced({n: Pattern.identity(shape)})

    def walked(only: frozenset[str] | None) -> tuple[dict[str, None], _Found]:
        walk = _Values(sizes=sizes, accept=accept, given=len(inputs), only=only)
        results = walk.run(program.jaxpr, states)
        places = {n: (n, "") for n in range(len(inputs))}
        places |= {seed: place for place, seed in walk.hidden.items()}
        beyond: _Found = {}
        for k in outputs:
            for seed, (source, where) in places.items():
                reached = results[k].reads.get(seed)
                pair = program.out_names[k], program.in_names[inputs[source]]
                if reached is not None and not patterns[pair].covers(reached):
                    beyond.setdefault(pair, {})[where] = None
        return walk.inside, beyond

    inside, found = walked(None)
    suspects = [pair for pair, places in found.items() if "" in places] if inside else []
    if suspects:
        without = walked(frozenset())[1]
        suspects = [pair for pair in suspects if "" not in without.get(pair, {})]
    if suspects:
        first = [*inside][:_TRIED]
        ones = {where: walked(frozenset([where]))[1] for where in first}
        others = {where: walked(frozenset(inside) - {where})[1] for where in first}
        for pair in suspects:
            alone = [where for where, one in ones.items() if "" in one.get(pair, {})]
            needed = [where for where, rest in others.items() if "" not in rest.get(pair, {})]
            found[pair] |= dict.fromkeys(alone or needed[:1] or inside)
    for places in found.values():
        places.pop("", None)
    single = len(outputs) == 1
    said = [
        f"{given} also reaches {'out' if single else made} through "
        f"{' and '.join([*places][:_SHOWN])}"
        for (made, given), places in found.items()
        if places
    ]
    more = ", which has no derivative; this pattern is about derivatives alone"
    return f"{'; '.join(said[:_SHOWN])}{more}" if said else ""
