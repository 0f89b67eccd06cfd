"""Every way in which JAX lets one write a derivative, right and wrong.

`KINDS` maps a kind to a maker. A maker takes a fault, "" for none, and returns a function of one
or two arrays with its inputs. What is right is told by closed formulas in the comments.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jax.experimental import pallas as pl
from jax.interpreters import ad, batching, mlir

X = np.array([0.5, 1.2, -0.7], np.float32)
Y = np.array([2.0, -1.0, 3.0], np.float32)
A = np.array([[3.0, 1.0, 0.2], [0.5, 2.0, 0.1], [0.3, 0.4, 4.0]], np.float32)

Made = tuple[Callable[..., Any], tuple[Any, ...]]


def nested_gradient(wrong: str) -> Made:
    """sin(x) y; its backward may be told to keep residuals (optimize_remat)."""

    @jax.custom_vjp
    def f(x, y):
        return jnp.sin(x) * y

    def fwd(x, y):
        out = jnp.sin(x) * y * (1.5 if wrong == "value" else 1.0)
        return out, (x, y)

    def bwd(kept, u):
        x, y = kept
        slope = jnp.sin(x) if wrong == "backward" else jnp.cos(x)
        return u * slope * y, u * jnp.sin(x)

    f.defvjp(fwd, bwd, optimize_remat=True)
    return f, (X, Y)


def nondiff_argnums(wrong: str) -> Made:
    @functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
    def power(x, n):
        return x**n

    def bwd(n, x, u):
        return (u * (n if wrong == "backward" else n * x ** (n - 1)),)

    power.defvjp(lambda x, n: (x**n, x), bwd)
    return lambda x: power(x, 3), (X,)


def custom_gradient(wrong: str) -> Made:
    @jax.custom_gradient
    def cube(x):
        return x**3, lambda u: (u * (2 if wrong == "backward" else 3) * x**2,)

    return cube, (X,)


def closure_convert(wrong: str) -> Made:
    """y sin(x), where y is closed over."""

    def through(x, y):
        def inner(x):
            return y * jnp.sin(x)

        function, closed = jax.closure_convert(inner, x)

        @jax.custom_vjp
        def run(x, *closed):
            return function(x, *closed)

        def bwd(kept, u):
            x, closed = kept
            by_x, *others = jax.vjp(function, x, *closed)[1](u)
            return (by_x, *(2 * g if wrong == "backward" else g for g in others))

        run.defvjp(lambda x, *closed: (function(x, *closed), (x, closed)), bwd)
        return run(x, *closed)

    return through, (X, Y)


def symbolic_zero_tangents(wrong: str) -> Made:
    @jax.custom_jvp
    def multiply(x, y):
        return x * y

    def rule(primals, tangents):
        (x, y), (dx, dy) = primals, tangents
        if isinstance(dy, SymbolicZero):
            return x * y, dx * (x if wrong == "tangent alone" else y)
        if isinstance(dx, SymbolicZero):
            return x * y, x * dy
        return x * y, dx * y + x * dy

    multiply.defjvp(rule, symbolic_zeros=True)
    return multiply, (X, Y)


def symbolic_zero_upstreams(wrong: str) -> Made:
    @jax.custom_vjp
    def both(x, y):
        return x * y, jnp.sin(x)

    def fwd(x, y):
        return (x.value * y.value, jnp.sin(x.value)), (x.value, y.value, y.perturbed)

    def bwd(kept, upstreams):
        (x, y, _), (u, v) = kept, upstreams
        if isinstance(v, SymbolicZero):
            return u * (x if wrong == "output alone" else y), u * x
        first = 0.0 if isinstance(u, SymbolicZero) else u * y
        second = jnp.zeros_like(y) if isinstance(u, SymbolicZero) else u * x
        return first + v * jnp.cos(x), second

    both.defvjp(fwd, bwd, symbolic_zeros=True)
    return both, (X, Y)


def custom_vmap(wrong: str) -> Made:
    @jax.custom_batching.custom_vmap
    def scale(x, y):
        return x * jnp.sin(y)

    @scale.def_vmap
    def rule(size, batched, x, y):
        del size  # a row is along the last axis, and both broadcast
        if wrong == "batching" and batched[1] and not batched[0]:
            y = y[::-1] + 0.5
        return x * jnp.sin(y), batched[0] or batched[1]

    return scale, (X, Y)


def sequential_vmap(wrong: str) -> Made:
    @jax.custom_jvp
    def inner(x):
        return x * x

    inner.defjvps(lambda t, _, x: (3 if wrong == "inner" else 2) * x * t)

    @jax.custom_batching.sequential_vmap
    def outer(x):
        return jnp.sin(inner(x))

    return outer, (X,)


def linear_call(wrong: str) -> Made:
    def f(x):
        def down(s, t):
            return t / s

        def up(s, u):
            return u * s if wrong == "transpose" else u / s

        return jax.custom_derivatives.linear_call(down, up, jnp.asarray(Y), jnp.sin(x))

    return f, (X,)


def custom_linear_solve(wrong: str) -> Made:
    def f(b, c):
        matrix = jnp.asarray(A)

        def solve(_, v):
            return jnp.linalg.solve(matrix, v)

        def transposed(_, v):
            return jnp.linalg.solve(matrix if wrong == "transpose" else matrix.T, v)

        options = {"symmetric": True} if wrong == "symmetric" else {"transpose_solve": transposed}
        found = jax.lax.custom_linear_solve(lambda v: matrix @ v, b * c, solve, **options)
        return jnp.sin(found)

    return f, (X, Y)


def custom_linear_solve_of_the_matrix(wrong: str) -> Made:
    def f(b, a):
        def solve(matvec, v):
            return jnp.linalg.solve(a, v) * (1.1 if wrong == "solve" else 1.0)

        return jax.lax.custom_linear_solve(
            lambda v: a @ v, b, solve, lambda _, v: jnp.linalg.solve(a.T, v)
        )

    return f, (X, A)


def custom_root(wrong: str) -> Made:
    """x with x^3 + x = b."""

    def f(b):
        def residual(x):
            return x**3 + x - b

        def solve(g, start):
            step = lambda _, x: x - g(x) / (3 * x**2 + 1)  # noqa: E731  # Newton's
            return jax.lax.fori_loop(0, 30, step, start)

        def tangent_solve(g, y):
            return y / (g(jnp.ones_like(y)) * (2.0 if wrong == "tangent" else 1.0))

        return jax.lax.custom_root(residual, jnp.zeros_like(b), solve, tangent_solve)

    return f, (X,)


def primitive(wrong: str) -> Made:
    """x^2 sin(y), a primitive with all of its rules."""
    p = jex.Primitive("squared_sine")

    def expansion(x, y):
        return x * x * jnp.sin(y)

    def implementation(x, y):
        found = np.asarray(x) ** 2 * np.sin(np.asarray(y))
        return jnp.asarray(found * (1.25 if wrong == "implementation" else 1.0))

    p.def_impl(implementation)

    @p.def_abstract_eval
    def _(x, y):
        shape = (1, *x.shape) if wrong == "shape" else x.shape
        return jax.core.ShapedArray(shape, jnp.float16 if wrong == "dtype" else x.dtype)

    mlir.register_lowering(p, mlir.lower_fun(expansion, multiple_results=False))

    def jvp(primals, tangents):
        (x, y), (dx, dy) = primals, tangents
        first = 0 if isinstance(dx, ad.Zero) else 2 * x * jnp.sin(y) * dx
        slope = jnp.sin(y) if wrong == "jvp" else jnp.cos(y)
        second = 0 if isinstance(dy, ad.Zero) else x * x * slope * dy
        return p.bind(x, y), first + second

    ad.primitive_jvps[p] = jvp

    def batch(args, dims):
        x, y = args
        i, j = dims
        if i is None or j is None:
            size = x.shape[i] if j is None else y.shape[j]
            x = jnp.broadcast_to(x, (size, *x.shape)) if i is None else jnp.moveaxis(x, i, 0)
            y = jnp.broadcast_to(y, (size, *y.shape)) if j is None else jnp.moveaxis(y, j, 0)
        elif wrong != "batching":
            x, y = jnp.moveaxis(x, i, 0), jnp.moveaxis(y, j, 0)
        else:  # right where both are batched along their first axis
            y = y if i == j == 0 else jnp.moveaxis(y, j, i)
            return p.bind(x, y * 1.1 if i else y), i
        return p.bind(x, y), 0

    batching.primitive_batchers[p] = batch
    return p.bind, (X, Y)


def linear_primitive(wrong: str) -> Made:
    """2 x reversed: linear, with a transpose of its own."""
    p = jex.Primitive("doubled_reverse")
    p.def_impl(lambda x: 2 * x[::-1])
    p.def_abstract_eval(lambda x: jax.core.ShapedArray(x.shape, x.dtype))
    mlir.register_lowering(p, mlir.lower_fun(lambda x: 2 * x[::-1], multiple_results=False))

    def jvp(primals, tangents):
        return p.bind(*primals), p.bind(*tangents)

    ad.primitive_jvps[p] = jvp

    def transpose(u, x):
        if wrong == "refuses":
            raise RuntimeError("not differentiated in reverse")
        return [2 * u if wrong == "transpose" else 2 * u[::-1]]

    ad.primitive_transposes[p] = transpose
    return p.bind, (X,)


def _high() -> Any:
    from jax.experimental import hijax

    return getattr(hijax, "VJPHiPrimitive", None) or hijax.HiPrim


def hijax_primitive(wrong: str) -> Made:
    """sin(x) y with every rule that a hijax primitive may have."""
    base = _high()
    batches = "size" if hasattr(base, "batch_dim_rule") else "all"

    class Sine(base):
        def __init__(self, x, y):
            self.in_avals, self.out_aval, self.params = (x, y), x, {}
            super().__init__()

        def expand(self, x, y):
            return jnp.sin(x) * y

        def jvp(self, primals, tangents):
            (x, y), (dx, dy) = primals, map(_instantiated, tangents, primals)
            out = jnp.sin(x) * y * (1.5 if wrong == "jvp value" else 1.0)
            return out, jnp.cos(x) * y * dx + jnp.sin(x) * dy * (2 if wrong == "jvp" else 1)

        def lin(self, nonzero, x, y):
            return jnp.sin(x) * y, (x, y)

        def linearized(self, kept, dx, dy):
            x, y = kept
            dx, dy = _instantiated(dx, x), _instantiated(dy, y)
            slope = jnp.sin(x) if wrong == "lin" else jnp.cos(x)
            return slope * y * dx + jnp.sin(x) * dy

        def vjp_fwd(self, nonzero, x, y):
            return jnp.sin(x) * y * (1.5 if wrong == "forward value" else 1.0), (x, y)

        def vjp_bwd_retval(self, kept, u):
            x, y = kept
            return u * (jnp.sin(x) if wrong == "vjp" else jnp.cos(x)) * y, u * jnp.sin(x)

        def batch(self, axis_data, args, dims):
            x, y = args
            moved = [
                jnp.broadcast_to(a, (axis_data.size, *a.shape))
                if d is None
                else jnp.moveaxis(a, d, 0)
                for a, d in zip((x, y), dims)
            ]
            if wrong == "batching":
                moved[0] = moved[0][::-1]
            return Sine(*map(jax.typeof, moved))(*moved), 0

    assert batches
    return lambda x, y: Sine(jax.typeof(x), jax.typeof(y))(x, y), (X, Y)


def _instantiated(tangent, primal):
    known = hasattr(tangent, "shape") and not type(tangent).__name__.endswith("Zero")
    return tangent if known else jnp.zeros_like(primal)


def custom_vjp3(wrong: str) -> Made:
    from jax._src.hijax import custom_vjp3  # it has no public name

    @custom_vjp3
    def f(x, y):
        return jnp.sin(x) * y

    def bwd(kept, u):
        x, y = kept
        return u * (jnp.sin(x) if wrong == "backward" else jnp.cos(x)) * y, u * jnp.sin(x)

    f.defvjp(lambda x, y: (jnp.sin(x) * y * (1.5 if wrong == "value" else 1.0), (x, y)), bwd)
    return f, (X, Y)


def custom_jvp3(wrong: str) -> Made:
    from jax._src.hijax import custom_jvp3  # it has no public name

    @custom_jvp3
    def f(x):
        return jnp.sin(x)

    @f.defjvp
    def _(primals, tangents):
        (x,), (t,) = primals, tangents
        return jnp.sin(x), (jnp.sin(x) if wrong == "jvp" else jnp.cos(x)) * t

    return f, (X,)


def pallas(wrong: str) -> Made:
    def double(x_ref, y_ref):
        y_ref[...] = x_ref[...] * x_ref[...]

    def slope(x_ref, u_ref, g_ref):
        g_ref[...] = (3 if wrong == "backward" else 2) * x_ref[...] * u_ref[...]

    def call(kernel, like, *arrays):
        shape = jax.ShapeDtypeStruct(like.shape, like.dtype)
        return pl.pallas_call(kernel, shape, interpret=True)(*arrays)

    @jax.custom_vjp
    def square(x):
        return call(double, x, x)

    def fwd(x):
        return call(double, x, x) * (2 if wrong == "value" else 1), x

    square.defvjp(fwd, lambda x, u: (call(slope, x, x, u),))
    return square, (X,)


def callback(wrong: str) -> Made:
    """sin through the host; the wrong one forgets that batched callbacks see a further axis."""

    def on_host(x):
        found = np.sin(np.asarray(x))
        if wrong == "batching" and found.ndim > 1:
            found = found[::-1]
        return found.astype(np.asarray(x).dtype)

    def call(x):
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return jax.pure_callback(on_host, shape, x, vmap_method="broadcast_all")

    @jax.custom_vjp
    def f(x):
        return call(x)

    slope = jnp.sin if wrong == "backward" else jnp.cos
    scale = 1.5 if wrong == "value" else 1
    f.defvjp(lambda x: (scale * call(x), x), lambda x, u: (u * slope(x),))
    return f, (X,)


def sharded(wrong: str) -> Made:
    """The product of rows that lie on two devices with w; each device gets half of the upstream."""
    from jax.sharding import PartitionSpec as P

    mesh = jax.sharding.Mesh(np.array(jax.devices("cpu")[:2]), ("d",))

    @jax.custom_vjp
    def total(x, w):
        return jax.lax.psum(jnp.sum(x * w, keepdims=True), "d")

    def bwd(kept, u):
        x, w = kept
        whole = u if wrong == "psum" else jax.lax.psum(u, "d")
        return whole * w, whole * x

    total.defvjp(lambda x, w: (total(x, w), (x, w)), bwd)

    def local(x, w):
        return total(x, w)

    run = jax.shard_map(local, mesh=mesh, in_specs=(P("d"), P()), out_specs=P(), check_vma=False)
    rows = np.arange(1.0, 5.0, dtype=np.float32)
    return run, (rows, np.array([0.5, -1.5], np.float32))


def closes_over(wrong: str) -> Made:
    """y sin(x) in a rule that holds y, traced."""

    def outer(x, y):
        @jax.custom_jvp
        def inner(x):
            return y * jnp.sin(x)

        inner.defjvps(lambda t, _, x: y * (jnp.sin(x) if wrong == "jvp" else jnp.cos(x)) * t)
        return inner(x)

    return outer, (X, Y)


def closes_over_in_reverse(wrong: str) -> Made:
    """3 cos(x) + y; JAX differentiates by x or by y, but not by both at once."""

    def outer(x, y):
        total = jnp.sum(y)

        @jax.custom_vjp
        def inner(x):
            return 3 * jnp.cos(x)

        def bwd(x, u):
            return (u * -3 * jnp.sin(x) + (0.2 if wrong == "backward" else 0.0) * total,)

        inner.defvjp(lambda x: (3 * jnp.cos(x), x), bwd)
        return inner(x) + y

    return outer, (X, Y)


class Kind(NamedTuple):
    """How to make examples of a kind, and which faults they may have."""

    make: Callable[[str], Made]
    faults: tuple[str, ...]
    needs: Callable[[], bool] = lambda: True


def _has(name: str) -> Callable[[], bool]:
    def has() -> bool:
        import jax._src.hijax as module

        return hasattr(module, name)

    return has


def _remat_option() -> bool:
    return "optimize_remat" in inspect.signature(jax.custom_vjp.defvjp).parameters


KINDS = {
    "optimize_remat": Kind(nested_gradient, ("backward", "value"), _remat_option),
    "nondiff_argnums": Kind(nondiff_argnums, ("backward",)),
    "custom_gradient": Kind(custom_gradient, ("backward",)),
    "closure_convert": Kind(closure_convert, ("backward",)),
    "symbolic zero tangents": Kind(symbolic_zero_tangents, ("tangent alone",)),
    "symbolic zero upstreams": Kind(symbolic_zero_upstreams, ("output alone",)),
    "custom_vmap": Kind(custom_vmap, ("batching",)),
    "sequential_vmap": Kind(sequential_vmap, ("inner",)),
    "linear_call": Kind(linear_call, ("transpose",)),
    "custom_linear_solve": Kind(custom_linear_solve, ("transpose", "symmetric")),
    "custom_linear_solve, matrix": Kind(custom_linear_solve_of_the_matrix, ("solve",)),
    "custom_root": Kind(custom_root, ("tangent",)),
    "primitive": Kind(primitive, ("implementation", "shape", "dtype", "jvp", "batching")),
    "linear primitive": Kind(linear_primitive, ("transpose",)),
    "hijax": Kind(hijax_primitive, ("jvp", "jvp value", "lin", "forward value", "vjp", "batching")),
    "custom_vjp3": Kind(custom_vjp3, ("backward", "value"), _has("custom_vjp3")),
    "custom_jvp3": Kind(custom_jvp3, ("jvp",), _has("custom_jvp3")),
    "pallas": Kind(pallas, ("backward", "value")),
    "callback": Kind(callback, ("backward", "batching", "value")),
    "shard_map": Kind(sharded, ("psum",), lambda: len(jax.devices("cpu")) > 1),
    "closes over a traced value": Kind(closes_over, ("jvp",)),
    "closes over an input, reverse": Kind(closes_over_in_reverse, ("backward",)),
}


def cases() -> Iterator[tuple[str, str]]:
    """Yield each kind with no fault, and with each of its faults."""
    for name, kind in KINDS.items():
        for fault in ("", *kind.faults):
            yield name, fault
