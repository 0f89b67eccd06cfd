"""Transforms and decompositions: dense on the axes they work on, equal on the batch axes."""

from gradlab.patterns import Pattern, maps
from gradlab.structure.sites import Site, rule

__all__: list[str] = []


@rule("fft")
def fft(site: Site, k: int) -> Pattern:
    """Every frequency reads every entry of the transformed axes."""
    batch = len(site.shape) - len(site.params["fft_lengths"])
    return maps.contraction(site.shape, site.in_shapes[0], tuple((a, a) for a in range(batch)))


@rule("triangular_solve")
def triangular_solve(site: Site, k: int) -> Pattern:
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
    return Pattern.from_axes(site.shape, site.shape, bounds)


@rule("tridiagonal_solve")
def tridiagonal_solve(site: Site, k: int) -> Pattern:
    """Dense along the system's axis; right-hand sides apart."""
    rank = len(site.shape)
    batch = [(a, ~a) for a in range(rank - 2)]
    columns = [(rank - 1, ~(rank - 1))] if k == 3 else []
    return Pattern.from_axes(site.shape, site.in_shapes[k], batch + columns)


@rule("cholesky", "lu", "qr", "householder_product", "eigh", "eig", "svd", "schur", "hessenberg",
      "tridiagonal", "lu_pivots_to_permutation", "geqrf", "geqp3", "ormqr")  # fmt: skip
def decomposition(site: Site, k: int) -> tuple[Pattern, ...]:
    """A decomposition mixes the whole matrix; matrices of a batch stay apart."""
    given = site.in_shapes[k]
    batch = len(site.in_shapes[0]) - 2
    if site.name == "lu_pivots_to_permutation":
        batch += 1
    pairs = tuple((a, a) for a in range(batch))
    return tuple(maps.contraction(shape, given, pairs) for shape in site.out_shapes)
