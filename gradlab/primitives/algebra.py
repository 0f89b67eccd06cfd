"""Transforms and decompositions: dense on the axes they work on, equal on the batch axes."""

from dataclasses import replace
from typing import Any

from gradlab.patterns import Pattern, maps
from gradlab.primitives.record import Primitive, Site, each, zero_if
from gradlab.primitives.rounding import EXACT, BackwardStable, Spectrum


def _fft(site: Site, k: int) -> Pattern:
    """Every frequency reads every entry of the transformed axes."""
    batch = len(site.shape) - len(site.params["fft_lengths"])
    return maps.contraction(site.shape, site.in_shapes[0], tuple((a, a) for a in range(batch)))


def _triangular_solve(site: Site, k: int) -> Pattern:
    """Forward substitution reads the rows before, back substitution those after."""
    rank = len(site.shape)
    batch = [(a, ~a) for a in range(rank - 2)]
    if k == 0:
        return Pattern.from_axes(site.shape, site.in_shapes[0], batch)
    solved, kept = (-2, -1) if site.params["left_side"] else (-1, -2)
    lower = site.params["lower"] != site.params["transpose_a"]
    if not site.params["left_side"]:
        lower = not lower
    along = (0, None) if lower else (None, 0)
    solved, kept = solved % rank, kept % rank
    bounds = [*batch, (kept, ~kept), (solved, ~solved, *along)]
    local = Pattern.from_axes(site.shape, site.shape, bounds)
    matrix = None if site.depends[0] else site.nonzero(0)
    if matrix is None:
        return local
    # the inverse reads what powers of the matrix read, whose diagonal counts as there
    order = (
        (solved, ~solved)
        if site.params["transpose_a"] != site.params["left_side"]
        else (~solved, solved)
    )
    return local.where(matrix, (*range(rank - 2), *order)).closure()


def _tridiagonal_solve(site: Site, k: int) -> Pattern:
    """Dense along the system's axis; right-hand sides apart."""
    rank = len(site.shape)
    batch = [(a, ~a) for a in range(rank - 2)]
    columns = [(rank - 1, ~(rank - 1))] if k == 3 else []
    return Pattern.from_axes(site.shape, site.in_shapes[k], batch + columns)


def _decomposition(site: Site, k: int) -> tuple[Pattern, ...]:
    """A decomposition mixes the whole matrix; matrices of a batch stay apart."""
    given = site.in_shapes[k]
    batch = len(site.in_shapes[0]) - 2
    if site.name == "lu_pivots_to_permutation":
        batch += 1
    pairs = tuple((a, a) for a in range(batch))
    return tuple(maps.contraction(shape, given, pairs) for shape in site.out_shapes)


def _right_side_is_zero(site: Site, output: int) -> bool:
    """The last operand; a matrix that is zero has no solution."""
    return site.vanishes[-1] and not any(site.vanishes[:-1])


def _every_entry(matrix: Any) -> Any:
    """|dT| <= gamma |T|."""
    return abs(matrix)


def _largest_entry(matrix: Any) -> Any:
    return abs(matrix).max((-2, -1), keepdims=True)


def _diagonal_entries(matrix: Any) -> Any:
    """|dA| <= gamma |R'| |R| <= gamma sqrt(a_ii a_jj)."""
    root = abs(matrix.diagonal(axis1=-2, axis2=-1)) ** 0.5
    return root[..., :, None] * root[..., None, :]


_SOLVED = Primitive(
    name="", zero=_right_side_is_zero, rounds=BackwardStable(_every_entry), underflows="never"
)
_DECOMPOSED = Primitive(
    name="", reads=_decomposition, rounds=BackwardStable(_largest_entry), underflows="never"
)

RECORDS = (
    Primitive(name="fft", reads=_fft, zero=zero_if(0), rounds=Spectrum(), underflows="never"),
    replace(_SOLVED, name="triangular_solve", reads=_triangular_solve),
    replace(_SOLVED, name="tridiagonal_solve", reads=_tridiagonal_solve),
    replace(_DECOMPOSED, name="cholesky", rounds=BackwardStable(_diagonal_entries)),
    replace(_DECOMPOSED, name="lu"),
    replace(_DECOMPOSED, name="lu_pivots_to_permutation", rounds=EXACT),
    replace(_DECOMPOSED, name="qr", triangular=1),
    *each(
        _DECOMPOSED,
        "geqrf geqp3 householder_product ormqr eig eigh svd schur hessenberg tridiagonal",
    ),
)
