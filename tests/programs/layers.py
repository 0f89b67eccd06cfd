"""Layers: attention, convolutions, recurrences, norms, pools, routing and layers that gather."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

RNG = np.random.default_rng(14)
W = RNG.uniform(-1, 1, (4, 4)).astype(np.float32)
WIDE = RNG.uniform(-1, 1, (4, 6)).astype(np.float32)
DOWN = RNG.uniform(-1, 1, (6, 4)).astype(np.float32)
KEYS = RNG.uniform(-1, 1, (5, 4)).astype(np.float32)
TABLE = RNG.uniform(-1, 1, (7, 4)).astype(np.float32)
TOKENS = np.array([[3, 1, 3], [0, 6, 2]])
FILTER = RNG.uniform(0.5, 1.5, (3, 2, 2)).astype(np.float32)
PLANE = RNG.uniform(0.5, 1.5, (3, 3, 2, 2)).astype(np.float32)
LENGTHS = np.array([3, 5, 1])
SEGMENTS = np.array([0, 0, 1, 1, 1, 2])
EXPERT = np.array([1, 0, 1, 2, 0, 2])
EXPERTS = RNG.uniform(0.5, 1.5, (3, 4, 3)).astype(np.float32)
OFFSETS = np.array([0, 2, 5])
CODES = RNG.uniform(-1, 1, (5, 2)).astype(np.float32)
COSINES = np.cos(np.pi / 4 * (np.arange(4) + 0.5) * np.arange(4)[:, None]).astype(np.float32)
GRID = np.array([[0.2, 1.6], [1.3, 0.4], [2.5, 2.1], [0.7, 1.2]])
UP = np.array([[1, 0, 0], [0.5, 0.5, 0], [0, 1, 0], [0, 0.5, 0.5], [0, 0, 1]], np.float32)
DEGREES = [np.array([0, 1, 2]), np.array([0, 0, 1, 1]), np.array([0, 1, 2])]
MADE = [
    (DEGREES[0][:, None] <= DEGREES[1]).astype(np.float32),
    (DEGREES[1][:, None] < DEGREES[2]).astype(np.float32),
]
TURN = np.exp(1j * np.arange(6)[:, None] * np.array([1.0, 0.1])).astype(np.complex64)


def norm(x, axis=-1):
    return (x - x.mean(axis, keepdims=True)) / jnp.sqrt(x.var(axis, keepdims=True) + 1e-3)


def attend(q, k, v, kept=None):
    s = q @ k.mT / 2
    s = s if kept is None else jnp.where(kept, s, -jnp.inf)
    return jax.nn.softmax(s, axis=-1) @ v


def causal(x):
    return attend(x @ W, x, x, np.tri(x.shape[-2], dtype=bool))


def windowed(x):
    i = jnp.arange(x.shape[-2])
    near = (i[:, None] - i < 2) & (i[:, None] >= i)
    return attend(x @ W, x, x, near)


def packed(x):
    return attend(x, x @ W, x, SEGMENTS[:, None] == SEGMENTS)


def packed_causal(x):
    return attend(x, x @ W, x, (SEGMENTS[:, None] == SEGMENTS) & np.tri(6, dtype=bool))


def strided_attention(x):
    i = np.arange(6)
    return attend(x, x, x @ W, ((i[:, None] - i) % 3 == 0) & (i[:, None] >= i))


def global_tokens(x):
    kept = np.eye(6, dtype=bool)
    kept[0] = kept[:, 0] = True
    return attend(x, x @ W, x, kept)


def dilated_blocks(x):
    """Attend within blocks of two, and within the even and the odd tokens."""
    local = attend(*[x.reshape(3, 2, 4)] * 3).reshape(6, 4)
    far = x.reshape(3, 2, 4).transpose(1, 0, 2)
    return local + attend(far, far, far).transpose(1, 0, 2).reshape(6, 4)


def grouped(x):
    """Share each of two keys' heads between two queries' heads."""
    q = x.reshape(5, 2, 2, 2)
    k = q.mean(2)
    s = jnp.einsum("tgqd,sgd->gqts", q, k)
    p = jax.nn.softmax(jnp.where(np.tri(5, dtype=bool), s, -jnp.inf), -1)
    return jnp.einsum("gqts,sgd->tgqd", p, k).reshape(5, 8)


def rotary(x):
    z = (x[:, :2] + 1j * x[:, 2:]) * TURN
    return jnp.concatenate([z.real, z.imag], -1)


def biased(x):
    far = np.arange(5)[:, None] - np.arange(5)
    s = x @ x.T - 0.5 * far
    return jax.nn.softmax(jnp.where(far >= 0, s, -jnp.inf), -1) @ x


def linear_attention(x):
    """Keep a running sum of outer products instead of scores."""

    def step(state, t):
        state = state + jnp.outer(jax.nn.elu(t) + 1, t)
        return state, t @ state

    return lax.scan(step, jnp.zeros((3, 3)), x)[1]


def cached(x):
    """Write two new keys into a cache behind three old ones, and attend to all."""
    cache = lax.dynamic_update_slice(jnp.asarray(KEYS), x, (3, 0))
    kept = np.arange(5) <= np.arange(3, 5)[:, None]
    return attend(x, cache, cache, kept)


def conv1d(x, **options):
    return lax.conv_general_dilated(x, FILTER, dimension_numbers=("NWC", "WIO", "NWC"), **options)


def conv2d(x, kernel=PLANE, **options):
    form = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, dimension_numbers=form, **options)


def depthwise(x):
    return conv2d(x, PLANE[:, :, :1], window_strides=(1, 1), padding="SAME", feature_group_count=2)


def separable(x):
    return depthwise(x) @ W[:2, :3]


def pooled(x, kind):
    start, join = (-jnp.inf, lax.max) if kind == "max" else (0.0, lax.add)
    return lax.reduce_window(x, start, join, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def recurrent(x, cell, width, reverse=False):
    def step(h, t):
        h = cell(h, t)
        return h, h[..., :width]

    return lax.scan(step, jnp.zeros((*x.shape[1:-1], 2 * width)), x, reverse=reverse)[1]


def plain(h, t):
    return jnp.tile(jnp.tanh(h[..., :4] @ W + t), 2)


def gated(h, t):
    z, r = jax.nn.sigmoid(t @ W + h[..., :4]), jax.nn.sigmoid(t - h[..., :4] @ W)
    return jnp.tile((1 - z) * h[..., :4] + z * jnp.tanh(t + r * h[..., :4]), 2)


def long_short(h, t):
    out, cell = h[..., :4], h[..., 4:]
    i, f, o = (jax.nn.sigmoid(t @ W + s * out) for s in (1, 2, 3))
    cell = f * cell + i * jnp.tanh(t + out @ W)
    return jnp.concatenate([o * jnp.tanh(cell), cell], -1)


def diagonal(h, t):
    return jnp.tile(0.9 * h[..., :4] + t, 2)


def selective(x):
    """Let each channel decay by what it reads itself."""

    def join(a, b):
        return a[0] * b[0], a[1] * b[0] + b[1]

    return lax.associative_scan(join, (jax.nn.sigmoid(x), x), axis=0)[1]


def excited(x):
    return x * jax.nn.sigmoid(x.mean((1, 2)) @ W[:2, :2])[:, None, None]


def net_with_skip(x):
    down = jnp.tanh(x[:, ::2] + x[:, 1::2])
    up = jnp.repeat(down, 2, axis=1)
    return jnp.concatenate([x, up], -1) @ W


def shuffled_pixels(x):
    b, h, w, c = x.shape
    return x.reshape(b, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5).reshape(b, 2 * h, 2 * w, -1)


def patches(x):
    cut = x.reshape(2, 2, 2, 2, 2, 1).transpose(0, 1, 3, 2, 4, 5).reshape(2, 4, 4)
    return cut @ W


def shifted_windows(x):
    """Attend within windows of a rolled image, and roll back."""
    moved = jnp.roll(x, (-1, -1), (0, 1)).reshape(2, 2, 2, 2, 2).transpose(0, 2, 1, 3, 4)
    seen = attend(*[moved.reshape(4, 4, 2)] * 3)
    back = seen.reshape(2, 2, 2, 2, 2).transpose(0, 2, 1, 3, 4).reshape(4, 4, 2)
    return jnp.roll(back, (1, 1), (0, 1))


def shuffled_channels(x):
    return jnp.tanh(x.reshape(3, 2, 3).swapaxes(1, 2).reshape(3, 6))


def routed(x):
    """Send each row to an expert that is known."""
    return jnp.einsum("ti,tio->to", x, jnp.asarray(EXPERTS[EXPERT]))


def routed_in_order(x):
    order = np.argsort(EXPERT, kind="stable")
    made = lax.ragged_dot(x[order], jnp.asarray(EXPERTS), jnp.asarray(np.bincount(EXPERT)))
    return jnp.zeros((6, 3)).at[order].set(made)


def routed_by_value(x):
    best = jnp.argmax(x[:, :3], -1)
    return jnp.einsum("ti,tio->to", x, jnp.asarray(EXPERTS)[best])


def capacity(x):
    """Drop what comes after the first row of each expert, by places that are known."""
    place = np.array([np.sum(EXPERT[:t] == e) for t, e in enumerate(EXPERT)])
    queue = jnp.zeros((3, 1, 4)).at[EXPERT, place].set(x, mode="drop")
    made = jnp.einsum("eci,eio->eco", queue, jnp.asarray(EXPERTS))
    return made.at[EXPERT, place].get(mode="fill", fill_value=0)


def masked_mean(x):
    kept = np.arange(5) < LENGTHS[:, None]
    return (x * kept[..., None]).sum(1) / LENGTHS[:, None]


def running_mean(x):
    return jnp.cumsum(x, 1) / jnp.arange(1, 6)[:, None]


def last_kept(x):
    return x[jnp.arange(3), LENGTHS - 1]


def bags(table):
    """Embed bags of words: rows of a table in a row, each bag from an offset to the next."""
    words = np.array([3, 1, 2, 2, 6, 0])
    return jnp.add.reduceat(table[words], OFFSETS, axis=0)


def rendered(x):
    """Weigh colours along rays by what light is left."""
    opaque, colour = 1 - jnp.exp(-jax.nn.softplus(x[..., 0])), x[..., 1:]
    left = jnp.cumprod(1 - opaque, -1)
    left = jnp.concatenate([jnp.ones((3, 1)), left[:, :-1]], -1)
    return ((left * opaque)[..., None] * colour).sum(1)


def transmitted(x):
    return jnp.exp(-jnp.cumsum(jax.nn.softplus(x), -1))


def tagged(x):
    """Sum over all taggings that end at each word, in logarithms."""

    def step(a, t):
        a = jax.nn.logsumexp(a[:, None] + W[:3, :3], axis=0) + t
        return a, a

    return lax.scan(step, x[0], x[1:])[1]


def haar(x):
    for _ in range(2):
        n = x.shape[-1] // 2
        x = jnp.concatenate([x[..., ::2] + x[..., 1::2], x[..., ::2] - x[..., 1::2]], -1)
        x = jnp.concatenate([x[..., :n], x[..., n:]], -1)
    return x


def coupled(x):
    still, moved = x[:, :2], x[:, 2:]
    scale = jnp.tanh(still @ W[:2, :2])
    return jnp.concatenate([still, moved * jnp.exp(scale) + still**2], -1)


def autoregressive(x):
    hidden = jnp.tanh(x @ (MADE[0] * W[:3, :4]))
    return hidden @ (MADE[1] * W[:4, :3])


def balanced(x):
    """Balance rows and columns of a matrix in turn."""
    for _ in range(2):
        x = x - jax.nn.logsumexp(x, -1, keepdims=True)
        x = x - jax.nn.logsumexp(x, -2, keepdims=True)
    return jnp.exp(x)


def quantised(x):
    nearest = jnp.argmin(((x[:, None] - CODES) ** 2).sum(-1), -1)
    return x + lax.stop_gradient(jnp.asarray(CODES)[nearest] - x)


def warped(x):
    """Read an image between its points, at places that are known."""
    low = np.floor(GRID).astype(int)
    part = (GRID - low)[..., None].astype(np.float32)
    rows = x[low[:, 0]] * (1 - part[:, 0]) + x[low[:, 0] + 1] * part[:, 0]
    at = np.arange(4)
    return rows[at, low[:, 1]] * (1 - part[:, 1, :]) + rows[at, low[:, 1] + 1] * part[:, 1, :]


def contrasted(x):
    unit = x / jnp.sqrt((x**2).sum(-1, keepdims=True) + 1e-3)
    return unit[:3] @ unit[3:].T


def local_response(x):
    total = lax.reduce_window(x**2, 0.0, lax.add, (1, 3), (1, 1), "SAME")
    return x / (1 + total) ** 0.75


def frames(x):
    """Cut a signal into frames that overlap, and weigh each by a window."""
    at = 2 * np.arange(4)[:, None] + np.arange(4)
    return x[at] * np.hanning(6)[1:5].astype(np.float32)


def overlapped(x):
    at = 2 * np.arange(4)[:, None] + np.arange(4)
    return jnp.zeros(10).at[at].add(x)


def cropped(x):
    """Cut a box of its own from each picture."""
    return jax.vmap(lambda p, r, c: lax.dynamic_slice(p, (r, c), (2, 2)))(
        x, np.array([0, 2, 1]), np.array([1, 0, 2])
    )


def pyramid(x):
    levels = [x]
    for _ in range(2):
        levels.append(jnp.tanh(levels[-1][:, ::2] + levels[-1][:, 1::2]))
    return jnp.concatenate(levels, 1)


def mixed(x):
    """Mix tokens within channels, then channels within tokens."""
    x = x + jax.nn.gelu(x.T @ W).T
    return x + jax.nn.gelu(x @ W)


def block(x):
    x = x + causal(norm(x)) @ W
    return x + jax.nn.gelu(norm(x) @ WIDE) @ DOWN


def iterated(x):
    return lax.scan(lambda h, _: (block(h), None), x, None, length=3)[0]


def rounded(x):
    """Quantise each row by its own largest entry, straight through."""
    scale = lax.stop_gradient(jnp.abs(x).max(-1, keepdims=True))
    return x + lax.stop_gradient(jnp.round(x / scale * 7) / 7 * scale - x)


def hashed(x):
    """Add up columns that fall in the same bucket, with a sign."""
    bucket, sign = np.array([2, 0, 2, 1, 0, 1]), np.array([1, -1, -1, 1, 1, 1], np.float32)
    return jnp.zeros((3, 3)).at[:, bucket].add(x * sign)


def ranked(x):
    """Take along rows what known ranks say."""
    rank = np.array([[2, 0], [1, 1], [3, 2]])
    return jnp.take_along_axis(x, rank, 1) ** 2


ONE = {"window_strides": (1,), "padding": "VALID"}
FUNCTIONS = {
    "dense": (lambda x: jnp.tanh(x @ W), (3, 4)),
    "two dense": (lambda x: jax.nn.gelu(x @ WIDE) @ DOWN, (3, 4)),
    "gated units": (lambda x: (x @ W)[:, :2] * jax.nn.silu((x @ W)[:, 2:]), (3, 4)),
    "layer norm": (norm, (3, 4)),
    "rms norm": (lambda x: x / jnp.sqrt((x**2).mean(-1, keepdims=True) + 1e-3), (3, 4)),
    "batch norm": (lambda x: norm(x, 0), (5, 3)),
    "group norm": (lambda x: norm(x.reshape(2, 3, 2, 2), (1, 3)).reshape(2, 3, 4), (2, 3, 4)),
    "instance norm": (lambda x: norm(x, (1, 2)), (2, 3, 3, 2)),
    "local response": (local_response, (3, 6)),
    "softmax": (jax.nn.softmax, (3, 5)),
    "log softmax over time": (lambda x: jax.nn.log_softmax(x, 0), (4, 3)),
    "causal attention": (causal, (2, 5, 4)),
    "windowed attention": (windowed, (6, 4)),
    "packed attention": (packed, (6, 4)),
    "packed and causal": (packed_causal, (6, 4)),
    "strided attention": (strided_attention, (6, 4)),
    "a global token": (global_tokens, (6, 4)),
    "attention of blocks": (dilated_blocks, (6, 4)),
    "grouped queries": (grouped, (5, 8)),
    "rotary places": (rotary, (6, 4)),
    "scores by distance": (biased, (5, 3)),
    "linear attention": (linear_attention, (5, 3)),
    "cross attention": (lambda x: attend(x, KEYS, KEYS), (3, 4)),
    "cached keys": (cached, (2, 4)),
    "transformer block": (block, (5, 4)),
    "three blocks in a scan": (iterated, (5, 4)),
    "mixer": (mixed, (4, 4)),
    "embedding": (lambda t: t[TOKENS], (7, 4)),
    "embedding, looked up by products": (lambda t: jax.nn.one_hot(TOKENS, 7) @ t, (7, 4)),
    "logits": (lambda x: x @ TABLE.T, (3, 4)),
    "bags of words": (bags, (7, 3)),
    "last kept": (last_kept, (3, 5, 2)),
    "take along rows": (ranked, (3, 4)),
    "hashed columns": (hashed, (3, 6)),
    "convolution": (lambda x: conv1d(x, **ONE), (2, 6, 2)),
    "causal dilated convolution": (
        lambda x: conv1d(x, window_strides=(1,), padding=[(4, 0)], rhs_dilation=(2,)), (2, 7, 2)
    ),
    "transposed convolution": (
        lambda x: conv1d(x, window_strides=(1,), padding=[(2, 2)], lhs_dilation=(2,)), (2, 4, 2)
    ),
    "convolution of a plane": (
        lambda x: conv2d(x, window_strides=(2, 2), padding="SAME"), (1, 5, 5, 2)
    ),
    "depthwise": (depthwise, (1, 4, 4, 2)),
    "separable": (separable, (1, 4, 4, 2)),
    "means of windows": (lambda x: pooled(x, "mean") / 4, (2, 4, 4, 2)),
    "largest of windows": (lambda x: pooled(x, "max"), (1, 4, 4, 2)),
    "mean of a picture": (lambda x: x.mean((1, 2)), (2, 3, 3, 2)),
    "squeeze and excite": (excited, (2, 2, 3, 2)),
    "skip": (net_with_skip, (2, 4, 2)),
    "pyramid": (pyramid, (2, 8)),
    "pixels from channels": (shuffled_pixels, (1, 2, 3, 4)),
    "shuffled channels": (shuffled_channels, (3, 6)),
    "nearest": (lambda x: jnp.repeat(jnp.repeat(x, 2, 0), 2, 1), (3, 4)),
    "linear between points": (lambda x: jnp.einsum("ai,bj,ij->ab", UP, UP, x), (3, 3)),
    "patches": (patches, (2, 4, 4, 1)),
    "shifted windows": (shifted_windows, (4, 4, 2)),
    "warped picture": (warped, (4, 4, 1)),
    "boxes": (cropped, (3, 4, 4)),
    "frames": (frames, (10,)),
    "frames added": (overlapped, (4, 4)),
    "recurrent": (lambda x: recurrent(x, plain, 4), (5, 4)),
    "gated recurrent": (lambda x: recurrent(x, gated, 4), (5, 4)),
    "long short-term memory": (lambda x: recurrent(x, long_short, 4), (5, 4)),
    "in both directions": (
        lambda x: recurrent(x, plain, 4) + recurrent(x, plain, 4, reverse=True), (5, 4)
    ),
    "diagonal recurrence": (lambda x: recurrent(x, diagonal, 4), (6, 4)),
    "recurrent, a batch": (lambda x: recurrent(x, plain, 4), (4, 2, 4)),
    "selective recurrence": (selective, (6, 3)),
    "running mean": (running_mean, (2, 5, 3)),
    "masked mean": (masked_mean, (3, 5, 2)),
    "known experts": (routed, (6, 4)),
    "known experts in order": (routed_in_order, (6, 4)),
    "experts by value": (routed_by_value, (4, 4)),
    "experts with room for one": (capacity, (6, 4)),
    "rendered rays": (rendered, (3, 4, 3)),
    "light that is left": (transmitted, (3, 5)),
    "taggings": (tagged, (5, 3)),
    "haar": (haar, (3, 8)),
    "cosines of blocks": (lambda x: jnp.tanh(x.reshape(3, 2, 4) @ COSINES.T), (3, 8)),
    "filtered rows": (
        lambda x: jnp.fft.irfft(jnp.fft.rfft(x) * np.array([1, 0.5, 0.2, 0.1]), n=6), (3, 6)
    ),
    "coupled": (coupled, (3, 4)),
    "autoregressive": (autoregressive, (5, 3)),
    "balanced": (balanced, (2, 3, 3)),
    "quantised": (quantised, (4, 2)),
    "rounded straight through": (rounded, (3, 4)),
    "contrast": (contrasted, (6, 3)),
}  # fmt: skip
