"""The command line: `gradlab COMMAND ...`.

Exit status 0: all held. 1: something is wrong with the gradient. 2: the call was wrong, or the
function that was named raised an error, which is then shown with its own traceback.
"""

import argparse
import contextlib
import io
import os
import re
import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from gradlab import __version__
from gradlab._commands import COMMANDS
from gradlab.errors import GradlabError, InputError, StructureMismatch
from gradlab.files import write_whole
from gradlab.formatting import legible

if TYPE_CHECKING:
    from gradlab.report import Report

__all__ = ["main"]

_FORMATS = {
    "text": (".txt",),
    "json": (".json",),
    "junit": (".xml",),
    "html": (".html", ".htm"),
    "svg": (".svg",),
    "dot": (".dot", ".gv"),
    "mermaid": (".mmd", ".mermaid"),
}
_STATUSES = "exit status: 0 all held, 1 something is wrong with the gradient, 2 wrong call"
_PACKAGE = os.path.dirname(__file__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Example:
        >>> main(["nodes", "tanh", "--format", "json"])  # doctest: +ELLIPSIS
        {
          "schema": "gradlab.nodes/1",
        ...
        0
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 2
    if options.command == "explain":
        return _explain(options.code, options.api)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    from gradlab.reporting import detailed, fitted, repeated_by

    try:
        options.format = _format(options)
        report = options.run(options)
        repeat = _command(sys.argv[1:] if arguments is None else arguments)
        width = _terminal_width(options.output)
        with fitted(width), detailed(options.verbose), repeated_by(repeat):
            text = report.render(options.format)
        if options.verbose and options.format == "text":
            text += _times(getattr(options, "spent", {}))
        _put(text, options.output)
        if getattr(options, "patch", None):
            _patch(report, options.patch)
    except StructureMismatch as error:  # a claim of the user's is not proved
        _put(legible(str(error)), options.output)
        return 1
    except GradlabError as error:
        cause = error.__cause__
        while isinstance(cause, GradlabError) and cause.__cause__ is not None:
            cause = cause.__cause__
        _show_cause(cause, always=False)
        notes = getattr(error, "__notes__", ())
        said = legible(f"gradlab {options.command}: {error}")
        print(said, *map(legible, notes), sep="\n  ", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader has seen enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (open until the process ends)
        return _status(report)
    except Exception as error:
        _show_cause(error, always=True)
        print(
            f"gradlab {options.command}: {options.target} raised the error above", file=sys.stderr
        )
        return 2
    return _status(report)


def _times(spent: dict[str, float]) -> str:
    """Return the CPU time of each step, the longest first; nothing where none was measured."""
    steps = sorted(spent.items(), key=lambda step: -step[1])
    return "".join(["\ncpu time"] * bool(steps) + [f"\n  {s:6.2f} s  {name}" for name, s in steps])


def _command(arguments: Sequence[str]) -> str:
    """Return the command that repeats this one, and prints what it finds."""
    kept, skip = [], False
    for word in arguments:
        if not skip and not word.startswith(("--patch=", "--format=", "--output=")):
            skip = word in ("--patch", "--format", "-o", "--output")
            kept += [] if skip or word in ("-v", "--verbose") else [word]
        else:
            skip = False
    return shlex.join(["gradlab", *kept])


def _patch(report: "Report", path: str) -> None:
    """Write the diffs of the best fixes; say so where there is none."""
    found = [report, *getattr(report, "rules", ()), *getattr(report, "nodes", ())]
    diffs = [each.fixes[0].diff for each in found if getattr(each, "fixes", ())]
    if diffs:
        write_whole(path, "".join(dict.fromkeys(diffs)))
    elif not report.ok:
        print(f"--patch: no fix was found, so {path} was not written", file=sys.stderr)


def _explain(code: str | None, api: bool) -> int:
    from gradlab._codes import CODES, explanation

    if api:
        print("\n\n".join(_reference()))
        return 0
    if code is None:
        print("gradlab explain: pass a code, such as GL103, or --api", file=sys.stderr)
        return 2
    if code.upper() not in CODES:
        known = ", ".join(CODES)
        print(f"gradlab explain: {code} is no code; the codes are {known}", file=sys.stderr)
        return 2
    print(explanation(code.upper()))
    return 0


def _reference() -> Iterator[str]:
    """Yield a page of the public names: each with its call and its documentation."""
    import inspect

    import gradlab

    for name in gradlab.__all__:
        value = getattr(gradlab, name)
        methods = [
            (f"{name}.{each}", member)
            for each, member in (vars(value).items() if isinstance(value, type) else ())
            if not each.startswith("_") and inspect.isfunction(member) and member.__doc__
        ]
        for title, member in [(name, value), *methods]:
            call = ""
            with contextlib.suppress(TypeError, ValueError):
                call = str(inspect.signature(member))
            text = inspect.getdoc(member) or ""
            yield f"{title}{re.sub(r'<[^>]*>', '...', call)}\n\n" + textwrap.indent(text, "    ")


def _status(report: "Report") -> int:
    return 0 if report.ok else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gradlab",
        description="Is the gradient right, which entry is wrong and why, and what shape has its "
        "Jacobian? Verified by JAX.",
        epilog=_STATUSES,
    )
    parser.add_argument("--version", action="version", version=f"gradlab {__version__}")
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")
    for command in COMMANDS:
        words = commands.add_parser(
            command.name,
            help=command.summary,
            description=command.summary[0].upper() + command.summary[1:] + ".",
            epilog=f"example: {command.example} ({_STATUSES})",
        )
        command.add_words(words)
        words.add_argument(
            "--format", choices=_FORMATS, help="default: by the suffix of FILE, else text"
        )
        words.add_argument("-o", "--output", metavar="FILE", help="write to FILE")
        words.add_argument(
            "-v",
            "--verbose",
            action="store_true",
            help="show every law and the CPU time of each step",
        )
        words.set_defaults(command=command.name, run=command.run, target=command.name)
    words = commands.add_parser(
        "explain",
        help="what a code such as GL103 means",
        description="What a code means: the mistake, a wrong and a right example, and how gradlab "
        "knows.",
        epilog="example: gradlab explain GL103",
    )
    words.add_argument("code", nargs="?", metavar="CODE", help="code of a failure, such as GL103")
    words.add_argument("--api", action="store_true", help="print a reference of all public names")
    words.set_defaults(command="explain")
    return parser


def _format(options: argparse.Namespace) -> str:
    """Return the format that was asked for, before any work is done for it."""
    from gradlab.reporting import formats

    chosen: str | None = options.format
    if options.output is not None:
        folder, name = os.path.split(options.output)
        if folder and not os.path.isdir(folder):
            raise InputError(f"-o: there is no folder {folder}")
        suffixes = {suffix: format for format, all in _FORMATS.items() for suffix in all}
        chosen = chosen or suffixes.get(os.path.splitext(name)[1].lower())
        if chosen is None:
            raise InputError(f"-o: {name} has no suffix that tells a format; pass --format")
    known = formats(options.command)
    if chosen is not None and chosen not in known:
        raise InputError(f"--format: {options.command} can be drawn as {', '.join(known)}")
    return chosen or "text"


def _terminal_width(output: str | None) -> int | None:
    """Return how wide the terminal is that the report goes to; None where it goes elsewhere."""
    if output is not None or not sys.stdout.isatty():
        return None
    return shutil.get_terminal_size().columns


def _put(text: str, output: str | None) -> None:
    """Print the text, or write it to a file: whole, or not at all."""
    if output is None:
        if isinstance(sys.stdout, io.TextIOWrapper):  # what captures stdout may be something else
            sys.stdout.reconfigure(errors="backslashreplace")
        sys.stdout.write(_painted(text) if text.endswith("\n") else _painted(text) + "\n")
        sys.stdout.flush()
        return
    write_whole(output, text)


def _painted(text: str) -> str:
    """Return the text with its verdicts in colour, on a terminal that wants colour."""
    asked = "FORCE_COLOR" in os.environ or sys.stdout.isatty()
    if not asked or os.environ.get("NO_COLOR"):
        return text
    colours = {"32": r"\b(ok|passed|proved)\b", "31": r"\b(FAIL|WRONG|wrong|failed|NaN|nan)\b"}
    for colour, words in {**colours, "33": r"\b(warned|inconclusive|undecided)\b"}.items():
        text = re.sub(words, f"\x1b[{colour}m\\1\x1b[0m", text)
    return text


def _show_cause(error: BaseException | None, always: bool) -> None:
    """Print the traceback of an error in the user's code, without gradlab's and JAX's frames.

    Where none of it is the user's, print all if `always`: a fault of gradlab itself is not hidden.
    """
    import traceback

    if error is None:
        return
    frames = [f for f in traceback.extract_tb(error.__traceback__) if _is_users(f.filename)]
    if not frames:
        if always:
            traceback.print_exception(error)
        return
    print("Traceback (most recent call last):", file=sys.stderr)
    print("".join(traceback.format_list(frames)), end="", file=sys.stderr)
    said = "".join(traceback.format_exception_only(error))
    print(said.partition("\n-----")[0].rstrip(), file=sys.stderr)  # JAX adds how it filters


def _is_users(path: str) -> bool:
    """Return whether a file is the user's: not gradlab's, JAX's or Python's own."""
    import sysconfig

    python = path.startswith(sysconfig.get_path("stdlib")) and "site-packages" not in path
    ours = path.startswith((_PACKAGE, "<frozen")) or path == sys.argv[0]
    return not (python or ours or re.search(r"/site-packages/jax(lib)?/", path))
