"""Pages are made of the JSON alone, lose nothing without a script, and fit a phone."""

import json
import re
import shutil
import subprocess
from importlib import resources

import pytest

from gradlab.reporting import fragment, page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), "")


@pytest.fixture(scope="module")
def pages(reports, session):
    """Every kind of page, made of nothing but what JSON holds."""
    made = {name: json.loads(report.render("json")) for name, report in reports.items()}
    return {**made, "session": session}


@pytest.fixture(scope="module")
def session(reports):
    wrong = reports["check wrong"]
    seen = {
        "kind": "check",
        "function": "f",
        "seconds": 0.1,
        "seed": 0,
        "repeat": "pytest test_f.py",
    }
    seen |= {"nearest": None, "line": "f.py:3", "code": "GL102", "fixed": False, "text": ""}
    bad = {"test": "test_f.py::test_bad", "outcome": "failed", "ok": False, "status": "wrong"}
    good = {"test": "test_f.py::test_good", "outcome": "passed", "ok": True, "status": "right"}
    records = [
        {**seen, **good, "grade": "every branch", "report": None},
        {**seen, **bad, "grade": None, "report": json.loads(wrong.render("json"))},
    ]
    return {"schema": "gradlab.session/2", "records": records}


def words(markup):
    shown = re.sub(r"<(style|script).*?</\1>", "", markup, flags=re.DOTALL)
    return " ".join(re.sub("<[^>]*>", " ", shown).split())


def test_a_page_is_made_of_the_json_alone(reports, pages):
    for name, report in reports.items():
        assert page(pages[name]) == report.render("html"), name


def test_a_notebook_gets_the_same_without_a_script(pages):
    for name, data in pages.items():
        part = fragment(data)
        assert part.startswith("<div class='gradlab'>") and part.endswith("</div>"), name
        assert not re.search(r"<(!doctype|html|body|script)|\son\w+=", part), name
        classes = {each for named in re.findall('class="([^"]*)"', part) for each in named.split()}
        assert all(each.startswith(("gl-", "gradlab-")) for each in classes), name
        assert words(part) == words(page(data)).removeprefix(f"gradlab {data['schema'][8:-2]} "), (
            name
        )


def test_a_check_says_word_entry_numbers_and_repeat(reports, pages):
    report = reports["check wrong"]
    said = words(page(pages["check wrong"]))
    worst, cell = report.worst, report.maps["x"].cells[0]
    assert "WRONG" in said and f"x[{worst.index[0]}]" in said and "Repeat this check" in said
    assert f"{worst.actual:.8g}" in said and f"{worst.expected:.8g}" in said
    assert cell.state == "wrong" and cell.relative == pytest.approx(1.0)  # the rule has a factor 2
    assert page(pages["check wrong"]).count('title="x[') == 3, "each entry tells its numbers"


def test_a_right_check_says_how_far_it_reaches(pages):
    assert "Proved as a formula, for every input of this shape" in words(page(pages["check"]))


def test_an_audit_says_how_it_is_repeated(pages):
    assert "Repeat this audit gradlab.audit(" in words(page(pages["audit"]))


def test_where_zero_is_expected_no_ratio_is_told():
    import jax
    import jax.numpy as jnp

    import gradlab

    through = jax.custom_vjp(lambda x: jnp.round(x))
    through.defvjp(lambda x: (jnp.round(x), None), lambda _, g: (g,))
    said = words(gradlab.check(through, jnp.linspace(-1.0, 1.0, 6)).render("html"))
    assert "the right value is 0 " in said and "relative inf" not in said
    assert "off by a relative" not in said and "0.0e0" not in said


def test_an_undecided_entry_has_not_the_colour_of_the_worst_error():
    import jax
    import jax.numpy as jnp
    import numpy as np

    import gradlab

    def hidden(x):  # no slope can be measured in so few digits
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return jax.pure_callback(lambda x: np.asarray(np.tanh(x) * 1e-5, np.float16), shape, x)

    rule = jax.custom_vjp(hidden)
    rule.defvjp(lambda x: (hidden(x), x), lambda x, g: (g * (1e-5 * (1 - jnp.tanh(x) ** 2)),))
    report = gradlab.check(rule, jnp.asarray([2.0, 3.0, 5.0], jnp.float16))
    text = report.render("html")
    assert {cell.state for cell in report.maps["x"].cells} == {"undecided"}
    assert re.findall(r'<i class="gl-h(\d)[^>]*title=', text) == ["9"] * 3
    assert "more than 1 undecided" in words(text)


def test_what_needs_the_script_is_not_told_without_it(pages):
    for name in ("check wrong", "graph"):
        part = fragment(pages[name])
        for keys in re.finditer("arrow keys|arrow step", part):
            assert 'gl-tool"' in part[: keys.start()].rpartition("<")[2], name


def test_a_session_shows_failures_first(session):
    said = words(page(session))
    assert said.index("test_bad") < said.index("test_good")
    assert "2 tests use gradlab: 1 passed, 1 failed" in said and "every branch" in said


def test_a_diagonal_is_shown_beside_the_whole_matrix():
    import jax.numpy as jnp

    import gradlab

    report = gradlab.jacobian(jnp.tanh, jnp.ones((3, 50))).report
    data = json.loads(report.render("json"))
    (block,) = data["blocks"]
    first = block["levels"][0]
    assert (first["height"], first["width"]) == (2, 2) and first["cells"][0][0] == "1"
    assert sum(row.count("1") for row in first["cells"]) == len(first["cells"]) == 75
    said = words(page(data))
    assert "upstream * d = backward" in said and "22,500 products" in said


def _luminance(colour):
    digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_has_contrast_in_light_and_dark():
    """WCAG 2.2: the contrast of text is (L1 + 0.05) / (L2 + 0.05), and at least 4.5."""
    style = re.sub(r"\s", "", (resources.files("gradlab.reporting") / "page.css").read_text())
    dark = style.index("prefers-color-scheme:dark")
    for part in (style[:dark], style[dark : style.index("*{box-sizing")]):
        named = dict(re.findall(r"--(\w+):(#[0-9a-f]+)", part))
        for ink in ("ink", "soft", "bad", "good", "warn", "open", "link"):
            for paper in ("paper", "card", "code", *(("hit", "add") if ink == "ink" else ())):
                low, high = sorted(_luminance(named[each]) for each in (ink, paper))
                assert (high + 0.05) / (low + 0.05) >= 4.5, (ink, paper)


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")
def test_no_page_is_wider_than_a_phone_and_no_script_fails(pages, tmp_path):
    frames = []
    for number, data in enumerate(pages.values()):
        (tmp_path / f"{number}.html").write_text(page(data))
        frames.append(f"<iframe src='{number}.html' scrolling='no' style='width:390px'></iframe>")
    measure = (
        "<script>addEventListener('load', () => { document.title = [...document.querySelectorAll("
        "'iframe')].map(f => f.contentDocument.documentElement.scrollWidth).join(' '); })</script>"
    )
    (tmp_path / "all.html").write_text("".join(frames) + measure)
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
    more = ("--allow-file-access-from-files", "--virtual-time-budget=4000", "--dump-dom")
    command = [CHROMIUM, *flags, *more, "--enable-logging=stderr", f"file://{tmp_path}/all.html"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr, done.stderr
    (title,) = re.findall("<title>([0-9 ]+)</title>", done.stdout)
    widths = dict(zip(pages, map(int, title.split())))
    assert len(widths) == len(pages) and set(widths.values()) == {390}, widths


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")
def test_where_the_clipboard_is_closed_the_command_is_selected(pages, tmp_path):
    made = page(pages["check wrong"])
    press = (
        "<script>navigator.clipboard.writeText = () => Promise.reject(new Error('closed'));"
        "document.querySelector('.gl-copy').click()</script>"
    )
    (tmp_path / "page.html").write_text(made + press)
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
    more = ("--virtual-time-budget=2000", "--dump-dom", "--enable-logging=stderr")
    command = [CHROMIUM, *flags, *more, f"file://{tmp_path}/page.html"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr, done.stderr
    assert ">Press Ctrl+C</button>" in done.stdout
