"""The page of a graph in a real browser: stepping works, nothing leaves it, names stay text."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from gradlab import Graph, nodes
from gradlab.nodes import registry

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
needs_browser = pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")


def neuron(w0, x0, w1, x1, w2):
    return 1 / (1 + np.exp(-(w0 * x0 + w1 * x1 + w2)))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    g = Graph(neuron, 2.0, -1.0, -3.0, -2.0, -3.0).label(exp="<b>e</b>")
    g.backward()
    path = tmp_path_factory.mktemp("page") / "neuron.html"
    g.draw(path)
    return path


def opened(page: Path, place: str = "") -> str:
    """Return the page as it stands after its script has run."""
    command = [
        *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *("--virtual-time-budget=2000", "--enable-logging=stderr", "--dump-dom"),
        f"file://{page}{place}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "CONSOLE" not in done.stderr, done.stderr
    return done.stdout


def visible(dom: str, way: str) -> set[str]:
    groups = re.findall(rf'<g class="{way}((?: now| gl-hidden)*)" data-wire="([^"]*)"', dom)
    return {wire for classes, wire in groups if "hidden" not in classes}


def test_nothing_is_fetched(page: Path) -> None:
    text = page.read_text().replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)| src=", text)


@needs_browser
def test_stepping_forward_then_backward(page: Path) -> None:
    start = opened(page, "#0")
    assert not visible(start, "forward") and not visible(start, "backward")
    assert "nothing computed yet" in start
    middle = opened(page, "#6")
    assert visible(middle, "forward") == {"w0", "x0", "w1", "x1", "w2", "multiply"}
    assert not visible(middle, "backward")
    back = opened(page, "#16")
    assert len(visible(back, "forward")) == 13
    assert visible(back, "backward") == {"reciprocal", "add_2", "&lt;b&gt;e&lt;/b&gt;"}
    end = opened(page)
    assert len(visible(end, "backward")) == 13
    assert "26 of 26: gradient of w0" in end
    assert "multiply = multiply(w0, x0)" in told(middle), "the gate that made the number"
    assert "add_2 = add(" in told(back) and "multiply = multiply(w0, x0)" in told(end)


@needs_browser
def test_buttons_keys_and_clicks(page: Path, tmp_path: Path) -> None:
    hand = """<script>
        const press = move => document.querySelector(`[data-move=${move}]`).click();
        const key = name => document.dispatchEvent(new KeyboardEvent("keydown", {key: name}));
        press("first"); press("on"); press("on"); key("ArrowRight"); key("ArrowLeft");
        document.querySelector("g.gate[data-gate=multiply_1]").dispatchEvent(new Event("click"));
    </script>"""
    used = tmp_path / "used.html"
    used.write_text(page.read_text().replace("</html>", f"{hand}</html>"))
    dom = opened(used)
    assert visible(dom, "forward") == {"w0", "x0"} and not visible(dom, "backward")
    assert "2 of 26: value of x0" in dom and "multiply(w1, x1)" in told(dom)


@needs_browser
def test_no_request_leaves_a_page(page: Path, tmp_path: Path) -> None:
    """Even markup that asks for one is refused, by the page's own policy."""
    bad = tmp_path / "bad.html"
    asks = "<img src='https://example.invalid/a.png'>"
    bad.write_text(page.read_text().replace("</html>", f"{asks}</html>"))
    with pytest.raises(AssertionError, match="Content Security Policy"):
        opened(bad)


def told(dom: str) -> str:
    """Return what the page says about the gate that is chosen."""
    (about,) = re.findall(r"<details[^>]* open[^>]*>(.*?)</details>", dom, re.DOTALL)
    return about


@needs_browser
def test_a_gate_tells_what_it_does(page: Path) -> None:
    dom = opened(page, "#26,reciprocal")
    assert re.search(r'<g class="gate chosen" data-gate="reciprocal"', dom)
    about = re.sub("<[^>]*>", " ", told(dom))
    assert re.search(r"add_2 +1.368 +-0.5344 +1 +-0.5344", about), about
    assert "Written at test_graph_page.py:" in about and "d/dx = -1 / x^2" in about
    assert re.search(r"Right: .* backward says .*, finite differences say .* ± ", about)


def test_a_gate_with_two_outputs_shows_both_upstreams() -> None:
    def twice(x):
        once, again = nodes.copy(x)
        return 2 * once + 4 * again

    g = Graph(twice, 3.0)
    g.backward()
    text = g.report(local_gradients=True).render("html")
    row = re.search(r"<td[^>]*>x</td>(.*?)</tr>", text, re.DOTALL)
    assert row is not None
    assert re.sub("(<[^>]*>)+", " ", row[1]).strip() == "3 1 2 and 4 6"


@needs_browser
def test_groups_open_and_close(tmp_path: Path) -> None:
    g = Graph(neuron, 2.0, -1.0, -3.0, -2.0, -3.0)
    g.group(["negate", "exp", "add_2", "reciprocal"], name="sigma").ungroup("reciprocal")
    g.backward()
    g.draw(tmp_path / "groups.html")
    hand = "<script>document.querySelector('[data-groups]').click()</script></html>"
    used = tmp_path / "used.html"
    used.write_text((tmp_path / "groups.html").read_text().replace("</html>", hand))
    dom = opened(used)
    before, after = re.findall(r'<div class="gl-form"([^>]*)>', dom)
    assert "hidden" in before and "hidden" not in after
    assert '<g class="gate group' in dom and "A group of 4 nodes." in dom


@needs_browser
def test_a_wrong_gate_is_seen_and_told(tmp_path: Path) -> None:
    class Wrong(registry()["tanh"]):
        def backward(self, upstream, residuals):
            return tuple(2 * g for g in super().backward(upstream, residuals))

    g = Graph(lambda x: Wrong()(x).sum(), np.linspace(-1, 1, 12).reshape(3, 4))
    g.backward()
    g.draw(tmp_path / "wrong.html")
    dom = opened(tmp_path / "wrong.html", "#4,wrong")
    assert 'class="gate odd chosen" data-gate="wrong"' in dom
    assert "WRONG: along a random direction" in told(dom)
    assert "diagonal: out[i, j] depends on" in dom
    assert dom.count("heat map of the value, 3 x 4 cells") == 2, "a phone gets shapes"


@needs_browser
def test_names_do_not_become_markup(page: Path) -> None:
    dom = opened(page, "#26,%3Cb%3Ee%3C%2Fb%3E")
    body = re.sub(r"<script.*?</script>", "", dom, flags=re.DOTALL)
    assert "<b>e" not in body and "&lt;b&gt;e&lt;/b&gt; = exp(negate)" in body


@needs_browser
def test_pages_of_all_reports_run_no_markup_of_theirs(reports, tmp_path: Path) -> None:
    for name, report in reports.items():
        path = tmp_path / f"{name.replace(' ', '_')}.html"
        path.write_text(report.render("html"))
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|@import|url\((?!#)| src=", text), name
        if name in ("check wrong", "jacobian", "graph odd"):  # a kind of page each
            assert "<script>alert" not in opened(path), name


def test_the_letters_of_a_page_are_large_enough_to_read():
    """In a column of 1,024 pixels a wider picture would have letters of less than 7.5 pixels."""
    r = np.random.default_rng(0)
    x, v, w = (r.normal(size=shape) for shape in ((4, 3), (3, 5), (5, 2)))
    g = Graph(lambda x, v, w: (np.maximum(x @ v, 0) @ w).sum(), x, v, w)
    g.backward()
    page = g.report(local_gradients=True, heat_maps=True).render("html")
    for width in re.findall(r'viewBox="0 0 ([\d.]+)', page):
        assert 10 * min(1.0, 1024 / float(width)) >= 7.5
