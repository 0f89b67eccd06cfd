"""The trial that sets the limit: correct and wrong rules over dtypes and scales, in floors.

    python tests/benchmarks/bench_floors.py [--cases NAME ...] [--seeds N]

Every rule is judged twice: lifted to float64 (law "formula"), and as it runs in its own dtype
(law "accuracy"). Correct rules are JAX's own and other spellings of the same mathematics; wrong
ones are mistakes that people make, and 0, -q, 2q and one entry off. The table shows the worst
correct rule in floors, how many correct leaves were called wrong, the share of entries excused
(autodiff fails there in this dtype, too) or too small to tell, and which wrong ones were caught.
"""

import argparse
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from bench_floors_cases import CASES, Case

from gradlab.references import Estimate, Evaluation, Verdict, judge, vjp_program
from gradlab.tracing import rename, trace

DTYPES = ("float64", "float32", "bfloat16", "float16")
KINDS = ("1e-3", "1", "1e3", "mixed", "saturated", "offset")
DOUBLE_ONLY = ("solve", "cholesky", "log det", "inverse", "spectrum", "interpolate")
# LAPACK, FFT and jnp.interp know no half precision


def make_inputs(case: Case, kind: str, dtype: str, seed: int) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    inputs = []
    for shape in case.shapes:
        x = generator.normal(size=shape)
        if kind == "mixed":
            x *= 10.0 ** generator.uniform(-6, 0, shape)
        elif kind == "saturated":
            x *= 30.0
        elif kind == "offset":
            x += 100.0
        else:
            x *= float(kind)
        if case.domain == "positive":
            x = np.abs(x) + 1e-6
        elif case.domain == "unit":
            x = 1 / (1 + np.exp(-np.clip(x, -6, 6)))
        elif case.domain == "definite" and len(shape) == 2:
            x = x @ x.T + np.max(np.abs(x)) * np.eye(len(x))
        inputs.append(x.astype(jnp.dtype(dtype)))
    return inputs


class Trial:
    """One case in one dtype: everything in float64 is compiled once, then used for all inputs."""

    def __init__(self, case: Case, dtype: str) -> None:
        self.case, self.dtype, self.x64 = case, dtype, dtype == "float64"
        inputs = make_inputs(case, "1", dtype, 0)
        program = trace(case.function, *inputs)
        names = [f"input {i}" for i in range(len(inputs))]
        program = rename(program, names)
        self.outputs = len(program.out_names)
        reference = vjp_program(program)
        self.upstream = reference.in_names[len(inputs) :]
        self.aval = program.out_avals[0]
        g = np.ones(self.aval.shape, self.aval.dtype)
        rules = {**case.rules, **{f"wrong {k}": v for k, v in case.wrong.items()}}
        self.programs = {"reference": reference}
        for key, rule in rules.items():
            traced = trace(lambda g, *x, rule=rule: list(rule(g, *x)), g, *inputs)
            self.programs[key] = rename(traced, [*self.upstream, *names])
        self.lab = Evaluation(**self.programs)
        self.runners = {key: jax.jit(program.flat) for key, program in self.programs.items()}

    def estimates(self, kind: str, seed: int) -> Any:
        inputs = make_inputs(self.case, kind, self.dtype, seed)
        generator = np.random.default_rng(seed + 1000)
        g = generator.normal(size=self.aval.shape).astype(self.aval.dtype)
        values = {f"input {i}": x for i, x in enumerate(inputs)} | {self.upstream[0]: g}
        formula = self.lab.estimates(values, law="formula", seed=seed)
        accuracy = self.lab.estimates(values, law="accuracy", seed=seed)
        ran = {}
        with jax.enable_x64(self.x64):
            for key, program in self.programs.items():
                arrays = self.runners[key](*(values[name] for name in program.in_names))
                ran[key] = [np.asarray(a) for a in arrays]
        return formula, accuracy, ran

    def gradients(self, key: str, arrays: list[Any]) -> list[Any]:
        return arrays[self.outputs :] if key == "reference" else arrays

    def judged(self, kind: str, seed: int) -> Any:
        """Yield (law, rule, leaf, verdict, actual, reference, own estimate)."""
        formula, accuracy, ran = self.estimates(kind, seed)
        for key in self.programs:
            for leaf, reference in enumerate(self.gradients("reference", formula["reference"])):
                own = self.gradients(key, formula[key])[leaf]
                yield "formula", key, leaf, own.value, reference, own, "float64"
            for leaf, reference in enumerate(self.gradients("reference", accuracy["reference"])):
                own = self.gradients(key, accuracy[key])[leaf]
                actual = self.gradients(key, ran[key])[leaf]
                yield "accuracy", key, leaf, actual, reference, own, self.dtype


def generic_wrongs(actual: Any, own: Estimate, seed: int) -> dict[str, tuple[Any, Estimate]]:
    """Return wrong gradients made from a right one, with the scatter that they would have."""
    value = np.asarray(actual, np.complex128 if np.iscomplexobj(actual) else np.float64)
    one = value.copy().reshape(-1)
    if one.size:
        one[np.random.default_rng(seed).integers(one.size)] *= 0
    return {
        "0": (value * 0, Estimate(value * 0, own.scatter * 0)),
        "-q": (-value, own),
        "2q": (2 * value, Estimate(value, own.scatter * 2)),
        "one entry 0": (one.reshape(value.shape), own),
    }


@dataclass(frozen=True)
class Row:
    """One leaf of one rule, judged."""

    case: str
    dtype: str
    kind: str
    law: str
    rule: str
    leaf: int
    wrong: bool
    shows: bool  # for a wrong rule: some entry is off by a tenth or more
    verdict: Verdict
    excused: int = 0

    @property
    def worst(self) -> float:
        error = np.where(self.verdict.inconclusive, 0.0, self.verdict.error)
        return float(np.max(np.nan_to_num(error, posinf=1e30), initial=0.0))


def run(cases: list[Case], dtypes: tuple[str, ...], kinds: tuple[str, ...], seeds: int) -> Any:
    """Run the trial and return its rows."""
    rows = []
    for case in cases:
        print(case.name, file=sys.stderr, flush=True)
        for dtype in dtypes:
            if case.name in DOUBLE_ONLY and dtype in ("bfloat16", "float16"):
                continue
            trial = Trial(case, dtype)
            for kind in kinds:
                for seed in range(seeds):
                    rows += _rows(trial, kind, seed)
    return rows


def _rows(trial: Trial, kind: str, seed: int) -> list[Row]:
    rows, peers, lifted = [], {}, {}
    for law, key, leaf, actual, reference, own, unit in trial.judged(kind, seed):
        where = (trial.case.name, trial.dtype, kind, law, key, leaf)
        verdict = judge(actual, reference, own, unit)
        q = reference.value
        if law == "formula":
            lifted[key, leaf] = actual
        if key.startswith("wrong"):
            shows = _differ(lifted[key, leaf], q)
            rows.append(Row(*where, wrong=True, shows=shows, verdict=verdict))
            continue
        if law == "accuracy":  # autodiff in the same dtype: does it fail there, too?
            peer = peers.setdefault(leaf, verdict)
            excused = int((verdict.wrong & peer.wrong).sum())
            verdict = verdict.excused_by(peer)
            rows.append(Row(*where, wrong=False, shows=False, verdict=verdict, excused=excused))
        else:
            rows.append(Row(*where, wrong=False, shows=False, verdict=verdict))
        for name, (value, estimate) in generic_wrongs(actual, own, seed).items():
            bad = judge(value, reference, estimate, unit)
            where = (*where[:4], f"wrong {name} of {key}", leaf)
            rows.append(Row(*where, wrong=True, shows=_differ(value, q), verdict=bad))
    return rows


def _differ(value: Any, q: Any) -> bool:
    with np.errstate(all="ignore"):
        return bool(np.any(np.isfinite(q) & (np.abs(value - q) > 0.1 * np.abs(q))))


def table(rows: list[Row]) -> str:
    """Return the table: per law and dtype, the worst correct rule and the wrong rules caught."""
    groups: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.law, row.dtype].append(row)
    lines = ["law       dtype     correct  worst  false  excused  unsure |  wrong  caught  unsure"]
    for (law, dtype), group in groups.items():
        correct = [r for r in group if not r.wrong]
        wrong = [r for r in group if r.wrong and r.shows]
        entries = sum(r.verdict.error.size for r in correct)
        unsure = sum(int(r.verdict.inconclusive.sum()) for r in correct) / max(entries, 1)
        excused = sum(r.excused for r in correct) / max(entries, 1)
        caught = sum(bool(r.verdict.wrong.any()) for r in wrong) / max(len(wrong), 1)
        false = sum(bool(r.verdict.wrong.any()) for r in correct)
        lines.append(
            f"{law:9} {dtype:9} {len(correct):7} {max(r.worst for r in correct):6.2f} {false:6} "
            f"{excused:8.2%} {unsure:7.2%} | {len(wrong):6} {caught:7.2%} {1 - caught:7.2%}"
        )
    return "\n".join(lines)


def limits(rows: list[Row]) -> str:
    """Return how many verdicts on whole leaves a limit from 2 to 32 would have got wrong."""
    lines = ["limit  correct leaves failed  wrong leaves caught"]
    wrong = [r for r in rows if r.wrong and r.shows]
    for limit in (2, 3, 4, 6, 8, 12, 16, 32):
        failed = sum(r.worst > limit for r in rows if not r.wrong)
        caught = sum(float(np.nanmax(r.verdict.error, initial=0)) > limit for r in wrong)
        lines.append(f"{limit:5} {failed:22} {caught / max(len(wrong), 1):20.2%}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="*")
    parser.add_argument("--dtypes", nargs="*", default=list(DTYPES))
    parser.add_argument("--kinds", nargs="*", default=list(KINDS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--details", action="store_true")
    options = parser.parse_args()
    cases = [c for c in CASES if not options.cases or c.name in options.cases]
    start = time.perf_counter()
    with np.errstate(all="ignore"):
        rows = run(cases, tuple(options.dtypes), tuple(options.kinds), options.seeds)
    print(table(rows), limits(rows), sep="\n\n")
    for row in rows if options.details else ():
        text = (row.case, row.dtype, row.kind, row.law, row.rule, row.leaf)
        if not row.wrong and row.worst > 3:
            print("worst", *text, f"{row.worst:.3g} floors", row.verdict.worst)
        if row.wrong and row.shows and not row.verdict.wrong.any():
            print("not caught", *text, int(row.verdict.right.sum()), "right")
    print(f"{len(cases)} operations, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
