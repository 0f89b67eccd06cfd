"""Fifteen mistakes in JAX that were written after the engine, and never looked at before."""

MISTAKES = [
    ("rms_norm", [("axis=tuple(range(g.ndim - 1))", "axis=-1")]),
    ("layer_norm", [("dy = g * scale", "dy = g")]),
    (
        "layer_norm",
        [
            (
                "jnp.sum(g * y, axis=0), jnp.sum(g, axis=0)",
                "jnp.sum(g, axis=0), jnp.sum(g * y, axis=0)",
            )
        ],
    ),
    ("softmax_xent", [("n = logits.shape[0]", "n = logits.shape[1]")]),
    ("attention", [('"bqk,bqd->bkd", ds, q', '"bqk,bqd->bkd", dp, q')]),
    ("attention", [("scale = 1 / jnp.sqrt(q.shape[-1])", "scale = jnp.sqrt(q.shape[-1])")]),
    ("gelu", [("jnp.tanh(0.79788456 * (x + 0.044715 * x**3))", "jnp.tanh(0.79788456 * x)")]),
    ("swiglu", [("s = jax.nn.sigmoid(a)", "s = jax.nn.sigmoid(b)")]),
    ("dense", [("d.sum(0)", "d.sum()")]),
    ("rnn", [("dz @ u.T, dw", "dz @ u, dw")]),
    ("huber", [("jnp.abs(r) <= delta, r,", "jnp.abs(r) >= delta, r,")]),
    ("group_norm", [("dgamma = (g * xhat.reshape(n, c)).sum(0)", "dgamma = (g * gamma).sum(0)")]),
    (
        "cosine",
        [
            (
                "c = jnp.sum(a * b, -1, keepdims=True) / (na * nb)",
                "c = jnp.sum(a * b, -1, keepdims=True)",
            )
        ],
    ),
    (
        "rotary",
        [
            ("ga * (-a * s - b * c)", "ga * (a * s - b * c)"),
            ("gb * (a * c - b * s)", "gb * (a * c + b * s)"),
        ],
    ),
    ("kl", [("return g * mu,", "return mu,")]),
]
