"""Layer, batch and RMS norm, standardisation, dropout."""

from corpus.model import FULL, operation

EPS = 1e-5


def _standard(xp, x, axis=-1):
    m = x.mean(axis=axis, keepdims=True)
    r = 1 / xp.sqrt(((x - m) ** 2).mean(axis=axis, keepdims=True) + EPS)
    return (x - m) * r, r


def _standard_backward(g, y, r, axis=-1):
    mean = g.mean(axis=axis, keepdims=True)
    return r * (g - mean - y * (g * y).mean(axis=axis, keepdims=True))


@operation(lambda d: (d.unit(3, 6), 1 + 0.3 * d.unit(6), d.unit(6)))
class layer_norm:
    def forward(xp, x, w, b):
        return _standard(xp, x)[0] * w + b

    def backward(xp, g, x, w, b):
        y, r = _standard(xp, x)
        return _standard_backward(g * w, y, r), (g * y).sum(axis=0), g.sum(axis=0)


@layer_norm.fault("oneflow#6149", "swapped")
def gain_and_bias_swapped(xp, g, x, w, b):
    y, r = _standard(xp, x)
    return _standard_backward(g * w, y, r), g.sum(axis=0), (g * y).sum(axis=0)


@layer_norm.fault("pytorch#80926", "term")
def mean_term_lost(xp, g, x, w, b):
    y, r = _standard(xp, x)
    dy = g * w
    dx = r * (dy - y * (dy * y).mean(axis=-1, keepdims=True))
    return dx, (g * y).sum(axis=0), g.sum(axis=0)


@layer_norm.fault("ooples/AiDotNet#695", "term")
def variance_term_lost(xp, g, x, w, b):
    y, r = _standard(xp, x)
    dy = g * w
    return r * (dy - dy.mean(axis=-1, keepdims=True)), (g * y).sum(axis=0), g.sum(axis=0)


@layer_norm.fault("pytorch#80928", "term")
def statistics_held_constant(xp, g, x, w, b):
    y, r = _standard(xp, x)
    return r * g * w, (g * y).sum(axis=0), g.sum(axis=0)


@layer_norm.fault("karpathy/llm.c#763", "input ignored")
def gain_forgotten(xp, g, x, w, b):
    y, r = _standard(xp, x)
    return _standard_backward(g, y, r), (g * y).sum(axis=0), g.sum(axis=0)


@layer_norm.fault("chainer 06fee7326d")
def eps_beside_the_root(xp, g, x, w, b):
    y, _ = _standard(xp, x)
    m = x.mean(axis=-1, keepdims=True)
    r = 1 / (xp.sqrt(((x - m) ** 2).mean(axis=-1, keepdims=True)) + EPS)
    return _standard_backward(g * w, y, r), (g * y).sum(axis=0), g.sum(axis=0)


@layer_norm.fault("apache/tvm#2465", "mean for sum|factor")
def gain_averaged(xp, g, x, w, b):
    y, r = _standard(xp, x)
    return _standard_backward(g * w, y, r), (g * y).mean(axis=0), g.sum(axis=0)


@layer_norm.fault("pytorch#188344")
def gain_of_the_raw_input(xp, g, x, w, b):
    y, r = _standard(xp, x)
    return _standard_backward(g * w, y, r), (g * x).sum(axis=0), g.sum(axis=0)


@operation(lambda d: (d.unit(6, 4), 1 + 0.3 * d.unit(4)))
class batch_norm:
    def forward(xp, x, w):
        return _standard(xp, x, 0)[0] * w

    def backward(xp, g, x, w):
        y, r = _standard(xp, x, 0)
        return _standard_backward(g * w, y, r, 0), (g * y).sum(axis=0)


@batch_norm.fault("pytorch#79705", "term")
def batch_statistics_constant(xp, g, x, w):
    y, r = _standard(xp, x, 0)
    return r * g * w, (g * y).sum(axis=0)


@batch_norm.fault("numpy-ml#94")
def normalised_over_features(xp, g, x, w):
    y, r = _standard(xp, x, 0)
    return _standard_backward(g * w, y, r, -1), (g * y).sum(axis=0)


@batch_norm.fault("apache/mxnet#18203", "term")
def variance_term_doubled(xp, g, x, w):
    y, r = _standard(xp, x, 0)
    dy = g * w
    dx = r * (dy - dy.mean(axis=0) - 2 * y * (dy * y).mean(axis=0))
    return dx, (g * y).sum(axis=0)


def _rms(xp, x):
    return 1 / xp.sqrt((x * x).mean(axis=-1, keepdims=True) + EPS)


@operation(lambda d: (d.unit(3, 6), 1 + 0.3 * d.unit(6)))
class rms_norm:
    def forward(xp, x, w):
        return x * _rms(xp, x) * w

    def backward(xp, g, x, w):
        r = _rms(xp, x)
        dy = g * w
        dx = r * dy - x * r**3 * (dy * x).mean(axis=-1, keepdims=True)
        return dx, (g * x * r).sum(axis=0)


@rms_norm.fault("NVIDIA/Megatron-LM#6859")
def weight_squared(xp, g, x, w):
    r = _rms(xp, x)
    dy = g * w
    dx = r * dy - w * x * r**3 * (dy * x).mean(axis=-1, keepdims=True)
    return dx, (g * x * r).sum(axis=0)


@rms_norm.fault("ooples/AiDotNet#695", "term")
def root_held_constant(xp, g, x, w):
    r = _rms(xp, x)
    return g * w * r, (g * x * r).sum(axis=0)


@rms_norm.fault("karpathy/llm.c#763", "input ignored")
def weight_dropped(xp, g, x, w):
    r = _rms(xp, x)
    dx = r * g - x * r**3 * (g * x).mean(axis=-1, keepdims=True)
    return dx, (g * x * r).sum(axis=0)


@rms_norm.fault("pytorch#196699")
def sum_for_mean(xp, g, x, w):
    r = _rms(xp, x)
    dy = g * w
    dx = r * dy - x * r**3 * (dy * x).sum(axis=-1, keepdims=True)
    return dx, (g * x * r).sum(axis=0)


@operation(lambda d: (d.unit(3, 6), d.unit(3, 6)))
class residual_rms_norm:
    """Two outputs: the sum itself goes on as the residual stream."""

    def forward(xp, x, s):
        h = x + s
        return h * _rms(xp, h), h

    def backward(xp, g, x, s):
        h = x + s
        r = _rms(xp, h)
        d = r * g[0] - h * r**3 * (g[0] * h).mean(axis=-1, keepdims=True) + g[1]
        return d, d


@residual_rms_norm.fault("Dao-AILab/quack#53")
def added_before_scaling(xp, g, x, s):
    h = x + s
    r = _rms(xp, h)
    both = g[0] + g[1]
    d = r * both - h * r**3 * (both * h).mean(axis=-1, keepdims=True)
    return d, d


@residual_rms_norm.fault("Dao-AILab/flash-attention#889", "upstream ignored")
def stream_ignored(xp, g, x, s):
    h = x + s
    r = _rms(xp, h)
    d = r * g[0] - h * r**3 * (g[0] * h).mean(axis=-1, keepdims=True)
    return d, d


@operation(lambda d: (d.normal(4, 5), d.integers(0, 4, 4, 5) > 0))
class dropout:
    def forward(xp, x, mask):
        return x * mask / 0.75

    def backward(xp, g, x, mask):
        return g * mask / 0.75, None


@dropout.fault("NVIDIA/apex#816", "factor")
def scaled_by_p(xp, g, x, mask):
    return g * mask * 0.25, None


@dropout.fault("candle#3735", "condition")
def mask_not_applied(xp, g, x, mask):
    return g / 0.75, None


@dropout.fault("dropout's scale forgotten", "factor")
def scale_forgotten(xp, g, x, mask):
    return g * mask, None


@operation(lambda d: (d.unit(2, 6),), dtypes=FULL)
class group_norm:
    def forward(xp, x):
        return _standard(xp, x.reshape(2, 2, 3))[0].reshape(2, 6)

    def backward(xp, g, x):
        y, r = _standard(xp, x.reshape(2, 2, 3))
        return _standard_backward(g.reshape(2, 2, 3), y, r).reshape(2, 6)


@group_norm.fault("native-sparse-attention-triton#27")
def groups_interleaved(xp, g, x):
    def groups(a):
        return xp.swapaxes(a.reshape(2, 3, 2), 1, 2)

    y, r = _standard(xp, groups(x))
    return xp.swapaxes(_standard_backward(groups(g), y, r), 1, 2).reshape(2, 6)
