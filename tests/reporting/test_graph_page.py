"""The page of a graph in a real browser: stepping works, nothing leaves it, names stay text."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from gradlab import Graph

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
def test_a_gate_tells_what_it_does(page: Path) -> None:
    dom = opened(page, "#26,reciprocal")
    assert re.search(r'<g class="gate chosen" data-gate="reciprocal"', dom)
    about = re.search(r'<div id="about"[^>]*>(.*?)</div>', dom, re.DOTALL)[1]
    assert "Reciprocal()" in about and "written at test_graph_page.py:" in about
    assert "local gradient in add_2: -0.5344" in about


@needs_browser
def test_names_do_not_become_markup(page: Path) -> None:
    dom = opened(page, "#26,%3Cb%3Ee%3C%2Fb%3E")
    body = re.sub(r"<script.*?</script>", "", dom, flags=re.DOTALL)
    assert "<b>" not in body and "&lt;b&gt;e&lt;/b&gt; = exp(negate)" in body
