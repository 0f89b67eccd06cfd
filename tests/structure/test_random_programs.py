"""Soundness: random JAX programs, their inferred pattern against `jax.jacrev` at several points.

Programs are run equation by equation on a few tiny shapes, so that XLA's compilations are shared.
"""

import collections
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from programs.drawn import HANDLED, IMPOSSIBLE, OPS, RARE, VALUE_DEPENDENT, Drawn, draw

from gradlab.structure import jacobian
from gradlab.structure.report import JacobianReport
from gradlab.tracing.jaxprs import body, inner_jaxprs
from gradlab.tracing.linearise import linearise

POINTS = 3
AT_ONCE = 16
BACKWARD = {"reversing rule", "clipping rule"}  # custom_vjp has no forward mode
QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_parallel_codegen_split_count": 1,
}
if jax.__version_info__ < (0, 11):
    QUICK["xla_cpu_use_fusion_emitters"] = False  # a third of the time to compile


def truth(programs: list[Drawn], points: list[np.ndarray]) -> list[np.ndarray]:
    """Return where each Jacobian is not zero at one of several points, all compiled together.

    Columns, not rows: jaxlib 0.10 compiles a batch of one-hot VJPs wrongly for some programs.
    """

    def dense(program: Drawn, at: jax.Array) -> jax.Array:
        if BACKWARD & set(program.names):
            return lax.map(rows(program), at)
        return jax.vmap(jax.jacfwd(program.function))(at)

    def rows(program: Drawn) -> Callable[[jax.Array], jax.Array]:
        def at_point(x: jax.Array) -> jax.Array:
            value, pull = jax.vjp(program.function, x)
            upstreams = jnp.eye(value.size, dtype=value.dtype).reshape(-1, *value.shape)
            return lax.map(lambda upstream: pull(upstream)[0], upstreams)

        return at_point

    def together(points: list[np.ndarray]) -> list[jax.Array]:
        return [dense(*pair) for pair in zip(programs, points)]

    try:
        compiled = jax.jit(together, compiler_options=QUICK)
        everything = jax.block_until_ready(compiled(points))
    except jax.errors.JaxRuntimeError:  # XLA's FFT fails on some layouts that it chose itself
        everything = together(points)
    found = []
    for program, values in zip(programs, map(np.asarray, everything)):
        nonzero = (np.isfinite(values) & (values != 0)).any(0)
        found.append(nonzero.reshape(-1, int(np.prod(program.shape))))
    return found


def examine(program: Drawn, nonzero: np.ndarray) -> tuple[JacobianReport, int]:
    """Return the report and how many entries it over-estimates; fail if it misses one."""
    report = jacobian(program.function, np.zeros(program.shape, np.float32))
    pattern = report.pattern.to_dense()
    missed = nonzero & ~pattern
    assert not missed.any(), (
        f"seed {program.seed}: {' -> '.join(program.names)} on {program.shape} misses "
        f"{missed.sum()}, first (output, input) {np.argwhere(missed)[0]}: {report.notation}"
    )
    assert not report.unknown, (program.seed, program.names, report.unknown)
    return report, int((pattern & ~nonzero).sum())


def primitives(jaxpr: Any) -> Iterator[str]:
    for equation in body(jaxpr).equations:
        yield equation.primitive.name
        for _, inner in inner_jaxprs(equation):
            yield from primitives(inner)


def census(seeds: range) -> dict[str, collections.Counter[Any]]:
    """Examine many programs; count operations, primitives, compositions and over-estimates."""
    counts: dict[str, collections.Counter[Any]] = collections.defaultdict(collections.Counter)
    for first in range(0, len(seeds), AT_ONCE):
        programs = [draw(seed) for seed in seeds[first : first + AT_ONCE]]
        points = [
            np.random.default_rng(program.seed)
            .standard_normal((POINTS, *program.shape))
            .astype(np.float32)
            for program in programs
        ]
        for program, nonzero in zip(programs, truth(programs, points)):
            report, extra = examine(program, nonzero)
            counts["operations"].update(set(program.names))
            counts["composed"].update(program.composed)
            at = report.derivative
            linear = linearise(at.program, at.wrt, at.outputs).jaxpr
            counts["primitives"].update({*primitives(at.program.jaxpr), *primitives(linear)})
            depends_on_values = bool(VALUE_DEPENDENT & set(program.names))
            counts["over"][depends_on_values, bool(extra)] += 1
            if extra and not depends_on_values:
                counts["culprits"][program.names] += 1
                counts["examples"][program.seed, program.names, program.shape, extra] += 1
    return counts


def judge(counts: dict[str, collections.Counter[Any]]) -> None:
    """Hold a census of twenty thousand programs to what it must cover, and how exactly."""
    assert min(counts["operations"][op.name] for op in [*OPS, *RARE]) >= 50
    rarest = min(HANDLED, key=lambda name: counts["primitives"][name])
    assert counts["primitives"][rarest] >= 50, rarest
    pairs = {(a.name, b.name) for a in OPS for b in OPS} - IMPOSSIBLE
    assert min(counts["composed"][pair] for pair in pairs) >= 5
    exact, over = counts["over"][False, False], counts["over"][False, True]
    assert over <= 0.05 * (exact + over), counts["culprits"].most_common(20)


def test_no_entry_is_missed_in_random_programs():
    census(range(0, len(OPS) ** 2, len(OPS) ** 2 // 24))


@pytest.mark.slow
def test_no_entry_is_missed_in_twenty_thousand_random_programs():
    judge(census(range(20_000)))
