"""What a report says of a mistake: the line where it is, and what it is."""

from pathlib import Path

import numpy as np
from repair.test_mistakes import load

import gradlab

INNER = """
import jax
import jax.numpy as jnp

def norm(x, g):
    return x / jnp.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * g

def inner(u, w):
    return jax.nn.silu(u @ w)

@jax.custom_vjp
def block(x, g, w):
    return x + 0.5 * inner(norm(x, g), w)

def block_fwd(x, g, w):
    return block(x, g, w), (x, g, w)

def block_bwd(kept, upstream):
    x, g, w = kept
    u, pull_norm = jax.vjp(norm, x, g)
    _, pull_inner = jax.vjp(inner, u, w)
    du, dw = pull_inner(upstream)
    dx, dg = pull_norm(du)
    return upstream + dx, dg, dw

block.defvjp(block_fwd, block_bwd)
"""


def drawn(*shape: int) -> np.ndarray:
    """Random numbers, the same in each test."""
    return np.random.default_rng(sum(shape)).normal(size=shape)


def test_a_rule_that_calls_vjp_inside_is_mended(tmp_path: Path) -> None:
    module = load(tmp_path / "layer.py", INNER)
    report = gradlab.check(module.block, drawn(5, 4), drawn(4), drawn(4, 4))
    assert [fix.line for fix in report.fixes][:1] == [22], str(report)
    assert "the factor `0.5` is missing" in report.fixes[0].explanation
