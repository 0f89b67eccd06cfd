"""Graphs: messages along edges, meshes, trees, ragged rows and networks of compared pairs."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import sparse

RNG = np.random.default_rng(13)
EDGES = np.array([[0, 1], [1, 2], [2, 0], [2, 3], [3, 4], [4, 5], [5, 3], [1, 5]])
SEND, TAKE = EDGES.T
BOTH = np.concatenate([EDGES, EDGES[:, ::-1]])
ADJACENT = np.zeros((6, 6), np.float32)
ADJACENT[tuple(BOTH.T)] = 1
DEGREE = ADJACENT.sum(1)
NORMAL = (ADJACENT + np.eye(6, dtype=np.float32)) / np.sqrt(np.outer(DEGREE + 1, DEGREE + 1))
W = RNG.uniform(0.5, 1.5, (2, 3)).astype(np.float32)
V = RNG.uniform(0.5, 1.5, (3, 2)).astype(np.float32)
ROWS = np.array([0, 0, 1, 3, 3, 3, 4, 4])  # a ragged array's rows; the third is empty
STARTS = np.array([0, 2, 3, 3, 6, 8])
NEAR = np.array([[1, 2, 2], [0, 2, 5], [0, 1, 3], [2, 4, 5], [3, 5, 5], [1, 3, 4]])
NEAR_KEPT = np.array([[1, 1, 0], [1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 0], [1, 1, 1]], np.float32)
FACES = np.array([[0, 1, 2], [1, 3, 2], [2, 3, 4], [3, 5, 4]])
BONDS = np.array([[0, 1], [1, 2], [2, 3], [3, 4]])
CLUSTER = np.array([0, 0, 1, 1, 1, 2])
PARENT = np.array([0, 0, 0, 1, 1, 2, 4, 4])
REACTIONS = np.array([[-1, 1, 0, 0], [0, -2, 1, 0], [0, 1, -1, 1], [1, 0, 0, -1]], np.float32)
HYPER = (RNG.random((6, 4)) < 0.4).astype(np.float32)
LOCAL = np.array([[2, -1, -1], [-1, 2, -1], [-1, -1, 2]], np.float32)
SPARSE = np.where(RNG.random((7, 7)) < 0.25, RNG.uniform(1, 2, (7, 7)), 0).astype(np.float32)
MATRIX = sparse.BCOO.fromdense(SPARSE)
ROW_FORM = sparse.BCSR.fromdense(SPARSE)


def gathered(m, at, n=6):
    return jax.ops.segment_sum(m, at, n)


def spectral(x):
    """Apply a Chebyshev polynomial of the graph, two hops wide."""
    first = NORMAL @ x
    return x + 0.5 * first + 0.2 * (2 * NORMAL @ first - x)


def attending(x):
    """Weigh the neighbours of each node by a softmax over its incoming edges."""
    score = jnp.tanh((x[BOTH[:, 0]] * x[BOTH[:, 1]]).sum(-1))
    top = jax.ops.segment_max(score, BOTH[:, 1], 6)
    weight = jnp.exp(score - lax.stop_gradient(top)[BOTH[:, 1]])
    weight = weight / gathered(weight, BOTH[:, 1])[BOTH[:, 1]]
    return gathered(weight[:, None] * x[BOTH[:, 0]], BOTH[:, 1])


def sage(x):
    count = np.bincount(TAKE, minlength=6)[:, None].clip(1).astype(np.float32)
    return jnp.concatenate([x, gathered(x[SEND], TAKE) / count], 1)


def isomorphism(x):
    total = 1.1 * x + gathered(x[SEND], TAKE)
    return jax.nn.gelu(total @ W) @ V


def updated_edges(z):
    """Update what lies on edges by their ends; nodes come first."""
    nodes, edges = z[:6], z[6:]
    return jnp.tanh(edges + nodes[SEND] - 2 * nodes[TAKE])


def passing(x, rounds=2):
    for _ in range(rounds):
        m = jnp.tanh(x[SEND] * x[TAKE])
        x = x + gathered(m, TAKE)
    return x


def scanned_rounds(x):
    def step(h, _):
        return h + jnp.zeros_like(h).at[TAKE].add(jnp.sin(h[SEND])), None

    return lax.scan(step, x, None, length=2)[0]


def bipartite(z):
    """Pass messages between variables and the checks of a code."""
    left, right = z[:6], z[6:]
    a, b = np.nonzero(HYPER)
    return jnp.concatenate([gathered(jnp.tanh(right[b]), a), gathered(jnp.tanh(left[a]), b, 4)])


def padded_neighbours(x):
    return (jnp.tanh(x[NEAR]) * NEAR_KEPT[..., None]).sum(1)


def edge_conv(x):
    """Take the strongest feature of the differences to three neighbours."""
    return jnp.tanh(x[NEAR] - x[:, None]).max(1)


def ragged_softmax(x):
    e = jnp.exp(x)
    return e / gathered(e, ROWS, 5)[ROWS]


def ragged_by_ends(x):
    """Sum ragged rows as differences of running sums, as CSR does."""
    total = jnp.concatenate([jnp.zeros(1), jnp.cumsum(x)])
    return total[STARTS[1:]] - total[STARTS[:-1]]


def ragged_padded(x):
    """Spread ragged rows over a padded rectangle, and back."""
    place = np.arange(8) - STARTS[ROWS]
    wide = jnp.zeros((5, 3)).at[ROWS, place].set(x)
    return jnp.cumsum(wide, 1)[ROWS, place]


def tree_sums(x):
    """Add each node to its parent, from the leaves to the root."""
    for n in range(7, 0, -1):
        x = x.at[PARENT[n]].add(x[n])
    return x


def tree_by_levels(x):
    for level in ([6, 7], [3, 4, 5], [1, 2]):
        at = np.array(level)
        x = x.at[PARENT[at]].add(jnp.tanh(x[at]))
    return x


def heap(x):
    """Add in a heap what each node's two children hold."""
    for first, last in ((3, 7), (1, 3), (0, 1)):
        here = np.arange(first, last)
        x = x.at[here].set(x[here] + x[2 * here + 1] * x[2 * here + 2])
    return x


def ancestors(x):
    """Double pointers: every node adds up what stands on its way to the root."""
    to, total = PARENT.copy(), x.at[0].set(0)
    for _ in range(3):
        total, to = total + total[to], to[to]
    return total


def walked(x):
    return lax.fori_loop(0, 2, lambda i, p: jnp.asarray(ADJACENT / DEGREE) @ p, x)


def oscillators(a):
    return jnp.zeros_like(a).at[BOTH[:, 1]].add(jnp.sin(a[BOTH[:, 0]] - a[BOTH[:, 1]]))


def epidemic(z):
    s, i, _ = z
    met = s * (ADJACENT @ i)
    return jnp.stack([-met, met - 0.3 * i, 0.3 * i])


def reactions(c):
    rates = jnp.stack([c[0], c[1] ** 2, c[1] * c[2], c[3]])
    return REACTIONS.T @ rates


def pair_forces(x):
    d = x[SEND] - x[TAKE]
    push = d / (0.5 + (d**2).sum(-1, keepdims=True)) ** 2
    return gathered(push, SEND) - gathered(push, TAKE)


def bending(x):
    a, b = x[1:-1] - x[:-2], x[2:] - x[1:-1]
    return ((a * b).sum(-1) / jnp.sqrt((a * a).sum(-1) * (b * b).sum(-1) + 0.1)).sum()


def dihedrals(x):
    a, b, c = x[1:-2] - x[:-3], x[2:-1] - x[1:-2], x[3:] - x[2:-1]
    m, n = jnp.cross(a, b), jnp.cross(b, c)
    return (m * n).sum(-1) / jnp.sqrt((m * m).sum(-1) * (n * n).sum(-1) + 0.1)


def assembled(u):
    """Assemble a nonlinear element's residual from its three corners."""
    local = u[FACES]
    k = 1 + (local**2).mean(1, keepdims=True)
    return jnp.zeros_like(u).at[FACES].add(k * (local @ LOCAL))


def stiffness(k):
    """Assemble the entries of a sparse matrix from the stiffness of each element."""
    local = k[:, None, None] * LOCAL
    rows = np.broadcast_to(FACES[:, :, None], (4, 3, 3))
    columns = np.broadcast_to(FACES[:, None], (4, 3, 3))
    return jnp.zeros((6, 6)).at[rows, columns].add(local)


def beam(u):
    """Assemble two elements' nodes with a shift and a turn each."""
    at = 2 * np.arange(4)[:, None] + np.arange(4)
    d = u[at]
    bent = jnp.stack(
        [d[:, 0] - d[:, 2], d[:, 1] + d[:, 3], d[:, 2] - d[:, 0], d[:, 1] - d[:, 3]], 1
    )
    return jnp.zeros_like(u).at[at].add(bent + bent**3)


def normals(x):
    a, b, c = (x[FACES[:, k]] for k in range(3))
    return jnp.cross(b - a, c - a)


def corner_normals(x):
    n = normals(x)
    summed = jnp.zeros_like(x).at[FACES].add(n[:, None])
    return summed / jnp.sqrt((summed**2).sum(-1, keepdims=True) + 0.1)


def lengths(x):
    return jnp.sqrt(((x[SEND] - x[TAKE]) ** 2).sum(-1) + 0.1)


def resistors(v):
    current = jnp.sinh(v[SEND] - v[TAKE])
    return jnp.concatenate([current, gathered(current, SEND) - gathered(current, TAKE)])


def relaxed(d):
    return jnp.minimum(d, jnp.full(6, jnp.inf).at[TAKE].min(d[SEND] + 1))


def chain_beliefs(x):
    """Send beliefs along a chain in both directions, in logarithms."""
    table = jnp.log(jnp.array([[2.0, 1.0], [1.0, 3.0]]))

    def step(m, local):
        m = jax.nn.logsumexp(table + (m + local)[:, None], axis=0)
        return m, m

    there = lax.scan(step, jnp.zeros(2), x)[1]
    back = lax.scan(step, jnp.zeros(2), x, reverse=True)[1]
    return there[:-2] + x[1:-1] + back[2:]


def tree_network(x):
    """Fold words in pairs as a fixed sentence's tree says."""
    nodes = [*x]
    for a, b in ((0, 1), (2, 3), (4, 5)):
        nodes.append(jnp.tanh(nodes[a] * 0.7 + jnp.flip(nodes[b])))
    return jnp.stack(nodes[4:])


def several_graphs(x):
    """Normalise nodes within each of three graphs that lie in one array."""
    count = np.bincount(CLUSTER)[:, None].astype(np.float32)
    mean = gathered(x, CLUSTER, 3) / count
    return x - mean[CLUSTER]


def pooled(x):
    coarse = jnp.tanh(gathered(x, CLUSTER, 3))
    return coarse[CLUSTER] + x


def triangles(x):
    a, b, c = x[FACES[:, 0]], x[FACES[:, 1]], x[FACES[:, 2]]
    return gathered(a * b * c, FACES[:, 0]) + gathered(a * b * c, FACES[:, 2])


def line_graph(e):
    """Pass messages between edges where one ends and the other begins."""
    meets = (TAKE[:, None] == SEND).astype(np.float32)
    return e + meets.T @ jnp.tanh(e)


def circuit(x):
    """Run gates in the order of a circuit, each from two earlier wires."""
    wires = [*x]
    for a, b in ((0, 1), (1, 2), (4, 2), (3, 5), (6, 7)):
        wires.append(jnp.sin(wires[a]) * wires[b])
    return jnp.stack(wires[4:])


def wires_in_a_loop(x):
    """Run the same gates in a loop, with the wires in one array."""
    a, b = np.array([0, 1, 4, 3, 6]), np.array([1, 2, 2, 5, 7])

    def step(k, w):
        at = jnp.asarray
        return w.at[4 + k].set(jnp.sin(w[at(a)[k]]) * w[at(b)[k]])

    return lax.fori_loop(0, 5, step, jnp.concatenate([x, jnp.zeros(5)]))[4:]


def compared(x):
    """Put four numbers in order by five comparisons that are fixed."""
    for a, b in ((0, 2), (1, 3), (0, 1), (2, 3), (1, 2)):
        x = (
            x.at[..., a]
            .set(jnp.minimum(x[..., a], x[..., b]))
            .at[..., b]
            .set(jnp.maximum(x[..., a], x[..., b]))
        )
    return x


def butterflies(x):
    for d in (4, 2, 1):
        b = x.reshape(-1, 2, d)
        x = jnp.stack([b[:, 0] + b[:, 1], b[:, 0] - 0.5 * b[:, 1]], 1).reshape(-1)
    return x


def one_butterfly(x):
    b = x.reshape(-1, 2, 4)
    return jnp.stack([b[:, 0] * b[:, 1], b[:, 0] - b[:, 1]], 1).reshape(-1)


def cliques(x):
    """Couple three groups of two, and each group with the next by one link."""
    groups = x.reshape(3, 2)
    inside = groups * groups.sum(1, keepdims=True)
    return inside.at[:-1, 1].add(groups[1:, 0])


def directed(x):
    """Send by type of edge: two relations with weights of their own."""
    kind = np.arange(8) % 2
    weights = jnp.stack([jnp.eye(2), jnp.array([[0.0, 1.0], [2.0, 0.0]])])
    return gathered(jnp.einsum("ei,eij->ej", x[SEND], weights[kind]), TAKE)


def to_and_from_places(x):
    """Sort rows by a known key, work on pairs of neighbours, and put them back."""
    order = np.array([3, 0, 5, 1, 4, 2])
    y = x[jnp.argsort(jnp.asarray(order))]
    y = y + jnp.roll(y, 1, 0)
    return jnp.zeros_like(x).at[np.argsort(order)].set(y)


def grouped_points(x):
    """Group points around two fixed centres, and keep each group's largest."""
    groups = x[np.array([[0, 1, 3], [2, 4, 5]])] - x[np.array([0, 2])][:, None]
    return groups.max(1)


def equivariant(z):
    """Move points along the lines between them, by weights of their distances."""
    d = z[SEND] - z[TAKE]
    weight = jnp.exp(-(d**2).sum(-1, keepdims=True))
    return z + gathered(d * weight, SEND)


def windows_of_rows(x):
    """Read two entries of each row from a place of its own."""
    starts = np.array([0, 2, 1, 3])
    return jax.vmap(lambda row, at: lax.dynamic_slice(row, (at,), (2,)))(x, starts)


FUNCTIONS = {
    "laplacian of a graph": (lambda x: DEGREE * x - ADJACENT @ x, (6,)),
    "convolution of a graph": (lambda x: jax.nn.gelu(NORMAL @ x @ W), (6, 2)),
    "convolution by edges": (lambda x: gathered(jnp.tanh(x @ W)[SEND], TAKE), (6, 2)),
    "two hops": (spectral, (6, 2)),
    "attention of a graph": (attending, (6, 2)),
    "means of neighbours": (sage, (6, 2)),
    "isomorphism network": (isomorphism, (6, 2)),
    "edges from their ends": (updated_edges, (14,)),
    "two rounds of messages": (passing, (6,)),
    "rounds in a scan": (scanned_rounds, (6,)),
    "between variables and checks": (bipartite, (10,)),
    "lists of neighbours": (padded_neighbours, (6, 2)),
    "strongest neighbour": (edge_conv, (6, 2)),
    "ragged softmax": (ragged_softmax, (8,)),
    "ragged sums by their ends": (ragged_by_ends, (8,)),
    "ragged rows in a rectangle": (ragged_padded, (8,)),
    "ragged squares": (lambda x: gathered(x**2, ROWS, 5), (8,)),
    "ragged rows, repeated": (
        lambda x: jnp.repeat(x, np.diff(STARTS), total_repeat_length=8) ** 2, (5,)
    ),
    "hypergraph": (lambda x: HYPER @ jnp.tanh(HYPER.T @ x), (6,)),
    "tree, node by node": (tree_sums, (8,)),
    "tree, level by level": (tree_by_levels, (8,)),
    "heap": (heap, (15,)),
    "ancestors": (ancestors, (8,)),
    "random walk": (walked, (6,)),
    "a page's rank": (lambda x: 0.9 * (ADJACENT / DEGREE) @ x + 0.1 * x[0], (6,)),
    "oscillators": (oscillators, (6,)),
    "epidemic": (epidemic, (3, 6)),
    "reactions": (reactions, (4,)),
    "reactions in cells": (jax.vmap(reactions), (4, 4)),
    "pair forces": (pair_forces, (6, 2)),
    "bending forces": (jax.grad(bending), (6, 3)),
    "dihedrals": (dihedrals, (6, 3)),
    "assembled elements": (assembled, (6,)),
    "assembled matrix": (stiffness, (4,)),
    "beam": (beam, (10,)),
    "normals of faces": (normals, (6, 3)),
    "normals of corners": (corner_normals, (6, 3)),
    "lengths of edges": (lengths, (6, 3)),
    "resistors": (resistors, (6,)),
    "shortest paths": (relaxed, (6,)),
    "beliefs on a chain": (chain_beliefs, (6, 2)),
    "tree of words": (tree_network, (4, 3)),
    "several graphs": (several_graphs, (6, 2)),
    "pooled and unpooled": (pooled, (6, 2)),
    "triangles": (triangles, (6,)),
    "edges that meet": (line_graph, (8,)),
    "circuit": (circuit, (4,)),
    "circuit in a loop": (wires_in_a_loop, (4,)),
    "comparisons": (compared, (3, 4)),
    "butterflies": (butterflies, (8,)),
    "one butterfly": (one_butterfly, (16,)),
    "cliques": (cliques, (6,)),
    "two kinds of edges": (directed, (6, 2)),
    "to places and back": (to_and_from_places, (6, 2)),
    "groups of points": (grouped_points, (6, 2)),
    "moves along edges": (equivariant, (6, 2)),
    "windows of rows": (windows_of_rows, (4, 5)),
    "sparse matrix": (lambda x: MATRIX @ x + x**2, (7,)),
    "sparse matrix by rows": (lambda x: ROW_FORM @ jnp.tanh(x), (7,)),
    "sparse matrix, twice": (lambda x: MATRIX @ jnp.sin(MATRIX @ x), (7,)),
}  # fmt: skip
