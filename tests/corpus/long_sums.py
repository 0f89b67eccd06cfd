"""Sums over a million entries, added in float32 where the inputs are in half precision."""

from corpus.model import operation

MILLION = 1_000_000


def _wide(xp, x):
    """Return half precision in float32: a running sum in float16 or bfloat16 stops growing."""
    return x.astype(xp.float32) if x.dtype.itemsize == 2 else x


@operation(lambda d: (d.normal(MILLION),), large=True)
class mean_of_a_million:
    def forward(xp, x):
        return _wide(xp, x).mean().astype(x.dtype)

    def backward(xp, g, x):
        return xp.broadcast_to((_wide(xp, g) / x.size).astype(x.dtype), x.shape)


@mean_of_a_million.fault("jax b90f65e4ee", "sum for mean|factor")
def not_divided(xp, g, x):
    return xp.broadcast_to(g, x.shape)


@mean_of_a_million.fault("n - 1 for n", "factor")
def divided_by_one_less(xp, g, x):
    return xp.broadcast_to((_wide(xp, g) / (x.size - 1)).astype(x.dtype), x.shape)


@operation(lambda d: (d.normal(1000, 1000), d.integers(-3, 4, 1000, 1000)), large=True)
class error_of_a_million:
    """A loss averaged over rows and columns."""

    def forward(xp, x, label):
        return (_wide(xp, x - label.astype(x.dtype)) ** 2).mean().astype(x.dtype)

    def backward(xp, g, x, label):
        error = _wide(xp, x - label.astype(x.dtype))
        return (2 * _wide(xp, g) * error / x.size).astype(x.dtype), None


@error_of_a_million.fault("pocketpy/cTensor#24", "factor")
def divided_by_the_rows_alone(xp, g, x, label):
    error = _wide(xp, x - label.astype(x.dtype))
    return (2 * _wide(xp, g) * error / x.shape[0]).astype(x.dtype), None


@operation(lambda d: (d.normal(MILLION, 2), d.normal(2)), large=True)
class bias_of_a_million:
    """The bias of a million rows: its gradient adds them all."""

    def forward(xp, x, b):
        return x + b

    def backward(xp, g, x, b):
        return g, _wide(xp, g).sum(axis=0).astype(b.dtype)


@bias_of_a_million.fault("a mean for a sum", "factor|mean for sum")
def averaged(xp, g, x, b):
    return g, _wide(xp, g).mean(axis=0).astype(b.dtype)


@bias_of_a_million.fault("a loop that ends one early", "index shifted")
def last_row_lost(xp, g, x, b):
    return g, _wide(xp, g)[:-1].sum(axis=0).astype(b.dtype)
