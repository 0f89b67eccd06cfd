"""The structure of kernels, proved from the program that Pallas interprets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl
from programs.kernels import KERNELS, SHAPE, call

import gradlab
from gradlab import InputError

STRUCTURES = {"tanh": "diagonal", "softmax": "block-diagonal"}


@pytest.mark.parametrize("name", STRUCTURES)
def test_the_structure_of_a_kernel_with_a_rule_is_proved(name):
    kernel = KERNELS[name]
    report = gradlab.jacobian(kernel.layer(), *kernel.inputs("float32"))
    assert report.structure == STRUCTURES[name] and report.evidence == "proved"
    assert not report.unknown


def test_a_backward_that_is_a_kernel_itself():
    def kernel(y_ref, u_ref, out_ref):
        out_ref[...] = u_ref[...] * (1 - y_ref[...] ** 2)

    tanh = KERNELS["tanh"].function
    layer = jax.custom_vjp(tanh)
    layer.defvjp(
        lambda x: (tanh(x),) * 2, lambda y, u: (call(kernel, SHAPE(y.shape, y.dtype), y, u),)
    )
    (x,) = KERNELS["tanh"].inputs("float32")
    report = gradlab.jacobian(layer, x)
    assert report.structure == "diagonal" and not report.unknown
    assert gradlab.check(layer, x).ok


@pytest.mark.parametrize("name", KERNELS)
def test_the_pattern_of_a_kernel_covers_its_jacobian(name):
    """Without a rule: JAX may refuse to differentiate it, and what it computes is read instead."""
    kernel = KERNELS[name]
    inputs = kernel.inputs("float32")
    report = gradlab.jacobian(kernel.function, *inputs)
    exact = jax.jit(jax.jacfwd(kernel.plain, tuple(range(len(inputs)))))(*inputs)
    for pattern, block in zip(report.patterns.values(), exact, strict=True):
        found = pattern.to_dense()
        assert not ((np.asarray(block).reshape(found.shape) != 0) & ~found.astype(bool)).any()
    dense = np.concatenate([np.asarray(b).reshape(-1, x.size) for b, x in zip(exact, inputs)], 1)
    np.testing.assert_allclose(report.to_dense(), dense, rtol=1e-4, atol=1e-6)


def test_what_neither_jax_nor_pallas_differentiates_is_said():
    def function(x):
        return jax.pure_callback(np.tanh, SHAPE(x.shape, x.dtype), x)

    with pytest.raises(InputError, match="in forward mode or in reverse mode"):
        gradlab.jacobian(function, jnp.ones(3))


def over(grid, block, at, kernel, x, out=None, where=None):
    """Call a kernel over a grid of blocks, the result's blocks being at `where`."""
    spec = pl.BlockSpec(block, at)
    shape = jax.ShapeDtypeStruct(x.shape if out is None else out, x.dtype)
    outs = pl.BlockSpec(block, where or at)
    return pl.pallas_call(
        kernel, shape, grid=grid, in_specs=[spec], out_specs=outs, interpret=True
    )(x)


def tanh_of(x_ref, out_ref):
    out_ref[...] = jnp.tanh(x_ref[...])


@pytest.mark.parametrize("grid", [(3,), (2048,)])
def test_a_grid_of_any_number_of_blocks_is_read_block_by_block(grid):
    x = np.random.default_rng(0).normal(size=8 * grid[0]).astype(np.float32)
    J = gradlab.jacobian(lambda x: over(grid, (8,), lambda i: (i,), tanh_of, x), x)
    assert J.structure == "diagonal" and J.nnz == x.size
    assert np.allclose(J.evaluate().to("data"), 1 - np.tanh(x) ** 2, atol=1e-6)


def test_blocks_of_a_grid_may_be_written_elsewhere():
    x = np.random.default_rng(0).normal(size=(8, 12)).astype(np.float32)

    def moved(x):
        return over((2, 3), (4, 4), lambda i, j: (i, j), tanh_of, x, None, lambda i, j: (1 - i, j))

    J = gradlab.jacobian(moved, x)
    expected = jax.jacrev(lambda x: jnp.tanh(jnp.concatenate([x[4:], x[:4]])))(x)
    assert J.nnz == x.size
    assert np.allclose(J.to_dense(), np.reshape(expected, J.shape), atol=1e-6)


def test_a_kernel_knows_which_block_of_the_grid_it_is():
    def kernel(x_ref, out_ref):
        rows = 4 * pl.program_id(0) + jax.lax.broadcasted_iota(jnp.int32, (4, 4 * 128), 0)
        columns = jax.lax.broadcasted_iota(jnp.int32, rows.shape, 1)
        whole = jnp.where(rows >= columns, x_ref[...][None], 0)
        out_ref[...] = jnp.sin(whole).sum(1)

    def masked(x):
        shape, whole = SHAPE(x.shape, x.dtype), pl.BlockSpec(x.shape, lambda i: (0,))
        outs = pl.BlockSpec((4,), lambda i: (i,))
        call = pl.pallas_call(
            kernel, shape, grid=(128,), in_specs=[whole], out_specs=outs, interpret=True
        )
        return call(x)

    J = gradlab.jacobian(masked, jax.ShapeDtypeStruct((4 * 128,), np.float32))
    assert J.structure == "lower-triangular"


def test_a_block_that_is_written_twice_is_read_step_by_step():
    def kernel(x_ref, out_ref):
        out_ref[...] = jnp.where(pl.program_id(0) == 0, 0, out_ref[...]) + x_ref[...] ** 2

    x = np.random.default_rng(0).normal(size=12).astype(np.float32)
    J = gradlab.jacobian(
        lambda x: over((3,), (4,), lambda i: (i,), kernel, x, (4,), lambda i: (0,)), x
    )
    expected = jax.jacrev(lambda x: (x.reshape(3, 4) ** 2).sum(0))(x)
    assert np.allclose(J.to_dense(), expected, atol=1e-6)


@pytest.mark.parametrize("tiles", [(2, 3, 2), (12, 12, 8)])
def test_blocks_that_add_up_over_the_grid_are_read_at_once(tiles):
    rows, columns, inner = tiles

    def kernel(x_ref, y_ref, out_ref):
        @pl.when(pl.program_id(2) == 0)
        def _():
            out_ref[...] = jnp.zeros_like(out_ref)

        out_ref[...] += x_ref[...] @ y_ref[...]

    def product(x, y):
        blocks = [
            pl.BlockSpec((4, 4), at)
            for at in (lambda i, j, k: (i, k), lambda i, j, k: (k, j), lambda i, j, k: (i, j))
        ]
        return pl.pallas_call(
            kernel, SHAPE((4 * rows, 4 * columns), x.dtype), grid=(rows, columns, inner),
            in_specs=blocks[:2], out_specs=blocks[2], interpret=True,
        )(x, y)  # fmt: skip

    draw = np.random.default_rng(0).normal
    x = draw(size=(4 * rows, 4 * inner)).astype(np.float32)
    y = draw(size=(4 * inner, 4 * columns)).astype(np.float32)
    J = gradlab.jacobian(product, x, y, wrt=0)
    assert J.notation == "out[b, :] <- x[b, :]" and not J.notes
    if tiles == (2, 3, 2):
        expected = jax.jacfwd(lambda x: x @ y)(x)
        assert np.allclose(J.to_dense(), np.reshape(expected, J.shape), atol=1e-5)
