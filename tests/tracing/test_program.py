import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradlab.errors import InputError, InputTypeError
from gradlab.tracing import (
    NotTraceable,
    as_function,
    ends_by,
    iterates,
    rename,
    source,
    trace,
    walk,
)


def test_leaves_are_named_and_sorted_into_kinds():
    parameters = {"w": jnp.ones((3, 2)), "eps": 1e-5, "mode": "train", "step": np.int32(3)}

    def layer(x, parameters, labels, key, none, activation):
        return activation(x @ parameters["w"])

    program = trace(
        layer, jnp.ones((4, 3)), parameters, np.arange(4), jax.random.key(0), None, jnp.tanh
    )
    kinds = {leaf.path: leaf.kind for leaf in program.leaves}
    assert kinds == {
        "x": "real",
        "parameters['eps']": "static",
        "parameters['mode']": "static",
        "parameters['step']": "integer",
        "parameters['w']": "real",
        "labels": "integer",
        "key": "key",
        "none": "none",
        "activation": "static",
    }
    assert program.in_names == ("x", "parameters['step']", "parameters['w']", "labels", "key")
    assert [program.in_names[i] for i in program.differentiable] == ["x", "parameters['w']"]
    assert program.out_names == ("output",) and program.out_avals[0].shape == (4, 2)


def test_dataclasses_and_nested_outputs_are_trees():
    @dataclasses.dataclass
    class State:
        mean: object
        scale: object

    jax.tree_util.register_dataclass(State, ["mean", "scale"], [])
    state = State(jnp.ones(2), jnp.ones(2))
    program = trace(lambda s, x: {"y": x * s.scale, "s": State(s.mean, x)}, state, jnp.ones(2))
    assert program.in_names == ("s.mean", "s.scale", "x")
    assert program.out_names == ("output['s'].mean", "output['s'].scale", "output['y']")
    output = program(state, 3 * jnp.ones(2))
    assert isinstance(output["s"], State) and output["y"].tolist() == [3, 3]


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "complex128", "complex64"])
def test_numpy_inputs_keep_their_dtype(dtype):
    program = trace(lambda x: x * 0.5, np.ones(3, dtype))
    assert program.out_avals[0].dtype == dtype
    assert program(np.ones(3, dtype)).dtype == dtype


def test_a_python_number_is_double_alone_and_weak_beside_arrays():
    assert trace(lambda x: x * 2, 1.5).out_avals[0].dtype == np.float64
    assert trace(lambda x, y: x * y, 1.5, jnp.ones(2)).out_avals[0].dtype == np.float32
    assert trace(lambda x, axis: x.sum(axis), jnp.ones((2, 3)), 1).out_avals[0].shape == (2,)


def test_the_program_evaluates_and_differentiates_like_its_function():
    def function(x, w):
        return jnp.tanh(x @ w).sum()

    x, w = jnp.arange(6.0).reshape(2, 3) / 7, jnp.ones((3, 2)) / 3
    again = as_function(trace(function, x, w))
    assert again(x, w) == function(x, w)
    assert (jax.grad(again, 1)(x, w) == jax.grad(function, 1)(x, w)).all()


def test_functions_that_read_values_say_so():
    with pytest.raises(NotTraceable, match="reads values"):
        trace(lambda x: x if x.sum() > 0 else -x, jnp.ones(2))
    with pytest.raises(NotTraceable):
        trace(lambda x: np.sin(np.asarray(x)), jnp.ones(2))
    with pytest.raises(InputTypeError, match="expected a function"):
        trace(3, jnp.ones(2))
    with pytest.raises(InputError, match="calling it raised ZeroDivisionError") as caught:
        trace(lambda x: x / (1 // 0), jnp.ones(2))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_other_structures_and_names_are_refused():
    program = trace(lambda p: p["a"], {"a": jnp.ones(2)})
    with pytest.raises(InputError, match="structure"):
        program({"b": jnp.ones(2)})
    with pytest.raises(InputError, match="1 inputs, got 2 names"):
        rename(program, ["a", "b"])
    assert rename(program, ["z"]).in_names == ("z",)


def test_walk_and_source_reach_into_loops():
    def function(x):
        return jax.lax.scan(lambda c, r: (jnp.sin(c) * r, None), x[0], x)[0]

    program = trace(jax.jit(function), jnp.ones((3, 2)))
    sines = [(e, inside) for e, inside in walk(program) if e.primitive.name == "sin"]
    assert len(sines) == 1 and sines[0][1] == ("jit", "scan")
    assert source(sines[0][0]).startswith("test_program.py:")
    assert not iterates(program)
    assert iterates(trace(lambda x: jax.lax.while_loop(lambda c: c < 9, lambda c: c * 2, x), 1.0))


def test_the_wide_trace_exists_only_where_the_function_accepts_float64():
    assert trace(lambda x: x * 0.1, jnp.ones(2)).wide.out_avals[0].dtype == np.float64

    def picky(x):
        if x.dtype != jnp.float32:
            raise TypeError("float32 only")
        return x

    assert trace(picky, jnp.ones(2)).wide is None


def test_an_index_array_that_jax_remembers_under_another_x64_has_a_way_out():
    index = np.array([[0, 1], [1, 2]])
    layer = jax.custom_vjp(lambda x: x[:, index])
    layer.defvjp(lambda x: (x[:, index], None), lambda _, g: (g,))
    held = trace(layer, np.ones((2, 3)))
    with pytest.raises(InputError, match="give the array as int32"):
        trace(layer, np.ones((2, 3), np.float32))
    assert held.in_avals[0].dtype == np.float64
    index = index.astype(np.int32)
    for dtype in (np.float32, np.float64, np.float32):
        assert trace(layer, np.ones((2, 3), dtype)).wide is not None


def test_what_a_library_implements_is_given_arrays_of_jax():
    from gradlab.tracing.jaxprs import bind

    first = jax.extend.core.Primitive("first_entry")
    first.def_impl(lambda x: x.at[0].get())
    first.def_abstract_eval(lambda x: jax.core.ShapedArray((), x.dtype))
    (equation,) = jax.make_jaxpr(first.bind)(np.ones(3, np.float32)).eqns
    assert bind(equation, [np.array([2.0, 0.0, 0.0], np.float32)])[0] == 2


def test_a_solver_that_ends_by_its_right_hand_side_is_seen():
    def solved(a, b):
        def solve(product, b):
            return jax.scipy.sparse.linalg.cg(product, b)[0]

        return jax.lax.custom_linear_solve(lambda x: a * x, b, solve, symmetric=True)

    program = trace(solved, np.ones(3), np.ones(3))
    assert ends_by(program, ["b"])
    assert not ends_by(trace(lambda a, b: a + b, np.ones(3), np.ones(3)), ["b"])
