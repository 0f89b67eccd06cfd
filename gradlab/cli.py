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
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from gradlab import __version__
from gradlab._commands import COMMANDS
from gradlab.arguments import nearest_of
from gradlab.errors import GradlabError, InputError
from gradlab.files import write_whole
from gradlab.formatting import legible, listed

if TYPE_CHECKING:
    from gradlab.report import Report

_FORMATS = {
    "text": (".txt",),
    "json": (".json",),
    "junit": (".xml",),
    "html": (".html", ".htm"),
    "svg": (".svg",),
    "dot": (".dot", ".gv"),
    "mermaid": (".mmd", ".mermaid"),
}
_STATUSES = "exit status: 0 right, 1 wrong or undecided, 2 the command was wrong"
_SEEDED = ("check", "audit", "jacobian")
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
    words = list(sys.argv[1:] if arguments is None else arguments)
    _Parser.words = words
    options, later = parser.parse_known_args(words)
    inputs = getattr(options, "specs", getattr(options, "names", None))
    unknown = [word for word in later if word.startswith("-") or inputs is None]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if later and inputs is not None:
        inputs += later  # argparse stops at the first option; what follows is an input, too
    if options.command is None:
        parser.print_help()
        return 2
    if options.command == "explain":
        return _explain(options.code, options.api, options.output)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    from gradlab.reporting import detailed, fitted, repeated_by

    try:
        options.format = _format(options)
        report = options.run(options)
        repeat = _command(words)
        width = _terminal_width(options.output)
        with fitted(width), detailed(options.verbose), repeated_by(repeat):
            text = report.render(options.format)
            told = options.format != "text" and getattr(report, "refuted", "")
            if told:
                print(legible(_typed(report.render("text"), options.command)), file=sys.stderr)
        if options.format == "text":
            text = _typed(text, options.command)
        if options.verbose and options.format == "text":
            text += _times(getattr(options, "spent", {}))
        _put(text, options.output)
        if options.output is not None and _status(report) and not told:
            headline = str(report).partition("\n")[0]
            print(f"{legible(headline)}\n  See {options.output}", file=sys.stderr)
        if getattr(options, "patch", None):
            _patch(report, options.patch)
    except GradlabError as error:
        cause = error.__cause__
        while isinstance(cause, GradlabError) and cause.__cause__ is not None:
            cause = cause.__cause__
        _show_cause(cause, always=False)
        said = [f"gradlab {options.command}: {error}", *getattr(error, "__notes__", ())]
        said = [_typed(each, options.command) for each in said]
        said += _next(str(error), error.instead, words, options.command)
        print(*map(legible, said), sep="\n  ", file=sys.stderr)
        return 2
    except Exception as error:
        _show_cause(error, always=True)
        print(
            f"gradlab {options.command}: {options.target} raised the error above", file=sys.stderr
        )
        return 2
    return _status(report)


_ARGUMENT = re.compile(
    r"((?:pass|give|with|or|which:) | \()([a-z_]+)=(\(.*?\)|\{.*?\}|(['\"]).*?\4|[\w.+-]*)"
)


def _typed(text: str, command: str) -> str:
    """Return a text in which arguments of Python are the options that the shell takes.

    Example:
        >>> _ = _parser()
        >>> _typed("pass conditions=1e6, or wrt=('x', 'w')", "jacobian")
        'pass --conditions 1e6, or --wrt x,w'
        >>> _typed("give domain={'x': (0, 1)}, or parameters={'W': 'dW'}", "check")
        'give --domain x=0..1, or --parameters W --gradients dW'
    """

    def typed(found: re.Match[str]) -> str:
        option, value = f"--{found[2].replace('_', '-')}", re.sub(r"[\s'\"]", "", found[3])
        if value.startswith("{"):
            value = re.sub(r"\((\w+),(\w+)\)", r"\1..\2", value[1:-1]).replace(":", "=")
            if option == "--parameters":
                value = value.replace("=", " --gradients ")
        known = option in _OPTIONS[command] and "lambda" not in value
        return f"{found[1]}{option} {value.strip('(),')}".rstrip() if known else found[0]

    return _ARGUMENT.sub(typed, text)


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
    seeded = any(word.startswith("--seed") for word in kept) or kept[0] not in _SEEDED
    return shlex.join(["gradlab", *kept, *([] if seeded else ["--seed", "0"])])


def _patch(report: "Report", path: str) -> None:
    """Write the diffs of the best fixes; say so where there is none."""
    found = [report, *getattr(report, "rules", ()), *getattr(report, "nodes", ())]
    diffs = [each.fixes[0].diff for each in found if getattr(each, "fixes", ())]
    if diffs:
        write_whole(path, "".join(dict.fromkeys(diffs)))
        print(f"--patch: {path} holds the fix; run: patch -p1 < {path}", file=sys.stderr)
    elif not report.ok:
        print(f"--patch: no fix was found, so {path} was not written", file=sys.stderr)


def _explain(code: str | None, api: bool, output: str | None) -> int:
    from gradlab._codes import CODES, explanation

    if api:
        return _tell("Every public name", list(_reference()), output)
    if code is None or code.upper() not in CODES:
        lines = [f"  {name}  {known.mistake}" for name, known in CODES.items()] if not code else []
        near = (nearest_of(code.upper(), CODES) if code else []) or ["GL103"]
        said = f"there is no code {code}" if code else "pass a code, or --api"
        print(f"gradlab explain: {said}", *lines, file=sys.stderr, sep="\n")
        print(f"  Try: gradlab explain {near[0]}", file=sys.stderr)
        return 2
    title, _, told = explanation(code.upper()).partition("\n")
    return _tell(title, [("", told.strip("\n"))], output)


def _tell(title: str, pages: Sequence[tuple[str, str]], output: str | None) -> int:
    """Print pages, each a title and a text, or write them to a file: to `.html` as one page."""
    if output and output.endswith(_FORMATS["html"]):
        from gradlab.reporting.nodes import reference

        text = reference(title, pages)
    else:
        first = [title] * (len(pages) == 1)
        text = "\n\n".join([*first, *(f"{name}\n\n{each}".strip("\n") for name, each in pages)])
    _put(text, output)
    return 0


def _reference() -> Iterator[tuple[str, str]]:
    """Yield each public name with its call, and its documentation."""
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
            call = re.sub(r"\b(gradlab|collections|typing)(\.\w+)*\.(?=\w)", "", call)
            yield f"{title}{re.sub(r'<[^>]*>', '...', call)}", textwrap.indent(text, "    ")


def _status(report: "Report") -> int:
    return 0 if report.ok else 1


def _next(
    message: str, instead: tuple[str, str], words: Sequence[str], command: str = ""
) -> list[str]:
    """Return the line that ends a message: a command that works."""
    old, new = instead
    word = rf"(?<![\w.]){re.escape(old)}(?![\w.])" if old else "$^"
    mended = [re.sub(word, lambda _: new, each) for each in words]
    if mended != list(words):
        return [f"Try: {shlex.join(['gradlab', *mended])}"]
    told = re.search(rf"gradlab {command} \S", message)
    return [] if told else [f"Help: gradlab {command} --help".replace("  ", " ")]


class _Parser(argparse.ArgumentParser):
    """A parser whose errors say what to type."""

    words: ClassVar[list[str]] = []

    def _print_message(self, message: str, file: Any = None) -> None:
        """Print help and version as every other text."""
        if file is sys.stdout:
            _print(message)
        else:
            super()._print_message(message, file)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the command, and which command works."""
        old, known = "", list[str]()
        if found := re.match(
            r"argument (\S+): invalid choice: '(.*?)' \(choose from (.*)\)", message
        ):
            old, known = found[2], re.findall(r"[\w+]+", found[3])
            said = "there is no command" if found[1] == "COMMAND" else f"{found[1]}: there is no"
            message = f"{said} {old}; choose {', '.join(known)}"
        elif found := re.match(r"unrecognized arguments: (-[^\s=]+)", message):
            old, known = found[1], _OPTIONS.get(self.words[0], [])
            message = f"there is no option {old}"
        elif found := re.match(r"unrecognized arguments: (.*)", message):
            message = f"it takes no further words, and got {found[1]}"
        elif found := re.match(r"argument (\S+): invalid (\w+) value: '(.*)'", message):
            message = (
                f"{found[1]}: expected {_EXPECTED.get(found[2], 'another word')}, got {found[3]}"
            )
        elif found := re.match(r"argument (\S+): expected one argument", message):
            message = f"{found[1]} needs a value"
        elif found := re.match(r"the following arguments are required: (TARGET)", message):
            message = f"give a {found[1]} and its inputs"
        near = (nearest_of(old, known) if old else []) or [""]
        command = self.prog[8:] or next((word for word in self.words if word in _OPTIONS), "")
        told = [f"{f'gradlab {command}'.rstrip()}: {message}"]
        told += _next(message, (old if near[0] else "", near[0]), self.words, command)
        print(*told, sep="\n  ", file=sys.stderr)
        sys.exit(2)


_OPTIONS: dict[str, list[str]] = {}  # of each command
_EXPECTED = {
    "int": "an integer",
    "float": "a number",
    "_axis": "an axis, such as 0, or a pair of axes, such as 0,1",
    "_domain": "NAME=LOW..HIGH, such as x=0..1, or x=positive",
}


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="gradlab",
        description="Check gradients, find the wrong line, and prove the structure of Jacobians.",
        epilog=_STATUSES,
    )
    parser.add_argument("--version", action="version", version=f"gradlab {__version__}")
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")
    for command in COMMANDS:
        words = commands.add_parser(
            command.name,
            help=command.summary,
            description=command.summary.capitalize() + ".",
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
        _OPTIONS[command.name] = [o for action in words._actions for o in action.option_strings]
    words = commands.add_parser(
        "explain",
        help="explain a code such as GL103",
        description="Show the mistake behind a code, a wrong and a right backward, and how gradlab "
        "knows.",
        epilog="example: gradlab explain GL103",
    )
    words.add_argument("code", nargs="?", metavar="CODE", help="code of a failure, such as GL103")
    words.add_argument("--api", action="store_true", help="print a reference of all public names")
    words.add_argument("-o", "--output", metavar="FILE", help="write to FILE, .html or text")
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
            raise InputError(
                f"-o: the suffix of {name} names no format; end it in .html, or pass --format",
                (name, f"{os.path.splitext(name)[0]}.html"),
            )
    known = formats(options.command)
    if chosen is not None and chosen not in known:
        raise InputError(
            f"--format: {options.command} has no {chosen}; its formats are {listed(known)}",
            (chosen, "html"),
        )
    return chosen or "text"


def _terminal_width(output: str | None) -> int | None:
    """Return how wide the terminal is that the report goes to; None where it goes elsewhere."""
    if output is not None or not sys.stdout.isatty():
        return None
    return shutil.get_terminal_size().columns


def _put(text: str, output: str | None) -> None:
    """Print the text, or write it to a file: whole, or not at all."""
    if output is None:
        _print(_painted(text) if text.endswith("\n") else _painted(text) + "\n")
    else:
        write_whole(output, text)


def _print(text: str) -> None:
    """Write to standard output. A reader that has gone has seen enough; a full disk is an error."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # what captures stdout may be something else
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (open until the process ends)
        if isinstance(error, BrokenPipeError):
            return
        print(f"gradlab: standard output cannot be written: {error.strerror}", file=sys.stderr)
        print("  Write to a file on another disk: gradlab ... -o FILE", file=sys.stderr)
        sys.exit(2)


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
