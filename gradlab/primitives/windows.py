"""Convolutions and pooling: bands along the spatial axes, groups along the channels."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gradlab.patterns import Pattern, maps
from gradlab.primitives.equation import Equation, Shape
from gradlab.primitives.record import Primitive, Site, each, stays_zero, zero_if
from gradlab.primitives.rounding import EXACT, SumOf

_LISTED = 1 << 16


def _convolution(site: Site, k: int) -> Pattern:
    """Batch and channel groups are equal; each spatial axis reads a window.

    Worked out with the axes in the order batch, batch group, feature group, channel, spatial;
    one transposition and one reshape on either side bring them there.
    """
    params = site.params
    numbers = params["dimension_numbers"]
    batch_groups, groups = params["batch_group_count"], params["feature_group_count"]
    lhs, rhs, out = (
        tuple(shape[axis] for axis in spec)
        for shape, spec in zip(
            (*site.in_shapes, site.shape), (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec)
        )
    )
    channels = out[1] // (batch_groups * groups)
    made: Shape = (out[0], batch_groups, groups, channels)
    windows = _axes(lhs[2:], out[2:], rhs[2:], site)
    if k == 0:
        read: Shape = (batch_groups, lhs[0] // batch_groups, groups, lhs[1] // groups)
        joined = Pattern.from_axes(made, read, [(0, ~1), (1, ~0), (2, ~2)])
        local = maps.product(joined, *windows)
        if batch_groups == 1 and (found := _through_taps(site, lhs, out, rhs)):
            local = maps.product(Pattern.identity((out[0],)), found)
            made, read = (out[0], out[1]), (lhs[0], lhs[1])
        spec, shape, canonical = numbers.lhs_spec, site.in_shapes[0], lhs
    else:
        read = (batch_groups, groups, channels, rhs[1])
        joined = Pattern.from_axes(made, read, [(1, ~0), (2, ~1), (3, ~2)])
        local = maps.product(joined, *_kernel_axes(lhs[2:], out[2:], rhs[2:], site))
        spec, shape, canonical = numbers.rhs_spec, site.in_shapes[1], rhs
    ordered = maps.reshape(canonical, read + canonical[2:]) @ maps.transpose(shape, tuple(spec))
    back = maps.transpose(out, tuple(int(a) for a in np.argsort(numbers.out_spec)))
    return back @ maps.reshape(made + out[2:], out) @ local @ ordered


def _axes(given: Shape, made: Shape, kernel: Shape, site: Site) -> list[Pattern]:
    params = site.params
    return [
        maps.window(n, m, size, stride, low, dilation, base)
        for n, m, size, stride, (low, _), dilation, base in zip(
            given, made, kernel, params["window_strides"], params["padding"],
            params["rhs_dilation"], params["lhs_dilation"],
        )
    ]  # fmt: skip


def _through_taps(site: Site, given: Shape, made: Shape, kernel: Shape) -> Pattern | None:
    """Return a convolution (channel and spatial axes) tap by tap, where the kernel has zeros."""
    region = site.nonzero(1)
    taps = math.prod(kernel[2:])
    if region is None or region.is_dense or taps > 64 or math.prod(kernel) > _LISTED:
        return None
    spec = site.params["dimension_numbers"].rhs_spec
    used = region.to_dense().reshape(site.in_shapes[1]).transpose(spec)
    params = site.params
    group = np.arange(made[1]) // (made[1] // params["feature_group_count"])
    rows = np.arange(made[1])[:, None]
    columns = group[:, None] * kernel[1] + np.arange(kernel[1])
    parts = [Pattern.zero(made[1:], given[1:])]
    for tap in np.ndindex(*kernel[2:]):
        channels = used[(..., *tap)]
        if not channels.any():
            continue
        axes = [
            maps.window(n, m, 1, stride, low - t * dilation, 1, base)
            for n, m, t, stride, (low, _), dilation, base in zip(
                given[2:], made[2:], tap, params["window_strides"], params["padding"],
                params["rhs_dilation"], params["lhs_dilation"],
            )
        ]  # fmt: skip
        mixed = np.zeros((made[1], given[1]), bool)
        mixed[rows, columns] = channels
        parts.append(maps.product(Pattern.explicit(mixed, made[1:2], given[1:2]), *axes))
    return Pattern.union(parts)


def _kernel_axes(given: Shape, made: Shape, kernel: Shape, site: Site) -> list[Pattern]:
    """Return which taps each output position reads; at the border some fall into the padding.

    Output o reads tap k where 0 <= o + k - low < n: a difference once the taps are reversed.
    Strides and dilations are written out.
    """
    params = site.params
    steps = zip(params["window_strides"], params["rhs_dilation"], params["lhs_dilation"])
    found = []
    for n, m, size, (low, _), (stride, dilation, base) in zip(
        given, made, kernel, params["padding"], steps
    ):
        if stride == dilation == base == 1:
            first = low - (size - 1)
            band = Pattern.from_axes((m,), (size,), [(0, ~0, first, first + n - 1)])
            found.append(band @ maps.reverse((size,), (0,)))
        elif m * size <= _LISTED:
            place = np.arange(m)[:, None] * stride + np.arange(size) * dilation - low
            reads = (place >= 0) & (place <= (n - 1) * base) & (place % base == 0)
            found.append(Pattern.explicit(reads, (m,), (size,)))
        else:
            found.append(Pattern.dense((m,), (size,)))
    return found


def _pooling(site: Site, k: int) -> Pattern:
    """Each axis reads a window."""
    return _pooled(site, site.in_shapes[0], site.shape)


def _general_pooling(site: Site, k: int) -> tuple[Pattern, ...]:
    """Pooling by any function; initial values reach all."""
    if k >= len(site.in_shapes) // 2:
        return site.dense(k)
    return (_pooled(site, site.in_shapes[k], site.shape),) * len(site.out_shapes)


def _gathered_from_windows(site: Site, k: int) -> Pattern:
    """One entry of each window, chosen by the other operand."""
    return _pooled(site, site.in_shapes[0], site.shape)


def _scattered_to_windows(site: Site, k: int) -> Pattern:
    """Each window's number goes to one entry of the window, chosen by the operand."""
    window = _pooled(site, site.shape, site.in_shapes[0])
    return window.T if k == 0 else window.T @ window


def _pooled(site: Site, given: Shape, made: Shape) -> Pattern:
    params = site.params
    ones = (1,) * len(given)
    parts: Sequence[Pattern] = [
        maps.window(n, m, size, stride, low, dilation, base)
        for n, m, size, stride, (low, _), dilation, base in zip(
            given, made, params["window_dimensions"], params["window_strides"], params["padding"],
            params.get("window_dilation") or ones, params.get("base_dilation") or ones,
        )
    ]  # fmt: skip
    return maps.product(*parts)


def _taps(equation: Equation) -> int:
    kernel = equation.in_shapes[1]
    channels: int = equation.params["dimension_numbers"].rhs_spec[0]
    return math.prod(kernel) // max(kernel[channels], 1)


def _window(equation: Equation) -> int:
    sizes: Shape = equation.params["window_dimensions"]
    return math.prod(sizes)


_POOLED = Primitive(name="", reads=_pooling, rounds=EXACT, underflows="never")

RECORDS = (
    Primitive(
        name="conv_general_dilated",
        reads=_convolution,
        zero=stays_zero,
        rounds=SumOf(_taps, of_products=True),
        underflows="never",
    ),
    Primitive(name="reduce_window", reads=_general_pooling, combines="jaxpr"),
    replace(_POOLED, name="reduce_window_sum", zero=stays_zero, rounds=SumOf(_window)),
    *each(_POOLED, "reduce_window_max reduce_window_min"),
    replace(_POOLED, name="select_and_gather_add", reads=_gathered_from_windows, zero=zero_if(0)),
    replace(
        _POOLED,
        name="select_and_scatter_add",
        reads=_scattered_to_windows,
        zero=zero_if(0),
        rounds=SumOf(_window),
    ),
)
