"""The page of a graph in a real browser: stepping works, nothing leaves it, names stay text."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from gradlab import Graph
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
    groups = re.findall(rf'<g class="{way}( now)?( hidden)?(?: now)?" data-wire="([^"]*)"', dom)
    return {wire for _, hidden, wire in groups if not hidden}


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


@needs_browser
def test_buttons_keys_and_clicks(page: Path, tmp_path: Path) -> None:
    hand = """<script>
        const press = id => document.getElementById(id).click();
        const key = name => document.dispatchEvent(new KeyboardEvent("keydown", {key: name}));
        press("first"); press("on"); press("on"); key("ArrowRight"); key("ArrowLeft");
        document.querySelector("g.gate[data-gate=multiply_1]").dispatchEvent(new Event("click"));
    </script>"""
    used = tmp_path / "used.html"
    used.write_text(page.read_text().replace("</html>", f"{hand}</html>"))
    dom = opened(used)
    assert visible(dom, "forward") == {"w0", "x0"} and not visible(dom, "backward")
    assert "2 of 26: value of x0" in dom and "multiply(w1, x1)" in dom


@needs_browser
def test_no_request_leaves_a_page(page: Path, tmp_path: Path) -> None:
    """Even markup that asks for one is refused, by the page's own policy."""
    bad = tmp_path / "bad.html"
    asks = "<img src='https://example.invalid/a.png'>"
    bad.write_text(page.read_text().replace("</html>", f"{asks}</html>"))
    with pytest.raises(AssertionError, match="Content Security Policy"):
        opened(bad)


@needs_browser
def test_a_gate_tells_what_it_does(page: Path) -> None:
    dom = opened(page, "#26,reciprocal")
    assert re.search(r'<g class="gate chosen" data-gate="reciprocal"', dom)
    about = re.search(r'<dl id="about"[^>]*>(.*?)</dl>', dom, re.DOTALL)[1]
    told = dict(re.findall(r"<dt>(.*?)</dt><dd.*?>(.*?)</dd>", about))
    assert told["node"] == "Reciprocal()" and told["written at"].startswith("test_graph_page.py:")
    assert told["local gradient in add_2"] == "-0.5344"
    assert re.match(r"right: .* backward says .*, finite differences say .* ± ", told["check"])


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
    assert '<dd class="wrong">WRONG: along a random direction' in dom
    assert "diagonal: out[i, j] &lt;- in[i, j]" in dom
    assert dom.count("heat map of the value, 3 x 4 cells") == 2


@needs_browser
def test_names_do_not_become_markup(page: Path) -> None:
    dom = opened(page, "#26,%3Cb%3Ee%3C%2Fb%3E")
    body = re.sub(r"<script.*?</script>", "", dom, flags=re.DOTALL)
    assert "<b>" not in body and "&lt;b&gt;e&lt;/b&gt; = exp(negate)" in body


@needs_browser
def test_pages_of_all_reports_run_no_markup_of_theirs(reports, tmp_path: Path) -> None:
    for name, report in reports.items():
        path = tmp_path / f"{name.replace(' ', '_')}.html"
        path.write_text(report.render("html"))
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|@import|url\((?!#)| src=", text), name
        if name in ("check wrong", "jacobian", "graph odd"):  # a kind of page each
            dom = re.sub(r"<script type=.*?</script>", "", opened(path), flags=re.DOTALL)
            assert "<script>alert" not in dom, name
