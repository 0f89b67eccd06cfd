"""Stencils: differences on grids, sweeps, multigrid and the fluxes of conservation laws."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

RNG = np.random.default_rng(11)
FIELD = RNG.uniform(0.5, 1.5, (5, 6)).astype(np.float32)
BLUR = np.outer([1, 2, 1], [1, 2, 1]).astype(np.float32)
NINE = np.array([[1, 4, 1], [4, -20, 4], [1, 4, 1]], np.float32)
FACES = np.array([[0, 1], [1, 2], [2, 3], [0, 4], [4, 5], [3, 5]])
DEPARTED = RNG.uniform(0, 10, 11).astype(np.float32)
COMPACT = (np.eye(6) * 4 + np.eye(6, k=1) + np.eye(6, k=-1)).astype(np.float32)


def rolled(u, axes=None):
    """Return the sum of the neighbours on a periodic grid."""
    axes = range(u.ndim) if axes is None else axes
    return sum(jnp.roll(u, s, k) for k in axes for s in (1, -1))


def padded(u, mode="constant"):
    """Return the sum of the neighbours on a grid that ends."""
    p = jnp.pad(u, 1, mode=mode)
    inner = tuple(slice(1, -1) for _ in u.shape)
    total = 0
    for k in range(u.ndim):
        for s in (slice(None, -2), slice(2, None)):
            total = total + p[(*inner[:k], s, *inner[k + 1 :])]
    return total


def conv(u, kernel, pad="VALID"):
    return lax.conv_general_dilated(u[None, None], kernel[None, None], (1, 1), pad)[0, 0]


def upwind(u):
    back, ahead = u - jnp.roll(u, 1), jnp.roll(u, -1) - u
    return -jnp.where(u > 0, u * back, u * ahead)


def burgers(u):
    p = jnp.pad(u, 1)
    return -u * (p[2:] - p[:-2]) / 2 + p[2:] - 2 * u + p[:-2]


def conductive(u):
    k = 1 + u**2
    flux = (k[1:] + k[:-1]) / 2 * (u[1:] - u[:-1])
    return flux[1:] - flux[:-1]


def harmonic(u):
    east = (
        2 * FIELD[:, 1:] * FIELD[:, :-1] / (FIELD[:, 1:] + FIELD[:, :-1]) * (u[:, 1:] - u[:, :-1])
    )
    south = 2 * FIELD[1:] * FIELD[:-1] / (FIELD[1:] + FIELD[:-1]) * (u[1:] - u[:-1])
    out = jnp.zeros_like(u)
    out = out.at[:, :-1].add(east).at[:, 1:].add(-east)
    return out.at[:-1].add(south).at[1:].add(-south)


def brusselator(u):
    x, y = u[..., 0], u[..., 1]
    lap = [rolled(a) - 4 * a for a in (x, y)]
    return jnp.stack([1 + x * x * y - 4.4 * x + lap[0], 3.4 * x - x * x * y + lap[1]], -1)


def gray_scott(u):
    a, b = u
    react = a * b * b
    return jnp.stack([0.2 * (rolled(a) - 4 * a) - react, 0.1 * (rolled(b) - 4 * b) + react - b])


def excitable(u):
    """Let the second of two fields live on its own points only."""
    v, w = u[:, 0], u[:, 1]
    return jnp.stack([padded(v) - 2 * v + v - v**3 - w, 0.1 * (v - w)], 1)


def cahn_hilliard(c):
    potential = c**3 - c - (rolled(c) - 2 * c)
    return rolled(potential) - 2 * potential


def dispersive(u):
    r = [jnp.roll(u, s) for s in (-2, -1, 1, 2)]
    return 6 * u * (r[1] - r[2]) / 2 + (r[0] - 2 * r[1] + 2 * r[2] - r[3]) / 2


def sivashinsky(u):
    second = rolled(u) - 2 * u
    return -second - (rolled(second) - 2 * second) - u * (jnp.roll(u, -1) - jnp.roll(u, 1))


def shallow(q):
    h, m = q[:, 0], q[:, 1]
    f = jnp.stack([m, m * m / (2 + h * h) + h * h / 2], 1)
    speed = 2.0
    face = (f[1:] + f[:-1]) / 2 - speed * (q[1:] - q[:-1]) / 2
    return face[1:] - face[:-1]


def minmod(u):
    d = jnp.diff(u)
    slope = jnp.where(d[1:] * d[:-1] > 0, jnp.where(abs(d[1:]) < abs(d[:-1]), d[1:], d[:-1]), 0)
    face = u[1:-1] + slope / 2
    return face[1:] - face[:-1]


def weno(u):
    left, here, right = u[:-2], u[1:-1], u[2:]
    a = 1 / (1e-2 + (here - left) ** 2) ** 2
    b = 2 / (1e-2 + (right - here) ** 2) ** 2
    face = (a * (3 * here - left) / 2 + b * (here + right) / 2) / (a + b)
    return face[1:] - face[:-1]


def leapfrog(state):
    now, before = state
    return jnp.stack([2 * now - before + 0.1 * (padded(now) - 4 * now), now])


def maxwell(state):
    e, h = state[:7], state[7:]
    h = h + 0.5 * (e[1:] - e[:-1])
    return jnp.concatenate([e.at[1:-1].add(0.5 * (h[1:] - h[:-1])), h])


def yee(fields):
    e, hx, hy = fields
    hx = hx.at[:, :-1].add(-0.3 * (e[:, 1:] - e[:, :-1]))
    hy = hy.at[:-1].add(0.3 * (e[1:] - e[:-1]))
    e = e.at[1:, 1:].add(0.3 * (hy[1:, 1:] - hy[:-1, 1:] - hx[1:, 1:] + hx[1:, :-1]))
    return jnp.stack([e, hx, hy])


def divergence(faces):
    """Read velocities that lie on the faces of 4 x 3 cells, first across, then along."""
    u, v = faces[:15].reshape(5, 3), faces[15:].reshape(4, 4)
    return u[1:] - u[:-1] + v[:, 1:] - v[:, :-1]


def pressure(p):
    return jnp.concatenate([(p[1:] - p[:-1]).ravel(), (p[:, 1:] - p[:, :-1]).ravel()])


def coloured(u, order=(0, 1), f=0.1):
    parity = np.indices(u.shape).sum(0) % 2
    for colour in order:
        u = jnp.where(parity == colour, (padded(u) + f) / (2 * u.ndim), u)
    return u


def strided(u):
    """Relax the odd points of a line, then the even ones between its ends."""
    u = u.at[1:-1:2].set((u[:-2:2] + u[2::2]) / 2)
    return u.at[2:-1:2].set((u[1:-2:2] + u[3::2]) / 2)


def strided_2d(u):
    """Relax a periodic grid in two colours, each as two lattices of strides."""
    for colour in (0, 1):
        for row in (0, 1):
            at = np.s_[row::2, (row + colour) % 2 :: 2]
            u = u.at[at].set((rolled(u) / 4)[at])
    return u


def four_colours(u):
    for row in (0, 1):
        for column in (0, 1):
            new = conv(jnp.pad(u, 1), jnp.asarray(BLUR)) / 16
            u = u.at[row::2, column::2].set(new[row::2, column::2])
    return u


def zebra(u):
    """Solve the even lines, each as a whole, with their odd neighbours held."""
    given = u[1:-2:2] + u[3::2]
    line = jnp.linalg.solve(jnp.asarray(COMPACT), given.T).T
    return u.at[2:-1:2].set(line)


def lexicographic(u):
    """Sweep a line from left to right, each point from its new left neighbour."""

    def step(left, pair):
        new = (left + pair) / 2
        return new, new

    return lax.scan(step, 0.0, jnp.append(u[1:], 0.0))[1]


def symmetric_sweep(u):
    forward = lexicographic(u)
    return lexicographic(forward[::-1])[::-1]


def restricted(u):
    return u[:-2:2] / 4 + u[1:-1:2] / 2 + u[2::2] / 4


def restricted_2d(u):
    return conv(u, jnp.asarray(BLUR))[::2, ::2] / 16


def prolonged(c):
    fine = jnp.zeros(2 * c.size + 1)
    fine = fine.at[1::2].set(c)
    return fine.at[2:-1:2].set((c[1:] + c[:-1]) / 2).at[0].set(c[0] / 2).at[-1].set(c[-1] / 2)


def prolonged_2d(c):
    rows = jnp.stack([c[:-1], (c[:-1] + c[1:]) / 2], 1).reshape(-1, c.shape[1])
    columns = jnp.stack([rows[:, :-1], (rows[:, :-1] + rows[:, 1:]) / 2], 2)
    return columns.reshape(rows.shape[0], -1)


def smoothed(u, b, steps=1):
    for _ in range(steps):
        u = u + 0.6 * (b - (2 * u - padded(u))) / 2
    return u


def two_grid(b):
    u = smoothed(jnp.zeros_like(b), b)
    coarse = restricted(b - (2 * u - padded(u)))
    return smoothed(u + prolonged(smoothed(jnp.zeros_like(coarse), 4 * coarse)), b)


def v_cycle(b):
    """Cycle without a coarsest solve over the grids of 15, 7 and 3 points."""
    u = smoothed(jnp.zeros_like(b), b)
    if b.size > 3:
        u = u + prolonged(v_cycle(4 * restricted(b - (2 * u - padded(u)))))
    return smoothed(u, b)


def implicit_rows(u):
    n = u.shape[1]
    low, mid, up = jnp.full(n, -1.0).at[0].set(0), jnp.full(n, 4.0), jnp.full(n, -1.0).at[-1].set(0)
    solve = jax.vmap(lambda row: lax.linalg.tridiagonal_solve(low, mid, up, row[:, None])[:, 0])
    return solve(u + 0.1 * (jnp.pad(u, ((1, 1), (0, 0)))[2:] - u))


def thomas(b):
    """Eliminate forwards, substitute backwards."""

    def down(carry, d):
        c, y = carry
        m = 1 / (4 - c)
        return (m, (d + y) * m), (m, (d + y) * m)

    _, (c, y) = lax.scan(down, (0.0, 0.0), b)
    return lax.scan(lambda x, cy: (cy[1] + cy[0] * x,) * 2, 0.0, (c, y), reverse=True)[1]


def radial(u):
    r = jnp.arange(u.size - 1) + 0.5
    flux = r * (u[1:] - u[:-1])
    return jnp.diff(flux, prepend=0, append=0) / (jnp.arange(u.size) + 1)


def polar(u):
    p = jnp.pad(u, ((1, 1), (0, 0)), mode="edge")
    return p[2:] + p[:-2] - 2 * u + rolled(u, (1,)) - 2 * u


def hexagons(u):
    moves = [(1, 0), (-1, 0), (0, 1), (0, -1), (1, -1), (-1, 1)]
    return sum(jnp.roll(u, move, (0, 1)) for move in moves) - 6 * u


def perona(u):
    d = [u[1:] - u[:-1], u[:, 1:] - u[:, :-1]]
    x, y = (a / (1 + a * a) for a in d)
    return jnp.diff(x, axis=0)[:, 1:-1] + jnp.diff(y, axis=1)[1:-1]


def variation(u):
    across, along = u[1:, :-1] - u[:-1, :-1], u[:-1, 1:] - u[:-1, :-1]
    return jnp.sqrt(1e-2 + across**2 + along**2).sum()


def carried(u):
    """Follow characteristics that are known back to between two points."""
    low = np.floor(DEPARTED).astype(int)
    part = DEPARTED - low
    return (1 - part) * u[low] + part * u[np.minimum(low + 1, 11)]


def boundaries(u):
    u = u.at[:, 0].set(u[:, 1]).at[:, -1].set(u[:, -2])
    return u.at[0].set(0).at[-1].set(1) * 2


def domains(u):
    """Solve two periodic rings that touch at one point each."""
    a, b = u[:6], u[6:]
    new = jnp.concatenate([rolled(a) - 2 * a, rolled(b) - 2 * b])
    return new.at[2].add(b[3]).at[9].add(a[2])


def space_time(u):
    now, then = u[1:], u[:-1]
    lap = jnp.pad(now, ((0, 0), (1, 1)))
    return now - then - 0.1 * (lap[:, 2:] - 2 * now + lap[:, :-2])


def volumes(u):
    flux = jnp.tanh(u[FACES[:, 1]] - u[FACES[:, 0]])
    return jnp.zeros_like(u).at[FACES[:, 0]].add(flux).at[FACES[:, 1]].add(-flux)


def ghosts(u):
    """Exchange rows between four blocks, as machines do, then difference inside each."""
    blocks = u.reshape(4, 3)
    left = jnp.roll(blocks[:, -1:], 1, 0)
    right = jnp.roll(blocks[:, :1], -1, 0)
    wide = jnp.concatenate([left, blocks, right], 1)
    return (wide[:, 2:] - 2 * wide[:, 1:-1] + wide[:, :-2]).ravel()


def mosaic(u):
    """Let each cell of 2 x 2 know its own mean, and the means of the cells beside it."""
    cells = u.reshape(3, 2, 2, 2).mean((1, 3))
    spread = jnp.repeat(jnp.repeat(padded(cells), 2, 0), 2, 1)
    return u - spread


def advected(u):
    """Step a flux with the wind of a known field, by its sign."""
    wind = jnp.asarray(np.sign(FIELD - 1))
    return jnp.where(wind > 0, u - jnp.roll(u, 1, 1), jnp.roll(u, -1, 1) - u)


FUNCTIONS = {
    "ends at zero": (lambda u: padded(u) - 2 * u, (12,)),
    "periodic": (lambda u: rolled(u) - 2 * u, (12,)),
    "mirrored ends": (lambda u: padded(u, "edge") - 2 * u, (12,)),
    "fourth order": (lambda u: jnp.convolve(u, jnp.array([-1.0, 16, -30, 16, -1]), "valid"), (12,)),
    "upwind": (upwind, (10,)),
    "wind of a known field": (advected, (5, 6)),
    "burgers": (burgers, (12,)),
    "heat": (lambda u: padded(u) - 4 * u + u**3, (5, 6)),
    "nine points": (lambda u: conv(u, jnp.asarray(NINE), "SAME"), (5, 6)),
    "twice the laplacian": (lambda u: rolled(rolled(u) - 4 * u), (6, 7)),
    "advection": (lambda u: u - jnp.roll(u, 1, 0) + 2 * (u - jnp.roll(u, 1, 1)), (4, 6)),
    "harmonic conductivity": (harmonic, (5, 6)),
    "conductivity of the field": (conductive, (12,)),
    "brusselator": (brusselator, (4, 4, 2)),
    "gray scott": (gray_scott, (2, 4, 5)),
    "excitable medium": (excitable, (9, 2)),
    "allen cahn": (lambda u: rolled(u) - 4 * u + u - u**3, (4, 6)),
    "cahn hilliard": (cahn_hilliard, (12,)),
    "korteweg": (dispersive, (12,)),
    "kuramoto sivashinsky": (sivashinsky, (12,)),
    "shallow water": (shallow, (9, 2)),
    "minmod": (minmod, (10,)),
    "weno": (weno, (10,)),
    "leapfrog": (leapfrog, (2, 4, 4)),
    "maxwell on a line": (maxwell, (13,)),
    "yee": (yee, (3, 3, 4)),
    "divergence on faces": (divergence, (31,)),
    "gradient on faces": (pressure, (4, 5)),
    "flattened": (lambda u: (padded(u.reshape(5, 6)) - 4 * u.reshape(5, 6)).ravel(), (30,)),
    "flattened, periodic": (
        lambda u: jnp.roll(u, 6) + jnp.roll(u, -6) + jnp.roll(u, 1) + jnp.roll(u, -1) - 4 * u,
        (36,),
    ),
    "seven points": (lambda u: padded(u) - 6 * u, (3, 4, 3)),
    "seven points, periodic": (lambda u: rolled(u) - 6 * u, (3, 4, 3)),
    "red, then black": (coloured, (5, 6)),
    "black, then red, in three dimensions": (lambda u: coloured(u, (1, 0)), (3, 3, 3)),
    "red and black, a symmetric sweep": (lambda u: coloured(u, (0, 1, 0)), (4, 5)),
    "red and black by strides": (strided, (13,)),
    "red and black by strides of a grid": (strided_2d, (4, 6)),
    "four colours": (four_colours, (4, 6)),
    "zebra lines": (zebra, (7, 6)),
    "lexicographic sweep": (lexicographic, (9,)),
    "symmetric sweep": (symmetric_sweep, (9,)),
    "three sweeps": (lambda u: lax.fori_loop(0, 3, lambda i, v: padded(v) / 2, u), (12,)),
    "sweeps while few": (
        lambda u: lax.while_loop(lambda c: c[0] < 2, lambda c: (c[0] + 1, rolled(c[1])), (0, u))[1],
        (12,),
    ),
    "restriction": (restricted, (13,)),
    "restriction of a grid": (restricted_2d, (7, 5)),
    "prolongation": (prolonged, (6,)),
    "prolongation of a grid": (prolonged_2d, (4, 4)),
    "two grids": (two_grid, (13,)),
    "a cycle over three grids": (v_cycle, (15,)),
    "implicit rows": (implicit_rows, (4, 5)),
    "thomas": (thomas, (8,)),
    "radial": (radial, (9,)),
    "polar": (polar, (4, 6)),
    "hexagons": (hexagons, (5, 5)),
    "perona malik": (perona, (5, 6)),
    "total variation's gradient": (jax.grad(variation), (4, 5)),
    "vorticity": (
        lambda v: jnp.roll(v[1], -1, 1) - v[1] - jnp.roll(v[0], -1, 0) + v[0], (2, 4, 5)
    ),
    "followed back": (carried, (12,)),
    "boundaries set": (boundaries, (4, 5)),
    "two rings that touch": (domains, (12,)),
    "space and time": (space_time, (4, 6)),
    "fluxes of a list of faces": (volumes, (6,)),
    "ghost cells": (ghosts, (12,)),
    "a coarse grid under a fine one": (mosaic, (6, 4)),
}  # fmt: skip
