"""What is under test: a rule, what is believed in its place, and the point at which both are held.

However the user said it (custom rules in a function, `backward=`, a node, a second function), it
becomes the same thing: a program from inputs and upstreams to outputs and gradients, beside another
that is believed. Laws read nothing else.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gradlab.checking.domain import Domain
from gradlab.checking.probes import Calls
from gradlab.common.arrays import Array, DTypeLike
from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.report import Rule, Unchecked
from gradlab.tracing import Leaf, Program, calls_outside

Arrays = dict[str, Any]

_PROGRAMS = ("forward", "rule", "reference", "tangent", "pushforward")


def anywhere(inputs: Mapping[str, Array]) -> bool:
    """Return that a program is the function at every input."""
    return True


@dataclass(frozen=True)
class Upstream:
    """The gradient that arrives at one output."""

    name: str
    output: str
    shape: tuple[int, ...]
    dtype: DTypeLike


@dataclass(frozen=True)
class Complaint:
    """A gradient whose form is wrong: its shape, its dtype, its place in the input's tree.

    `fault`: the rule is wrong; else something cannot be run that may well be right.
    """

    path: str
    text: str
    kind: str
    fault: bool = True


@dataclass(frozen=True)
class Subject:
    """A rule under test.

    Programs map inputs and upstreams, by name, to outputs followed by one gradient per target.
    `rule` is None where JAX cannot trace; `reference` is None where finite differences must do.
    `believed` is the forward whose VJP the reference is.
    `run` evaluates the rule as the user would run it, in its own dtypes; `primal` the forward.
    `stated`: the user gave the reference, so it is intended even where it is no derivative.
    `approximate`: the reference iterates, and is right only up to its convergence.
    `opaque`: some of it runs in its own dtype even when lifted, and is judged in that.
    `constant`: the inputs that are the same wherever the subject is met.
    `together`: the sets of targets that have tangents together, where it is not each alone.
    `intended`: what its author means by it, in words; "any": its derivative is not judged.
    `domain`: which inputs are legal. `rules`: the rules that it holds, as reports list them.
    `unchecked`: the inputs that are not targets, each with the reason.
    `read`: the forward is NumPy, read as a program: the real one is called besides.
    `asked`: the programs of the values by which what was read decided.
    `holds`: whether it decides by the values of such inputs as it did where it was read.
    `forward_mode`: there is no reverse mode, and the rule's gradient is made of pushforwards.
    `loops`: something iterates, and might never end far from the given inputs.
    `calls`: how often what cannot be read was called, and may be.
    """

    name: str
    values: Arrays
    targets: tuple[Leaf, ...]
    upstreams: tuple[Upstream, ...]
    outputs: tuple[str, ...]
    run: Callable[[Arrays], list[Any]]
    primal: Callable[[Arrays], list[Any]]
    oracle: str
    forward: Program | None = None
    rule: Program | None = None
    believed: Program | None = None
    reference: Program | None = None
    tangent: Program | None = None
    pushforward: Program | None = None
    stated: bool = False
    approximate: bool = False
    loops: bool = False
    opaque: bool = False
    read: bool = False
    asked: tuple[Program, ...] = ()
    holds: Callable[[Mapping[str, Any]], bool] = anywhere
    eager: bool = False
    forward_mode: bool = False
    complaints: tuple[Complaint, ...] = ()
    notes: tuple[str, ...] = ()
    shapes: tuple[tuple[int, ...], ...] = field(default=())
    unchecked: tuple[Unchecked, ...] = ()
    constant: tuple[str, ...] = ()
    together: tuple[tuple[str, ...], ...] | None = None
    intended: str = ""
    domain: Domain = field(default_factory=Domain)
    rules: tuple[Rule, ...] = ()
    calls: Calls = field(default_factory=Calls)

    def __post_init__(self) -> None:
        """Count by runs of the forward; where nothing leaves it, by runs of the rule."""
        self.calls.each = self.outside.get("forward") or self.outside.get("rule") or 1

    @property
    def programs(self) -> dict[str, Program]:
        """The programs that are evaluated, by the names of their fields."""
        named = {name: getattr(self, name) for name in _PROGRAMS}
        return {name: program for name, program in named.items() if program is not None}

    @functools.cached_property
    def outside(self) -> dict[str, int]:
        """How often a run of a program calls code outside of it, which cannot be read; if any."""
        counts = {name: sum(calls_outside(p.jaxpr)) for name, p in self.programs.items()}
        return {name: count for name, count in counts.items() if count}

    def grants(self, programs: Iterable[str], times: int) -> bool:
        """Whether these programs may be run so often, for all that they call outside of them."""
        each = sum(self.outside.get(name, 0) for name in programs)
        return not each or self.calls.grants(times * each)

    @property
    def unread(self) -> bool:
        """Whether the forward can be called, and not be read."""
        return self.forward is None or "forward" in self.outside

    @property
    def searchable(self) -> bool:
        """Whether the gradients of edited source cost few calls of what cannot be read."""
        backward = self.outside.get("rule", 0) - self.outside.get("forward", 0)
        return backward <= 0 and not (self.unread and self.reference is None)

    @property
    def is_called(self) -> bool:
        """Whether the forward itself is asked for slopes: it was not read for all values."""
        return self.unread or self.holds is not anywhere

    @property
    def linear(self) -> bool:
        """Whether there is an upstream at all; a loss that returns its own gradient has none."""
        return bool(self.upstreams)

    @functools.cached_property
    def odd(self) -> tuple[bool, ...]:
        """Which targets have a gradient of a wrong shape, so that no entry can be compared."""
        return tuple(s != np.shape(self.values[t.path]) for s, t in zip(self.shapes, self.targets))

    @functools.cached_property
    def dtypes(self) -> str:
        """The dtypes of the targets, each named once."""
        return ", ".join(dict.fromkeys(str(target.dtype) for target in self.targets))


def nothing_to_differentiate(leaves: Sequence[Leaf], wrt: Sequence[int] | None) -> InputError:
    """Return what to raise where no input has a gradient."""
    asked = [leaf for leaf in leaves if wrt is None or leaf.position in wrt]
    kinds = " and ".join(f"{leaf.path} is {leaf.dtype or leaf.kind}" for leaf in asked)
    so = "it has no gradient" if len(asked) == 1 else "they have no gradient"
    names = " and ".join(leaf.path for leaf in asked)
    alone = "" if wrt is None else f", and you asked for {names} alone"
    if not asked:
        return InputError("there is no input, so there is no gradient; give a float array")
    shape, dtype = shape_text(asked[0].shape), asked[0].dtype
    return InputError(
        f"{kinds}, so {so}{alone}; give a float array", (f"{shape}:{dtype}", f"{shape}:float32")
    )


def unchecked(leaves: Sequence[Leaf], targets: Sequence[Leaf]) -> tuple[Unchecked, ...]:
    """Return the arrays and numbers among the inputs that are not checked, and why."""
    checked = {target.path for target in targets}
    return tuple(_unchecked(leaf) for leaf in leaves if leaf.path not in checked)


def _unchecked(leaf: Leaf) -> Unchecked:
    if leaf.differentiable:
        text = f"no gradient of {leaf.path} was asked for or returned, so it was not checked"
    elif leaf.traced:
        what = "a random key" if leaf.kind == "key" else str(leaf.dtype)
        text = f"{leaf.path} is {what}, so it has no gradient and was not checked"
    else:
        what = "None" if leaf.kind == "none" else "a setting"
        text = f"{leaf.path} is {what}, not an array, so it was not checked"
    return Unchecked(leaf.path, "" if leaf.dtype is None else str(leaf.dtype), text)
