"""A world of copies, in which a user's functions run changed, and nothing of the user's is touched.

Every function written in the user's modules is rebuilt over copied globals, closures and classes.
An edit exchanges the code of a rebuilt function, so that whoever calls it sees the edit. Copies
count the lines that they run, so that a candidate that runs away is stopped.
"""

import abc
import ast
import builtins
import contextlib
import dis
import functools
import inspect
import itertools
import random
import sys
import sysconfig
import types
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, NamedTuple, cast

import jax
import numpy as np
from jax import tree_util

from gradlab.common.arrays import Function, Tree
from gradlab.repair.source import Text, inside, read
from gradlab.repair.standin import function_of, numbers, numpy_module, stand_in

_LIBRARIES = tuple(
    {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)
_GRADLAB = str(Path(__file__).parent.parent)
Mark = Callable[[ast.FunctionDef], None]
_CODE_NAME = "<gradlab candidate>"
_MANY = 10_000_000  # lines of a function that nobody has measured yet
_HELPERS = 6
_ENTRIES = 8  # of a tuple, a dict or an array that may hold settings


NUMPY = ("numpy", "jax.numpy")
_MATHEMATICS = ("numpy", "jax", "scipy", "math", "gradlab.repair")
BUILTINS = frozenset(
    [
        *("abs", "bool", "complex", "divmod", "enumerate", "float", "int", "isinstance", "len"),
        *("list", "max", "min", "pow", "range", "reversed", "round", "sorted", "sum", "tuple"),
        *("zip", "slice"),
    ]
)
_WRITTEN_IN_PYTHON = 1 << 9  # among the flags of a class
_EFFECTS = ("save", "load", "tofile", "fromfile", "random", "callback", "print", "seed")


def has_effect(name: str) -> bool:
    """Whether a function of this name may do more than mathematics, such as `save` or `random`."""
    return name.startswith(_EFFECTS)


def is_pure(value: Any, within: frozenset[int] = frozenset()) -> bool:
    """Whether calling a value runs mathematics alone: the search calls nothing else by itself."""
    if not isinstance(value, FunctionType) or _is_mathematics(value.__module__):
        kind = type(value)
        owner = value.__name__ if kind is types.ModuleType else getattr(value, "__module__", None)
        plain = isinstance(value, np.ndarray | np.generic | int | float | complex | str | tuple)
        return plain or _is_mathematics(owner) or _is_mathematics(kind.__module__)
    if id(value) in within:
        return True  # it calls itself
    return _calls_mathematics(value, value.__code__, within | {id(value)})


def _calls_mathematics(function: FunctionType, code: CodeType, within: frozenset[int]) -> bool:
    for step in dis.get_instructions(code):
        name = str(step.argval)
        if step.opname in ("IMPORT_NAME", "STORE_GLOBAL") or has_effect(name):
            return False
        if step.opname not in ("LOAD_GLOBAL", "LOAD_NAME") or name.startswith("__"):
            continue
        known = function.__globals__.get(name)
        if name not in BUILTINS and (known is None or not is_pure(known, within)):
            return False
    inner = (each for each in code.co_consts if isinstance(each, CodeType))
    return all(_calls_mathematics(function, each, within) for each in inner)


def _is_mathematics(module: object) -> bool:
    name = module if isinstance(module, str) else ""
    return any(name == each or name.startswith(f"{each}.") for each in _MATHEMATICS)


class Failed(Exception):
    """What the user's code raised, whatever it was, or that it ran away."""


def theirs(function: Function, *arguments: Tree, edited: bool = False) -> Any:
    """Call the user's code. This is the one place that takes whatever it raises.

    What is no `Exception` passes through, unless it may be an edit that raises it.
    """
    try:
        return function(*arguments)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        if not (edited or isinstance(error, Exception)):
            raise
        raise Failed(f"{type(error).__name__}: {error}") from error


def written_by_the_user(path: str) -> bool:
    """Return whether a file is neither of the standard library, nor installed, nor gradlab's."""
    return not path.startswith((*_LIBRARIES, _GRADLAB, "<"))


def is_gradlabs(path: str) -> bool:
    """Return whether a file is gradlab's own; it is never edited, though it may be copied."""
    return path.startswith(_GRADLAB)


class Setting(NamedTuple):
    """A plain number that a function or an object holds, and what puts another in its place."""

    name: str
    value: float
    put: Callable[[float], None]

    @property
    def root(self) -> str:
        """The name that functions read: of `limits[1]` that is `limits`."""
        return self.name.partition("[")[0]


def _entries(value: Any) -> list[tuple[Any, Any]]:
    """Return the first entries of what may hold settings, each with its key."""
    if isinstance(value, tuple):
        return list(enumerate(value[:_ENTRIES]))
    if type(value) is dict:
        return list(itertools.islice(value.items(), _ENTRIES))
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind == "f":
        return list(enumerate(value.tolist())) if value.size <= _ENTRIES else []
    return []


def _with_entry(value: Any, key: Any, entry: Any) -> Any:
    """Return a tuple or an array with another entry; a dict is changed, as others may hold it."""
    if isinstance(value, tuple):
        entries = (*value[:key], entry, *value[key + 1 :])
        return type(value)(*entries) if hasattr(value, "_fields") else entries
    changed = value if isinstance(value, dict) else value.copy()
    changed[key] = entry
    return changed


class World:
    """Copies of the user's functions, and of all that they reach.

    Args:
        owned: says of a file whether its functions are the user's.
        numpy: whether JAX's modules are replaced by their stand-in.
        met: is told of every custom rule that is called, and of its arguments.

    Attributes:
        copies: of each function, by its own code.
        ran: the functions that ran since the last call, by their `place`.
        ever: the functions that ran at any time, by their `place`.
        lines: how many lines they ran.
        limit: how many lines they may run.
        settings: the plain numbers that functions and objects hold.
        differentiated: the functions that no backward calls.
    """

    def __init__(
        self,
        owned: Callable[[str], bool],
        numpy: bool = True,
        met: Callable[[Any, tuple[Any, ...]], None] | None = None,
    ) -> None:
        self.owned, self.numpy, self.met = owned, numpy, met
        self.copies: dict[CodeType, list[FunctionType]] = {}
        self.ran: set[str] = set()
        self.ever: set[str] = set()
        self.lines, self.limit = 0, _MANY
        self.settings: list[Setting] = []
        self.differentiated: Collection[CodeType] = ()
        self._edited = False
        self._memo: dict[int, Any] = {}
        self._kept: list[Any] = []  # so that no identity is used twice
        self._globals: dict[int, dict[str, Any]] = {}
        self._original: dict[int, dict[str, Any]] = {}
        self._around: dict[str, dict[str, list[Any]]] = {}

    def call(self, function: Function, *arguments: Tree) -> Any:
        """Call a copy, and note what ran; raise `Failed` where it raises or runs away."""
        self.lines, self.ran = 0, set()
        return theirs(function, *arguments, edited=self._edited)

    def rest(self) -> None:
        """Count lines anew."""
        self.lines = 0

    def load(self, value: Tree) -> Any:
        """Return the copy of a value in this world."""
        if id(value) in self._memo:
            return self._memo[id(value)]
        self._kept.append(value)
        if isinstance(value, FunctionType) and self.owned(value.__code__.co_filename):
            return self._function(value)
        copied = self._copied(value)
        self._memo[id(value)] = copied
        return copied

    def _copied(self, value: Tree) -> Any:
        inner = _decorated(value)
        if inner is not None and any(functions_of(value)[1:]) and self.met is not None:
            return self._told(value, self.load(inner))
        if inner is not None:
            return self.load(inner)
        if isinstance(value, types.MethodType):
            return types.MethodType(self.load(value.__func__), self.load(value.__self__))
        if isinstance(value, functools.partial):
            keywords = {k: self.load(v) for k, v in value.keywords.items()}
            return functools.partial(self.load(value.func), *map(self.load, value.args), **keywords)
        if isinstance(value, types.ModuleType):
            return self._module(value)
        if isinstance(value, jax.Array):
            return numbers(value) if self.numpy else value
        if isinstance(value, np.ndarray):
            return value.copy()
        if type(value) in (list, tuple):
            return type(value)(map(self.load, value))
        if type(value) is dict:
            return {k: self.load(v) for k, v in value.items()}
        if isinstance(value, type):
            return self._class(value)
        module = getattr(value, "__module__", None) or ""
        if self.numpy and callable(value) and str(module).split(".")[0] == "jax":
            return function_of(value)
        return self._instance(value)

    def _told(self, rule: Any, primal: Function) -> Function:
        def called(*arguments: Tree) -> Any:
            assert self.met is not None
            self.met(rule, arguments)
            return primal(*arguments)

        return called

    def _module(self, value: types.ModuleType) -> Any:
        name = value.__name__.split(".")[0]
        if name == "jax":
            return stand_in(value) if self.numpy else value
        if name == "numpy":
            return numpy_module(value) if self.numpy else value
        path = getattr(value, "__file__", None) or "<"
        return _Copied(self, value) if self.owned(path) else value

    def _function(self, value: FunctionType) -> FunctionType:
        scope = self._scope(value.__globals__)
        cells = tuple(types.CellType() for _ in value.__closure__ or ())
        code = value.__code__
        copy = FunctionType(code, scope, value.__name__, None, cells)
        self._memo[id(value)] = copy
        self.copies.setdefault(code, []).append(copy)
        for cell, old in zip(cells, value.__closure__ or ()):
            try:
                cell.cell_contents = self.load(old.cell_contents)
            except ValueError:  # a name that was never bound
                continue
        within = self._around.setdefault(_enclosing(code), {})
        for name, cell in zip(code.co_freevars, cells):
            within.setdefault(name, []).append(cell)
        copy.__defaults__ = tuple(map(self.load, value.__defaults__ or ())) or None
        copy.__kwdefaults__ = {k: self.load(v) for k, v in (value.__kwdefaults__ or {}).items()}
        if not is_gradlabs(code.co_filename):
            self._note_settings(copy)
        self._fill(scope, code)
        copy.__code__ = _counting(read(code), code)
        return copy

    def _note_settings(self, copy: FunctionType) -> None:
        """Note the numbers among a function's defaults and in its closure."""
        code, given = copy.__code__, copy.__defaults__ or ()
        names = code.co_varnames[code.co_argcount - len(given) : code.co_argcount]

        def put(k: int, value: float) -> None:
            each = list(copy.__defaults__ or ())
            copy.__defaults__ = (*each[:k], value, *each[k + 1 :])

        for k, name in enumerate(names):
            self._note(name, given[k], functools.partial(put, k))
        keywords: dict[str, Any] = copy.__kwdefaults__ or {}
        for name, value in keywords.items():
            self._note(name, value, functools.partial(keywords.__setitem__, name))
        for name, cell in zip(code.co_freevars, copy.__closure__ or ()):
            held = functools.partial(setattr, cell, "cell_contents")
            with contextlib.suppress(ValueError):
                self._note(name, cell.cell_contents, held)

    def _note(self, name: str, value: Any, put: Callable[[Any], None]) -> None:
        """Note a plain number, and those in a tuple, in a dict or in a small array."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            self.settings.append(Setting(name, value, put))
        held = [value]  # as it is by now

        def exchange(key: Any, entry: Any) -> None:
            held[0] = _with_entry(held[0], key, entry)
            put(held[0])

        for key, entry in _entries(value):
            self._note(f"{name}[{key!r}]", entry, functools.partial(exchange, key))

    @contextlib.contextmanager
    def varied(self, others: Mapping[tuple[str, float], float]) -> Iterator[None]:
        """Put other numbers in the place of settings, by name and value."""
        chosen = [s for s in self.settings if (s.name, s.value) in others]
        try:
            for each in chosen:
                each.put(others[each.name, each.value])
            yield
        except (Exception, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # what nobody raises at the settings as they are
            raise Failed(f"{type(error).__name__}: {error}") from error
        finally:
            for each in chosen:
                each.put(each.value)

    def read_by(self, ran: Collection[str] | None = None) -> set[str]:
        """Return the names that functions read, by their `place`, and those of what they take."""
        codes = [code for code in self.copies if ran is None or place(code) in ran]
        taken = (c.co_varnames[: c.co_argcount + c.co_kwonlyargcount] for c in codes)
        return {*(n for c in codes for n in (*_names(c), *c.co_freevars)), *itertools.chain(*taken)}

    def _scope(self, original: dict[str, Any]) -> dict[str, Any]:
        if id(original) not in self._globals:
            safe = dict(vars(builtins), print=_nothing, open=None, input=None, exec=None, eval=None)
            safe |= {"__ran__": self._run, "__import__": self._imported}
            within = {n: original.get(n) for n in ("__package__", "__spec__")}
            self._globals[id(original)] = {"__builtins__": safe, "__name__": _CODE_NAME, **within}
            scope = self._globals[id(original)]
            self._original[id(scope)] = original
        return self._globals[id(original)]

    def _imported(self, *named: Any) -> Any:
        return self.load(builtins.__import__(*named))

    def _run(self, where: str, lines: int) -> None:
        """Count lines; an edit may have made a loop that never ends."""
        self.lines += lines
        self.ran.add(where)
        self.ever.add(where)
        if self.lines > self.limit:
            raise RuntimeError("the candidate does not end")

    def _fill(self, scope: dict[str, Any], code: CodeType) -> None:
        """Load what a function reads from its module."""
        original = self._original[id(scope)]
        numpy = (n for n, v in original.items() if getattr(v, "__name__", "") in NUMPY)
        for name in (*_names(code), *numpy):  # an edit may call what the module has a name for
            if name in original and name not in scope:
                scope[name] = self.load(original[name])
                if not is_gradlabs(code.co_filename):
                    self._note(name, scope[name], functools.partial(scope.__setitem__, name))

    def around(self, code: CodeType) -> dict[str, Any]:
        """Return what the functions beside one read from where all of them are defined."""
        found = {}
        for name, cells in self._around.get(_enclosing(code), {}).items():
            with contextlib.suppress(ValueError):
                values = {id(cell.cell_contents): cell.cell_contents for cell in cells}
                if len(values) == 1:
                    found[name] = cells[0].cell_contents
        return found

    def _class(self, value: type) -> type:
        owner = sys.modules.get(value.__module__)
        path = getattr(owner, "__file__", None) or "<"
        plain = type(value) in (type, abc.ABCMeta) and "__slots__" not in vars(value)
        if not (plain and self.owned(path)) or issubclass(value, tuple | BaseException):
            return value
        if _is_tree(value):  # JAX knows the class itself, not its copy
            return value
        bases = tuple(map(self.load, value.__bases__))
        skipped = ("__dict__", "__weakref__")
        members = {k: v for k, v in vars(value).items() if k not in skipped}
        late = (FunctionType, staticmethod, classmethod, property)
        early = {k: v for k, v in members.items() if not isinstance(v, late)}
        kind: Any = type(value)
        copy: type = kind(value.__name__, bases, early)
        self._memo[id(value)] = copy
        for name, member in members.items():
            self._note(name, member, functools.partial(setattr, copy, name))
            if isinstance(member, FunctionType):
                setattr(copy, name, self.load(member))
            elif isinstance(member, staticmethod | classmethod):
                setattr(copy, name, type(member)(self.load(member.__func__)))
            elif isinstance(member, property):
                parts = (member.fget, member.fset, member.fdel)
                setattr(copy, name, property(*(p and self.load(p) for p in parts)))
        return abc.update_abstractmethods(copy)

    def _instance(self, value: Tree) -> Any:
        kind: Any = self.load(type(value)) if type(value).__module__ != "builtins" else type(value)
        if kind is type(value) or jax.tree.leaves(value) != [value]:
            return value
        copy = theirs(kind.__new__, kind)
        self._memo[id(value)] = copy
        vars(copy).update({k: self.load(v) for k, v in vars(value).items()})
        if not str(kind.__module__).startswith("gradlab."):
            for name, held in vars(copy).items():
                if not isinstance(held, np.ndarray):  # a parameter, or a state
                    self._note(name, held, functools.partial(vars(copy).__setitem__, name))
        return copy

    def helpers(self, copy: FunctionType, text: Text, known: set[str]) -> list[str]:
        """Return calls of the functions of a copy's module, each with a place for one value.

        Their other arguments have the names of values that are `known`. They are loaded.
        """
        scope, found = copy.__globals__, list[str]()
        mine = copy.__code__.co_varnames[: copy.__code__.co_argcount]
        for name, function in self._original[id(scope)].items():
            if (
                name == text.name
                or not isinstance(function, FunctionType)
                or function.__code__ in self.differentiated
                or (len(mine) > 1 and _parameters(function) == mine)  # another rule is no helper
                or len(found) >= _HELPERS
            ):
                continue
            code, given = function.__code__, len(function.__defaults__ or ())
            taken = code.co_varnames[: code.co_argcount - given]
            places = [n for n in taken if known.issuperset({*taken} - {n})] if taken else []
            owned = self.owned(code.co_filename) and is_pure(function)
            written, call = text.file, f"{name}(".encode()
            called = len(taken) == 1 or written.count(call) > written.count(b"def " + call)
            if owned and called and places:
                scope.setdefault(name, self.load(function))
                place = places[-1]
                found.append(f"{name}({', '.join('{}' if n == place else n for n in taken)})")
        return found

    def imported(self, copy: FunctionType) -> list[str]:
        """Return the functions of libraries that a copy's module has names for, loaded."""
        scope, found = copy.__globals__, list[str]()
        for name, value in self._original[id(scope)].items():
            plain = isinstance(value, type | types.ModuleType | np.ndarray | jax.Array)
            library = not isinstance(value, FunctionType) or _is_mathematics(value.__module__)
            if (
                callable(value)
                and library
                and not plain
                and is_pure(value)
                and len(found) < _HELPERS
            ):
                scope.setdefault(name, self.load(value))
                found.append(name)
        return found

    @contextlib.contextmanager
    def exchanged(self, original: CodeType, text: Text, mark: Mark | None = None) -> Iterator[None]:
        """Run every copy of a function from another text."""
        code = _lately(text, original) if mark is None else compiled(text, original, mark)
        before = [(copy, copy.__code__) for copy in self.copies[original]]
        around = self.around(original)
        for copy, _ in before:
            self._fill(copy.__globals__, code)
            for name in set(_names(code)) & set(around):
                if name in self._original[id(copy.__globals__)]:
                    raise Failed("the module has another of this name")
                copy.__globals__.setdefault(name, around[name])
            copy.__code__ = code
        self._edited = True
        try:
            yield
        finally:
            self._edited = False
            for copy, own in before:
                copy.__code__ = own


@functools.lru_cache(maxsize=4096)
def _counting(text: Text | None, code: CodeType) -> CodeType:
    """Return the code of a function that counts its lines, where it has a source."""
    return code if text is None else compiled(text, code)


@functools.lru_cache(maxsize=4)
def _lately(text: Text, original: CodeType) -> CodeType:
    """Return the code of a candidate: one edit moves a value many times."""
    return compiled(text, original)


def compiled(
    text: Text, original: CodeType, mark: Mark | None = None, counts: bool = True
) -> CodeType:
    """Return the code of a function's text.

    Args:
        text: as it stands, or edited; where it cannot take its place, `Failed` is raised.
        original: the code of the function as it stands.
        mark: adds to the definition what is to be seen as it runs.
        counts: whether it counts its lines, which only works in a world.
    """
    whole = theirs(compile, _built(text, original, mark, counts), _CODE_NAME, "exec")
    outer = next(c for c in whole.co_consts if isinstance(c, CodeType))
    code = next(c for c in outer.co_consts if isinstance(c, CodeType))
    if set(code.co_freevars) != set(original.co_freevars):
        raise Failed("it binds a name that its closure holds")
    return code


def _defined(text: Text) -> ast.FunctionDef:
    """Return a function's definition without its name, decorators, defaults and annotations."""
    node = theirs(text.parsed)
    if isinstance(node, ast.Lambda):
        made = ast.FunctionDef("f", node.args, [ast.Return(node.body)], [])
        node = ast.fix_missing_locations(made)
    assert isinstance(node, ast.FunctionDef)
    node.name = "__candidate__"  # its own name is looked up in its module, as ever
    node.decorator_list, node.returns = [], None
    none = ast.Constant(None, lineno=1, col_offset=0)
    node.args.defaults = [none for _ in node.args.defaults]
    node.args.kw_defaults = [d and none for d in node.args.kw_defaults]
    for argument in (*node.args.args, *node.args.kwonlyargs, *node.args.posonlyargs):
        argument.annotation = None
    return node


def _built(text: Text, original: CodeType, mark: Mark | None, counts: bool) -> ast.Module:
    """Return the tree of a function that makes the candidate, in the place of its closure."""
    node = _defined(text)
    if mark is not None:
        mark(node)
        ast.fix_missing_locations(node)
    if counts:
        counted([node], place(original))
    if original.co_freevars:  # the closure keeps its cells, whatever the edit leaves out
        held: list[ast.expr] = [ast.Name(n, ast.Load()) for n in original.co_freevars]
        use = ast.If(ast.Constant(0), [ast.Expr(ast.Tuple(held, ast.Load()))], [])
        node.body.insert(0, ast.fix_missing_locations(use))
    outside = [ast.arg(n) for n in original.co_freevars]
    arguments = ast.arguments([], outside, None, [], [], None, [])
    factory = ast.fix_missing_locations(ast.FunctionDef("factory", arguments, [], []))
    factory.body = [node]
    return ast.Module([factory], [])


def _enclosing(code: CodeType) -> str:
    return f"{code.co_filename}:{code.co_qualname.rpartition('.')[0]}"


def place(code: CodeType) -> str:
    """Return where a function is written: what names it in every world."""
    return f"{code.co_filename}:{code.co_firstlineno}:{code.co_name}"


def counted(statements: list[ast.stmt], where: str) -> None:
    """Let every function and every turn of a loop among statements count its lines."""
    for node in list(inside(statements)):
        if isinstance(node, ast.While | ast.For | ast.FunctionDef):
            lines: list[ast.expr] = [ast.Constant(where), ast.Constant(len(node.body))]
            call = ast.Expr(ast.Call(ast.Name("__ran__", ast.Load()), lines, []))
            node.body.insert(0, ast.fix_missing_locations(call))


def copied(value: Tree, memo: dict[int, Any]) -> Any:
    """Copy arrays and containers, so that what writes in place spoils nothing."""
    if id(value) in memo:
        return memo[id(value)]
    if isinstance(value, np.ndarray):
        memo[id(value)] = value.copy()
    elif type(value) in (list, tuple):
        memo[id(value)] = type(value)(copied(v, memo) for v in value)
    elif type(value) is dict:
        memo[id(value)] = {k: copied(v, memo) for k, v in value.items()}
    else:
        return value
    return memo[id(value)]


class _Copied:
    """A module of the user's, whose attributes are copied when they are read."""

    def __init__(self, world: World, module: types.ModuleType) -> None:
        self._world, self._module = world, module

    def __getattr__(self, name: str) -> Any:
        value = self._world.load(getattr(self._module, name))
        self._world._note(name, value, functools.partial(setattr, self, name))
        setattr(self, name, value)
        return value


def _parameters(function: FunctionType) -> tuple[str, ...]:
    return function.__code__.co_varnames[: function.__code__.co_argcount]


def functions_of(rule: Any) -> tuple[Any, Any, Any, Any]:
    """Return primal, `fwd`, `bwd` and `jvp` of a custom rule of JAX, None where it has none."""
    own = vars(rule) if hasattr(rule, "__dict__") else {}
    return getattr(rule, "fun", None), own.get("fwd"), own.get("bwd"), own.get("jvp")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Put the random state of NumPy and Python back afterwards, and print no warnings."""
    state, other = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
        random.setstate(other)


def _is_tree(kind: type) -> bool:
    """Whether a class is registered as a pytree, as dataclasses of parameters are."""
    if inspect.isabstract(kind):
        return False
    try:  # a class of the user's that is a dict is made as a dict is
        base = next(base for base in kind.__mro__ if not base.__flags__ & _WRITTEN_IN_PYTHON)
        empty = cast(Any, base).__new__(kind)
    except TypeError:
        return False
    try:
        return tree_util.default_registry.flatten_one_level(empty) is not None
    except Exception:  # it has no fields, but JAX looks for them
        return True


def _decorated(value: Tree) -> Any:
    """Return the function inside what JAX makes of it: jit, custom_vjp, custom_jvp, checkpoint."""
    module = str(getattr(type(value), "__module__", "") or "")
    if isinstance(value, types.FunctionType):
        module = value.__module__ or ""
    if not module.startswith(("jax", "jaxlib")) or isinstance(value, type | types.ModuleType):
        return None
    inner = getattr(value, "__wrapped__", None) or getattr(value, "fun", None)
    code = getattr(inner, "__code__", None)
    mine = code is None or written_by_the_user(code.co_filename)
    return inner if callable(inner) and mine else None


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _nothing(*_: Any, **__: Any) -> None:
    return None


def watched(node: ast.FunctionDef, keeper: str = "__keep__") -> None:
    """Put a call of the `keeper` before every statement, which keeps the locals there."""
    count = iter(range(1 << 20))

    def inner(body: list[ast.stmt]) -> list[ast.stmt]:
        out: list[ast.stmt] = []
        for each in body:
            if isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant):
                out.append(each)
                continue
            call = ast.Call(
                ast.Name(keeper, ast.Load()),
                [ast.Constant(next(count)), ast.Call(ast.Name("locals", ast.Load()), [], [])],
                [],
            )
            out += [ast.Expr(call), each]
            for name in ("body", "orelse", "handlers", "finalbody"):
                for part in getattr(each, name, []):
                    if isinstance(part, ast.ExceptHandler):
                        part.body = inner(part.body)
                if getattr(each, name, []) and name != "handlers":
                    setattr(each, name, inner(getattr(each, name)))
        return out

    node.body = inner(node.body)
