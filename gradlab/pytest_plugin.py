"""The pytest plugin: fixtures that assert gradients, a mark, options and a summary.

    def test_my_layer(gradcheck):
        gradcheck(my_layer, x, w)

Loading this file imports neither JAX nor NumPy: who uses no gradlab pays nothing for it.
The fixtures are session-scoped, so that they may be used under Hypothesis's `@given`; they know the
running test all the same.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from gradlab._pytest_checks import Gradaudit, Gradcheck, JacobianInspector
from gradlab._pytest_mutation import Mutation
from gradlab._pytest_session import OPTIONS, Session, reseed, setting

if TYPE_CHECKING:
    from gradlab.checking.report import AuditReport, CheckReport
    from gradlab.structure import Jacobian

__all__ = ["gradaudit", "gradcheck", "jacobian", "reseed"]

# --- options and marks ------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--gradlab-NAME` and its ini twin `gradlab_NAME`."""
    group = parser.getgroup("gradlab", "gradient checks")
    for name, (_, _, help) in OPTIONS.items():
        group.addoption(f"--gradlab-{name}", metavar=name.upper(), default=None, help=help)
        parser.addini(f"gradlab_{name}", help, default="")
    group.addoption(
        "--gradlab-mutate",
        action="append",
        default=[],
        metavar="MODULE:FUNCTION",
        help="put mistakes into FUNCTION, one at a time: would the tests notice? (repeatable)",
    )
    group.addoption(
        "--gradlab-mutate-min",
        type=float,
        metavar="PERCENT",
        help="fail where fewer of the mistakes are noticed",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark, and what this session does."""
    config.addinivalue_line(
        "markers",
        "gradcheck(seed, samples, dtypes, device, ...): options of gradlab's checks in this test; "
        "any keyword of gradlab.check",
    )
    for name in OPTIONS:
        setting(config, None, name)  # a value that cannot be read stops the session at once
    session = Session(config)
    config.pluginmanager.register(session, "gradlab.session")
    if config.getoption("--gradlab-mutate") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Mutation(config, session), "gradlab.mutation")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Refuse a mark that says something unknown."""
    for mark in item.iter_markers("gradcheck"):
        known = _check_keywords()
        unknown = sorted(set(mark.kwargs) - set(known))
        if unknown or mark.args:
            what = f"unknown keyword {unknown[0]!r}" if unknown else "positional arguments"
            pytest.fail(
                f"@pytest.mark.gradcheck: {what}; the valid keywords are {', '.join(known)}",
                pytrace=False,
            )


def _check_keywords() -> tuple[str, ...]:
    import inspect

    import gradlab

    parameters = inspect.signature(gradlab.check).parameters.values()
    return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)


# --- the fixtures -----------------------------------------------------------------------------


@pytest.fixture(scope="session")
def gradcheck(request: pytest.FixtureRequest) -> Callable[..., "CheckReport"]:
    """Assert that a gradient is right: `gradcheck(function, *inputs, **options)`.

    Takes what `gradlab.check` takes, returns its report, and fails the test with the wrong entry,
    both numbers and a diagnosis. Options that a call leaves out come from the command line
    (`--gradlab-seed`, ...), the mark `@pytest.mark.gradcheck(...)` and the ini file, in this order.

    Raises:
        GradientMismatch: a law failed.
        GradientUndecided: no law failed, but some input's gradient could not be judged.
        GradlabError: the call was wrong.

    Example:
        def test_my_layer(gradcheck):
            gradcheck(my_layer, x, w)                       # a jax.custom_vjp inside
            gradcheck(forward, x, w, backward=backward)     # written by hand, NumPy or JAX
    """
    return Gradcheck(_session(request))


@pytest.fixture(scope="session")
def gradaudit(request: pytest.FixtureRequest) -> Callable[..., "AuditReport"]:
    """Assert that every custom rule inside a model is right: `gradaudit(model, *inputs)`.

    Takes what `gradlab.audit` takes, and returns its report.

    Raises:
        GradientMismatch: a rule is wrong, or could not be judged.
        GradlabError: the call was wrong.

    Example:
        def test_all_rules(gradaudit):
            gradaudit(transformer_block, x, params)
    """
    return Gradaudit(_session(request))


@pytest.fixture(scope="session")
def jacobian(request: pytest.FixtureRequest) -> Callable[..., "Jacobian"]:
    """Assert the structure of a Jacobian: `jacobian(function, *inputs).assert_causal(1)`.

    Takes what `gradlab.jacobian` takes. What it returns has its report's properties too.

    Raises:
        StructureMismatch: what was asserted is wrong, or cannot be proved.
        GradlabError: the call was wrong.

    Example:
        def test_no_leak(jacobian):
            jacobian(block, x).assert_independent(0)        # batches do not leak
            jacobian(block, x).assert_causal(1)             # nor the future
            jacobian(jax.nn.gelu, x).assert_elementwise()
            jacobian(jax.nn.gelu, x).assert_structure("diagonal")
    """
    return JacobianInspector(_session(request))


def _session(request: pytest.FixtureRequest) -> Session:
    session = request.config.pluginmanager.get_plugin("gradlab.session")
    assert isinstance(session, Session)  # registered by `pytest_configure`
    return session
