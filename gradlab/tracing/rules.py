"""Custom derivative rules: which ones a program meets, and the program without them.

Autodiff of the stripped program differentiates the primal function that a rule decorates, so the
rule can be held against it. Rules defined inside JAX stay: they are the reference's own conventions
(stripped, `jax.nn.softplus` would have the gradient 0 at 0).
"""

import ast
import functools
import linecache
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gradlab.errors import GradlabError
from gradlab.tracing.dependence import call_jaxpr
from gradlab.tracing.evaluate import Evaluator, Value
from gradlab.tracing.interpreter import Step
from gradlab.tracing.jaxprs import (
    JAX_FOLDER,
    body,
    contains,
    holds,
    inner_jaxprs,
    source,
    source_path,
    users_file,
)
from gradlab.tracing.kinds import Kind, expansion_of, is_renewed, is_rule, kind_of
from gradlab.tracing.program import Program, rewritten
from gradlab.tracing.walking import walk

_FROM_JVPS = "custom_jvp.defjvps.<locals>.jvp"
_OLDER = ("custom_jvp_call", "custom_vjp_call")
_LIBRARIES = f"{os.sep}site-packages{os.sep}"


@dataclass(frozen=True)
class CustomRule:
    """A custom derivative rule, as it is met in a program.

    `kind` is custom_vjp, custom_gradient, linear_call, ...; `defined` is where its primal function
    is written, `source` where it is called; `operands` are named as the decorated function names
    its arguments; `inside` names the loops, branches and calls around it; `parts` are compared
    beyond the laws of a check.
    """

    name: str
    kind: str
    user: bool
    source: str
    defined: str
    operands: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()


def custom_rules(program: Program) -> list[CustomRule]:
    """Return every custom rule in a program, in the order of the equations, at any depth."""
    if not holds(program.jaxpr, is_rule):  # most programs have none
        return []
    found = ((equation, inside) for equation, inside in walk(program) if is_rule(equation))
    return [replace(rule_of(equation), inside=inside) for equation, inside in found]


def rule_of(equation: Any) -> CustomRule:
    """Describe the rule that an equation calls, by the user's names where a library wraps it."""
    kind = kind_of(equation)
    assert kind is not None
    return (_older if equation.primitive.name in _OLDER else _described)(equation, kind)


def _described(equation: Any, kind: Kind) -> CustomRule:
    """Describe a rule by the first thing that was written for it."""
    places = [_place_of(each) for each in kind.written(equation) if each is not None]
    name, defined = places[0]
    primitive = equation.params.get("_prim")
    titles = {"hijax": type(primitive).__name__, "primitive": equation.primitive.name}
    caller = kind.name in ("custom_linear_solve", "custom_root")
    title = _caller(equation) or name if caller else titles.get(kind.name, name)
    user = kind.name != "custom_root" and not all(_in_jax(place) for _, place in places)
    own = kind.name == "custom_vmap" and _in_jax(places[-1][1])
    where = source_path(equation) if caller else defined
    return CustomRule(
        name=title,
        kind="sequential_vmap" if own else kind.name,
        user=user,
        source=source(equation) or os.path.basename(where),
        defined=os.path.basename(where),
        operands=_named_operands(equation, kind, name, defined),
        parts=() if own else kind.parts,  # JAX's own way to batch needs no judge
    )


def _place_of(written: Any) -> tuple[str, str]:
    """Return name and `/full/file.py:line` of a function or of a jaxpr."""
    written = getattr(written, "func", getattr(written, "__func__", written))
    code = getattr(written, "__code__", None)
    if code is None:
        return _place(_debug(written))
    return code.co_name, f"{code.co_filename}:{code.co_firstlineno}"


def _named_operands(equation: Any, kind: Kind, name: str, defined: str) -> tuple[str, ...]:
    """Return the parameters of what was written, where there are as many as operands."""
    count = len(equation.invars)
    file, _, line = defined.rpartition(":")
    function = _definition(file, name, int(line)) if line.isdigit() else None
    known = [] if function is None else [n for n in _parameters(function) if n != "self"]
    if kind.shields and len(known) == count:
        return tuple(known)
    return tuple(f"operand {i}" for i in range(count))


def _older(equation: Any, kind: Kind) -> CustomRule:
    primal, name, defined = call_jaxpr(equation), *_place(_debug(call_jaxpr(equation)))
    title = kind.name
    rule = equation.params.get("bwd") or equation.params.get("jvp_jaxpr_fun")
    by, written = _place(getattr(rule, "debug_info", None))
    if by == "_root_jvp" and _in_jax(written):
        title, name, defined = "custom_root", _caller(equation) or name, source_path(equation)
    elif _in_jax(written) and os.path.basename(written).startswith("custom_derivatives.py"):
        if title == "custom_vjp":  # jax.custom_gradient hides both functions behind its own
            title, defined = "custom_gradient", _first_line(primal) or defined
            name = _inside(primal, "") if name == "wrapped_fun" else name
            name = name or "custom_gradient"
        written = defined
    user, calls = not _in_jax(written) and title != "custom_root", source(equation)
    if user and _LIBRARIES in defined and _wraps(defined, name):
        file = defined.rpartition(":")[0]
        name, defined, calls = _unwrapped(equation, file) or (name, defined, calls)
    return CustomRule(
        name=name,
        kind=title,
        user=user,
        source=calls or os.path.basename(defined),
        defined=os.path.basename(defined),
        operands=_operands(equation, name, defined, title),
    )


@dataclass(frozen=True, eq=False)
class Differentiated:
    """What the differentiation of a function ran: which rules it used, however deep inside.

    `called`: the places of Python functions that were called; `by_parts`: of those with `defjvps`.
    """

    # the program that came of it; None where JAX does not differentiate the function
    gradient: Program | None
    called: frozenset[str]  # `/full/file.py:line` of each Python function that was called
    # the same of each function whose derivatives `defjvps` gave, and which were called
    by_parts: frozenset[str]

    @classmethod
    def of(cls, compute: Callable[[], Program | None]) -> "Differentiated":
        """Note what `compute` calls while it traces and differentiates."""
        codes: set[Any] = set()
        by_parts: set[str] = set()

        def see(frame: Any, event: str, argument: object) -> None:
            if event == "call":
                codes.add(frame.f_code)
                if frame.f_code.co_qualname == _FROM_JVPS:
                    by_parts.add(_place_of(frame.f_locals["self"].fun)[1])

        before = sys.getprofile()
        sys.setprofile(see)
        try:
            gradient = compute()
        finally:
            sys.setprofile(before)
        places = frozenset(f"{code.co_filename}:{code.co_firstlineno}" for code in codes)
        return cls(gradient, places, frozenset(by_parts))

    def uses(self, equation: Any) -> bool:
        """Return whether the derivative of a rule that an equation calls was run.

        Its own functions were called, or what they compute stands at the line of the call.
        """
        kind, line = kind_of(equation), equation.source_info.traceback
        assert kind is not None
        (_, primal), *written = map(_place_of, kind.written(equation))
        if any(place in self.called and not _in_jax(place) for _, place in written):
            return True
        if primal in self.by_parts:
            return True

        def computed(jaxpr: Any) -> bool:
            return any(
                each.source_info.traceback == line
                or any(computed(inner) for _, inner in inner_jaxprs(each))
                for each in body(jaxpr).equations
                if not is_rule(each)  # what a rule calls is not differentiated there
            )

        return line is not None and self.gradient is not None and computed(self.gradient.jaxpr)


def symbolic_zeros(program: Program) -> bool:
    """Whether some rule in a program is told which of its inputs or outputs are not asked for."""

    def told(equation: Any) -> bool:
        kind, given = kind_of(equation), equation.params
        own = getattr(given.get("_prim"), "symbolic_zeros", False)
        every = kind is not None and kind.name in ("hijax", "primitive")
        return kind is not None and bool(every or own or given.get("symbolic_zeros", False))

    return contains(program.jaxpr, told)


def strip(program: Program, which: Callable[[CustomRule], bool] | None = None) -> Program:
    """Return the program with custom rules replaced by the primal functions that they decorate.

    All the user's rules go and JAX's stay, or those of which `which` says so. NotStrippable: one
    is in a `shard_map`, or in a function that a rule which stays calls (`odeint`).
    """
    chosen = which or (lambda rule: rule.user)

    def goes(equation: Any) -> bool:
        return is_rule(equation) and chosen(rule_of(equation))

    if not contains(program.jaxpr, goes):
        return program
    stays = contains(program.jaxpr, lambda equation: is_renewed(equation) and not goes(equation))
    known = None if stays or which else program.believed  # this is all there is to what is left
    key = None if known is None else ("strip", known)
    stripped = rewritten(program, _Stripper(goes), lambda twin: strip(twin, which), key)
    if contains(stripped.jaxpr, goes):
        left = next(rule for rule in custom_rules(stripped) if chosen(rule))
        raise NotStrippable(
            f"the rule of {left.name} ({left.defined}) cannot be taken out of {program.name}: it "
            f"lies inside {' in '.join(reversed(left.inside)) or 'a call'}; check it by itself"
        )
    return stripped


class NotStrippable(GradlabError):
    """A custom rule lies where it cannot be replaced by its primal function."""


class Chooser(Evaluator):
    """Evaluates as traced, except for chosen rules: it opens what holds them."""

    def __init__(self, goes: Callable[[Any], bool]) -> None:
        self.goes = goes

    def keeps(self, equation: Any) -> bool:
        """Whether an equation holds no chosen rule inside, or is one."""
        if is_rule(equation):
            return True
        inner = [jaxpr for _, jaxpr in inner_jaxprs(equation)]
        return not any(contains(jaxpr, self.goes) for jaxpr in inner)


class _Stripper(Chooser):
    """Evaluates as traced, except that chosen rules become their primals."""

    def _open(self, step: Step, inputs: list[Value]) -> list[Value]:
        if not self.goes(step.equation):
            return super()._open(step, inputs)
        believed = expansion_of(step.equation)
        if believed is None:
            rule = rule_of(step.equation)
            raise NotStrippable(f"nothing says what {rule.name} ({rule.kind}) stands for")
        return self(believed, inputs)


def _debug(jaxpr: Any) -> Any:
    return getattr(jaxpr, "debug_info", None)


def _place(debug: Any) -> tuple[str, str]:
    """Return a function's name and `/full/file.py:line` from JAX's debug text `f at file:line`."""
    text = getattr(debug, "func_src_info", None) or ""
    match = re.fullmatch(r"(.*?) at (.*)", text)
    return (match[1], match[2]) if match else (text or "function", "")


def _in_jax(path: str) -> bool:
    return path.startswith(JAX_FOLDER)


def _first_line(jaxpr: Any) -> str:
    return next((p for p in map(source_path, body(jaxpr).equations) if p), "")


def _frames(equation: Any) -> list[tuple[str, str, int]]:
    """Return file, function and line of the user's and libraries' calls, innermost first."""
    traceback = equation.source_info.traceback
    return [
        (frame.file_name, frame.function_name.rpartition(".")[2], frame.line_num)
        for frame in (traceback.frames if traceback is not None else ())
        if users_file(frame.file_name)
    ]


def _caller(equation: Any) -> str:
    """Return the name of the function that calls a rule."""
    return next((name for _, name, _ in _frames(equation)), "")


def _inside(jaxpr: Any, default: str) -> str:
    """Return the name of the function in which a rule's primal computes."""
    frames = (_frames(equation) for equation in body(jaxpr).equations)
    return next((each[0][1] for each in frames if each), default)


@functools.lru_cache(maxsize=256)
def _wraps(defined: str, name: str) -> bool:
    """Whether a function calls what the function around it was given, as a decorator's does."""
    file, _, line = defined.rpartition(":")
    function = _definition(file, name, int(line))
    if function is None:
        return False
    outer = [f for f in _functions(file) if f.lineno < function.lineno <= (f.end_lineno or 0)]
    given = {parameter for each in outer for parameter in _parameters(each)}
    for call in ast.walk(function):
        root = call.func if isinstance(call, ast.Call) else None
        while isinstance(root, ast.Attribute):
            root = root.value
        if isinstance(root, ast.Name) and root.id in given:
            return True
    return False


def _unwrapped(equation: Any, wrapper: str) -> tuple[str, str, str] | None:
    """Return the function that a wrapper calls, else the caller of both; its line; who calls it."""
    around = [frame for frame in _frames(equation) if frame[0] != wrapper]
    called = [frame for frame in (_within(e, wrapper) for e in _primal(equation)) if frame]
    if not called and not around:
        return None
    file, name, line = (called or around)[0]
    function = _definition(file, name, line)
    start = line if function is None else function.lineno
    caller = next((frame for frame in around if _LIBRARIES not in frame[0]), (*around, None)[0])
    calls = f"{os.path.basename(caller[0])}:{caller[2]}" if caller else ""
    return name, f"{file}:{start}", calls


def _primal(equation: Any) -> Sequence[Any]:
    return body(call_jaxpr(equation)).equations


def _within(equation: Any, wrapper: str) -> tuple[str, str, int] | None:
    """Return the frame that a wrapper's file calls; None: an equation's line lies in that file."""
    frames = _frames(equation)
    depth = next((i for i, frame in enumerate(frames) if frame[0] == wrapper), 0)
    return frames[depth - 1] if depth else None


def _operands(equation: Any, name: str, defined: str, kind: str) -> tuple[str, ...]:
    """Return what the decorated function calls its arguments; else `operand 0` and so on."""
    count = len(equation.invars)
    unknown = [f"operand {i}" for i in range(count)]
    debugs = (_debug(call_jaxpr(equation)), _debug(equation.params.get("fwd_jaxpr_thunk")))
    paths = next((d.arg_names for d in debugs if getattr(d, "arg_names", None)), ())
    file, _, line = defined.rpartition(":")
    function = _definition(file, name, int(line)) if line.isdigit() else None
    known = None if function is None else _parameters(function)
    if kind == "custom_root" or None in paths:
        paths = ()
    parts = [re.fullmatch(r"(\w*)(.*)", path) for path in paths]
    split = [(m[1], m[2]) for m in parts if m is not None]
    roots = list(dict.fromkeys(root for root, _ in split))
    if known and len(known) == len(roots):
        named = dict(zip(roots, known))
        paths = [named[root] + rest for root, rest in split]
    if known and len(paths) < count == len(known):
        paths = known
    generic = any(path.startswith(("args[", "diff_array")) for path in paths)
    if generic and known and len(known) == count:
        paths, generic = known, False
    if generic or len(paths) > count or len(set(paths)) < len(paths):
        return tuple(unknown)
    return (*unknown[: count - len(paths)], *paths)


def _definition(file: str, name: str, line: int) -> Any:
    """Return the function of a source file that has this name, and this line inside it."""
    found = [
        node
        for node in _functions(file)
        if getattr(node, "name", "<lambda>") == name
        and min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
        <= line
        <= (node.end_lineno or node.lineno)
    ]
    return max(found, key=lambda node: node.lineno, default=None)


@functools.lru_cache(maxsize=64)
def _functions(file: str) -> tuple[Any, ...]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except SyntaxError:  # a file that has changed, or is no Python
        return ()
    return tuple(node for node in ast.walk(tree) if isinstance(node, kinds))


def _parameters(function: Any) -> list[str]:
    return [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
