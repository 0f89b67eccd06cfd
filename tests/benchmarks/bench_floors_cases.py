"""Operations for the trial of the floors: correct rules in several spellings, and wrong ones.

A rule is `rule(upstream, *inputs) -> gradients`, of the differentiable inputs in their order.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Rule = Callable[..., Any]


@dataclass(frozen=True)
class Case:
    name: str
    function: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]
    domain: str = "real"  # real, positive, unit (0 to 1), definite (matrix), distinct
    rules: dict[str, Rule] = field(default_factory=dict)
    wrong: dict[str, Rule] = field(default_factory=dict)


def _unbroadcast(g: Any, like: Any) -> Any:
    extra = tuple(range(g.ndim - like.ndim))
    ones = tuple(i for i, n in enumerate(like.shape, g.ndim - like.ndim) if n == 1)
    return g.sum(extra + ones).reshape(like.shape)


X = (6, 7)


def _elementwise() -> list[Case]:
    sigmoid = jax.nn.sigmoid
    c = float(np.sqrt(2 / np.pi))

    def gelu_rule(g: Any, x: Any) -> Any:
        inner = c * (x + 0.044715 * x**3)
        t = jnp.tanh(inner)
        return (g * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * (c * (1 + 3 * 0.044715 * x * x))),)

    def gelu_wrong(g: Any, x: Any) -> Any:
        phi = 0.5 * (1 + lax.erf(x / np.sqrt(2.0).astype(x.dtype)))
        return (g * (phi + x * jnp.exp(-x * x / 2) / np.sqrt(2 * np.pi).astype(x.dtype)),)

    return [
        Case("exp", jnp.exp, (X,), rules={"y": lambda g, x: (g * jnp.exp(x),)}),
        Case("log", jnp.log, (X,), "positive", rules={"1/x": lambda g, x: (g / x,)}),
        Case(
            "tanh",
            jnp.tanh,
            (X,),
            rules={
                "1-y*y": lambda g, x: (g * (1 - jnp.tanh(x) ** 2),),
                "sech": lambda g, x: (g / jnp.cosh(x) ** 2,),
            },
            wrong={"1-y": lambda g, x: (g * (1 - jnp.tanh(x)),)},
        ),
        Case(
            "sigmoid",
            sigmoid,
            (X,),
            rules={
                "y(1-y)": lambda g, x: (g * sigmoid(x) * (1 - sigmoid(x)),),
                "s(x)s(-x)": lambda g, x: (g * sigmoid(x) * sigmoid(-x),),
            },
            wrong={
                "y": lambda g, x: (g * sigmoid(x),),
                "no upstream": lambda g, x: (sigmoid(x) * (1 - sigmoid(x)),),
            },
        ),
        Case(
            "relu",
            jax.nn.relu,
            (X,),
            rules={"mask": lambda g, x: (jnp.where(x > 0, g, 0),)},
            wrong={"of g": lambda g, x: (jnp.where(g > 0, g, 0),)},
        ),
        Case("gelu", jax.nn.gelu, (X,), rules={"by hand": gelu_rule}, wrong={"erf": gelu_wrong}),
        Case(
            "softplus",
            jax.nn.softplus,
            (X,),
            rules={"sigmoid": lambda g, x: (g * sigmoid(x),)},
            wrong={"exp": lambda g, x: (g * jnp.exp(-jnp.abs(x)),)},
        ),
        Case(
            "silu",
            jax.nn.silu,
            (X,),
            rules={"by hand": lambda g, x: (g * (sigmoid(x) * (1 + x * (1 - sigmoid(x)))),)},
            wrong={"gate": lambda g, x: (g * sigmoid(x),)},
        ),
        Case(
            "sqrt",
            jnp.sqrt,
            (X,),
            "positive",
            rules={"1/2y": lambda g, x: (g * 0.5 / jnp.sqrt(x),)},
            wrong={"1/y": lambda g, x: (g / jnp.sqrt(x),)},
        ),
        Case(
            "rsqrt",
            lax.rsqrt,
            (X,),
            "positive",
            rules={"y**3": lambda g, x: (-0.5 * g * lax.rsqrt(x) ** 3,)},
        ),
        Case(
            "reciprocal",
            lambda x: 1 / x,
            (X,),
            rules={
                "-y*y": lambda g, x: (-g * (1 / x) ** 2,),
                "-1/x2": lambda g, x: (-g / (x * x),),
            },
        ),
        Case("square", jnp.square, (X,), rules={"2x": lambda g, x: (2 * x * g,)}),
        Case("cube", lambda x: x**3, (X,), rules={"3x2": lambda g, x: (3 * x * x * g,)}),
        Case(
            "power",
            jnp.power,
            (X, X),
            "positive",
            rules={
                "by hand": lambda g, x, y: (g * y * x ** (y - 1), g * x**y * jnp.log(x)),
            },
        ),
        Case(
            "atan2",
            jnp.arctan2,
            (X, X),
            rules={
                "by hand": lambda g, y, x: (g * x / (x * x + y * y), -g * y / (x * x + y * y)),
            },
            wrong={"sign": lambda g, y, x: (g * x / (x * x + y * y), g * y / (x * x + y * y))},
        ),
        Case("sin", jnp.sin, (X,), rules={"cos": lambda g, x: (g * jnp.cos(x),)}),
        Case("cos", jnp.cos, (X,), wrong={"sin": lambda g, x: (g * jnp.sin(x),)}),
        Case("tan", jnp.tan, (X,), rules={"1+y*y": lambda g, x: (g * (1 + jnp.tan(x) ** 2),)}),
        Case("arctan", jnp.arctan, (X,)),
        Case("arcsin", jnp.arcsin, (X,), "unit"),
        Case("sinh", jnp.sinh, (X,), rules={"cosh": lambda g, x: (g * jnp.cosh(x),)}),
        Case("erf", lax.erf, (X,)),
        Case("expm1", jnp.expm1, (X,), rules={"exp": lambda g, x: (g * jnp.exp(x),)}),
        Case("log1p", jnp.log1p, (X,), "positive"),
        Case("logit", lambda x: jnp.log(x / (1 - x)), (X,), "unit"),
        Case("logaddexp", jnp.logaddexp, (X, X)),
        Case("abs", jnp.abs, (X,), rules={"sign": lambda g, x: (g * jnp.sign(x),)}),
        Case("huber", lambda x: jnp.where(jnp.abs(x) < 1, x * x / 2, jnp.abs(x) - 0.5), (X,)),
        Case("elu", jax.nn.elu, (X,)),
        Case("clip", lambda x: jnp.clip(x, -0.5, 0.5), (X,)),
        Case("lgamma", lax.lgamma, (X,), "positive"),
        Case("mish", lambda x: x * jnp.tanh(jax.nn.softplus(x)), (X,)),
        Case(
            "divide",
            jnp.divide,
            (X, (7,)),
            rules={"by hand": lambda g, x, y: (g / y, _unbroadcast(-g * x / (y * y), y))},
            wrong={"no square": lambda g, x, y: (g / y, _unbroadcast(-g * x / y, y))},
        ),
        Case(
            "multiply",
            jnp.multiply,
            (X, (6, 1)),
            rules={"by hand": lambda g, x, y: (g * y, _unbroadcast(g * x, y))},
            wrong={
                "mean": lambda g, x, y: (g * y, (g * x).mean(1, keepdims=True)),
                "not swapped": lambda g, x, y: (g * x, _unbroadcast(g * y, y)),
            },
        ),
        Case("add", jnp.add, (X, (7,)), rules={"sum": lambda g, x, y: (g, g.sum(0))}),
        Case("maximum", jnp.maximum, (X, X)),
        Case("hypot", lambda x, y: jnp.sqrt(x * x + y * y), (X, X)),
    ]


def _reductions() -> list[Case]:
    def norm_rule(g: Any, x: Any) -> Any:
        return (g * x / jnp.sqrt((x * x).sum()),)

    def softmax_rule(g: Any, x: Any) -> Any:
        y = jax.nn.softmax(x)
        return (y * (g - (g * y).sum(-1, keepdims=True)),)

    def softmax_spelled(g: Any, x: Any) -> Any:
        y = jax.nn.softmax(x)
        return (y * g - y * (y * g).sum(-1, keepdims=True),)

    def log_softmax_rule(g: Any, x: Any) -> Any:
        return (g - jax.nn.softmax(x) * g.sum(-1, keepdims=True),)

    def entropy(x: Any) -> Any:
        rows = jnp.arange(x.shape[0])
        return -jax.nn.log_softmax(x)[rows, rows % x.shape[1]].mean()

    def entropy_rule(g: Any, x: Any) -> Any:
        rows = jnp.arange(x.shape[0])
        one_hot = jax.nn.one_hot(rows % x.shape[1], x.shape[1], dtype=x.dtype)
        return (g * (jax.nn.softmax(x) - one_hot) / x.shape[0],)

    def entropy_wrong(g: Any, x: Any) -> Any:
        return (entropy_rule(g, x)[0] * x.shape[0],)

    return [
        Case(
            "sum",
            lambda x: x.sum(0),
            ((5000, 3),),
            rules={"broadcast": lambda g, x: (jnp.broadcast_to(g, x.shape),)},
        ),
        Case(
            "bias",
            lambda x, b: x + b,
            ((5000, 3), (3,)),
            rules={"sum": lambda g, x, b: (g, g.sum(0))},
            wrong={
                "mean": lambda g, x, b: (g, g.mean(0)),
                "last": lambda g, x, b: (g, g[:-1].sum(0)),
            },
        ),
        Case(
            "mean",
            lambda x: x.mean(1),
            (X,),
            rules={"1/n": lambda g, x: (jnp.broadcast_to(g[:, None], x.shape) / x.shape[1],)},
            wrong={"size": lambda g, x: (jnp.broadcast_to(g[:, None], x.shape) / x.size,)},
        ),
        Case(
            "variance",
            lambda x: x.var(1),
            (X,),
            wrong={"no mean": lambda g, x: (2 * x * g[:, None] / 7,)},
        ),
        Case(
            "std",
            lambda x: x.std(0),
            (X,),
            rules={"by hand": lambda g, x: (g * (x - x.mean(0)) / (x.shape[0] * x.std(0)),)},
            wrong={"ddof": lambda g, x: (g * (x - x.mean(0)) / ((x.shape[0] - 1) * x.std(0)),)},
        ),
        Case("prod", lambda x: x.prod(1), (X,)),
        Case("max", lambda x: x.max(1), (X,)),
        Case("norm", lambda x: jnp.sqrt((x * x).sum()), (X,), rules={"x/n": norm_rule}),
        Case(
            "logsumexp",
            lambda x: jax.nn.logsumexp(x, 1),
            (X,),
            rules={"softmax": lambda g, x: (g[:, None] * jax.nn.softmax(x),)},
        ),
        Case(
            "softmax",
            jax.nn.softmax,
            (X,),
            rules={"factored": softmax_rule, "spelled": softmax_spelled},
            wrong={
                "diagonal": lambda g, x: (g * jax.nn.softmax(x) * (1 - jax.nn.softmax(x)),),
                "detached": lambda g, x: (g * jax.nn.softmax(x),),
            },
        ),
        Case(
            "log_softmax",
            jax.nn.log_softmax,
            (X,),
            rules={"by hand": log_softmax_rule},
            wrong={"no sum": lambda g, x: (g - jax.nn.softmax(x),)},
        ),
        Case("entropy", entropy, (X,), rules={"p-1": entropy_rule}, wrong={"sum": entropy_wrong}),
        Case(
            "mse",
            lambda x, y: ((x - y) ** 2).mean(),
            (X, X),
            rules={"by hand": lambda g, x, y: (g * 2 * (x - y) / 42, -g * 2 * (x - y) / 42)},
            wrong={"half": lambda g, x, y: (g * (x - y) / 42, -g * (x - y) / 42)},
        ),
        Case(
            "cumsum",
            lambda x: jnp.cumsum(x, 1),
            (X,),
            rules={"reversed": lambda g, x: (jnp.cumsum(g[:, ::-1], 1)[:, ::-1],)},
            wrong={"forward": lambda g, x: (jnp.cumsum(g, 1),)},
        ),
        Case("cumprod", lambda x: jnp.cumprod(x, 1), (X,)),
        Case("sort", lambda x: jnp.sort(x, 1), (X,)),
    ]


def _layers() -> list[Case]:
    def layer_norm(x: Any, w: Any, b: Any) -> Any:
        mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (x - mean) / jnp.sqrt(var + 1e-5) * w + b

    def layer_norm_rule(g: Any, x: Any, w: Any, b: Any, terms: int = 2) -> Any:
        mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        r = 1 / jnp.sqrt(var + 1e-5)
        n = (x - mean) * r
        h = g * w
        dx = h - h.mean(-1, keepdims=True)
        if terms > 1:
            dx = dx - n * (h * n).mean(-1, keepdims=True)
        return r * dx, (g * n).sum(0), g.sum(0)

    def rms_norm(x: Any, w: Any) -> Any:
        return x / jnp.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * w

    def rms_rule(g: Any, x: Any, w: Any, power: int = 3) -> Any:
        r = lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6)
        h = g * w
        dx = h * r - x * r**power * (h * x).mean(-1, keepdims=True)
        return dx, (g * x * r).sum(0)

    def attention(q: Any, k: Any, v: Any) -> Any:
        s = q @ k.T * (1 / np.sqrt(q.shape[-1])).astype(q.dtype)
        s = jnp.where(jnp.tril(jnp.ones(s.shape, bool)), s, -jnp.inf)
        return jax.nn.softmax(s) @ v

    def attention_rule(g: Any, q: Any, k: Any, v: Any, causal: bool = True) -> Any:
        scale = (1 / np.sqrt(q.shape[-1])).astype(q.dtype)
        mask = jnp.tril(jnp.ones((q.shape[0], k.shape[0]), bool)) | (not causal)
        p = jax.nn.softmax(jnp.where(mask, q @ k.T * scale, -jnp.inf))
        dp = g @ v.T
        ds = p * (dp - (g * (p @ v)).sum(-1, keepdims=True)) * scale
        return ds @ k, ds.T @ q, p.T @ g

    def matmul_rule(g: Any, x: Any, w: Any) -> Any:
        return g @ w.T, x.T @ g

    def embedding(table: Any) -> Any:
        return table[jnp.array([0, 3, 3, 5, 0, 3])]

    def embedding_rule(g: Any, table: Any) -> Any:
        return (jnp.zeros_like(table).at[jnp.array([0, 3, 3, 5, 0, 3])].add(g),)

    def embedding_wrong(g: Any, table: Any) -> Any:
        return (jnp.zeros_like(table).at[jnp.array([0, 3, 3, 5, 0, 3])].set(g),)

    def dropout(x: Any) -> Any:
        return jnp.where(jax.random.bernoulli(jax.random.key(1), 0.8, x.shape), x / 0.8, 0)

    def dropout_wrong(g: Any, x: Any) -> Any:
        return (jnp.where(jax.random.bernoulli(jax.random.key(1), 0.8, x.shape), g * 0.8, 0),)

    def recurrent(x: Any, w: Any, h: Any) -> Any:
        def step(state: Any, row: Any) -> Any:
            state = jnp.tanh(w @ state + row)
            return state, state

        return lax.scan(step, h, x)[1]

    def newton(x: Any) -> Any:
        return lax.fori_loop(0, 8, lambda _, y: 0.5 * (y + x / y), jnp.ones_like(x))

    def convolution(x: Any, w: Any) -> Any:
        return lax.conv_general_dilated(x, w, (1, 1), "SAME")

    def pooling(x: Any) -> Any:
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")

    def average(x: Any) -> Any:
        return lax.reduce_window(x, 0.0, lax.add, (1, 1, 3, 3), (1, 1, 1, 1), "VALID") / 9

    def mlp(x: Any, w: Any, v: Any) -> Any:
        return jnp.tanh(x @ w) @ v

    def mlp_wrong(g: Any, x: Any, w: Any, v: Any) -> Any:
        h = jnp.tanh(x @ w)
        d = (g @ v.T) * (1 - h)
        return d @ w.T, x.T @ d, h.T @ g

    return [
        Case(
            "matmul",
            jnp.matmul,
            ((8, 40), (40, 5)),
            rules={"by hand": matmul_rule},
            wrong={"swapped": lambda g, x, w: (g @ w.T, (g.T @ x).T * 1.01)},
        ),
        Case("long matmul", jnp.matmul, ((3, 2000), (2000, 2)), rules={"by hand": matmul_rule}),
        Case("mlp", mlp, ((8, 12), (12, 10), (10, 3)), wrong={"1-h": mlp_wrong}),
        Case(
            "layer norm",
            layer_norm,
            ((6, 16), (16,), (16,)),
            rules={"by hand": layer_norm_rule},
            wrong={"variance constant": lambda g, x, w, b: layer_norm_rule(g, x, w, b, terms=1)},
        ),
        Case(
            "rms norm",
            rms_norm,
            ((6, 16), (16,)),
            rules={"by hand": rms_rule},
            wrong={"power": lambda g, x, w: rms_rule(g, x, w, power=2)},
        ),
        Case(
            "attention",
            attention,
            ((8, 4), (8, 4), (8, 4)),
            rules={"by hand": attention_rule},
            wrong={"unmasked": lambda g, q, k, v: attention_rule(g, q, k, v, causal=False)},
        ),
        Case(
            "embedding",
            embedding,
            ((7, 4),),
            rules={"add": embedding_rule},
            wrong={"set": embedding_wrong},
        ),
        Case("dropout", dropout, (X,), wrong={"times p": dropout_wrong}),
        Case("recurrent", recurrent, ((9, 4), (4, 4), (4,))),
        Case("newton", newton, (X,), "positive"),
        Case("convolution", convolution, ((2, 3, 6, 6), (4, 3, 3, 3))),
        Case("max pool", pooling, ((2, 3, 6, 6),)),
        Case("average pool", average, ((2, 3, 6, 6),)),
        Case("solve", jnp.linalg.solve, ((5, 5), (5,)), "definite"),
        Case("cholesky", jnp.linalg.cholesky, ((5, 5),), "definite"),
        Case("log det", lambda a: jnp.linalg.slogdet(a)[1], ((5, 5),), "definite"),
        Case("inverse", jnp.linalg.inv, ((5, 5),), "definite"),
        Case("spectrum", lambda x: jnp.abs(jnp.fft.fft(x)) ** 2, ((16,),)),
        Case(
            "interpolate",
            lambda x, y: jnp.interp(x, jnp.linspace(-2.0, 2.0, 9, dtype=x.dtype), y),
            (X, (9,)),
        ),
    ]


CASES = [*_elementwise(), *_reductions(), *_layers()]
