"""What every test run of this repository shares."""

import gc
import os
from collections import Counter
from importlib.metadata import version

import pytest
from hypothesis import settings

import gradlab.nodes  # noqa: F401  (else pytest loads a file of it a second time)

# Listed although its entry point loads it too, so that a checkout that is not installed has it.
pytest_plugins = ["gradlab.pytest_plugin", "pytester"]

settings.register_profile("slow", deadline=None, print_blob=True)
settings.register_profile("gradlab", settings.get_profile("slow"), max_examples=40)
settings.load_profile("gradlab")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Prepare what costs a run most: who runs what, what compiles, and what is collected."""
    if getattr(config.option, "numprocesses", None) and config.option.dist == "no":
        config.option.dist = "worksteal"  # a file stays with one worker: it is prepared once
    if config.getoption("--slow"):  # which compiles as for users, too
        settings.load_profile("slow")
    else:
        quick = ["--xla_backend_optimization_level=0", "--xla_cpu_parallel_codegen_split_count=1"]
        if version("jaxlib") < "0.11":
            quick.append("--xla_cpu_use_fusion_emitters=false")
        os.environ.setdefault("XLA_FLAGS", " ".join(quick))  # programs run once: half the time
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # processes need not compile gradlab again


def pytest_collection_finish(session: pytest.Session) -> None:
    gc.collect()
    gc.freeze()  # modules and tests outlive the run
    gc.set_threshold(20_000, 20, 20)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests that take minutes too")
    parser.addoption("--on-gpu", action="store_true", help="run on the GPU what needs none")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    met = Counter[str]()  # cases of each test
    kept = [item for item in items if _is_quick(item, met)]
    slow = set(items) - set(kept)
    if slow:
        config.hook.pytest_deselected(items=[item for item in items if item in slow])
        items[:] = kept


def _is_quick(item: pytest.Item, met: Counter[str]) -> bool:
    """Whether a case runs without --slow: `one_in(n)` runs the first of each n of its test."""
    test = item.nodeid.partition("[")[0]
    met[test] += 1
    every = item.get_closest_marker("one_in")
    sampled = every is None or (met[test] - 1) % every.args[0] == 0
    return sampled and not item.get_closest_marker("slow")
