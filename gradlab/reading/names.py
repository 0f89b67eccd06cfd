"""The user's names during a reading: found, given another meaning, and put back as they were.

Modules, closures, defaults, attributes and containers are walked that are reached from the
function. It may reach others in ways that no walk sees: then all of the user's modules are walked.
"""

import builtins
import collections
import contextlib
import functools
import operator
import random
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from gradlab.reading.frames import is_library
from gradlab.reading.proxies import Float, original, replacement
from gradlab.reading.session import Recorder
from gradlab.reading.standins import active, current, is_stand

_LARGEST = 10_000  # entries of a container that is walked
_one_at_a_time = threading.RLock()


@contextlib.contextmanager
def replaced(reading: Recorder, roots: tuple[Any, ...], everywhere: bool) -> Iterator[None]:
    """Give the user's names their meaning in a reading; afterwards each is what it was.

    The walk starts from `roots`, functions and objects; `everywhere`: from the user's modules, too.
    """
    with _one_at_a_time:
        walk = _Walk(reading)
        try:
            walk.start(roots, everywhere)
            walk.imports()
            with active(reading):
                yield
        finally:
            walk.put_back()


def rewinder(roots: tuple[Any, ...]) -> Callable[[], None]:
    """Return what puts the generators of random numbers back to where they are now.

    The walk starts from `roots`, functions and objects, and from the user's modules.
    """
    walk = _Walk(Recorder({}), only_look=True)
    walk.start(roots, everywhere=True)
    generators = walk.reading.generators

    def rewind() -> None:
        for back in generators:
            back()

    return rewind


def is_users(names: dict[str, Any]) -> bool:
    """Whether a namespace is the user's: no library's, or no module's at all."""
    module = sys.modules.get(names.get("__name__", ""))
    if module is None or module.__dict__ is not names or names.get("__name__") == "__main__":
        return "__builtins__" in names
    file = names.get("__file__")
    return isinstance(file, str) and not is_library(file)


_is_users_module = functools.lru_cache(4096)(lambda module: is_users(module.__dict__))


class _Walk:
    """One walk over the user's names, with the way back."""

    def __init__(self, reading: Recorder, only_look: bool = False) -> None:
        self.reading, self.only_look = reading, only_look
        self.undo: list[Callable[[], None]] = []
        self.arrays: dict[int, Any] = {}  # one stand-in for each, so that aliases stay aliases
        self.seen: dict[int, Any] = {}
        self.before: list[tuple[Any, Any]] = []
        self.modules = dict.fromkeys(("builtins", "typing", "abc"), False)  # whose are the user's
        state = np.random.get_state()  # noqa: NPY002 - the user's code may use it
        reading.generators.append(lambda: np.random.set_state(state))  # noqa: NPY002
        python = random.getstate()
        reading.generators.append(lambda: random.setstate(python))

    def start(self, roots: tuple[Any, ...], everywhere: bool) -> None:
        """Walk from the roots, and over all of the user's modules where that is asked for."""
        for root in roots:
            self.visit(root)
        for module in list(sys.modules.values()) if everywhere else ():
            if type(module) is types.ModuleType:
                self.visit(module)

    def visit(self, value: Any) -> Any:
        """Return what stands for a value; what is inside of it is replaced there."""
        kind = type(value)
        if kind in _NUMBERS:
            return value
        if id(value) in self.seen:
            return self.seen[id(value)]
        new = value if kind in _CONTAINERS else self._replacement(value)
        if new is not value:
            return new
        if kind is types.ModuleType:
            if _is_users_module(value):
                self.namespace(value.__dict__)
            return value
        self.seen[id(value)] = value
        if isinstance(value, tuple) and len(value) <= _LARGEST:
            items = tuple(map(self.visit, value))
            if any(a is not b for a, b in zip(items, value)):
                self.seen[id(value)] = kind(*items) if hasattr(kind, "_fields") else kind(items)
            self.before.append((value, value))  # keeps it alive, and so its number
            return self.seen[id(value)]
        if isinstance(value, list | collections.deque) and len(value) <= _LARGEST:
            self._list(value)
        elif isinstance(value, dict) and len(value) <= _LARGEST:
            self._dict(value)
        elif kind is types.FunctionType:
            self._function(value)
        elif kind is types.MethodType:
            self.visit(value.__func__)
            self.visit(value.__self__)
        elif kind in (staticmethod, classmethod):
            self.visit(value.__func__)
        elif kind is property:
            for part in (value.fget, value.fset):
                self.visit(part)
        elif kind is functools.partial:
            self.visit(value.func)
            return self._partial(value)
        elif isinstance(value, type):
            if self._is_users(value):
                self._class(value)
        elif kind is types.SimpleNamespace:
            self._attributes(value)
        if self._is_users(kind):
            self.visit(kind)
            self._attributes(value)
        return value

    def _is_users(self, kind: type) -> bool:
        name = kind.__module__
        if name not in self.modules:
            module = sys.modules.get(name)
            self.modules[name] = module is None or is_users(module.__dict__)
        return self.modules[name]

    def namespace(self, names: dict[str, Any]) -> None:
        """Replace what a module's names mean, and give it another `float`."""
        if id(names) in self.seen:
            return
        self.seen[id(names)] = names
        self._dict(names)
        if "float" not in names and not self.only_look:
            self._set(names, "float", Float)

    def imports(self) -> None:
        """Let the user's own `import numpy` find the proxies."""
        real = builtins.__import__
        reading = self.reading

        def find(name: str, names: Any = None, *rest: Any) -> Any:
            module = real(name, names, *rest)
            if current() is reading and names is not None and is_users(names):
                return self.visit(module)
            return module

        self.undo.append(lambda: setattr(builtins, "__import__", real))
        builtins.__import__ = find  # type: ignore[assignment]  # takes the same arguments

    def put_back(self) -> None:
        """Undo everything, whatever interrupts; and clear away what the code kept."""
        interrupted: BaseException | None = None
        steps = [self._clear, *self.undo]  # from its end: the last change goes first
        steps += [*self.reading.generators, self._restore_arrays]
        while steps:
            try:
                steps[-1]()
                steps.pop()
            except KeyboardInterrupt as error:
                interrupted = error
        if interrupted is not None:
            raise interrupted

    def _restore_arrays(self) -> None:
        for buffer in self.reading.buffers.values():
            if buffer.guarded:
                buffer.restore()

    def _clear(self) -> None:
        """Remove stand-ins and proxies that the code has put into what was reached."""
        for container, held in self.before:
            if isinstance(container, tuple) or _same(container, held):
                continue
            if isinstance(container, dict):
                for name, value in list(container.items()):
                    if held.get(name) is value:
                        continue
                    if original(value) is not value:
                        container[name] = original(value)
                    elif _holds_stand(value, self.seen):
                        if name in held:
                            container[name] = held[name]
                        else:
                            container.pop(name, None)
            elif _holds_stand(container, {}):
                container.clear()
                container.extend(held)

    def _replacement(self, value: Any) -> Any:
        if type(value) is np.ndarray and not self.only_look:
            if id(value) not in self.arrays:
                self.arrays[id(value)] = self.reading.array(value, guarded=True)
            return self.arrays[id(value)]
        if isinstance(value, np.random.Generator | np.random.RandomState):
            bits = value if isinstance(value, np.random.RandomState) else value.bit_generator
            if isinstance(bits, np.random.RandomState):
                state: Any = bits.get_state()
                self.reading.generators.append(lambda: bits.set_state(state))
            else:
                held = bits.state
                self.reading.generators.append(lambda: setattr(bits, "state", held))
        return value if self.only_look else replacement(value)

    def _set(self, container: Any, name: Any, new: Any) -> None:
        missing = object()
        old = container.get(name, missing) if isinstance(container, dict) else container[name]

        def back() -> None:
            now = container.get(name, missing) if isinstance(container, dict) else container[name]
            if now is new or is_stand(now):
                if old is missing:
                    container.pop(name, None)
                else:
                    container[name] = old

        self.undo.append(back)
        container[name] = new

    def _dict(self, names: dict[Any, Any]) -> None:
        held = dict(names)
        self.before.append((names, held))
        for name, value in held.items():
            new = value if type(value) in _NUMBERS else self.visit(value)
            if new is not value and not (isinstance(name, str) and name.startswith("__")):
                self._set(names, name, new)
                if isinstance(value, np.ndarray):
                    self.reading.names.append((names, name, value))

    def _list(self, items: Any) -> None:
        held = list(items)
        self.before.append((items, held))
        for place, value in enumerate(held):
            new = self.visit(value)
            if new is not value:
                self._set(items, place, new)

    def _attributes(self, value: Any) -> None:
        names = getattr(value, "__dict__", None)
        if isinstance(names, dict):
            self._dict(names)
        slots = [s for kind in type(value).__mro__ for s in getattr(kind, "__slots__", ())]
        for name in slots:
            if hasattr(value, name):
                self._attribute(value, name, getattr(value, name))

    def _attribute(self, value: Any, name: str, old: Any) -> None:
        new = self.visit(old)
        if new is not old:
            self.undo.append(lambda: setattr(value, name, old))
            setattr(value, name, new)

    def _class(self, kind: type) -> None:
        for base in kind.__mro__[1:]:
            if self._is_users(base):
                self.visit(base)
        for name, value in list(vars(kind).items()):
            if not name.startswith("__") or isinstance(value, types.FunctionType):
                self._attribute(kind, name, value)

    def _partial(self, value: Any) -> Any:
        args = tuple(map(self.visit, value.args))
        options = {name: self.visit(item) for name, item in value.keywords.items()}
        same = all(a is b for a, b in zip(args, value.args))
        if same and all(options[n] is value.keywords[n] for n in options):
            return value
        return functools.partial(value.func, *args, **options)

    def _function(self, function: types.FunctionType) -> None:
        names = function.__globals__
        if id(names) not in self.seen:
            if is_users(names):
                self.namespace(names)
            elif is_library(function.__code__.co_filename):
                return
        for cell in function.__closure__ or ():
            self._cell(cell)
        if function.__defaults__:
            self._attribute(function, "__defaults__", function.__defaults__)
        if function.__kwdefaults__:
            self._dict(function.__kwdefaults__)
        self._dict(function.__dict__)

    def _cell(self, cell: Any) -> None:
        if id(cell) in self.seen:
            return
        self.seen[id(cell)] = cell
        try:
            old = cell.cell_contents
        except ValueError:  # a name that has no value yet
            return
        new = self.visit(old)

        def back() -> None:
            now = cell.cell_contents
            if now is not old and (original(now) is not now or _holds_stand(now, {})):
                cell.cell_contents = old

        self.undo.append(back)
        if new is not old:
            cell.cell_contents = new


_NUMBERS = frozenset((type(None), bool, int, float, complex, str, bytes, types.CodeType))
_PLAIN = _NUMBERS | {types.ModuleType}
_CONTAINERS = frozenset((dict, list, tuple))


def _same(items: Any, others: Any) -> bool:
    """Whether two dicts, or two sequences, hold the same objects."""
    if len(items) != len(others):
        return False
    if isinstance(items, dict) and not all(map(operator.is_, items.values(), others.values())):
        return False
    return all(map(operator.is_, items, others))


def _holds_stand(value: Any, known: dict[int, Any], depth: int = 4) -> bool:
    """Whether a stand-in is inside; not in what is walked anyway."""
    if is_stand(value):
        return True
    kind = type(value)
    if depth == 0 or kind in _PLAIN or (id(value) in known and kind not in (list, tuple, dict)):
        return False
    if isinstance(value, list | tuple | set | frozenset | collections.deque):
        return any(_holds_stand(item, known, depth - 1) for item in list(value)[:_LARGEST])
    if isinstance(value, dict):
        return any(_holds_stand(item, known, depth - 1) for item in list(value.values()))
    names = getattr(value, "__dict__", None)
    if isinstance(names, dict) and not isinstance(value, type | types.FunctionType):
        return any(_holds_stand(item, known, depth - 1) for item in list(names.values()))
    return False
