"""Pictures of graphs: the course's numbers in their places, nothing overlaps, nothing is cut."""

import re
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from gradlab import Graph, nodes
from gradlab.reporting import _layout
from gradlab.reporting._svg import drawing
from gradlab.reporting._things import picture

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "<script>alert('\"&')</script>"


def neuron(w0, x0, w1, x1, w2):
    return 1 / (1 + np.exp(-(w0 * x0 + w1 * x1 + w2)))


def simplest() -> Graph:
    return Graph(lambda x, y, z: (x + y) * z, -2.0, 5.0, -4.0).label(add="q", multiply="f")


def vectors() -> Graph:
    w, x = np.array([[0.1, 0.5], [-0.3, 0.8]]), np.array([0.2, 0.4])
    return Graph(lambda w, x: nodes.l2_loss(w @ x), w, x).label(matmul="q", l2_loss="f")


def forks() -> Graph:
    def f(x, y):
        a, b = nodes.copy(x * y)
        return a * x + np.maximum(b, y) * a - x / (2.0 + np.exp(y))

    return Graph(f, 3.0, 4.0)


def odd() -> Graph:
    with np.errstate(all="ignore"):
        return Graph(lambda x, u: np.log(x) * x + np.exp(800 * x) * 0, np.array([-1.0, 2.0]), 1.0)


def network() -> Graph:
    rng = np.random.default_rng(0)

    def f(x, ws, labels):
        for w in ws:
            x = nodes.relu(x @ w) + x
        return nodes.softmax_cross_entropy(x, labels)

    ws = [rng.standard_normal((8, 8)) for _ in range(20)]
    return Graph(f, rng.standard_normal((5, 8)), ws, rng.integers(0, 8, 5))


def large() -> Graph:
    def f(x, y):
        for _ in range(75):
            x = np.sin(x) * y + x * 0.5
        return x.sum()

    return Graph(f, np.ones(4), np.full(4, 0.3))


def wide() -> Graph:
    """Return what a person would not like to draw: each wire is used anywhere later."""
    rng = np.random.default_rng(1)

    def f(*xs):
        made = list(xs)
        for _ in range(120):
            i, j = rng.integers(max(0, len(made) - 12), len(made), 2)
            made.append(np.tanh(made[i] + made[j]) if rng.random() < 0.5 else made[i] * made[j])
        return sum(made[-6:], start=made[-7])

    return Graph(f, *rng.standard_normal(6))


def images() -> Graph:
    rng = np.random.default_rng(2)

    def f(x, kernel, w):
        h = nodes.max_pool(nodes.relu(nodes.conv2d(x, kernel, np.ones(2))))
        return nodes.softmax(nodes.reshape(h, shape=(3, -1)) @ w)

    return Graph(
        f, rng.normal(size=(3, 1, 10, 10)), rng.normal(size=(2, 1, 3, 3)), np.eye(32)[:, :9]
    )


GRAPHS = {g.__name__: g for g in (simplest, vectors, forks, odd, network, large, wide, images)}


def drawn(graph: Graph, **options: object) -> ET.Element:
    with np.errstate(all="ignore"):
        graph.backward(graph.ones())
    return ET.fromstring(graph.report(**options).render("svg"))


Place = tuple[float, float, float, float]  # left, top, right, bottom


def placed(root: ET.Element, dx: float = 0.0, dy: float = 0.0):
    """Yield every element with how far the groups around it are moved."""
    for element in root:
        moved = re.fullmatch(r"translate\((\S+) (\S+)\)", element.get("transform", ""))
        shift = (dx + float(moved[1]), dy + float(moved[2])) if moved else (dx, dy)
        yield element, *shift
        yield from placed(element, *shift)


def texts(root: ET.Element) -> list[tuple[str, str, Place]]:
    """Return every text with its class and the rectangle that it covers."""
    found = []
    for element, dx, dy in placed(root):
        if element.tag != f"{SVG}text":
            continue
        words, size = element.text or "", float(element.get("font-size"))
        width, x, y = 0.602 * size * len(words), float(element.get("x")), float(element.get("y"))
        x -= {"middle": width / 2, "end": width}.get(element.get("text-anchor"), 0.0)
        x, y = x + dx, y + dy
        found.append((words, element.get("class"), (x, y - 0.75 * size, x + width, y + 0.2 * size)))
    return found


def shapes(root: ET.Element, kind: str = "shape") -> list[Place]:
    """Return the rectangles around all gates, or around all that has another class."""
    found = []
    for element, dx, dy in placed(root):
        if element.get("class") != kind:
            continue
        if element.tag == f"{SVG}circle":
            x, y, r = (float(element.get(k)) for k in ("cx", "cy", "r"))
            found.append((x - r + dx, y - r + dy, x + r + dx, y + r + dy))
        else:
            x, y, w, h = (float(element.get(k)) for k in ("x", "y", "width", "height"))
            found.append((x + dx, y + dy, x + w + dx, y + h + dy))
    return found


def overlap(a, b) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@pytest.mark.one_in(2)
@pytest.mark.parametrize("make", GRAPHS.values(), ids=GRAPHS)
@pytest.mark.parametrize("local_gradients", [False, True])
def test_nothing_overlaps_and_nothing_is_cut_off(
    make: Callable[[], Graph], local_gradients: bool
) -> None:
    graph = make()
    root = drawn(graph, local_gradients=local_gradients, heat_maps=None)
    _in_order(root)
    report = graph.report(local_gradients=local_gradients, heat_maps=None)
    _in_order(ET.fromstring(drawing(report, picture(report, down=True))))


def _in_order(root: ET.Element) -> None:
    labels = sorted(texts(root), key=lambda label: label[2][0])
    gates, maps = shapes(root), shapes(root, "cells")
    for i, (words, kind, place) in enumerate(labels):
        for other, _, there in labels[i + 1 :]:
            if there[0] > place[2]:
                break
            assert not overlap(place, there), (words, other)
        assert not any(overlap(place, cells) for cells in maps), words
        inside = [gate for gate in gates if overlap(place, gate)]
        assert len(inside) == (kind == "ink" and any(_within(place, gate) for gate in gates)), words
    solid = [*gates, *maps]
    for i, one in enumerate(solid):
        assert not any(overlap(one, other) for other in solid[i + 1 :])
    _, _, width, height = map(float, root.get("viewBox").split())
    for place in [*solid, *(place for _, _, place in labels)]:
        assert _within(place, (0, 0, width, height)), place


def test_a_long_graph_runs_downwards() -> None:
    root = drawn(large())
    width, height = float(root.get("width")), float(root.get("height"))
    assert width < 1000 and height > 10_000
    assert 'class="gate"' in ET.tostring(root, "unicode")


def test_few_wires_cross(monkeypatch: pytest.MonkeyPatch) -> None:
    g = wide()
    g.backward()
    ordered = _crossings(picture(g.report()).edges)
    monkeypatch.setattr(_layout, "order", lambda columns, links: None)
    as_computed = _crossings(picture(g.report()).edges)
    assert ordered < as_computed / 4, (ordered, as_computed)


def _crossings(edges) -> int:
    """Return how many of the straight pieces of the wires cross in the open."""
    pieces = [p for edge in edges for p in pairwise(edge.points) if abs(p[0][1] - p[1][1]) > 0.5]
    number = 0
    for i, ((x0, y0), (x1, y1)) in enumerate(pieces):
        for (x2, y2), (x3, y3) in pieces[i + 1 :]:
            if x0 < x3 and x2 < x1:
                number += (y0 - y2) * (y1 - y3) < 0
    return number


def _within(inner, outer) -> bool:
    return (
        outer[0] <= inner[0]
        and inner[2] <= outer[2]
        and outer[1] <= inner[1]
        and inner[3] <= outer[3]
    )


def test_values_stand_above_their_wire_and_gradients_below() -> None:
    places = texts(drawn(simplest()))
    pairs = []
    for value, kind, place in places:
        if kind == "value":
            (below,) = (
                words
                for words, other, there in places
                if other == "gradient" and there[0] == place[0] and 0 < there[1] - place[3] < 12
            )
            pairs.append((value, below))
    assert sorted(pairs) == sorted(
        [("-2", "-4"), ("5", "-4"), ("-4", "3"), ("3", "-4"), ("-12", "1")]
    )


def test_the_courses_numbers_to_two_decimals() -> None:
    shown = texts(drawn(Graph(neuron, 2.0, -1.0, -3.0, -2.0, -3.0), decimals=2))
    values = [words for words, kind, _ in shown if kind == "value"]
    gradients = [words for words, kind, _ in shown if kind == "gradient"]
    assert {"-2", "6", "4", "1", "-1", "0.37", "1.37", "0.73"} <= set(values)
    assert {"-0.2", "0.39", "-0.39", "-0.59", "0.2", "-0.53", "1"} == set(gradients)
    signs = [words for words, kind, _ in shown if kind == "ink"]
    assert [s for s in signs if s not in ("w0", "x0", "w1", "x1", "w2")] == [
        *("*", "*", "+", "+", "*-1", "exp", "+1", "1/x")
    ]


def test_matrices_are_written_as_matrices() -> None:
    lines = [words for words, _, _ in texts(drawn(vectors()))]
    assert {"⎡ 0.1 0.5⎤", "⎣-0.3 0.8⎦", "⎡0.088 0.176⎤", "⎣0.104 0.208⎦", "[0.44 0.52]"} <= set(
        lines
    )


def test_forks_show_what_is_added() -> None:
    root = drawn(Graph(lambda x, y: x * y + x * x, 3.0, 4.0))
    places = texts(root)
    branches = sorted(words for words, kind, p in places if kind == "gradient" and p[3] - p[1] < 10)
    assert branches == ["3", "3", "4"]
    assert [words for words, kind, _ in places if kind == "plus"] == ["+"]
    assert "10" in [words for words, kind, _ in places if kind == "gradient"]


def test_odd_wires_are_marked_in_words_and_named() -> None:
    root = drawn(odd())
    words = [text for text, _, _ in texts(root)]
    assert {"NaN", "infinite", "gradient is NaN", "unused"} <= set(words)
    assert any(
        w.startswith("forward, the first NaN is log (log, test_graph_picture") for w in words
    )
    assert any("the first NaN is in the gradient of multiply_1, sent by exp" in w for w in words)


def test_groups_are_framed() -> None:
    g = Graph(neuron, 2.0, -1.0, -3.0, -2.0, -3.0)
    names = ["negate", "exp", "add_2", "reciprocal"]
    closed = ET.tostring(drawn(g.group(names, name="sigma")), "unicode")
    assert 'class="gate group"' in closed and ">sigma<" in closed
    root = drawn(g.ungroup("reciprocal"))
    (frame,) = (e for e in root.iter(f"{SVG}rect") if e.get("class") == "frame")
    left, width = float(frame.get("x")), float(frame.get("width"))
    inside = [gate for gate in shapes(root) if left < gate[0] < left + width]
    assert len(inside) == 4


def test_three_hundred_nodes_are_drawn_at_once() -> None:
    g = large()
    g.backward(g.ones())
    assert len(g.plan.steps) > 300
    report = g.report()
    start = time.process_time()
    report.render("svg")
    assert time.process_time() - start < 2


@pytest.mark.parametrize("format", ["text", "json", "svg", "html", "dot", "mermaid"])
def test_hostile_names_stay_text(format: str) -> None:
    g = Graph(lambda x: x * 2.0, 1.0).label(multiply=HOSTILE, x='"]; b -> c')
    g.title = HOSTILE
    g.backward()
    written = g.report().render(format)
    if format in ("svg", "html", "mermaid"):
        assert HOSTILE not in written and "<script>alert" not in written
    if format == "dot":
        assert re.fullmatch(r'(?:[^"]|"(?:[^"\\]|\\.)*")*', written)
        assert "b -> c" not in re.sub(r'"(?:[^"\\]|\\.)*"', "", written)


def test_dot_and_mermaid_have_every_gate_and_wire() -> None:
    g = forks()
    g.backward()
    report = g.report()
    edges = sum(len(gate.inputs) for gate in report.gates) - 1 + len(report.outputs)  # a constant
    assert report.render("dot").count(" -> ") == edges
    assert report.render("mermaid").count("-->") == edges
    assert report.render("mermaid").count("((") == len(report.gates)


def test_draw_writes_by_suffix(tmp_path) -> None:
    g = simplest()
    g.backward()
    for suffix, start in ((".svg", "<svg"), (".html", "<!doctype"), (".mmd", "flowchart")):
        g.draw(tmp_path / f"graph{suffix}")
        assert (tmp_path / f"graph{suffix}").read_text().startswith(start)
    with pytest.raises(ValueError, match=r"'\.bmp' tells no format"):
        g.draw(tmp_path / "graph.bmp")
    assert g._repr_html_().startswith("<div class='gradlab'>") and "<svg" in g._repr_html_()
