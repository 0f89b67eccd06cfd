"""Control: trajectories, constraints, estimation, networks of machines and optimality."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

RNG = np.random.default_rng(12)
COST = np.triu(np.eye(6) * 2 + np.eye(6, k=2)).astype(np.float32)
COST = COST + COST.T
LIMITS = (np.eye(3, 6) + np.eye(3, 6, k=3)).astype(np.float32)
NODES = np.cos(np.pi * np.arange(6) / 5).astype(np.float32)
SPREAD = (NODES[:, None] - NODES + np.eye(6)).astype(np.float32)
WEIGHTS = np.prod(SPREAD, 1)
COLLOCATE = (WEIGHTS[:, None] / WEIGHTS / SPREAD).astype(np.float32)  # but for its diagonal
SPLINE = sum(np.eye(8, 10, k=k) * w for k, w in enumerate((1, 4, 1))).astype(np.float32)
CAMERA, POINT = np.array([0, 0, 0, 1, 1, 2, 2, 2]), np.array([0, 1, 2, 1, 3, 0, 3, 4])
LANDMARKS = RNG.uniform(-3, 3, (4, 2)).astype(np.float32)
PAIRS = np.array([(a, b) for a in range(4) for b in range(a)])
LINES = np.array([[0, 1], [1, 2], [1, 3], [3, 4], [4, 0]])
SEEN = np.array([[0, 1], [1, 3], [2, 2], [3, 0], [4, 1], [5, 3]])
MOVES = RNG.uniform(-0.5, 0.5, (6, 3, 3)).astype(np.float32)
MOVES[:, np.triu_indices(3, 1)[0], np.triu_indices(3, 1)[1]] = 0


def cart(x, u):
    """Return how a cart with a pole moves: place, angle, speed, turning."""
    s, c = jnp.sin(x[1]), jnp.cos(x[1])
    push = (u[0] + s * (x[3] ** 2 + 9.8 * c)) / (1 + s * s)
    return jnp.stack([x[2], x[3], push, -push * c - 9.8 * s])


def pendulum(x, u):
    return jnp.stack([x[1], -jnp.sin(x[0]) - 0.1 * x[1] + u[0]])


def unicycle(x, u):
    return jnp.stack([u[0] * jnp.cos(x[2]), u[0] * jnp.sin(x[2]), u[1]])


def bicycle(x, u):
    slip = jnp.arctan(0.5 * jnp.tan(0.2 * u[1]))
    turned = x[2] + slip
    ahead = [x[3] * jnp.cos(turned), x[3] * jnp.sin(turned), x[3] * jnp.sin(slip), u[0]]
    return jnp.stack(ahead)


def drone(x, u):
    lift, spin = u[0] + u[1], u[0] - u[1]
    return jnp.stack([x[3], x[4], x[5], -lift * jnp.sin(x[2]), lift * jnp.cos(x[2]) - 9.8, spin])


def swinging(x, u):
    d = x[0] - x[1]
    m = 2 - jnp.cos(d) ** 2
    first = (u[0] - jnp.sin(x[0]) - jnp.sin(d) * (x[3] ** 2 + jnp.cos(d) * x[2] ** 2)) / m
    second = (2 * jnp.sin(d) * x[2] ** 2 - jnp.sin(x[1]) - jnp.cos(d) * first) / m
    return jnp.stack([x[2], x[3], first, second])


def euler(rates, n):
    def residual(z):
        x, u = z[:, :n], z[:, n:]
        return x[1:] - x[:-1] - 0.1 * jax.vmap(rates)(x, u)[:-1]

    return residual


def trapezoid(rates, n):
    def residual(z):
        x, u = z[:, :n], z[:, n:]
        f = jax.vmap(rates)(x, u)
        return x[1:] - x[:-1] - 0.05 * (f[1:] + f[:-1])

    return residual


def simpson(rates, n):
    def residual(z):
        x, u = z[:, :n], z[:, n:]
        f = jax.vmap(rates)(x, u)
        middle = (x[1:] + x[:-1]) / 2 + 0.0125 * (f[:-1] - f[1:])
        between = jax.vmap(rates)(middle, (u[1:] + u[:-1]) / 2)
        return x[1:] - x[:-1] - (f[:-1] + 4 * between + f[1:]) / 60

    return residual


def runge_kutta(rates, x, u):
    a = rates(x, u)
    b = rates(x + 0.05 * a, u)
    c = rates(x + 0.05 * b, u)
    return x + 0.1 * (a + 2 * b + 2 * c + rates(x + 0.1 * c, u)) / 6


def shot(u):
    """Shoot once: states from the controls before them."""

    def step(x, v):
        x = x + 0.1 * unicycle(x, v)
        return x, x

    return lax.scan(step, jnp.array([0.1, 0.2, 0.3]), u)[1]


def shots(z):
    """Shoot from several states, three steps each, and meet the next."""

    def arc(start):
        def step(x, _):
            return runge_kutta(pendulum, x, jnp.zeros(1)), None

        return lax.scan(step, start, None, length=3)[0]

    return jax.vmap(arc)(z)[:-1] - z[1:]


def van_der_pol(z):
    step = jax.vmap(
        lambda x: runge_kutta(lambda a, _: jnp.stack([a[1], (1 - a[0] ** 2) * a[1] - a[0]]), x, x)
    )
    return z[1:] - step(z)[:-1]


def lorenz(z):
    x, y, w = ((z[1:] + z[:-1]) / 2).T
    rates = jnp.stack([10 * (y - x), x * (28 - w) - y, x * y - 2.7 * w], 1)
    return z[1:] - z[:-1] - 0.01 * rates


def backward_differences(x):
    return 1.5 * x[2:] - 2 * x[1:-1] + 0.5 * x[:-2] - 0.1 * jnp.sin(x[2:])


def staged(x):
    """Collocate two Radau stages within each step: rows are (start, first stage, second)."""
    start, stages = x[:, 0], x[:, 1:]
    f = jnp.sin(stages)
    table = jnp.array([[5, -1], [9, 3]]) / 12
    inside = stages - start[:, None] - 0.1 * f @ table.T
    return jnp.concatenate([inside.ravel(), start[1:] - stages[:-1, 1]])


def obstacles(x):
    away = ((x[:, None] - LANDMARKS) ** 2).sum(-1)
    return away - 0.5


def apart(x):
    """Keep each two of four vehicles apart, at every time."""
    return ((x[:, PAIRS[:, 0]] - x[:, PAIRS[:, 1]]) ** 2).sum(-1)


def formation(x):
    ahead = jnp.concatenate([jnp.zeros((1, 2)), x[:-1]])
    return x + 0.1 * (ahead - x - jnp.array([1.0, 0.0]))


def bounded(z):
    return jnp.concatenate([z - 1, -1 - z, jnp.diff(z, axis=0)])


def orbit(x):
    return jnp.roll(x, -1, 0) - x - 0.1 * jnp.stack([x[:, 1], -x[:, 0]], 1)


def free_time(z):
    """Scale each step by the last entry: the time of the whole."""
    x, time = z[:-1].reshape(-1, 2), z[-1]
    return x[1:] - x[:-1] - time / 5 * jnp.stack([x[:-1, 1], -jnp.sin(x[:-1, 0])], 1)


def shared_parameters(z):
    """Estimate two parameters beside the states that they drive."""
    x, (a, b) = z[:-2], z[-2:]
    return jnp.concatenate([x[1:] - x[:-1] - 0.1 * (a * x[:-1] - b * x[:-1] ** 3), x - 1])


def filtered(y):
    """Run a Kalman filter whose gain does not depend on what is measured."""

    def step(carry, seen):
        mean, spread = carry
        spread = spread + 0.1
        gain = spread / (spread + 0.5)
        mean = mean + gain * (seen - mean)
        return (mean, (1 - gain) * spread), mean

    return lax.scan(step, (jnp.zeros(2), jnp.ones(2)), y)[1]


def smoothed(y):
    forward = filtered(y)

    def back(later, here):
        kept = here + 0.5 * (later - here)
        return kept, kept

    return lax.scan(back, forward[-1], forward, reverse=True)[1]


def horizon(z):
    """Weigh what moves between times and what is measured at three of them."""
    x, noise = z[:, :2], z[:, 2:]
    moved = x[1:] - x[:-1] - noise[:-1]
    return jnp.concatenate([moved.ravel(), (x[::2, 0] ** 2).ravel(), noise.ravel()])


def riccati(q):
    def back(p, cost):
        a = jnp.array([[1.0, 0.1], [0.0, 1.0]])
        gain = p[:, 1:] / (1 + p[1:, 1:])
        p = jnp.diag(cost) + a.T @ (p - gain @ p[1:]) @ a
        return p, p[0]

    return lax.scan(back, jnp.eye(2), q, reverse=True)[1]


def arm(angles):
    turned = jnp.cumsum(angles, -1)
    return jnp.stack([jnp.cumsum(jnp.cos(turned), -1), jnp.cumsum(jnp.sin(turned), -1)], -1)


def springs(x):
    p = jnp.concatenate([jnp.zeros((1, 2)), x, jnp.array([[5.0, 0.0]])])
    d = p[1:] - p[:-1]
    force = d * (1 - 0.5 / jnp.sqrt((d**2).sum(-1, keepdims=True) + 0.1))
    return force[1:] - force[:-1]


def adjustment(z):
    """Project the points that each camera sees."""
    cameras, points = z[:9].reshape(3, 3), z[9:].reshape(5, 3)
    seen = points[POINT] - cameras[CAMERA]
    return seen[:, :2] / (4 + seen[:, 2:] ** 2)


def poses(z):
    """Compare poses of the plane along an open chain with one loop closed."""
    a, b = np.append(np.arange(5), 5), np.append(np.arange(1, 6), 0)
    angle = z[a, 2]
    d = z[b, :2] - z[a, :2]
    c, s = jnp.cos(angle), jnp.sin(angle)
    local = jnp.stack([c * d[:, 0] + s * d[:, 1], c * d[:, 1] - s * d[:, 0]], 1)
    return jnp.concatenate([local, (z[b, 2] - z[a, 2])[:, None]], 1)


def bearings(z):
    """See landmarks, which are variables too, from the places of a path."""
    path, marks = z[:12].reshape(6, 2), z[12:].reshape(4, 2)
    d = marks[SEEN[:, 1]] - path[SEEN[:, 0]]
    return jnp.stack([jnp.sqrt((d**2).sum(-1) + 0.1), jnp.arctan2(d[:, 1], 3 + d[:, 0] ** 2)], 1)


def power(z):
    """Balance real power at the buses of a network; angles come first, then voltages."""
    angle, volt = z[:5], z[5:]
    a, b = LINES.T
    flow = volt[a] * volt[b] * jnp.sin(angle[a] - angle[b])
    return jnp.zeros(5).at[a].add(flow).at[b].add(-flow)


def pipes(z):
    """Relate pressures of nodes to flows of the pipes between them."""
    p, q = z[:5], z[5:]
    a, b = LINES.T
    drop = p[a] ** 2 - p[b] ** 2 - q * jnp.sqrt(q * q + 0.1)
    return jnp.concatenate([drop, jnp.zeros(5).at[b].add(q).at[a].add(-q)])


def tanks(level):
    out = jnp.sqrt(level**2 + 0.1)
    return jnp.concatenate([jnp.array([1.0]), out[:-1]]) - out


def traffic(n):
    """Send from cell to cell what one can send and the next can take."""
    flow = jnp.minimum(n[:-1], 2 - n[1:])
    return n + 0.1 * (jnp.pad(flow, (1, 0)) - jnp.pad(flow, (0, 1)))


def inventory(z):
    made, sold = z
    return jnp.cumsum(made) - jnp.cumsum(sold)


def battery(p):
    def step(charge, power):
        charge = 0.99 * charge + jnp.where(power > 0, 0.9 * power, power / 0.9)
        return charge, charge

    return lax.scan(step, 0.5, p)[1]


def ramps(p):
    """Limit the power of units over time, and their sum at each time."""
    return jnp.concatenate([jnp.diff(p, axis=0).ravel(), p.sum(1) - 3, (p**2).ravel()])


def held(u):
    """Hold each control for three steps, and follow the state."""
    return shot(jnp.repeat(u, 3, axis=0)[:, :])


def splined(c):
    points = SPLINE @ c / 6
    return jnp.concatenate([points**2, jnp.diff(points, axis=0)])


def bezier(c):
    t = jnp.linspace(0, 1, 3)
    basis = jnp.stack([(1 - t) ** 2, 2 * t * (1 - t), t**2])
    return jnp.einsum("bt,sbd->std", basis, c)


def triangular_moves(u):
    def step(x, pair):
        move, v = pair
        x = move @ x + v
        return x, x

    return lax.scan(step, jnp.zeros(3), (jnp.asarray(MOVES), u))[1]


def pseudospectral(x):
    return COLLOCATE @ x - jnp.stack([x[:, 1], -(x[:, 0] ** 3)], 1)


def algebraic(z):
    """Step two differential unknowns beside an algebraic one."""
    x, y = z[:, :2], z[:, 2]
    moved = x[1:] - x[:-1] - 0.1 * jnp.stack([-y[1:], x[1:, 0]], 1)
    return jnp.concatenate([moved.ravel(), y - x[:, 0] * x[:, 1]])


def complementary(z):
    a, b = z
    return jnp.sqrt(a * a + b * b + 1e-3) - a - b


def optimality(z):
    x, y = z[:6], z[6:]
    return jnp.concatenate([COST @ x + LIMITS.T @ y, LIMITS @ x - 1])


def lagrangian(z):
    x, y = z[:6].reshape(3, 2), z[6:]
    gap = x[1:, 0] * x[:-1, 1] - 1
    return (x**4).sum() + (y * gap).sum() + (gap**2).sum()


def barrier(x):
    return -jnp.log(4 + x[1:] * x[:-1] / (1 + x[1:] ** 2 + x[:-1] ** 2)).sum()


def phases(x):
    """Fly by one law before the third step, and by another after it."""

    def step(t, y):
        moved = lax.cond(t < 3, lambda v: jnp.roll(v, 1), lambda v: 2 * v, y[t - 1])
        return y.at[t].set(moved + x[t])

    return lax.fori_loop(1, 6, step, x)


def delayed(x):
    late = jnp.concatenate([jnp.zeros(3), x[:-3]])
    return jnp.diff(x) + 0.1 * x[:-1] - jnp.tanh(late[1:])


def stochastic(z):
    """Choose once, act in each of four scenarios, over two stages."""
    first, second = z[:3], z[3:].reshape(4, 3)
    return jnp.concatenate([first.sum(keepdims=True), (second * first - 1).ravel()])


def contacts(z):
    """Push only where a foot stands, by a schedule that is known."""
    stands = np.array([[1, 0], [1, 0], [1, 1], [0, 1], [0, 1]], np.float32)
    x, forces = z[:, :2], z[:, 2:]
    return x[1:] - x[:-1] - 0.1 * (forces * stands).sum(1, keepdims=True)[:-1]


def rotors(z):
    """Compose quaternions along a chain of joints, each from the one before."""
    q = z / jnp.sqrt((z**2).sum(-1, keepdims=True) + 0.1)
    w, v = q[:, :1], q[:, 1:]
    turned = w[:-1] * v[1:] + w[1:] * v[:-1] + jnp.cross(v[:-1], v[1:])
    return jnp.concatenate([w[:-1] * w[1:] - (v[:-1] * v[1:]).sum(-1, keepdims=True), turned], 1)


def levels(z):
    """Share a trunk's water among branches, and a branch's among its fields."""
    trunk, branch, field = z[0], z[1:4], z[4:].reshape(3, 3)
    return jnp.concatenate(
        [(branch.sum() - trunk)[None], field.sum(1) - branch, (field**2).ravel()]
    )


FUNCTIONS = {
    "cart, trapezoid": (trapezoid(cart, 4), (5, 5)),
    "cart, euler": (euler(cart, 4), (5, 5)),
    "pendulum, simpson": (simpson(pendulum, 2), (6, 3)),
    "unicycle": (euler(unicycle, 3), (5, 5)),
    "bicycle": (euler(bicycle, 4), (5, 6)),
    "drone": (trapezoid(drone, 6), (4, 8)),
    "double pendulum": (euler(swinging, 4), (5, 5)),
    "one shot": (shot, (6, 2)),
    "several shots": (shots, (5, 2)),
    "van der pol": (van_der_pol, (6, 2)),
    "lorenz, midpoint": (lorenz, (6, 3)),
    "backward differences": (backward_differences, (10,)),
    "radau": (staged, (5, 3)),
    "obstacles": (obstacles, (6, 2)),
    "apart": (apart, (3, 4, 2)),
    "formation": (formation, (5, 2)),
    "bounds and rates": (bounded, (6, 2)),
    "the end": (lambda x: jnp.concatenate([x[-1] - 1, x[0]]), (6, 3)),
    "an orbit": (orbit, (6, 2)),
    "free time": (free_time, (13,)),
    "shared parameters": (shared_parameters, (12,)),
    "kalman filter": (filtered, (6, 2)),
    "kalman smoother": (smoothed, (6, 2)),
    "moving horizon": (horizon, (5, 4)),
    "riccati": (riccati, (5, 2)),
    "an arm": (arm, (5,)),
    "arms": (arm, (3, 4)),
    "springs in a chain": (springs, (5, 2)),
    "bundle adjustment": (adjustment, (24,)),
    "pose graph": (poses, (6, 3)),
    "bearings": (bearings, (20,)),
    "power flow": (power, (10,)),
    "pipes": (pipes, (10,)),
    "tanks": (tanks, (9,)),
    "traffic": (traffic, (9,)),
    "inventory": (inventory, (2, 6)),
    "battery": (battery, (8,)),
    "ramps": (ramps, (5, 3)),
    "held controls": (held, (3, 2)),
    "spline": (splined, (10, 2)),
    "bezier": (bezier, (4, 3, 2)),
    "triangular moves": (triangular_moves, (6, 3)),
    "pseudospectral": (pseudospectral, (6, 2)),
    "algebraic": (algebraic, (5, 3)),
    "complementarity": (complementary, (2, 9)),
    "optimality of a quadratic program": (optimality, (9,)),
    "lagrangian's gradient": (jax.grad(lagrangian), (8,)),
    "barrier's gradient": (jax.grad(barrier), (9,)),
    "phases": (phases, (6, 3)),
    "delayed": (delayed, (12,)),
    "scenarios": (stochastic, (15,)),
    "contacts": (contacts, (5, 4)),
    "rotors": (rotors, (5, 4)),
    "levels": (levels, (13,)),
}  # fmt: skip
