"""The layout tells the architecture: imports run downwards, and doors are light."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "gradlab"
ROOMS = (
    ("errors", "formatting", "files", "progress", "arguments", "_codes"),
    ("report",),
    ("common",),
    ("patterns",),
    ("primitives",),
    ("tracing",),
    ("references", "reading"),
    ("proof",),
    ("repair",),
    ("operators",),
    ("nodes",),
    ("graph",),
    ("structure",),
    ("checking",),
    ("numerics",),
    ("reporting",),
    (
        "strategies",
        "_targets",
        "_working",
        "_commands",
        "_pytest_session",
        "_pytest_checks",
        "_pytest_mutation",
        "pytest_plugin",
        "cli",
        "__main__",
        "__init__",
    ),
)
LEVEL = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}


@functools.cache
def trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}


def room_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports_of(tree: ast.AST) -> set[str]:
    """Every module that is imported for real; what only a type checker reads does not count."""
    found, rest = set(), [tree]
    while rest:
        node = rest.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            rest += node.orelse
        elif not isinstance(node, ast.expr):
            rest += ast.iter_child_nodes(node)
    return found


@functools.cache
def imports() -> dict[Path, set[str]]:
    return {path: imports_of(tree) for path, tree in trees().items()}


def test_imports_run_downwards() -> None:
    for path, modules in imports().items():
        here = LEVEL[room_of(path)]
        for module in modules:
            parts = module.split(".")
            if parts[0] == "gradlab" and len(parts) > 1 and parts[1] in LEVEL:
                assert LEVEL[parts[1]] <= here, f"{path} imports {module}, which lies above it"


def test_files_say_what_they_are_for() -> None:
    for path, tree in trees().items():
        assert ast.get_docstring(tree), f"{path}: a module says what it is for"


def test_only_tracing_touches_what_jax_does_not_promise() -> None:
    for path, modules in imports().items():
        if path.name != "kernels.py":  # Pallas' interpreter is nowhere else, and may be missing
            assert not any(m.startswith("jax._src") for m in modules), path
        if room_of(path) != "tracing":
            unsure = ("jax.extend", "jax.interpreters")
            assert not any(m.startswith(unsure) for m in modules), path


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [("patterns", "jax"), ("reporting", "jax"), ("cli", "numpy")],
)
def test_rooms_stay_light(room: str, forbidden: str) -> None:
    for path, modules in imports().items():
        if room_of(path) == room:
            assert not any(m.split(".")[0] == forbidden for m in modules), path.name


def test_nothing_sets_global_state_of_jax() -> None:
    assert not [path for path in trees() if "config.update" in path.read_text()]


def test_importing_gradlab_loads_neither_jax_nor_numpy() -> None:
    code = "import sys, gradlab; print({'jax', 'numpy', 'scipy', 'pytest'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
