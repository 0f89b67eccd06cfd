"""The book of primitives against JAX: what a record claims is decided by evaluation.

The equations are those of small programs, one and more for each primitive, and of their
derivatives, each at the numbers that it meets there.
"""

import functools
import itertools
from dataclasses import replace

import jax
import jax.extend.core as jex
import jax.extend.core.primitives as jax_primitives
import jax.numpy as jnp
import numpy as np
import pytest
from structure.test_primitives import EXAMPLES

from gradlab.primitives import Site, lookup, names
from gradlab.primitives.rounding import Exact, SumOf, Units
from gradlab.tracing.dependence import call_jaxpr
from gradlab.tracing.interpreter import Interpreter
from gradlab.tracing.jaxprs import bind, body, view
from gradlab.tracing.walking import jaxprs

OPENED = {
    "after_all", "call", "closed_call", "cond", "create_token", "custom_jvp_call", "custom_lin",
    "custom_linear_solve", "custom_vjp_call", "get", "jit", "remat2", "scan", "swap", "while",
    "linear_call", "custom_vmap_call", "addupdate", "new_ref", "freeze", "random_gamma",
    "debug_callback", "debug_print",
}  # fmt: skip
"""Calls, loops and mutable arrays: read by what is inside."""

UNREAD = {"rng_uniform", "select_and_scatter"}
"""Not in the book, so dense, rounded and not proved."""


class Meeting(Interpreter[jax.Array]):
    """Runs a program and keeps every equation with its operands."""

    def __init__(self):
        self.met = []

    def constant(self, array):
        return jnp.asarray(array)

    def concrete(self, value):
        return np.asarray(value)

    def row(self, value, index, atom):
        return value[index]

    def stack(self, rows, variable):
        return jnp.stack(rows)

    def equation(self, equation, inputs):
        if not lookup(equation.primitive.name).stateful:  # a mutable array is read where it lives
            self.met.append((equation, inputs))
        return bind(equation, inputs)


def primitives_of(program):
    """Return the names of all primitives at any depth that are not opened."""
    inside = [equation for each in jaxprs(program) for equation in body(each).equations]
    return {equation.primitive.name for equation in inside} - OPENED


@functools.cache
def equations():
    """Return equations with their operands, by the name of the primitive; few of each."""
    found = {}
    for name in sorted(EXAMPLES):
        function, x = EXAMPLES[name]
        for traced in (function, lambda x, f=function: jax.jvp(f, (x,), (jnp.cos(x),))[1]):
            walk = Meeting()
            try:
                program = jax.make_jaxpr(traced)(x)
                if all(len(found.get(met, ())) == 3 for met in primitives_of(program)):
                    continue  # what is met often enough is not compiled again
                walk(program, [jnp.asarray(x)])
            except Exception:  # a mutable array, or a loop whose carry is of another kind
                continue
            for equation, inputs in walk.met:
                kept = found.setdefault(equation.primitive.name, [])
                if len(kept) < 3:
                    kept.append((equation, inputs))
    return found


def site(equation, vanishes=None, depends=None):
    given = view(equation)
    count = len(given.in_shapes)
    return Site(
        **vars(given),
        primitive=lookup(given.name),
        depends=depends or (False,) * count,
        known=(None,) * count,
        vanishes=vanishes or (False,) * count,
    )


def numbers(inputs):
    return [k for k, x in enumerate(inputs) if jnp.issubdtype(x.dtype, jnp.number) and x.size]


MET = sorted(set(names()) - {"stage", "tie"})
OTHERS = {"bitcast_convert_type", "nextafter", "iota"}  # of another dtype, another number
EXACT = [
    name
    for name in MET
    if isinstance(lookup(name).rounds, Exact)
    and name not in OTHERS
    and not name.startswith("scatter")
]


def test_every_primitive_of_jax_has_a_record_or_is_opened():
    known = {v.name for v in vars(jax_primitives).values() if isinstance(v, jex.Primitive)}
    assert known - set(names()) - OPENED == UNREAD & known


def test_most_records_are_held_against_an_equation():
    assert len(set(equations()) & set(names())) > 110


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", MET)
def test_zero_stays_zero_where_the_record_says_so(name):
    for equation, inputs in equations().get(name, ()):
        for chosen in ([k] for k in numbers(inputs)), [numbers(inputs)]:
            for operands in chosen:
                here = site(equation, tuple(k in operands for k in range(len(inputs))))
                given = [jnp.zeros_like(x) if k in operands else x for k, x in enumerate(inputs)]
                results = bind(equation, given)
                for output, result in enumerate(results):
                    if here.is_zero(output):
                        assert not np.any(np.asarray(result)), (name, operands)


@pytest.mark.parametrize("name", [name for name in MET if lookup(name).extremes])
def test_between_bounds_of_operands_no_result_lies_beyond_the_corners(name):
    """No operand changes its sign: the square of what lies around 0 is for others to mind."""
    rng = np.random.default_rng(0)
    for equation, inputs in equations().get(name, ()):
        moved = [k for k, x in enumerate(inputs) if jnp.issubdtype(x.dtype, jnp.floating)]
        if any(jnp.iscomplexobj(x) for x in inputs):
            continue

        def at(shares, equation=equation, inputs=inputs):
            given = [x * (1 + shares.get(k, 0.0)) for k, x in enumerate(inputs)]
            given = [new.astype(x.dtype) for new, x in zip(given, inputs)]
            return np.asarray(bind(equation, given)[0]).astype(np.float64)

        ends = itertools.product((-0.25, 0.25), repeat=len(moved))
        corners = [at(dict(zip(moved, shares))) for shares in ends]
        slack = 1e-5 * sum(np.abs(np.asarray(x, np.float64)).sum() for x in inputs)
        for _ in range(6):
            inner = at({k: rng.uniform(-0.25, 0.25, inputs[k].shape) for k in moved})
            assert (np.minimum.reduce(corners) <= inner + slack).all()
            assert (inner <= np.maximum.reduce(corners) + slack).all()


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", [name for name in MET if name not in OTHERS])
def test_a_record_is_flat_where_every_derivative_is_zero(name):
    slopes, rng = [], np.random.default_rng(0)
    for equation, inputs in equations().get(name, ()):
        floats = [jnp.issubdtype(v.aval.dtype, jnp.floating) for v in equation.outvars]
        for k, x in enumerate(inputs):
            if not jnp.issubdtype(x.dtype, jnp.floating) or not any(floats):
                continue

            def at(moved, equation=equation, inputs=inputs, k=k):
                return bind(equation, [moved if n == k else y for n, y in enumerate(inputs)])

            try:
                way = jnp.asarray(rng.normal(size=x.shape), x.dtype)
                tangents = jax.jvp(at, [x], [way])[1]
            except (NotImplementedError, TypeError, ValueError):  # JAX has no such derivative
                continue
            slopes += [np.any(np.asarray(t)) for t, kept in zip(tangents, floats) if kept]
    if slopes:
        assert lookup(name).flat == (not any(slopes))


@pytest.mark.parametrize("name", MET)
def test_no_entry_is_read_beside_those_of_the_record(name):
    for equation, inputs in equations().get(name, ()):
        if name.startswith("random_"):  # keys
            continue
        before = [np.asarray(r) for r in bind(equation, inputs)]
        for k, x in enumerate(inputs):
            if not jnp.issubdtype(x.dtype, jnp.inexact) or not 0 < x.size <= 9:
                continue
            flags = tuple(n == k for n in range(len(inputs)))
            reads = site(equation, depends=flags).reads(k)
            for j in range(x.size):
                moved = x.reshape(-1).at[j].add(0.37).reshape(x.shape)
                after = bind(equation, [moved if n == k else y for n, y in enumerate(inputs)])
                for old, new, pattern in zip(before, map(np.asarray, after), reads, strict=True):
                    same = (old == new) | ((old != old) & (new != new))
                    column = np.zeros(old.size, bool)
                    if pattern is not None:
                        column = pattern.to_dense()[:, j]
                    assert (same.reshape(-1) | column).all(), (name, k, j)


@pytest.mark.parametrize("name", [name for name in MET if lookup(name).moves is not None])
def test_what_moves_is_made_of_its_operands(name):
    record = lookup(name)
    for equation, inputs in equations().get(name, ()):
        entries = {float(v) for x in inputs[record.moves] for v in np.asarray(x).ravel().real}
        for result in bind(equation, inputs):
            if result.dtype == inputs[0].dtype or name != "gather":
                assert {float(v) for v in np.asarray(result).ravel().real} <= entries


@pytest.mark.parametrize("name", EXACT)
def test_what_is_exact_gives_in_float32_what_it_gives_in_float64(name):
    for equation, inputs in equations().get(name, ()):
        if not any(x.dtype == jnp.float32 for x in inputs):
            continue
        narrow = bind(equation, inputs)
        with jax.enable_x64(True):
            wide = bind(
                equation, [x.astype("float64") if x.dtype == "float32" else x for x in inputs]
            )
        for a, b in zip(narrow, wide):
            np.testing.assert_array_equal(
                np.asarray(a).astype(complex), np.asarray(b).astype(complex)
            )


@pytest.mark.parametrize("name", [name for name in MET if lookup(name).commutes])
def test_operands_change_places_where_the_record_says_so(name):
    for equation, (a, b) in equations()[name]:
        for left, right in zip(bind(equation, [a, b]), bind(equation, [b, a])):
            np.testing.assert_array_equal(left, right)


def test_a_primitive_that_nobody_knows_gets_the_safe_answers():
    unknown = lookup("my_own")
    assert unknown.reads is unknown.zero is unknown.moves is unknown.known is None
    assert not isinstance(unknown.rounds, Exact | Units | SumOf)
    assert not unknown.entrywise and not unknown.commutes and unknown.moves is None
    equation = equations()["sin"][0][0]
    at = replace(site(equation, (True,), (True,)), primitive=unknown)
    assert at.reads(0)[0].is_dense and not at.is_zero(0)


def test_a_program_inside_makes_no_call_of_what_nobody_knows():
    inside = jax.make_jaxpr(lambda x: 2 * x)(1.0)
    primitive = jex.Primitive("my_call")
    primitive.def_abstract_eval(lambda x, jaxpr: x)
    [equation] = jax.make_jaxpr(lambda x: primitive.bind(x, jaxpr=inside))(1.0).eqns
    assert call_jaxpr(equation) is None
    [known] = jax.make_jaxpr(jax.jit(jnp.sin))(1.0).eqns
    assert call_jaxpr(known) is not None
