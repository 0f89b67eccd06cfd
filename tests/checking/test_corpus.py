"""The fault corpus: every fault found, no correct backward accused, no wrong diagnosis given.

A sample runs always, all of it with --slow; tests/benchmarks/bench_check.py runs it over dtypes,
seeds and scales, beside other checkers.
"""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from corpus.index import FAULTS, OPERATIONS, as_custom_vjp, cast
from corpus.model import Draw
from repair.patched import patched

import gradlab
from gradlab.checking import points
from gradlab.proof import prove
from gradlab.references import evaluation, vjp_program
from gradlab.tracing import strip, trace
from gradlab.tracing.arithmetic import NumPy
from gradlab.tracing.evaluate import Value
from gradlab.tracing.lift import Lifter

IN_NUMPY = [op for op in OPERATIONS.values() if op.form == "any"]
_DTYPES = ("float32", "float64", "bfloat16", "float16")


def cases(of):
    """Return operations or faults as parameters; those of a million entries are marked slow."""
    large = [getattr(case, "operation", case).large for case in of]
    names = [getattr(case, "id", "") or case.name for case in of]
    marks = [pytest.mark.slow if each else () for each in large]
    return [pytest.param(case, id=n, marks=m) for case, n, m in zip(of, names, marks)]


def test_the_corpus_is_large():
    assert len(FAULTS) >= 120 and len(OPERATIONS) >= 35
    assert len({fault.id for fault in FAULTS}) == len(FAULTS)
    assert sum("#" in fault.source or fault.source.startswith("jax ") for fault in FAULTS) >= 90


@pytest.mark.one_in(6)
@pytest.mark.parametrize("op", cases(OPERATIONS.values()))
def test_correct_backwards_pass(op):
    dtype = _DTYPES[list(OPERATIONS).index(op.name) // 6 % 4]
    dtype = dtype if dtype in op.dtypes else op.dtypes[0]
    for inputs in (op.make(0), *(make(Draw(0)) for make in op.special)):
        report = gradlab.check(as_custom_vjp(op, op.backward), *cast(inputs, dtype, jax=True))
        assert report.ok, report


@pytest.mark.one_in(9)
@pytest.mark.parametrize("op", cases(IN_NUMPY))
def test_correct_backwards_pass_in_numpy(op):
    report = gradlab.check(
        lambda *inputs: op.forward(np, *inputs),
        *op.make(0),
        backward=lambda g, *inputs: op.backward(np, g, *inputs),
    )
    lost = op.name == "sharp_attention"  # autodiff keeps digits where all but one score vanish
    assert report.status == ("loses digits" if lost else "right"), report


@pytest.mark.slow
@pytest.mark.parametrize(
    "op", [op for op in OPERATIONS.values() if not op.large], ids=lambda op: op.name
)
def test_no_proved_rule_is_contradicted_at_ten_thousand_points(op):
    """At points of the same sides, both programs in float64."""
    dtype = next(d for d in ("float32", "complex64") if d in op.dtypes)
    inputs = cast(op.make(0), dtype, jax=True)
    program = trace(as_custom_vjp(op, op.backward), *inputs)
    rule, reference = vjp_program(program), vjp_program(strip(program))
    rng = np.random.default_rng(0)
    arrays = [*map(np.asarray, jax.tree.leaves(inputs))]
    arrays += [rng.normal(size=a.shape).astype(a.dtype) for a in rule.in_avals[len(arrays) :]]
    point = dict(zip(rule.in_names, arrays))
    gradients = [k for k, name in enumerate(rule.out_names) if name.startswith("gradient")]
    proofs = prove(rule, reference, point, gradients)
    assert all(proof.proved for proof in proofs)
    size = max(1, min(500, 100_000 // sum(map(np.size, arrays))))
    for _ in range(10_000 // size):
        moved = [np.stack([_moved(a, rng) for _ in range(size)]) for a in arrays]
        ours, theirs = (_at_once(p, moved) for p in (rule, reference))
        for k in gradients:
            mine, other = (each[k].reshape(-1, rule.out_avals[k].size) for each in (ours, theirs))
            largest = np.abs(other).max(where=np.isfinite(other), initial=0)
            far = np.abs(mine - other) > 1e-6 * largest  # less than that, terms may cancel
            assert not (far & np.isfinite(mine)).any()


def _moved(array, rng):
    if array.dtype.kind not in "fc":
        return array
    wide = array.astype(complex if array.dtype.kind == "c" else float)
    factors = rng.uniform(0.3, 3.0) * rng.uniform(0.5, 2.0, array.shape)
    return wide * factors + (wide == 0) * rng.normal(size=array.shape)


def _at_once(program, columns):
    count = len(columns[0])
    with jax.enable_x64(True), np.errstate(all="ignore"):
        values = [Value(c, c.dtype.kind in "fc") for c in columns]
        outputs = Lifter(NumPy())(program.jaxpr, values)
    shapes = [(count, *aval.shape) for aval in program.out_avals]
    return [np.broadcast_to(o.array, shape) for o, shape in zip(outputs, shapes)]


@pytest.mark.one_in(20)
@pytest.mark.parametrize("fault", cases(FAULTS))
def test_faults_are_found_and_named(fault):
    op, dtype = fault.operation, fault.dtypes[0]
    xp = np if fault.form == "numpy" else jnp
    inputs = cast(fault.make(0), dtype, xp is jnp)
    if fault.form == "numpy" or fault.shape:
        report = gradlab.check(
            lambda *inputs: op.forward(xp, *inputs),
            *inputs,
            backward=lambda g, *inputs: fault.backward(xp, g, *inputs),
        )
    else:
        report = gradlab.check(as_custom_vjp(op, fault.backward), *inputs)
    if fault.hidden:
        assert not report.failed
        return
    found = {finding.kind for finding in report.findings}
    assert report.failed, report
    assert found <= set(fault.diagnosis), report
    assert found or report.fixes or not fault.diagnosis, report
    for fix in report.fixes:
        assert is_right(mended(fault, fix), fault), fix.diff


SMALL = (  # one kind of small edit each
    "absolute-sign_lost",
    "clip-straight_through",
    "flip-not_flipped",
    "gated-zero_over_zero",
    "gather-overwrites",
    "grouped_scores-heads_by_share_count",
    "leaky_relu-slope_twice",
    "log_softmax-normaliser_lost",
    "maximum-both_at_ties",
    "multiply_mask-mask_not_reduced",
    "permute_rows-gathers_again",
    "remainder-floor_for_trunc",
    "residual_rms_norm-added_before_scaling",
    "residual_rms_norm-stream_ignored",
    "rms_norm-root_held_constant",
    "rms_norm-weight_dropped",
    "row_maximum-every_tie_full",
    "running_sum-not_reversed",
    "scatter_set-as_scatter_add",
    "scatter_set-values_forgotten",
    "softmax-normaliser_held_constant",
    "softplus-one_at_zero",
    "squared_modulus-not_conjugated",
    "squared_modulus-half_of_it",
    "strided_slice-start_forgotten",
    "strided_slice-stride_forgotten",
    "tile-one_copy_lost",
    "tile-repeated_for_tiled",
    "where-both_branches",
)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", SMALL)
def test_a_small_edit_is_mended(name):
    (fault,) = (f for f in FAULTS if f.id == name)
    inputs = cast(fault.make(0), fault.dtypes[0], jax=True)
    if fault.shape:
        report = gradlab.check(
            lambda *inputs: fault.operation.forward(jnp, *inputs),
            *inputs,
            backward=lambda g, *inputs: fault.backward(jnp, g, *inputs),
        )
    else:
        report = gradlab.check(as_custom_vjp(fault.operation, fault.backward), *inputs)
    assert report.fixes, report
    for fix in report.fixes:
        assert is_right(mended(fault, fix), fault), fix.diff
        assert "x == 2" not in fix.diff  # where a value is special, nothing may move


def mended(fault, fix):
    """Return the backward of a fault after a fix, read from its file as it would be."""
    kept = dict(OPERATIONS), list(FAULTS)
    try:
        space = patched(fix)
        found = [f.backward for f in FAULTS if f.id == fault.id and f not in kept[1]]
    finally:
        OPERATIONS.clear()
        OPERATIONS.update(kept[0])
        FAULTS[:] = kept[1]
    return found[0] if found else called_by(space, fault)


def called_by(space, fault):
    """Return the backward of a fault whose fix edits what the corpus calls it by, or with."""
    names = fault.backward.__globals__
    theirs = {n: space[n] for n in names if n in space and callable(space[n])}
    code, held = fault.backward.__code__, fault.backward.__closure__
    backward = types.FunctionType(code, {**names, **theirs}, closure=held)
    rule = space["as_custom_vjp"](fault.operation, backward)

    def pulled(xp, g, *inputs):
        moving = inexact(inputs)

        def moved(*some):
            given = list(inputs)
            for i, x in zip(moving, some):
                given[i] = x
            return rule(*given)

        found = iter(jax.vjp(moved, *(inputs[i] for i in moving))[1](g))
        return tuple(next(found) if i in moving else None for i in range(len(inputs)))

    return pulled


def inexact(inputs):
    return [i for i, x in enumerate(inputs) if jnp.issubdtype(jnp.result_type(x), jnp.inexact)]


def is_right(backward, fault):
    """Whether a backward gives JAX's gradients of the operation at other inputs."""
    with jax.enable_x64(True):
        wide = "complex128" if fault.dtypes[0].startswith("complex") else "float64"
        inputs = [
            jnp.asarray(x) if hasattr(x, "dtype") else x for x in cast(fault.make(3), wide, False)
        ]
        moving = inexact(inputs)

        def forward(*some):
            given = list(inputs)
            for i, x in zip(moving, some):
                given[i] = x
            return fault.operation.forward(jnp, *given)

        output, pull = jax.vjp(forward, *(inputs[i] for i in moving))
        rng = np.random.default_rng(5)
        upstream = jax.tree.map(lambda y: jnp.asarray(rng.normal(size=y.shape), y.dtype), output)
        space = np if fault.form == "numpy" else jnp
        given = [
            np.array(x) if fault.form == "numpy" and hasattr(x, "dtype") else x for x in inputs
        ]
        came = backward(space, np.array(upstream) if fault.form == "numpy" else upstream, *given)
        came = came if isinstance(came, tuple) else (came,)
        return all(
            np.allclose(came[i], right, rtol=1e-6, atol=1e-8)
            for i, right in zip(moving, pull(upstream))
        )


@pytest.mark.usefixtures("verdict_alone")
@pytest.mark.one_in(30)
@pytest.mark.parametrize("op", cases(OPERATIONS.values()))
def test_numpy_and_xla_give_the_same_verdict(op, monkeypatch):
    faults = [
        fault.backward
        for fault in FAULTS
        if fault.operation is op and fault.form != "numpy" and not (fault.shape or fault.inputs)
    ]
    for backward in (op.backward, *faults[:1]):
        said = []
        for compiles in (False, True):
            for module in (evaluation, points):
                monkeypatch.setattr(module, "pays_to_compile", lambda work, c=compiles: c)
            inputs = cast(op.make(0), op.dtypes[0], jax=True)
            report = gradlab.check(as_custom_vjp(op, backward), *inputs, prove=False)
            said.append((report.ok, report.status, [leaf.status for leaf in report.leaves]))
        assert said[0] == said[1]
