"""`shard_map`: the body sees one device's part of each array, its place written as leading digits.

Where the body talks to no other device, each device reads its own parts only. Where it does,
every device counts as reading every other along the mesh's axes that the collectives name.
"""

import math
from typing import Any

from gradlab.patterns import Pattern, maps
from gradlab.primitives import lookup
from gradlab.structure.control import apply
from gradlab.structure.infer import CONTROL, Shape, Traced, Walk
from gradlab.tracing.jaxprs import body, contains


def _shard_map(walk: Walk, equation: Any, operands: list[Traced]) -> list[Traced]:
    params = equation.params
    inner = params["jaxpr"]
    mesh = dict(params["mesh"].shape)
    try:
        views = [
            _view(spec, mesh, walk.shape(atom))
            for spec, atom in zip(params["in_specs"], equation.invars, strict=True)
        ]
        results = [
            _view(spec, mesh, walk.shape(atom))
            for spec, atom in zip(params["out_specs"], equation.outvars, strict=True)
        ]
    except (AttributeError, TypeError, ValueError):  # a spec of another kind
        return walk.dense(equation, operands, "a sharding that gradlab does not read")
    seeds = [
        Traced({n: Pattern.identity(walk.shape(v))} if given.reads else {}, None, given.offset)
        for n, (v, given) in enumerate(zip(body(inner).invars, operands, strict=True))
    ]
    devices = tuple(mesh.values())
    joined = _joined(inner, list(mesh))
    apart = [(k, ~k) for k, name in enumerate(mesh) if name not in joined]
    between = Pattern.from_axes(devices, devices, apart)
    if any(mesh[name] > 1 for name in joined):
        walk.note(equation, f"devices talk to each other along {', '.join(sorted(joined))}")
    states = dict(enumerate(operand.reads for operand in operands))
    made: list[Traced] = []
    for result, out in zip(walk.run(inner, seeds), results, strict=True):
        blocks = [
            (n, out.T @ maps.product(between, pattern) @ views[n])
            for n, pattern in result.reads.items()
        ]
        offset = None if result.vanishes else walk.offset(equation, [result])
        made.append(Traced(apply(blocks, states), None, offset))
    return made


def _joined(jaxpr: Any, names: list[str]) -> set[str]:
    """Return the mesh axes along which devices talk to each other; all, where that is not said."""
    joined: set[str] = set()

    def look(equation: Any) -> bool:
        if lookup(equation.primitive.name).talks:
            said = equation.params.get("axes", equation.params.get("axis_name"))
            listed = said if isinstance(said, tuple | list) else (said,)
            joined.update(listed if set(listed) <= set(names) else names)
        return False

    contains(jaxpr, look)
    return joined


def _view(spec: Any, mesh: dict[str, int], shape: Shape) -> Pattern:
    """Return (mesh axes, one device's part) <- global array, for a partition spec."""
    named = [() if n is None else n if isinstance(n, tuple) else (n,) for n in tuple(spec)]
    named += [()] * (len(shape) - len(named))
    digits: list[int] = []
    place: dict[str, int] = {}
    local: list[int] = []
    for size, names in zip(shape, named):
        for name in names:
            place[name] = len(digits)
            digits.append(mesh[name])
        local.append(len(digits))
        digits.append(size // math.prod(mesh[name] for name in names))
    order = [place[name] for name in mesh if name in place] + local
    split = tuple(digits[k] for k in order)
    stacked = (*mesh.values(), *(digits[k] for k in local))
    kept = [k for k, name in enumerate(mesh) if name in place]
    kept += range(len(mesh), len(stacked))
    moved = maps.transpose(tuple(digits), tuple(order)) @ maps.reshape(shape, tuple(digits))
    return maps.broadcast_in_dim(split, stacked, tuple(kept)) @ moved


CONTROL["shard_map"] = _shard_map
