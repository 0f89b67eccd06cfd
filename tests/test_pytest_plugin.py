"""The pytest plugin as its user meets it: each test runs an inner pytest."""

import importlib
import json
import os
import pkgutil
import subprocess
import sys
import xml.etree.ElementTree as ET

import jax
import pytest
import scipy.sparse.csgraph  # noqa: F401  (nor SciPy)

import gradlab
from gradlab.pytest_plugin import reseed

# An inner run in this process forgets the modules that it loads; a second copy of one is another.
for _module in pkgutil.walk_packages(gradlab.__path__, "gradlab."):
    if not _module.name.endswith("__main__"):
        importlib.import_module(_module.name)

LAYERS = """
    import jax, jax.numpy as jnp, numpy as np, pytest

    X = np.array([0.5, 2.0, -1.0])

    def right(x):
        return np.tanh(x)

    def right_backward(upstream, x):
        return upstream * (1 - np.tanh(x) ** 2)

    def wrong_backward(upstream, x):
        return 2 * upstream * (1 - np.tanh(x) ** 2)

    @jax.custom_vjp
    def layer(x):
        return jnp.tanh(x)

    def wrong_rule(y, g):
        return (-g * (1 - y * y),)

    layer.defvjp(lambda x: (jnp.tanh(x), jnp.tanh(x)), wrong_rule)
"""


ALONE = ("-p", "no:randomly")  # it would shuffle the inner tests, seed them, and load NumPy


def run(pytester, tests, *arguments):
    import textwrap

    text = textwrap.dedent(LAYERS) + textwrap.dedent(tests)
    pytester.makepyfile(test_layers=text)
    reseed(0)  # an inner run shares this process, and what pytest-randomly told the outer one
    return pytester.runpytest_inprocess(*ALONE, *arguments)


def test_a_right_gradient_passes_and_is_summed_up(pytester):
    result = run(
        pytester,
        """
        def test_right(gradcheck):
            report = gradcheck(right, X, backward=right_backward)
            assert report.ok
        """,
    )
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        ["*gradlab*", "1 test uses gradlab: 1 passed, 0 failed. Evidence of the 1: 1 proved"]
    )


def test_a_wrong_gradient_fails_with_entry_numbers_diagnosis_and_command(pytester):
    result = run(
        pytester,
        """
        def test_wrong(gradcheck):
            gradcheck(right, X, backward=wrong_backward)
        """,
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*the gradient* WRONG*",
            "*the factor `2` should not be there*",
            "*x *3 of 3 entries are wrong. Worst: x[[]*[]] is *, expected *",
            "*repeat  pytest test_layers.py::test_wrong --gradlab-seed=0*",
            "1 test uses gradlab: 0 passed, 1 failed",
            "  WRONG *test_layers.py::test_wrong *test_layers.py:12  GL102, with a fix",
            "again: pytest --last-failed --gradlab-seed=0",
        ]
    )
    text = result.stdout.str()
    assert "gradlab/_pytest_checks.py" not in text, "gradlab's own frames are hidden"
    report = [line for line in text.splitlines() if line.startswith("E ")][1:]
    assert max(len(line) for line in report if "  or  " not in line) <= 100 + len("E       ")


def test_a_failure_can_be_repeated_from_the_command_line(pytester):
    result = run(
        pytester,
        """
        def test_rule(gradcheck):
            gradcheck(layer, X)
        """,
    )
    result.stdout.fnmatch_lines(["*gradlab check test_layers:layer --inputs *.npz --seed 0*"])
    saved = list(pytester.path.glob(".pytest_cache/d/gradlab/*.npz"))
    assert len(saved) == 1


def test_audit_and_jacobian_fixtures(pytester):
    result = run(
        pytester,
        """
        def test_audit(gradaudit):
            gradaudit(lambda x: layer(x).sum(), X)

        def test_elementwise(jacobian):
            jacobian(jnp.tanh, X).assert_elementwise().assert_structure("diagonal")
            assert jacobian(jnp.tanh, X).structure == "diagonal"

        def test_no_future(jacobian):
            jacobian(jnp.cumsum, X).assert_causal(0)

        def test_mixes(jacobian):
            jacobian(jax.nn.softmax, X).assert_independent(0)
        """,
    )
    result.assert_outcomes(passed=2, failed=2)
    assert "claims.py" not in result.stdout.str(), "gradlab's own frames are hidden"
    result.stdout.fnmatch_lines(
        [
            "*repeat  pytest test_layers.py::test_audit --gradlab-seed=0*",
            "*couples axis 0 of x*",
            "4 tests use gradlab: 2 passed, 2 failed. Evidence of the 2: 2 proved",
            "  WRONG *test_layers.py::test_mixes *couples axis 0 of x",
        ]
    )


def test_a_failed_claim_is_one_record_and_a_gradient_without_a_fix_has_its_code(pytester):
    result = run(
        pytester,
        """
        def test_mixes(jacobian):
            jacobian(jax.nn.softmax, X).assert_independent(0)

        def test_odd(gradcheck):
            odd = jax.custom_vjp(lambda x: jnp.sin(x) * jnp.exp(x))
            made = lambda x: (jnp.sin(x) * jnp.exp(x), x)
            odd.defvjp(made, lambda x, g: (g * jnp.tanh(x + 3.7) * jnp.arctan(x),))
            gradcheck(odd, X)
        """,
        "--gradlab-report=out.json",
    )
    records = json.loads((pytester.path / "out.json").read_text())["records"]
    assert [(r["kind"], r["ok"]) for r in records] == [("structure", False), ("check", False)]
    result.stdout.fnmatch_lines(["  WRONG *::test_odd *GL900, no fix was found"])


def test_fixtures_work_under_hypothesis(pytester):
    result = run(
        pytester,
        """
        from hypothesis import given, settings
        from gradlab import strategies

        @settings(max_examples=5, deadline=None)
        @given(strategies.arrays((3,)))
        def test_right(gradcheck, x):
            gradcheck(right, x, backward=right_backward)
        """,
    )
    result.assert_outcomes(passed=1)


def test_an_unknown_keyword_of_the_mark_is_refused(pytester):
    result = run(
        pytester,
        """
        @pytest.mark.gradcheck(sede=3)
        def test_right(gradcheck):
            gradcheck(right, X, backward=right_backward)
        """,
        "--strict-markers",
    )
    result.stdout.fnmatch_lines(["*unknown keyword 'sede'; the valid keywords are *seed*"])


SEED = """
    @pytest.mark.gradcheck(seed=5)
    def test_seed(gradcheck):
        print("seed", gradcheck(right, X, backward=right_backward).seed)

    def test_plain(gradcheck):
        print("plain", gradcheck(right, X, backward=right_backward).seed)
"""


@pytest.mark.parametrize(
    ("ini", "arguments", "expected"),
    [
        ("", (), ("seed 5", "plain 0")),
        ("[pytest]\ngradlab_seed = 7", (), ("seed 5", "plain 7")),
        ("[pytest]\ngradlab_seed = 7", ("--gradlab-seed=9",), ("seed 9", "plain 9")),
    ],
    ids=["default", "ini", "command line"],
)
def test_command_line_beats_mark_beats_ini(pytester, ini, arguments, expected):
    pytester.makefile(".ini", pytest=ini)
    result = run(pytester, SEED, "-s", *arguments)
    result.stdout.fnmatch_lines([f"*{line}*" for line in expected])


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--gradlab-seed=three", "*'three' came, expected a whole number*"),
        ("--gradlab-device=abacus", "*'abacus' came, expected one of cpu, gpu, all*"),
    ],
)
def test_an_option_that_cannot_be_read_is_a_usage_error(pytester, argument, message):
    result = run(pytester, "def test_nothing(): pass", argument)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([message])


def test_a_device_that_is_missing_skips_with_a_reason(pytester):
    result = run(
        pytester,
        """
        def test_right(gradcheck):
            gradcheck(right, X, backward=right_backward)
        """,
        "--gradlab-device=gpu",
        "-rs",
    )
    if not result.parseoutcomes().get("passed"):
        result.assert_outcomes(skipped=1)
        result.stdout.fnmatch_lines(["*JAX sees no GPU here*"])


def test_reports_and_junit_properties(pytester):
    tests = """
        def test_right(gradcheck):
            gradcheck(right, X, backward=right_backward)
        """
    result = run(pytester, tests, "--gradlab-report=out.json", "--junitxml=junit.xml")
    result.assert_outcomes(passed=1)
    import json

    records = json.loads((pytester.path / "out.json").read_text())["records"]
    assert records[0]["function"] == "right"
    assert records[0]["ok"]
    properties = ET.parse(pytester.path / "junit.xml").iter("property")
    assert any(p.get("name") == "gradlab" for p in properties)


def test_a_report_of_nothing_is_said_to_be_missing(pytester):
    result = run(pytester, "def test_nothing(): pass", "--gradlab-report=out.html")
    result.stdout.fnmatch_lines(["no test used gradlab, so out.html was not written: *gradcheck*"])
    assert not (pytester.path / "out.html").exists()


def test_page_and_terminal_count_the_same_tests(pytester):
    tests = """
        def test_right(gradcheck, jacobian):
            gradcheck(right, X, backward=right_backward)
            jacobian(right, X)
            jacobian(right, X)
        """
    result = run(pytester, tests, "--gradlab-report=new/out.html")
    said = "1 test uses gradlab: 1 passed, 0 failed", "Evidence of the 1: 1 "
    result.stdout.fnmatch_lines([f"{said[0]}. {said[1]}*"])
    page = (pytester.path / "new" / "out.html").read_text()
    assert said[0] in page and said[1] in page


def test_the_fixtures_are_documented(pytester):
    result = pytester.runpytest_inprocess("--fixtures")
    result.stdout.fnmatch_lines(["*gradcheck*session scope*", "*Assert that a gradient is right*"])


def python_pytest(pytester, *arguments, alone=False):
    """Run pytest in a process of its own; `alone` leaves out the plugins that are installed."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    environment = {**os.environ, **({"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} if alone else {})}
    return subprocess.run(
        command, cwd=pytester.path, env=environment, capture_output=True, text=True, timeout=300
    )


def test_a_run_that_uses_no_fixture_loads_neither_jax_nor_numpy(pytester):
    pytester.makepyfile(
        """
        import sys

        def test_light():
            assert "gradlab.pytest_plugin" in sys.modules
            assert not {"jax", "numpy", "scipy", "rich"} & set(sys.modules)
        """
    )
    done = python_pytest(pytester, "-p", "gradlab.pytest_plugin", alone=True)
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    assert "gradlab" not in done.stdout.replace(str(pytester.path), "").split("plugins:")[-1][60:]


def test_workers_of_xdist_report_the_same(pytester):
    pytest.importorskip("xdist")
    import textwrap

    tests = """
        @pytest.mark.parametrize("n", range(4))
        def test_right(gradcheck, n):
            gradcheck(right, X, backward=right_backward)
        """
    pytester.makepyfile(test_layers=textwrap.dedent(LAYERS) + textwrap.dedent(tests))
    done = python_pytest(pytester, "-n", "2")
    assert "4 tests use gradlab: 4 passed, 0 failed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("worker", "asked", "found"),
    [
        (None, "gpu", ("gpu:0",)),
        ("gw0", "gpu", ("gpu:0",)),
        ("gw3", "gpu", ("gpu:1",)),
        ("gw1", "all", ("cpu", "gpu:1")),
        ("gw1", "cpu", ("cpu",)),
        ("gw1", None, (None,)),
    ],
)
def test_each_worker_takes_a_gpu_of_its_own(monkeypatch, worker, asked, found):
    from gradlab._pytest_checks import _devices

    monkeypatch.setattr(jax, "devices", lambda platform: ["one", "another"])
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    if worker is not None:
        monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
    assert _devices(asked) == found


def test_the_plugin_can_be_switched_off(pytester):
    pytester.makepyfile("def test_plain(request): assert 'gradcheck' not in dir(request)")
    done = python_pytest(pytester, "-p", "no:gradlab.pytest_plugin")
    assert "1 passed" in done.stdout, done.stdout + done.stderr
