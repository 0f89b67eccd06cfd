"""One example by itself, to hold its gradient against its row in the gradient of the batch.

That is asked only where the program proves it should hold: axis 0 is a batch where each row of
every output depends on no other row of the inputs that share the axis (`gradlab.structure`).
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from gradlab.patterns import Pattern
from gradlab.structure import JacobianReport, jacobian
from gradlab.tracing import Program, trace

__all__ = ["Example", "example_of"]


@dataclass(frozen=True, eq=False)
class Example:
    """A function traced at a batch of one.

    Args:
        forward: the function, at one row of the inputs in `cut` and all of the others.
        trace: traces it again, under other settings of JAX.
        cut: the names of the inputs that have one row per example.
        length: how many examples the batch has.
    """

    forward: Program
    trace: Callable[[], Program]
    cut: frozenset[str]
    length: int

    @property
    def places(self) -> tuple[int, ...]:
        """The examples that are tried: the first, one in the middle, the last."""
        return tuple(sorted({0, self.length // 2, self.length - 1}))

    def values(
        self, values: dict[str, Any], upstreams: Sequence[str], place: int
    ) -> dict[str, Any]:
        """Return the values of one example: its rows of the inputs that are cut, and upstreams."""
        rows = self.cut | set(upstreams)
        return {
            name: value[place : place + 1] if name in rows else value
            for name, value in values.items()
        }


def example_of(
    function: Callable[..., Any], inputs: tuple[Any, ...], forward: Program
) -> tuple[Example | None, str]:
    """Return the function at a batch of one, and how the batch is known, or why there is none.

    Args:
        function: a JAX function.
        inputs: its inputs, arrays or pytrees.
        forward: the function traced at them.
    """
    report = jacobian(function, *inputs).report
    lengths = {side.shape[0] if side.shape else 0 for side in report.outputs}
    length = lengths.pop()
    if lengths or length == 0:
        return None, "its outputs have no first axis in common"
    if length == 1:
        return None, "its first axis has one row"
    sharing = [side.path for side in report.inputs if side.shape[:1] == (length,)]
    cut = frozenset(path for path in sharing if _independent(report, path))
    if not cut:
        return None, _reason(report, sharing, length)
    others = set(forward.in_names) - {side.path for side in report.inputs}
    unknown = [
        name
        for name, aval in zip(forward.in_names, forward.in_avals)
        if name in others and tuple(aval.shape[:1]) == (length,)
    ]
    if unknown:
        return None, f"{unknown[0]} is not differentiated: whether its rows belong is not known"
    again = functools.partial(trace, function, *_first_rows(inputs, forward, cut))
    try:
        alone = again()
    except Exception as error:  # the function may hold the batch's size
        return None, f"the function does not take one row ({str(error).partition(chr(10))[0][:80]})"
    if any(
        tuple(one.shape) != (1, *many.shape[1:])
        for one, many in zip(alone.out_avals, forward.out_avals)
    ):
        return None, "the function does not return one row for one row"
    names = ", ".join(name for name in forward.in_names if name in cut)
    told = f"axis 0 of {names}, {length} rows, proved independent"
    return Example(alone, again, cut, length), told


def _independent(report: JacobianReport, path: str) -> bool:
    """Whether each row of an input reaches its own row of every output, and some output at all."""
    patterns = [report.patterns[out.path, path] for out in report.outputs]
    rows = [Pattern.from_axes(p.output_shape, p.input_shape, [(0, ~0)]) for p in patterns]
    return any(p.nnz for p in patterns) and all(r.covers(p) for r, p in zip(rows, patterns))


def _reason(report: JacobianReport, sharing: list[str], length: int) -> str:
    if not sharing:
        return f"no input has the {length} rows of the output"
    found = [c for c in report.couplings if c.path in sharing and c.axis == 0]
    return (
        f"axis 0 of {found[0].path} is coupled at {found[0]}"
        if found
        else f"the rows of {sharing[0]} are not proved independent"
    )


def _first_rows(inputs: tuple[Any, ...], forward: Program, cut: frozenset[str]) -> tuple[Any, ...]:
    leaves, tree = jax.tree.flatten(inputs, is_leaf=lambda leaf: leaf is None)
    rows = [
        value[:1] if leaf.path in cut else value
        for value, leaf in zip(leaves, forward.leaves, strict=True)
    ]
    found: tuple[Any, ...] = jax.tree.unflatten(tree, rows)
    return found
