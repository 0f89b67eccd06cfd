"""What every code means: the mistake, a wrong and a right backward, and how gradlab knows."""

import re
from typing import Final, NamedTuple

_SOURCE: Final = (
    "gradlab ran the backward with this edit at fresh inputs, and every gradient was right there."
)


class Code(NamedTuple):
    """One mistake: what it is, an example of it, the right text, and how gradlab knows."""

    mistake: str
    forward: str
    wrong: str
    right: str
    shapes: str = "3x4"
    knows: str = _SOURCE


# the code and its mistake; then the forward, a wrong backward, and the right one
_TABLE: Final = """
GL101 A sign is wrong.
    -x
    upstream
    -upstream
GL102 A constant factor is wrong.
    x**2
    upstream * x
    upstream * 2 * x
GL103 A size is missing: a sum stands where a mean belongs, or the other way round.
    np.mean(x)
    upstream * np.ones_like(x)
    upstream * np.ones_like(x) / x.size
GL201 A factor is missing.
    x * y
    upstream, upstream * x
    upstream * y, upstream * x
    shapes: 3x4 3x4
GL202 There is a factor too many.
    np.sin(x)
    upstream * x * np.cos(x)
    upstream * np.cos(x)
GL203 A power is wrong.
    x**3
    upstream * 3 * x**3
    upstream * 3 * x**2
GL204 An operator or a function is wrong.
    np.sin(x)
    upstream * np.sin(x)
    upstream * np.cos(x)
GL211 A term is missing: a mean, a variance, a normaliser, another path, a regularisation.
    x - x.mean(axis=1, keepdims=True)
    upstream
    upstream - upstream.mean(axis=1, keepdims=True)
GL212 There is a term too many.
    2 * x
    2 * upstream + x
    2 * upstream
GL213 A constant inside is wrong, such as an eps or a temperature.
    np.log(x**2 + 0.5)
    upstream * 2 * x / (x**2 + 1.5)
    upstream * 2 * x / (x**2 + 0.5)
GL221 The derivative of the activation is missing.
    np.tanh(x @ w)
    upstream @ w.T, x.T @ upstream
    (upstream * (1 - np.tanh(x @ w) ** 2)) @ w.T, x.T @ (upstream * (1 - np.tanh(x @ w) ** 2))
    shapes: 3x4 4x2
GL222 The derivative of an inner function is missing.
    np.sin(3 * x)
    upstream * np.cos(3 * x)
    upstream * 3 * np.cos(3 * x)
GL223 The upstream is missing.
    np.sin(x)
    np.cos(x)
    upstream * np.cos(x)
GL301 A matrix is transposed.
    x @ w
    upstream @ w, x.T @ upstream
    upstream @ w.T, x.T @ upstream
    shapes: 3x4 4x4
GL302 The axis is wrong.
    x - x.mean(axis=1, keepdims=True)
    upstream - upstream.mean(axis=0, keepdims=True)
    upstream - upstream.mean(axis=1, keepdims=True)
GL303 The gradient is not summed over an axis that was broadcast.
    x + b
    upstream, upstream[0]
    upstream, upstream.sum(axis=0)
    shapes: 3x4 4
GL304 keepdims is missing or wrong.
    x * x.sum(axis=1, keepdims=True)
    upstream * x.sum(axis=1, keepdims=True) + (upstream * x).sum(axis=1)
    upstream * x.sum(axis=1, keepdims=True) + (upstream * x).sum(axis=1, keepdims=True)
    shapes: 3x3
GL311 Another variable is read.
    x * y
    upstream * x, upstream * x
    upstream * y, upstream * x
    shapes: 3x4 3x4
GL312 The gradients of two inputs are exchanged.
    x * y
    upstream * x, upstream * y
    upstream * y, upstream * x
    shapes: 3x4 3x4
GL313 Arguments or parts are in another order.
    x / y
    upstream / y, -upstream * y / x**2
    upstream / y, -upstream * x / y**2
    shapes: 3x4 3x4
GL321 An index or a slice is shifted.
    x[:, 1:] * 2
    np.pad(2 * upstream, ((0, 0), (0, 1)))
    np.pad(2 * upstream, ((0, 0), (1, 0)))
GL322 The direction is wrong.
    np.cumsum(x, axis=1)
    np.cumsum(upstream, axis=1)
    np.cumsum(upstream[:, ::-1], axis=1)[:, ::-1]
GL323 A value from before or after its update is read.
    np.exp(x) ** 2
    upstream * 2 * np.exp(x)
    upstream * 2 * np.exp(x) ** 2
GL331 Values are overwritten where they should be accumulated.
    x[[0, 1, 0]]
    np.stack([upstream[2], upstream[1], 0 * upstream[0]])
    np.stack([upstream[0] + upstream[2], upstream[1], 0 * upstream[0]])
GL332 A condition or a branch is wrong.
    np.where(x > 0, x, 0.1 * x)
    upstream * np.where(x < 0, 1, 0.1)
    upstream * np.where(x > 0, 1, 0.1)
GL333 A mask is not applied.
    np.maximum(x, 0)
    upstream
    upstream * (x > 0)
GL401 The gradient is not linear in the upstream.
    2 * x
    2 * np.clip(upstream, -0.5, 0.5)
    2 * upstream
    knows: The gradient of a sum of two upstreams is not the sum of their gradients.
GL402 The backward changes its input or its upstream.
    2 * x
    np.multiply(upstream, 2, out=upstream)
    2 * upstream
    knows: The array holds other values after the call.
GL403 The backward is not deterministic.
    2 * x
    2 * upstream + np.random.normal(size=x.shape)
    2 * upstream
    knows: Two calls with equal arrays return different gradients.
GL404 Something is accumulated or stored in a narrower dtype.
    2 * x
    (2 * upstream).astype(np.float16).astype(x.dtype)
    2 * upstream
    knows: The error is that of rounding to the narrower dtype.
GL405 The gradient is NaN or infinite where the right one is finite.
    x**2
    upstream * 2 * x / (x - x)
    upstream * 2 * x
    knows: gradlab saw it when it ran the backward.
GL406 The other complex convention: JAX does not conjugate.
    x * (1 + 2j)
    upstream * (1 - 2j)
    upstream * (1 + 2j)
    shapes: 3x4:complex128
    knows: The conjugate of the gradient is right.
GL407 The forward mode is right, but its transpose is wrong.
    x @ w
    upstream @ w, x.T @ upstream
    upstream @ w.T, x.T @ upstream
    shapes: 3x4 4x4
    knows: The gradient equals the forward derivative along the upstream.
GL408 The gradient has another shape than its input.
    x.sum(axis=1)
    upstream
    np.repeat(upstream[:, None], x.shape[1], axis=1)
    knows: gradlab saw it when it ran the backward.
GL409 The gradient is wrong only where a condition holds.
    np.abs(x)
    upstream
    upstream * np.sign(x)
    knows: The condition separates the wrong entries from the right ones, at every point.
GL411 The forward's value differs from that of the function it stands for.
    2 * x
    3 * upstream
    2 * upstream
    knows: gradlab ran both functions at the same inputs.
GL412 The gradient differs when it runs eagerly, compiled or batched.
    2 * x
    upstream
    2 * upstream
    knows: gradlab ran the gradient in each of these ways.
GL413 The batching rule is wrong.
    2 * x
    upstream
    2 * upstream
    knows: gradlab ran the rule row by row, and got other numbers.
GL414 The gradient is straight-through, stopped, or a distribution's. Say so: intended=.
    np.round(x) + 0.0 * x
    upstream
    0 * upstream
    knows: The gradient equals the upstream, zero or minus the right one; or the function is random.
GL900 The gradient is wrong, and gradlab found no edit of one or two places that mends it.
    np.sin(x)
    upstream * np.exp(x)
    upstream * np.cos(x)
    knows: gradlab tried single edits and pairs of edits. Make each part a rule, and check it.
"""


def _read(row: str) -> Code:
    """Return one row of the table as a code."""
    mistake, *lines = (line.strip() for line in row.splitlines())
    more = dict(line.split(": ", 1) for line in lines[3:])
    return Code(mistake, *lines[:3], **more)


CODES: Final = {row[:5]: _read(row[6:]) for row in re.split(r"\n(?=GL)", _TABLE)[1:]}


def explanation(code: str) -> str:
    """Return the page of a code as text."""
    page = CODES[code]
    names = ["x", "w"] if " w" in page.forward or "@ w" in page.forward else ["x", "y"]
    names = ["x", "b"] if "+ b" in page.forward else names
    arguments = ", ".join(names[: len(page.shapes.split())])
    before = f"def forward({arguments}):\n    return {page.forward}"
    head = f"def backward(upstream, {arguments}):\n    return "
    parts = [
        f"{code}: {page.mistake}",
        "",
        *_indented(before),
        "",
        "wrong",
        *_indented(head + page.wrong),
        "right",
        *_indented(head + page.right),
        "",
        f"How gradlab knows: {page.knows}",
    ]
    return "\n".join(parts)


def _indented(text: str) -> list[str]:
    return [f"    {line}" for line in text.splitlines()]
