"""Zones one by one: what moves or widens them, against every point of small boxes."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradlab.patterns import Pattern, maps
from gradlab.patterns.zone import merge_groups, relation

SHAPES = ((2, 3, 2), (2, 3, 2))
BOX = list(itertools.product(*map(range, (*SHAPES[0], *SHAPES[1]))))
ENDS = st.one_of(st.none(), st.integers(-2, 2))


def members(zone):
    return {point for point in BOX if zone.contains(point)}


@st.composite
def zones(draw):
    """A zone of bounds between some axes, perhaps flipped, and a relation between others."""
    if draw(st.booleans()):
        labels = st.sampled_from([0, 1, 2, ~0, ~1, ~2])
        bound = st.tuples(labels, st.one_of(st.none(), labels), ENDS, ENDS)
        found = Pattern.from_axes(*SHAPES, [(a, b, *e) for a, b, *e in draw(st.lists(bound))])
    else:
        seed = draw(st.integers(0, 2**20))
        rows, columns = draw(st.sampled_from([((0,), (0,)), ((1,), (0, 2)), ((0, 2), (2,))]))
        sizes = [int(np.prod([2 if k != 1 else 3 for k in axes])) for axes in (rows, columns)]
        matrix = np.random.default_rng(seed).random(sizes) < 0.6
        equal = [(1, 1)] if 1 not in rows else []
        found = Pattern.explicit(matrix, *SHAPES, (rows, columns), equal)
    if draw(st.booleans()):
        found = found @ maps.reverse(SHAPES[1], (draw(st.integers(0, 2)),))
    return found.zones[0] if found.zones else Pattern.dense(*SHAPES).zones[0]


@given(zones(), st.sets(st.integers(0, 5)))
def test_forgetting_says_nothing_of_the_axes_and_keeps_the_rest(zone, axes):
    before, after = members(zone), members(zone.forget(axes))
    tied = {zone.frame.axis_of[v - 1] for r in zone.relations for v in r.variables}
    gone = axes | tied if axes & tied else axes  # a relation is forgotten whole

    def kept(point):
        return tuple(i for k, i in enumerate(point) if k not in gone)

    assert after == {point for point in BOX if kept(point) in set(map(kept, before))}


@given(zones(), st.data())
def test_flips_and_the_transpose_keep_the_set(zone, data):
    turned = zone
    for group in zone.clusters():
        if data.draw(st.booleans()):
            turned = turned.flip(group)
    truth = members(zone)
    assert members(turned) == members(turned.oriented()) == truth
    assert not turned.oriented().flipped & zone.explicit
    assert members(zone.T) == {(*p[3:], *p[:3]) for p in truth}
    assert zone.T.T.key == zone.key


@given(st.permutations([1, 2, 3, 4]), st.integers(0, 4), st.integers(0, 4), st.integers(0, 2**20))
def test_a_relation_between_outputs_and_inputs_has_the_same_points(order, split, outputs, seed):
    sizes = (2, 3, 2, 2)
    box = np.array(list(itertools.product(*(range(sizes[v - 1]) for v in order))))
    points = box[np.random.default_rng(seed).random(len(box)) < 0.4]
    given_ = relation(order[:split], order[split:], points, sizes)
    moved = given_.between(outputs, sizes)
    assert moved.rows == tuple(range(1, outputs + 1))
    assert moved.columns == tuple(range(outputs + 1, 5))
    truth = {tuple(p[order.index(v)] for v in (1, 2, 3, 4)) for p in points.tolist()}
    assert {tuple(p) for p in moved.points(sizes).tolist()} == truth
    for point in itertools.product(*map(range, sizes)):
        assert moved.holds([0, *point], sizes) == given_.holds([0, *point], sizes)
        assert moved.holds([0, *point], sizes) == (point in truth)


@pytest.mark.parametrize("count", [0, 1])
def test_a_relation_of_nothing_has_points_without_coordinates(count):
    nothing = relation((), (), np.zeros((count, 0), np.int64), ())
    assert nothing.matrix.shape == (1, 1) and nothing.points(()).shape == (count, 0)


@given(st.lists(st.sets(st.integers(0, 8), max_size=3), max_size=6))
def test_groups_are_merged_where_they_meet(groups):
    merged = merge_groups(groups[:3], groups[3:])
    assert sorted(itertools.chain(*merged)) == sorted(set().union(*groups))
    assert all(any(g <= set(m) for m in merged) for g in groups if g)
    for m in merged:  # nothing is merged that does not hang together
        reached = {m[0]}
        while more := set().union(*(g for g in groups if g & reached)) - reached:
            reached |= more
        assert sorted(reached) == m
    assert merged == sorted(merged, key=lambda g: g[0])
