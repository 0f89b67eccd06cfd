"""Every kind of rule, right and wrong, alone and inside a small model."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradlab

_spec = importlib.util.spec_from_file_location(
    "rule_kinds", Path(__file__).with_name("rule_kinds.py")
)
assert _spec is not None and _spec.loader is not None
rules = importlib.util.module_from_spec(_spec)
sys.modules["rule_kinds"] = rules
_spec.loader.exec_module(rules)
KINDS, X, Y = rules.KINDS, rules.X, rules.Y

FAST = {"branches": False, "prove": False}
IN_A_MODEL = [  # a kind's faults beyond the first only with --slow
    pytest.param(name, fault, marks=pytest.mark.slow if fault in KINDS[name].faults[1:] else ())
    for name, fault in rules.cases()
]
_MESH = """
import os
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
)
import gradlab
from rule_kinds import sharded
for wrong in ("", "psum"):
    function, inputs = sharded(wrong)
    report = gradlab.check(function, *inputs, branches=False, prove=False)
    audited = gradlab.audit(function, *inputs, branches=False, prove=False)
    print(report.status, [rule.status for rule in audited.rules])
"""


def _made(name, fault):
    kind = KINDS[name]
    if not kind.needs():
        pytest.skip(f"JAX {jax.__version__} has no {name} here")
    return kind.make(fault)


@pytest.mark.one_in(3)
@pytest.mark.parametrize(("name", "fault"), list(rules.cases()))
def test_a_kind_alone(name, fault, request):
    if fault in KINDS[name].faults[1:]:  # a fix is searched for the first
        request.getfixturevalue("verdict_alone")
    function, inputs = _made(name, fault)
    checked = gradlab.check(function, *inputs, **FAST)
    assert checked.ok == (not fault), str(checked)


@pytest.mark.one_in(3)
@pytest.mark.usefixtures("verdict_alone")
@pytest.mark.parametrize(("name", "fault"), IN_A_MODEL)
def test_a_kind_in_a_model(name, fault):
    function, inputs = _made(name, fault)

    def model(*arrays):
        outputs = function(*(1.1 * jnp.asarray(array) for array in arrays))
        return jnp.tanh(jax.tree.leaves(outputs)[0])

    audited = gradlab.audit(model, *inputs, **FAST)
    assert audited.rules and audited.ok == (not fault), str(audited)


def test_a_rule_on_a_mesh_is_judged_on_its_devices():
    root = str(Path(__file__).parent)
    run = subprocess.run(
        [sys.executable, "-c", _MESH], cwd=root, capture_output=True, text=True, timeout=300
    )
    assert run.stdout.split("\n")[:2] == ["right ['right']", "wrong ['wrong']"], run.stderr[-2000:]


def test_a_primitive_shows_a_verdict_for_each_of_its_rules():
    function, inputs = rules.primitive("batching")
    (rule,) = gradlab.check(function, *inputs, **FAST).rules
    found = {part.part: part.status for part in rule.parts}
    assert found.pop("batching") == "wrong"
    assert found.pop("transpose") == "absent"
    assert set(found) == {
        "implementation",
        "abstract evaluation",
        "forward derivative",
        "linearisation",
        "reverse",
        "rematerialisation",
    }
    assert set(found.values()) == {"right"}


def test_a_batch_that_is_wrong_says_which_row():
    function, inputs = rules.custom_vmap("batching")
    report = gradlab.check(function, *inputs, **FAST)
    (part,) = report.rules[0].parts
    x, y = jnp.asarray(X), jnp.stack([jnp.asarray(Y)] * 2)
    wrong = jax.vmap(function, in_axes=(None, 0))(x, y)[0]
    assert abs(wrong - x * jnp.sin(Y)).max() > 0.1
    assert part.status == "wrong" and "a loop gives" in part.reason and "axis 0" in part.reason
    assert part.reason in str(report) and "gradlab explain GL413" in str(report)


def test_a_wrong_transpose_is_named():
    function, inputs = KINDS["linear_call"].make("transpose")
    (rule,) = gradlab.check(function, *inputs, **FAST).rules
    found = {part.part: part.status for part in rule.parts}
    assert found == {"transpose": "wrong", "batching": "absent"}


def test_no_rule_was_met_is_said_only_where_there_is_none():
    none = gradlab.audit(jnp.sin, X, **FAST)
    assert "no custom rule was met" in str(none)
    function, inputs = rules.custom_vmap("")
    assert "no custom rule was met" not in str(gradlab.audit(function, *inputs, **FAST))


def test_numpy_made_of_operators_alone_is_refused_with_the_call_that_works():
    with pytest.raises(gradlab.InputError, match=r"is NumPy.*use check\(double, ..., backward="):

        def double(x):
            return 2 * x

        gradlab.audit(double, np.ones(3))


def test_doctor_names_the_kinds_that_this_jax_lacks():
    from jax.experimental import hijax as high

    from gradlab.numerics import doctor

    missing = doctor().missing_kinds
    for name in ("HiPrim", "VJPHiPrimitive", "HiPrimitive"):
        assert (name in missing) == (not hasattr(high, name))


def test_equal_calls_of_a_rule_are_judged_once():
    @jax.custom_vjp
    def square(x):
        return x * x

    square.defvjp(lambda x: (square(x), x), lambda x, u: (2 * x * u,))

    def model(x):
        for _ in range(5):
            x = square(x)
        return x

    (rule,) = gradlab.audit(model, X, **FAST).rules
    assert rule.calls == 5 and rule.inputs_tried == 5 and rule.status == "right"


def test_operands_behind_a_stop_gradient_are_judged_with_the_function():
    """A factor beside its matrix: the rule's gradient by the matrix is right only together."""
    from jax.extend.core import Primitive
    from jax.interpreters import ad, mlir

    solve = Primitive("divide_by_factor")
    solve.def_impl(lambda a, factor, b: b / factor)
    solve.def_abstract_eval(lambda a, factor, b: jax.core.ShapedArray(b.shape, b.dtype))
    mlir.register_lowering(
        solve, mlir.lower_fun(lambda a, factor, b: b / factor, multiple_results=False)
    )

    def jvp(primals, tangents):
        (a, factor, b), (da, _, db) = primals, tangents
        out = solve.bind(a, factor, b)
        by_b = 0 if isinstance(db, ad.Zero) else db / factor
        by_a = 0 if isinstance(da, ad.Zero) else -da * b / (a * a)
        return out, by_a + by_b

    ad.primitive_jvps[solve] = jvp

    def divide(a, b):
        return solve.bind(a, jax.lax.stop_gradient(a), b)

    x, y = jnp.asarray(X), jnp.asarray(Y)
    by_x = jax.jvp(divide, (x, y), (jnp.ones(3), jnp.zeros(3)))[1]
    assert jnp.allclose(by_x, -y / x**2)
    (rule,) = gradlab.audit(divide, X, Y, **FAST).rules
    assert rule.status == "right", str(rule.report)


def test_a_part_that_refuses_does_not_undecide_a_function_that_does_without_it():
    bind, (x,) = KINDS["linear primitive"].make("refuses")

    def weighted(x):
        return jnp.where(bind(x) > 0, x, 2 * x)

    assert gradlab.check(weighted, x, **FAST).ok
    assert gradlab.check(bind, x, **FAST).status == "undecided"


def test_what_jax_differentiates_neither_way_is_undecided():
    """`sequential_vmap` has no reverse mode, and a custom_vjp no forward mode."""
    sine = jax.custom_vjp(lambda x: jnp.sin(x))
    sine.defvjp(lambda x: (jnp.sin(x), x), lambda x, u: (u * jnp.cos(x),))
    function = jax.custom_batching.sequential_vmap(lambda x: 2 * sine(x))
    with pytest.raises(ValueError, match="Linearization failed"):
        jax.grad(lambda x: function(x).sum())(X)
    assert gradlab.check(function, X, **FAST).status == "undecided"
    assert not gradlab.audit(lambda x: function(2 * x), X, **FAST).ok


def test_a_tangent_that_is_not_finite_is_told_where_reverse_mode_is_right():
    """As zero rows of a norm, whose guard stands around one of two divisions."""

    @jax.custom_jvp
    def unit(x):
        return x / jnp.maximum(jnp.sqrt(jnp.sum(x * x)), 0.05)

    @unit.defjvp
    def _(primals, tangents):
        (x,), (t,) = primals, tangents
        n = jnp.sqrt(jnp.sum(x * x))
        m = jnp.maximum(n, 0.05)
        dm = jnp.where(n > 0.05, jnp.sum(x * t) / m, 0.0)
        return x / m, t / m - x / m * dm / n

    x = np.zeros(3, np.float32)
    assert np.isnan(jax.jvp(unit, (x,), (x + 1,))[1]).all()
    assert np.isfinite(jax.grad(lambda x: unit(x).sum())(x)).all()
    law = next(law for law in gradlab.check(unit, x).laws if law.name == "pushforward")
    assert law.status == "warned" and "reverse mode is right and finite" in law.reason


def test_only_what_a_linear_call_is_linear_in_is_transposed():
    """It is linear in its other operand, too, and JAX has no transpose for that."""

    def scaled(x, w):
        return jax.custom_derivatives.linear_call(lambda w, x: w * x, lambda w, u: w * u, w, x)

    report = gradlab.check(scaled, X, X + 2, wrt=0, **FAST)
    parts = {part.part: part.status for part in report.rules[0].parts}
    assert report.ok and parts["transpose"] == "right", report
    both = gradlab.check(scaled, X, X + 2, **FAST)
    assert both.status == "undecided" and "fix the error that is raised" in str(both)
