"""The commands of the command line: their words, an example each, and the function behind them."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from gradlab._targets import drawn_inputs, load, load_inputs, require_fitting
from gradlab._working import working
from gradlab.errors import InputError
from gradlab.report import Report

__all__ = ["COMMANDS", "Command"]

Options = argparse.Namespace


class Command(NamedTuple):
    """One command: what its help says, which words it takes, and what it does."""

    name: str
    summary: str
    example: str
    words: Callable[[argparse.ArgumentParser], None]
    run: Callable[[Options], Report]


def _names(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NODE", help="names of nodes; default: all")


def _verify_words(parser: argparse.ArgumentParser) -> None:
    _names(parser)
    parser.add_argument("--dtypes", type=_list, metavar="A,B", help="such as float64,float32")
    parser.add_argument("--seed", type=int, default=0, help="of the random inputs (default: 0)")
    parser.add_argument("--thorough", action="store_true", help="every special input too")
    parser.add_argument("--prove", action="store_true", help="prove the gradients as formulas too")


def _target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="MODULE:CALLABLE", help="the function, as layers:softmax")
    parser.add_argument(
        "specs",
        nargs="*",
        metavar="INPUT",
        help="SHAPE[:DTYPE] of a random input: 100x4096, 8x64:bfloat16, 32:int32, scalar",
    )
    parser.add_argument(
        "--inputs",
        metavar="SOURCE",
        help="MODULE:FUNCTION that returns the inputs as a tuple, or a FILE.npz of arrays",
    )
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default: 0)")


def _wrt(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--wrt", type=_places, metavar="A,B", help="inputs to differentiate, by name or position"
    )


def _reach_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--samples", type=int, default=1, help="number of inputs to check")
    parser.add_argument(
        "--domain",
        action="append",
        type=_domain,
        default=[],
        metavar="NAME=RANGE",
        help="legal values of an input: x=0..1 (an end may be left out), x=positive, x=finite",
    )
    parser.add_argument("--no-branches", action="store_true", help="stay at the given inputs")
    parser.add_argument("--no-prove", action="store_true", help="do not try to prove the formula")


def _audit_words(parser: argparse.ArgumentParser) -> None:
    _target(parser)
    _reach_words(parser)
    parser.add_argument(
        "--intended",
        action="append",
        default=[],
        metavar="RULE=TARGET",
        help="function with the derivative that a rule is meant to have, or any",
    )
    parser.add_argument("--patch", metavar="FILE", help="write the diffs that mend it to FILE")


def _check_words(parser: argparse.ArgumentParser) -> None:
    _target(parser)
    _wrt(parser)
    parser.add_argument("--backward", metavar="MODULE:CALLABLE", help="the backward to check")
    parser.add_argument("--reference", metavar="MODULE:CALLABLE", help="the function to believe")
    parser.add_argument(
        "--returns",
        choices=("output", "output+residuals", "output+gradients"),
        default="output",
        help="what the function returns (default: output)",
    )
    parser.add_argument("--parameters", type=_list, metavar="A,B", help="parameters of an object")
    parser.add_argument("--gradients", type=_list, metavar="A,B", help="their gradients, in order")
    parser.add_argument(
        "--intended", metavar="TARGET", help="function with the derivative that is meant, or any"
    )
    parser.add_argument("--order", type=int, default=1, help="2: the gradient's gradient too")
    _reach_words(parser)
    parser.add_argument("--dtypes", type=_list, metavar="A,B", help="check in each of these")
    parser.add_argument("--device", help="run the rule there: cpu, gpu, gpu:1")
    parser.add_argument("--patch", metavar="FILE", help="write the diff that mends it to FILE")


def _jacobian_words(parser: argparse.ArgumentParser) -> None:
    _target(parser)
    _wrt(parser)
    parser.add_argument(
        "--why",
        nargs="?",
        const="all",
        metavar="AXIS",
        help="the proof, or the lines that couple an axis of the input",
    )
    parser.add_argument("--structure", metavar="NAME", help="claim: diagonal, banded, ...")
    parser.add_argument("--elementwise", action="store_true", help="claim: entry by entry")
    parser.add_argument(
        "--independent", type=_axis, metavar="AXIS[,AXIS]", help="claim: rows stay apart"
    )
    parser.add_argument("--causal", type=_axis, metavar="AXIS[,AXIS]", help="claim: no future")
    parser.add_argument(
        "--conditions",
        type=_conditions,
        metavar="C[,C]",
        help="what the proof may rest on: a bound on masked scores such as 1e6, nonempty, finite",
    )
    parser.add_argument(
        "--evaluate",
        action="store_true",
        help="evaluate the entries, and confirm them by a derivative in a random direction",
    )
    parser.add_argument(
        "--max-bytes",
        type=int,
        default=2**30,
        metavar="N",
        help="the most memory that an evaluation may take at once (default: 1 GiB)",
    )


def _graph_words(parser: argparse.ArgumentParser) -> None:
    _target(parser)
    parser.add_argument(
        "--local-gradients", action="store_true", help="each gate's Jacobian in each input"
    )
    parser.add_argument(
        "--checks", action="store_true", help="hold each gate against finite differences"
    )
    parser.add_argument(
        "--heat-maps",
        action=argparse.BooleanOptionalAction,
        help="draw arrays as heat maps (default: small ones, in graphs of up to 40 gates)",
    )
    parser.add_argument("--decimals", type=int, default=3, help="how many to draw (default: 3)")


def _precision_words(parser: argparse.ArgumentParser) -> None:
    _target(parser)
    parser.add_argument("--dtypes", type=_list, metavar="A,B", help="default: all floats")
    parser.add_argument("--devices", type=_list, metavar="A,B", help="default: all that JAX has")


def _sweep_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="MODULE:CALLABLE", help="the function, as layers:gelu")
    parser.add_argument(
        "--dtypes", default="float32", metavar="A", help="float32, bfloat16 or float16"
    )
    parser.add_argument("--all", action="store_true", help="all 2^32 numbers of float32")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="threads (default: 1)")


def _verify(options: Options) -> Report:
    from gradlab.checking.verify import verify

    with working("verifying"):
        return verify(
            *options.names,
            dtypes=options.dtypes,
            seed=options.seed,
            thorough=options.thorough,
            prove=options.prove,
        )


def _nodes(options: Options) -> Report:
    from gradlab.nodes._pages import node_pages

    return node_pages(options.names)


def _check(options: Options) -> Report:
    from gradlab.checking import check

    function, inputs = _function_and_inputs(options)
    backward = options.backward and load(options.backward, "--backward")
    reference = options.reference and load(options.reference, "--reference")
    with working(f"checking {options.target}"):
        return check(
            function,
            *inputs,
            backward=backward,
            reference=reference,
            returns=options.returns,
            parameters=options.parameters,
            gradients=options.gradients,
            intended=options.intended and _intended(options.intended),
            domain=dict(options.domain) or None,
            wrt=options.wrt,
            order=options.order,
            seed=options.seed,
            samples=options.samples,
            dtypes=options.dtypes,
            device=options.device,
            branches=not options.no_branches,
            prove=not options.no_prove,
        )


def _audit(options: Options) -> Report:
    from gradlab.checking import audit

    function, inputs = _function_and_inputs(options)
    pairs = (word.partition("=") for word in options.intended)
    intended = {rule: _intended(target) for rule, _, target in pairs}
    with working(f"auditing {options.target}"):
        return audit(
            function,
            *inputs,
            intended=intended or None,
            domain=dict(options.domain) or None,
            seed=options.seed,
            samples=options.samples,
            branches=not options.no_branches,
            prove=not options.no_prove,
        )


def _jacobian(options: Options) -> Report:
    from gradlab.structure import assert_structure, jacobian

    function, inputs = _function_and_inputs(options)
    claims = {
        "structure": options.structure,
        "elementwise": options.elementwise,
        "independent": options.independent,
        "causal": options.causal,
    }
    with working(f"reading {options.target}"):
        if any(claim is not None and claim is not False for claim in claims.values()):
            J = assert_structure(
                function, *inputs, wrt=options.wrt, conditions=options.conditions, **claims
            )
        else:
            J = jacobian(function, *inputs, wrt=options.wrt, conditions=options.conditions)
        if options.evaluate:
            J.evaluate(options.max_bytes)
    if options.why is None:
        return J.report
    return Said(J.why(None if options.why == "all" else _axis(options.why)))


def _graph(options: Options) -> Report:
    from gradlab.graph.reading import read_graph

    function, inputs = _function_and_inputs(options)
    with working(f"reading {options.target}"):
        graph = read_graph(function, *inputs)
        page, picture = options.format == "html", options.format in ("html", "svg")
        return graph.report(
            options.local_gradients or page,
            options.decimals,
            options.heat_maps if picture else False,
            checks=options.checks or page,
        )


def _precision(options: Options) -> Report:
    from gradlab.numerics import precision

    function, inputs = _function_and_inputs(options)
    with working(f"measuring {options.target}"):
        return precision(
            function, *inputs, dtypes=options.dtypes, devices=options.devices, seed=options.seed
        )


def _sweep(options: Options) -> Report:
    from gradlab.numerics.sweep import sweep

    function = load(options.target)
    with working(f"sweeping {options.target}"):
        return sweep(function, options.dtypes, options.all, options.jobs)


def _doctor(options: Options) -> Report:
    from gradlab.numerics import doctor

    return doctor()


COMMANDS = (
    Command(
        "verify",
        "the hand-written nodes against jax.grad and jax.jacfwd",
        "gradlab verify softmax matmul --thorough",
        _verify_words,
        _verify,
    ),
    Command(
        "nodes", "the list of nodes, or one node's page", "gradlab nodes softmax", _names, _nodes
    ),
    Command(
        "check",
        "a custom layer's gradient: is it right, which entry is wrong, and why",
        "gradlab check layers:rms_norm 8x64 64 --samples 3",
        _check_words,
        _check,
    ),
    Command(
        "audit",
        "every custom rule inside a model",
        "gradlab audit model:forward --inputs model:example",
        _audit_words,
        _audit,
    ),
    Command(
        "jacobian",
        "structure and sparsity of a Jacobian, proved from the program",
        "gradlab jacobian layers:attention 8x64x32 --wrt 0",
        _jacobian_words,
        _jacobian,
    ),
    Command(
        "graph",
        "the computational graph with its values and gradients",
        "gradlab graph layers:mlp 32x64 64x10 -o mlp.svg",
        _graph_words,
        _graph,
    ),
    Command(
        "precision",
        "gradient error by dtype and device",
        "gradlab precision layers:attention 8x64x32 --dtypes bfloat16,float16",
        _precision_words,
        _precision,
    ),
    Command(
        "sweep",
        "how many digits a gradient keeps over a whole dtype",
        "gradlab sweep layers:gelu --dtypes float16 -o gelu.svg",
        _sweep_words,
        _sweep,
    ),
    Command(
        "doctor",
        "what JAX sees: devices, x64, matmul precision",
        "gradlab doctor --format json",
        lambda parser: None,
        _doctor,
    ),
)


def _function_and_inputs(options: Options) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    function = load(options.target)
    if options.inputs is None:
        inputs = drawn_inputs(options.specs, options.seed)
    elif options.specs:
        raise InputError("--inputs: it gives all inputs; leave out SHAPE[:DTYPE] or --inputs")
    else:
        inputs = load_inputs(options.inputs, function)
    require_fitting(function, inputs, options.target)
    return function, inputs


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
            raise InputError(f"--why: it is text; leave out --format {format}, or leave out --why")
        return self.text


def _intended(target: str) -> Any:
    return target if target == "any" else load(target, "--intended")


def _axis(words: str) -> int | tuple[int, int]:
    first, _, second = words.partition(",")
    return (int(first), int(second)) if second else int(first)


def _conditions(words: str) -> tuple[str | float, ...]:
    found: list[str | float] = []
    for word in words.split(","):
        try:
            found.append(float(word))
        except ValueError:
            found.append(word)
    return tuple(found)


def _domain(words: str) -> tuple[str, Any]:
    """Return an input's name, and its legal values: a word, or two ends of which one may lack."""
    name, _, legal = words.partition("=")
    low, dots, high = legal.partition("..")
    if not dots:
        return name, legal
    return name, (float(low) if low else None, float(high) if high else None)


def _list(words: str) -> list[str]:
    return words.split(",")


def _places(words: str) -> list[str | int]:
    return [int(word) if word.lstrip("-").isdigit() else word for word in words.split(",")]
