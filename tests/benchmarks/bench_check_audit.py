"""Every public function of jax.nn and jax.scipy.special, audited.

python tests/benchmarks/bench_check.py audit
"""

from typing import Any

import jax
import jax.numpy as jnp

import gradlab

RANGES = {
    "ordinary": (0.3, 0.7, 0.45),
    "negative": (-0.3, -1.7, -2.45),
    "large": (30.0, 80.5, 12.25),
    "small": (1e-3, 2e-5, 3e-4),
    "around 1": (0.999, 1.001, 1.02),
}
SLOW = {("exp1", "small"), ("expn", "small")}  # their series there takes minutes in each draw


def audit() -> None:
    """Every public function of jax.nn and jax.scipy.special, on several ranges of its inputs."""
    for module in (jax.nn, jax.scipy.special):
        for name in sorted(n for n in dir(module) if not n.startswith("_")):
            function = getattr(module, name)
            for label, numbers in RANGES.items():
                x = jnp.array(numbers, jnp.float32)
                fits = [a for a in ((x,), (x, x + 0.2), (x, x + 0.2, x / 2)) if _takes(function, a)]
                if not fits:
                    break
                where = f"{module.__name__}.{name} ({label})"
                if (name, label) in SLOW:
                    print(f"{where}: not audited, it takes minutes", flush=True)
                    continue
                try:
                    found = gradlab.audit(function, *fits[0])
                except gradlab.GradlabError as error:
                    print(f"{where}: {error}", flush=True)
                    continue
                if found.rules:
                    words = "all right" if found.ok else str(found)
                    print(f"{where}: {len(found.rules)} rules, {words}", flush=True)


def _takes(function: Any, arguments: Any) -> bool:
    """Whether a function can be called with these arrays."""
    try:
        jax.eval_shape(function, *arguments)
    except Exception:
        return False
    return True
