"""`shard_map`: the body sees one device's part of each array, its place written as leading digits.

Where the body talks to no other device, each device reads its own parts only. Where it does,
every device counts as reading every other along the mesh's axes that the collectives name.
"""

import math
from typing import Any

from gradlab.patterns import Pattern, maps
from gradlab.structure.control import apply, dense
from gradlab.structure.infer import CONTROL, NOTHING, Value, Walk
from gradlab.structure.sites import Shape, Site, rule
from gradlab.tracing.jaxprs import body, contains

__all__: list[str] = []

_TALKING = frozenset({
    "all_gather", "all_gather_invariant", "all_gather_reduced", "all_to_all", "ppermute", "psum",
    "psum_invariant", "ragged_all_to_all", "reduce_scatter", "unreduced_psum",
    "unreduced_reduce_scatter", "pbroadcast", "pbroadcast_dynamic", "preduced", "pmax", "pmin",
})  # fmt: skip


@rule("psum", "psum_invariant", "unreduced_psum", "ppermute", "pbroadcast", "preduced",
      "reduced_vary_cast", "reduced_vary_cast_p", "vary_unreduced_cast", "vary_unreduced_cast_p",
      "pbroadcast_dynamic", "pmax", "pmin")  # fmt: skip
def same_place(site: Site, k: int) -> tuple[Pattern | None, ...]:
    """The other devices' entries at the same place."""
    return tuple(
        Pattern.identity(shape) if j == k and shape == site.in_shapes[k] else None
        for j, shape in enumerate(site.out_shapes)
    )


@rule("all_gather", "all_gather_invariant", "all_gather_reduced", "all_to_all", "reduce_scatter",
      "unreduced_reduce_scatter", "ragged_all_to_all")  # fmt: skip
def other_places(site: Site, k: int) -> tuple[Pattern, ...]:
    """Parts of arrays change places: axes of unchanged size stay equal, if no axis is new."""
    given, made = site.in_shapes[k], site.shape
    named = {site.params.get(key) for key in ("split_axis", "concat_axis")}
    if len(given) != len(made) or site.name == "ragged_all_to_all":
        return site.dense(k)
    pairs = [(a, a) for a, (m, n) in enumerate(zip(made, given)) if m == n and a not in named]
    return (maps.contraction(made, given, tuple(pairs)),)


def _shard_map(walk: Walk, equation: Any, operands: list[Value]) -> list[Value]:
    params = equation.params
    inner = params["jaxpr"]
    mesh = dict(params["mesh"].shape)
    try:
        views = [
            _view(spec, mesh, tuple(atom.aval.shape))
            for spec, atom in zip(params["in_specs"], equation.invars, strict=True)
        ]
        results = [
            _view(spec, mesh, tuple(atom.aval.shape))
            for spec, atom in zip(params["out_specs"], equation.outvars, strict=True)
        ]
    except (AttributeError, TypeError, ValueError):  # a spec of another kind
        return dense(walk, equation, operands, "a sharding that gradlab does not read")
    seeds: list[Value] = [
        ({n: Pattern.identity(tuple(v.aval.shape))} if dependence else NOTHING, None)
        for n, (v, (dependence, _)) in enumerate(zip(body(inner).invars, operands, strict=True))
    ]
    devices = tuple(mesh.values())
    joined = _joined(inner, list(mesh))
    apart = [(k, ~k) for k, name in enumerate(mesh) if name not in joined]
    between = Pattern.from_axes(devices, devices, apart)
    if any(mesh[name] > 1 for name in joined):
        walk.note(equation, f"devices talk to each other along {', '.join(sorted(joined))}")
    states = dict(enumerate(dependence for dependence, _ in operands))
    made: list[Value] = []
    for (found, _), out in zip(walk.run(inner, seeds), results, strict=True):
        blocks = [
            (n, out.T @ maps.product(between, pattern) @ views[n]) for n, pattern in found.items()
        ]
        made.append((apply(blocks, states), None))
    return made


def _joined(jaxpr: Any, names: list[str]) -> set[str]:
    """Return the mesh axes along which devices talk to each other; all, where that is not said."""
    joined: set[str] = set()

    def look(equation: Any) -> bool:
        if equation.primitive.name in _TALKING:
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
