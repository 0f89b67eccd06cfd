"""How `gradlab.check` does, measured: the fault corpus beside other checkers, resolution, cost.

    python tests/benchmarks/bench_check.py [PART ...]

Parts: detection, alarms, resolution, cold, located, large, audit; all by default. `--seeds 0:20`
and `--scales 1e-3,1,mixed` set how far the false-alarm run goes, `--operations NAME ...` picks some
of the corpus. torch is used if it is installed.
"""

import argparse
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import jax.numpy as jnp
import numpy as np
from bench_check_audit import audit
from bench_check_cost import cold, large, located, resolution, time_one
from bench_check_peers import PEERS
from corpus.index import OPERATIONS, as_custom_vjp, cast
from corpus.model import Draw

import gradlab

DTYPES = ("float64", "float32", "bfloat16", "float16", "complex128", "complex64")


def report_of(op: Any, backward: Any, inputs: Any, dtype: str, form: str) -> Any:
    xp = np if form == "numpy" else jnp
    x = cast(inputs, dtype, jax=form != "numpy")
    if form == "rule":
        return gradlab.check(as_custom_vjp(op, backward), *x)
    return gradlab.check(
        lambda *a: op.forward(xp, *a), *x, backward=lambda g, *a: backward(xp, g, *a)
    )


def detection(operations: list[Any]) -> None:
    """Every fault and every right backward in every dtype: gradlab beside other checkers."""
    counts, named = Counter(), Counter()
    for n, op in enumerate(operations, 1):
        for subject in (op, *(fault for fault in op.faults if not fault.hidden)):
            for dtype in subject.dtypes:
                inputs, wrong = subject.make(0), subject is not op
                asked = subject.form == "any" and not op.large and not (wrong and subject.shape)
                report = report_of(op, subject.backward, inputs, dtype, _form(subject))
                rejects = {"gradlab.check": bool(report.failed)}
                if asked:
                    for name, (peer, dtypes) in PEERS.items():
                        if dtype in dtypes:
                            rejects[name] = peer(op, subject.backward, inputs, dtype)
                group = "of each" if asked else "gradlab alone"
                counts.update(
                    (name, dtype, group, wrong, verdict) for name, verdict in rejects.items()
                )
                if wrong:
                    named[_naming(subject, report)] += 1
                    if _naming(subject, report)[1] == "wrong" or not report.failed:
                        print(f"  {subject.id} {dtype}: {report}")
                elif not report.ok:
                    print(f"  {op.name} {dtype} is right: {report}")
        if n % 10 == 0:
            print(f"  {n} of {len(operations)} operations", flush=True)
    _print_table(counts, "of each", ("gradlab.check", *PEERS))
    print(
        "Faults and rules that the others cannot be asked about (NumPy, wrong shapes, keys, 10^6):"
    )
    _print_table(counts, "gradlab alone", ("gradlab.check",))
    print("diagnosis (one is listed for the fault, what came):", dict(named))


def _form(subject: Any) -> str:
    """Return how a backward is given to gradlab."""
    if subject.form == "numpy":
        return "numpy"
    return "backward" if getattr(subject, "shape", False) else "rule"


def _naming(fault: Any, report: Any) -> tuple[bool, str]:
    """Return whether a diagnosis is listed for the fault, and what gradlab's was."""
    kinds = {finding.kind for finding in report.findings}
    right = kinds <= set(fault.diagnosis)
    return bool(fault.diagnosis), ("right" if right else "wrong") if kinds else "none"


def _print_table(counts: Counter[Any], group: str, names: tuple[str, ...]) -> None:
    print(f"{'dtype':12}{'checker':22}{'faults found':>16}{'right rejected':>18}")
    for dtype in DTYPES:
        for name in names:
            cells = []
            for wrong in (True, False):
                hit, missed = (counts[name, dtype, group, wrong, v] for v in (True, False))
                cells.append(f"{hit} of {hit + missed}" if hit + missed else "-")
            if cells != ["-", "-"]:
                print(f"{dtype:12}{name:22}{cells[0]:>16}{cells[1]:>18}")


def alarms(operations: list[Any], seeds: range, scales: list[float | str]) -> None:
    """Every correct backward in every dtype, at many seeds and scales: false alarms."""
    wrong, undecided, total = 0, 0, 0
    for op in operations:
        start, before = time.perf_counter(), total
        for dtype in op.dtypes:
            few = seeds[:1] if op.large else seeds
            cases = [(f"seed {n} scale {s}", op.make(n, s)) for n in few for s in scales]
            if 0 in seeds:
                cases += [(f"special {k}", make(Draw(0))) for k, make in enumerate(op.special)]
            for where, inputs in cases:
                if not _held(inputs, dtype):
                    continue
                report = report_of(op, op.backward, inputs, dtype, "rule")
                total += 1
                undecided += bool(report.undecided) and not report.failed
                wrong += bool(report.failed)
                for law in report.failed:
                    print(f"  {op.name} {dtype} {where}: {law.name}: {law.reason}", flush=True)
        seconds = time.perf_counter() - start
        print(f"{op.name}: {total - before} checks, {wrong} so far, {seconds:.0f} s", flush=True)
    print(f"{wrong} false alarms, {undecided} undecided, in {total} checks of right backwards")


def _held(inputs: Any, dtype: str) -> bool:
    """Whether a dtype holds the inputs: float16 makes zeros of 1e-9 and infinities of 1e5."""
    narrow = [np.asarray(x).astype(np.complex128) for x in cast(inputs, dtype, jax=False)]
    return all(np.all(((a == 0) <= (x == 0)) & np.isfinite(a)) for a, x in zip(narrow, inputs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*")
    parser.add_argument("--seeds", default="0:20")
    parser.add_argument("--scales", default="1e-9,1e-3,1,1e3,mixed")
    parser.add_argument("--operations", nargs="*", default=list(OPERATIONS))
    parser.add_argument("--layer")
    parser.add_argument("--tool")
    options = parser.parse_args()
    if options.layer:
        time_one(options.layer, options.tool)
        return
    seeds = range(*map(int, options.seeds.split(":")))
    scales = [s if s == "mixed" else float(s) for s in options.scales.split(",")]
    operations = [OPERATIONS[name] for name in options.operations]
    parts = {
        "detection": lambda: detection(operations),
        "alarms": lambda: alarms(operations, seeds, scales),
        "resolution": resolution,
        "cold": cold,
        "located": located,
        "large": large,
        "audit": audit,
    }
    for name in options.parts or parts:
        print(f"--- {name}", flush=True)
        parts[name]()


if __name__ == "__main__":
    main()
