"""Patterns of operations on one axis: affine index maps, copies, sliding windows.

Operations on several axes are products of these (see `maps.product`). All are bounds between
digits: a stride s reads the axis in runs of s, whose leading digit is the other index and whose low
digit is constant; a window is such a stride after a band.
"""

from gradlab.patterns import bounds as dbm
from gradlab.patterns.building import Bound
from gradlab.patterns.digits import Axis, frame, plain
from gradlab.patterns.pattern import Pattern
from gradlab.patterns.remembering import remembered
from gradlab.patterns.splitting import refine
from gradlab.patterns.zone import Zone, full

__all__ = ["affine", "copies", "window"]


@remembered
def affine(output_size: int, input_size: int, step: int, start: int) -> Pattern:
    """Return one axis with `out = start + step * in`, wherever that is an index of the output.

    Example:
        >>> affine(10, 4, 3, 0).notation
        'out[3*i] <- in[i]'
    """
    first = max(0, -(start // step))
    last = min(input_size - 1, (output_size - 1 - start) // step)
    if last < first or not output_size:
        return Pattern.zero((output_size,), (input_size,))
    if step == 1 or last == first or output_size <= step:
        ends = (start + step * first, start + step * last)
        bounds: list[Bound] = [(~0, None, first, last), (0, None, *ends)]
        if last > first:
            bounds.append((0, ~0, start, start))
        return Pattern.from_axes((output_size,), (input_size,), bounds)
    f = frame((Axis(output_size, (step, 1)),), (plain(input_size),))
    shift, low = divmod(start, step)
    d = f.free.copy()
    d[2, 0], d[0, 2] = low, -low
    d[3, 0], d[0, 3] = last, -first
    d[1, 3], d[3, 1] = shift, -shift
    closed = dbm.close(d)
    zones = () if closed is None else (Zone(f, closed),)
    return Pattern((output_size,), (input_size,), zones)


def copies(size: int, times: int, whole: bool) -> Pattern:
    """Return one axis copied: as a whole, or entry by entry."""
    if size <= 1 or times <= 1:
        bounds = [(0, ~0)] if times == 1 else []
        return Pattern.from_axes((size * times,), (size,), bounds)
    f = frame((Axis(size * times, ((size if whole else times), 1)),), (plain(size),))
    d = f.free.copy()
    d[2 if whole else 1, 3] = d[3, 2 if whole else 1] = 0
    closed = dbm.close(d)
    zones = () if closed is None else (Zone(f, closed),)
    return Pattern((size * times,), (size,), zones)


@remembered
def window(
    size: int,
    output_size: int,
    kernel: int,
    stride: int = 1,
    low: int = 0,
    dilation: int = 1,
    base_dilation: int = 1,
) -> Pattern:
    """Return one axis under a sliding window (convolution, pooling).

    Output o reads the base-dilated input at `stride * o - low + dilation * k` for k below `kernel`.

    Args:
        size: the size of the input axis.
        output_size: the size of the output axis.
        kernel: the number of entries of the window.
        stride: how far the window moves.
        low: the padding before the first entry.
        dilation: the distance between the entries of the window.
        base_dilation: the distance of the input's entries once dilated (transposed convolution).

    Example:
        >>> window(9, 9, 3, low=1).notation
        'out[i] <- in[i-1..i+1]'
        >>> window(10, 5, 2, stride=2).notation
        'out[i] <- in[2*i+(:)]'
    """
    if not size or not output_size or not kernel:
        return Pattern.zero((output_size,), (size,))
    dilated = (size - 1) * base_dilation + 1
    reached = stride * (output_size - 1) + 1
    place_of = affine(reached, output_size, stride, 0).T
    read = affine(dilated, size, base_dilation, 0)
    if dilation == 1:
        # the window's entry w = u - low + k, hence u - w lies in low - (kernel - 1) .. low
        band = Pattern.from_axes((reached,), (dilated,), [(0, ~0, low - kernel + 1, low)])
        return place_of @ band @ read
    return place_of @ _dilated(reached, dilated, kernel, low, dilation) @ read


def _dilated(outputs: int, inputs: int, kernel: int, low: int, dilation: int) -> Pattern:
    """Return u <- w with u - w = low - dilation * k: a band between digits of radix `dilation`."""
    shape = ((outputs,), (inputs,))
    if min(outputs, inputs) <= dilation:
        taps = (low - dilation * k for k in range(kernel))
        return Pattern.union([Pattern.from_axes(*shape, [(0, ~0, t, t)]) for t in taps])
    split = [
        piece
        for half in refine(full(*shape), 0, (dilation, 1)) or ()
        for piece in refine(half, 1, (dilation, 1)) or ()
    ]
    shift, rest = divmod(low, dilation)
    zones = []
    for piece in split:
        for carry in (0, 1) if rest else (0,):
            d = piece.bounds.copy()
            apart = rest - carry * dilation
            for x, y, c in (
                (1, 3, shift + carry),
                (3, 1, kernel - 1 - shift - carry),
                (2, 4, apart),
                (4, 2, -apart),
            ):
                d[x, y] = min(d[x, y], c)
            if (closed := dbm.close(d)) is not None:
                zones.append(piece.with_bounds(closed))
    return Pattern.of_zones(*shape, zones)
