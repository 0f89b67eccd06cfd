"""A group is replaced by a hand-written node only if both are the same function."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gradlab.common.arrays import Array
from gradlab.errors import InputError
from gradlab.graph._plan import Step
from gradlab.nodes import Node

if TYPE_CHECKING:
    from gradlab.references import Estimate

_DRAWS = 3


def require_same(group: Step, node: Node, inputs: Sequence[Array]) -> None:
    """Raise an InputError unless a node computes what a group does, and with the same gradient.

    Both references are evaluated in float64, at the inputs at hand and at others from the node's
    domain, and held against each other by the floors of `gradlab.references`.
    """
    from gradlab.references import Evaluation, vjp_program
    from gradlab.tracing import trace

    low, high = node.arity()
    if group.several or not low <= len(inputs) <= high:
        raise InputError(
            f"as_node: {node!r} does not fit the group, which has {len(inputs)} input(s) and "
            f"{len(group.outputs)} output(s)"
        )
    wide = [_wide(x) for x in inputs]
    names = [f"x{i}" for i in range(len(wide))]
    programs = {
        "reference": trace(group.node.reference, *wide, names=names),
        "node": trace(node.reference, *wide, names=names),
    }
    (here,), (there,) = (program.out_avals for program in programs.values())
    if here.shape != there.shape:
        raise InputError(
            f"as_node: the group has an output of shape {tuple(here.shape)}, {node!r} one of "
            f"shape {tuple(there.shape)}"
        )
    lab = Evaluation(**{key: vjp_program(program) for key, program in programs.items()})
    rng = np.random.default_rng(0)
    for _ in range(_DRAWS):
        upstream = rng.standard_normal(here.shape)
        estimates = lab.estimates({**dict(zip(names, wide)), "upstream": upstream})
        for what, ours, theirs in zip(
            ("output", *(f"gradient of input {i}" for i in range(len(wide)))),
            estimates["reference"],
            estimates["node"],
        ):
            _require_right(node, what, ours, theirs)
        wide = [node.domain(i).draw(rng, x.shape) for i, x in enumerate(wide)]


def _require_right(node: Node, what: str, ours: "Estimate", theirs: "Estimate") -> None:
    from gradlab.references import judge

    verdict = judge(theirs.value, ours, theirs, np.float64)
    if verdict.wrong.any():
        index = verdict.worst
        raise InputError(
            f"as_node: {node!r} is not the same function as the group: "
            f"{what}{list(index or ())} is {theirs.value[index]:.6g}, "
            f"and should be {ours.value[index]:.6g}"
        )


def _wide(x: Array) -> Array:
    x = np.asarray(x)
    return x if x.dtype.kind in "iub" else x.astype(float)
