"""The commands of the command line: their words, an example each, and the function behind them."""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, cast

from gradlab._targets import drawn_inputs, dtype_of, load, load_inputs, positional, require_fitting
from gradlab._working import counting, working
from gradlab.arguments import argument_names
from gradlab.errors import InputError, StructureMismatch
from gradlab.report import Report

Options = argparse.Namespace
_CORNER = 48  # rows and columns of a matrix that a page shows by value
_SMALL = 2**22  # numbers of all passes, up to which a page evaluates its matrix


class Command(NamedTuple):
    """One command: what its help says, which words it takes, and what it does."""

    name: str
    summary: str
    example: str
    words: tuple[str, ...]
    run: Callable[[Options], Report]

    def add_words(self, parser: argparse.ArgumentParser) -> None:
        """Add the words that this command takes."""
        for word in self.words:
            known = {**_WORDS[word], **_ELSEWHERE.get((self.name, word), {})}
            parser.add_argument(word if word in _PLACED else f"--{word}", **known)


def _list(words: str) -> list[str]:
    return words.split(",")


def _places(words: str) -> list[str | int]:
    return [int(word) if word.lstrip("-").isdigit() else word for word in words.split(",")]


def _axis(words: str) -> int | tuple[int, int]:
    first, _, second = words.partition(",")
    return (int(first), int(second)) if second else int(first)


def _domain(words: str) -> tuple[str, Any]:
    """Return an input's name, and its legal values: a word, or two ends, one of them optional."""
    name, _, legal = words.partition("=")
    low, dots, high = legal.partition("..")
    if not dots:
        if legal not in ("positive", "finite"):
            raise ValueError
        return name, legal
    return name, (float(low) if low else None, float(high) if high else None)


def _conditions(words: str) -> tuple[str | float, ...]:
    found: list[str | float] = []
    for word in words.split(","):
        try:
            found.append(float(word))
        except ValueError:
            found.append(word)
    return tuple(found)


_PLACED = ("names", "target", "specs")


def _word(help: str, metavar: str | None = None, **more: Any) -> dict[str, Any]:
    return {"help": help, **({"metavar": metavar} if metavar else {}), **more}


def _yes(help: str) -> dict[str, Any]:
    return {"help": help, "action": "store_true"}


_WORDS: dict[str, dict[str, Any]] = {
    "names": _word("names of nodes (default: all)", "NODE", nargs="*"),
    "target": _word("MODULE:NAME of a function or an object", "TARGET"),
    "specs": _word(
        "shape of a random input, or a value: 100x4096, 8x64:bfloat16, scalar, x=-2",
        "INPUT",
        nargs="*",
    ),
    "inputs": _word(
        "MODULE:FUNCTION that returns the inputs as a tuple, or a FILE.npz of arrays", "SOURCE"
    ),
    "seed": _word("seed of all random numbers (default: 0)", type=int, default=0),
    "dtypes": _word("dtypes to check in, such as float64,float32", "A,B", type=_list),
    "wrt": _word("inputs to check, by name or position (default: all)", "A,B", type=_places),
    "samples": _word("number of inputs to check (default: 1)", type=int, default=1),
    "domain": _word(
        "legal values of an input: x=0..1 (an end may be left out), x=positive, x=finite",
        "NAME=RANGE",
        action="append",
        type=_domain,
        default=[],
    ),
    "no-branches": _yes("check at the given inputs alone, not at other branches"),
    "no-prove": _yes("do not try to prove the gradient"),
    "backward": _word("the backward to check, a function", "TARGET"),
    "reference": _word("function with the right value and gradient", "TARGET"),
    "returns": _word(
        "what the function returns (default: output)",
        choices=("output", "output+residuals", "output+gradients"),
        default="output",
    ),
    "parameters": _word("the parameters of an object to check", "A,B", type=_list),
    "gradients": _word("the gradients of the parameters, in the same order", "A,B", type=_list),
    "intended": _word("function with the intended derivative, or: any", "TARGET"),
    "order": _word("2 to 4: check derivatives up to this order (default: 1)", type=int, default=1),
    "device": _word("device that runs the rule: cpu, gpu, gpu:1"),
    "patch": _word("write the diff of the fix to FILE", "FILE"),
    "thorough": _yes("try every special input too"),
    "prove": _yes("prove each backward equal to autodiff too"),
    "why": _word(
        "show the proof; with AXIS, the lines that couple this axis", "AXIS", nargs="?", const="all"
    ),
    "structure": _word("fail unless the Jacobian is diagonal, banded, ...", "NAME"),
    "elementwise": _yes("fail unless each output reads its own input alone"),
    "independent": _word("fail if slices along AXIS read each other", "AXIS[,AXIS]", type=_axis),
    "causal": _word("fail if an output reads later entries along AXIS", "AXIS[,AXIS]", type=_axis),
    "conditions": _word(
        "conditions that always hold: a bound on masked scores (1e6), nonempty, finite",
        "C[,C]",
        type=_conditions,
    ),
    "sizes": _word(
        "numbers for names in shapes (without, it proves every size): --sizes B=8,T=128",
        "NAME=N",
        nargs="+",
        default=[],
    ),
    "evaluate": _yes("compute the entries, and check them along a random direction"),
    "max-bytes": _word(
        "memory limit of an evaluation in bytes (default: 1 GiB)", "N", type=int, default=2**30
    ),
    "local-gradients": _yes("show the local gradient of each gate"),
    "checks": _yes("compare each gate with finite differences"),
    "heat-maps": _word(
        "draw arrays as heat maps (default: small arrays, up to 40 gates)",
        action=argparse.BooleanOptionalAction,
    ),
    "decimals": _word("number of decimals to draw (default: 3)", type=int, default=3),
    "devices": _word("devices to use (default: all)", "A,B", type=_list),
    "all": _yes("try all 2^32 numbers of float32"),
    "jobs": _word("number of threads (default: 1)", "N", type=int, default=1),
}
_ELSEWHERE: dict[tuple[str, str], dict[str, Any]] = {
    ("audit", "intended"): _word(
        "function with the intended derivative of RULE, or: any",
        "RULE=TARGET",
        action="append",
        default=[],
    ),
    ("sweep", "dtypes"): _word(
        "dtype to sweep: float32, bfloat16 or float16 (default: float32)",
        "A",
        type=str,
        default="float32",
    ),
}
_SUBJECT = ("target", "specs", "inputs", "seed")
_REACH = ("samples", "domain", "no-branches", "no-prove", "patch")
_CLAIMS = ("structure", "elementwise", "independent", "causal")


def _given(options: Options, *names: str) -> dict[str, Any]:
    return {name: getattr(options, name) for name in names}


def _reach(options: Options) -> dict[str, Any]:
    return {
        **_given(options, "seed", "samples"),
        "domain": dict(options.domain) or None,
        "branches": not options.no_branches,
        "prove": not options.no_prove,
    }


def _verify(options: Options) -> Report:
    from gradlab.arguments import refuse_numbers
    from gradlab.checking.verify import VerifyReport, results
    from gradlab.nodes import registry

    refuse_numbers(seed=options.seed)
    start, total, found = time.monotonic(), len(options.names or registry()), []
    chosen = _given(options, "dtypes", "seed", "thorough", "prove")
    with counting() as tell:
        for node in results(*options.names, **chosen):
            found.append(node)
            wrong, seconds = sum(not each.ok for each in found), time.monotonic() - start
            done = f"{len(found)} of {total} nodes, {wrong} wrong, {seconds:.0f} s"
            tell(f"verify  {done}, now {node.name}", node.family)
    return VerifyReport(tuple(found), options.seed, options.thorough)


def _nodes(options: Options) -> Report:
    from gradlab.nodes._pages import node_pages

    return node_pages(options.names)


def _check(options: Options) -> Report:
    from gradlab import check

    function, inputs = _function_and_inputs(options)
    chosen = _given(options, "returns", "parameters", "gradients", "wrt", "order", "dtypes")
    for name in ("backward", "reference", "intended"):
        target = getattr(options, name)
        chosen[name] = target if target in (None, "any") else load(target, f"--{name}")
    with working(f"checking {options.target}") as options.spent:
        return check(function, *inputs, **chosen, **_reach(options), device=options.device)


def _audit(options: Options) -> Report:
    from gradlab import audit

    function, inputs = _function_and_inputs(options)
    pairs = [word.partition("=") for word in options.intended]
    intended = {rule: t if t == "any" else load(t, "--intended") for rule, _, t in pairs}
    with working(f"auditing {options.target}") as options.spent:
        return audit(function, *inputs, intended=intended or None, **_reach(options))


def _jacobian(options: Options) -> Report:
    from gradlab import assert_structure, jacobian
    from gradlab.structure.jacobian import with_operators
    from gradlab.structure.sizes import Names, in_shapes, numbered, of_words

    sizes = of_words(options.sizes)
    words = in_shapes(options.specs, sizes)
    if Names.of(words, sizes).units:
        function = load(options.target)
        inputs = tuple(
            s if s in words else drawn_inputs([s], options.seed)[0] for s in options.specs
        )
    else:
        shapes = {s: numbered(s, sizes) for s in words}
        drawn = {s: f"{'x'.join(map(str, shape))}:{dtype}" for s, (shape, dtype) in shapes.items()}
        options.specs = [drawn.get(s, s) for s in options.specs]
        function, inputs = _function_and_inputs(options)
    claims = _given(options, *_CLAIMS)
    with working(f"reading {options.target}") as options.spent:
        claimed = [
            name if claim is True else f"{name} {claim}"
            for name, claim in claims.items()
            if claim is not None and claim is not False
        ]
        read = assert_structure if claimed else jacobian
        known = {**_given(options, "wrt", "conditions"), **(claims if claimed else {})}
        try:
            J = read(function, *inputs, **known)
        except StructureMismatch as error:
            return cast(Report, error.report)
        if claimed:
            print(f"proved, as asserted: {', '.join(claimed)}", file=sys.stderr)
        report = with_operators(J) if options.format == "html" else J.report
        small = report.passes * report.shape[1] <= _SMALL and options.specs
        if options.evaluate or (options.format == "html" and small):
            corner = J.evaluate(options.max_bytes).to_scipy()[:_CORNER, :_CORNER].toarray()
            report = replace(report, corner=tuple(map(tuple, corner.tolist())))
    if options.why is None:
        return report
    return Said(J.why(None if options.why == "all" else _axis(options.why)))


def _graph(options: Options) -> Report:
    from gradlab.graph.graph import read_graph

    function, inputs = _function_and_inputs(options)
    with working(f"reading {options.target}") as options.spent:
        graph = read_graph(function, *inputs)
        page, picture = options.format == "html", options.format in ("html", "svg")
        return graph.report(
            options.local_gradients or page,
            options.decimals,
            options.heat_maps if picture else False,
            checks=options.checks or page,
        )


def _precision(options: Options) -> Report:
    from gradlab import precision

    function, inputs = _function_and_inputs(options)
    with working(f"measuring {options.target}") as options.spent:
        return precision(function, *inputs, **_given(options, "dtypes", "devices", "seed"))


def _sweep(options: Options) -> Report:
    from gradlab.numerics.sweep import sweep

    function = load(options.target)
    with working(f"sweeping {options.target}") as options.spent:
        return sweep(function, options.dtypes, options.all, options.jobs)


def _doctor(options: Options) -> Report:
    from gradlab.numerics import doctor

    return doctor()


COMMANDS = (
    Command(
        "verify",
        "compare the hand-written nodes with jax.grad and jax.jacfwd",
        "gradlab verify softmax matmul --thorough",
        ("names", "dtypes", "seed", "thorough", "prove", "patch"),
        _verify,
    ),
    Command(
        "nodes",
        "list the nodes, or show the formula of one",
        "gradlab nodes softmax",
        ("names",),
        _nodes,
    ),
    Command(
        "check",
        "check the gradient of a function or a layer, and show the wrong line",
        "gradlab check layers:rms_norm 8x64 64 --samples 3",
        (
            *(*_SUBJECT, "wrt", "backward", "reference", "returns", "parameters", "gradients"),
            *("intended", "order", "dtypes", "device", *_REACH),
        ),
        _check,
    ),
    Command(
        "audit",
        "check every custom derivative rule inside a model",
        "gradlab audit model:forward --inputs model:example",
        (*_SUBJECT, "intended", *_REACH),
        _audit,
    ),
    Command(
        "jacobian",
        "prove the structure of a Jacobian, and say which line couples an axis",
        "gradlab jacobian layers:attention 8x64x32 --wrt 0",
        (*_SUBJECT, "wrt", "why", *_CLAIMS, "conditions", "sizes", "evaluate", "max-bytes"),
        _jacobian,
    ),
    Command(
        "graph",
        "draw the computational graph with its values and gradients",
        "gradlab graph layers:mlp 32x64 64x10 -o mlp.svg",
        (*_SUBJECT, "local-gradients", "checks", "heat-maps", "decimals"),
        _graph,
    ),
    Command(
        "precision",
        "measure the error of a gradient in each dtype, on each device",
        "gradlab precision layers:attention 8x64x32 --dtypes bfloat16,float16",
        (*_SUBJECT, "dtypes", "devices"),
        _precision,
    ),
    Command(
        "sweep",
        "count the correct digits of a gradient over a whole dtype",
        "gradlab sweep layers:gelu --dtypes float16 -o gelu.svg",
        ("target", "dtypes", "all", "jobs"),
        _sweep,
    ),
    Command(
        "doctor",
        "show the devices, versions and settings of JAX",
        "gradlab doctor --format json",
        (),
        _doctor,
    ),
)


def _function_and_inputs(options: Options) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    function = load(options.target)
    if options.inputs is None:
        names = _names_of(function, options.specs)
        inputs = drawn_inputs(options.specs, options.seed, names, dtype_of(function))
    elif options.specs:
        raise InputError(
            f"--inputs gives all inputs; leave out {' '.join(options.specs)}, or --inputs"
        )
    else:
        inputs = load_inputs(options.inputs, function)
    given = options.specs or ([f"--inputs {options.inputs}"] if options.inputs else [])
    require_fitting(function, inputs, " ".join([options.command, options.target, *given]))
    return function, inputs


def _names_of(function: Callable[..., Any], specs: Sequence[str]) -> Sequence[str]:
    """Return what a function calls its inputs, where a word names one."""
    named = any("=" in spec for spec in specs)
    return argument_names(function, max(len(specs), len(positional(function)))) if named else ()


@dataclass(frozen=True)
class Said(Report):
    """A text that answers one question, in place of a whole report."""

    kind: ClassVar[str] = "jacobian"
    text: str

    @property
    def ok(self) -> bool:
        """Whether the question was answered."""
        return True

    def render(self, format: str) -> str:
        """Return the text; no other format has it."""
        if format != "text":
            raise InputError(f"--why prints text alone; leave out --format {format}, or --why")
        return self.text
