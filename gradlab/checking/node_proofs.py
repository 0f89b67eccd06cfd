"""Prove a node's backward: one formula with autodiff of its reference, case by case."""

from collections.abc import Sequence

import jax
import numpy as np

from gradlab.checking.node_runs import Run, prepare
from gradlab.common.arrays import Array
from gradlab.errors import GradlabError
from gradlab.nodes._base import Case
from gradlab.proof import LONG, Proof, prove
from gradlab.report import Evidence
from gradlab.tracing import trace


def node_evidence(cases: Sequence[Case], seed: int) -> dict[str, Evidence]:
    """Return, for each input of a node, whether all cases prove its gradient."""
    found: dict[str, list[Proof]] = {}
    for case in cases:
        run = prepare(case, seed, np.dtype(np.float64))
        for i, proof in zip(run.wrt, prove_case(run, seed)):
            found.setdefault(run.node.input_name(i), []).append(proof)
    return {name: _evidence(proofs) for name, proofs in found.items()}


def _evidence(proofs: Sequence[Proof]) -> Evidence:
    tried = {"points": len(proofs)}
    if not all(proof.proved for proof in proofs):
        return Evidence(grade="points", tried=tried)
    return Evidence(
        grade="proved",
        also=("points",),
        bound=max(proof.bound for proof in proofs),
        assumes=tuple(dict.fromkeys(text for proof in proofs for text in proof.assumes)),
        tried=tried,
    )


def prove_case(run: Run, seed: int) -> list[Proof]:
    """Try to prove each gradient that a node's backward returns."""
    count, outputs = len(run.inputs), len(run.upstream)

    def rule(*arrays: Array) -> list[Array]:
        hand = run.by_hand(arrays[:count], arrays[count:])
        return [hand.gradients[i] for i in run.wrt]

    def reference(*arrays: Array) -> list[Array]:
        inputs, upstream = arrays[:count], arrays[count:]
        _, backward = jax.vjp(run.reference(inputs), *(inputs[i] for i in run.wrt))
        return list(backward(tuple(upstream)))

    names = [f"input {k}" for k in range(count)] + [f"upstream {k}" for k in range(outputs)]
    arrays = [np.asarray(array) for array in (*run.inputs, *run.upstream)]
    try:
        with jax.enable_x64(True):
            programs = [trace(f, *arrays, names=names) for f in (rule, reference)]
    except GradlabError as error:
        return [Proof(False, reason=str(error)) for _ in run.wrt]
    point = dict(zip(names, arrays))
    return prove(programs[0], programs[1], point, range(len(run.wrt)), seed, LONG)
