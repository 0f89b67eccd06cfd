"""Softmax and losses: factors of the batch, upstreams forgotten, terms of the normaliser."""

from corpus.model import operation


def _softmax(xp, x):
    e = xp.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@operation(lambda d: (d.unit(3, 5),))
class softmax:
    def forward(xp, x):
        return _softmax(xp, x)

    def backward(xp, g, x):
        y = _softmax(xp, x)
        return y * (g - (g * y).sum(axis=-1, keepdims=True))


@softmax.fault("a softmax Jacobian taken for diagonal", "diagonal")
def taken_for_diagonal(xp, g, x):
    y = _softmax(xp, x)
    return g * y * (1 - y)


@softmax.fault("GaussianMarkovRandomFields.jl#193", "term")
def normaliser_held_constant(xp, g, x):
    return g * _softmax(xp, x)


@softmax.fault("Odyssey#2080")
def summed_over_the_batch(xp, g, x):
    y = _softmax(xp, x)
    return y * (g - (g * y).sum(axis=0, keepdims=True))


@softmax.fault("jax#3213", "sign")
def negated(xp, g, x):
    y = _softmax(xp, x)
    return y * ((g * y).sum(axis=-1, keepdims=True) - g)


@operation(lambda d: (d.unit(3, 5),))
class log_softmax:
    def forward(xp, x):
        x = x - x.max(axis=-1, keepdims=True)
        return x - xp.log(xp.exp(x).sum(axis=-1, keepdims=True))

    def backward(xp, g, x):
        return g - _softmax(xp, x) * g.sum(axis=-1, keepdims=True)


@log_softmax.fault("jax#39899", "not linear")
def upstream_not_summed(xp, g, x):
    return g - _softmax(xp, x)


@log_softmax.fault("upstream times p, entry by entry", "diagonal")
def upstream_not_shared(xp, g, x):
    return g - _softmax(xp, x) * g


@log_softmax.fault("GaussianMarkovRandomFields.jl#193", "term|upstream passed")
def normaliser_lost(xp, g, x):
    return g


@operation(lambda d: (d.unit(3, 5),))
class logsumexp:
    def forward(xp, x):
        m = x.max(axis=-1)
        return m + xp.log(xp.exp(x - m[:, None]).sum(axis=-1))

    def backward(xp, g, x):
        return g[:, None] * _softmax(xp, x)


@logsumexp.fault("jax#22398")
def not_normalised(xp, g, x):
    return g[:, None] * xp.exp(x - x.max(axis=-1, keepdims=True))


def _one_hot(xp, t, like):
    return (xp.arange(like.shape[-1]) == t[..., None]).astype(like.dtype)


@operation(lambda d: (d.unit(4, 5), d.integers(0, 5, 4)))
class cross_entropy:
    """Mean over the batch; the upstream is one number."""

    def forward(xp, x, t):
        x = x - x.max(axis=-1, keepdims=True)
        logp = x - xp.log(xp.exp(x).sum(axis=-1, keepdims=True))
        return -(logp * _one_hot(xp, t, x)).sum() / x.shape[0]

    def backward(xp, g, x, t):
        return g * (_softmax(xp, x) - _one_hot(xp, t, x)) / x.shape[0], None


@cross_entropy.fault("linkedin/Liger-Kernel#968", "upstream ignored")
def upstream_ignored(xp, g, x, t):
    return (_softmax(xp, x) - _one_hot(xp, t, x)) / x.shape[0] + 0 * g, None


@cross_entropy.fault("the mean's 1/n forgotten", "factor")
def batch_not_divided(xp, g, x, t):
    return g * (_softmax(xp, x) - _one_hot(xp, t, x)), None


@cross_entropy.fault("1/n of the loss and again of the layer", "factor")
def divided_twice(xp, g, x, t):
    return g * (_softmax(xp, x) - _one_hot(xp, t, x)) / x.shape[0] ** 2, None


@cross_entropy.fault("a wrong axis in 1/n", "factor")
def divided_by_classes(xp, g, x, t):
    return g * (_softmax(xp, x) - _one_hot(xp, t, x)) / x.shape[1], None


@cross_entropy.fault("returnn#1835", "term")
def targets_left_out(xp, g, x, t):
    return g * _softmax(xp, x) / x.shape[0], None


@cross_entropy.fault("pytorch#5900", "index shifted")
def target_off_by_one(xp, g, x, t):
    return g * (_softmax(xp, x) - _one_hot(xp, (t + 1) % 5, x)) / x.shape[0], None


@operation(lambda d: (d.unit(4, 5), d.integers(0, 5, 4)))
class cross_entropy_rows:
    """One loss per row, so one upstream per row."""

    def forward(xp, x, t):
        x = x - x.max(axis=-1, keepdims=True)
        logp = x - xp.log(xp.exp(x).sum(axis=-1, keepdims=True))
        return -(logp * _one_hot(xp, t, x)).sum(axis=-1)

    def backward(xp, g, x, t):
        return g[:, None] * (_softmax(xp, x) - _one_hot(xp, t, x)), None


@cross_entropy_rows.fault("linkedin/Liger-Kernel#968", "upstream ignored")
def rows_weighted_alike(xp, g, x, t):
    return _softmax(xp, x) - _one_hot(xp, t, x) + 0 * g[:, None], None


@cross_entropy_rows.fault("warp-transducer#23", "upstream averaged")
def upstream_averaged(xp, g, x, t):
    return g.mean() * (_softmax(xp, x) - _one_hot(xp, t, x)), None


@operation(lambda d: (d.unit(4, 4), d.integers(0, 4, 4)))
class cross_entropy_square:
    """As many classes as rows: a wrong axis has the right shape."""

    def forward(xp, x, t):
        x = x - x.max(axis=-1, keepdims=True)
        logp = x - xp.log(xp.exp(x).sum(axis=-1, keepdims=True))
        return -(logp * _one_hot(xp, t, x)).sum(axis=-1)

    def backward(xp, g, x, t):
        return g[:, None] * (_softmax(xp, x) - _one_hot(xp, t, x)), None


@cross_entropy_square.fault("HawkAaron/warp-transducer#23")
def upstream_on_the_wrong_axis(xp, g, x, t):
    return g[None, :] * (_softmax(xp, x) - _one_hot(xp, t, x)), None


@operation(lambda d: (d.normal(3, 4), d.normal(3, 4)), special=(lambda d: (d.normal(3, 4),) * 2,))
class squared_error:
    def forward(xp, x, t):
        return ((x - t) ** 2).mean()

    def backward(xp, g, x, t):
        d = 2 * g * (x - t) / x.size
        return d, -d


@squared_error.fault("a 2 forgotten", "factor")
def two_forgotten(xp, g, x, t):
    d = g * (x - t) / x.size
    return d, -d


@squared_error.fault("pocketpy/cTensor#24", "factor")
def batch_for_size(xp, g, x, t):
    d = 2 * g * (x - t) / x.shape[0]
    return d, -d


@squared_error.fault("jax#3213", "sign")
def target_sign(xp, g, x, t):
    d = 2 * g * (x - t) / x.size
    return d, d


@operation(lambda d: (d.unit(3, 4), (d.unit(3, 4) > 0) * 1.0))
class binary_cross_entropy:
    def forward(xp, x, t):
        return xp.logaddexp(x, 0 * x) - x * t

    def backward(xp, g, x, t):
        return g * (xp.exp(-xp.logaddexp(0 * x, -x)) - t), -g * x


@binary_cross_entropy.fault("pytorch#79609", "detached")
def target_detached(xp, g, x, t):
    return g * (xp.exp(-xp.logaddexp(0 * x, -x)) - t), 0 * g


@binary_cross_entropy.fault("kaldi#3890", "sign")
def residual_negated(xp, g, x, t):
    return g * (t - xp.exp(-xp.logaddexp(0 * x, -x))), -g * x


@operation(lambda d: (2 * d.unit(2, 3, 4),))
class huber_rows:
    def forward(xp, x):
        a = abs(x)
        return xp.where(a < 1, 0.5 * x * x, a - 0.5).sum(axis=(1, 2))

    def backward(xp, g, x):
        return g[:, None, None] * xp.clip(x, -1, 1)


@huber_rows.fault("tail of the square kept", "condition")
def not_clipped(xp, g, x):
    return g[:, None, None] * x


@operation(lambda d: (2 * d.unit(3, 3, 3),))
class huber_cube:
    def forward(xp, x):
        a = abs(x)
        return xp.where(a < 1, 0.5 * x * x, a - 0.5).sum(axis=(1, 2))

    def backward(xp, g, x):
        return g[:, None, None] * xp.clip(x, -1, 1)


@huber_cube.fault("chainer f03f7066b5")
def upstream_on_the_last_axis(xp, g, x):
    return g * xp.clip(x, -1, 1)


@operation(lambda d: (d.positive(3, 4), d.positive(3, 4)))
class kl_divergence:
    def forward(xp, p, q):
        return (p * (xp.log(p) - xp.log(q))).sum(axis=-1)

    def backward(xp, g, p, q):
        return g[:, None] * (xp.log(p) - xp.log(q) + 1), -g[:, None] * p / q


@kl_divergence.fault("one summand lost", "term")
def entropy_term_lost(xp, g, p, q):
    return g[:, None] * (xp.log(p) - xp.log(q)), -g[:, None] * p / q


@kl_divergence.fault("arguments swapped", "swapped")
def arguments_swapped(xp, g, p, q):
    return -g[:, None] * p / q, g[:, None] * (xp.log(p) - xp.log(q) + 1)
